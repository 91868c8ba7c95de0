//! How large a dump will get and how long it takes, from how some pages of each class compress.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Effort, Encoder, pipeline};
use crate::addr::Pfn;
use crate::filter::{Class, Classes, Level};
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::Cancel;

/// Where classes can't be told: so many of all frames are looked at.
const MOST: u64 = 256;
/// A descriptor in a kdump.
const DESC: u64 = 24;

/// What some pages of a class have shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// The class; [`Class::Unknown`] for all pages, where classes can't be told.
    pub class: Class,
    /// Its pages in the dump.
    pub pages: u64,
    /// How many of them were looked at.
    pub seen: u64,
    /// How many of these were full of zeros.
    pub zeros: u64,
    /// What they took in each codec.
    pub encoded: Vec<Encoded>,
}

/// What the pages of a sample that are not zeros took in one codec.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Encoded {
    /// The codec.
    pub codec: Codec,
    /// Bytes.
    pub bytes: u64,
    /// How long it took to read, encode and prove them.
    pub work: Duration,
    /// How long the digest of what was encoded took.
    pub digest: Duration,
}

/// What a dump at a level will be like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Estimate {
    /// The codec.
    pub codec: Codec,
    /// Its size, in bytes.
    pub bytes: u64,
    /// How long one thread reads, encodes and proves its pages.
    pub work: Duration,
    /// How long the digest of it takes, which is one thread's work behind all else.
    pub digest: Duration,
}

impl Estimate {
    /// How long so many threads take; what writing takes comes on top.
    #[must_use]
    pub fn time(&self, threads: usize) -> Duration {
        let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        self.work.checked_div(threads).unwrap_or_default().saturating_add(self.digest)
    }
}

/// Encodes some pages of each class in each codec.
#[must_use]
pub fn sample(
    dump: &Dump,
    classes: &Classes,
    codecs: &[Codec],
    effort: Effort,
    cancel: &Cancel,
) -> Vec<Sample> {
    let told: Vec<(Class, Vec<u64>, u64)> = Class::ALL
        .into_iter()
        .map(|class| (class, classes.samples.get(class)))
        .filter(|(_, (_, pages))| *pages > 0)
        .map(|(class, (frames, pages))| (class, frames.to_vec(), pages))
        .collect();
    let told = if told.is_empty() { vec![any(dump, classes)] } else { told };
    told.into_iter()
        .map(|(class, frames, pages)| {
            let mut sample = Sample { class, pages, seen: 0, zeros: 0, encoded: Vec::new() };
            let mut page = vec![0; usize::try_from(dump.page_size()).unwrap_or(4096)];
            // Read once before: what the disk takes for pages here and there says nothing of all of them in a row.
            for pfn in frames.iter().take_while(|_| !cancel.is_cancelled()) {
                drop(dump.read_frame(Pfn(*pfn), &mut page));
            }
            for codec in codecs {
                let mut encoder = Encoder::new(*codec, effort);
                let (mut seen, mut zeros, mut bytes) = (0_u64, 0_u64, 0_u64);
                let mut out = Vec::new();
                let (mut hash, mut digest) = (Sha256::new(), Duration::ZERO);
                let begun = Instant::now();
                for pfn in frames.iter().take_while(|_| !cancel.is_cancelled()) {
                    if dump.read_frame(Pfn(*pfn), &mut page).is_err() {
                        continue;
                    }
                    seen = seen.saturating_add(1);
                    if pipeline::is_zero(&page) {
                        zeros = zeros.saturating_add(1);
                        continue;
                    }
                    out.clear();
                    let stored = encoder.encode(&page, &mut out);
                    // What it says of this machine is for the writing to say; here it only has to take its time.
                    let _ = encoder.prove(stored, &out, &page);
                    let done = Instant::now();
                    hash.update(&out);
                    digest = digest.saturating_add(done.elapsed());
                    bytes = bytes.saturating_add(u64::try_from(out.len()).unwrap_or(0));
                }
                (sample.seen, sample.zeros) = (seen, zeros);
                let work = begun.elapsed().saturating_sub(digest);
                sample.encoded.push(Encoded { codec: *codec, bytes, work, digest });
            }
            sample
        })
        .collect()
}

/// How many bytes these frames take in a kdump, with their descriptors: each of them is encoded. Pages of zeros take none but that.
#[must_use]
pub fn stored(dump: &Dump, frames: &[(Pfn, u64)], codec: Codec, effort: Effort, cancel: &Cancel) -> u64 {
    let all: Vec<u64> =
        frames.iter().flat_map(|(first, count)| first.0..first.0.saturating_add(*count)).collect();
    let one = |(encoder, page, out): &mut (Encoder, Vec<u8>, Vec<u8>), pfn: &u64| {
        if cancel.is_cancelled() || dump.read_frame(Pfn(*pfn), page).is_err() || pipeline::is_zero(page) {
            return DESC;
        }
        out.clear();
        encoder.encode(page, out);
        u64::try_from(out.len()).unwrap_or(0).saturating_add(DESC)
    };
    let page = usize::try_from(dump.page_size()).unwrap_or(4096);
    all.par_iter().map_init(|| (Encoder::new(codec, effort), vec![0; page], Vec::new()), one).sum()
}

/// Some of all frames.
fn any(dump: &Dump, classes: &Classes) -> (Class, Vec<u64>, u64) {
    let all = classes.kept.len();
    let step = all.div_ceil(MOST).max(1);
    let frames = classes.kept.runs(0..dump.end_pfn().0).flatten();
    let chosen = frames.step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect();
    (Class::Unknown, chosen, all)
}

/// What a kdump at `level` will be like in each codec that was sampled. `fixed` is what it has beside its pages, in bytes.
#[must_use]
pub fn at_level(samples: &[Sample], level: Level, fixed: u64, page_size: u64) -> Vec<Estimate> {
    let Some(first) = samples.first() else { return Vec::new() };
    let codecs = first.encoded.iter().map(|encoded| encoded.codec);
    codecs
        .map(|codec| {
            let mut estimate = Estimate {
                codec,
                bytes: fixed.saturating_add(page_size),
                work: Duration::ZERO,
                digest: Duration::ZERO,
            };
            for sample in samples.iter().filter(|sample| !level.excludes(sample.class)) {
                let Some(encoded) = sample.encoded.iter().find(|other| other.codec == codec) else {
                    continue;
                };
                let zeros = if level.drops_zeros() { 0 } else { sample.zeros.saturating_mul(page_size >> 6) };
                // In 128 bits nothing of this overflows: a count of pages, and bytes of 256 pages.
                let of_all = |part: u128| {
                    let all = part.saturating_mul(u128::from(sample.pages));
                    all.checked_div(u128::from(sample.seen)).unwrap_or(0)
                };
                let bytes = of_all(u128::from(encoded.bytes.saturating_add(zeros)));
                let descs = sample.pages.saturating_mul(DESC);
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(descs);
                estimate.bytes = estimate.bytes.saturating_add(bytes);
                let time = |one: Duration| {
                    Duration::from_nanos(u64::try_from(of_all(one.as_nanos())).unwrap_or(u64::MAX))
                };
                estimate.work = estimate.work.saturating_add(time(encoded.work));
                estimate.digest = estimate.digest.saturating_add(time(encoded.digest));
            }
            estimate
        })
        .collect()
}
