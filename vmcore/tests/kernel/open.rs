use fixtures::machine::Machine;
use fixtures::machine::log::LogKind;
use vmcore::addr::PhysAddr;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::{Kernel, Options, Origin};
use vmcore::progress::{Cancel, Quiet};

use crate::memory::{Fixture, noted, open, place, without};

const VMCOREINFO_PAGE: u64 = 0x40_0000;

#[test]
fn the_note_tells_who_the_kernel_is() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    assert!(matches!(kernel.origin(), Origin::Note));
    let uts = kernel.uts().unwrap();
    assert_eq!(
        (uts.nodename.as_str(), uts.release.as_str(), uts.machine.as_str()),
        ("fixture", "6.1.0-fixture", "x86_64")
    );
    assert_eq!(kernel.facts().crash_time, Some(1_700_000_000));
}

#[test]
fn without_a_note_the_text_is_found_in_memory() {
    for kind in [LogKind::Ring, LogKind::Records, LogKind::Plain] {
        let built = Machine::with_log(kind).build();
        let memory = Fixture(built.memory.clone());
        let kernel = open(&memory, &Hints::default());
        let Origin::Memory { paddr, why, others } = kernel.origin() else { panic!("{:?}", kernel.origin()) };
        assert_eq!((*paddr, others.len()), (PhysAddr(VMCOREINFO_PAGE), 0), "{why}");
        assert_eq!(kernel.uts().unwrap().nodename, "fixture");
        assert_eq!(kernel.gaps(), []);
    }
}

#[test]
fn of_two_texts_the_one_that_memory_agrees_with_and_that_crashed_is_taken() {
    let mut built = Machine::default().build();
    // A capture kernel's text, before the real one in memory: same keys, another place of the kernel, no CRASHTIME.
    let other: String = without(&built, |l| l.starts_with("CRASHTIME"));
    let other = other.replace("OSRELEASE=6.1.0-fixture", "OSRELEASE=6.1.0-capture");
    built.memory.include(0x30..0x31);
    built.memory.write(0x3_0000, other.as_bytes());
    // And a page of something else that begins alike.
    built.memory.include(0x32..0x33);
    built.memory.write(0x3_2000, b"OSRELEASE=not the kernel's\n");
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &Hints::default());
    let Origin::Memory { paddr, why, others } = kernel.origin() else { panic!("{:?}", kernel.origin()) };
    assert_eq!(*paddr, PhysAddr(VMCOREINFO_PAGE));
    assert_eq!(others.len(), 1);
    assert_eq!(others[0].agrees_with_memory, Some(false));
    assert!(why.contains("best of 2") && why.contains("it has a CRASHTIME"), "{why}");
}

#[test]
fn a_crash_time_copy_in_an_elf_note_is_found_too() {
    let mut built = Machine::default().build();
    let page = VMCOREINFO_PAGE / 4096;
    built.memory.exclude(page..page + 1);
    built.memory.include(0x30..0x31);
    let mut note = Vec::new();
    note.extend(11_u32.to_le_bytes());
    note.extend(u32::try_from(built.vmcoreinfo.len()).unwrap().to_le_bytes());
    note.extend(0_u32.to_le_bytes());
    note.extend(b"VMCOREINFO\0\0");
    note.extend(built.vmcoreinfo.as_bytes());
    built.memory.write(0x3_0000, &note);
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &Hints::default());
    assert!(
        matches!(kernel.origin(), Origin::Memory { paddr: PhysAddr(0x3_0018), .. }),
        "{:?}",
        kernel.origin()
    );
}

#[test]
fn the_page_tables_of_a_cpu_lead_to_the_text_without_a_search() {
    let mut built = Machine::default().build();
    // `vmcoreinfo_data`, a pointer in the kernel's data.
    let data = place(&built, "init_uts_ns") + 0x2000;
    built.memory.include(data / 4096..data / 4096 + 1);
    built.memory.write_le(data + 0x18, built.page_offset + VMCOREINFO_PAGE, 8);
    let cr3 = place(&built, "init_top_pgt");
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &Hints { control: vec![Control { cr3, cr4: 0x6f0 }], ..Hints::default() });
    let Origin::Memory { paddr, why, .. } = kernel.origin() else { panic!("{:?}", kernel.origin()) };
    assert_eq!(*paddr, PhysAddr(VMCOREINFO_PAGE));
    assert!(why.contains("by a pointer") && why.contains("page tables agree"), "{why}");
}

#[test]
fn no_text_anywhere_is_a_gap_with_its_reason_and_no_error() {
    let mut built = Machine::default().build();
    built.memory.write(VMCOREINFO_PAGE, b"XXXXXXXXXX");
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &Hints::default());
    assert!(matches!(kernel.origin(), Origin::Nowhere));
    assert!(kernel.gaps()[0].why.contains("no note"), "{:?}", kernel.gaps());
    assert!(kernel.log(&vmcore::limits::Limits::default()).is_err());
    // With a CPU's tables, addresses translate all the same.
    let hints = Hints {
        control: vec![Control { cr3: place(&built, "init_top_pgt"), cr4: 0x6f0 }],
        ..Hints::default()
    };
    let kernel = open(&memory, &hints);
    assert_eq!(kernel.facts().phys_base, Some(built.phys_base));
}

#[test]
fn a_search_can_be_refused_and_stopped() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = Kernel::open(&memory, &Hints::default(), Options::default().without_scan());
    assert!(kernel.gaps()[0].why.contains("was not searched"), "{:?}", kernel.gaps());
    let cancel = Cancel::default();
    cancel.cancel();
    let kernel = Kernel::open(&memory, &Hints::default(), Options::default().watched(&cancel, &Quiet));
    assert!(kernel.gaps()[0].why.contains("stopped"), "{:?}", kernel.gaps());
}

#[test]
fn the_address_of_phys_base_is_enough_to_find_its_value() {
    let built = Machine::with_log(LogKind::Plain).build();
    assert!(!built.vmcoreinfo.contains("NUMBER(phys_base)"));
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    assert_eq!(kernel.facts().phys_base, Some(built.phys_base));
    assert_eq!(kernel.uts().unwrap().release, "2.6.32-fixture.el6.x86_64");
}

#[test]
fn a_wrong_phys_base_in_the_header_loses_against_what_memory_says() {
    let built = Machine::default().build();
    let text: String = without(&built, |l| l.contains("phys_base"));
    let memory = Fixture(built.memory.clone());
    let start = built.symbols["_stext"];
    let hints = Hints {
        vmcoreinfo: Some(text.as_bytes()),
        phys_base: Some(0x20_0000),
        segments: vec![(vmcore::addr::KVirtAddr(start), PhysAddr(place(&built, "_stext")), 0x1000)],
        ..Hints::default()
    };
    assert_eq!(open(&memory, &hints).facts().phys_base, Some(built.phys_base));
}
