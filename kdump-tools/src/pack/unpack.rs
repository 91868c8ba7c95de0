//! Gives the files of a package back: each gets its name only when its digest is right.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use vmcore::progress::{Cancel, Progress};

use super::beneath::Beneath;
use super::digest::digest_file;
use super::error::PackError;
use super::name::{ArtifactName, shown_path};
use super::package::Package;
use super::stream::{Event, PartState, Take, Tracker, is_zero, stream};
use super::verify::{Problem, empty, gap_reason, part_problem};

/// Zeros of at least this length become a hole in the file.
const HOLE: usize = 64 << 10;
/// Files from this length on are brought to the disk one by one, shorter ones all together at the end.
const SYNC: u64 = 1 << 20;

/// What to give back, and where.
#[derive(Clone, Debug)]
pub struct UnpackRequest {
    /// The package.
    pub dir: PathBuf,
    /// The folder for the files.
    pub out: PathBuf,
    /// Whether to refuse where the space may not do. Zeros become holes, so less may be enough.
    pub check_space: bool,
}

/// What unpacking will do.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnpackPlan {
    /// The package.
    pub package: Package,
    /// The folder for the files.
    pub out: PathBuf,
    /// What will be written: the places of the artifacts in the manifest.
    pub write: Vec<usize>,
    /// What is there already, with the right digest.
    pub already: Vec<ArtifactName>,
    /// What can't be given back because a part is not there, and why.
    pub lost: Vec<(ArtifactName, String)>,
    /// The parts that are not there.
    pub missing_parts: Vec<String>,
}

impl UnpackPlan {
    /// Bytes that will be written, at most.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let artifacts = &self.package.manifest.artifacts;
        let sizes = self.write.iter().filter_map(|index| artifacts.get(*index)).map(|artifact| artifact.size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// What unpacking gave.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Unpacked {
    /// Files that were written and have the right digest.
    pub written: Vec<ArtifactName>,
    /// Files that had been there already, with the right digest.
    pub already: Vec<ArtifactName>,
    /// What could not be given back, and why.
    pub lost: Vec<(ArtifactName, String)>,
    /// What is wrong with the parts that were read.
    pub problems: Vec<Problem>,
}

/// Looks at the package and at the folder, and says what [`unpack`] would do. Writes nothing.
///
/// # Errors
/// The manifest can't be used; a file of another content is in the way; the space does not do.
pub fn plan_unpack(
    request: &UnpackRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<UnpackPlan, PackError> {
    let package = Package::open(&request.dir)?;
    let out = match Beneath::open(&request.out) {
        Ok(out) => Some(out),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(PackError::target("opening", &request.out, e)),
    };
    let parts = &package.manifest.parts;
    let missing = |part: &&super::manifest::Part| {
        std::fs::symlink_metadata(package.part_path(part)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    };
    let mut missing_parts = Vec::new();
    let mut reasons: Vec<Option<String>> = vec![None; package.names.len()];
    for part in parts.iter().filter(missing) {
        missing_parts.push(part.name.clone());
        for hold in &part.holds {
            if let Some(reason) = reasons.get_mut(hold.artifact) {
                let first = || format!("some of its bytes are in {}, which is missing", part.name);
                reason.get_or_insert_with(first);
            }
        }
    }
    progress.step("look at what is there", None);
    let (mut write, mut already, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let artifacts = package.manifest.artifacts.iter().zip(&package.names).zip(reasons).enumerate();
    for (index, ((artifact, name), reason)) in artifacts {
        let existing = match out.as_ref().map(|out| out.existing(name)) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(file))) => Some(file),
            Some(Err(e)) => {
                let path = request.out.join(name.as_path());
                return Err(if is_link(&e) {
                    in_the_way(&path)
                } else {
                    PackError::target("opening", &path, e)
                });
            }
        };
        if let Some(mut file) = existing {
            let same_size = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == artifact.size);
            let digest = same_size.then(|| digest_file(&mut file, &|| cancel.is_cancelled()));
            if cancel.is_cancelled() {
                return Err(PackError::Cancelled);
            }
            if !matches!(digest, Some(Ok(found)) if found == (artifact.size, artifact.sha256)) {
                return Err(in_the_way(&request.out.join(name.as_path())));
            }
            already.push(name.clone());
        } else if let Some(reason) = reason {
            lost.push((name.clone(), reason));
        } else {
            write.push(index);
        }
    }
    let plan = UnpackPlan { package, out: request.out.clone(), write, already, lost, missing_parts };
    if request.check_space {
        check_room(&plan)?;
    }
    Ok(plan)
}

fn is_link(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR))
}

fn in_the_way(path: &Path) -> PackError {
    PackError::WrongUse {
        what: format!("{} is there already, and is not what the package has", shown_path(path)),
        hint: "name an empty folder with -o; nothing was overwritten".into(),
    }
}

fn check_room(plan: &UnpackPlan) -> Result<(), PackError> {
    // The folder may not be there yet: the nearest one above it is on the same file system.
    let whole = std::path::absolute(&plan.out).unwrap_or_else(|_| plan.out.clone());
    let Some(room) = whole.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()) else { return Ok(()) };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let need = plan.bytes();
    if need <= free {
        return Ok(());
    }
    Err(PackError::TooSmall { path: plan.out.clone(), free, need, about: false })
}

