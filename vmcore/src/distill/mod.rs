//! Which frames of a dump are enough for the standard analyses, here and in crash and drgn. Writes nothing: whoever
//! writes dumps is given the frames.
//!
//! The analyses themselves are run over a [`Recorder`], so that all they read is kept whatever they read. What foreign
//! readers want beside that is added in the words of [`Reason`].

mod closure;

use std::collections::BTreeMap;

use crate::addr::Pfn;
use crate::analysis::subject::Subject;
use crate::analysis::triage::{Options, Section, triage};
use crate::kernel::{self, Kernel};
use crate::limits::Limits;
use crate::mem::{Dump, PageState, PhysicalMemory, Recorder};
use crate::progress::{Cancel, Progress};
use crate::report::Report;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What the analyses read, and what foreign readers begin with.
    Minimal,
    /// The code that stacks lead to, the strings that something points at and the open files of each task too.
    #[default]
    Standard,
    /// All of the kernel's code and constants, and all slab pages too.
    Generous,
}

impl Level {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Minimal, Self::Standard, Self::Generous];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Generous => "generous",
        }
    }
}

/// What a distilled dump says of itself, in its note.
#[must_use]
pub fn words(level: Level, version: &str) -> String {
    format!("distilled by kdt {version} at level {}", level.name())
}

/// Why a frame is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The analyses read it.
    Analyses,
    /// The kernel's data.
    KernelData,
    /// The kernel's constants: strings, symbols, types, unwind tables.
    KernelConstants,
    /// The kernel's text.
    KernelText,
    /// Per-CPU variables.
    PerCpu,
    /// `task_struct`s and stacks.
    Tasks,
    /// Unwind tables for what lies on the stacks.
    UnwindTables,
    /// Code that the stacks lead to.
    CodeOnStacks,
    /// What crash and drgn read before they answer anything.
    Readers,
    /// Modules.
    Modules,
    /// Open files of tasks.
    Files,
    /// Constant strings that something points at.
    Strings,
    /// Pages of the slab allocator.
    Slab,
    /// `struct page` of what is kept.
    PageStructs,
    /// Page tables that lead to what is kept.
    PageTables,
}

impl Reason {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Analyses => "read by the analyses",
            Self::KernelData => "kernel data",
            Self::KernelConstants => "kernel constants",
            Self::KernelText => "kernel text",
            Self::PerCpu => "per-CPU variables",
            Self::Tasks => "tasks and their stacks",
            Self::UnwindTables => "unwind tables",
            Self::CodeOnStacks => "code that stacks lead to",
            Self::Readers => "what readers begin with",
            Self::Modules => "modules",
            Self::Files => "open files",
            Self::Strings => "strings",
            Self::Slab => "slab pages",
            Self::PageStructs => "struct page",
            Self::PageTables => "page tables",
        }
    }
}

/// Which frames are kept, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The frames, ascending: the first of a run, and how many. Each of them is present in the dump.
    pub frames: Vec<(Pfn, u64)>,
    /// The frames that came for each reason and had not come for one before it, as `frames` has them.
    pub why: BTreeMap<Reason, Vec<(Pfn, u64)>>,
    /// What should be kept and is not in the dump, or could not be found: sentences.
    pub gaps: Vec<String>,
    /// What readers will miss of what was left out on purpose: sentences.
    pub notes: Vec<String>,
    /// The report of the analyses over the whole dump: those over the distilled one must give the same.
    pub report: Report,
}

impl Plan {
    /// How many frames are kept.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.frames.iter().map(|(_, count)| *count).sum()
    }

    /// True where the frame is kept.
    #[must_use]
    pub fn has(&self, pfn: Pfn) -> bool {
        let behind = self.frames.partition_point(|(first, _)| *first <= pfn);
        let run = behind.checked_sub(1).and_then(|index| self.frames.get(index));
        run.is_some_and(|(first, count)| pfn.0.saturating_sub(first.0) < *count)
    }
}

