//! kdump-compressed dumps, flattened or not.

use proptest::prelude::*;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

use crate::build::{Kdump, PAGE, flatten, page, put};
use crate::check::{open, read_all};

fn expected(kdump: &Kdump) -> Vec<(u64, Vec<u8>)> {
    kdump.own().iter().take(kdump.written).map(|n| (*n, page(*n))).collect()
}

fn page_error(dump: &Dump, pfn: u64) -> String {
    dump.read_frame(Pfn(pfn), &mut [0; PAGE]).unwrap_err().to_string()
}

#[test]
fn pages_of_each_codec_are_read() {
    for (flags, name) in [(0, "raw"), (1, "zlib"), (2, "lzo"), (4, "snappy"), (0x20, "zstd")] {
        let kdump = Kdump { flags, status: flags, ..Kdump::new() };
        let dump = open(kdump.bytes()).unwrap();
        assert_eq!(dump.facts().codecs.iter().map(|codec| codec.name()).collect::<Vec<_>>(), [name]);
        assert_eq!(read_all(&dump), expected(&kdump), "{name}");
        let told = dump.completeness();
        assert_eq!((told.announced_pages, told.present_pages, told.excluded_pages), (40, 14, 26));
        assert!(told.is_complete() && told.repairs.is_empty());
        assert_eq!(dump.state(Pfn(40)), PageState::Hole);
        assert_eq!(page_error(&dump, 1), "pfn 0x1 was left out when the dump was made (dump level 31)");
        assert_eq!(page_error(&dump, u64::MAX), "pfn 0xffffffffffffffff is not RAM of the dumped machine");
    }
}

#[test]
fn each_header_version_has_its_fields() {
    for version in 0..=6 {
        let dump = open(Kdump { version, ..Kdump::new() }.bytes()).unwrap();
        let facts = dump.facts();
        assert_eq!(facts.header_version, Some(version as u32));
        assert_eq!(facts.dump_level.is_some(), version >= 1, "{version}");
        assert_eq!(dump.vmcoreinfo_raw().is_some(), version >= 3, "{version}");
        assert_eq!(dump.notes().len(), if version >= 4 { 2 } else { 0 }, "{version}");
        assert_eq!(facts.erase_info.as_deref(), (version >= 5).then_some("erase secret 8\n"), "{version}");
        assert_eq!(read_all(&dump).len(), 14, "{version}");
    }
    let dump = open(Kdump { version: 7, ..Kdump::new() }.bytes()).unwrap();
    assert_eq!(dump.completeness().repairs, ["header version 7 is newer than 6; it is read as 6"]);
}

#[test]
fn the_header_tells_machine_and_time() {
    let dump = open(Kdump::new().bytes()).unwrap();
    let facts = dump.facts();
    let names = facts.utsname.as_ref().unwrap();
    assert_eq!((&*names.nodename, &*names.release, facts.arch.name()), ("host", "6.1.0-test", "x86_64"));
    assert_eq!(
        (facts.timestamp, facts.nr_cpus, facts.phys_base),
        (Some((1_700_000_000, 0)), Some(2), Some(0x100_0000))
    );
    assert_eq!(dump.prstatus()[0].registers.rip, 0xabc);
}

#[test]
fn pages_that_the_writer_never_got_to_are_lost() {
    let kdump = Kdump { written: 5, status: 1 | 8, ..Kdump::new() };
    let dump = open(kdump.bytes()).unwrap();
    assert_eq!(read_all(&dump), expected(&kdump));
    let told = dump.completeness();
    assert!(told.incomplete_flag);
    assert_eq!((told.present_pages, told.lost_pages, told.truncated_at), (5, 9, None));
    assert_eq!(
        page_error(&dump, 15),
        "pfn 0xf is lost: its descriptor at file offset 0x4078 is empty, the writer stopped before it"
    );
    // The flag is not believed: without it the same pages are lost.
    let dump = open(Kdump { status: 1, ..kdump }.bytes()).unwrap();
    assert_eq!(dump.completeness().lost_pages, 9);
}

#[test]
fn all_zero_pages_may_share_one_place() {
    let kdump = Kdump { flags: 0, ..Kdump::new() };
    let mut file = kdump.bytes();
    let first = file[Kdump::DESCRIPTORS..Kdump::DESCRIPTORS + 24].to_vec();
    for i in 1..14 {
        put(&mut file, Kdump::DESCRIPTORS + i * 24, &first);
    }
    let pages = read_all(&open(file).unwrap());
    assert_eq!(pages.len(), 14);
    assert!(pages.iter().all(|(_, bytes)| *bytes == page(0)));
}

