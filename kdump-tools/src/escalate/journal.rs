//! `escalate.journal`: who did what to the evidence, one line of JSON for each thing done.
//!
//! Each line has the SHA-256 of the line before it, so that none can be changed or taken out unseen. A last
//! line that a power loss cut off is taken away, which the next line tells.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::pack::{Digest, shown_path};

/// The name of the journal in the package's folder.
pub(super) const NAME: &str = "escalate.journal";
/// The longest journal that is read: a line has some hundred bytes.
const BYTES: u64 = 64 << 20;

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Always `kdt/journal/1`.
    pub schema: String,
    /// The place of the line, from 0.
    pub seq: u64,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// The user's number.
    pub uid: u32,
    /// The process.
    pub pid: u32,
    /// The host.
    pub host: String,
    /// Of which step: begin, collect, triage, pack, verify, send, end.
    pub step: String,
    /// done, failed, kept (from an earlier run), or recovered (the journal itself).
    pub result: String,
    /// The plan that it belongs to.
    pub plan: Digest,
    /// What happened, for people.
    pub note: String,
    /// What it made.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// What could not be had.
    #[serde(default)]
    pub missing: Vec<super::Missing>,
    /// The SHA-256 of the line before this one, without its line break; zeros in the first.
    pub prev: Digest,
}

/// A file that a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Output {
    /// Its path, from the package's folder on.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// Its SHA-256; of a package, the root digest.
    pub sha256: Digest,
}

impl Output {
    /// A file, or the package, with its digest.
    #[must_use]
    pub fn new(path: impl Into<String>, size: u64, sha256: Digest) -> Self {
        Self { path: path.into(), size, sha256 }
    }
}

/// What one line says, besides who and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) step: &'static str,
    pub(super) result: &'static str,
    pub(super) note: String,
    pub(super) outputs: Vec<Output>,
    pub(super) missing: Vec<super::Missing>,
}

/// The journal, held by this process alone.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    plan: Digest,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    prev: Digest,
}

impl Journal {
    /// Reads a journal and checks its chain.
    ///
    /// # Errors
    /// The file can't be read, is no journal, or a line of it was changed or taken out.
    pub fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(BYTES).read_to_end(&mut bytes))
            .map_err(|e| Failure::io("read", path, &e))?;
        Ok(chain(path, &bytes)?.entries)
    }

    /// Opens the journal in `folder`, or begins one, for a plan.
    pub(super) fn open(folder: &Path, plan: Digest) -> Result<Self, Failure> {
        let path = folder.join(NAME);
        let io = |e: &std::io::Error| Failure::io("open", &path, e);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).mode(0o600).open(&path).map_err(|e| io(&e))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::usage(
                format!("another kdt escalate is at work in {}", shown_path(folder)),
                "wait until it has finished, or name another directory with -o",
            ));
        }
        let mut bytes = Vec::new();
        (&mut file).take(BYTES).read_to_end(&mut bytes).map_err(|e| io(&e))?;
        let Chain { entries, prev, whole } = chain(&path, &bytes)?;
        let cut = bytes.len() - whole;
        if cut > 0 {
            file.set_len(u64::try_from(whole).unwrap_or(u64::MAX)).map_err(|e| io(&e))?;
        }
        let journal = Self { path, file, plan, state: Mutex::new(State { entries, prev }) };
        if cut > 0 {
            let note = format!("the last line was cut off, and its {cut} bytes were taken away");
            journal.say(Said { step: "begin", result: "recovered", note, ..Said::default() })?;
        }
        Ok(journal)
    }

    /// Adds a line; when this returns, it is on the disk.
    pub(super) fn say(&self, said: Said) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = jiff::Timestamp::now();
        let Said { step, result, note, outputs, missing } = said;
        let entry = Entry {
            schema: "kdt/journal/1".into(),
            seq: u64::try_from(state.entries.len()).unwrap_or(u64::MAX),
            at: now.round(jiff::Unit::Millisecond).unwrap_or(now).to_string(),
            uid: rustix::process::getuid().as_raw(),
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            step: step.into(),
            result: result.into(),
            plan: self.plan,
            note,
            outputs,
            missing,
            prev: state.prev,
        };
        let mut line = serde_json::to_vec(&entry)
            .map_err(|e| Failure::internal(format!("a line of the journal can't be written: {e}")))?;
        let digest = Digest::of(&line);
        line.push(b'\n');
        (&self.file)
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| Failure::io("write", &self.path, &e))?;
        state.prev = digest;
        state.entries.push(entry);
        Ok(())
    }

    /// What the last line about a step of this plan says, if the step was done.
    pub(super) fn done(&self, step: &str) -> Option<Entry> {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_plan = |entry: &&Entry| entry.step == step && entry.plan == self.plan;
        state
            .entries
            .iter()
            .rev()
            .find(of_plan)
            .filter(|entry| entry.result == "done" || entry.result == "kept")
            .cloned()
    }

    /// Why a step of this plan failed, as its last line tells.
    pub(super) fn failure(&self, step: &str) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_plan = |entry: &&Entry| entry.step == step && entry.plan == self.plan;
        let last = state.entries.iter().rev().find(of_plan)?;
        (last.result == "failed").then(|| last.note.clone())
    }

    /// True where the journal tells of another plan, and not of this one.
    pub(super) fn is_of_another_plan(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        !state.entries.is_empty() && state.entries.iter().all(|entry| entry.plan != self.plan)
    }
}

