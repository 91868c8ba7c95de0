//! Says whether a package is whole: each part, `SHA256SUMS`, and what the parts decompress to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;
use vmcore::progress::{Cancel, Progress};

use crate::exit::plain_io;

use super::damage::first_bad_frame;
use super::digest::{Digest, digest_file};
use super::error::PackError;
use super::manifest::Part;
use super::name::shown;
use super::package::{MANIFEST, Package, RECEIPT, SUMS, parts_by_digest};
use super::stream::{Event, PartState, Take, Tracker, read_part, stream};

/// What `kdt escalate` leaves beside a package.
const COMPANIONS: [&str; 5] =
    ["escalate.journal", ".kdt-escalate", "report.json", "report.html", "report.txt"];

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Lengths and digests of the parts.
    Parts,
    /// What they decompress to, too: every artifact's digest.
    Artifacts,
}

/// Something that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// What kind it is, for programs: `part-missing`, `part-renamed`, `part-short`, `part-long`,
    /// `part-swapped`, `part-damaged`, `part-unreadable`, `part-extra`, `sums-missing`, `sums-disagree`,
    /// `stream-odd`, `artifact-damaged`.
    pub code: &'static str,
    /// The file or artifact.
    pub subject: String,
    /// Near which byte of it, where that is known.
    pub at: Option<u64>,
    /// The sentence for people.
    pub sentence: String,
}

impl Problem {
    fn new(code: &'static str, subject: &str, at: Option<u64>, what: &str) -> Self {
        Self { code, subject: subject.to_owned(), at, sentence: format!("{subject} {what}") }
    }
}

/// What a look at a package found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// The package.
    pub package: Package,
    /// What is wrong, in the order of the parts. Empty: all that was looked at is right.
    pub problems: Vec<Problem>,
    /// Files in the folder that have nothing to do with the package.
    pub strangers: Vec<String>,
    /// Artifacts whose digest was found right; `None` where only parts were looked at.
    pub artifacts_right: Option<usize>,
    /// Parts whose digest was found right.
    pub parts_right: usize,
}

/// Checks a package. What is wrong with its parts is in the verdict and no error.
///
/// # Errors
/// The manifest can't be used, or it was cancelled.
pub fn verify(
    dir: &std::path::Path,
    depth: Depth,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Verdict, PackError> {
    let package = Package::open(dir)?;
    let mut problems = check_sums(&package);
    let folder = Folder::list(&package);
    let (states, artifacts) = match depth {
        Depth::Parts => {
            let bytes = package.manifest.parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
            progress.step("verify parts", Some(bytes));
            (read_parts(&package, progress, cancel)?, None)
        }
        Depth::Artifacts => {
            progress.step("verify", Some(package.manifest.stream_bytes));
            let (states, artifacts) = read_artifacts(&package, progress, cancel)?;
            (states, Some(artifacts))
        }
    };
    let extras = folder.digests(&package, cancel);
    if cancel.is_cancelled() {
        return Err(PackError::Cancelled);
    }
    let mut parts_right = 0_usize;
    let mut renamed = BTreeSet::new();
    for (part, (state, undecodable)) in package.manifest.parts.iter().zip(&states) {
        if state.agrees(part) {
            parts_right = parts_right.saturating_add(1);
        }
        if let PartState::Missing = state
            && let Some((name, _)) = extras.iter().find(|(_, digest)| **digest == part.sha256)
        {
            let what =
                format!("is missing, but {} holds its bytes under another name", shown(name.as_bytes()));
            problems.push(Problem::new("part-renamed", &part.name, None, &what));
            renamed.insert(name.clone());
            continue;
        }
        problems.extend(part_problem(&package, part, state, undecodable.as_deref(), cancel));
    }
    for name in &folder.extra_parts {
        if !renamed.contains(name) {
            let copy =
                extras.get(name).and_then(|digest| parts_by_digest(&package.manifest).get(digest).copied());
            let what = match copy {
                Some(part) => format!("is not in the manifest; it is a copy of {}", part.name),
                None => "is not in the manifest, and looks like a part".to_owned(),
            };
            problems.push(Problem::new("part-extra", &shown(name.as_bytes()), None, &what));
        }
    }
    let mut artifacts_right = None;
    if let Some(found) = artifacts {
        artifacts_right = Some(found.right);
        problems.extend(found.problems);
    }
    let strangers = folder.strangers.iter().map(|name| shown(name.as_bytes())).collect();
    Ok(Verdict { package, problems, strangers, artifacts_right, parts_right })
}

/// The files in a package's folder that the manifest does not name.
struct Folder {
    extra_parts: Vec<String>,
    strangers: Vec<String>,
    dir: PathBuf,
}

impl Folder {
    fn list(package: &Package) -> Self {
        let mut folder = Self { extra_parts: Vec::new(), strangers: Vec::new(), dir: package.dir.clone() };
        let known: BTreeSet<&str> = package
            .manifest
            .parts
            .iter()
            .map(|part| part.name.as_str())
            .chain([MANIFEST, SUMS, RECEIPT])
            .chain(COMPANIONS)
            .collect();
        // A folder that can't be listed still has parts that can be read.
        for entry in std::fs::read_dir(&package.dir).into_iter().flatten().flatten().take(1 << 20) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if known.contains(name.as_str()) {
                continue;
            }
            if name.contains(".part-") || name.contains("part-0") {
                folder.extra_parts.push(name);
            } else {
                folder.strangers.push(name);
            }
        }
        folder.extra_parts.sort();
        folder.strangers.sort();
        folder
    }

    /// The digests of the extra parts that have the length of a part.
    fn digests(&self, package: &Package, cancel: &Cancel) -> BTreeMap<String, Digest> {
        let sizes: BTreeSet<u64> = package.manifest.parts.iter().map(|part| part.size).collect();
        let mut digests = BTreeMap::new();
        for name in &self.extra_parts {
            let path = self.dir.join(name);
            let fits =
                std::fs::metadata(&path).is_ok_and(|meta| meta.is_file() && sizes.contains(&meta.len()));
            let digest = || digest_file(&mut File::open(&path).ok()?, &|| cancel.is_cancelled()).ok();
            if let Some((_, digest)) = fits.then(digest).flatten() {
                digests.insert(name.clone(), digest);
            }
        }
        digests
    }
}