#[test]
fn a_file_cut_anywhere_opens_or_says_why_and_never_gives_wrong_bytes() {
    let kdump = Kdump::new();
    let whole = kdump.bytes();
    let structures =
        [464, 4096, 4096 + 104, 4096 + 600, 8192, 8195, 12288, 12290, 16384, 16390, 16384 + 24 * 14];
    let near = structures.iter().flat_map(|at| at - 2..at + 3);
    for len in near.chain((1..whole.len()).step_by(97)).filter(|len| *len < whole.len()) {
        let dump = match open(whole[..len].to_vec()) {
            Ok(dump) => dump,
            Err(e) => {
                assert!(len < 464, "cut at {len}: {e}");
                continue;
            }
        };
        for (pfn, bytes) in read_all(&dump) {
            assert_eq!(bytes, page(pfn), "cut at {len}");
        }
        let told = dump.completeness();
        assert!(!told.is_complete(), "cut at {len}");
        assert!(told.lost_pages > 0, "cut at {len}");
    }
}

#[test]
fn cuts_say_what_was_cut() {
    let whole = Kdump::new().bytes();
    let cut = |len: usize| open(whole[..len].to_vec()).unwrap();
    assert_eq!(
        page_error(&cut(12288), 0),
        "pfn 0x0 is lost: the file ends inside the bitmap that would lead to it"
    );
    // Bits without descriptors.
    let dump = cut(Kdump::DESCRIPTORS + 30);
    assert_eq!(
        page_error(&dump, 3),
        "pfn 0x3 is lost: its descriptor should be at file offset 0x4018, but the file ends at 0x401e"
    );
    assert_eq!(dump.completeness().truncated_at, Some(0x401e));
    let dump = cut(whole.len() - 1);
    assert_eq!(dump.completeness().lost_pages, 1);
    assert!(page_error(&dump, 39).ends_with(&format!("but the file ends at {:#x}", whole.len() - 1)));
}

#[test]
fn damaged_descriptors_are_told_page_by_page() {
    let at = Kdump::DESCRIPTORS;
    let end = Kdump::new().bytes().len();
    for (field, bytes, text) in [
        (12, &2u32.to_le_bytes()[..], "pfn 0x0 at file offset 0x4150 is corrupt: the LZO block"),
        (12, &4u32.to_le_bytes(), "pfn 0x0 at file offset 0x4150 is corrupt: "),
        (12, &0x20u32.to_le_bytes(), "pfn 0x0 at file offset 0x4150 is corrupt: the Zstandard frame is bad"),
        (12, &0u32.to_le_bytes(), "pfn 0x0 at file offset 0x4150 is corrupt: it is stored as it is, in "),
        (
            12,
            &3u32.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 names no codec that is known (flags 0x3)",
        ),
        (
            8,
            &4097u32.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 gives it 4097 bytes in a dump of 4096-byte pages",
        ),
        (
            8,
            &u32::MAX.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 gives it 4294967295 bytes",
        ),
        (
            8,
            &0u32.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 gives it 0 bytes",
        ),
        (8, &3u32.to_le_bytes(), "pfn 0x0 at file offset 0x4150 is corrupt: the zlib stream ends too early"),
        (
            0,
            &8u64.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 points where no page can be",
        ),
        (
            0,
            &u64::MAX.to_le_bytes(),
            "pfn 0x0 at file offset 0x4000 is corrupt: its descriptor at file offset 0x4000 points where no page can be",
        ),
        (0, &0u64.to_le_bytes(), "pfn 0x0 is lost: its descriptor at file offset 0x4000 is empty"),
        (0, &(end as u64).to_le_bytes(), "pfn 0x0 is lost: it should be at file offset "),
    ] {
        let mut file = Kdump::new().bytes();
        put(&mut file, at + field, bytes);
        let dump = open(file).unwrap();
        let error = page_error(&dump, 0);
        assert!(error.starts_with(text), "{error}");
        assert_eq!(read_all(&dump).len(), 13, "{text}");
    }
}

