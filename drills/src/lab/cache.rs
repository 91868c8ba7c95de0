//! The lab's cache: what was downloaded, built or crashed once is not made twice.
//!
//! An entry is a folder that appears whole or not at all: it is made under a temporary name, then renamed.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{LabError, file_error};

/// A folder with the lab's entries, safe for several processes at a time.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens, or makes, the cache in `root`.
    ///
    /// # Errors
    /// [`LabError::File`] where the folder cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LabError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(file_error("make the cache folder", &root))?;
        let root = root.canonicalize().map_err(file_error("find the cache folder", &root))?;
        Ok(Self { root })
    }

    /// Where it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `kind/key`; `make` fills an empty folder where it does not exist yet. A second process that
    /// wants the same entry waits for the first.
    ///
    /// # Errors
    /// What `make` says, and [`LabError::File`].
    pub fn entry(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), LabError>,
    ) -> Result<PathBuf, LabError> {
        let entry = self.root.join(kind).join(key);
        let _lock = self.lock(&format!("{kind}-{key}"))?;
        if entry.is_dir() {
            return Ok(entry);
        }
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).map_err(file_error("make", &parent))?;
        let unfinished = tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(&parent)
            .map_err(file_error("make a folder in", &parent))?;
        make(unfinished.path())?;
        // From here on the folder is an entry, no longer a temporary one.
        let finished = unfinished.keep();
        fs::rename(&finished, &entry).map_err(file_error("name", &entry))?;
        Ok(entry)
    }

    /// Holds the lock `name` until the file is dropped.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn lock(&self, name: &str) -> Result<File, LabError> {
        let dir = self.root.join("locks");
        fs::create_dir_all(&dir).map_err(file_error("make", &dir))?;
        let path = dir.join(name);
        let file = File::create(&path).map_err(file_error("open the lock", &path))?;
        file.lock().map_err(file_error("wait for the lock", &path))?;
        Ok(file)
    }
}

/// A short name for «made from exactly these parts».
#[must_use]
pub(super) fn key(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    let mut name = String::new();
    for byte in digest.finalize().iter().take(12) {
        // Writing into a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("cache")).unwrap();
        let mut calls = 0;
        for _ in 0..2 {
            let entry = cache
                .entry("kernel", "a", |path| {
                    calls += 1;
                    fs::write(path.join("x"), "1").map_err(file_error("write", path))
                })
                .unwrap();
            assert_eq!(fs::read_to_string(entry.join("x")).unwrap(), "1");
        }
        assert_eq!(calls, 1);
    }

    #[test]
    fn an_entry_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let failed = cache.entry("crash", "a", |_| {
            Err(LabError::NoDump { why: "test".to_owned(), console: String::new() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path().join("crash")).unwrap().count(), 0);
    }

    #[test]
    fn keys_tell_their_parts_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]).len(), 24);
    }
}
