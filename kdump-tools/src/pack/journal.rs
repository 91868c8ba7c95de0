//! What an unfinished packing has done so far, so that a killed one can be gone on with.
//!
//! While it runs, a package lives in the hidden folder `.kdt-pack` of its target: finished parts under
//! their numbers, and `journal`, a line of JSON for each thing that is on the disk for sure. A line that
//! was cut off by a power loss is as if it had not been written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::PackError;
use super::name::shown_path;

/// The hidden folder of an unfinished package.
const FOLDER: &str = ".kdt-pack";
/// The longest line that is read back: a part with as many artifacts as a package can have.
const LINE_BYTES: u64 = 128 << 20;

/// What a line of the journal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub(super) enum Entry {
    /// Packing began, of this plan.
    Begin { plan: Digest, created: String },
    /// A part is written and on the disk.
    Part(PartDone),
    /// The stream has ended; from here on the parts get their final names.
    End { parts: usize },
}

/// A part that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartDone {
    pub(super) size: u64,
    pub(super) sha256: Digest,
    /// Where in the stream the next part starts.
    pub(super) stream_end: u64,
    /// The artifacts whose last byte is in this part.
    pub(super) finished: Vec<(usize, Digest)>,
}

/// The hidden folder, held by this process alone.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) target: PathBuf,
    pub(super) folder: PathBuf,
    journal: File,
}

impl Workshop {
    /// Makes the folders that are missing and takes the hidden one for this process.
    pub(super) fn enter(target: &Path) -> Result<Self, PackError> {
        let folder = target.join(FOLDER);
        // Parts hold the memory of a kernel: nobody else may read them.
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&folder).map_err(|e| PackError::target("making", &folder, e))?;
        let path = folder.join("journal");
        let mut options = OpenOptions::new();
        let journal = options
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| PackError::target("opening", &path, e))?;
        if rustix::fs::flock(&journal, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(PackError::WrongUse {
                what: format!("another kdt is packing into {}", shown_path(target)),
                hint: "wait until it has finished, or name another folder with -o".into(),
            });
        }
        Ok(Self { target: target.to_owned(), folder, journal })
    }

    /// Where part `number` lies until it has its final name.
    pub(super) fn part(&self, number: usize) -> PathBuf {
        self.folder.join(format!("part-{number:04}"))
    }

    /// What the journal says, up to the first line that is not whole.
    pub(super) fn read(&self) -> Vec<Entry> {
        let Ok(file) = File::open(self.folder.join("journal")) else { return Vec::new() };
        let mut lines = BufReader::new(file);
        let mut entries = Vec::new();
        loop {
            let mut line = Vec::new();
            let got = lines.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
            let whole = got.is_ok_and(|got| got > 0) && line.last() == Some(&b'\n');
            let Some(entry) = whole.then(|| serde_json::from_slice(&line).ok()).flatten() else {
                return entries;
            };
            entries.push(entry);
        }
    }

    /// Adds a line; when this returns, it is on the disk.
    pub(super) fn add(&self, entry: &Entry) -> Result<(), PackError> {
        let path = self.folder.join("journal");
        let add = || {
            let mut line = serde_json::to_vec(entry)?;
            line.push(b'\n');
            (&self.journal).write_all(&line)?;
            self.journal.sync_data()
        };
        add().map_err(|e| PackError::target("writing", &path, e))
    }

    /// Begins anew with these entries, and removes the parts that they do not tell of.
    pub(super) fn restart(&self, entries: &[Entry]) -> Result<(), PackError> {
        let path = self.folder.join("journal");
        self.journal.set_len(0).map_err(|e| PackError::target("emptying", &path, e))?;
        let parts = entries.iter().filter(|entry| matches!(entry, Entry::Part(_))).count();
        let listed = std::fs::read_dir(&self.folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for file in listed.map_err(|e| PackError::target("reading", &self.folder, e))? {
            let name = file.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("part-"));
            let number = number.and_then(|digits| digits.parse::<usize>().ok());
            if number.is_some_and(|number| number > parts) {
                remove(&file.path())?;
            }
        }
        for entry in entries {
            self.add(entry)?;
        }
        Ok(())
    }

    /// Removes the folder: the package is whole.
    pub(super) fn leave(self) -> Result<(), PackError> {
        remove(&self.folder.join("journal"))?;
        std::fs::remove_dir_all(&self.folder).map_err(|e| PackError::target("removing", &self.folder, e))
    }
}

/// Removes a file that is there or not.
pub(super) fn remove(path: &Path) -> Result<(), PackError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(PackError::target("removing", path, e)),
        _ => Ok(()),
    }
}

/// Puts the names in a folder on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), PackError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Some network file systems have nothing to sync for a folder, and say so.
        Err(e) if e.kind() != ErrorKind::InvalidInput => Err(PackError::target("syncing", folder, e)),
        _ => Ok(()),
    }
}