#[test]
fn damaged_headers_open_or_are_refused_in_one_sentence() {
    for (at, bytes, text) in [
        (428, &0u32.to_le_bytes()[..], "its page size is 0 (file offset 0x1ac)"),
        (428, &5000u32.to_le_bytes(), "its page size is 5000 (file offset 0x1ac)"),
        (428, &u32::MAX.to_le_bytes(), "its page size is -1 (file offset 0x1ac)"),
        (432, &0u32.to_le_bytes(), "its sub header has 0 blocks (file offset 0x1b0)"),
        (432, &u32::MAX.to_le_bytes(), "its sub header has -1 blocks (file offset 0x1b0)"),
        (8, &u32::MAX.to_le_bytes(), "its header version is -1 (file offset 0x8)"),
        (
            4096 + 96,
            &u64::MAX.to_le_bytes(),
            "it announces 18446744073709551615 frames, more than 68719476736 (file offset 0x1b8)",
        ),
    ] {
        let mut file = Kdump::new().bytes();
        put(&mut file, at, bytes);
        let err = open(file).unwrap_err().to_string();
        assert_eq!(err, format!("vmcore: is a kdump-compressed dump, but {text}"));
    }
    // Counts at their maximum open, and all that they announce is lost.
    for (at, value) in [(432, i32::MAX as u32), (436, u32::MAX), (436, 0), (440, u32::MAX)] {
        let mut file = Kdump { version: 5, ..Kdump::new() }.bytes();
        put(&mut file, at, &value.to_le_bytes());
        let dump = open(file).unwrap();
        assert!(dump.completeness().lost_pages > 0, "{at} {value}");
    }
    // So do offsets and sizes of texts.
    for at in [32, 40, 48, 56, 64, 72] {
        let mut file = Kdump::new().bytes();
        put(&mut file, 4096 + at, &u64::MAX.to_le_bytes());
        let dump = open(file).unwrap();
        assert!(!dump.completeness().repairs.is_empty(), "{at}");
        assert_eq!(read_all(&dump).len(), 14);
    }
}

#[test]
fn a_64_bit_count_of_0_is_mended_and_told() {
    let mut file = Kdump::new().bytes();
    put(&mut file, 4096 + 96, &0u64.to_le_bytes());
    let dump = open(file).unwrap();
    assert_eq!(
        dump.completeness().repairs,
        ["the 64-bit number of frames is 0; the 32-bit one, 64, was taken"]
    );
    assert_eq!(read_all(&dump).len(), 14);
}

#[test]
fn other_abis_are_named() {
    let mut file = Kdump::new().bytes();
    put(&mut file, 428, &0u32.to_le_bytes());
    put(&mut file, 416, &4096u32.to_le_bytes());
    put(&mut file, 12 + 4 * 65, b"i686\0\0");
    assert_eq!(
        open(file).unwrap_err().to_string(),
        "vmcore: is a kdump-compressed dump of a 32-bit machine (i686), which kdt does not read"
    );
    let mut file = Kdump::new().bytes();
    put(&mut file, 8, &6u32.to_be_bytes());
    put(&mut file, 428, &4096u32.to_be_bytes());
    put(&mut file, 12 + 4 * 65, b"s390x\0");
    let err = open(file).unwrap_err();
    assert_eq!(
        err.to_string(),
        "vmcore: is a kdump-compressed dump of a big-endian machine (s390x), which kdt does not read"
    );
    assert!(err.hint().starts_with("open it with crash"));
}

#[test]
fn one_bitmap_serves_as_both() {
    let kdump = Kdump { ram: (0..64).collect(), stored: (0..64).collect(), ..Kdump::new() };
    let mut file = kdump.bytes();
    file.drain(Kdump::BITMAPS + PAGE..Kdump::BITMAPS + 2 * PAGE);
    put(&mut file, 436, &1u32.to_le_bytes());
    for i in 0..64 {
        let at = Kdump::DESCRIPTORS - PAGE + i * 24;
        let offset = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) - PAGE as u64;
        put(&mut file, at, &offset.to_le_bytes());
    }
    let dump = open(file).unwrap();
    assert_eq!(read_all(&dump), expected(&kdump));
    assert_eq!(dump.completeness().repairs, [""; 0]);
}

#[test]
fn an_unnamed_machine_is_known_by_its_registers() {
    let mut file = Kdump::new().bytes();
    put(&mut file, 12 + 4 * 65, &[0; 6]);
    let dump = open(file).unwrap();
    assert_eq!(dump.facts().arch.name(), "x86_64");
    assert_eq!(
        dump.completeness().repairs,
        ["the header does not name the architecture; x86_64 was taken, from the size of the register notes"]
    );
}

