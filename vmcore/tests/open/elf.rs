//! ELF vmcores.

use proptest::prelude::*;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::{PageState, PhysicalMemory};

use crate::build::{Ph, elf, flatten, load, note, page, put, small_elf};
use crate::check::{open, read_all};

#[test]
fn notes_registers_and_pages_are_found() {
    let dump = open(small_elf()).unwrap();
    assert_eq!(dump.facts().containers, ["elf"]);
    assert_eq!(dump.vmcoreinfo_raw().unwrap(), b"OSRELEASE=6.1.0\nPAGESIZE=4096\n");
    assert_eq!((dump.prstatus()[0].pid, dump.prstatus()[0].registers.rip), (Some(77), 0x1234));
    assert_eq!(read_all(&dump), [(0x100, page(0)), (0x101, page(1))]);
    let told = dump.completeness();
    assert!(told.is_complete());
    assert_eq!((told.announced_pages, told.present_pages, told.excluded_pages), (3, 2, 1));
    let mut across = [0; 8];
    dump.read(PhysAddr(0x10_0ffc), &mut across).unwrap();
    assert_eq!(across, [page(0)[4092..].to_vec(), page(1)[..4].to_vec()].concat()[..]);
    let err = dump.read(PhysAddr(0x10_1ffc), &mut across).unwrap_err();
    assert_eq!(err.to_string(), "pfn 0x102 was left out when the dump was made (dump level 0)");
    let err = dump.read(PhysAddr(0), &mut across).unwrap_err();
    assert_eq!(err.to_string(), "pfn 0x0 is not RAM of the dumped machine");
    let err = dump.read(PhysAddr(u64::MAX - 2), &mut across).unwrap_err();
    assert_eq!(err.to_string(), "paddr 0xfffffffffffffffd and 8 bytes more leave the physical address space");
}

#[test]
fn goblin_finds_the_same_headers_and_notes() {
    let file = small_elf();
    let ours = open(file.clone()).unwrap();
    let theirs = goblin::elf::Elf::parse(&file).unwrap();
    let loads: Vec<_> = theirs.program_headers.iter().filter(|ph| ph.p_type == 1).collect();
    assert_eq!(loads.len(), ours.segments().len());
    for (theirs, ours) in loads.iter().zip(ours.segments()) {
        assert_eq!(
            (theirs.p_paddr, theirs.p_vaddr, theirs.p_offset, theirs.p_filesz, theirs.p_memsz),
            (ours.paddr, ours.vaddr, ours.offset, ours.file_size, ours.mem_size)
        );
    }
    let notes: Vec<_> = theirs.iter_note_headers(&file).unwrap().map(|note| note.unwrap()).collect();
    assert_eq!(notes.len(), ours.notes().len());
    for (theirs, ours) in notes.iter().zip(ours.notes()) {
        assert_eq!((theirs.name, theirs.n_type, theirs.desc), (&*ours.name, ours.kind, &*ours.desc));
    }
}

/// QEMU 7.2 and later: `e_ehsize` 8, section headers in front of the program headers.
#[test]
fn section_headers_may_come_first() {
    let mut file = elf(192, &[load(0, 0x1000, 0x1000, 0x1000)]);
    put(&mut file, 40, &64u64.to_le_bytes());
    put(&mut file, 52, &8u16.to_le_bytes());
    put(&mut file, 58, &64u16.to_le_bytes());
    put(&mut file, 60, &2u16.to_le_bytes());
    put(&mut file, 0x1000, &page(9));
    assert_eq!(read_all(&open(file).unwrap()), [(0, page(9))]);
}

#[test]
fn more_segments_than_16_bits_hold_are_all_found() {
    let headers: Vec<Ph> = (0..70_000).map(|i| load(i * 0x2000, 0x1000, 0, 0x1000)).collect();
    let mut file = elf(128, &headers);
    put(&mut file, 40, &64u64.to_le_bytes());
    put(&mut file, 56, &0xffffu16.to_le_bytes());
    put(&mut file, 64 + 44, &70_000u32.to_le_bytes());
    let dump = open(file.clone()).unwrap();
    assert_eq!(dump.segments().len(), 70_000);
    assert_eq!(dump.completeness().excluded_pages, 70_000);
    assert_eq!(dump.state(Pfn(139_998)), PageState::Excluded);
    // Without the section header there is the least that the count can be.
    put(&mut file, 40, &0u64.to_le_bytes());
    let dump = open(file).unwrap();
    assert_eq!(dump.segments().len(), 65_535);
    assert_eq!(
        dump.completeness().repairs,
        ["the count of program headers should be in section header 0, which is not there; 65535 were taken"]
    );
}

#[test]
fn the_incomplete_flag_and_empty_headers_are_told() {
    let mut file = elf(64, &[load(0, 0x1000, 0x1000, 0x1000), Ph { kind: 0, ..load(0, 0, 0, 0) }]);
    put(&mut file, 48, &1u32.to_le_bytes());
    put(&mut file, 0x1000, &page(1));
    let dump = open(file).unwrap();
    assert!(dump.completeness().incomplete_flag && !dump.completeness().is_complete());
    assert_eq!(
        dump.completeness().repairs,
        [
            "1 of 2 program headers are empty, the writer stopped before them; the memory that they would name is not counted"
        ]
    );
}