/// Compares `SHA256SUMS` with the manifest.
fn check_sums(package: &Package) -> Vec<Problem> {
    let due = package.sums();
    let most = u64::try_from(due.len()).unwrap_or(u64::MAX).saturating_add(1 << 16);
    let mut text = Vec::new();
    let read = File::open(package.dir.join(SUMS)).and_then(|file| file.take(most).read_to_end(&mut text));
    if let Err(e) = read {
        let what = match e.kind() {
            std::io::ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("can't be read: {}", plain_io(&e)),
        };
        return vec![Problem::new("sums-missing", SUMS, None, &what)];
    }
    let text = String::from_utf8_lossy(&text);
    // `sha256sum -b` marks names with a star where plain output has the second space.
    let entry = |line: &str| {
        let (digest, name) = line.split_once(' ')?;
        let name = name.strip_prefix([' ', '*'])?;
        Some((name.to_owned(), digest.to_owned()))
    };
    let told: BTreeMap<String, String> = text.lines().filter_map(entry).collect();
    let mut problems = Vec::new();
    for (name, digest) in due.lines().filter_map(entry) {
        let what = match told.get(&name) {
            Some(told) if *told == digest => continue,
            Some(_) => format!("tells another digest of {name} than the manifest"),
            None => format!("does not name {name}"),
        };
        problems.push(Problem::new("sums-disagree", SUMS, None, &what));
    }
    problems
}

type State = (PartState, Option<String>);

/// Hashes the parts, several at a time.
fn read_parts(package: &Package, progress: &dyn Progress, cancel: &Cancel) -> Result<Vec<State>, PackError> {
    let parts = &package.manifest.parts;
    let next = AtomicUsize::new(0);
    let states: Mutex<BTreeMap<usize, PartState>> = Mutex::new(BTreeMap::new());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(parts.len()).clamp(1, 16);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(part) = parts.get(index) else { return };
                    let state = read_part(package, part, cancel, |chunk| {
                        progress.advance(u64::try_from(chunk.len()).unwrap_or(0));
                        true
                    });
                    if let Ok(mut states) = states.lock() {
                        states.insert(index, state);
                    }
                }
            });
        }
    });
    if cancel.is_cancelled() {
        return Err(PackError::Cancelled);
    }
    let states = states.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(states.into_values().map(|state| (state, None)).collect())
}

struct Artifacts {
    right: usize,
    problems: Vec<Problem>,
}

struct Check<'a> {
    package: &'a Package,
    found: Artifacts,
}

