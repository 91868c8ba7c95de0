//! Reads a finished bundle back as its receiver will: gzip checksums, tar records, and the digest of the file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::CollectError;

/// What reading back found.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) entries: u64,
}

struct Hashing {
    file: File,
    digest: Sha256,
    size: u64,
}

impl Read for Hashing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buf)?;
        self.digest.update(buf.get(..got).unwrap_or_default());
        self.size += got as u64;
        Ok(got)
    }
}

/// Reads the whole file at `path`.
pub(crate) fn read_back(path: &Path) -> Result<Checked, CollectError> {
    let differs = |e: io::Error| CollectError::Verify { path: path.into(), why: e.to_string() };
    let file = File::open(path).map_err(|e| CollectError::write(path, e))?;
    let hashing = Hashing { file, digest: Sha256::new(), size: 0 };
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(128 << 10, hashing));
    let mut entries = 0;
    let mut archive = tar::Archive::new(&mut decoder);
    for entry in archive.entries().map_err(differs)? {
        entry.map_err(differs)?;
        entries += 1;
    }
    io::copy(&mut decoder, &mut io::sink()).map_err(differs)?;
    let mut hashing = decoder.into_inner().into_inner();
    io::copy(&mut hashing, &mut io::sink()).map_err(differs)?;
    let mut sha256 = String::with_capacity(64);
    for byte in hashing.digest.finalize() {
        let _ = write!(sha256, "{byte:02x}");
    }
    Ok(Checked { sha256, size: hashing.size, entries })
}
