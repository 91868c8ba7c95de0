//! Sends a package to a folder that this machine sees.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use vmcore::progress::{Cancel, Progress};

use super::{Destination, Receipt};
use crate::pack::{
    Depth, Digest, Hasher, MANIFEST, PackError, Package, Part, RECEIPT, SUMS, digest_file, shown_path, verify,
};
use crate::size::Size;

/// The hidden folder for parts that are not whole yet.
const TEMPORARY: &str = ".kdt-send";

/// What sending will do.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendPlan {
    /// The package.
    pub package: Package,
    /// The folder that it goes to.
    pub to: PathBuf,
    /// The parts that are not there yet, or not with their length: their places in the manifest.
    pub copy: Vec<usize>,
    /// The folder holds this very package already, if not all of its parts.
    known: bool,
}

impl SendPlan {
    /// Bytes that will be copied, as far as lengths tell.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let parts = self.copy.iter().filter_map(|index| self.package.manifest.parts.get(*index));
        parts.fold(0, |sum, part| sum.saturating_add(part.size))
    }
}

/// What sending did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sent {
    /// The receiver's confirmation.
    pub receipt: Receipt,
    /// Parts that were copied.
    pub copied: usize,
    /// Parts that had been there, with the right digest.
    pub already: usize,
}

/// Looks at both sides and says what [`send`] would do. Writes nothing.
///
/// # Errors
/// The package's manifest can't be used; the destination is the package itself, holds another one, or has no
/// room.
pub fn plan_send(dir: &Path, destination: &Destination, check_space: bool) -> Result<SendPlan, PackError> {
    let Destination::Folder(to) = destination;
    let package = Package::open(dir)?;
    if to.canonicalize().is_ok_and(|to| dir.canonicalize().is_ok_and(|dir| dir == to)) {
        return Err(PackError::WrongUse {
            what: format!("{} is the package itself", shown_path(to)),
            hint: "name another folder".into(),
        });
    }
    let known = match Package::open(to) {
        Ok(there) if there.manifest.root_digest == package.manifest.root_digest => true,
        Ok(there) => return Err(occupied(to, &format!("another package, of case {}", there.manifest.case))),
        Err(_) if to.join(MANIFEST).exists() => {
            return Err(occupied(to, "a manifest.json that is not this package's"));
        }
        Err(_) => false,
    };
    let there =
        |part: &Part| std::fs::metadata(to.join(&part.name)).is_ok_and(|meta| meta.len() == part.size);
    let parts = package.manifest.parts.iter().enumerate();
    let copy = parts.filter(|(_, part)| !there(part)).map(|(index, _)| index).collect();
    let plan = SendPlan { package, to: to.clone(), copy, known };
    if check_space {
        check_room(&plan)?;
    }
    Ok(plan)
}

fn occupied(to: &Path, what: &str) -> PackError {
    PackError::WrongUse {
        what: format!("{} holds {what}", shown_path(to)),
        hint: "name an empty or a new folder; nothing was overwritten".into(),
    }
}

fn check_room(plan: &SendPlan) -> Result<(), PackError> {
    let whole = std::path::absolute(&plan.to).unwrap_or_else(|_| plan.to.clone());
    let Some(room) = whole.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()) else { return Ok(()) };
    let (free, need) = (room.f_bavail.saturating_mul(room.f_frsize), plan.bytes());
    if need <= free {
        return Ok(());
    }
    Err(PackError::TooSmall { path: plan.to.clone(), free, need, about: false })
}

/// Carries the plan out. Broken off, it is gone on with by a new plan.
///
/// # Errors
/// A part of the package is damaged or missing; the destination can't be written to, or gives back other bytes
/// than it was given; it was cancelled.
pub fn send(plan: &SendPlan, progress: &dyn Progress, cancel: &Cancel) -> Result<Sent, PackError> {
    let SendPlan { package, to, .. } = plan;
    let workshop = to.join(TEMPORARY);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&workshop)
        .map_err(|e| PackError::target("making", &workshop, e))?;
    let parts = &package.manifest.parts;
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
    progress.step("send", Some(bytes));
    let (mut copied, mut already) = (0_usize, 0_usize);
    for part in parts {
        let there = to.join(&part.name);
        if arrived(&there, part, cancel)? {
            already += 1;
            progress.advance(part.size);
            continue;
        }
        // Only a part of this very package is written over, because it is damaged.
        if there.exists() && !plan.known {
            return Err(occupied(to, &format!("a file {} that is not this package's", part.name)));
        }
        copy_part(package, part, &workshop, &there, progress, cancel)?;
        copied += 1;
    }
    for name in [SUMS, MANIFEST] {
        copy_list(&package.dir.join(name), &workshop.join(name), &to.join(name))?;
    }
    let receipt = confirm(plan, cancel)?;
    std::fs::remove_dir_all(&workshop).map_err(|e| PackError::target("removing", &workshop, e))?;
    Ok(Sent { receipt, copied, already })
}

