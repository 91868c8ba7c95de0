//! What would be packed: walks the sources, names and orders the artifacts, and writes nothing.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::digest::{Digest, Hasher};
use super::error::PackError;
use super::kind::Kind;
use super::layout::{Layout, Member};
use super::manifest::LeftOut;
use super::name::{ArtifactName, CaseId, shown_path};
use super::package::{MANIFEST_BYTES, clash};
use crate::size::Size;

/// The smallest part: below it, headers and names outweigh what is in it.
const SMALLEST_PART: u64 = 1 << 20;
/// The input of one zstd frame, where the parts are not too small for it.
const FRAME: u64 = 4 << 20;
/// Bytes that an artifact costs in the manifest besides its name and path, with what parts say of it.
const MANIFEST_LINE: u64 = 420;

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct PackRequest {
    /// Files, and folders of which every regular file is meant, in the order that they shall travel.
    pub sources: Vec<PathBuf>,
    /// The folder that the package is to be, made if it is not there.
    pub target: PathBuf,
    /// The case; `None` takes the target's name.
    pub case: Option<CaseId>,
    /// No part is longer than this.
    pub part_size: u64,
    /// zstd's level, 1 to 19.
    pub level: i32,
    /// Threads that compress; `None` takes one for each core.
    pub jobs: Option<usize>,
}

impl PackRequest {
    /// Parts of 1 GiB, which every upload form known takes, at zstd's own default level.
    #[must_use]
    pub fn new(sources: Vec<PathBuf>, target: PathBuf) -> Self {
        Self { sources, target, case: None, part_size: 1 << 30, level: 3, jobs: None }
    }

    /// Checks the numbers alone.
    ///
    /// # Errors
    /// The part size or the level is out of range.
    pub fn check(&self) -> Result<(), PackError> {
        check_numbers(self.part_size, self.level)
    }
}

/// What will be packed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackPlan {
    /// The folder that the package is to be.
    pub target: PathBuf,
    /// The case.
    pub case: CaseId,
    /// The artifacts in the order of the stream, reports first.
    pub artifacts: Vec<Planned>,
    /// What was met below a folder and is not packed.
    pub left_out: Vec<LeftOut>,
    /// No part is longer than this.
    pub part_size: u64,
    /// zstd's level.
    pub level: i32,
    /// Threads that compress.
    pub jobs: usize,
    pub(super) layout: Layout,
    /// Where the reports end in the stream: the first part ends there too. 0 where there are none.
    pub(super) reports_end: u64,
    pub(super) frame_size: u64,
}

/// A file that will be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planned {
    /// Where it is.
    pub path: PathBuf,
    /// What it will be called.
    pub name: ArtifactName,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    pub(super) stamp: Stamp,
}

/// What tells whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    mtime_nsec: i64,
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mode: meta.mode() & 0o777,
            mtime: meta.mtime(),
            mtime_nsec: meta.mtime_nsec(),
        }
    }

    /// What is different in `now`, if anything.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        if (self.device, self.inode) != (now.device, now.inode) {
            return Some("there is another file under its name now".into());
        }
        if self.size != now.size {
            return Some(format!("it had {} bytes, and has {} now", self.size, now.size));
        }
        ((self.mtime, self.mtime_nsec) != (now.mtime, now.mtime_nsec)).then(|| "it was written to".to_owned())
    }
}

impl PackPlan {
    /// Bytes of all artifacts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.artifacts.iter().fold(0, |sum, artifact| sum.saturating_add(artifact.size))
    }

    /// The most that the package can be long: nothing compresses.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        // zstd stores what does not compress, at a cost of three bytes per 128 KiB.
        self.layout.total.saturating_add(self.layout.total >> 12).saturating_add(1 << 16)
    }

    pub(super) fn member(&self, index: usize) -> Option<Member<'_>> {
        let artifact = self.artifacts.get(index)?;
        let Stamp { mode, mtime, .. } = artifact.stamp;
        Some(Member { name: &artifact.name, size: artifact.size, mode, mtime })
    }

    /// A digest of all that decides the package's bytes, but for what is in the files: two plans with the
    /// same one make the same parts as long as the files did not change.
    pub(super) fn identity(&self) -> Digest {
        let mut hasher = Hasher::default();
        let Self { case, part_size, level, frame_size, .. } = self;
        let zstd = zstd::zstd_safe::version_number();
        hasher.update(format!("{case} {part_size} {level} {frame_size} {zstd}\n").as_bytes());
        for Planned { path, name, kind, stamp, .. } in &self.artifacts {
            let (path, name) = (hex::encode(path.as_os_str().as_bytes()), hex::encode(name.as_bytes()));
            hasher.update(format!("{path} {name} {kind} {stamp:?}\n").as_bytes());
        }
        hasher.finish()
    }

    /// Where the frame that starts at `start` ends: all frames are equally long but for the last before a
    /// border that a part has to keep.
    pub(super) fn frame_end(&self, start: u64) -> u64 {
        let border = if start < self.reports_end { self.reports_end } else { self.layout.total };
        start.saturating_add(self.frame_size).min(border)
    }
}

