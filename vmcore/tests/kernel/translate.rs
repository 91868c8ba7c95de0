use fixtures::machine::{Machine, paging};
use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::error::{MemError, PageError};
use vmcore::kernel::hints::{Control, Hints};
use vmcore::xlat::Way;
use vmcore::xlat::x86_64::Levels;

use crate::memory::{Fixture, noted, open, place, without};

fn machines() -> Vec<Machine> {
    vec![
        Machine::default(),
        Machine::five_level(),
        Machine { sme_mask: 1 << 47, ..Machine::default() },
        Machine { sme_mask: 1 << 51, ..Machine::five_level() },
        Machine { kaslr: 0, ..Machine::default() },
        Machine { page_offset: Some(0xffff_9a3f_c000_0000), ..Machine::default() },
    ]
}

#[test]
fn every_kind_of_mapping_translates_with_four_and_five_levels_and_encryption() {
    for machine in machines() {
        let built = machine.build();
        let memory = Fixture(built.memory.clone());
        let kernel = open(&memory, &noted(&built));
        assert_eq!(kernel.gaps(), [], "{machine:?}");
        for (kaddr, paddr) in &built.translations {
            let mapping = kernel.memory().translate(KVirtAddr(*kaddr)).unwrap();
            assert_eq!(
                (mapping.paddr, mapping.way),
                (PhysAddr(*paddr), Way::PageTables),
                "{kaddr:#x} of {machine:?}"
            );
        }
        let facts = kernel.facts();
        assert_eq!(facts.page_offset, Some(KVirtAddr(built.page_offset)), "{machine:?}");
        assert_eq!(facts.phys_base, Some(built.phys_base));
        assert_eq!(facts.kaslr_offset, Some(machine.kaslr));
        assert_eq!(facts.encryption_mask, Some(machine.sme_mask));
        assert_eq!(
            facts.levels.map(Levels::count),
            Some(if machine.levels == paging::Levels::Five { 5 } else { 4 })
        );
        assert_eq!(kernel.memory().direct_map(PhysAddr(0x1234)), Some(KVirtAddr(built.page_offset + 0x1234)));
    }
}

#[test]
fn what_is_not_mapped_is_told_with_its_level() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    let level = |kaddr: u64| match kernel.memory().translate(KVirtAddr(kaddr)) {
        Err(MemError::NotMapped { level, .. }) => level,
        other => panic!("{other:?}"),
    };
    assert_eq!(level(0xffff_f000_0000_0000), "PGD");
    assert_eq!(level(built.page_offset + (2 << 30)), "PUD");
    assert_eq!(level(0x1000_0000_0000_0000), "not a canonical address");
    let vmalloc = built.translations.iter().find(|(_, paddr)| *paddr & 0xfff == 0xfff).unwrap().0;
    assert_eq!(level(vmalloc + 0x10_000), "PTE");
}

#[test]
fn a_page_that_is_mapped_and_left_out_is_not_called_unmapped() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    // RAM that nothing was written to, by the direct map.
    let err = kernel.memory().read_u64(KVirtAddr(built.page_offset + 0x60_0000)).unwrap_err();
    assert!(matches!(err, MemError::Page { source: PageError::Excluded { .. }, .. }), "{err}");
}

#[test]
fn a_read_crosses_pages_that_do_not_follow_each_other_in_memory() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    let vmalloc = built.translations.iter().find(|(_, paddr)| *paddr & 0xfff == 0xfff).unwrap().0 & !0xfff;
    let mut both = vec![0; 0x1000 + 14];
    kernel.memory().read(KVirtAddr(vmalloc), &mut both).unwrap();
    assert!(both.starts_with(b"vmalloc page 0"));
    assert!(both.ends_with(b"vmalloc page 1"));
}

#[test]
fn lost_page_tables_leave_the_linear_mappings_and_say_so() {
    let mut built = Machine::default().build();
    let top = place(&built, "init_top_pgt") / 4096;
    built.memory.lose(top..top + 8);
    let memory = Fixture(built.memory.clone());
    let mut hints = noted(&built);
    hints.segments = vec![(KVirtAddr(built.page_offset), PhysAddr(0), 0x150_0000)];
    let kernel = open(&memory, &hints);
    let mapping = kernel.memory().translate(KVirtAddr(built.symbols["init_uts_ns"])).unwrap();
    assert_eq!((mapping.paddr.0, mapping.way), (place(&built, "init_uts_ns"), Way::Linear));
    assert!(kernel.memory().stand_ins() > 0);
    assert_eq!(kernel.log(&vmcore::limits::Limits::default()).unwrap().records.len(), built.lines.len());
    // What is neither text nor direct map can't be had, and the reason is the lost table.
    let vmalloc = built.translations.iter().find(|(_, paddr)| *paddr & 0xfff == 0xfff).unwrap().0;
    assert!(matches!(
        kernel.memory().translate(KVirtAddr(vmalloc)),
        Err(MemError::Table { level: "PGD", .. })
    ));
}

#[test]
fn the_page_tables_of_a_cpu_stand_in_for_those_that_vmcoreinfo_does_not_name() {
    for machine in [Machine::default(), Machine::five_level()] {
        let built = machine.build();
        let memory = Fixture(built.memory.clone());
        let text: String = without(&built, |l| l.contains("pg"));
        let la57 = if machine.levels == paging::Levels::Five { 1 << 12 } else { 0 };
        // With a PCID, and the user's half of page-table isolation loaded.
        let cr3 = place(&built, "init_top_pgt") | 0x1000 | 0x803;
        let hints = Hints {
            control: vec![Control { cr3, cr4: 0x6f0 | la57 }],
            vmcoreinfo: Some(text.as_bytes()),
            ..Hints::default()
        };
        let kernel = open(&memory, &hints);
        assert_eq!(kernel.gaps(), []);
        for (kaddr, paddr) in &built.translations {
            assert_eq!(kernel.memory().translate(KVirtAddr(*kaddr)).unwrap().paddr, PhysAddr(*paddr));
        }
    }
}

#[test]
fn page_tables_that_contradict_the_text_mapping_are_not_used() {
    let mut built = Machine::default().build();
    // The root's last entry, which maps the text, leads into the log's pages.
    let top = place(&built, "init_top_pgt");
    built.memory.write_le(top + 511 * 8, 0x20_0063, 8);
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    assert!(
        kernel.gaps().iter().any(|g| g.what == "kernel page tables" && g.why.contains("contradicts")),
        "{:?}",
        kernel.gaps()
    );
    assert_eq!(kernel.uts().unwrap().nodename, "fixture");
}

#[test]
fn another_architecture_is_named_and_not_guessed_at() {
    let built = Machine::default().build();
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &Hints { machine: Some("aarch64".into()), ..noted(&built) });
    assert!(kernel.gaps().iter().any(|g| g.why.contains("aarch64")), "{:?}", kernel.gaps());
    assert_eq!(kernel.facts().release.as_deref(), Some("6.1.0-fixture"));
    let err = kernel.memory().translate(KVirtAddr(built.symbols["prb"])).unwrap_err();
    assert!(err.to_string().contains("the page tables are not known"), "{err}");
}
