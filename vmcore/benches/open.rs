//! How long it takes to open a dump, to find a frame and to decode a page. `cargo bench -p vmcore`; the dumps are made
//! here, so the figures compare commits on one machine and nothing else.
#![allow(clippy::allow_attributes, clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::io;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use fixtures::codec::Codec;
use fixtures::elf::{Elf, Segment};
use fixtures::flattened::Flattened;
use fixtures::kdump::Kdump;
use fixtures::machine::Machine;
use fixtures::memory::Memory;
use fixtures::shuffle::Seed;
use vmcore::addr::Pfn;
use vmcore::source::ReadAt;
use vmcore::{Dump, OpenOptions, PhysicalMemory};

fn main() {
    divan::main();
}

#[derive(Clone)]
struct Bytes(Arc<Vec<u8>>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.as_slice();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buf.len().min(bytes.len() - start);
        buf[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }
}

fn open(bytes: &Bytes) -> Dump {
    Dump::from_source(Arc::new(bytes.clone()), "bench", &OpenOptions::default()).unwrap()
}

/// 16 MiB, half of it text-like and half of it noise.
fn memory() -> Memory {
    let mut memory = Memory::new(4096).ram(0..4096);
    for pfn in 0..4096u64 {
        let mut page = format!("page {pfn} of a log, with some words that repeat; ").repeat(90).into_bytes();
        page.truncate(2048);
        page.extend(Seed(pfn + 1).bytes(2048));
        memory.write(pfn * 4096, &page);
    }
    memory
}

fn kdump(codec: Codec) -> Bytes {
    Bytes(Arc::new(Kdump::of(codec).build(&memory()).bytes()))
}

#[divan::bench]
fn open_kdump(bencher: Bencher<'_, '_>) {
    let bytes = kdump(Codec::Lzo);
    bencher.bench(|| open(black_box(&bytes)));
}

#[divan::bench(args = [100, 10_000])]
fn open_elf_of_segments(bencher: Bencher<'_, '_>, count: u64) {
    let segments: Vec<Segment> = (0..count).map(|n| Segment::of(0, n * 0x2000, vec![1; 64])).collect();
    let bytes = Bytes(Arc::new(Elf { align: 1, ..Elf::default() }.of_segments(&segments).bytes()));
    bencher.bench(|| open(black_box(&bytes)));
}

#[divan::bench(args = [64, 4096])]
fn index_flattened(bencher: Bencher<'_, '_>, record: u64) {
    let built = Machine::default().build();
    let payload = Kdump { notes: built.notes.clone(), ..Kdump::of(Codec::Raw) }.build(&built.memory);
    let stream = Flattened { record_size: record, shuffled: Some(Seed(1)), ..Flattened::default() };
    let bytes = Bytes(Arc::new(stream.build(&payload).bytes()));
    bencher.counter(ItemsCount::new(payload.len() / record)).bench(|| open(black_box(&bytes)));
}

#[divan::bench]
fn rank_of_a_frame(bencher: Bencher<'_, '_>) {
    let dump = open(&kdump(Codec::Raw));
    let mut seed = Seed(3);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| dump.state(Pfn(black_box(seed.below(4096)))));
}

#[divan::bench(args = ["raw", "zlib", "lzo", "snappy", "zstd"])]
fn decode_every_page(bencher: Bencher<'_, '_>, codec: &str) {
    let dump = open(&kdump(Codec::named(codec).unwrap()));
    let mut page = vec![0; 4096];
    bencher.counter(BytesCount::new(4096 * 4096usize)).bench_local(|| {
        for pfn in 0..4096 {
            dump.read_frame(Pfn(pfn), &mut page).unwrap();
        }
    });
}