/// Looks at the sources and says what [`pack`](super::pack()) would do with them.
///
/// # Errors
/// A source is not there, can't be read or is no regular file; a size or level is out of range; the target
/// lies in a source.
pub fn plan(request: &PackRequest) -> Result<PackPlan, PackError> {
    let PackRequest { target, part_size, level, .. } = request;
    request.check()?;
    let mut walk = Walk { target: absolute(target), ..Walk::default() };
    for source in &request.sources {
        walk.source(source)?;
    }
    let Walk { mut found, left_out, .. } = walk;
    if found.is_empty() {
        return Err(PackError::WrongUse {
            what: "there is nothing to pack".into(),
            hint: "name at least one file, or a folder with files in it".into(),
        });
    }
    found.sort_by_key(|found| found.kind != Kind::Report);
    let artifacts = name_all(found)?;
    let manifest_bytes = artifacts.iter().fold(0_u64, |sum, artifact| {
        let names = artifact.path.as_os_str().len().saturating_mul(2);
        sum.saturating_add(MANIFEST_LINE).saturating_add(u64::try_from(names).unwrap_or(u64::MAX))
    });
    if manifest_bytes > MANIFEST_BYTES {
        return Err(PackError::WrongUse {
            what: format!("{} files are more than one package lists", artifacts.len()),
            hint: "put the small ones into a tar archive first, or make several packages".into(),
        });
    }
    let too_long = || PackError::WrongUse {
        what: "the files are longer than 2^64 bytes".into(),
        hint: "make several packages".into(),
    };
    let mut plan = PackPlan {
        target: target.clone(),
        case: request.case.clone().unwrap_or_else(|| CaseId::from_folder(&absolute(target))),
        artifacts,
        left_out,
        part_size: *part_size,
        level: *level,
        jobs: request.jobs.unwrap_or_else(cores).clamp(1, 64),
        layout: Layout { spans: Vec::new(), total: 0 },
        reports_end: 0,
        frame_size: frame_size(*part_size),
    };
    let members: Vec<Member<'_>> = (0..plan.artifacts.len()).filter_map(|index| plan.member(index)).collect();
    plan.layout = Layout::new(members.into_iter()).ok_or_else(too_long)?;
    let reports = plan.artifacts.iter().take_while(|artifact| artifact.kind == Kind::Report).count();
    let last_report = reports.checked_sub(1).and_then(|last| plan.layout.spans.get(last));
    plan.reports_end = last_report.map_or(0, |span| span.end);
    Ok(plan)
}

fn check_numbers(part_size: u64, level: i32) -> Result<(), PackError> {
    if part_size < SMALLEST_PART {
        return Err(PackError::WrongUse {
            what: format!("parts of {} are too small", Size::from(part_size)),
            hint: format!("the smallest part size is {}", Size::from(SMALLEST_PART)),
        });
    }
    if !(1..=19).contains(&level) {
        return Err(PackError::WrongUse {
            what: format!("there is no compression level {level}"),
            hint: "levels go from 1 (fast) to 19 (small)".into(),
        });
    }
    Ok(())
}

/// The input of one frame: as long as [`FRAME`] allows, and so that a whole number of frames fills a part
/// even where they do not compress.
fn frame_size(part_size: u64) -> u64 {
    let frames = part_size.div_ceil(FRAME).max(4);
    let room = part_size.checked_div(frames).unwrap_or(part_size);
    // A frame that does not compress costs 22 bytes, and 3 more for each 128 KiB.
    room.saturating_sub((room >> 12).saturating_add(64)) & !0xfff
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The path without links where it exists, and as it would be where it does not yet.
fn absolute(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().and_then(|parent| parent.canonicalize().ok()), whole.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => whole,
    }
}

struct Found {
    path: PathBuf,
    kind: Kind,
    stamp: Stamp,
    /// How many of the folders above it belong to its name.
    folders: usize,
}

#[derive(Default)]
struct Walk {
    target: PathBuf,
    found: Vec<Found>,
    left_out: Vec<LeftOut>,
    seen: BTreeSet<(u64, u64, PathBuf)>,
}

