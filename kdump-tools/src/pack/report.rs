//! Reads a small file out of a package without unpacking it: its report, which travels first.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::digest::Digest;
use super::package::Package;

/// The content of the artifact called `name` in the package at `dir`, proven by its digest; `None` where the package has none. One that is
/// longer than `most` bytes is not read.
///
/// # Errors
/// Why the package or its part can't be read, in one sentence.
pub fn read_artifact(dir: &Path, name: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
    let package = Package::open(dir).map_err(|error| error.to_string())?;
    let manifest = &package.manifest;
    let Some(index) = manifest.artifacts.iter().position(|artifact| artifact.name == name) else {
        return Ok(None);
    };
    let Some(artifact) = manifest.artifacts.get(index) else { return Ok(None) };
    if artifact.size > most {
        return Err(format!("its {name} has {} bytes, and at most {most} are read", artifact.size));
    }
    let mut content = Vec::new();
    for part in &manifest.parts {
        for hold in part.holds.iter().filter(|hold| hold.artifact == index) {
            let path = package.part_path(part);
            let said = |error: io::Error| format!("its part {} can't be read: {error}", part.name);
            let begin =
                artifact.offset.checked_add(hold.offset).and_then(|at| at.checked_sub(part.stream_offset));
            let Some(begin) = begin.filter(|_| hold.bytes <= most) else {
                return Err(format!("its part {} does not hold what the manifest says", part.name));
            };
            let mut stream = zstd::Decoder::new(File::open(path).map_err(said)?).map_err(said)?;
            io::copy(&mut stream.by_ref().take(begin), &mut io::sink()).map_err(said)?;
            stream.take(hold.bytes).read_to_end(&mut content).map_err(said)?;
        }
    }
    if Digest::of(&content) != artifact.sha256 {
        return Err(format!("its {name} has another digest than the manifest says"));
    }
    Ok(Some(content))
}
