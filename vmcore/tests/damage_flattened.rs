//! Flattened streams, damaged in every way that we could think of.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod support;

use std::time::Instant;

use fixtures::bytes::Image;
use fixtures::codec::Codec;
use fixtures::flattened::Flattened;
use fixtures::kdump::Kdump;
use fixtures::machine::log::dmesg;
use fixtures::machine::{Built, Machine};
use fixtures::memory::Memory;
use support::{
    assert_no_wrong_bytes, bound_memory, exercise, hostile_values, log, open, opened_or_explained,
};

fn payload(built: &Built) -> Image {
    Kdump { notes: built.notes.clone(), phys_base: built.phys_base, ..Kdump::of(Codec::Zlib) }
        .build(&built.memory)
}

#[test]
fn cut_at_every_byte_of_a_small_one() {
    bound_memory(4096);
    let mut memory = Memory::new(4096).ram(0..4);
    memory.write(0x1000, &[0x11; 4096]);
    let inner = Kdump::of(Codec::Zlib).build(&memory);
    let stream = Flattened { record_size: 1024, ..Flattened::default() }.build(&inner).bytes();
    for cut in 0..stream.len() {
        let name = format!("cut at {cut:#x}");
        let Some(dump) = opened_or_explained(&name, stream[..cut].to_vec()) else { continue };
        assert!(!dump.completeness().is_complete(), "{name}: nothing says that it was cut");
        assert!(dump.completeness().truncated_at.is_some(), "{name}");
        assert_no_wrong_bytes(&name, &dump, &memory, |_| false);
    }
}

#[test]
fn a_stream_without_its_end_mark_is_whole_but_for_that() {
    let built = Machine::default().build();
    let stream = Flattened { no_end_mark: true, ..Flattened::default() }.build(&payload(&built));
    let dump = open(stream.bytes()).unwrap();
    assert_no_wrong_bytes("no end mark", &dump, &built.memory, |_| true);
    assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)));
    assert!(!dump.completeness().is_complete(), "a stream that does not end was cut");
}

#[test]
fn cut_at_half_it_still_yields_its_log_where_the_pages_are_there() {
    let built = Machine::default().build();
    let mut memory = built.memory.clone();
    for pfn in 0x1400..0x1480 {
        memory.write(pfn * 4096, &fixtures::shuffle::Seed(pfn).bytes(4096));
    }
    memory.include(0x1400..0x1480);
    let inner = Kdump { notes: built.notes.clone(), ..Kdump::of(Codec::Lzo) }.build(&memory);
    let mut stream = Flattened { record_size: 3000, ..Flattened::default() }.build(&inner).bytes();
    stream.truncate(stream.len() / 2);
    let dump = open(stream).unwrap();
    assert!(dump.completeness().lost_pages > 50);
    assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)));
}

#[test]
fn every_field_with_hostile_values() {
    bound_memory(4096);
    let built = Machine::default().build();
    let stream = Flattened { record_size: 2048, ..Flattened::default() }.build(&payload(&built));
    let bytes = stream.bytes();
    for mark in stream.marks().iter().filter(|mark| mark.is_field() && mark.end - mark.start <= 8) {
        let at = usize::try_from(mark.start).unwrap()..usize::try_from(mark.end).unwrap();
        let truth = bytes[at].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let mut values = hostile_values(truth, 8);
        values.extend([1 << 40, 1 << 62, u64::MAX / 2 - 100]);
        for value in values {
            let name = format!("{} = {value:#x}", mark.name);
            if let Some(dump) = opened_or_explained(&name, stream.with(&mark.name, value).unwrap()) {
                exercise(&dump, 100);
            }
        }
    }
}

/// (offset, data) of each record.
type Records = Vec<(u64, Vec<u8>)>;

#[test]
fn records_that_lie() {
    bound_memory(4096);
    let built = Machine::default().build();
    let inner = payload(&built).bytes();
    let cases: Vec<(&str, Records)> = vec![
        ("no record", vec![]),
        ("one empty record", vec![(0, vec![])]),
        ("a record at the end of 64 bits", vec![(0, inner.clone()), (u64::MAX - 2, vec![1, 2])]),
        ("a record at -2", vec![(0, inner.clone()), (u64::MAX - 1, vec![])]),
        ("a record far away", vec![(0, inner.clone()), (1 << 62, vec![1; 64])]),
        ("only far away", vec![(1 << 40, inner.clone())]),
        ("the header last", vec![(4096, inner[4096..].to_vec()), (0, inner[..4096].to_vec())]),
        (
            "a flattened stream in a flattened stream",
            vec![(0, Flattened::default().build(&payload(&built)).bytes())],
        ),
    ];
    for (name, records) in cases {
        if let Some(dump) = opened_or_explained(name, Flattened::of_records(&records, true).bytes()) {
            exercise(&dump, 200);
            assert_no_wrong_bytes(name, &dump, &built.memory, |_| true);
        } else {
            assert!(!name.contains("last"), "{name} must open");
        }
    }
}

/// A stream of streams is refused and not followed down.
#[test]
fn nesting_is_not_followed() {
    bound_memory(4096);
    let built = Machine::default().build();
    let mut image = payload(&built);
    for _ in 0..20 {
        image = Flattened { record_size: 1 << 20, ..Flattened::default() }.build(&image);
    }
    assert!(opened_or_explained("twenty layers", image.bytes()).is_none());
}

/// Two million records of one byte: one pass, an index of O(n log n), and memory that is bounded per record.
#[test]
fn millions_of_small_records_take_seconds_and_not_minutes() {
    bound_memory(4096);
    let stream = Flattened::of_many_small(2_000_000);
    let start = Instant::now();
    assert!(opened_or_explained("many", stream).is_none(), "its payload is no dump");
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
