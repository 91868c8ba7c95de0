//! The same machine through every container and codec: the same frames, the same log.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod support;

use fixtures::codec::Codec;
use fixtures::elf::{Elf, Layout};
use fixtures::flattened::Flattened;
use fixtures::kdump::Kdump;
use fixtures::machine::log::dmesg;
use fixtures::machine::{Built, Machine};
use fixtures::shuffle::Seed;
use support::{assert_same_memory, log, open};
use vmcore::{Dump, OpenOptions};

fn kdump(built: &Built, codec: Codec) -> Kdump {
    Kdump { notes: built.notes.clone(), phys_base: built.phys_base, cpus: 2, ..Kdump::of(codec) }
}

fn elf(machine: &Machine, built: &Built) -> Elf {
    Elf {
        notes: built.notes.clone(),
        page_offset: built.page_offset,
        first: vec![machine.text_segment(built)],
        ..Elf::default()
    }
}

fn assert_whole(name: &str, dump: &Dump, built: &Built) {
    assert!(dump.completeness().is_complete(), "{name}: {:?}", dump.completeness());
    assert_eq!(dump.completeness().repairs, [""; 0], "{name}");
    assert_same_memory(name, dump, &built.memory);
    assert_eq!(log(dump), Ok((dmesg(&built.lines), true)), "{name}");
    assert_eq!(dump.prstatus().len(), 2, "{name}");
}

#[test]
fn every_codec_and_version_gives_the_same_frames_and_log() {
    let built = Machine::default().build();
    for codec in Codec::ALL {
        for version in 3..=6 {
            let name = format!("{} v{version}", codec.name());
            let dump = open(Kdump { version, ..kdump(&built, codec) }.build(&built.memory).bytes()).unwrap();
            assert_same_memory(&name, &dump, &built.memory);
            assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)), "{name}");
            assert_eq!(dump.facts().header_version, Some(version), "{name}");
            if version >= 4 {
                assert_whole(&name, &dump, &built);
            }
        }
    }
}

#[test]
fn a_version_without_room_for_vmcoreinfo_finds_it_in_memory() {
    let built = Machine::default().build();
    for version in 1..=2 {
        let dump = Kdump { version, ..kdump(&built, Codec::Zlib) }.build(&built.memory);
        let dump = open(dump.bytes()).unwrap();
        assert_same_memory("old", &dump, &built.memory);
        assert_eq!(dump.vmcoreinfo_raw(), None);
        assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)), "v{version}");
    }
}

#[test]
fn the_shape_of_a_kdump_file_does_not_matter() {
    let built = Machine::default().build();
    let shapes = [
        ("shuffled data", Kdump { shuffled: Some(Seed(9)), ..kdump(&built, Codec::Lzo) }),
        ("zero pages of their own", Kdump { share_zero_page: false, ..kdump(&built, Codec::Zlib) }),
        ("a large sub header", Kdump { extra_sub_header_blocks: 300, ..kdump(&built, Codec::Zstd) }),
        ("erase info", Kdump { eraseinfo: Some("erase jiffies 8\n".into()), ..kdump(&built, Codec::Snappy) }),
    ];
    for (name, shape) in shapes {
        let dump = open(shape.build(&built.memory).bytes()).unwrap();
        assert_whole(name, &dump, &built);
        if shape.eraseinfo.is_some() {
            assert_eq!(dump.facts().erase_info.as_deref(), Some("erase jiffies 8\n"));
        }
    }
}

#[test]
fn elf_of_the_kernel_of_makedumpfile_and_of_qemu() {
    let machine = Machine::default();
    let built = machine.build();
    let shapes = [
        ("kernel", elf(&machine, &built)),
        ("qemu", Elf { layout: Layout::Qemu, page_offset: 0, first: Vec::new(), ..elf(&machine, &built) }),
        ("one segment a frame", Elf { frames_per_segment: Some(1), ..elf(&machine, &built) }),
        ("extended numbering", Elf { extended_numbering: true, ..elf(&machine, &built) }),
        ("qemu, extended", Elf { layout: Layout::Qemu, extended_numbering: true, ..elf(&machine, &built) }),
    ];
    for (name, shape) in shapes {
        let dump = open(shape.build(&built.memory).bytes()).unwrap();
        assert_whole(name, &dump, &built);
        assert_eq!(dump.facts().format, "elf");
    }
}

#[test]
fn flattened_streams_of_either() {
    let machine = Machine::default();
    let built = machine.build();
    let payloads =
        [kdump(&built, Codec::Zstd).build(&built.memory), elf(&machine, &built).build(&built.memory)];
    let streams = [
        Flattened::default(),
        Flattened { record_size: 333, shuffled: Some(Seed(1)), ..Flattened::default() },
        Flattened { record_size: 4096, overwritten: true, ..Flattened::default() },
        Flattened { record_size: 512, skip_zeros: true, ..Flattened::default() },
    ];
    for payload in &payloads {
        for stream in &streams {
            let dump = open(stream.build(payload).bytes()).unwrap();
            assert_whole(&format!("{stream:?}"), &dump, &built);
            assert_eq!(dump.facts().containers.first(), Some(&"flattened"));
        }
    }
}

