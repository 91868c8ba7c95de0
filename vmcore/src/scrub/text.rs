//! Texts and patterns that somebody named, wherever they are in what is written.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;

use rayon::prelude::*;
use regex::bytes::{Regex, RegexBuilder};

use super::eraser::Eraser;
use super::neighbours;
use crate::addr::{Pfn, PhysAddr};
use crate::kernel::task::Tasks;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};

/// Frames that are read at once, with one more behind them: what crosses from one to the next is seen.
const PIECE: u64 = 64;
/// Hits of one pattern that are held.
pub(super) const HITS: usize = 1 << 20;

/// Something to look for.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    words: String,
}

/// Why a pattern can't be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is no regular expression.
    #[error("{pattern:?} is no regular expression: {why}")]
    Invalid {
        /// The pattern.
        pattern: String,
        /// Why, in a line.
        why: String,
    },
    /// It would erase nothing, everywhere.
    #[error("{pattern:?} matches the empty text")]
    Empty {
        /// The pattern.
        pattern: String,
    },
}

impl Pattern {
    /// A text as it is.
    ///
    /// # Errors
    /// Where it is empty.
    pub fn text(text: &str) -> Result<Self, PatternError> {
        Self::build(&regex::escape(text), text, format!("a text of {} bytes", text.len()))
    }

    /// A regular expression over bytes: `.` is any byte but a line's end, `\w` and `(?i)` know ASCII only.
    ///
    /// # Errors
    /// Where it is none, or matches the empty text.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Self::build(pattern, pattern, "a regular expression".into())
    }

    fn build(pattern: &str, given: &str, words: String) -> Result<Self, PatternError> {
        let regex =
            RegexBuilder::new(pattern).unicode(false).build().map_err(|why| PatternError::Invalid {
                pattern: given.into(),
                why: why.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            })?;
        if regex.is_match(b"") {
            return Err(PatternError::Empty { pattern: given.into() });
        }
        Ok(Self { regex, words })
    }

    /// What it is, without what it says: that is what is to be erased.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    pub(super) fn any_of(texts: &[&[u8]]) -> Option<Self> {
        let escaped: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        let most = 64 << 20;
        let regex = RegexBuilder::new(&escaped.join("|")).unicode(false).size_limit(most).build().ok()?;
        Some(Self { regex, words: "one of the canaries".into() })
    }

    pub(super) fn hits<'t>(&'t self, bytes: &'t [u8]) -> impl Iterator<Item = Range<usize>> + 't {
        self.regex.find_iter(bytes).map(|hit| hit.range())
    }
}

/// Bytes as a pattern that matches them alone.
fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"))
}

pub(super) fn erase(
    eraser: &mut Eraser<'_, '_>,
    patterns: &[Pattern],
    tasks: &Tasks,
    progress: &dyn Progress,
) -> Result<(), String> {
    if patterns.is_empty() {
        return Err("no text is given: name it with --scrub-text or --scrub-regex".into());
    }
    let watch = (eraser.cancel, progress);
    let (kept, size) = (eraser.kept, eraser.source.page_size);
    let found = sweep(eraser.dump, widened(eraser.frames()), patterns, watch);
    for (number, hits) in found.hits.into_iter().enumerate() {
        for (at, len) in hits {
            let last = at.checked_add(len.saturating_sub(1)).unwrap_or(at);
            // Half of a text may be in a page that is not written: what is of the other half goes too.
            if [at, last].iter().any(|at| at.pfn(size).is_some_and(|pfn| kept.contains(pfn.0))) {
                eraser.object();
                eraser.physical(at, len);
            }
        }
        if found.more.get(number).copied().unwrap_or(0) > 0 {
            let words = patterns.get(number).map_or("", Pattern::words);
            let more = found.more.get(number).copied().unwrap_or(0);
            eraser.trouble(words, &format!("it is there {more} times more than is held"));
        }
    }
    let source = eraser.source;
    let wanted = |pfn| kept.contains(pfn);
    let across = neighbours::sweep(eraser.dump, &source, tasks, patterns, &wanted, watch);
    for hit in across.hits {
        eraser.object();
        for (at, len) in hit.pieces {
            eraser.physical(at, len);
        }
    }
    if across.more > 0 {
        eraser.trouble("texts across borders of pages", &format!("{} more than are held", across.more));
    }
    for why in across.lost {
        eraser.trouble("texts across borders of pages in virtual memory", &why);
    }
    // A page that can't be read is not written either.
    Ok(())
}

