//! Decodes every page of a dump, and says which can't be had. Says nothing of what the pages mean.
//!
//! Pages are read in the order of the file and decoded on all threads of the pool that it is called in. What is held
//! at a time does not grow with the dump: a window of the file and a few thousand frames for each thread.
//!
//! Not each codec notices damage. A zlib stream carries a sum, which finds each changed byte. Zstandard frames as
//! makedumpfile writes them, LZO and Snappy blocks carry none: a changed byte of them often decodes, to another page.
//! A changed byte of a raw page always does. The digest finds such a change where an intact copy is there.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::addr::Pfn;
use crate::error::PageError;
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory, Swept};
use crate::progress::{Cancel, Progress};
use crate::report::{BadPages, CheckVerdict, CheckedCodec, CheckedPages, PageFault, PageRun, PagesDigest};

/// Frames that one thread takes at a time: they begin at a multiple of it.
const GROUP: u64 = 1024;
/// Groups that may be done before the first of them is: more would be held than memory is meant to be used.
const AHEAD: u64 = 64;

/// How a dump is checked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CheckOptions {
    /// Makes a digest of all pages.
    pub digest: bool,
    /// How many runs of bad pages are kept; the others are counted.
    pub runs: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { digest: false, runs: 1000 }
    }
}

impl CheckOptions {
    /// With a digest of all pages, or without.
    #[must_use]
    pub fn digest(mut self, digest: bool) -> Self {
        self.digest = digest;
        self
    }

    /// With at most this many runs of bad pages kept.
    #[must_use]
    pub fn runs(mut self, runs: usize) -> Self {
        self.runs = runs;
        self
    }
}

/// What a check showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The frames by what became of them.
    pub pages: CheckedPages,
    /// The pages by how they are stored.
    pub codecs: Vec<CheckedCodec>,
    /// Those that can't be had.
    pub bad: BadPages,
    /// What they hold; `None` where nobody asked, or where a stored page does not decode.
    pub digest: Option<PagesDigest>,
    /// It was interrupted: there is more that was not looked at.
    pub interrupted: bool,
    /// The file lacks something that it announces, pages or not.
    pub incomplete: bool,
}

impl Checked {
    /// The verdict in one word.
    #[must_use]
    pub fn verdict(&self) -> CheckVerdict {
        if self.pages.corrupt > 0 || self.pages.unreadable > 0 {
            CheckVerdict::Corrupt
        } else if self.incomplete || self.pages.lost > 0 || self.interrupted {
            CheckVerdict::Incomplete
        } else {
            CheckVerdict::Clean
        }
    }
}

/// Decodes every page. Tells `progress` of the bytes of pages.
#[must_use]
pub fn check(dump: &Dump, options: CheckOptions, progress: &dyn Progress, cancel: &Cancel) -> Checked {
    let state = dump.completeness();
    progress.step("decode pages", state.present_pages.checked_mul(dump.page_size()));
    let work = Work {
        dump,
        options,
        progress,
        cancel,
        state: Mutex::new(State { next: dump.next_present(Pfn(0)), ..State::default() }),
        merged: Condvar::new(),
    };
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads() {
            scope.spawn(|_| work.run());
        }
    });
    let done = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.finish(dump, options, cancel.is_cancelled())
}

/// What the threads share.
struct Work<'a> {
    dump: &'a Dump,
    options: CheckOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    state: Mutex<State>,
    merged: Condvar,
}

/// Which groups are handed out, and what those before `merged` showed.
#[derive(Default)]
struct State {
    next: Option<Pfn>,
    handed: u64,
    merged: u64,
    waiting: BTreeMap<u64, Group>,
    frames: u64,
    decoded: u64,
    codecs: BTreeMap<Codec, Tally>,
    faults: [u64; 3],
    runs: Runs,
    digest: Sha256,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    decoded: u64,
    corrupt: u64,
    stored_bytes: u64,
}

/// What one group of frames showed.
#[derive(Default)]
struct Group {
    frames: u64,
    decoded: u64,
    codecs: BTreeMap<Codec, Tally>,
    /// Bad pages by their number among the frames of the group.
    bad: Vec<(u64, PageRun)>,
    digests: Vec<(Pfn, [u8; 32])>,
}

