//! A dump that a command has opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vmcore::analysis::subject::Subject;
use vmcore::error::OpenError;
use vmcore::format::diskdump;
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::report::{FrameRange, NoteCount, SplitPart, SplitSet};
use vmcore::source::open_file;

use crate::exit::Failure;

/// An opened dump.
pub(super) struct Opened {
    dump: Dump,
}

impl Opened {
    /// Opens a file, or the parts of a split set.
    ///
    /// # Errors
    /// What the matter is with the file, as the library says it.
    pub(super) fn try_open(paths: &[PathBuf]) -> Result<Self, OpenError> {
        Dump::open_set(paths, &OpenOptions::default()).map(|dump| Self { dump })
    }

    /// The same, with an exit code and a hint for a person.
    ///
    /// # Errors
    /// As [`Opened::try_open`].
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        Ok(Self::try_open(paths)?)
    }

    /// What the analyses need of it.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject::new(&self.dump)
    }

    /// The dump itself.
    pub(super) fn dump(&self) -> &Dump {
        &self.dump
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        self.dump.path().display().to_string()
    }

    /// What it is, in words: `a flattened stream of a kdump-compressed dump`.
    pub(super) fn what(&self) -> String {
        let facts = self.dump.facts();
        let format = match facts.format {
            "elf" => "an ELF vmcore".to_owned(),
            format => format!("a {format} dump"),
        };
        let has = |name: &str| facts.containers.contains(&name);
        match (has("flattened"), has("split")) {
            (true, true) => format!("a split set, flattened, of {format}"),
            (true, false) => format!("a flattened stream of {format}"),
            (false, true) => format!("a split set of {format}"),
            (false, false) => format,
        }
    }

    /// The notes by name and kind, in the order in which they first come.
    pub(super) fn notes(&self) -> Vec<NoteCount> {
        let mut order = Vec::new();
        let mut counts: BTreeMap<(&str, u32), NoteCount> = BTreeMap::new();
        for note in self.dump.notes() {
            let key = (note.name.as_str(), note.kind);
            let count = counts.entry(key).or_insert_with(|| {
                order.push(key);
                NoteCount { name: note.name.clone(), kind: note.kind, count: 0, bytes: 0 }
            });
            count.count += 1;
            count.bytes += u64::try_from(note.desc.len()).unwrap_or(0);
        }
        order.into_iter().filter_map(|key| counts.remove(&key)).collect()
    }

    /// The parts that were given, and the frames of those that were not; `None` for what is no split set.
    pub(super) fn split(&self) -> Option<SplitSet> {
        if self.dump.facts().parts.is_empty() {
            return None;
        }
        let mut parts: Vec<SplitPart> = self.dump.paths().iter().filter_map(|path| part(path)).collect();
        parts.sort_by_key(|part| part.start_pfn);
        let mut missing = Vec::new();
        let mut next = 0;
        let end = self.dump.end_pfn().0;
        for range in &self.dump.facts().parts {
            if range.start > next {
                missing.push(FrameRange { start_pfn: next, end_pfn: range.start });
            }
            next = next.max(range.end);
        }
        if next < end {
            missing.push(FrameRange { start_pfn: next, end_pfn: end });
        }
        Some(SplitSet { parts, missing })
    }
}

/// Which frames a part holds; its header is read again, because the opened set knows ranges without names.
fn part(path: &Path) -> Option<SplitPart> {
    let source = open_file(path).ok()?;
    let range = diskdump::read(&source, &Limits::default()).ok()?.part?;
    Some(SplitPart { path: path.display().to_string(), start_pfn: range.start, end_pfn: range.end })
}