impl Take for Check<'_> {
    fn data(&mut self, _: usize, _: &[u8]) -> Result<(), PackError> {
        Ok(())
    }

    fn end(&mut self, artifact: usize, whole: Result<(), String>) -> Result<(), PackError> {
        match (whole, self.package.names.get(artifact)) {
            (Ok(()), _) => self.found.right = self.found.right.saturating_add(1),
            (Err(why), Some(name)) => {
                let what = format!("can't be given back: {why}");
                self.found.problems.push(Problem::new("artifact-damaged", &name.to_string(), None, &what));
            }
            (Err(_), None) => {}
        }
        Ok(())
    }
}

fn read_artifacts(
    package: &Package,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(Vec<State>, Artifacts), PackError> {
    let artifacts = &package.manifest.artifacts;
    let mut check = Check { package, found: Artifacts { right: 0, problems: Vec::new() } };
    for (index, artifact) in artifacts.iter().enumerate().filter(|(_, artifact)| artifact.size == 0) {
        check.end(index, empty(artifact.sha256))?;
    }
    let mut tracker = Tracker::new(package, vec![true; artifacts.len()]);
    let all: Vec<usize> = (0..package.manifest.parts.len()).collect();
    let mut states = Vec::new();
    stream(package, &all, progress, cancel, |event| match event {
        Event::Bytes { at, bytes } => tracker.bytes(at, bytes, &mut check),
        Event::Gap { part, from, to } => tracker.gap(from, to, &gap_reason(package, part), &mut check),
        Event::Part { state, undecodable, .. } => {
            states.push((state, undecodable));
            Ok(())
        }
    })?;
    let odd = tracker.odd.iter().map(|odd| Problem {
        code: "stream-odd",
        subject: "the stream".into(),
        at: None,
        sentence: odd.clone(),
    });
    check.found.problems.extend(odd);
    Ok((states, check.found))
}

/// Whether an artifact that is said to be empty has the digest of nothing.
pub(super) fn empty(sha256: Digest) -> Result<(), String> {
    let right = sha256 == Digest::of(b"");
    if right {
        Ok(())
    } else {
        Err("it is said to be empty, and to have another digest than nothing has".into())
    }
}

/// Why an artifact lacks bytes, to stand after «… can't be given back: ».
pub(super) fn gap_reason(package: &Package, part: usize) -> String {
    let name = package.manifest.parts.get(part).map_or("a part", |part| part.name.as_str());
    if package.dir.join(name).exists() {
        format!("some of its bytes are in {name}, which is damaged")
    } else {
        format!("some of its bytes are in {name}, which is missing")
    }
}

/// What is wrong with a part, if anything.
pub(super) fn part_problem(
    package: &Package,
    part: &Part,
    state: &PartState,
    undecodable: Option<&str>,
    cancel: &Cancel,
) -> Option<Problem> {
    let problem = |code, at, what: &str| Some(Problem::new(code, &part.name, at, what));
    match state {
        PartState::Missing => problem("part-missing", None, "is missing"),
        PartState::Unreadable(e) => {
            problem("part-unreadable", None, &format!("can't be read: {}", plain_io(e)))
        }
        PartState::Read { length, .. } if *length < part.size => {
            let what = format!("is cut off: it ends at byte {length}, and has to have {}", part.size);
            problem("part-short", Some(*length), &what)
        }
        PartState::Read { length, sha256 } if *length > part.size => {
            let more = length.saturating_sub(part.size);
            let rest = if *sha256 == part.sha256 { "; what is before them is right" } else { "" };
            let what = format!("has {more} bytes too many from byte {} on{rest}", part.size);
            problem("part-long", Some(part.size), &what)
        }
        PartState::Read { sha256, .. } if *sha256 == part.sha256 => {
            let why = undecodable?;
            problem("part-damaged", None, &format!("has the right digest, and does not decompress: {why}"))
        }
        PartState::Read { sha256, .. } => {
            if let Some(other) = parts_by_digest(&package.manifest).get(sha256) {
                return problem("part-swapped", None, &format!("holds the bytes of {}", other.name));
            }
            match first_bad_frame(&package.part_path(part), cancel) {
                Some((at, why)) => {
                    let what = format!("is damaged: what starts at byte {at} does not decompress ({why})");
                    problem("part-damaged", Some(at), &what)
                }
                None => problem(
                    "part-damaged",
                    None,
                    "is damaged: it does not have the digest that the manifest tells",
                ),
            }
        }
    }
}