impl Work<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((number, first)) = self.take() {
            let group = self.look(first);
            self.lock().merge(number, group, self.options);
            self.merged.notify_all();
        }
    }

    /// The next group of frames, and its number.
    fn take(&self) -> Option<(u64, Pfn)> {
        let mut state = self.lock();
        while state.handed.saturating_sub(state.merged) >= AHEAD {
            if self.cancel.is_cancelled() {
                return None;
            }
            let wait = Duration::from_millis(100);
            state = self.merged.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.cancel.is_cancelled() {
            return None;
        }
        let first = state.next?;
        let number = state.handed;
        state.handed = number.saturating_add(1);
        state.next = end_of_group(first).and_then(|end| self.dump.next_present(end));
        Some((number, first))
    }

    /// Decodes the group that begins with `first`.
    fn look(&self, first: Pfn) -> Group {
        let end = end_of_group(first).unwrap_or(Pfn(u64::MAX));
        let mut frames = Vec::new();
        let mut next = Some(first);
        while let Some(pfn) = next.filter(|pfn| *pfn < end) {
            frames.push(pfn);
            next = pfn.checked_add(1).and_then(|pfn| self.dump.next_present(pfn));
        }
        let mut group = Group { frames: count(frames.len()), ..Group::default() };
        let page_size = self.dump.page_size();
        let ended = self.dump.sweep(&frames, &mut |swept| {
            self.progress.advance(page_size);
            self.note(&mut group, &frames, &swept);
            if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if ended.is_break() {
            tracing::debug!("the check was stopped at {first}");
        }
        group.bad.sort_by_key(|(number, _)| *number);
        group.digests.sort_by_key(|(pfn, _)| *pfn);
        group
    }

    fn note(&self, group: &mut Group, frames: &[Pfn], swept: &Swept<'_>) {
        match &swept.page {
            Ok(page) => {
                group.decoded = group.decoded.saturating_add(1);
                if let Some(codec) = swept.codec {
                    let tally = group.codecs.entry(codec).or_default();
                    tally.decoded = tally.decoded.saturating_add(1);
                    tally.stored_bytes = tally.stored_bytes.saturating_add(swept.stored_bytes);
                }
                if self.options.digest {
                    group.digests.push((swept.pfn, Sha256::digest(page).into()));
                }
            }
            Err(error) => {
                let Some(run) = fault(swept, error) else { return };
                // Of an ELF vmcore, all that is lost is known from its segments.
                if run.fault == PageFault::Lost && self.dump.facts().format == "elf" {
                    return;
                }
                if let Some(codec) = swept.codec.filter(|_| run.fault == PageFault::Corrupt) {
                    let tally = group.codecs.entry(codec).or_default();
                    tally.corrupt = tally.corrupt.saturating_add(1);
                }
                let number = frames.partition_point(|pfn| *pfn < swept.pfn);
                group.bad.push((count(number), run));
            }
        }
    }
}

/// What is the matter with a page; `None` for one that the dump does not claim to have.
fn fault(swept: &Swept<'_>, error: &PageError) -> Option<PageRun> {
    let (fault, file_offset, why) = match error {
        PageError::Lost { why, .. } => (PageFault::Lost, None, why.clone()),
        PageError::Corrupt { at, why, .. } => (PageFault::Corrupt, Some(*at), why.clone()),
        PageError::Io { at, source, .. } => (PageFault::Unreadable, Some(*at), source.to_string()),
        PageError::Excluded { .. } | PageError::Hole { .. } => return None,
        PageError::OutOfRange { .. } => (PageFault::Corrupt, None, error.to_string()),
    };
    let codec = swept.codec.map(|codec| codec.name().to_owned());
    let pfn = swept.pfn.0;
    Some(PageRun { first_pfn: pfn, last_pfn: pfn, pages: 1, fault, codec, file_offset, why })
}

impl State {
    fn merge(&mut self, number: u64, group: Group, options: CheckOptions) {
        self.waiting.insert(number, group);
        while let Some(group) = self.waiting.remove(&self.merged) {
            self.merged = self.merged.saturating_add(1);
            self.decoded = self.decoded.saturating_add(group.decoded);
            for (codec, tally) in group.codecs {
                let sum = self.codecs.entry(codec).or_default();
                sum.decoded = sum.decoded.saturating_add(tally.decoded);
                sum.corrupt = sum.corrupt.saturating_add(tally.corrupt);
                sum.stored_bytes = sum.stored_bytes.saturating_add(tally.stored_bytes);
            }
            for (pfn, digest) in group.digests {
                self.digest.update(pfn.0.to_le_bytes());
                self.digest.update(digest);
            }
            for (number, run) in group.bad {
                let [lost, corrupt, unreadable] = &mut self.faults;
                let sum = match run.fault {
                    PageFault::Lost => lost,
                    PageFault::Corrupt => corrupt,
                    PageFault::Unreadable => unreadable,
                };
                *sum = sum.saturating_add(1);
                self.runs.add(self.frames.saturating_add(number), run, options.runs);
            }
            self.frames = self.frames.saturating_add(group.frames);
        }
    }

    fn finish(mut self, dump: &Dump, options: CheckOptions, interrupted: bool) -> Checked {
        let state = dump.completeness();
        let [lost, corrupt, unreadable] = self.faults;
        let pages = CheckedPages {
            announced: state.announced_pages,
            decoded: self.decoded,
            corrupt,
            unreadable,
            lost: lost.max(state.lost_pages),
            excluded: state.excluded_pages,
        };
        self.runs.close(options.runs);
        let bad = with_ranges(self.runs, dump.lost_ranges(), options.runs);
        let codecs = self.codecs.into_iter().map(|(codec, tally)| CheckedCodec {
            codec: codec.name().into(),
            decoded: tally.decoded,
            corrupt: tally.corrupt,
            stored_bytes: tally.stored_bytes,
        });
        let whole = options.digest && corrupt == 0 && unreadable == 0 && !interrupted;
        let digest =
            whole.then(|| PagesDigest { sha256: hex::encode(self.digest.finalize()), pages: self.decoded });
        let incomplete = !state.is_complete();
        Checked { pages, codecs: codecs.collect(), bad, digest, interrupted, incomplete }
    }
}

/// Bad pages, folded into runs in the order of their frames.
#[derive(Default)]
struct Runs {
    count: u64,
    first: Vec<PageRun>,
    last: Option<PageRun>,
    /// The run that may go on, and the number of its last frame.
    open: Option<(u64, PageRun)>,
}

impl Runs {
    /// Adds a bad page, the frame `number` of those that should be there.
    fn add(&mut self, number: u64, page: PageRun, limit: usize) {
        if let Some((at, run)) = &mut self.open
            && at.checked_add(1) == Some(number)
            && (run.fault, &run.codec) == (page.fault, &page.codec)
        {
            *at = number;
            run.last_pfn = page.last_pfn;
            run.pages = run.pages.saturating_add(1);
            return;
        }
        self.close(limit);
        self.open = Some((number, page));
    }

    /// Ends the run that is open.
    fn close(&mut self, limit: usize) {
        let Some((_, run)) = self.open.take() else { return };
        self.count = self.count.saturating_add(1);
        if self.first.len() < limit {
            self.first.push(run.clone());
        }
        self.last = Some(run);
    }
}

/// Adds what is lost without a descriptor.
fn with_ranges(runs: Runs, lost: impl Iterator<Item = (Range<u64>, u64)>, limit: usize) -> BadPages {
    let mut cut_off = Runs::default();
    for (range, pages) in lost.filter(|(range, _)| !range.is_empty()) {
        let last_pfn = range.end.saturating_sub(1);
        // Two ranges can meet in one frame, or be neighbours.
        if let Some((_, open)) = cut_off.open.as_mut().filter(|(end, _)| *end >= range.start) {
            let more = last_pfn.saturating_sub(open.last_pfn);
            open.pages = open.pages.saturating_add(more.min(pages));
            open.last_pfn = open.last_pfn.max(last_pfn);
        } else {
            cut_off.close(limit);
            cut_off.open = Some((
                range.end,
                PageRun {
                    first_pfn: range.start,
                    last_pfn,
                    pages,
                    fault: PageFault::Lost,
                    codec: None,
                    file_offset: None,
                    why: "the file ends, or its stream was cut, before it".into(),
                },
            ));
        }
        if let Some((end, _)) = &mut cut_off.open {
            *end = range.end.max(*end);
        }
    }
    cut_off.close(limit);
    let mut first = runs.first;
    first.append(&mut cut_off.first);
    first.sort_by_key(|run| run.first_pfn);
    first.truncate(limit);
    let highest = runs.last.into_iter().chain(cut_off.last).max_by_key(|run| run.last_pfn);
    BadPages { runs: runs.count.saturating_add(cut_off.count), first, last: highest }
}

fn end_of_group(pfn: Pfn) -> Option<Pfn> {
    Some(Pfn(pfn.0.checked_add(GROUP)? & !(GROUP - 1)))
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
