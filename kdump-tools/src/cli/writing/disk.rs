//! The way of a new dump to the disk: what is written goes there while the rest is made, and its digest is made meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};

use rustix::io::Errno;
use sha2::{Digest, Sha256};
use vmcore::write::{FileSink, Sink};

/// Bytes after which the disk is asked to begin with what it got.
const PIECE: u64 = 64 << 20;
/// Bytes that are read back at once: they are still in the processor's cache when they are digested.
const READ: usize = 128 << 10;

/// Gives `write` a sink of `file`, and meanwhile sends to the disk what that has put. What the disk says comes second: the
/// system tells it once only, so that it must not be dropped.
pub(super) fn while_syncing<T>(file: &File, write: impl FnOnce(&mut dyn Sink) -> T) -> (T, io::Result<()>) {
    let (wake, woken) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let syncing = scope.spawn(move || sync_when(file, &woken));
        // Its end is what ends the thread.
        let written = write(&mut Steady { sink: FileSink(file), since: 0, wake });
        let synced = syncing.join();
        (written, synced.unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has ended"))))
    })
}

fn sync_when(file: &File, woken: &Receiver<()>) -> io::Result<()> {
    woken.iter().try_for_each(|()| file.sync_data())
}

/// A file of which the disk gets a piece whenever so much was put.
struct Steady<'f> {
    sink: FileSink<'f>,
    since: u64,
    wake: SyncSender<()>,
}

impl Sink for Steady<'_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.sink.put(at, bytes)?;
        self.since = self.since.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        // Where the disk is still at the piece before, or has failed, there is nothing to wake.
        if self.since >= PIECE && self.wake.try_send(()).is_ok() {
            self.since = 0;
        }
        Ok(())
    }

    fn has_holes(&self) -> bool {
        self.sink.has_holes()
    }

    fn reserve(&mut self, range: Range<u64>) -> io::Result<()> {
        reserve(self.sink.0, range)
    }

    fn finish(&mut self, len: u64) -> io::Result<()> {
        self.sink.finish(len)
    }
}

/// Takes room for a range of a file. A file system that can't promise room is given zeros.
fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), range.start, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        outcome => return outcome.map_err(io::Error::from),
    }
    let zeros = vec![0; READ];
    let mut at = range.start;
    while at < range.end {
        let count = usize::try_from(range.end - at).unwrap_or(READ).min(READ);
        file.write_all_at(zeros.get(..count).unwrap_or_default(), at)?;
        at += u64::try_from(count).unwrap_or(0);
    }
    Ok(())
}

/// How many bytes a file in this folder can get, as far as the system tells: the room of the disk, and this process's limit.
pub(super) fn room(dir: &Path) -> u64 {
    let disk = rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    disk.min(limit.unwrap_or(u64::MAX))
}

/// Syncs the file, and gives the digest of what it holds now, which is not what was meant to be written.
///
/// # Errors
/// What the operating system says.
pub(super) fn sync_and_digest(file: &File) -> io::Result<String> {
    std::thread::scope(|scope| {
        let digesting = scope.spawn(|| digest(file));
        file.sync_all()?;
        digesting.join().unwrap_or_else(|_| Err(io::Error::other("the thread that digests has ended")))
    })
}

fn digest(file: &File) -> io::Result<String> {
    let (mut hash, mut piece, mut at) = (Sha256::new(), vec![0; READ], 0_u64);
    loop {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(count) => {
                hash.update(piece.get(..count).unwrap_or_default());
                at += u64::try_from(count).unwrap_or(0);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_the_file_holds() {
        let file = tempfile::tempfile().unwrap();
        let put = while_syncing(&file, |sink| {
            for at in (0..70).map(|n| n << 20) {
                sink.put(at, &vec![7; 1 << 20]).unwrap();
            }
            sink.put(5, b"abc").unwrap();
            sink.finish(70 << 20)
        });
        put.0.unwrap();
        put.1.unwrap();
        let mut bytes = vec![7; 70 << 20];
        bytes[5..8].copy_from_slice(b"abc");
        assert_eq!(sync_and_digest(&file).unwrap(), hex::encode(Sha256::digest(&bytes)));
    }

    #[test]
    fn a_disk_that_fails_is_not_taken_for_one_that_is_done() {
        // A pipe can't be synced.
        let (_reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let (wake, woken) = mpsc::sync_channel(1);
        wake.send(()).unwrap();
        drop(wake);
        assert!(sync_when(&file, &woken).is_err());
    }
}
