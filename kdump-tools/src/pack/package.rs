//! Opens a package directory: reads its manifest as the hostile input that it is, and believes nothing
//! that does not agree with all the rest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::digest::Digest;
use super::error::PackError;
use super::layout::Layout;
use super::manifest::{Artifact, CODEC, Hold, Manifest, Part, SCHEMA};
use super::name::ArtifactName;
use crate::size::Size;

/// The name of the list in a package directory.
pub const MANIFEST: &str = "manifest.json";
/// The name of the digests for `sha256sum -c` in a package directory.
pub const SUMS: &str = "SHA256SUMS";
/// The name of the receiver's confirmation in a package directory.
pub const RECEIPT: &str = "receipt.json";

/// The longest manifest that is written and read: room for about 400,000 artifacts.
pub(super) const MANIFEST_BYTES: u64 = 128 << 20;

/// A package directory whose manifest holds together. Its parts were not looked at.
#[derive(Debug)]
pub struct Package {
    /// The directory.
    pub dir: PathBuf,
    /// What it says it holds.
    pub manifest: Manifest,
    /// The manifest's bytes, as they lie in the file.
    pub(super) manifest_json: Vec<u8>,
    /// The artifacts' names, checked.
    pub(super) names: Vec<ArtifactName>,
    /// Where the artifacts lie, computed anew.
    pub(super) layout: Layout,
}

impl Package {
    /// Reads and checks `manifest.json` in `dir`.
    ///
    /// # Errors
    /// The manifest is not there, can't be read, is not JSON of this schema, or contradicts itself.
    pub fn open(dir: &Path) -> Result<Self, PackError> {
        let path = dir.join(MANIFEST);
        let manifest_json = read_manifest(&path)?;
        let bad = |why: String| PackError::Manifest { path: path.clone(), why, digest: false };
        let manifest = parse(&manifest_json).map_err(bad)?;
        let (names, layout) = check(&manifest).map_err(bad)?;
        if manifest.compute_root() != manifest.root_digest {
            let why = format!(
                "its root digest is {}, and what it lists has another: it was changed after it was written",
                manifest.root_digest
            );
            return Err(PackError::Manifest { path, why, digest: true });
        }
        Ok(Self { dir: dir.to_owned(), manifest, manifest_json, names, layout })
    }

    /// Where a part lies.
    #[must_use]
    pub fn part_path(&self, part: &Part) -> PathBuf {
        self.dir.join(&part.name)
    }

    /// What the artifact at a place of the manifest is called.
    #[must_use]
    pub fn artifact_name(&self, index: usize) -> Option<&ArtifactName> {
        self.names.get(index)
    }

    /// The `SHA256SUMS` that belongs to it.
    pub(super) fn sums(&self) -> String {
        sums(&self.manifest, &self.manifest_json)
    }
}

/// What `sha256sum -c` reads: a line for each part and one for the manifest.
pub(super) fn sums(manifest: &Manifest, manifest_json: &[u8]) -> String {
    let mut text = String::new();
    for part in &manifest.parts {
        let _ = writeln!(text, "{}  {}", part.sha256, part.name);
    }
    let _ = writeln!(text, "{}  {MANIFEST}", Digest::of(manifest_json));
    text
}

fn read_manifest(path: &Path) -> Result<Vec<u8>, PackError> {
    let dir = path.parent().unwrap_or(path);
    let source = |source: io::Error| PackError::Source { path: path.to_owned(), at: None, source };
    let bad = |why: String| PackError::Manifest { path: path.to_owned(), why, digest: false };
    match std::fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => {
            return Err(bad("a package is a folder, and that is a file".into()));
        }
        Ok(_) => {}
        Err(source) => return Err(PackError::Source { path: dir.to_owned(), at: None, source }),
    }
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(bad("it is not there, so the folder is no package, or not a whole one".into()));
        }
        Err(e) => return Err(source(e)),
        Ok(meta) if !meta.is_file() => return Err(bad("it is not a regular file".into())),
        Ok(meta) => meta,
    };
    if meta.len() > MANIFEST_BYTES {
        let (is, most) = (Size::from(meta.len()), Size::from(MANIFEST_BYTES));
        return Err(bad(format!("it has {is}, and at most {most} are read")));
    }
    let mut json = Vec::new();
    File::open(path).and_then(|file| file.take(MANIFEST_BYTES).read_to_end(&mut json)).map_err(source)?;
    Ok(json)
}

/// What decides whether this version can read the rest: read first, so that a newer manifest is told from
/// a damaged one, and nothing is allocated for what it would not understand.
#[derive(Deserialize)]
struct Start {
    schema: String,
    encryption: Option<IgnoredAny>,
    parity: Option<IgnoredAny>,
}

fn parse(json: &[u8]) -> Result<Manifest, String> {
    if json.is_empty() {
        return Err("it is empty".into());
    }
    let not_json = |e: serde_json::Error| format!("it is not what schema {SCHEMA} says: {e}");
    let Start { schema, encryption, parity } = serde_json::from_slice(json).map_err(not_json)?;
    if schema != SCHEMA {
        let schema = super::name::shown(schema.as_bytes());
        return Err(if schema.starts_with("kdt/package/") {
            format!("it is of schema {schema}, which a newer kdt writes; this one reads {SCHEMA}")
        } else {
            format!("its schema is {schema:?}, and {SCHEMA} is read")
        });
    }
    if encryption.is_some() || parity.is_some() {
        return Err("its parts are encrypted or have parity, which a newer kdt reads".into());
    }
    serde_json::from_slice(json).map_err(not_json)
}

