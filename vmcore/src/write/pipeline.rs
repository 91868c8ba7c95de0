//! Reads, encodes and checks pages on several threads, and gives them in the order of their frames.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use super::{Encoder, Options, Reuse, WriteError};
use crate::addr::Pfn;
use crate::format::Codec;
use crate::mem::{Dump, PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};

/// Bytes of the pages of one batch.
const BATCH: u64 = 512 << 10;
/// Bytes of pages that a thread reads at once, into the same place each time: they stay in a core's second cache until they
/// are encoded and proven.
const READ: usize = 64 << 10;
/// What a page of zeros is compared with.
const ZEROS: [u8; 4096] = [0; 4096];

/// How one page of a batch is stored.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// Full of zeros: it takes no bytes.
    Zero,
    /// So many bytes of the batch, in this codec.
    Bytes(usize, Codec),
    /// It can't be read, and why.
    Unreadable(String),
}

/// Some pages, encoded.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Which frames.
    pub(super) runs: Vec<Range<u64>>,
    /// One for each frame.
    pub(super) pages: Vec<Stored>,
    /// Their bytes, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// The first page that does not come back as it was.
    wrong: Option<(u64, String)>,
}

/// Gives the batches of `frames` to `take`, in order. At most a few for each thread exist at a time.
pub(super) fn run(
    dump: &Dump,
    runs: impl Iterator<Item = Range<u64>> + Send,
    codec: Codec,
    drop_zeros: bool,
    options: &Options,
    (cancel, progress): (&Cancel, &dyn Progress),
    mut take: impl FnMut(&Batch) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let jobs = options.jobs.clamp(1, 64);
    let in_flight = jobs.saturating_mul(2).clamp(2, 24);
    let (give_back, free) = mpsc::sync_channel::<Batch>(in_flight);
    for _ in 0..in_flight {
        let _ = give_back.try_send(Batch::default());
    }
    let (done, results) = mpsc::sync_channel::<(u64, Batch)>(in_flight);
    let pages = BATCH.checked_div(dump.page_size()).unwrap_or(1).max(1);
    let work = Mutex::new(Work { runs, rest: None, number: 0, pages, free });
    let page_size = usize::try_from(dump.page_size()).unwrap_or(4096);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (done, work) = (done.clone(), &work);
            scope.spawn(move || {
                let mut encoder = Encoder::new(codec, options.effort);
                let mut plain = vec![0; READ.max(page_size)];
                while let Some((number, mut batch)) = next(work) {
                    if cancel.is_cancelled() {
                        return;
                    }
                    fill(dump, &mut plain, drop_zeros, options, &mut encoder, &mut batch);
                    if done.send((number, batch)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        // What comes too early waits: never more than there are batches.
        let outcome = in_order(&results, &give_back, (cancel, progress), &mut take);
        // Threads that wait for a batch or for room end when both ends are gone.
        drop((results, give_back));
        outcome
    })
}

struct Work<I> {
    runs: I,
    rest: Option<Range<u64>>,
    number: u64,
    /// Of one batch.
    pages: u64,
    free: Receiver<Batch>,
}

/// The next frames, in a batch that is free; `None` where all are given out.
fn next<I: Iterator<Item = Range<u64>>>(work: &Mutex<Work<I>>) -> Option<(u64, Batch)> {
    let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
    work.rest = work.rest.take().or_else(|| work.runs.next());
    work.rest.as_ref()?;
    let mut batch = work.free.recv().ok()?;
    batch.runs.clear();
    let mut room = work.pages;
    while room > 0 {
        let Some(run) = work.rest.take().or_else(|| work.runs.next()) else { break };
        let end = run.start.saturating_add(room).min(run.end);
        room = room.saturating_sub(end.saturating_sub(run.start));
        batch.runs.push(run.start..end);
        work.rest = Some(end..run.end).filter(|rest| !rest.is_empty());
    }
    let number = work.number;
    work.number = number.wrapping_add(1);
    Some((number, batch))
}

fn in_order(
    results: &Receiver<(u64, Batch)>,
    give_back: &SyncSender<Batch>,
    (cancel, progress): (&Cancel, &dyn Progress),
    take: &mut impl FnMut(&Batch) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let (mut early, mut expected) = (BTreeMap::new(), 0_u64);
    for (number, batch) in results {
        early.insert(number, batch);
        while let Some(batch) = early.remove(&expected) {
            if cancel.is_cancelled() {
                return Err(WriteError::Cancelled);
            }
            if let Some((pfn, why)) = batch.wrong {
                return Err(WriteError::Verify { pfn, why });
            }
            take(&batch)?;
            progress.advance(u64::try_from(batch.pages.len()).unwrap_or(0));
            expected = expected.wrapping_add(1);
            let _ = give_back.try_send(batch);
        }
    }
    if cancel.is_cancelled() {
        return Err(WriteError::Cancelled);
    }
    if early.is_empty() { Ok(()) } else { Err(WriteError::Thread) }
}

/// Encodes the pages of a batch; `plain` has room for some of them.
fn fill(
    dump: &Dump,
    plain: &mut [u8],
    drop_zeros: bool,
    options: &Options,
    encoder: &mut Encoder,
    batch: &mut Batch,
) {
    batch.pages.clear();
    batch.bytes.clear();
    batch.wrong = None;
    let page_size = usize::try_from(dump.page_size()).unwrap_or(4096);
    // What is stored has what is to be erased.
    if options.reuse != Reuse::None && options.blanks.is_none() && dump.segments().is_empty() {
        let page = plain.get_mut(..page_size).unwrap_or_default();
        return copy(dump, page, drop_zeros, options, encoder, batch);
    }
    let room = plain.len().checked_div(page_size).and_then(|room| u64::try_from(room).ok()).unwrap_or(1);
    for run in &batch.runs {
        let mut first = run.start;
        while first < run.end {
            let frames = first..first.saturating_add(room.max(1)).min(run.end);
            first = frames.end;
            let count = usize::try_from(frames.end.saturating_sub(frames.start)).unwrap_or(0);
            let plain = plain.get_mut(..count.saturating_mul(page_size)).unwrap_or_default();
            // As much at once as can be had; where that fails, frame by frame.
            let at_once = !dump.segments().is_empty()
                && Pfn(frames.start).start(dump.page_size()).is_some_and(|at| dump.read(at, plain).is_ok());
            for (pfn, page) in frames.zip(plain.chunks_exact_mut(page_size)) {
                if !at_once && let Err(why) = dump.read_frame(Pfn(pfn), page) {
                    batch.pages.push(Stored::Unreadable(why.to_string()));
                    continue;
                }
                // Before anything else: what is proven below is the page as it is written.
                if let Some(blanks) = &options.blanks {
                    blanks.apply(pfn, page);
                }
                if drop_zeros && is_zero(page) {
                    batch.pages.push(Stored::Zero);
                    continue;
                }
                let stored = store(pfn, page, options.verify, encoder, &mut batch.bytes, &mut batch.wrong);
                batch.pages.push(stored);
            }
        }
    }
}

/// Encodes a page behind `bytes`; with `verify`, `wrong` has the first that does not come back as it was.
fn store(
    pfn: u64,
    page: &[u8],
    verify: bool,
    encoder: &mut Encoder,
    bytes: &mut Vec<u8>,
    wrong: &mut Option<(u64, String)>,
) -> Stored {
    let start = bytes.len();
    let codec = encoder.encode(page, bytes);
    let stored = bytes.get(start..).unwrap_or_default();
    if verify
        && wrong.is_none()
        && let Err(why) = encoder.prove(codec, stored, page)
    {
        *wrong = Some((pfn, why));
    }
    Stored::Bytes(stored.len(), codec)
}

/// As [`fill`], and takes the stored bytes of a page over where that is wanted.
fn copy(
    dump: &Dump,
    page: &mut [u8],
    drop_zeros: bool,
    options: &Options,
    encoder: &mut Encoder,
    batch: &mut Batch,
) {
    for pfn in batch.runs.iter().cloned().flatten() {
        let start = batch.bytes.len();
        let stored = dump.read_stored(Pfn(pfn), &mut batch.bytes);
        let reused = stored.and_then(|codec| {
            let bytes = batch.bytes.get(start..).unwrap_or_default();
            let wanted = options.reuse == Reuse::All || codec == encoder.codec();
            if codec == Codec::Raw && bytes.len() == page.len() {
                page.copy_from_slice(bytes);
            } else if options.verify || !wanted {
                dump.decode_stored(Pfn(pfn), codec, bytes, page)?;
            } else {
                // Not looked at, and not taken for zeros.
                page.fill(1);
            }
            Ok((codec, wanted))
        });
        match reused {
            Err(why) => {
                batch.bytes.truncate(start);
                batch.pages.push(Stored::Unreadable(why.to_string()));
            }
            Ok(_) if drop_zeros && is_zero(page) => {
                batch.bytes.truncate(start);
                batch.pages.push(Stored::Zero);
            }
            Ok((codec, true)) => {
                batch.pages.push(Stored::Bytes(batch.bytes.len().saturating_sub(start), codec));
            }
            Ok((_, false)) => {
                batch.bytes.truncate(start);
                let stored = store(pfn, page, options.verify, encoder, &mut batch.bytes, &mut batch.wrong);
                batch.pages.push(stored);
            }
        }
    }
}

/// True where the page is full of zeros.
pub(super) fn is_zero(page: &[u8]) -> bool {
    page.chunks(ZEROS.len()).all(|part| ZEROS.get(..part.len()) == Some(part))
}

/// Frames whose bytes the dump has and that can be read, for what must know before it writes.
pub(super) fn readable(dump: &Dump, pfn: u64, page: &mut [u8]) -> Result<bool, String> {
    if dump.state(Pfn(pfn)) != PageState::Present {
        return Ok(false);
    }
    dump.read_frame(Pfn(pfn), page).map(|_| !is_zero(page)).map_err(|why| why.to_string())
}
