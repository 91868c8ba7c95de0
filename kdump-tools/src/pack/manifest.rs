//! `manifest.json`, schema `kdt/package/1`: what a package holds. Public: a field once here keeps its
//! meaning.

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hasher, from_hex};
use super::kind::Kind;
use super::layout::Member;
use super::name::{ArtifactName, CaseId, shown};

/// The schema that this version writes.
pub(super) const SCHEMA: &str = "kdt/package/1";
/// The only codec of the schema so far.
pub(super) const CODEC: &str = "zstd";

/// What a package holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// Always `kdt/package/1`.
    pub schema: String,
    /// The case.
    pub case: CaseId,
    /// When packing began, RFC 3339, UTC.
    pub created: String,
    /// What packed it.
    pub tool: Tool,
    /// How the stream is compressed: `zstd`.
    pub codec: String,
    /// Bytes of the tar stream that the parts decompress to, all together.
    pub stream_bytes: u64,
    /// What is in it, in the order of the stream.
    pub artifacts: Vec<Artifact>,
    /// The pieces, in the order of the stream.
    pub parts: Vec<Part>,
    /// What was met below a folder that was to be packed, and is not here.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// `null`: the parts are not encrypted.
    pub encryption: Option<serde_json::Value>,
    /// `null`: there is no parity.
    pub parity: Option<serde_json::Value>,
    /// One digest over all of it: see [`Manifest::compute_root`].
    pub root_digest: Digest,
}

/// The program that packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Tool {
    /// This program.
    #[must_use]
    pub fn this() -> Self {
        Self { name: "kdt".into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// A file in the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Artifact {
    /// Its name in the package, as text; where the name is not UTF-8, an approximation of it.
    pub name: String,
    /// The bytes of its name in hexadecimal, only where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Where its first byte is in the tar stream.
    pub offset: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was last written, in seconds since 1970.
    pub mtime: i64,
    /// Where it was on the sending machine; a hint for people only.
    pub path: String,
}

impl Artifact {
    pub(super) fn set_name(&mut self, name: &ArtifactName) {
        let text = std::str::from_utf8(name.as_bytes());
        self.name_hex = text.is_err().then(|| hex::encode(name.as_bytes()));
        self.name = text.map_or_else(|_| shown(name.as_bytes()), str::to_owned);
    }

    /// The name in the package.
    ///
    /// # Errors
    /// Why the name is refused, to stand after «the name … ».
    pub fn checked_name(&self) -> Result<ArtifactName, &'static str> {
        match &self.name_hex {
            Some(hex) => ArtifactName::new(from_hex(hex).ok_or("is not hexadecimal")?),
            None => ArtifactName::new(self.name.clone().into_bytes()),
        }
    }

    pub(super) fn member<'a>(&self, name: &'a ArtifactName) -> Member<'a> {
        Member { name, size: self.size, mode: self.mode, mtime: self.mtime }
    }
}

/// A piece of the stream, a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// Its file name: `CASE.part-0001-of-0007`.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Where in the tar stream its first decompressed byte stands.
    pub stream_offset: u64,
    /// How many bytes of the tar stream it decompresses to.
    pub stream_bytes: u64,
    /// Which artifacts have bytes in it.
    pub holds: Vec<Hold>,
}

/// A range of an artifact that a part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// Which artifact: its place in the list, from 0.
    pub artifact: usize,
    /// Where in the artifact the range starts.
    pub offset: u64,
    /// How long the range is.
    pub bytes: u64,
}

/// Something that was met and not packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// Where it was.
    pub path: String,
    /// Why it is not here.
    pub why: String,
}

impl Manifest {
    /// The digest over all that decides what comes out of the package: the SHA-256 of these lines, each
    /// ended by one newline, fields separated by one space.
    ///
    /// ```text
    /// kdt/package/1
    /// case CASE
    /// created TIME
    /// codec zstd
    /// part SHA256 SIZE STREAM_OFFSET STREAM_BYTES NAME            for each part, in order
    /// artifact SHA256 SIZE OFFSET MODE MTIME NAME_IN_HEX          for each artifact, in order
    /// ```
    ///
    /// Numbers are decimal, but for MODE, which is octal. What is only told (tool, paths, kinds, what was
    /// left out) is not in it.
    #[must_use]
    pub fn compute_root(&self) -> Digest {
        let mut hasher = Hasher::default();
        let mut line = |text: String| hasher.update(text.as_bytes());
        line(format!("{SCHEMA}\ncase {}\ncreated {}\ncodec {}\n", self.case, self.created, self.codec));
        for part in &self.parts {
            let Part { name, size, sha256, stream_offset, stream_bytes, .. } = part;
            line(format!("part {sha256} {size} {stream_offset} {stream_bytes} {name}\n"));
        }
        for artifact in &self.artifacts {
            let Artifact { size, sha256, offset, mode, mtime, .. } = artifact;
            let name = match &artifact.name_hex {
                Some(hex) => hex.clone(),
                None => hex::encode(artifact.name.as_bytes()),
            };
            line(format!("artifact {sha256} {size} {offset} {mode:o} {mtime} {name}\n"));
        }
        hasher.finish()
    }

    /// The manifest as it is written.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}
