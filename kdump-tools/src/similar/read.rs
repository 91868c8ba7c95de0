//! Finds the reports below folders, and reads of each what tells crashes apart.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use vmcore::analysis::signature;
use vmcore::progress::Cancel;
use vmcore::report::{Report, SIGNATURE_VERSION, Signature, TRIAGE_SCHEMA};

use super::{Searched, Unreadable};
use crate::exit::{Failure, plain_io};
use crate::pack::{MANIFEST, read_artifact};

/// Directories below a named one.
const DEPTH: usize = 32;
/// Files that are looked at.
const FILES: usize = 1_000_000;
/// The longest report that is read.
const LONGEST: u64 = 512 << 20;
/// Bytes in which a report says that it is one.
const HEAD: usize = 4096;
/// How a report begins to say what it is.
const MARK: &str = "kdt/triage/";

/// One crash, by a report of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The file that the report is in; of one in a package, the package's folder.
    pub path: PathBuf,
    /// The dump that it is of, by the name that it had then.
    pub dump: String,
    /// The host.
    pub host: Option<String>,
    /// Its kernel.
    pub release: Option<String>,
    /// When it crashed, in seconds since 1970.
    pub crash_time: Option<f64>,
    /// By what it is known.
    pub signature: Option<Signature>,
}

/// Of a report only what is needed: most of it is its log and its tasks.
#[derive(Deserialize)]
struct Slim {
    schema: String,
    dump: SlimDump,
    kernel: SlimKernel,
    #[serde(default)]
    signature: Option<Signature>,
}

#[derive(Deserialize)]
struct SlimDump {
    path: String,
}

#[derive(Deserialize)]
struct SlimKernel {
    nodename: Option<String>,
    release: Option<String>,
    crash_time: Option<f64>,
}

/// One, or an array of them. (An enum without tags would first make values of all, and lose the place of an error.)
fn list<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<Vec<T>> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice(bytes)
    } else {
        serde_json::from_slice(bytes).map(|one| vec![one])
    }
}

impl Seen {
    /// What a report tells; of one from before there were signatures, or with those of an older kdt, it is made anew.
    #[must_use]
    pub fn of(path: &Path, report: &Report) -> Self {
        Self {
            path: path.to_owned(),
            dump: report.dump.path.clone(),
            host: report.kernel.nodename.clone(),
            release: report.kernel.release.clone(),
            crash_time: report.kernel.crash_time,
            signature: signature::of(report),
        }
    }

    /// Whether both are reports of one and the same crash: a host does not crash twice in a second.
    #[must_use]
    pub fn is_same_crash(&self, other: &Self) -> bool {
        let same_time = match (self.crash_time, other.crash_time) {
            (Some(a), Some(b)) => (a - b).abs() < 0.5,
            _ => false,
        };
        same_time && self.host.is_some() && self.host == other.host && self.release == other.release
    }
}

/// Whether these bytes begin as a report of some version of kdt does.
#[must_use]
pub fn is_report(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(bytes.get(..HEAD).unwrap_or(bytes));
    matches!(head.trim_start().chars().next(), Some('{' | '[')) && head.contains(MARK)
}

/// The crashes that a document tells of: one report, or an array of them.
///
/// # Errors
/// Why it can't be used, to stand after the file's name.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Seen>, String> {
    let slim: Vec<Slim> = list(bytes).map_err(|error| format!("is no whole report: {error}"))?;
    if let Some(other) = slim.iter().find(|one| one.schema != TRIAGE_SCHEMA) {
        return Err(format!("is a document {}, and {TRIAGE_SCHEMA} is what this kdt reads", other.schema));
    }
    let current = |one: &Slim| one.signature.as_ref().is_some_and(|own| own.version == SIGNATURE_VERSION);
    if slim.iter().all(current) {
        let seen = slim.into_iter().map(|one| Seen {
            path: path.to_owned(),
            dump: one.dump.path,
            host: one.kernel.nodename,
            release: one.kernel.release,
            crash_time: one.kernel.crash_time,
            signature: one.signature,
        });
        return Ok(seen.collect());
    }
    let whole: Vec<Report> = list(bytes)
        .map_err(|error| format!("has a signature of another kdt, and is no whole report: {error}"))?;
    Ok(whole.iter().map(|report| Seen::of(path, report)).collect())
}

