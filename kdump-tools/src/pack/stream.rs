//! Reads parts back: one thread reads and hashes them, one decompresses, the caller's takes the bytes of
//! the stream, and a tracker tells it which artifact they are of.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::fs::{Mode, OFlags};
use vmcore::progress::{Cancel, Progress};
use zstd::stream::read::Decoder;

use super::damage::WINDOW_LOG;
use super::digest::{Digest, Hasher};
use super::error::PackError;
use super::layout::header;
use super::manifest::Part;
use super::package::Package;

/// Bytes that go from thread to thread at once.
const CHUNK: usize = 1 << 20;

/// What a part turned out to be.
#[derive(Debug)]
pub(super) enum PartState {
    /// There is no file of its name.
    Missing,
    /// There is one, and it can't be read.
    Unreadable(io::Error),
    /// It was read: as many bytes as the manifest says, or fewer.
    Read {
        /// How long the file is.
        length: u64,
        /// The digest of what was read of it.
        sha256: Digest,
    },
}

impl PartState {
    /// True where length and digest are the manifest's.
    pub(super) fn agrees(&self, part: &Part) -> bool {
        matches!(self, Self::Read { length, sha256 } if *length == part.size && *sha256 == part.sha256)
    }
}

/// What is told while the stream is read, in its order.
pub(super) enum Event<'a> {
    /// These bytes stand at `at` of the stream.
    Bytes { at: u64, bytes: &'a [u8] },
    /// What is between `from` and `to` can't be had of this part.
    Gap { part: usize, from: u64, to: u64 },
    /// The part was read to its end; what the decoder said if it stopped before that.
    Part { part: usize, state: PartState, undecodable: Option<String> },
}

/// Reads a part's file: hands on its bytes, at most as many as the manifest says, and hashes them.
pub(super) fn read_part(
    package: &Package,
    part: &Part,
    cancel: &Cancel,
    mut taken: impl FnMut(Vec<u8>) -> bool,
) -> PartState {
    let path = package.part_path(part);
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let mut file = match opened {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return PartState::Missing,
        Err(e) => return PartState::Unreadable(e.into()),
    };
    let length = match file.metadata() {
        Ok(meta) if meta.is_file() => meta.len(),
        Ok(_) => return PartState::Unreadable(io::Error::other("it is not a regular file")),
        Err(e) => return PartState::Unreadable(e),
    };
    let mut hasher = Hasher::default();
    let mut left = part.size;
    while left > 0 {
        if cancel.is_cancelled() {
            return PartState::Unreadable(io::Error::from(io::ErrorKind::Interrupted));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let mut chunk = vec![0; most];
        let got = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return PartState::Unreadable(e),
        };
        chunk.truncate(got);
        hasher.update(&chunk);
        left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX));
        if !taken(chunk) {
            return PartState::Unreadable(io::Error::from(io::ErrorKind::Interrupted));
        }
    }
    PartState::Read { length, sha256: hasher.finish() }
}

enum Raw {
    Bytes(Vec<u8>),
    End(PartState),
}

enum Plain {
    Bytes(u64, Vec<u8>),
    End { part: usize, reached: u64, state: PartState, undecodable: Option<String> },
}