#[test]
fn a_flattened_dump_is_the_same_dump_and_may_be_cut() {
    let kdump = Kdump::new();
    let flat = flatten(&kdump.bytes(), 300);
    let dump = open(flat.clone()).unwrap();
    assert_eq!(dump.facts().containers, ["flattened", "kdump"]);
    assert_eq!(read_all(&dump), expected(&kdump));
    assert!(dump.completeness().is_complete());
    for len in (4096..flat.len()).step_by(158) {
        let Ok(dump) = open(flat[..len].to_vec()) else {
            assert!(len < 5000);
            continue;
        };
        for (pfn, bytes) in read_all(&dump) {
            assert_eq!(bytes, page(pfn), "cut at {len}");
        }
        assert_eq!(dump.completeness().truncated_at, Some(len as u64));
        assert!(dump.completeness().repairs[0].starts_with("the flattened stream ends "));
    }
}

/// The descriptors are behind the pages in the stream, as with QEMU, and were cut off.
#[test]
fn descriptors_that_never_arrived_are_told() {
    let whole = Kdump::new().bytes();
    let mut flat = flatten(&whole[..Kdump::DESCRIPTORS], 4096);
    flat.truncate(flat.len() - 16);
    let data = Kdump::DESCRIPTORS + 24 * 14;
    flat.extend((data as u64).to_be_bytes());
    flat.extend(((whole.len() - data) as u64).to_be_bytes());
    flat.extend(&whole[data..]);
    let dump = open(flat).unwrap();
    assert_eq!(page_error(&dump, 0), "pfn 0x0 is lost: its descriptor, at file offset 0x4000, never arrived");
    assert_eq!(dump.completeness().lost_pages, 14);
    assert_eq!(read_all(&dump), []);
}

#[test]
fn a_flattened_stream_of_something_else_is_named() {
    let err = open(flatten(b"hello, this is no dump at all\n", 10)).unwrap_err();
    assert_eq!(err.to_string(), "vmcore: is a flattened stream that holds a text file, not a memory dump");
    let err = open(flatten(&[], 10)).unwrap_err();
    assert_eq!(
        err.to_string(),
        "vmcore: is a flattened dump, but it ends before its first record (file offset 0x1010)"
    );
    let err = open(flatten(&flatten(&Kdump::new().bytes(), 4096), 4096)).unwrap_err();
    assert!(err.to_string().contains("it holds another flattened stream"));
}

#[test]
fn many_threads_read_the_same_bytes() {
    let kdump = Kdump { flags: 2, ..Kdump::new() };
    let mut options = OpenOptions::default();
    options.limits.page_cache_bytes = 3 * PAGE;
    let dump = Dump::from_source(std::sync::Arc::new(kdump.bytes()), "vmcore", &options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (dump, own) = (&dump, kdump.own());
            scope.spawn(move || {
                for round in 0..200 {
                    let pfn = own[(round * (thread + 1)) as usize % own.len()];
                    let mut buf = [0; 100];
                    dump.read(PhysAddr(pfn * 4096 + thread * 500), &mut buf).unwrap();
                    assert_eq!(buf[..], page(pfn)[thread as usize * 500..][..100]);
                }
            });
        }
    });
}

#[test]
fn a_mapped_file_reads_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    std::fs::write(&path, Kdump::new().bytes()).unwrap();
    let mapped = Dump::open(&path, &OpenOptions::default().mmap(true)).unwrap();
    assert_eq!(read_all(&mapped), read_all(&Dump::open(&path, &OpenOptions::default()).unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_mutated_file_opens_or_is_refused(
        changes in prop::collection::vec((0usize..Kdump::DESCRIPTORS + 400, any::<u8>()), 1..12),
        focus in prop::collection::vec((prop::sample::select(vec![8usize, 424, 428, 432, 436, 440, 4104, 4108, 4112, 4176, 4192]), any::<u8>()), 0..3),
        flattened: bool,
    ) {
        let mut file = Kdump::new().bytes();
        for (at, byte) in changes.into_iter().chain(focus) {
            put(&mut file, at, &[byte]);
        }
        let file = if flattened { flatten(&file, 777) } else { file };
        if let Ok(dump) = open(file) {
            read_all(&dump);
        }
    }
}