/// Reads a file that may be a report: `None` where it is none.
///
/// # Errors
/// Why it can't be read, to stand after its name.
pub fn read(path: &Path) -> Result<Option<Vec<Seen>>, String> {
    use std::io::Read as _;
    let said = |error: std::io::Error| format!("can't be read: {}", plain_io(&error));
    let mut file = fs::File::open(path).map_err(said)?;
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut bytes).map_err(said)?;
    if bytes.is_empty() && path.file_name().is_some_and(|name| name == "report.json") {
        return Err("is empty".into());
    }
    if !is_report(&bytes) {
        return Ok(None);
    }
    let length = file.metadata().map_err(said)?.len();
    if length > LONGEST {
        return Err(format!("has {length} bytes, and at most {LONGEST} are read"));
    }
    file.take(LONGEST).read_to_end(&mut bytes).map_err(said)?;
    parse(path, &bytes).map(Some)
}

/// A package says what it holds in its manifest; its report is in its first part.
fn read_package(manifest: &Path) -> Result<Option<Vec<Seen>>, String> {
    let mut head = Vec::new();
    {
        use std::io::Read as _;
        let said = |error: std::io::Error| format!("can't be read: {}", plain_io(&error));
        fs::File::open(manifest).map_err(said)?.take(HEAD as u64).read_to_end(&mut head).map_err(said)?;
    }
    if !String::from_utf8_lossy(&head).contains("kdt/package/") {
        return Ok(None);
    }
    let dir = manifest.parent().unwrap_or(Path::new("."));
    match read_artifact(dir, "report.json", LONGEST)? {
        Some(bytes) => parse(dir, &bytes).map(Some),
        None => Ok(None),
    }
}

/// All reports below the folders, several read at a time. Links are not followed.
///
/// # Errors
/// Only an interruption: what can't be read is named in [`Searched`].
pub fn search(folders: &[PathBuf], cancel: &Cancel) -> Result<(Vec<Seen>, Searched), Failure> {
    let mut searched = Searched::default();
    let mut files = Vec::new();
    let mut todo: Vec<(PathBuf, usize)> = folders.iter().rev().map(|folder| (folder.clone(), 0)).collect();
    while let Some((path, depth)) = todo.pop() {
        if cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let unreadable = |why: String| Unreadable { path: path.display().to_string(), why };
        let kind = if depth == 0 { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        match kind {
            Err(error) => searched.unreadable.push(unreadable(plain_io(&error))),
            Ok(kind) if kind.is_dir() && depth > DEPTH => {
                searched.unreadable.push(unreadable(format!("lies more than {DEPTH} directories deep")));
            }
            Ok(kind) if kind.is_dir() => match fs::read_dir(&path) {
                Err(error) => searched.unreadable.push(unreadable(plain_io(&error))),
                Ok(entries) => {
                    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                    below.sort_unstable_by(|a, b| b.cmp(a));
                    todo.extend(below.into_iter().map(|path| (path, depth + 1)));
                }
            },
            Ok(kind) if kind.is_file() && (depth == 0 || path.extension().is_some_and(|e| e == "json")) => {
                if files.len() >= FILES {
                    searched
                        .unreadable
                        .push(unreadable(format!("is past the first {FILES} files, which are read")));
                    break;
                }
                files.push(path);
            }
            Ok(_) => {}
        }
    }
    searched.files = files.len();
    let read_one = |path: &PathBuf| {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        if path.file_name().is_some_and(|name| name == MANIFEST) { read_package(path) } else { read(path) }
    };
    let results: Vec<_> = files.par_iter().map(read_one).collect();
    if cancel.is_cancelled() {
        return Err(Failure::interrupted());
    }
    let mut seen = Vec::new();
    for (path, result) in files.iter().zip(results) {
        match result {
            Ok(found) => seen.extend(found.into_iter().flatten()),
            Err(why) => searched.unreadable.push(Unreadable { path: path.display().to_string(), why }),
        }
    }
    searched.reports = seen.len();
    searched.without_signature = seen.iter().filter(|one| one.signature.is_none()).count();
    Ok((seen, searched))
}