/// Runs the analyses of `dump` and plans which frames are kept. Where `cancel` is asked for, the plan is not whole.
#[must_use]
pub fn plan(dump: &Dump, level: Level, options: &Options, progress: &dyn Progress, cancel: &Cancel) -> Plan {
    let recorder = Recorder::new(dump);
    let mut subject = Subject { memory: &recorder, ..Subject::new(dump) };
    // Of a distilled dump nobody asks what was left out, so nothing is kept for that.
    let made = subject.dump.made.replace(words(level, &options.version));
    let mut report = triage(&subject, options, progress, cancel);
    report.dump.made = made;
    progress.step("find what foreign readers want", None);
    let kernel = Kernel::open(&recorder, &subject.hints, kernel::Options::default());
    let mut closure = closure::Closure::new(&recorder, &kernel, &options.limits, cancel);
    closure.note(Reason::Analyses);
    closure.find(level);
    let (why, gaps, mut notes) = (closure.why, closure.gaps, closure.notes);
    notes.extend(taken_for_zeros(dump, &recorder));
    Plan { frames: present(dump, &recorder), why, gaps, notes, report }
}

/// The frames that are worth most, for a dump that there may not be room for: what tells the log; then what the kernel died of, the
/// tasks with their stacks, and what readers begin with; and then, each set having those of the one before
/// again, code of the stacks, strings, open files and all `struct page`.
#[must_use]
pub fn first(dump: &Dump, limits: &Limits, progress: &dyn Progress, cancel: &Cancel) -> [Vec<(Pfn, u64)>; 3] {
    let recorder = Recorder::new(dump);
    let mut subject = Subject { memory: &recorder, ..Subject::new(dump) };
    subject.dump.made = Some(words(Level::Minimal, ""));
    progress.step("find what is worth most", None);
    let log = Options { only: vec![Section::Log], limits: limits.clone(), ..Options::new("kdt", "") };
    drop(triage(&subject, &log, progress, cancel));
    let log = present(dump, &recorder);
    let only =
        vec![Section::Kernel, Section::Log, Section::Panic, Section::Cpus, Section::Tasks, Section::Stacks];
    let options = Options { only, limits: limits.clone(), ..Options::new("kdt", "") };
    // What it has read is what it takes to be told again.
    drop(triage(&subject, &options, progress, cancel));
    let kernel = Kernel::open(&recorder, &subject.hints, kernel::Options::default());
    let mut closure = closure::Closure::new(&recorder, &kernel, limits, cancel);
    closure.find(Level::Minimal);
    let minimal = present(dump, &recorder);
    closure.find(Level::Standard);
    [log, minimal, present(dump, &recorder)]
}

/// What an ELF leaves out its readers take for zeros, and a kdump's do not: where that makes a difference it is said.
fn taken_for_zeros(dump: &Dump, recorder: &Recorder<'_>) -> Option<String> {
    if !dump.facts().containers.contains(&"elf") {
        return None;
    }
    let frames = recorder.touched().flat_map(|(first, count)| first.0..first.0.saturating_add(count));
    let count = frames.filter(|pfn| dump.state(Pfn(*pfn)) == PageState::Excluded).count();
    (count > 0).then(|| {
        format!(
            "{count} pages that readers ask for are not stored in the source, an ELF, and crash takes such pages for zeros there; \
             it reads the new dump alike with --zero_excluded"
        )
    })
}

/// Those of the touched frames that the dump has: reads of the others must fail as they do now.
fn present(dump: &Dump, recorder: &Recorder<'_>) -> Vec<(Pfn, u64)> {
    let frames = recorder.touched().flat_map(|(first, count)| first.0..first.0.saturating_add(count));
    runs_of(frames.map(Pfn).filter(|pfn| dump.state(*pfn) == PageState::Present))
}

/// Ascending frames, as runs of neighbours.
fn runs_of(frames: impl Iterator<Item = Pfn>) -> Vec<(Pfn, u64)> {
    let mut runs: Vec<(Pfn, u64)> = Vec::new();
    for pfn in frames {
        match runs.last_mut() {
            Some((first, count)) if first.0.checked_add(*count) == Some(pfn.0) => {
                *count = count.saturating_add(1);
            }
            _ => runs.push((pfn, 1)),
        }
    }
    runs
}