#[test]
fn a_file_cut_anywhere_opens_or_says_why_and_never_gives_wrong_bytes() {
    let whole = small_elf();
    for len in 0..whole.len() {
        let dump = match open(whole[..len].to_vec()) {
            Ok(dump) => dump,
            Err(e) => {
                assert!(len < 64 + 2 * 56, "cut at {len}: {e}");
                assert!(!e.to_string().contains('\n') && !e.hint().is_empty());
                continue;
            }
        };
        for (pfn, bytes) in read_all(&dump) {
            assert_eq!(bytes, page(pfn - 0x100), "cut at {len}");
        }
        assert!(!dump.completeness().is_complete(), "cut at {len}");
        assert_eq!(dump.completeness().truncated_at, Some(len as u64), "cut at {len}");
    }
}

#[test]
fn pages_behind_the_cut_are_lost_and_say_where() {
    let dump = open(small_elf()[..0x1800].to_vec()).unwrap();
    let mut byte = [0];
    dump.read(PhysAddr(0x10_07ff), &mut byte).unwrap();
    let err = dump.read(PhysAddr(0x10_0800), &mut byte).unwrap_err();
    assert_eq!(
        err.to_string(),
        "pfn 0x100 is lost: it should be at file offset 0x1800, but the file ends at 0x1800"
    );
    assert_eq!(dump.completeness().lost_pages, 2);
}

#[test]
fn ram_that_ends_inside_a_frame_is_filled_up_only_on_request() {
    let mut file = elf(64, &[load(0x1000, 0x1000, 0xc00, 0xc00)]);
    put(&mut file, 0x1000, &page(3)[..0xc00]);
    let dump = open(file).unwrap();
    let mut buf = vec![9; 4096];
    assert_eq!(dump.read_frame(Pfn(1), &mut buf).unwrap(), 0xc00);
    assert_eq!((&buf[..0xc00], &buf[0xc00..]), (&page(3)[..0xc00], &[0; 0x400][..]));
    dump.read(PhysAddr(0x1bff), &mut buf[..1]).unwrap();
    let err = dump.read(PhysAddr(0x1bff), &mut buf[..2]).unwrap_err();
    assert_eq!(err.to_string(), "pfn 0x1 is not RAM of the dumped machine");
    assert!(dump.read_frame(Pfn(1), &mut buf[..100]).is_err());
}

#[test]
fn damaged_headers_are_refused_in_one_sentence() {
    let base = small_elf();
    for (at, bytes, text) in [
        (
            56,
            &[0u8, 0][..],
            "vmcore: is an ELF vmcore, but it announces no program header (file offset 0x38)",
        ),
        (
            32,
            &[0xff; 8],
            "vmcore: is an ELF vmcore, but it was cut off before its program headers came, and nothing else tells where a page belongs (file offset 0xffffffffffffffff)",
        ),
        (18, &[0, 1], ""),
        (16, &[2, 0], "vmcore: is a 64-bit ELF program (a vmlinux?) of x86_64, not a memory dump"),
        (5, &[2], "vmcore: is a 64-bit ELF file that is no core of machine 15872, not a memory dump"),
        (4, &[1], "vmcore: is a 32-bit little-endian ELF core file of x86_64, which kdt does not read"),
    ] {
        let mut file = base.clone();
        put(&mut file, at, bytes);
        match open(file) {
            Err(e) => assert_eq!(e.to_string(), text),
            Ok(dump) => assert_eq!((text, dump.facts().arch.name()), ("", "ELF machine 256")),
        }
    }
}

#[test]
fn bad_notes_do_not_hide_the_memory() {
    for (at, value) in
        [(0x200, u32::MAX), (0x204, u32::MAX), (0x204, 100), (64 + 32, u32::MAX), (64 + 12, u32::MAX)]
    {
        let mut file = small_elf();
        put(&mut file, at, &value.to_le_bytes());
        let dump = open(file).unwrap();
        assert!(!dump.completeness().repairs.is_empty(), "{at:#x}");
        assert_eq!(read_all(&dump).len(), 2, "{at:#x}");
    }
}

#[test]
fn the_core_of_a_process_is_named() {
    let mut info = vec![0; 136];
    put(&mut info, 40, b"bash");
    let notes = [note("CORE", 1, &[0; 336]), note("CORE", 3, &info), note("CORE", 6, &[0; 16])].concat();
    let mut file = elf(
        64,
        &[
            Ph { kind: 4, offset: 0x200, vaddr: 0, paddr: 0, file_size: notes.len() as u64, mem_size: 0 },
            Ph { vaddr: 0x40_0000, ..load(0, 0x1000, 0x1000, 0x1000) },
        ],
    );
    put(&mut file, 0x200, &notes);
    assert_eq!(
        open(file).unwrap_err().to_string(),
        "vmcore: is the core of a process («bash»), not a memory dump"
    );
}

#[test]
fn a_flattened_elf_is_the_same_dump() {
    let dump = open(flatten(&small_elf(), 1000)).unwrap();
    assert_eq!(dump.facts().containers, ["flattened", "elf"]);
    assert_eq!(read_all(&dump), read_all(&open(small_elf()).unwrap()));
    assert!(dump.completeness().is_complete());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_mutated_file_opens_or_is_refused(changes in prop::collection::vec((0usize..0x400, any::<u8>()), 1..12)) {
        let mut file = small_elf();
        for (at, byte) in changes {
            put(&mut file, at, &[byte]);
        }
        if let Ok(dump) = open(file) {
            read_all(&dump);
        }
    }

    #[test]
    fn any_segments_can_be_read(
        list in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..8),
        shift in 0u32..60,
    ) {
        let loads: Vec<Ph> =
            list.iter().map(|(p, o, f, m)| load(p >> shift, o >> shift, f >> shift, m >> shift)).collect();
        let mut file = elf(64, &loads);
        file.resize(0x3000, 1);
        if let Ok(dump) = open(file) {
            read_all(&dump);
        }
    }
}