/// Reads the parts at `wanted` places of the list, and tells the stream of them.
pub(super) fn stream(
    package: &Package,
    wanted: &[usize],
    progress: &dyn Progress,
    cancel: &Cancel,
    mut told: impl FnMut(Event<'_>) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let parts: Vec<(usize, &Part)> = wanted
        .iter()
        .filter_map(|index| package.manifest.parts.get(*index).map(|part| (*index, part)))
        .collect();
    let parts = &parts;
    let (raw_in, raw_out) = sync_channel(4);
    let (plain_in, plain_out) = sync_channel(4);
    thread::scope(|scope| {
        scope.spawn(move || {
            for (_, part) in parts {
                let state = read_part(package, part, cancel, |chunk| raw_in.send(Raw::Bytes(chunk)).is_ok());
                if raw_in.send(Raw::End(state)).is_err() {
                    return;
                }
            }
        });
        scope.spawn(move || {
            for (index, part) in parts {
                if !decode(*index, part, &raw_out, &plain_in) {
                    return;
                }
            }
        });
        // Dropped when this returns, which lets the threads go before the scope waits for them.
        let plain_out = plain_out;
        for plain in &plain_out {
            if cancel.is_cancelled() {
                return Err(PackError::Cancelled);
            }
            match plain {
                Plain::Bytes(at, bytes) => {
                    told(Event::Bytes { at, bytes: &bytes })?;
                    progress.advance(u64::try_from(bytes.len()).unwrap_or(0));
                }
                Plain::End { part, reached, state, undecodable } => {
                    let end = package
                        .manifest
                        .parts
                        .get(part)
                        .map_or(reached, |part| part.stream_offset.saturating_add(part.stream_bytes));
                    if reached < end {
                        told(Event::Gap { part, from: reached, to: end })?;
                        progress.advance(end.saturating_sub(reached));
                    }
                    told(Event::Part { part, state, undecodable })?;
                }
            }
        }
        if cancel.is_cancelled() { Err(PackError::Cancelled) } else { Ok(()) }
    })
}

/// Decompresses one part; `false` where nobody takes it any more.
fn decode(index: usize, part: &Part, raw: &Receiver<Raw>, plain: &SyncSender<Plain>) -> bool {
    let mut input = Input { raw, chunk: Vec::new(), at: 0, end: None };
    let mut reached = part.stream_offset;
    let decoded = decode_all(part, &mut input, plain, &mut reached);
    let undecodable = match decoded {
        Ok(true) => None,
        Ok(false) => return false,
        Err(e) => Some(e.to_string()),
    };
    // What the decoder did not take has to be hashed all the same.
    let Some(state) = input.drain() else { return false };
    plain.send(Plain::End { part: index, reached, state, undecodable }).is_ok()
}

fn decode_all(
    part: &Part,
    input: &mut Input<'_>,
    plain: &SyncSender<Plain>,
    reached: &mut u64,
) -> io::Result<bool> {
    let mut decoder = Decoder::with_buffer(input)?;
    decoder.window_log_max(WINDOW_LOG)?;
    let end = part.stream_offset.saturating_add(part.stream_bytes);
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0_usize;
        // Small frames come in small pieces, and a message for each is dear.
        let read = loop {
            let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) else { break Ok(()) };
            match decoder.read(room) {
                Ok(0) => break Ok(()),
                Ok(got) => filled = filled.saturating_add(got),
                Err(e) => break Err(e),
            }
        };
        let room = usize::try_from(end.saturating_sub(*reached)).unwrap_or(usize::MAX);
        let too_much = filled > room;
        chunk.truncate(filled.min(room));
        let count = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let at = *reached;
        *reached = reached.saturating_add(count);
        if count > 0 && plain.send(Plain::Bytes(at, chunk)).is_err() {
            return Ok(false);
        }
        read?;
        if too_much {
            let most = part.stream_bytes;
            return Err(io::Error::other(format!("it decompresses to more than {most} bytes")));
        }
        if filled == 0 {
            break;
        }
    }
    if *reached < end {
        let (is, should) = (reached.saturating_sub(part.stream_offset), part.stream_bytes);
        return Err(io::Error::other(format!("it decompresses to {is} bytes, and {should} are due")));
    }
    Ok(true)
}

/// The bytes of one part as they come from the reading thread.
struct Input<'a> {
    raw: &'a Receiver<Raw>,
    chunk: Vec<u8>,
    at: usize,
    end: Option<PartState>,
}

impl Input<'_> {
    /// Lets go of what is left of the part; `None` where the reading thread is gone.
    fn drain(mut self) -> Option<PartState> {
        while self.end.is_none() {
            match self.raw.recv() {
                Ok(Raw::Bytes(_)) => {}
                Ok(Raw::End(state)) => self.end = Some(state),
                Err(_) => return None,
            }
        }
        self.end
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(buf)?;
        self.consume(got);
        Ok(got)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at >= self.chunk.len() && self.end.is_none() {
            match self.raw.recv() {
                Ok(Raw::Bytes(chunk)) => {
                    self.chunk = chunk;
                    self.at = 0;
                }
                Ok(Raw::End(state)) => self.end = Some(state),
                Err(_) => return Err(io::Error::other("the part is not read any more")),
            }
        }
        Ok(self.chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount);
    }
}

/// Takes artifacts as the stream gives them.
pub(super) trait Take {
    /// The next bytes of an artifact, from its first one on.
    fn data(&mut self, artifact: usize, bytes: &[u8]) -> Result<(), PackError>;
    /// The artifact has ended: whole, or why not.
    fn end(&mut self, artifact: usize, whole: Result<(), String>) -> Result<(), PackError>;
}

