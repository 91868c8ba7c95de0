//! Where the bytes of one item wait until the archive takes them: in memory while they are few, then in an
//! unnamed file next to the bundle. Memory stays bounded whatever a command says.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::scrub::Scrub;
use crate::spec::Keep;

/// Items up to this size stay in memory.
const IN_MEMORY: usize = 1 << 20;
/// One step of moving bytes within the file.
const STEP: usize = 64 << 10;

/// The bytes of one item.
#[derive(Debug)]
pub(crate) struct Spool {
    mem: Vec<u8>,
    file: Option<File>,
    len: u64,
    dir: PathBuf,
}

impl Spool {
    /// An empty spool that grows into an unnamed file in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { mem: Vec::new(), file: None, len: 0, dir: dir.to_owned() }
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.mem.len() + bytes.len() > IN_MEMORY {
            let file = tempfile::tempfile_in(&self.dir)?;
            file.write_all_at(&self.mem, 0)?;
            self.mem = Vec::new();
            self.file = Some(file);
        }
        match &self.file {
            Some(file) => file.write_all_at(bytes, self.len)?,
            None => self.mem.extend_from_slice(bytes),
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Drops what stands from `from` on.
    fn truncate(&mut self, from: u64) {
        if self.file.is_none() {
            self.mem.truncate(usize::try_from(from).unwrap_or(usize::MAX));
        }
        self.len = self.len.min(from);
    }

    /// Drops `count` bytes at `from`; what stands after them moves down.
    fn remove(&mut self, from: u64, count: u64) -> io::Result<()> {
        let Some(file) = &self.file else {
            let start = usize::try_from(from).unwrap_or(usize::MAX).min(self.mem.len());
            let end = start.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)).min(self.mem.len());
            self.mem.drain(start..end);
            self.len = self.mem.len() as u64;
            return Ok(());
        };
        let mut buf = vec![0; STEP];
        let (mut source, mut target) = (from + count, from);
        while source < self.len {
            let got = file.read_at(&mut buf, source)?;
            let Some(piece) = buf.get(..got).filter(|p| !p.is_empty()) else { break };
            file.write_all_at(piece, target)?;
            source += got as u64;
            target += got as u64;
        }
        self.len = target;
        Ok(())
    }

    /// The bytes of `range`, to be read in order.
    pub(crate) fn reader(&self, range: &Range<u64>) -> SpoolReader<'_> {
        SpoolReader { spool: self, at: range.start, end: range.end.min(self.len) }
    }
}

/// Reads a range of a [`Spool`].
#[derive(Debug)]
pub(crate) struct SpoolReader<'a> {
    spool: &'a Spool,
    at: u64,
    end: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let Some(buf) = buf.get_mut(..want) else { return Ok(0) };
        let got = if let Some(file) = &self.spool.file {
            file.read_at(buf, self.at)?
        } else {
            let start = usize::try_from(self.at).unwrap_or(usize::MAX);
            let from = self.spool.mem.get(start..).unwrap_or_default();
            let count = from.len().min(buf.len());
            for (to, from) in buf.iter_mut().zip(from) {
                *to = *from;
            }
            count
        };
        self.at += got as u64;
        Ok(got)
    }
}

/// One file's or one command's way into a spool: scrubbed, and cut to its cap at the right end.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    spool: &'a mut Spool,
    scrub: Scrub,
    start: u64,
    cap: u64,
    keep: Keep,
    cut: bool,
    ready: Vec<u8>,
}

/// What an [`Intake`] took.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Where it stands in the spool.
    pub(crate) range: Range<u64>,
    /// True if there was more than the cap.
    pub(crate) truncated: bool,
    /// How many secrets were replaced.
    pub(crate) scrubbed: u64,
}

impl<'a> Intake<'a> {
    /// A way into `spool` for what will stand at `path` in the bundle.
    pub(crate) fn new(spool: &'a mut Spool, path: &[u8], keep: Keep, cap: u64) -> Self {
        let start = spool.len();
        Self { spool, scrub: Scrub::for_path(path), start, cap, keep, cut: false, ready: Vec::new() }
    }

    /// Takes `bytes`. False says that nothing more is wanted.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.scrub.push(bytes, &mut ready);
        let more = self.store(&ready);
        self.ready = ready;
        more
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.spool.write(bytes)?;
        let len = self.spool.len() - self.start;
        match self.keep {
            Keep::Head if len > self.cap => {
                self.spool.truncate(self.start + self.cap);
                self.cut = true;
                Ok(false)
            }
            // Moving down only at twice the cap makes each byte move at most once.
            Keep::Tail if len >= self.cap.saturating_mul(2).saturating_add(STEP as u64) => {
                self.spool.remove(self.start, len - self.cap)?;
                self.cut = true;
                Ok(true)
            }
            Keep::Head | Keep::Tail => Ok(true),
        }
    }

    /// Says that the source has more than it gave.
    pub(crate) fn mark_truncated(&mut self) {
        self.cut = true;
    }

    /// Ends it. Where the end of a text was kept, it begins at a line.
    pub(crate) fn finish(mut self) -> io::Result<Taken> {
        let mut rest = Vec::new();
        self.scrub.finish(&mut rest);
        self.store(&rest)?;
        let mut range = self.start..self.spool.len();
        if self.keep == Keep::Tail {
            if range.end - range.start > self.cap {
                range.start = range.end - self.cap;
                self.cut = true;
            }
            if self.cut {
                range.start += self.to_next_line(&range)?;
            }
        }
        Ok(Taken { range, truncated: self.cut, scrubbed: self.scrub.replaced() })
    }

    fn to_next_line(&self, range: &Range<u64>) -> io::Result<u64> {
        let mut piece = Vec::new();
        self.spool.reader(range).take(STEP as u64).read_to_end(&mut piece)?;
        let newline = piece.iter().position(|b| *b == b'\n');
        Ok(newline.map_or(0, |i| i as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(keep: Keep, cap: u64, lines: u64) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path());
        spool.write(b"before\n").unwrap();
        let mut intake = Intake::new(&mut spool, b"x", keep, cap);
        for n in 0..lines {
            if !intake.push(format!("line {n:08}\n").as_bytes()).unwrap() {
                break;
            }
        }
        let taken = intake.finish().unwrap();
        let mut text = String::new();
        spool.reader(&taken.range).read_to_string(&mut text).unwrap();
        (text, taken.truncated)
    }

    #[test]
    fn everything_is_kept_below_the_cap() {
        for keep in [Keep::Head, Keep::Tail] {
            let (text, cut) = take(keep, 1 << 20, 10);
            assert!(text.starts_with("line 00000000\n") && text.ends_with("line 00000009\n") && !cut);
        }
    }

    #[test]
    fn head_keeps_the_first_bytes_exactly() {
        let (text, cut) = take(Keep::Head, 20, 1000);
        assert_eq!((text.as_str(), cut), ("line 00000000\nline 0", true));
    }

    #[test]
    fn tail_keeps_the_last_lines_whole_in_memory_and_in_a_file() {
        for cap in [1000, 100_000, 1 << 20] {
            let (text, cut) = take(Keep::Tail, cap, 300_000);
            assert!(cut && text.len() as u64 <= cap && text.len() as u64 + 14 > cap, "{cap}: {}", text.len());
            assert!(text.starts_with("line ") && text.ends_with("line 00299999\n"), "{cap}");
            let numbers: Vec<u64> = text.lines().map(|l| l[5..].parse().unwrap()).collect();
            assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{cap}: a gap");
        }
    }
}