/// Everything in the manifest that follows from the rest of it, computed anew and compared.
fn check(manifest: &Manifest) -> Result<(Vec<ArtifactName>, Layout), String> {
    if manifest.codec != CODEC {
        return Err(format!("its codec is {:?}, and only {CODEC} is read", manifest.codec));
    }
    let created_fits = manifest.created.len() <= 64 && manifest.created.chars().all(|c| c.is_ascii_graphic());
    if !created_fits {
        return Err("its time of creation is not a time".into());
    }
    let names = check_names(&manifest.artifacts)?;
    let members = manifest.artifacts.iter().zip(&names).map(|(artifact, name)| artifact.member(name));
    let layout = Layout::new(members).ok_or("its artifacts are longer than 2^64 bytes together")?;
    for (index, (artifact, span)) in manifest.artifacts.iter().zip(&layout.spans).enumerate() {
        if artifact.offset != span.data {
            let (is, should) = (artifact.offset, span.data);
            return Err(format!(
                "artifact {index} is said to be at {is} in the stream, and must be at {should}"
            ));
        }
    }
    if manifest.stream_bytes != layout.total {
        let (is, should) = (manifest.stream_bytes, layout.total);
        return Err(format!("the stream is said to have {is} bytes, and its artifacts make {should}"));
    }
    check_parts(manifest, &layout)?;
    Ok((names, layout))
}

fn check_names(artifacts: &[Artifact]) -> Result<Vec<ArtifactName>, String> {
    let mut names = Vec::new();
    for (index, artifact) in artifacts.iter().enumerate() {
        let name = artifact.checked_name().map_err(|why| format!("the name of artifact {index} {why}"))?;
        if name.folders().next().unwrap_or(name.file_name()).starts_with(b".kdt-") {
            return Err(format!("the name of artifact {index}, {name}, is one that kdt keeps for itself"));
        }
        names.push(name);
    }
    if let Some((one, other)) = clash(&names) {
        return Err(if one == other {
            format!("two artifacts are called {one}")
        } else {
            format!("{one} is a file, and a folder too, of {other}")
        });
    }
    Ok(names)
}

/// Two names that can't both be files in one folder: they are the same, or one is a folder of the other.
pub(super) fn clash(names: &[ArtifactName]) -> Option<(&ArtifactName, &ArtifactName)> {
    // With '/' before every other byte (no name has a NUL), what lies below `a` follows right after `a`.
    let key = |name: &&ArtifactName| -> Vec<u8> {
        name.as_bytes().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
    };
    let mut sorted: Vec<&ArtifactName> = names.iter().collect();
    sorted.sort_by_cached_key(key);
    let clashing = |(one, other): &(&ArtifactName, &ArtifactName)| {
        let rest = other.as_bytes().strip_prefix(one.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    };
    sorted.iter().copied().zip(sorted.iter().copied().skip(1)).find(clashing)
}

fn check_parts(manifest: &Manifest, layout: &Layout) -> Result<(), String> {
    let parts = &manifest.parts;
    if parts.is_empty() {
        return Err("it lists no part".into());
    }
    let mut at = 0_u64;
    for (number, part) in (1..).zip(parts) {
        let name = manifest.case.part_name(number, parts.len());
        if part.name != name {
            let is = super::name::shown(part.name.as_bytes());
            return Err(format!("part {number} is called {is:?}, and must be called {name}"));
        }
        if part.stream_offset != at {
            let is = part.stream_offset;
            return Err(format!(
                "{name} is said to start at {is} of the stream, and the part before it ends at {at}"
            ));
        }
        if part.size == 0 || part.stream_bytes == 0 {
            return Err(format!("{name} is said to be empty"));
        }
        at = at.checked_add(part.stream_bytes).ok_or("its parts are longer than 2^64 bytes together")?;
        if part.holds != holds(layout, part.stream_offset, at) {
            return Err(format!("{name} is said to hold other artifacts than lie there in the stream"));
        }
    }
    if at != layout.total {
        let total = layout.total;
        return Err(format!("its parts hold {at} bytes of the stream, which has {total}"));
    }
    Ok(())
}

/// Which artifacts have bytes between `start` and `end` of the stream. An empty artifact has none.
pub(super) fn holds(layout: &Layout, start: u64, end: u64) -> Vec<Hold> {
    let first = layout.find(start);
    let spans = layout.spans.iter().enumerate().skip(first).take_while(|(_, span)| span.start < end);
    let held = spans.filter_map(|(artifact, span)| {
        let from = span.data.max(start);
        let bytes = span.data_end.min(end).checked_sub(from).filter(|bytes| *bytes > 0)?;
        Some(Hold { artifact, offset: from.saturating_sub(span.data), bytes })
    });
    held.collect()
}

/// The parts by digest, to name a file that carries another one's bytes.
pub(super) fn parts_by_digest(manifest: &Manifest) -> BTreeMap<Digest, &Part> {
    manifest.parts.iter().map(|part| (part.sha256, part)).collect()
}