/// The same frames with one more at each end of a run.
fn widened(frames: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for run in frames {
        let (start, end) = (run.start.saturating_sub(1), run.end.saturating_add(1));
        match all.last_mut() {
            Some(before) if before.end >= start => before.end = end,
            _ => all.push(start..end),
        }
    }
    all.into_iter()
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// For each pattern, where, and how many bytes; by address.
    pub(super) hits: Vec<Vec<(PhysAddr, u64)>>,
    /// For each pattern, how many more there are.
    pub(super) more: Vec<u64>,
    /// Pages that were looked at, and those that can't be read.
    pub(super) pages: u64,
    pub(super) unreadable: u64,
}

/// Looks for each pattern on its own, so that none hides another, in all of these frames and across the border of two that follow
/// each other.
pub(super) fn sweep(
    dump: &Dump,
    frames: impl Iterator<Item = Range<u64>>,
    patterns: &[Pattern],
    (cancel, progress): (&Cancel, &dyn Progress),
) -> Swept {
    let pieces: Vec<(u64, u64, u64)> = frames
        .flat_map(|run| {
            (run.start..run.end).step_by(64).map(move |from| {
                let to = from.saturating_add(PIECE).min(run.end);
                (from, to, to.saturating_add(1).min(run.end))
            })
        })
        .collect();
    let all = pieces.iter().fold(0_u64, |sum, (from, to, _)| sum.saturating_add(to.saturating_sub(*from)));
    progress.step("search", Some(all));
    let empty = || vec![Vec::new(); patterns.len()];
    let found = Mutex::new(Swept { hits: empty(), more: vec![0; patterns.len()], pages: 0, unreadable: 0 });
    pieces.into_par_iter().for_each(|(from, to, behind)| {
        if cancel.is_cancelled() {
            return;
        }
        let (bytes, unreadable) = read(dump, from..behind);
        let mine = dump.page_size().saturating_mul(to.saturating_sub(from));
        let start = from.saturating_mul(dump.page_size());
        let mut hits = empty();
        for (pattern, hits) in patterns.iter().zip(&mut hits) {
            for hit in pattern.hits(&bytes) {
                let (Ok(at), Ok(len)) = (u64::try_from(hit.start), u64::try_from(hit.len())) else {
                    continue;
                };
                // What begins in the page behind is found with the next piece.
                if at < mine {
                    hits.push((PhysAddr(start.saturating_add(at)), len));
                }
            }
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.pages = found.pages.saturating_add(to.saturating_sub(from));
        found.unreadable = found.unreadable.saturating_add(unreadable);
        let Swept { hits: all, more, .. } = &mut *found;
        for ((all, more), hits) in all.iter_mut().zip(more).zip(hits) {
            for hit in hits {
                if all.len() < HITS { all.push(hit) } else { *more = more.saturating_add(1) }
            }
        }
        progress.advance(to.saturating_sub(from));
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.hits.iter_mut().for_each(|hits| hits.sort_unstable());
    found
}

/// The bytes of these frames, and how many of them can't be read: zeros stand for those.
fn read(dump: &Dump, frames: Range<u64>) -> (Vec<u8>, u64) {
    let size = usize::try_from(dump.page_size()).unwrap_or(4096);
    let count = usize::try_from(frames.end.saturating_sub(frames.start)).unwrap_or(0);
    let mut bytes = vec![0; count.saturating_mul(size)];
    let mut unreadable = 0_u64;
    for (pfn, page) in frames.zip(bytes.chunks_exact_mut(size)) {
        if dump.read_frame(Pfn(pfn), page).is_err() {
            page.fill(0);
            unreadable = unreadable.saturating_add(1);
        }
    }
    (bytes, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_pattern_and_a_pattern_knows_bytes() {
        let text = Pattern::text("a.b[c").unwrap();
        assert_eq!(text.hits(b"a.b[c axb[c").collect::<Vec<_>>(), vec![Range { start: 0, end: 5 }]);
        let regex = Pattern::regex(r"token=\w+").unwrap();
        assert_eq!(
            regex.hits(b"\xff\xfetoken=abc1\xff").collect::<Vec<_>>(),
            vec![Range { start: 2, end: 12 }]
        );
    }

    #[test]
    fn runs_are_widened_and_do_not_overlap() {
        let wide = |runs: [Range<u64>; 3]| widened(runs.into_iter()).collect::<Vec<_>>();
        assert_eq!(wide([0..2, 4..5, 9..10]), [0..6, 8..11]);
        assert_eq!(wide([1..2, 3..4, 5..6]), [Range { start: 0, end: 7 }]);
    }

    #[test]
    fn what_matches_nothing_or_is_no_pattern_is_refused() {
        assert_eq!(Pattern::text("").unwrap_err().to_string(), "\"\" matches the empty text");
        assert_eq!(Pattern::regex("x*").unwrap_err().to_string(), "\"x*\" matches the empty text");
        let why = Pattern::regex("a(").unwrap_err().to_string();
        assert!(
            why.starts_with("\"a(\" is no regular expression: ") && why.contains("unclosed group"),
            "{why}"
        );
    }
}
