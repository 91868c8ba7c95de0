//! A gzip file of several members: what was written before a member's end stays readable, whatever comes after.
//!
//! Readers take the members as one stream (RFC 1952, 2.2), so `tar -xzf` sees one archive.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Writes members to a file; each is whole on the disk or is rolled back.
#[derive(Debug)]
pub(crate) struct Members {
    file: File,
    encoder: Option<GzEncoder<BufWriter<File>>>,
    /// Where the last whole member ends.
    committed: u64,
    sealed: bool,
}

impl Members {
    /// Members from the present end of `file` on.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        let committed = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, encoder: None, committed, sealed: false })
    }

    /// Ends the member, and says where.
    pub(crate) fn commit(&mut self) -> io::Result<u64> {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?.flush()?;
            self.committed = self.file.stream_position()?;
        }
        Ok(self.committed)
    }

    /// Takes back what was written since the last whole member.
    pub(crate) fn roll_back(&mut self) -> io::Result<()> {
        // An encoder writes its rest when it goes; only after that the file is cut.
        drop(self.encoder.take());
        self.file.set_len(self.committed)?;
        self.file.seek(SeekFrom::Start(self.committed))?;
        Ok(())
    }

    /// From now on what is written is dropped: a tar builder writes an end mark when it goes, and here another
    /// part of the archive follows.
    pub(crate) fn seal(&mut self) {
        self.sealed = true;
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Members {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.sealed {
            return Ok(buf.len());
        }
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => {
                let file = BufWriter::with_capacity(64 << 10, self.file.try_clone()?);
                none.insert(GzEncoder::new(file, Compression::default()))
            }
        };
        encoder.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
