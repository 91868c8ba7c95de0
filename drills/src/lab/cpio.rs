//! Writes cpio archives in the `newc` format, which the kernel unpacks as its first root file system
//! (kernel: `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! A writer of its own, because device nodes such as `/dev/console` then need no privilege to make.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes one archive, member after member, into `out`.
pub struct CpioWriter<W> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> CpioWriter<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// Adds a directory. The directories above it have to be added before.
    ///
    /// # Errors
    /// What `out` says.
    pub fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.header(path, DIRECTORY | permissions, 0, (0, 0))
    }

    /// Adds a character device, as `mknod path c major minor` would.
    ///
    /// # Errors
    /// What `out` says.
    pub fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        self.header(path, CHARACTER_DEVICE | permissions, 0, (major, minor))
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// What `out` or `content` says; content that is shorter than `size`, or a size past 4 GiB, which the
    /// format cannot tell.
    pub fn file(
        &mut self,
        path: &str,
        permissions: u32,
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let short = u32::try_from(size).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{path}` has {size} bytes, more than a newc archive can hold"),
            )
        })?;
        self.header(path, FILE | permissions, short, (0, 0))?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        self.written += copied;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("`{path}` ends after {copied} of {size} bytes"),
            ));
        }
        self.pad()
    }

    /// Ends the archive and gives `out` back.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 0, (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, path: &str, mode: u32, size: u32, device: (u32, u32)) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        if mode != 0 {
            self.inode += 1;
        }
        // ino, mode, uid, gid, nlink, mtime, size, device (2), device that a node stands for (2), name, check
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            // Writing into a string does not fail.
            let _ = write!(header, "{field:08x}");
        }
        header.push_str(name);
        header.push('\0');
        self.out.write_all(header.as_bytes())?;
        self.written += header.len() as u64;
        self.pad()
    }

    /// Each header and each content begins at a multiple of four.
    fn pad(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(4) {
            self.out.write_all(&[0])?;
            self.written += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut cpio = CpioWriter::new(Vec::new());
        cpio.directory("/dev", 0o755).unwrap();
        cpio.character_device("/dev/console", 0o600, (5, 1)).unwrap();
        cpio.file("/init", 0o755, 5, &mut &b"hello"[..]).unwrap();
        cpio.finish().unwrap()
    }

    #[test]
    fn every_member_begins_at_a_multiple_of_four() {
        let bytes = archive();
        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<usize> =
            (0..bytes.len() - 6).filter(|&at| bytes[at..].starts_with(b"070701")).collect();
        assert_eq!(starts.len(), 4, "dev, dev/console, init and the trailer");
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }

    #[test]
    fn a_device_node_carries_its_numbers_and_its_kind() {
        let bytes = archive();
        let name = bytes.windows(11).position(|w| w == b"dev/console").unwrap();
        let header = &bytes[name - 110..name];
        assert_eq!(&header[14..22], b"00002180", "mode: a character device, 0600");
        assert_eq!(&header[78..94], b"0000000500000001", "5, 1");
    }

    #[test]
    fn content_shorter_than_announced_is_refused() {
        let mut cpio = CpioWriter::new(Vec::new());
        let err = cpio.file("/init", 0o755, 9, &mut &b"hello"[..]).unwrap_err();
        assert_eq!(err.to_string(), "`/init` ends after 5 of 9 bytes");
    }

    /// A foreign reader, where there is one: GNU cpio or busybox.
    #[test]
    fn cpio_reads_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.cpio");
        std::fs::write(&path, archive()).unwrap();
        let run = |program: &str, args: &[&str]| {
            std::process::Command::new(program)
                .args(args)
                .stdin(std::fs::File::open(&path).unwrap())
                .output()
                .ok()
        };
        let Some(out) = run("cpio", &["-t"]).or_else(|| run("busybox", &["cpio", "-t"])) else {
            println!("SKIP cpio_reads_the_archive: neither cpio nor busybox is installed");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&out.stdout), "dev\ndev/console\ninit\n");
    }
}
