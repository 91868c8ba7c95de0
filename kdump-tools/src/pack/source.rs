//! Reads the artifacts once, front to back, as one tar stream, and hashes each on the way.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{Advice, Mode, OFlags};

use super::digest::{Digest, Hasher};
use super::error::PackError;
use super::layout::header;
use super::plan::{PackPlan, Planned, Stamp};

/// The tar stream of a plan, from any place on.
pub(super) struct TarSource<'a> {
    plan: &'a PackPlan,
    /// The artifact that is being read; the count of artifacts in the trailer.
    index: usize,
    phase: Phase,
}

enum Phase {
    /// The bytes before an artifact's own, and how many of them were given.
    Header(Vec<u8>, usize),
    Data(Box<Reading>),
    /// Zeros that are still to come, after an artifact or at the end.
    Zeros(u64),
}

struct Reading {
    file: File,
    hasher: Hasher,
    at: u64,
    left: u64,
}

/// Whether a phase has ended.
enum Step {
    /// It has not.
    Stay,
    /// It has.
    Next,
    /// It has, and with it an artifact.
    Ended(Finished),
}

/// An artifact that was read to its end, and its digest.
pub(super) type Finished = (usize, Digest);

impl<'a> TarSource<'a> {
    /// Starts at byte `from` of the stream. The artifact that `from` lies in is read and hashed again up to
    /// there.
    pub(super) fn new(plan: &'a PackPlan, from: u64, stop: &dyn Fn() -> bool) -> Result<Self, PackError> {
        let index = plan.layout.find(from);
        let mut source = Self { plan, index, phase: Phase::Zeros(0) };
        let (Some(span), Some(artifact)) = (plan.layout.spans.get(index), plan.artifacts.get(index)) else {
            source.phase = Phase::Zeros(plan.layout.total.saturating_sub(from));
            return Ok(source);
        };
        if from < span.data {
            let given = usize::try_from(from.saturating_sub(span.start)).unwrap_or(usize::MAX);
            source.phase = Phase::Header(source.header(), given);
        } else if from < span.data_end {
            let mut reading = Reading::open(artifact)?;
            reading.skip(artifact, from.saturating_sub(span.data), stop)?;
            source.phase = Phase::Data(Box::new(reading));
        } else {
            source.phase = Phase::Zeros(span.end.saturating_sub(from));
        }
        Ok(source)
    }

    fn header(&self) -> Vec<u8> {
        self.plan.member(self.index).map(header).unwrap_or_default()
    }

    /// Fills `buf` to its end with the next bytes of the stream, which has that many, and tells which
    /// artifacts ended in them.
    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<Vec<Finished>, PackError> {
        let mut finished = Vec::new();
        let mut at = 0_usize;
        while let Some(room) = buf.get_mut(at..).filter(|room| !room.is_empty()) {
            at = at.saturating_add(self.give(room)?);
            // Steps on without waiting for the next call: an artifact has ended with its last byte.
            loop {
                match self.step()? {
                    Step::Stay => break,
                    Step::Next => {}
                    Step::Ended(done) => finished.push(done),
                }
            }
        }
        Ok(finished)
    }

    /// Gives at least one byte, or none at the end of a phase.
    fn give(&mut self, room: &mut [u8]) -> Result<usize, PackError> {
        match &mut self.phase {
            Phase::Header(bytes, given) => {
                let rest = bytes.get(*given..).unwrap_or_default();
                let count = copy_start(room, rest);
                *given = given.saturating_add(count);
                Ok(count)
            }
            Phase::Data(reading) => {
                let artifact = self.plan.artifacts.get(self.index);
                artifact.map_or(Ok(0), |artifact| reading.read(artifact, room))
            }
            Phase::Zeros(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(room.len());
                room.get_mut(..count).unwrap_or_default().fill(0);
                *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                Ok(count)
            }
        }
    }

