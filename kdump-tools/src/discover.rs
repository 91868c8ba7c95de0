//! Which of the files below a directory are dumps, and which of them belong together.
//!
//! Content decides, never the name. The one exception is an empty file that is named like a dump: the host wanted
//! to write one, and whoever looks should hear that nothing came of it.

use std::collections::HashSet;
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use vmcore::format::detect::{Detected, HEAD_BYTES, detect};
use vmcore::format::diskdump::{self, KdumpHeader};
use vmcore::limits::Limits;
use vmcore::progress::Cancel;
use vmcore::source::{open_file, read_vec};

use crate::exit::{Failure, plain_io};

/// Directories below a named one; deeper ones are told, not entered.
const DEPTH: usize = 16;
/// Files that are looked at; a directory with more is not a place of dumps.
const FILES: usize = 100_000;

/// One dump: a file, or the parts of a split set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpSet {
    /// The file; of a split set the parts, in the order of their frames.
    pub paths: Vec<PathBuf>,
}

impl DumpSet {
    /// What it is called in messages: the first file's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.paths.first().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// A file or directory that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which.
    pub path: PathBuf,
    /// Why, in words that fit behind the name: «is a text file».
    pub why: String,
    /// True where a dump can have been missed: a directory that can't be read.
    pub blind: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The dumps, in the order in which they were named, those of a directory by their names.
    pub sets: Vec<DumpSet>,
    /// What was passed over.
    pub skipped: Vec<Skipped>,
}

/// A file on its way into a set.
struct Candidate {
    path: PathBuf,
    part: Option<Box<KdumpHeader>>,
}

/// Finds the dumps among `paths` and below those of them that are directories. A file that is named is taken
/// whatever it is, so that opening it tells what is the matter with it.
///
/// # Errors
/// Only an interruption: what can't be read is told in [`Discovery::skipped`].
pub fn discover(paths: &[PathBuf], cancel: &Cancel) -> Result<Discovery, Failure> {
    let mut search =
        Search { cancel, seen: HashSet::new(), candidates: Vec::new(), skipped: Vec::new(), files: 0 };
    for path in paths {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => search.directory(path, 0)?,
            Ok(meta) => {
                if search.seen.insert((meta.dev(), meta.ino())) {
                    search.candidates.push(Candidate { path: path.clone(), part: split_part(path) });
                }
            }
            Err(_) => search.candidates.push(Candidate { path: path.clone(), part: None }),
        }
    }
    Ok(Discovery { sets: group(search.candidates), skipped: search.skipped })
}

/// The files that are named, the parts of a split set taken together; directories are left to whoever opens them.
#[must_use]
pub fn named(paths: &[PathBuf]) -> Vec<DumpSet> {
    let mut seen = HashSet::new();
    let fresh = paths.iter().filter(|path| match fs::metadata(path) {
        Ok(meta) => seen.insert((meta.dev(), meta.ino())),
        Err(_) => true,
    });
    group(fresh.map(|path| Candidate { path: path.clone(), part: split_part(path) }).collect())
}

struct Search<'a> {
    cancel: &'a Cancel,
    seen: HashSet<(u64, u64)>,
    candidates: Vec<Candidate>,
    skipped: Vec<Skipped>,
    files: usize,
}

impl Search<'_> {
    fn skip(&mut self, path: &Path, why: impl Into<String>, blind: bool) {
        self.skipped.push(Skipped { path: path.to_path_buf(), why: why.into(), blind });
    }

    /// Links are not followed: they lead out of the directory, or round in circles.
    fn directory(&mut self, dir: &Path, depth: usize) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        if depth >= DEPTH {
            self.skip(dir, format!("lies more than {DEPTH} directories deep"), true);
            return Ok(());
        }
        let paths = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut paths: Vec<PathBuf> = match paths {
            Ok(paths) => paths,
            Err(error) => {
                let error: io::Error = error;
                self.skip(dir, format!("can't be read: {}", plain_io(&error)), true);
                return Ok(());
            }
        };
        paths.sort();
        for path in paths {
            if self.files >= FILES {
                self.skip(dir, format!("and what follows is not looked at: {FILES} files are enough"), true);
                return Ok(());
            }
            self.files += 1;
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => self.directory(&path, depth + 1)?,
                Ok(meta) if meta.is_file() => {
                    if self.seen.insert((meta.dev(), meta.ino())) {
                        self.file(path, meta.len());
                    }
                }
                Ok(meta) => self.skip(&path, format!("is {}", kind_words(meta.file_type())), false),
                Err(error) => self.skip(&path, format!("can't be read: {}", plain_io(&error)), true),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, len: u64) {
        if len == 0 {
            if is_named_like_a_dump(&path) {
                self.candidates.push(Candidate { path, part: None });
            } else {
                self.skip(&path, "is an empty file", false);
            }
            return;
        }
        match head(&path).map(|head| detect(&head)) {
            Ok(Detected::Kdump) => {
                let part = split_part(&path);
                self.candidates.push(Candidate { path, part });
            }
            Ok(Detected::Foreign(foreign)) if !foreign.dump => {
                self.skip(&path, format!("is {}", foreign.what), false);
            }
            // A dump that can't be read is an answer too; and so is one that only root may read.
            Ok(_) => self.candidates.push(Candidate { path, part: None }),
            Err(_) if is_named_like_a_dump(&path) => self.candidates.push(Candidate { path, part: None }),
            Err(error) => self.skip(&path, format!("can't be read: {}", plain_io(&error)), true),
        }
    }
}

/// The names that kdump's scripts, `virsh dump` and netdump give. What lies beside a dump has an extension.
fn is_named_like_a_dump(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = path.extension().is_some_and(|extension| extension == "txt" || extension == "log");
    (name.starts_with("vmcore") && !text) || name.starts_with("dump.")
}

fn kind_words(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a link, and links are not followed"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The header of a part of a split set; `None` for anything else.
fn split_part(path: &Path) -> Option<Box<KdumpHeader>> {
    // It refuses what is no regular file: a FIFO would wait for its writer.
    let source = open_file(path).ok()?;
    let head = read_vec(&source, 0, HEAD_BYTES as u64).ok()?;
    if !matches!(detect(&head), Detected::Kdump) {
        return None;
    }
    let header = diskdump::read(&source, &Limits::default()).ok()?;
    header.part.is_some().then(|| Box::new(header))
}

/// Parts whose headers agree become one set, at the place of the first of them.
fn group(candidates: Vec<Candidate>) -> Vec<DumpSet> {
    let mut sets: Vec<Vec<Candidate>> = Vec::new();
    for candidate in candidates {
        let belongs =
            |set: &&mut Vec<Candidate>| match (&candidate.part, set.first().and_then(|c| c.part.as_ref())) {
                (Some(part), Some(other)) => part.differs_from(other).is_none(),
                _ => false,
            };
        match sets.iter_mut().find(belongs) {
            Some(set) => set.push(candidate),
            None => sets.push(vec![candidate]),
        }
    }
    for set in &mut sets {
        set.sort_by_key(|c| {
            c.part.as_ref().and_then(|part| part.part.as_ref()).map_or(0, |range| range.start)
        });
    }
    sets.into_iter().map(|set| DumpSet { paths: set.into_iter().map(|c| c.path).collect() }).collect()
}
