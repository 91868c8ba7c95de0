use fixtures::machine::log::{Line, LogKind, dmesg};
use fixtures::machine::log_ring::RingShape;
use fixtures::machine::{Built, Machine};
use vmcore::analysis::panic;
use vmcore::kernel::printk::{Caller, Generation, KernelLog, render};
use vmcore::kernel::walk::WalkEnd;
use vmcore::limits::Limits;
use vmcore::report::PanicKind;

use crate::memory::{Fixture, noted, open, place};

fn read(built: &Built) -> KernelLog {
    read_with(built, &Limits::default())
}

fn read_with(built: &Built, limits: &Limits) -> KernelLog {
    let memory = Fixture(built.memory.clone());
    open(&memory, &noted(built)).log(limits).unwrap()
}

fn text(log: &KernelLog) -> String {
    let mut out = Vec::new();
    log.write_to(&mut out, render::Style::default()).unwrap();
    String::from_utf8(out).unwrap()
}

/// Lines that fill any small log several times.
fn many() -> Vec<Line> {
    (0..700_u64)
        .map(|n| {
            Line::new(
                n * 1_234_567_000,
                &format!("line {n} {}", "x".repeat(usize::try_from(n % 61).unwrap())),
            )
        })
        .collect()
}

#[test]
fn each_generation_is_read_line_by_line() {
    for (kind, generation) in [
        (LogKind::Ring, Generation::Ring),
        (LogKind::Records, Generation::Records),
        (LogKind::Plain, Generation::Plain),
    ] {
        let built = Machine::with_log(kind).build();
        let log = read(&built);
        assert_eq!(log.generation, generation);
        assert!(log.is_complete(), "{log:?}");
        assert_eq!(text(&log), dmesg(&built.lines));
        let panic = panic::from_log(&log, true).unwrap();
        assert_eq!(panic.kind, PanicKind::Sysrq);
    }
}

#[test]
fn a_log_that_went_round_keeps_the_newest_lines() {
    for kind in [LogKind::Ring, LogKind::Records] {
        for count_bits in [3, 5, 6] {
            let ring = RingShape { count_bits, size_bits: 12, ..RingShape::default() };
            let built = Machine { ring, lines: Some(many()), ..Machine::with_log(kind) }.build();
            let log = read(&built);
            assert!(log.is_complete(), "{kind:?} {:?}", log.end);
            assert_eq!(text(&log), dmesg(&built.lines), "{kind:?} {count_bits}");
            if kind == LogKind::Ring {
                assert_eq!(log.dropped, Some(700 - u64::try_from(built.lines.len()).unwrap()));
            }
        }
    }
}

#[test]
fn a_plain_buffer_that_went_round_begins_where_the_oldest_byte_is() {
    let ring = RingShape { size_bits: 12, ..RingShape::default() };
    let built = Machine { ring, lines: Some(many()), ..Machine::with_log(LogKind::Plain) }.build();
    let log = read(&built);
    let kept = built.plain_text.as_deref().unwrap();
    // The oldest line is cut in its middle; every other one is whole.
    let whole: Vec<&str> = kept.lines().skip(1).map(|l| l.trim_start_matches("<6>")).collect();
    let shown = text(&log);
    assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), whole);
    assert_eq!(log.records.last().unwrap().level, Some(6));
}

#[test]
fn a_record_that_is_being_written_is_counted_and_not_shown() {
    let ring = RingShape { reserved_at_end: true, ..RingShape::default() };
    let built = Machine { ring, ..Machine::default() }.build();
    let log = read(&built);
    assert_eq!(log.unfinished, 1);
    assert!(log.is_complete());
    assert!(!text(&log).contains("half a li"));
}

#[test]
fn level_facility_caller_and_device_are_kept() {
    for kind in [LogKind::Ring, LogKind::Records] {
        let mut line = Line::new(5_000_000_000, "eth0: link up");
        (line.level, line.facility, line.caller) = (3, 1, 0x8000_0002);
        line.device = Some(("net".into(), "n2".into()));
        let built = Machine { lines: Some(vec![line]), ..Machine::with_log(kind) }.build();
        let log = read(&built);
        let record = &log.records[0];
        assert_eq!((record.level, record.facility, record.ts_ns), (Some(3), Some(1), Some(5_000_000_000)));
        assert_eq!((record.subsystem.as_deref(), record.device.as_deref()), (Some("net"), Some("n2")));
        if kind == LogKind::Ring {
            assert_eq!(record.caller, Some(Caller::Cpu(2)));
            let mut out = Vec::new();
            let mut style = render::Style::default();
            style.caller = true;
            log.write_to(&mut out, style).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), "[    5.000000] [      C2] eth0: link up\n");
        }
    }
}

#[test]
fn further_lines_of_a_record_are_indented_and_control_bytes_escaped() {
    let line = Line::new(1_000_002_000, "one\ntwo\ttab \x1b[31mred\x07 é");
    let built = Machine { lines: Some(vec![line]), ..Machine::default() }.build();
    assert_eq!(
        text(&read(&built)),
        "[    1.000002] one\n               two\ttab \\x1b[31mred\\x07 \\xc3\\xa9\n"
    );
}