    /// Goes to the next phase if this one has ended.
    fn step(&mut self) -> Result<Step, PackError> {
        match &self.phase {
            Phase::Header(bytes, given) if *given >= bytes.len() => {
                let Some(artifact) = self.plan.artifacts.get(self.index) else { return Ok(Step::Stay) };
                self.phase = Phase::Data(Box::new(Reading::open(artifact)?));
                Ok(Step::Next)
            }
            Phase::Data(reading) if reading.left == 0 => {
                let (Some(artifact), Some(span)) =
                    (self.plan.artifacts.get(self.index), self.plan.layout.spans.get(self.index))
                else {
                    return Ok(Step::Stay);
                };
                let padding = Phase::Zeros(span.end.saturating_sub(span.data_end));
                let Phase::Data(reading) = std::mem::replace(&mut self.phase, padding) else {
                    return Ok(Step::Stay);
                };
                Ok(Step::Ended((self.index, reading.finish(artifact)?)))
            }
            Phase::Zeros(0) if self.index < self.plan.artifacts.len() => {
                self.index = self.index.saturating_add(1);
                self.phase = match self.plan.layout.spans.get(self.index) {
                    Some(_) => Phase::Header(self.header(), 0),
                    None => Phase::Zeros(1024),
                };
                Ok(Step::Next)
            }
            _ => Ok(Step::Stay),
        }
    }
}

fn copy_start(to: &mut [u8], from: &[u8]) -> usize {
    let count = to.len().min(from.len());
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    count
}

impl Reading {
    fn open(artifact: &Planned) -> Result<Self, PackError> {
        let file = open_file(&artifact.path).map_err(|source| PackError::Source {
            path: artifact.path.clone(),
            at: None,
            source,
        })?;
        check_unchanged(artifact, &file)?;
        // Reading ahead is a kindness; a file system that does not do it is no fault.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { file, hasher: Hasher::default(), at: 0, left: artifact.size })
    }

    fn read(&mut self, artifact: &Planned, room: &mut [u8]) -> Result<usize, PackError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(room.len());
        let room = room.get_mut(..most).unwrap_or_default();
        let got = loop {
            match self.file.read(room) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(PackError::Source { path: artifact.path.clone(), at: Some(self.at), source });
                }
                Ok(got) => break got,
            }
        };
        if got == 0 && most > 0 {
            let why = format!("it had {} bytes, and ends at {} now", artifact.size, self.at);
            return Err(PackError::SourceChanged { path: artifact.path.clone(), why });
        }
        self.hasher.update(room.get(..got).unwrap_or_default());
        let count = u64::try_from(got).unwrap_or(u64::MAX);
        self.at = self.at.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        Ok(got)
    }

    fn skip(&mut self, artifact: &Planned, bytes: u64, stop: &dyn Fn() -> bool) -> Result<(), PackError> {
        let mut buf = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            if stop() {
                return Err(PackError::Cancelled);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let got = self.read(artifact, buf.get_mut(..most).unwrap_or_default())?;
            left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// The digest, if the file is still the one that was planned and has no byte more.
    fn finish(mut self, artifact: &Planned) -> Result<Digest, PackError> {
        check_unchanged(artifact, &self.file)?;
        // Files of /proc tell a size of 0 and have bytes.
        let mut more = [0];
        let more = self.file.seek(SeekFrom::Start(self.at)).and_then(|_| self.file.read(&mut more));
        if more.is_ok_and(|more| more > 0) {
            let why = format!("it says that it has {} bytes, and has more", artifact.size);
            return Err(PackError::SourceChanged { path: artifact.path.clone(), why });
        }
        Ok(self.hasher.finish())
    }
}

/// Opens a file that was a regular one when it was looked at. A pipe that came in its place does not make
/// this wait, and is found by its inode.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn check_unchanged(artifact: &Planned, file: &File) -> Result<(), PackError> {
    let meta = file.metadata().map_err(|source| PackError::Source {
        path: artifact.path.clone(),
        at: None,
        source,
    })?;
    match artifact.stamp.difference(&Stamp::of(&meta)) {
        Some(why) => Err(PackError::SourceChanged { path: artifact.path.clone(), why }),
        None => Ok(()),
    }
}
