//! ELF vmcores, damaged in every way that we could think of.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod support;

use fixtures::bytes::Image;
use fixtures::elf::{Elf, Layout, Segment};
use fixtures::machine::log::dmesg;
use fixtures::machine::{Built, Machine};
use fixtures::memory::Memory;
use fixtures::note::Note;
use support::{
    assert_no_wrong_bytes, bound_memory, exercise, hostile_values, log, open, opened_or_explained,
};
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::{PageState, PhysicalMemory};

fn elf(built: &Built, layout: Layout) -> Elf {
    Elf { layout, notes: built.notes.clone(), page_offset: built.page_offset, ..Elf::default() }
}

/// The file offset after the bytes of `paddr`'s page, by the builder's own segments.
fn end_of_page(segments: &[Segment], image: &Image, pfn: u64) -> u64 {
    let paddr = pfn * 4096;
    let found = (1..).zip(segments).find(|(_, s)| s.paddr <= paddr && paddr < s.paddr + s.filesz);
    let (number, segment) = found.unwrap();
    image.find(&format!("segment {number}")).unwrap().start + (paddr - segment.paddr) + 4096
}

#[test]
fn cut_at_every_byte_of_a_small_one() {
    bound_memory(4096);
    let mut memory = Memory::new(4096).ram(0..4);
    memory.write(0x1000, &[0x11; 4096]);
    memory.write(0x2fff, &[0x22; 2]);
    for layout in [Layout::Kernel, Layout::Qemu] {
        let elf =
            Elf { layout, notes: vec![Note::vmcoreinfo("OSRELEASE=6.1.0\n")], align: 64, ..Elf::default() };
        let segments = elf.segments(&memory);
        let image = elf.of_segments(&segments);
        let bytes = image.bytes();
        let end_of_data = end_of_page(&segments, &image, 3);
        for cut in 0..bytes.len() as u64 {
            let name = format!("{layout:?} cut at {cut:#x}");
            let Some(dump) = opened_or_explained(&name, bytes[..usize::try_from(cut).unwrap()].to_vec())
            else {
                assert!(cut < 600, "{name}: its headers are whole, and it does not open");
                continue;
            };
            if cut < end_of_data {
                assert!(!dump.completeness().is_complete(), "{name}: nothing says that it was cut");
            }
            assert_no_wrong_bytes(&name, &dump, &memory, |pfn| end_of_page(&segments, &image, pfn) <= cut);
        }
    }
}

#[test]
fn cut_at_and_beside_every_structure() {
    bound_memory(4096);
    let built = Machine::default().build();
    for layout in [Layout::Kernel, Layout::Qemu] {
        let elf = elf(&built, layout);
        let segments = elf.segments(&built.memory);
        let image = elf.build(&built.memory);
        let bytes = image.bytes();
        for cut in image.cuts() {
            let name = format!("{layout:?} cut at {cut:#x}");
            let Some(dump) = opened_or_explained(&name, bytes[..usize::try_from(cut).unwrap()].to_vec())
            else {
                continue;
            };
            assert_no_wrong_bytes(&name, &dump, &built.memory, |pfn| {
                end_of_page(&segments, &image, pfn) <= cut
            });
            exercise(&dump, 100);
        }
    }
}

#[test]
fn every_field_with_hostile_values() {
    bound_memory(4096);
    let built = Machine::default().build();
    for layout in [Layout::Kernel, Layout::Qemu] {
        let image =
            Elf { extended_numbering: layout == Layout::Qemu, ..elf(&built, layout) }.build(&built.memory);
        let bytes = image.bytes();
        for mark in image.marks().iter().filter(|mark| mark.is_field() && mark.end - mark.start <= 8) {
            let at = usize::try_from(mark.start).unwrap()..usize::try_from(mark.end).unwrap();
            let truth = bytes[at].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            for value in hostile_values(truth, mark.end - mark.start) {
                let name = format!("{layout:?}: {} = {value:#x}", mark.name);
                if let Some(dump) = opened_or_explained(&name, image.with(&mark.name, value).unwrap()) {
                    exercise(&dump, 100);
                }
            }
        }
    }
}

#[test]
fn one_line_per_way_a_file_can_be_wrong() {
    bound_memory(4096);
    let built = Machine::default().build();
    let image = elf(&built, Layout::Kernel).build(&built.memory);
    let field = |name: &str, value: u64| image.with(name, value).unwrap();
    // Words of the refusal; an empty string where it must open and its log be whole.
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a 32-bit class", field("ehdr.class", 1), "32"),
        ("no class", field("ehdr.class", 0), "ELF"),
        ("a program", field("ehdr.e_type", 2), "program"),
        ("program headers past the end", field("ehdr.e_phoff", image.len()), "program header"),
        ("program headers at -1", field("ehdr.e_phoff", u64::MAX), "program header"),
        ("no program header", field("ehdr.e_phnum", 0), ""),
        ("program headers of another size", field("ehdr.e_phentsize", 8), ""),
        ("extended numbering without a section header", field("ehdr.e_phnum", 0xffff), ""),
        ("a header size that tells nothing", field("ehdr.e_ehsize", 8), ""),
        ("flags that nobody knows", field("ehdr.e_flags", 0xffff_fffe), ""),
        ("notes past the end", field("phdr notes.p_offset", image.len() + 5), ""),
        ("notes of 2^63 bytes", field("phdr notes.p_filesz", 1 << 63), ""),
        ("a note of 4 GiB", field("note 2.n_descsz", 0xffff_ffff), ""),
        ("a note with a name of 4 GiB", field("note 0.n_namesz", 0xffff_ffff), ""),
        ("a segment of another type", field("phdr 1.p_type", 0x6fff_ffff), ""),
    ];
    for (name, bytes, words) in cases {
        match open(bytes) {
            Ok(dump) => {
                exercise(&dump, 200);
                assert!(words.is_empty() || dump.completeness().present_pages == 0, "{name}: it opened");
                let stored = u64::try_from(built.memory.stored().count()).unwrap();
                if words.is_empty() && dump.completeness().present_pages >= stored {
                    assert_eq!(log(&dump).map(|(text, _)| text), Ok(dmesg(&built.lines)), "{name}");
                }
            }
            Err(why) => {
                support::assert_readable(&why.to_string());
                assert!(why.to_string().contains(words), "{name}: {why}");
            }
        }
    }
}

