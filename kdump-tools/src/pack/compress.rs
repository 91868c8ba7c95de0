//! Compresses the tar stream: one thread reads and hashes, some compress, one writes, one syncs.
//!
//! A fixed number of buffers goes round between them. When the disk is slow, the reader waits for a
//! buffer, so memory does not grow with the input.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use vmcore::progress::{Cancel, Progress};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::digest::{Hasher, digest_file};
use super::error::PackError;
use super::journal::{Entry, PartDone, Workshop, remove};
use super::plan::PackPlan;
use super::source::{Finished, TarSource};
use super::stream::is_zero;

/// Bytes of a part that may wait for the disk: what is written is sent there while the next frames are made,
/// so that the end of a part does not wait for all of it.
const FLUSH: u64 = 16 << 20;

/// What the syncing thread is given.
enum Ready {
    /// An open part, of which more than [`FLUSH`] is not on the disk.
    Flush(File),
    /// A closed part.
    Part(File, PathBuf, PartDone),
}

/// A frame on its way: a piece of the stream and what it compresses to.
struct Frame {
    /// Its place among the frames of this run.
    sequence: u64,
    start: u64,
    end: u64,
    raw: Vec<u8>,
    packed: Vec<u8>,
    finished: Vec<Finished>,
}

/// Compresses the stream from the end of the `done` parts on into parts of the workshop.
pub(super) fn compress(
    plan: &PackPlan,
    workshop: &Workshop,
    done: usize,
    from: u64,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<PartDone>, PackError> {
    // One frame in each compressor, one being read, one being written, and two to even the flow out.
    let buffers = plan.jobs.saturating_add(4);
    let (free_in, free_out) = channel();
    for _ in 0..buffers {
        let _ = free_in.send(Frame {
            sequence: 0,
            start: 0,
            end: 0,
            raw: Vec::new(),
            packed: Vec::new(),
            finished: Vec::new(),
        });
    }
    let (read_in, read_out) = channel();
    let (packed_in, packed_out) = channel();
    let (part_in, part_out) = sync_channel(1);
    let read_out = Mutex::new(read_out);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(plan, from, &free_out, &read_in, cancel));
        let read_out = &read_out;
        for _ in 0..plan.jobs {
            let packed_in = packed_in.clone();
            scope.spawn(move || squeeze(plan.level, read_out, &packed_in));
        }
        drop(packed_in);
        let syncer = scope.spawn(move || sync(workshop, &part_out));
        let mut writer = Writer { plan, workshop, number: done, part: None, ready: part_in };
        let written = writer.run(&packed_out, &free_in, progress, cancel);
        // From here on a reader that waits for a buffer, and compressors that wait for a frame, are let go.
        drop(free_in);
        drop(packed_out);
        drop(writer);
        let on_disk = join(syncer);
        // What stopped first is told: the reader's and the syncer's errors end the writer, not it theirs.
        let was_read = join(reader);
        was_read.and(on_disk).and_then(|parts| written.map(|()| parts))
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read(
    plan: &PackPlan,
    from: u64,
    free: &Receiver<Frame>,
    read: &Sender<Frame>,
    cancel: &Cancel,
) -> Result<(), PackError> {
    let mut source = TarSource::new(plan, from, &|| cancel.is_cancelled())?;
    let mut start = from;
    let mut sequence = 0_u64;
    while start < plan.layout.total {
        let Ok(mut frame) = free.recv() else { return Ok(()) };
        if cancel.is_cancelled() {
            return Err(PackError::Cancelled);
        }
        frame.start = start;
        frame.end = plan.frame_end(start);
        frame.sequence = sequence;
        let length = frame.end.saturating_sub(start);
        frame.raw.resize(usize::try_from(length).unwrap_or(0), 0);
        frame.finished = source.fill(&mut frame.raw)?;
        start = frame.end;
        sequence = sequence.saturating_add(1);
        if read.send(frame).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A frame, or why it could not be made.
type Squeezed = Result<Frame, PackError>;

fn squeeze(level: i32, frames: &Mutex<Receiver<Frame>>, packed: &Sender<Squeezed>) {
    let mut compressor = new_compressor(level);
    // Dumps have long runs of zeros, and a frame of zeros is always the same.
    let mut zeros: Option<(usize, Vec<u8>)> = None;
    loop {
        // The lock is held while waiting: the others wait for the same frame anyway.
        let next = frames.lock().ok().and_then(|frames| frames.recv().ok());
        let Some(mut frame) = next else { return };
        let squeezed = match &mut compressor {
            Ok(compressor) => {
                frame.packed.clear();
                frame.packed.reserve(compress_bound(frame.raw.len()));
                let is_zeros = is_zero(&frame.raw);
                match &zeros {
                    Some((length, packed)) if is_zeros && *length == frame.raw.len() => {
                        frame.packed.extend_from_slice(packed);
                        Ok(frame)
                    }
                    _ => compressor.compress_to_buffer(&frame.raw, &mut frame.packed).map(|_| {
                        if is_zeros {
                            zeros = Some((frame.raw.len(), frame.packed.clone()));
                        }
                        frame
                    }),
                }
            }
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        let squeezed = squeezed.map_err(|source| PackError::Target {
            doing: "compressing for",
            path: PathBuf::from("a part"),
            source,
        });
        if packed.send(squeezed).is_err() {
            return;
        }
    }
}

/// Frames carry their length and a checksum of their own, so that `zstd -t` finds a damaged one.
pub(super) fn new_compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}

struct Writer<'a> {
    plan: &'a PackPlan,
    workshop: &'a Workshop,
    /// Parts that were closed, those of earlier runs included.
    number: usize,
    part: Option<OpenPart>,
    ready: SyncSender<Ready>,
}

struct OpenPart {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    finished: Vec<Finished>,
    /// Its length when it was last sent to the disk.
    flushed: u64,
}

impl Writer<'_> {
    fn run(
        &mut self,
        packed: &Receiver<Squeezed>,
        free: &Sender<Frame>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(), PackError> {
        let mut early: BTreeMap<u64, Frame> = BTreeMap::new();
        let mut next = 0_u64;
        let result = loop {
            // An end before the last frame is the reader's to explain.
            let Ok(frame) = packed.recv() else { break Ok(()) };
            if cancel.is_cancelled() {
                break Err(PackError::Cancelled);
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(e) => break Err(e),
            };
            early.insert(frame.sequence, frame);
            let mut wrote = Ok(true);
            while let Some(mut frame) = early.remove(&next) {
                next = next.saturating_add(1);
                wrote = self.frame(&mut frame);
                let frame_end = frame.end;
                if !matches!(wrote, Ok(true)) {
                    break;
                }
                progress.advance(frame.end.saturating_sub(frame.start));
                let _ = free.send(frame);
                if cancel.is_cancelled() && frame_end < self.plan.layout.total {
                    wrote = Err(PackError::Cancelled);
                    break;
                }
            }
            match wrote {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        // A part that was not closed is of no use to the next run, and its space may be.
        if let Some(part) = self.part.take() {
            let _ = remove(&part.path);
        }
        result
    }

    /// Writes a frame; `false` where the syncer has stopped, which has the reason.
    fn frame(&mut self, frame: &mut Frame) -> Result<bool, PackError> {
        let length = u64::try_from(frame.packed.len()).unwrap_or(u64::MAX);
        let full = |part: &OpenPart| part.size.saturating_add(length) > self.plan.part_size;
        if self.part.as_ref().is_some_and(full) && !self.close(frame.start) {
            return Ok(false);
        }
        if self.part.is_none() {
            self.part = Some(self.open()?);
        }
        let Some(part) = &mut self.part else { return Ok(false) };
        part.file.write_all(&frame.packed).map_err(|e| PackError::target("writing", &part.path, e))?;
        part.hasher.update(&frame.packed);
        part.size = part.size.saturating_add(length);
        part.finished.append(&mut frame.finished);
        if part.size.saturating_sub(part.flushed) >= FLUSH
            && let Ok(same) = part.file.try_clone()
            && self.ready.try_send(Ready::Flush(same)).is_ok()
        {
            part.flushed = part.size;
        }
        let border = frame.end == self.plan.reports_end || frame.end == self.plan.layout.total;
        Ok(!border || self.close(frame.end))
    }

    fn open(&self) -> Result<OpenPart, PackError> {
        let path = self.workshop.part(self.number.saturating_add(1));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| PackError::target("making", &path, e))?;
        Ok(OpenPart { file, path, hasher: Hasher::default(), size: 0, finished: Vec::new(), flushed: 0 })
    }

    fn close(&mut self, stream_end: u64) -> bool {
        let Some(OpenPart { file, path, hasher, size, finished, .. }) = self.part.take() else {
            return true;
        };
        self.number = self.number.saturating_add(1);
        let done = PartDone { size, sha256: hasher.finish(), stream_end, finished };
        self.ready.send(Ready::Part(file, path, done)).is_ok()
    }
}

/// Brings each closed part to the disk, then tells the journal of it.
fn sync(workshop: &Workshop, parts: &Receiver<Ready>) -> Result<Vec<PartDone>, PackError> {
    let mut done = Vec::new();
    while let Ok(ready) = parts.recv() {
        let (file, path, part) = match ready {
            Ready::Part(file, path, part) => (file, path, part),
            Ready::Flush(file) => {
                // The kernel tells a failed write-back once: the next sync would find nothing wrong.
                file.sync_data().map_err(|e| PackError::target("syncing", &workshop.folder, e))?;
                continue;
            }
        };
        file.sync_all().map_err(|e| PackError::target("syncing", &path, e))?;
        workshop.add(&Entry::Part(part.clone()))?;
        done.push(part);
    }
    Ok(done)
}

/// Whether a file is there and has this length and digest.
pub(super) fn holds_bytes(
    path: &std::path::Path,
    part: &PartDone,
    cancel: &Cancel,
) -> Result<bool, PackError> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    if file.metadata().is_ok_and(|meta| meta.len() != part.size) {
        return Ok(false);
    }
    match digest_file(&mut file, &|| cancel.is_cancelled()) {
        Ok(found) => Ok(found == (part.size, part.sha256)),
        Err(_) if cancel.is_cancelled() => Err(PackError::Cancelled),
        Err(_) => Ok(false),
    }
}