#[test]
fn the_parts_of_a_split_set_in_any_order() {
    let built = Machine::default().build();
    let folder = tempfile::tempdir().unwrap();
    let flat = Flattened { record_size: 1000, ..Flattened::default() };
    let mut paths = Vec::new();
    for (number, part) in (0..).zip(kdump(&built, Codec::Lzo).split(&built.memory, 4)) {
        // One part of them flattened: each file is known by its own content.
        let file = if number == 2 { flat.build(&part) } else { part };
        let path = folder.path().join(format!("part{number}"));
        file.write_sparse(&path).unwrap();
        paths.push(path);
    }
    let mut seed = Seed(4);
    for _ in 0..6 {
        seed.shuffle(&mut paths);
        let dump = Dump::open_set(&paths, &OpenOptions::default()).unwrap();
        assert!(dump.completeness().is_complete(), "{:?}", dump.completeness());
        assert_same_memory("split", &dump, &built.memory);
        assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)));
    }
}

#[test]
fn a_split_set_without_one_part_says_what_is_lost_and_gives_the_rest() {
    let built = Machine::default().build();
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (number, part) in (0..).zip(kdump(&built, Codec::Lzo).split(&built.memory, 4)) {
        let path = folder.path().join(format!("part{number}"));
        part.write_sparse(&path).unwrap();
        paths.push(path);
    }
    let share = built.memory.max_mapnr().div_ceil(4);
    for missing in 0..4u64 {
        let mut given = paths.clone();
        given.remove(usize::try_from(missing).unwrap());
        let dump = Dump::open_set(&given, &OpenOptions::default()).unwrap();
        let mut memory = built.memory.clone();
        memory.lose(missing * share..(missing + 1) * share);
        assert_same_memory(&format!("without part {missing}"), &dump, &memory);
        let lost = memory.frames().filter(|pfn| memory.frame(*pfn) == fixtures::memory::Frame::Lost).count();
        assert_eq!(dump.completeness().lost_pages, lost as u64);
    }
}

#[test]
fn seventy_thousand_segments() {
    let built = Machine::default().build();
    let mut memory = fixtures::memory::Memory::new(4096);
    // Runs of one stored frame and one excluded: as many segments as there are stored frames.
    memory = memory.ram(0..140_000);
    for pfn in (1..140_000).step_by(2) {
        memory.exclude(pfn..pfn + 1);
    }
    memory.write(0x1234 * 2 * 4096, &[0x77; 4096]);
    let elf = Elf { notes: built.notes.clone(), align: 1, ..Elf::default() };
    let segments: Vec<_> = elf.segments(&memory);
    assert_eq!(segments.len(), 70_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmcore");
    elf.of_segments(&segments).write_sparse(&path).unwrap();
    let dump = Dump::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(dump.segments().len(), 70_000);
    assert_eq!((dump.completeness().present_pages, dump.completeness().excluded_pages), (70_000, 70_000));
    let mut page = [0; 4096];
    dump.read_frame(vmcore::addr::Pfn(0x1234 * 2), &mut page).unwrap();
    assert_eq!(page, [0x77; 4096]);
}

#[test]
fn headers_of_other_machines_are_read_and_named() {
    use fixtures::bytes::Endian;
    use fixtures::kdump::Abi;
    let mut memory = fixtures::memory::Memory::new(4096).ram(0..16);
    memory.write(0x3000, &[0x33; 4096]);
    let names = |machine: &str| ["Linux", "n", "5.10", "#1", machine, ""].map(str::to_owned);
    let shapes = [
        ("s390x", Kdump { endian: Endian::Big, utsname: names("s390x"), ..Kdump::default() }),
        ("i686", Kdump { abi: Abi::Ilp32Packed, utsname: names("i686"), ..Kdump::default() }),
        ("armv7l", Kdump { abi: Abi::Ilp32Padded, utsname: names("armv7l"), ..Kdump::default() }),
    ];
    for (machine, shape) in shapes {
        let bytes = shape.build(&memory).bytes();
        match open(bytes) {
            Ok(dump) => assert_same_memory(machine, &dump, &memory),
            Err(why) => {
                support::assert_readable(&why.to_string());
                assert!(
                    matches!(why.kind, vmcore::error::OpenErrorKind::Unsupported { .. }),
                    "{machine}: {why}"
                );
            }
        }
    }
}

#[test]
fn pages_of_64_kib() {
    let mut memory = fixtures::memory::Memory::new(65536).ram(1..40);
    memory.write(0x5_0000, &Seed(5).bytes(65536));
    memory.write(0x9_0100, b"in the tenth page");
    memory.exclude(20..30);
    for codec in Codec::ALL {
        let dump = open(Kdump::of(codec).build(&memory).bytes()).unwrap();
        assert_same_memory(codec.name(), &dump, &memory);
    }
}