#[test]
fn cut_at_half_it_still_yields_its_log_where_the_pages_are_there() {
    let built = Machine::default().build();
    let mut memory = built.memory.clone();
    for pfn in 0x1400..0x1480 {
        memory.write(pfn * 4096, &[0x42; 4096]);
    }
    memory.include(0x1400..0x1480);
    for layout in [Layout::Kernel, Layout::Qemu] {
        let mut bytes = elf(&built, layout).build(&memory).bytes();
        bytes.truncate(bytes.len() / 2);
        let dump = open(bytes).unwrap();
        assert!(dump.completeness().lost_pages > 50 && dump.completeness().truncated_at.is_some());
        assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)), "{layout:?}");
    }
}

#[test]
fn overlapping_segments_give_the_bytes_that_are_there() {
    // The kernel's text segment covers the start of a range of RAM whose own segment was cut.
    let first = Segment::of(0xffff_ffff_8100_0000, 0x1000, vec![0xaa; 0x2000]);
    let second =
        Segment::of(0xffff_8880_0000_1000, 0x1000, [vec![0xaa; 0x2000], vec![0xbb; 0x2000]].concat());
    for segments in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
        let dump = open(Elf::default().of_segments(&segments).bytes()).unwrap();
        let mut page = [0; 4096];
        for (pfn, byte) in [(1, 0xaa), (2, 0xaa), (3, 0xbb), (4, 0xbb)] {
            dump.read_frame(Pfn(pfn), &mut page).unwrap();
            assert_eq!(page, [byte; 4096]);
        }
        assert_eq!(dump.completeness().present_pages, 4, "frames are counted once");
    }
    // The second copy is cut off: the first still has the bytes.
    let image = Elf::default().of_segments(&[first, second]);
    let mut bytes = image.bytes();
    bytes.truncate(usize::try_from(image.find("segment 2").unwrap().start).unwrap());
    let dump = open(bytes).unwrap();
    let mut page = [0; 4096];
    dump.read_frame(Pfn(2), &mut page).unwrap();
    assert_eq!(page, [0xaa; 4096]);
    assert!(matches!(dump.read_frame(Pfn(3), &mut page), Err(PageError::Lost { .. })));
}

#[test]
fn what_a_segment_does_not_store_is_excluded_and_not_zero() {
    let mut segment = Segment::of(0, 0x1_0000, vec![0x5a; 0x2000]);
    segment.memsz = 0x5000;
    let dump = open(Elf::default().of_segments(&[segment]).bytes()).unwrap();
    assert_eq!(dump.state(Pfn(0x11)), PageState::Present);
    assert_eq!(dump.state(Pfn(0x12)), PageState::Excluded);
    assert_eq!(dump.state(Pfn(0x15)), PageState::Hole);
    assert_eq!((dump.completeness().present_pages, dump.completeness().excluded_pages), (2, 3));
    let mut across = [0; 8];
    let why = dump.read(PhysAddr(0x1_1ffc), &mut across).unwrap_err();
    assert!(matches!(why, PageError::Excluded { .. }), "{why}");
}

#[test]
fn a_segment_that_leaves_the_address_space() {
    bound_memory(4096);
    for (paddr, memsz) in [
        (0xffff_ffff_ffff_e000, 0x3000),
        (0xffff_ffff_ffff_f000, u64::MAX),
        (0, u64::MAX),
        (1 << 52, 1 << 62),
    ] {
        let segment = Segment { vaddr: 0, paddr, memsz, filesz: 0x1000, data: vec![(0, vec![1; 0x1000])] };
        if let Some(dump) = opened_or_explained(
            &format!("{paddr:#x} + {memsz:#x}"),
            Elf::default().of_segments(&[segment]).bytes(),
        ) {
            exercise(&dump, 100);
        }
    }
}

#[test]
fn the_incomplete_flag_is_told() {
    let built = Machine::default().build();
    let dump =
        open(Elf { incomplete: true, ..elf(&built, Layout::Kernel) }.build(&built.memory).bytes()).unwrap();
    assert!(dump.completeness().incomplete_flag && !dump.completeness().is_complete());
    assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)));
}