struct Chain {
    entries: Vec<Entry>,
    prev: Digest,
    /// Bytes of the lines that are whole.
    whole: usize,
}

fn chain(path: &Path, bytes: &[u8]) -> Result<Chain, Failure> {
    let broken = |number: usize, why: &str| {
        Failure::new(
            Exit::Verify,
            format!("line {number} of {} {why}", shown_path(path)),
            "keep that file as it is for whoever asks about it, and name another directory with -o",
        )
    };
    let zeros = Digest::parse(&"0".repeat(64)).unwrap_or_else(|| Digest::of(b""));
    let mut chain = Chain { entries: Vec::new(), prev: zeros, whole: 0 };
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let entry: Entry =
            serde_json::from_slice(text).map_err(|_| broken(number, "is no line of a journal"))?;
        if entry.prev != chain.prev || entry.seq + 1 != u64::try_from(number).unwrap_or(u64::MAX) {
            return Err(broken(number, "does not follow from the line before it: the journal was changed"));
        }
        chain.prev = Digest::of(text);
        chain.whole += line.len();
        chain.entries.push(entry);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path, plan: &[u8]) -> Result<Journal, Failure> {
        Journal::open(folder, Digest::of(plan))
    }

    fn said(step: &'static str) -> Said {
        Said { step, result: "done", note: step.into(), ..Said::default() }
    }

    #[test]
    fn what_was_done_is_known_to_the_next_run_of_the_same_plan() {
        let dir = tempfile::tempdir().unwrap();
        {
            let first = journal(dir.path(), b"one").unwrap();
            first.say(said("begin")).unwrap();
            first.say(said("collect")).unwrap();
            let failed = Said { result: "failed", ..said("triage") };
            first.say(failed).unwrap();
            assert!(
                journal(dir.path(), b"one")
                    .unwrap_err()
                    .message
                    .starts_with("another kdt escalate is at work")
            );
        }
        let again = journal(dir.path(), b"one").unwrap();
        assert_eq!(again.done("collect").unwrap().note, "collect");
        assert_eq!(again.done("triage"), None);
        assert!(!again.is_of_another_plan());
        drop(again);
        assert!(journal(dir.path(), b"two").unwrap().is_of_another_plan());
    }

    #[test]
    fn a_changed_or_missing_line_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        {
            let journal = journal(dir.path(), b"one").unwrap();
            for step in ["begin", "collect", "pack"] {
                journal.say(said(step)).unwrap();
            }
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(Journal::read(&path).unwrap().len(), 3);
        std::fs::write(&path, whole.replacen("\"note\":\"collect\"", "\"note\":\"nothing\"", 1)).unwrap();
        let failure = journal(dir.path(), b"one").unwrap_err();
        assert!(failure.message.starts_with("line 3 of "), "{failure}");
        assert_eq!(failure.exit, Exit::Verify);
        let without: String = whole
            .split_inclusive('\n')
            .enumerate()
            .filter(|(at, _)| *at != 1)
            .map(|(_, line)| line)
            .collect();
        std::fs::write(&path, without).unwrap();
        assert!(Journal::read(&path).unwrap_err().message.starts_with("line 2 of "));
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_taken_away_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        {
            let journal = journal(dir.path(), b"one").unwrap();
            journal.say(said("begin")).unwrap();
            journal.say(said("collect")).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        let journal = journal(dir.path(), b"one").unwrap();
        assert_eq!(journal.done("collect"), None);
        drop(journal);
        let entries = Journal::read(&path).unwrap();
        assert_eq!(entries[1].result, "recovered");
    }
}