#[test]
fn an_empty_line_of_the_ring_is_left_out_as_makedumpfile_does() {
    let lines = vec![Line::new(1_000, "a"), Line::new(2_000, ""), Line::new(3_000, "b")];
    let built = Machine { lines: Some(lines), ..Machine::default() }.build();
    let log = read(&built);
    assert_eq!(log.records.len(), 3);
    assert!(log.records[1].data_less);
    assert_eq!(text(&log).lines().count(), 2);
}

/// The log's arrays as the fixture lays them out: descriptors, infos 64 KiB further, text 256 KiB further.
const ARRAYS: u64 = 0x20_0000;

#[test]
fn a_missing_text_page_costs_only_the_lines_on_it() {
    let built = Machine {
        lines: Some(many()),
        ring: RingShape { count_bits: 8, size_bits: 14, ..RingShape::default() },
        ..Machine::default()
    }
    .build();
    let whole = text(&read(&built));
    let mut damaged = built.clone();
    let page = (ARRAYS + 0x4_0000) / 4096 + 1;
    damaged.memory.exclude(page..page + 1);
    let log = read(&damaged);
    assert!(log.lost.count > 0 && !log.is_complete());
    let reason = log.lost.first_reason.clone().unwrap();
    assert!(reason.contains("was left out when the dump was made"), "{reason}");
    assert_eq!(log.records.len(), built.lines.len());
    let shown = text(&log);
    let same = shown.lines().filter(|l| whole.contains(l)).count();
    assert!(same * 10 >= whole.lines().count() * 6, "{same} of {}", whole.lines().count());
    assert!(shown.contains("bytes are not in the dump>"));
}

#[test]
fn missing_infos_leave_the_text_without_times() {
    let mut built = Machine::default().build();
    let page = (ARRAYS + 0x1_0000) / 4096;
    built.memory.lose(page..page + 1);
    let log = read(&built);
    assert!(log.lost.count > 0);
    assert!(log.records.iter().any(|r| r.ts_ns.is_none() && r.text_lossy().starts_with("Linux version")));
}

#[test]
fn missing_descriptors_are_counted_and_the_others_come() {
    let lines = many();
    let ring = RingShape { count_bits: 9, size_bits: 15, ..RingShape::default() };
    let mut built = Machine { lines: Some(lines), ring, ..Machine::default() }.build();
    let page = ARRAYS / 4096 + 1;
    built.memory.exclude(page..page + 1);
    let log = read(&built);
    assert!(log.lost.count > 100, "{:?}", log.lost);
    assert!(!log.records.is_empty());
}

#[test]
fn a_broken_record_buffer_says_where_it_broke() {
    let mut built = Machine::with_log(LogKind::Records).build();
    // The second record's length is smaller than its header.
    let first = built.memory.read_u64(ARRAYS + 8) & 0xffff;
    built.memory.write_le(ARRAYS + first + 8, 3, 2);
    let log = read(&built);
    assert_eq!(log.records.len(), 1);
    assert!(
        matches!(&log.end, WalkEnd::Inconsistent(_, why) if why.contains("3 bytes long")),
        "{:?}",
        log.end
    );
}

#[test]
fn a_record_of_length_zero_at_the_start_is_a_cycle() {
    let mut built = Machine::with_log(LogKind::Records).build();
    built.memory.write_le(ARRAYS + 8, 0, 2);
    let log = read(&built);
    assert!(matches!(log.end, WalkEnd::Cycle(_)), "{:?}", log.end);
}

#[test]
fn a_next_index_that_no_record_reaches_is_not_walked_for_ever() {
    let mut built = Machine::with_log(LogKind::Records).build();
    let next = place(&built, "log_next_idx");
    built.memory.write_le(next, 7, 4);
    let log = read(&built);
    assert!(!log.end.is_complete());
    assert!(!log.records.is_empty());
}

#[test]
fn the_limit_of_records_is_kept_and_told() {
    for kind in [LogKind::Ring, LogKind::Records, LogKind::Plain] {
        let built = Machine::with_log(kind).build();
        let mut limits = Limits::default();
        limits.log_records = 5;
        let log = read_with(&built, &limits);
        assert_eq!((log.records.len(), log.end), (5, WalkEnd::Limit(5)), "{kind:?}");
    }
}

#[test]
fn a_slot_with_another_id_is_lost_and_not_shown_as_a_line() {
    let mut built = Machine::default().build();
    // The state_var of one descriptor in the middle: another generation of its slot.
    let state = built.memory.read_u64(ARRAYS + 10 * 24);
    built.memory.write_le(ARRAYS + 10 * 24, state ^ (1 << 20), 8);
    let log = read(&built);
    assert_eq!(log.lost.count, 1);
    assert!(log.lost.first_reason.as_deref().unwrap().contains("holds id"));
    assert_eq!(log.records.len() + 1, built.lines.len());
}

#[test]
fn text_that_another_record_overwrote_is_not_shown_as_this_ones() {
    let mut built = Machine::default().build();
    let begin = built.memory.read_u64(ARRAYS + 10 * 24 + 8) % (1 << 13);
    built.memory.write_le(ARRAYS + 0x4_0000 + begin, 42, 8);
    let log = read(&built);
    assert_eq!(log.lost.count, 1);
    assert!(log.lost.first_reason.as_deref().unwrap().contains("overwritten"));
}
