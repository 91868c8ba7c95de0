//! Files and block devices, read with `pread`: a file that is cut while it is read costs an error, not the process.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use super::ReadAt;
use crate::error::{OpenError, OpenErrorKind};

/// A regular file or a block device.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
    /// It takes less room than it is long, so that it may have holes.
    sparse: bool,
}

impl FileSource {
    /// Takes an open file; a block device's size is where its end is.
    ///
    /// # Errors
    /// What the operating system says when asked for the size.
    pub fn new(mut file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let len = if meta.file_type().is_block_device() { file.seek(SeekFrom::End(0))? } else { meta.len() };
        let sparse = meta.is_file() && meta.blocks().saturating_mul(512) < len;
        Ok(Self { file, len, sparse })
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // A file that grew since (a dump that is still written) does not get bytes past the length first seen.
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = there.min(buf.len());
        // Asked nothing, because the system refuses offsets past 2^63 even then.
        buf.get_mut(..count).filter(|buf| !buf.is_empty()).map_or(Ok(0), |buf| self.file.read_at(buf, offset))
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let here = (offset < self.len).then_some(offset)?;
        if !self.sparse {
            return Some(here);
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => (data < self.len).then_some(data),
            Err(rustix::io::Errno::NXIO) => None,
            // A file system that knows of no holes.
            Err(_) => Some(here),
        }
    }
}

/// Opens a file that can be read at any offset, and refuses the others by what they are. A FIFO is never
/// opened, because that would wait for its writer.
///
/// # Errors
/// [`OpenErrorKind::Io`], [`OpenErrorKind::NotAFile`] and [`OpenErrorKind::Empty`].
pub fn open_file(path: &Path) -> Result<FileSource, OpenError> {
    let fail = |kind: OpenErrorKind| OpenError::new(path, kind);
    let kind = fs::metadata(path).map_err(|e| fail(e.into()))?.file_type();
    let what = if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_char_device() {
        Some("a character device")
    } else {
        None
    };
    if let Some(what) = what {
        return Err(fail(OpenErrorKind::NotAFile { what: what.into() }));
    }
    let file = File::open(path).and_then(FileSource::new).map_err(|e| fail(e.into()))?;
    if file.is_empty() { Err(fail(OpenErrorKind::Empty)) } else { Ok(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| open_file(path).unwrap_err().kind.to_string();
        assert_eq!(text(dir.path()), "is a directory, not a dump file");
        assert_eq!(text(Path::new("/dev/null")), "is a character device, not a dump file");
        let empty = dir.path().join("empty");
        fs::write(&empty, b"").unwrap();
        assert_eq!(text(&empty), "is an empty file");
        let socket = dir.path().join("socket");
        let _held = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(text(&socket), "is a socket, not a dump file");
        assert!(text(&dir.path().join("none")).starts_with("can't be read: No such file"));
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        if !std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|s| s.success()) {
            println!("skipped: no mkfifo");
            return;
        }
        assert_eq!(open_file(&fifo).unwrap_err().kind.to_string(), "is a pipe, not a dump file");
    }

    #[test]
    fn bytes_come_from_their_offset_up_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"0123456789").unwrap();
        let file = open_file(&path).unwrap();
        let mut buf = [0; 4];
        assert_eq!((file.len(), file.read_at(8, &mut buf).unwrap()), (10, 2));
        assert_eq!(&buf[..2], b"89");
        assert_eq!(file.read_at(10, &mut buf).unwrap(), 0);
        assert_eq!((file.next_data(3), file.next_data(10)), (Some(3), None));
    }

    #[test]
    fn holes_of_a_sparse_file_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"x", 8 << 20).unwrap();
        file.set_len(1 << 40).unwrap();
        let source = open_file(&path).unwrap();
        assert_eq!(source.read_at(3, &mut [9; 4]).unwrap(), 4);
        let next = source.next_data(3).unwrap();
        // A file system without holes gives the place asked for.
        assert!(next == 3 || next == 8 << 20, "{next}");
        assert!(next == 3 || source.next_data((8 << 20) + 65536).is_none());
    }
}