/// True where the part is there and has its digest.
fn arrived(path: &Path, part: &Part, cancel: &Cancel) -> Result<bool, PackError> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    if file.metadata().is_ok_and(|meta| !meta.is_file() || meta.len() != part.size) {
        return Ok(false);
    }
    match digest_file(&mut file, &|| cancel.is_cancelled()) {
        Ok(found) => Ok(found == (part.size, part.sha256)),
        Err(_) if cancel.is_cancelled() => Err(PackError::Cancelled),
        Err(_) => Ok(false),
    }
}

fn copy_part(
    package: &Package,
    part: &Part,
    workshop: &Path,
    to: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), PackError> {
    let from = package.part_path(part);
    let damaged = |what: String| PackError::Damaged {
        what,
        hint: "see what is damaged with kdt verify, and restore or pack it again before sending".into(),
    };
    let mut source = match File::open(&from) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(format!("{} is missing, so the package is not sent on", part.name)));
        }
        Err(source) => return Err(PackError::Source { path: from, at: None, source }),
    };
    let temporary = workshop.join(&part.name);
    let mut target = create(&temporary)?;
    let mut hasher = Hasher::default();
    let mut length = 0_u64;
    let mut buf = vec![0; 1 << 20];
    loop {
        if cancel.is_cancelled() {
            return Err(PackError::Cancelled);
        }
        let got = match source.read(&mut buf) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(PackError::Source { path: from, at: Some(length), source }),
        };
        let piece = buf.get(..got).unwrap_or_default();
        hasher.update(piece);
        target.write_all(piece).map_err(|e| PackError::target("writing", &temporary, e))?;
        let got = u64::try_from(got).unwrap_or(u64::MAX);
        length = length.saturating_add(got);
        progress.advance(got);
        if length > part.size {
            break;
        }
    }
    if (length, hasher.finish()) != (part.size, part.sha256) {
        let _ = std::fs::remove_file(&temporary);
        return Err(damaged(format!("{} is damaged, so the package is not sent on", part.name)));
    }
    target.sync_all().map_err(|e| PackError::target("syncing", &temporary, e))?;
    // What is read back shall come from the other side, and not from this machine's memory of it.
    let _ = rustix::fs::fadvise(&target, 0, None, Advice::DontNeed);
    if !arrived(&temporary, part, cancel)? {
        return Err(PackError::Transfer {
            what: format!(
                "{} gives back other bytes than it was given for {}",
                shown_path(workshop),
                part.name
            ),
            hint: "look for disk or network errors in the kernel log, then run the same command again".into(),
        });
    }
    std::fs::rename(&temporary, to).map_err(|e| PackError::target("naming", to, e))?;
    sync_folder(to)
}

fn create(path: &Path) -> Result<File, PackError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|e| PackError::target("making", path, e))
}

fn sync_folder(file: &Path) -> Result<(), PackError> {
    let folder = file.parent().unwrap_or(file);
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems have nothing to sync for a folder, and say so.
        Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(PackError::target("syncing", folder, e)),
        _ => Ok(()),
    }
}

/// Copies a small file.
fn copy_list(from: &Path, temporary: &Path, to: &Path) -> Result<(), PackError> {
    let bytes = std::fs::read(from).map_err(|source| PackError::Source {
        path: from.to_owned(),
        at: None,
        source,
    })?;
    place(&bytes, temporary, to)
}

fn place(bytes: &[u8], temporary: &Path, to: &Path) -> Result<(), PackError> {
    let mut file = create(temporary)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|e| PackError::target("writing", temporary, e))?;
    std::fs::rename(temporary, to).map_err(|e| PackError::target("naming", to, e))?;
    sync_folder(to)
}

/// Reads everything on the other side, and writes the receipt if it is whole. An earlier one is kept.
fn confirm(plan: &SendPlan, cancel: &Cancel) -> Result<Receipt, PackError> {
    let verdict = verify(&plan.to, Depth::Parts, &vmcore::progress::Quiet, cancel)?;
    if let Some(problem) = verdict.problems.first() {
        return Err(PackError::Transfer {
            what: format!("what arrived in {} is not whole: {}", shown_path(&plan.to), problem.sentence),
            hint: "run the same command again: it copies only what is damaged".into(),
        });
    }
    let manifest = &verdict.package.manifest;
    let at = std::path::absolute(&plan.to).unwrap_or_else(|_| plan.to.clone());
    let receipt = Receipt::new(manifest, format!("file:{}", shown_path(&at)));
    let path = plan.to.join(RECEIPT);
    if let Some(earlier) = read_receipt(&path).filter(|earlier| earlier.root_digest == receipt.root_digest) {
        return Ok(earlier);
    }
    let failed = |e: serde_json::Error| PackError::target("writing", &path, e.into());
    let mut json = serde_json::to_vec_pretty(&receipt).map_err(failed)?;
    json.push(b'\n');
    place(&json, &plan.to.join(TEMPORARY).join(RECEIPT), &path)?;
    Ok(receipt)
}

fn read_receipt(path: &Path) -> Option<Receipt> {
    let mut json = Vec::new();
    File::open(path).ok()?.take(1 << 16).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

impl Sent {
    /// What was done, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Receipt { parts, bytes, at, root_digest, .. } = &self.receipt;
        let root: &Digest = root_digest;
        format!("{parts} parts ({}) are at {at}, read back and right; root digest {root}", Size::from(*bytes))
    }
}