/// Tells which artifact the bytes of the stream are of, and whether each is what its digest says.
///
/// An artifact is ended exactly once, if it is wanted and not empty.
pub(super) struct Tracker<'a> {
    package: &'a Package,
    wanted: Vec<bool>,
    open: Option<(usize, u64, Hasher)>,
    /// What stands between the artifacts and is not what the manifest implies.
    pub(super) odd: Vec<String>,
}

impl<'a> Tracker<'a> {
    pub(super) fn new(package: &'a Package, wanted: Vec<bool>) -> Self {
        Self { package, wanted, open: None, odd: Vec::new() }
    }

    pub(super) fn bytes(&mut self, at: u64, bytes: &[u8], take: &mut dyn Take) -> Result<(), PackError> {
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = self.package.layout.find(at);
            let span = self.package.layout.spans.get(index).copied();
            let border = match span {
                None => u64::MAX,
                Some(span) if at < span.data => span.data,
                Some(span) if at < span.data_end => span.data_end,
                Some(span) => span.end,
            };
            let most = usize::try_from(border.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_checked(most).unwrap_or((rest, &[]));
            match span {
                Some(span) if at < span.data => self.header(index, at.saturating_sub(span.start), piece),
                Some(span) if at < span.data_end => {
                    self.data(index, at.saturating_sub(span.data), piece, take)?;
                }
                _ => self.zeros(at, piece),
            }
            at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            rest = after;
        }
        Ok(())
    }

    fn header(&mut self, index: usize, from: u64, piece: &[u8]) {
        let manifest = &self.package.manifest;
        let (Some(artifact), Some(name)) = (manifest.artifacts.get(index), self.package.names.get(index))
        else {
            return;
        };
        let header = header(artifact.member(name));
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let due = header.get(from..).and_then(|rest| rest.get(..piece.len()));
        if due != Some(piece) {
            self.note(format!("the tar header of {name} is not the one that the manifest implies"));
        }
    }

    fn zeros(&mut self, at: u64, piece: &[u8]) {
        if !is_zero(piece) {
            self.note(format!("the stream has bytes near {at} that belong to no artifact"));
        }
    }

    fn note(&mut self, odd: String) {
        // One damaged place is enough to say; a hostile package has millions.
        if self.odd.len() < 16 && self.odd.last() != Some(&odd) {
            self.odd.push(odd);
        }
    }

    fn data(
        &mut self,
        index: usize,
        offset: u64,
        piece: &[u8],
        take: &mut dyn Take,
    ) -> Result<(), PackError> {
        if !self.wanted.get(index).copied().unwrap_or(false) {
            return Ok(());
        }
        if offset == 0 {
            self.open = Some((index, 0, Hasher::default()));
        }
        let Some((open, next, hasher)) = &mut self.open else { return Ok(()) };
        if *open != index || *next != offset {
            return Ok(());
        }
        hasher.update(piece);
        *next = next.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        let reached = *next;
        take.data(index, piece)?;
        let Some(artifact) = self.package.manifest.artifacts.get(index) else { return Ok(()) };
        if reached < artifact.size {
            return Ok(());
        }
        let Some((_, _, hasher)) = self.open.take() else { return Ok(()) };
        let whole = if hasher.finish() == artifact.sha256 {
            Ok(())
        } else {
            Err("its bytes do not have the digest that the manifest tells".to_owned())
        };
        self.done(index);
        take.end(index, whole)
    }

    fn done(&mut self, index: usize) {
        if let Some(wanted) = self.wanted.get_mut(index) {
            *wanted = false;
        }
    }

    /// Ends every wanted artifact that has bytes between `from` and `to`.
    pub(super) fn gap(
        &mut self,
        from: u64,
        to: u64,
        why: &str,
        take: &mut dyn Take,
    ) -> Result<(), PackError> {
        let layout = &self.package.layout;
        let first = layout.find(from);
        let spans = layout.spans.iter().enumerate().skip(first).take_while(|(_, span)| span.start < to);
        let touched: Vec<usize> = spans
            .filter(|(_, span)| span.data.max(from) < span.data_end.min(to))
            .map(|(index, _)| index)
            .collect();
        for index in touched {
            if self.wanted.get(index).copied().unwrap_or(false) {
                if self.open.as_ref().is_some_and(|(open, ..)| *open == index) {
                    self.open = None;
                }
                self.done(index);
                take.end(index, Err(why.to_owned()))?;
            }
        }
        Ok(())
    }
}

/// True where there is nothing but zeros.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    blocks.iter().all(|block| zero(block)) && zero(rest)
}
