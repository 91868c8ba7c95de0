//! Packs: carries a plan out, or goes on with it where an earlier run was stopped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use vmcore::progress::{Cancel, Progress};

use super::compress::{compress, holds_bytes};
use super::digest::Digest;
use super::error::PackError;
use super::estimate::estimate;
use super::journal::{Entry, PartDone, Workshop, remove, sync_folder};
use super::kind::Kind;
use super::manifest::{Artifact, CODEC, Manifest, Part, SCHEMA, Tool};
use super::name::{shown, shown_path};
use super::package::{MANIFEST, MANIFEST_BYTES, RECEIPT, SUMS, holds, sums};
use super::plan::{PackPlan, Planned};
use crate::size::Size;

/// What packing made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Packed {
    /// The package's folder.
    pub dir: PathBuf,
    /// What it lists.
    pub manifest: Manifest,
    /// Parts that an earlier run had finished.
    pub resumed_parts: usize,
}

impl Packed {
    /// Bytes of all parts.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.manifest.parts.iter().fold(0, |sum, part| sum.saturating_add(part.size))
    }
}

/// Packs what the plan says. After a stop of any kind, the same plan goes on where it stopped.
///
/// Finished parts are hashed again and kept; of the artifact that was in work, what lies before them is
/// read again for its digest, but not compressed again. Where a source was changed since, it begins anew.
///
/// # Errors
/// A source can't be read or changes; the target has no room, can't be written to, or holds a package
/// already; it was cancelled.
pub fn pack(
    plan: &PackPlan,
    check_space: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Packed, PackError> {
    refuse_other_files(plan)?;
    let workshop = Workshop::enter(&plan.target)?;
    let packed = pack_in(plan, &workshop, check_space, progress, cancel);
    // Nothing done, nothing left behind: an empty workshop would only puzzle.
    match packed {
        Ok(packed) => workshop.leave().map(|()| packed),
        Err(e) => {
            if !workshop.read().iter().any(|entry| matches!(entry, Entry::Part(_))) {
                let _ = workshop.leave();
            }
            Err(e)
        }
    }
}

fn pack_in(
    plan: &PackPlan,
    workshop: &Workshop,
    check_space: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Packed, PackError> {
    let earlier = resume(plan, workshop, cancel)?;
    if workshop.target.join(MANIFEST).exists() && !earlier.ended {
        return Err(occupied(&plan.target));
    }
    let from = earlier.parts.last().map_or(0, |part| part.stream_end);
    if check_space && !earlier.ended {
        check_room(plan, from)?;
    }
    progress.step("pack", Some(plan.layout.total));
    progress.advance(from);
    let resumed_parts = earlier.parts.len();
    let mut parts = earlier.parts;
    if !earlier.ended {
        parts.extend(compress(plan, workshop, resumed_parts, from, progress, cancel)?);
        workshop.add(&Entry::End { parts: parts.len() })?;
    }
    let manifest = list(plan, &parts, earlier.created)?;
    publish(workshop, &manifest)?;
    Ok(Packed { dir: plan.target.clone(), manifest, resumed_parts })
}

struct Earlier {
    created: String,
    parts: Vec<PartDone>,
    /// All parts are there, under their old or their final names.
    ended: bool,
}

/// What an earlier run of the same plan has left, checked by digest.
fn resume(plan: &PackPlan, workshop: &Workshop, cancel: &Cancel) -> Result<Earlier, PackError> {
    let entries = workshop.read();
    let identity = plan.identity();
    let mut entries = entries.into_iter();
    let begun = match entries.next() {
        Some(Entry::Begin { plan, created }) if plan == identity => Some(created),
        _ => None,
    };
    let Some(created) = begun else {
        let created = now();
        workshop.restart(&[Entry::Begin { plan: identity, created: created.clone() }])?;
        return Ok(Earlier { created, parts: Vec::new(), ended: false });
    };
    let mut parts = Vec::new();
    let mut end = None;
    for entry in entries {
        match entry {
            Entry::Part(part) => parts.push(part),
            Entry::End { parts } => end = Some(parts),
            Entry::Begin { .. } => break,
        }
    }
    let count = parts.len();
    let ended = end == Some(count) && parts.last().is_some_and(|last| last.stream_end == plan.layout.total);
    let mut good = 0_usize;
    for (number, part) in (1..).zip(&parts) {
        let final_path = plan.target.join(plan.case.part_name(number, count));
        let whole = holds_bytes(&workshop.part(number), part, cancel)?
            || (ended && holds_bytes(&final_path, part, cancel)?);
        if !whole {
            break;
        }
        good = number;
    }
    if ended && good == count {
        return Ok(Earlier { created, parts, ended });
    }
    if ended {
        // Parts that have their final names already and are still what the journal says are ours.
        for (number, part) in (1..).zip(&parts) {
            let path = plan.target.join(plan.case.part_name(number, count));
            if holds_bytes(&path, part, cancel)? {
                remove(&path)?;
            }
        }
        let start = parts
            .iter()
            .zip(1..)
            .take_while(|(part, number)| holds_bytes(&workshop.part(*number), part, cancel).unwrap_or(false));
        good = start.count();
    }
    parts.truncate(good);
    let mut kept = vec![Entry::Begin { plan: identity, created: created.clone() }];
    kept.extend(parts.iter().cloned().map(Entry::Part));
    workshop.restart(&kept)?;
    Ok(Earlier { created, parts, ended: false })
}

/// Refuses a target that holds something of a package, or would lose a file of another's.
fn refuse_other_files(plan: &PackPlan) -> Result<(), PackError> {
    let listed = match std::fs::read_dir(&plan.target) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(PackError::target("reading", &plan.target, e)),
        Ok(listed) => listed,
    };
    let unfinished = plan.target.join(".kdt-pack").join("journal").exists();
    let prefix = format!("{}.part-", plan.case);
    for entry in listed {
        let entry = entry.map_err(|e| PackError::target("reading", &plan.target, e))?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let ours = name == MANIFEST.as_bytes() || name == SUMS.as_bytes() || name == RECEIPT.as_bytes();
        if !unfinished && (ours || name.starts_with(prefix.as_bytes())) {
            let is_source = plan.artifacts.iter().any(|artifact| artifact.path == entry.path());
            if name == MANIFEST.as_bytes() && !is_source {
                return Err(occupied(&plan.target));
            }
            return Err(PackError::WrongUse {
                what: format!("{} has a file {} already", shown_path(&plan.target), shown(name)),
                hint: "name another folder with -o; nothing was written".into(),
            });
        }
    }
    Ok(())
}

fn occupied(target: &Path) -> PackError {
    PackError::WrongUse {
        what: format!("{} holds a package already", shown_path(target)),
        hint: "check it with kdt verify, or name another folder with -o; nothing was written".into(),
    }
}

fn check_room(plan: &PackPlan, from: u64) -> Result<(), PackError> {
    let room = rustix::fs::statvfs(&plan.target)
        .map_err(|e| PackError::target("looking at the space of", &plan.target, e.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free >= plan.most_bytes().saturating_sub(from) {
        return Ok(());
    }
    let expected = estimate(plan)?;
    let left = plan.layout.total.saturating_sub(from);
    let need = u128::from(expected.packed_bytes).saturating_mul(u128::from(left));
    let need = need.checked_div(u128::from(plan.layout.total)).unwrap_or(0);
    let need = u64::try_from(need).unwrap_or(u64::MAX);
    if need <= free {
        return Ok(());
    }
    Err(PackError::TooSmall { path: plan.target.clone(), free, need, about: !expected.exact })
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

/// The manifest of what was packed.
fn list(plan: &PackPlan, done: &[PartDone], created: String) -> Result<Manifest, PackError> {
    let incomplete = || PackError::Damaged {
        what: format!("the journal in {} does not tell of every file", shown_path(&plan.target)),
        hint: "remove the hidden folder .kdt-pack there, and pack again".into(),
    };
    let mut digests: Vec<Option<Digest>> = vec![None; plan.artifacts.len()];
    for (index, digest) in done.iter().flat_map(|part| &part.finished) {
        *digests.get_mut(*index).ok_or_else(incomplete)? = Some(*digest);
    }
    let mut artifacts = Vec::with_capacity(plan.artifacts.len());
    for ((planned, span), digest) in plan.artifacts.iter().zip(&plan.layout.spans).zip(digests) {
        let Planned { path, name, kind, size, stamp } = planned;
        let mut artifact = Artifact {
            name: String::new(),
            name_hex: None,
            kind: *kind,
            size: *size,
            sha256: digest.ok_or_else(incomplete)?,
            offset: span.data,
            mode: stamp.mode,
            mtime: stamp.mtime,
            path: shown_path(path),
        };
        artifact.set_name(name);
        artifacts.push(artifact);
    }
    let mut parts = Vec::with_capacity(done.len());
    let mut start = 0_u64;
    for (number, PartDone { size, sha256, stream_end, .. }) in (1..).zip(done) {
        parts.push(Part {
            name: plan.case.part_name(number, done.len()),
            size: *size,
            sha256: *sha256,
            stream_offset: start,
            stream_bytes: stream_end.saturating_sub(start),
            holds: holds(&plan.layout, start, *stream_end),
        });
        start = *stream_end;
    }
    let mut manifest = Manifest {
        schema: SCHEMA.into(),
        case: plan.case.clone(),
        created,
        tool: Tool::this(),
        codec: CODEC.into(),
        stream_bytes: plan.layout.total,
        artifacts,
        parts,
        left_out: plan.left_out.clone(),
        encryption: None,
        parity: None,
        root_digest: Digest::of(b""),
    };
    manifest.root_digest = manifest.compute_root();
    Ok(manifest)
}

/// Gives the parts their final names, then `SHA256SUMS`, then, as the last thing, the manifest.
fn publish(workshop: &Workshop, manifest: &Manifest) -> Result<(), PackError> {
    let target = &workshop.target;
    for (number, part) in (1..).zip(&manifest.parts) {
        let (from, to) = (workshop.part(number), target.join(&part.name));
        if from.exists() {
            rename(&from, &to)?;
        }
    }
    let json =
        manifest.to_json().map_err(|e| PackError::target("writing", &target.join(MANIFEST), e.into()))?;
    if u64::try_from(json.len()).unwrap_or(u64::MAX) > MANIFEST_BYTES {
        return Err(PackError::WrongUse {
            what: format!("the list of this package would have more than {}", Size::from(MANIFEST_BYTES)),
            hint: "put the small files into a tar archive first, or make several packages".into(),
        });
    }
    sync_folder(target)?;
    place(workshop, SUMS, sums(manifest, &json).as_bytes())?;
    place(workshop, MANIFEST, &json)
}

/// Writes a small file under a temporary name, and gives it its final one when it is on the disk.
fn place(workshop: &Workshop, name: &str, bytes: &[u8]) -> Result<(), PackError> {
    let (from, to) = (workshop.folder.join(name), workshop.target.join(name));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(&from)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| PackError::target("writing", &from, e))?;
    std::fs::rename(&from, &to).map_err(|e| PackError::target("naming", &to, e))?;
    sync_folder(&workshop.target)
}

/// Gives a part its final name, which must not be taken.
fn rename(from: &Path, to: &Path) -> Result<(), PackError> {
    if to.exists() {
        return Err(PackError::WrongUse {
            what: format!("{} is there already", shown_path(to)),
            hint: "move it elsewhere, and run the same command again".into(),
        });
    }
    std::fs::rename(from, to).map_err(|e| PackError::target("naming", to, e))
}

/// How many artifacts of each kind a plan has, in the order of the kinds.
impl PackPlan {
    /// How many artifacts of each kind there are, and their bytes, in the order of the kinds.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, usize, u64)> {
        let mut kinds = std::collections::BTreeMap::new();
        for artifact in &self.artifacts {
            let (count, bytes) = kinds.entry(artifact.kind).or_insert((0_usize, 0_u64));
            *count = count.saturating_add(1);
            *bytes = bytes.saturating_add(artifact.size);
        }
        kinds.into_iter().map(|(kind, (count, bytes))| (kind, count, bytes)).collect()
    }
}
