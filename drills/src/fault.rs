//! Damage that can be repeated and undone: the accidents that happen to evidence on its way.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// One byte that was changed, and what it was.
#[derive(Debug)]
pub struct Flipped {
    /// The file.
    pub path: PathBuf,
    /// Which byte.
    pub at: u64,
    /// What it was.
    was: u8,
}

/// A number that depends on the seed and on what it is for, and on nothing else (no clock, no order of threads).
#[must_use]
pub fn draw(seed: u64, what_for: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(what_for).finalize();
    digest.iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

/// Flips one bit of a file, both byte and bit chosen by the seed.
///
/// # Errors
/// What the operating system says, or that the file is empty.
pub fn flip_byte(path: &Path, seed: u64) -> io::Result<Flipped> {
    let len = fs::metadata(path)?.len();
    if len == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is empty", path.display())));
    }
    let at = draw(seed, "flip-byte: which byte") % len;
    let bit = draw(seed, "flip-byte: which bit") % 8;
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    let was = byte[0];
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[was ^ (1 << bit)])?;
    file.sync_all()?;
    Ok(Flipped { path: path.to_owned(), at, was })
}

impl Flipped {
    /// Puts the byte back.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn undo(&self) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        file.write_all(&[self.was])?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_one_byte_and_can_be_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let before: Vec<u8> = (0..=255).collect();
        fs::write(&path, &before).unwrap();
        let flipped = flip_byte(&path, 3).unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1);
        flipped.undo().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(draw(1, "x"), draw(1, "x"));
        assert_ne!(draw(1, "x"), draw(2, "x"));
        assert_ne!(draw(1, "x"), draw(1, "y"));
    }

    #[test]
    fn an_empty_file_is_refused_and_not_divided_by() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(flip_byte(file.path(), 1).unwrap_err().to_string().contains("is empty"));
    }
}
