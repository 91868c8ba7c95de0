//! Kernels of each generation, with each kind of page tables: addresses translate, the log and the names are there.
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
use fixtures::kdump::Kdump;
use fixtures::machine::log::{Line, LogKind, dmesg};
use fixtures::machine::log_ring::RingShape;
use fixtures::machine::{Built, Machine};
use support::{kernel, log, open};
use vmcore::addr::{KVirtAddr, PhysAddr};

fn dump(built: &Built) -> vmcore::Dump {
    let kdump = Kdump { notes: built.notes.clone(), phys_base: built.phys_base, ..Kdump::of(Codec::Lzo) };
    open(kdump.build(&built.memory).bytes()).unwrap()
}

fn assert_right(name: &str, dump: &vmcore::Dump, machine: &Machine, built: &Built) {
    let kernel = kernel(dump);
    for (vaddr, paddr) in &built.translations {
        let mapping = kernel.memory().translate(KVirtAddr(*vaddr));
        let mapping = mapping.unwrap_or_else(|why| panic!("{name}: {vaddr:#x}: {why}"));
        assert_eq!(mapping.paddr, PhysAddr(*paddr), "{name}: {vaddr:#x}");
    }
    assert_eq!(log(dump), Ok((dmesg(&built.lines), true)), "{name}");
    assert_eq!(kernel.facts().release.as_deref(), Some(machine.release.as_str()), "{name}");
}

#[test]
fn each_kind_of_paging() {
    let machines = [
        ("four levels", Machine::default()),
        ("five levels", Machine::five_level()),
        ("no kaslr", Machine { kaslr: 0, ..Machine::default() }),
        ("direct map moved", Machine { page_offset: Some(0xffff_9b51_8000_0000), ..Machine::default() }),
        ("encrypted", Machine { sme_mask: 1 << 47, ..Machine::default() }),
        ("encrypted, five levels", Machine { sme_mask: 1 << 51, ..Machine::five_level() }),
    ];
    for (name, machine) in machines {
        let built = machine.build();
        let dump = dump(&built);
        assert_right(name, &dump, &machine, &built);
        assert_eq!(kernel(&dump).uts().unwrap().nodename, "fixture", "{name}");
    }
}

#[test]
fn each_generation_of_the_log() {
    for kind in LogKind::ALL {
        let machine = Machine::with_log(kind);
        let built = machine.build();
        assert_right(&format!("{kind:?}"), &dump(&built), &machine, &built);
    }
}

#[test]
fn a_full_log_shows_what_is_left_of_it() {
    let lines: Vec<Line> =
        (0..3000).map(|n| Line::new(n * 1_000_000, &format!("message number {n}"))).collect();
    let shapes = [
        (
            "many descriptors, little text",
            RingShape { count_bits: 10, size_bits: 12, ..RingShape::default() },
        ),
        ("few descriptors, much text", RingShape { count_bits: 5, size_bits: 16, ..RingShape::default() }),
        (
            "a record half written",
            RingShape { count_bits: 9, size_bits: 14, reserved_at_end: true, last_committed: false },
        ),
    ];
    for (name, ring) in shapes {
        for kind in [LogKind::Ring, LogKind::Records] {
            let machine = Machine { lines: Some(lines.clone()), ring, ..Machine::with_log(kind) };
            let built = machine.build();
            assert!(built.lines.len() < 3000 && built.lines.last() == lines.last(), "{name}");
            let (text, _) = log(&dump(&built)).unwrap();
            assert!(text == dmesg(&built.lines), "{name}, {kind:?}: {} lines", text.lines().count());
        }
        // A plain ring has no records: it begins in the middle of a line.
        let machine = Machine { lines: Some(lines.clone()), ring, ..Machine::with_log(LogKind::Plain) };
        let built = machine.build();
        let (text, _) = log(&dump(&built)).unwrap();
        let kept = built.plain_text.clone().unwrap();
        let whole = kept
            .lines()
            .skip(1)
            .map(|line| line.trim_start_matches("<6>").to_owned() + "\n")
            .collect::<String>();
        assert!(text.ends_with(&whole), "{name}: {} lines", text.lines().count());
    }
}

#[test]
fn lines_that_are_odd() {
    let device = Some(("pci".to_owned(), "+pci:0000:00:01.0".to_owned()));
    let lines = vec![
        Line { level: 3, facility: 3, device, ..Line::new(5, "from a driver") },
        Line { caller: 0x8000_0003, ..Line::new(6_000_000_123, "from an interrupt on CPU 3") },
        Line::new(u64::MAX, "at the end of time"),
        Line::new(7, &"x".repeat(1000)),
        Line::new(8, "control \x1b[31m bytes \x07 are escaped"),
    ];
    for kind in [LogKind::Ring, LogKind::Records] {
        let machine = Machine { lines: Some(lines.clone()), ..Machine::with_log(kind) };
        let (text, whole) = log(&dump(&machine.build())).unwrap();
        assert!(whole);
        let mut shown = lines.clone();
        shown[4].text = "control \\x1b[31m bytes \\x07 are escaped".to_owned();
        assert_eq!(text, dmesg(&shown), "{kind:?}");
    }
}

#[test]
fn a_guest_without_a_note_of_vmcoreinfo() {
    for machine in [Machine::default(), Machine::five_level()] {
        let built = machine.build();
        let endian = fixtures::bytes::Endian::Little;
        let mut notes: Vec<_> = built.cpus.iter().map(|cpu| cpu.prstatus(endian)).collect();
        notes.extend(built.cpus.iter().map(|cpu| cpu.qemu(endian, false)));
        let elf = Elf { layout: Layout::Qemu, page_offset: 0, notes, ..Elf::default() };
        let dump = open(elf.build(&built.memory).bytes()).unwrap();
        assert_eq!(dump.qemu_cpus().len(), 2);
        assert_right("guest", &dump, &machine, &built);
    }
}