/// Carries the plan out. What is whole is given back even where parts are missing or damaged; the rest is
/// named. Run again, it goes on where it stopped.
///
/// # Errors
/// A file can't be written, or it was cancelled.
pub fn unpack(plan: UnpackPlan, progress: &dyn Progress, cancel: &Cancel) -> Result<Unpacked, PackError> {
    let UnpackPlan { package, out, write, already, lost, missing_parts } = plan;
    let folder = Beneath::make(&out).map_err(|e| PackError::target("making", &out, e))?;
    let mut wanted = vec![false; package.names.len()];
    let artifacts = &package.manifest.artifacts;
    let mut give =
        Give { package: &package, folder: &folder, out: &out, file: None, done: Unpacked::default() };
    for index in &write {
        match artifacts.get(*index) {
            Some(artifact) if artifact.size == 0 => {
                let whole = empty(artifact.sha256);
                if whole.is_ok() {
                    give.open(*index)?;
                }
                give.end(*index, whole)?;
            }
            _ => {
                if let Some(wanted) = wanted.get_mut(*index) {
                    *wanted = true;
                }
            }
        }
    }
    let holds_wanted = |part: &super::manifest::Part| {
        part.holds.iter().any(|hold| wanted.get(hold.artifact).copied().unwrap_or(false))
    };
    let parts = package.manifest.parts.iter().enumerate();
    let needed: Vec<usize> = parts.filter(|(_, part)| holds_wanted(part)).map(|(index, _)| index).collect();
    let bytes =
        needed.iter().filter_map(|index| package.manifest.parts.get(*index)).map(|part| part.stream_bytes);
    progress.step("unpack", Some(bytes.fold(0, u64::saturating_add)));
    let mut tracker = Tracker::new(&package, wanted);
    let mut problems = Vec::new();
    let streamed = stream(&package, &needed, progress, cancel, |event| match event {
        Event::Bytes { at, bytes } => tracker.bytes(at, bytes, &mut give),
        Event::Gap { part, from, to } => tracker.gap(from, to, &gap_reason(&package, part), &mut give),
        Event::Part { part, state, undecodable } => {
            if let Some(part) = package.manifest.parts.get(part) {
                problems.extend(part_problem(&package, part, &state, undecodable.as_deref(), cancel));
            }
            Ok(())
        }
    });
    if streamed.is_err() {
        give.abandon();
    }
    streamed?;
    let mut done = give.done;
    folder.finish().map_err(|e| PackError::target("syncing", &out, e))?;
    done.already = already;
    done.lost.extend(lost);
    done.lost.sort();
    for name in missing_parts {
        if let Some(part) = package.manifest.parts.iter().find(|part| part.name == name) {
            problems.extend(part_problem(&package, part, &PartState::Missing, None, cancel));
        }
    }
    problems.sort_by(|one, other| (&one.subject, one.code).cmp(&(&other.subject, other.code)));
    problems.dedup();
    done.problems = problems;
    Ok(done)
}

/// Writes artifacts under temporary names, and names them when they are whole.
struct Give<'a> {
    package: &'a Package,
    folder: &'a Beneath,
    out: &'a Path,
    file: Option<(usize, File, u64)>,
    done: Unpacked,
}

impl Give<'_> {
    fn failed(&self, doing: &'static str, artifact: usize, source: io::Error) -> PackError {
        let path = match self.package.names.get(artifact) {
            Some(name) => self.out.join(name.as_path()),
            None => self.out.to_owned(),
        };
        PackError::Target { doing, path, source }
    }

    fn open(&mut self, artifact: usize) -> Result<(), PackError> {
        let file = self.folder.temporary(artifact).map_err(|e| self.failed("making", artifact, e))?;
        self.file = Some((artifact, file, 0));
        Ok(())
    }

    fn abandon(&mut self) {
        if let Some((artifact, ..)) = self.file.take() {
            self.folder.discard(artifact);
        }
        let _ = self.folder.finish();
    }

    fn close(&mut self, artifact: usize, file: &File) -> io::Result<()> {
        let Some(told) = self.package.manifest.artifacts.get(artifact) else { return Ok(()) };
        file.set_len(told.size)?;
        // What may be run, or written to by others, is not for a manifest to say.
        file.set_permissions(Permissions::from_mode(told.mode & 0o644 | 0o600))?;
        let since = u64::try_from(told.mtime).ok().map(Duration::from_secs);
        if let Some(time) = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) {
            // A time that the file system can't keep is no reason to lose the file.
            let _ = file.set_times(FileTimes::new().set_modified(time));
        }
        if told.size >= SYNC { file.sync_all() } else { Ok(()) }
    }
}

impl Take for Give<'_> {
    fn data(&mut self, artifact: usize, bytes: &[u8]) -> Result<(), PackError> {
        if self.file.as_ref().is_none_or(|(open, ..)| *open != artifact) {
            self.open(artifact)?;
        }
        let Some((_, file, at)) = &mut self.file else { return Ok(()) };
        let start = *at;
        *at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        write_sparse(file, start, bytes).map_err(|e| self.failed("writing", artifact, e))
    }

    fn end(&mut self, artifact: usize, whole: Result<(), String>) -> Result<(), PackError> {
        let Some(name) = self.package.names.get(artifact).cloned() else { return Ok(()) };
        let file = self.file.take_if(|(open, ..)| *open == artifact);
        match whole {
            Ok(()) => {
                let Some((_, file, _)) = file else { return Ok(()) };
                self.close(artifact, &file).map_err(|e| self.failed("writing", artifact, e))?;
                self.folder.publish(artifact, &name).map_err(|e| self.failed("naming", artifact, e))?;
                self.done.written.push(name);
            }
            Err(why) => {
                if file.is_some() {
                    self.folder.discard(artifact);
                }
                self.done.lost.push((name, why));
            }
        }
        Ok(())
    }
}

/// Writes the pieces that are not all zero; the file gets its length at its end.
fn write_sparse(file: &File, start: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = start;
    for piece in bytes.chunks(HOLE) {
        if !is_zero(piece) {
            file.write_all_at(piece, at)?;
        }
        at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}
