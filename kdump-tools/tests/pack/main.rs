//! Packages, as a sender makes them, a bad day changes them, and a receiver opens them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests may, in their helpers too")]

mod damage;
mod foreign;
mod hostile;
mod process;
mod resume;
mod roundtrip;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use kdump_tools::pack::{
    CaseId, Depth, PackError, PackRequest, Packed, UnpackRequest, Unpacked, Verdict, pack, plan, plan_unpack,
    unpack, verify,
};
use tempfile::TempDir;
use vmcore::progress::{Cancel, Quiet};

const MIB: u64 = 1 << 20;

/// A folder that goes when the test ends, with files to pack, a package, and a place to unpack it.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn package(&self) -> PathBuf {
        self.path("package")
    }

    /// Writes a file to be packed.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path("in").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn request(&self, sources: &[PathBuf]) -> PackRequest {
        PackRequest {
            case: CaseId::new("02345678"),
            part_size: MIB,
            jobs: Some(2),
            ..PackRequest::new(sources.to_vec(), self.package())
        }
    }

    fn pack(&self, sources: &[PathBuf]) -> Packed {
        let plan = plan(&self.request(sources)).unwrap();
        pack(&plan, true, &Quiet, &Cancel::default()).unwrap()
    }

    fn verify(&self) -> Verdict {
        verify(&self.package(), Depth::Artifacts, &Quiet, &Cancel::default()).unwrap()
    }

    fn unpack(&self) -> Result<Unpacked, PackError> {
        let request = UnpackRequest { dir: self.package(), out: self.path("out"), check_space: true };
        let plan = plan_unpack(&request, &Quiet, &Cancel::default())?;
        unpack(plan, &Quiet, &Cancel::default())
    }

    fn unpacked(&self, name: &str) -> Vec<u8> {
        fs::read(self.path("out").join(name)).unwrap()
    }

    fn part(&self, number: usize) -> PathBuf {
        let prefix = format!("02345678.part-{number:04}-of-");
        let names = fs::read_dir(self.package()).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
        names.into_iter().find(is_it).unwrap()
    }
}

/// Bytes that do not compress, the same ones for the same seed.
fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(usize::try_from(length).unwrap()).collect()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Changes the bytes of a file.
fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    with(&mut bytes);
    fs::write(path, bytes).unwrap();
}
