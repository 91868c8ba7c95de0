use fixtures::machine::Machine;
use fixtures::machine::log::LogKind;
use proptest::prelude::*;
use vmcore::analysis::panic;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::printk::LogError;
use vmcore::limits::Limits;

use crate::memory::{Fixture, noted, open, place};

/// `printk_ringbuffer` lies 0x100 behind the pointer to it.
fn ring_of(built: &fixtures::machine::Built) -> u64 {
    place(built, "prb") + 0x100
}

#[test]
fn impossible_ring_sizes_are_refused_in_words() {
    for bits in [0, 41, 63, 64, u32::MAX] {
        let mut built = Machine::default().build();
        let at = ring_of(&built);
        built.memory.write_le(at, u64::from(bits), 4);
        let memory = Fixture(built.memory.clone());
        let err = open(&memory, &noted(&built)).log(&Limits::default()).unwrap_err();
        assert!(matches!(err, LogError::Inconsistent { .. }), "{err}");
        assert!(err.to_string().contains(&format!("2^{bits}")), "{err}");
    }
}

#[test]
fn a_huge_ring_that_is_not_there_ends_soon() {
    let mut built = Machine::default().build();
    let at = ring_of(&built);
    built.memory.write_le(at, 24, 4);
    let memory = Fixture(built.memory.clone());
    let log = open(&memory, &noted(&built)).log(&Limits::default());
    assert!(log.is_ok_and(|log| log.lost.count > 0 || !log.records.is_empty()));
}

#[test]
fn a_null_pointer_to_the_ring_is_told() {
    let mut built = Machine::default().build();
    let at = place(&built, "prb");
    built.memory.write_le(at, 0, 8);
    let memory = Fixture(built.memory.clone());
    let err = open(&memory, &noted(&built)).log(&Limits::default()).unwrap_err();
    assert_eq!(err.to_string(), "the log's pointer prb can't be right: it is a null pointer");
}

#[test]
fn a_key_that_is_missing_is_named() {
    let built = Machine::default().build();
    let text = built.vmcoreinfo.replace("OFFSET(prb_desc.state_var)", "OFFSET(prb_desc.other)");
    let memory = Fixture(built.memory.clone());
    let hints = Hints { vmcoreinfo: Some(text.as_bytes()), ..Hints::default() };
    let err = open(&memory, &hints).log(&Limits::default()).unwrap_err();
    assert_eq!(
        err.to_string(),
        "VMCOREINFO does not say where the log is: it has no OFFSET(prb_desc.state_var)"
    );
}

#[test]
fn page_tables_that_lead_to_themselves_end() {
    let mut built = Machine::five_level().build();
    let top = place(&built, "init_top_pgt");
    for entry in 0..512 {
        built.memory.write_le(top + entry * 8, top | 0x63, 8);
    }
    let memory = Fixture(built.memory.clone());
    let kernel = open(&memory, &noted(&built));
    assert_eq!(kernel.uts().unwrap().nodename, "fixture");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any bytes anywhere in the pages that are read: never a panic, never a walk without end.
    #[test]
    fn damaged_memory_never_panics(
        kind in 0..3,
        writes in proptest::collection::vec((0_usize..6, 0_u64..0x5000, any::<u64>(), 1_usize..=8), 1..24),
        cr3: u64,
    ) {
        let kind = [LogKind::Ring, LogKind::Records, LogKind::Plain][usize::try_from(kind).unwrap()];
        let mut built = Machine::with_log(kind).build();
        let areas = [0x20_0000, 0x21_0000, 0x24_0000, 0x40_0000, place(&built, "init_top_pgt"), place(&built, "init_uts_ns")];
        for (area, at, value, width) in writes {
            built.memory.write_le(areas[area] + at, value, width);
        }
        let memory = Fixture(built.memory.clone());
        let mut limits = Limits::default();
        limits.log_records = 10_000;
        for hints in [noted(&built), Hints { control: vec![Control { cr3, cr4: cr3 }], ..Hints::default() }] {
            let kernel = open(&memory, &hints);
            let _ = kernel.uts();
            if let Ok(log) = kernel.log(&limits) {
                let mut out = Vec::new();
                log.write_to(&mut out, vmcore::kernel::printk::render::Style::default()).unwrap();
                let _ = panic::from_log(&log, true);
            }
        }
    }

    #[test]
    fn damaged_text_never_panics(at in 0_usize..3000, bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let built = Machine::default().build();
        let mut text = built.vmcoreinfo.clone().into_bytes();
        for (place, byte) in text.iter_mut().skip(at).zip(bytes) {
            *place = byte;
        }
        let memory = Fixture(built.memory.clone());
        let kernel = open(&memory, &Hints { vmcoreinfo: Some(&text), ..Hints::default() });
        let mut limits = Limits::default();
        limits.log_records = 10_000;
        let _ = (kernel.uts(), kernel.log(&limits));
    }
}