impl Walk {
    /// Takes a file or folder that was named by the user: links are followed, and what can't be read is an
    /// error.
    fn source(&mut self, path: &Path) -> Result<(), PackError> {
        let unreadable = |source| PackError::Source { path: path.to_owned(), at: None, source };
        let real = path.canonicalize().map_err(unreadable)?;
        let meta = std::fs::metadata(&real).map_err(unreadable)?;
        if meta.is_dir() {
            if self.target.starts_with(&real) {
                return Err(PackError::WrongUse {
                    what: format!("the package would lie in {}, which is to be packed", shown_path(path)),
                    hint: "name a folder outside of it with -o".into(),
                });
            }
            return self.folder(&real, 0);
        }
        if !meta.is_file() {
            let what = special(&meta);
            return Err(PackError::WrongUse {
                what: format!("{} is {what}, not a file or a folder", shown_path(path)),
                hint: "copy what it gives into a file, and pack the file".into(),
            });
        }
        // The name is the one that the user gave, not the one that a link leads to.
        let named = std::path::absolute(path).map_err(unreadable)?;
        let path = if named.file_name().is_some() { named } else { real };
        self.file(&path, &meta, 0)
    }

    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), PackError> {
        let unreadable = |source| PackError::Source { path: folder.to_owned(), at: None, source };
        let entries: io::Result<Vec<_>> = std::fs::read_dir(folder).and_then(Iterator::collect);
        let mut entries = entries.map_err(unreadable)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        if entries.is_empty() {
            self.leave_out(folder, "the folder is empty");
        }
        let depth = depth.saturating_add(1);
        for entry in entries {
            let path = entry.path();
            let meta = entry.metadata().map_err(|source| PackError::Source {
                path: path.clone(),
                at: None,
                source,
            })?;
            if meta.is_file() {
                self.file(&path, &meta, depth)?;
            } else if meta.is_dir() {
                // A path that opens at all is shorter than 4096 bytes, so this goes no deeper than 2048.
                self.folder(&path, depth)?;
            } else {
                self.leave_out(&path, &format!("it is {}", special(&meta)));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: &Metadata, folders: usize) -> Result<(), PackError> {
        if !self.seen.insert((meta.dev(), meta.ino(), path.to_owned())) {
            return Ok(());
        }
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(64).read_to_end(&mut start))
            .map_err(|source| PackError::Source { path: path.to_owned(), at: None, source })?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let mut kind = Kind::detect(name, &start);
        // Reports travel first only where they are named themselves: one deep in a bundle is a file as any.
        if kind == Kind::Report && folders > 0 {
            kind = Kind::Other;
        }
        self.found.push(Found { path: path.to_owned(), kind, stamp: Stamp::of(meta), folders });
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        self.left_out.push(LeftOut { path: shown_path(path), why: why.to_owned() });
    }
}

fn special(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a special file"
    }
}

/// Names each file after itself and, where two would be called alike, after as many of its folders as tell
/// them apart: `127.0.0.1-2026-11-22-06:07:36/vmcore`.
fn name_all(mut found: Vec<Found>) -> Result<Vec<Planned>, PackError> {
    loop {
        let mut names = Vec::new();
        for Found { path, folders, .. } in &found {
            let name = ArtifactName::of_path(path, *folders).ok_or_else(|| PackError::WrongUse {
                what: format!("the name of {} can't be kept in a package", shown_path(path)),
                hint: "give the file a shorter name".into(),
            })?;
            names.push(name);
        }
        let mut sorted: Vec<&ArtifactName> = names.iter().collect();
        sorted.sort();
        let pairs = sorted.iter().zip(sorted.iter().skip(1));
        let twice: BTreeSet<&ArtifactName> =
            pairs.filter(|(one, other)| one == other).map(|(one, _)| *one).collect();
        let reserved =
            |name: &ArtifactName| name.folders().next().unwrap_or(name.file_name()).starts_with(b".kdt-");
        let mut grown = false;
        for (Found { path, folders, .. }, name) in found.iter_mut().zip(&names) {
            let room = path.components().count() > folders.saturating_add(2);
            if room && (twice.contains(name) || reserved(name)) {
                *folders = folders.saturating_add(1);
                grown = true;
            }
        }
        if grown {
            continue;
        }
        if let Some((one, other)) = clash(&names) {
            return Err(PackError::WrongUse {
                what: format!("{one} and {other} can't lie in one package under these names"),
                hint: "rename one of them, or pack the folder that holds both".into(),
            });
        }
        let planned = found.into_iter().zip(names).map(|(Found { path, kind, stamp, .. }, name)| Planned {
            path,
            name,
            kind,
            size: stamp.size,
            stamp,
        });
        return Ok(planned.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_do_not_compress_fill_a_part() {
        for part_size in [SMALLEST_PART, (1 << 20) + 4097, 7 << 20, 16 << 20, 64 << 20, 1 << 30, 5 << 30] {
            let frame = frame_size(part_size);
            let most = frame + 22 + 3 * frame.div_ceil(128 << 10);
            let fit = part_size / most;
            assert!(fit * most * 100 >= part_size * 97, "{part_size}: {fit} frames of {frame}");
            assert!(frame <= FRAME);
        }
    }
}
