//! Gives a new dump its final name: what every command that writes dumps shares.
//!
//! The dump is written under a temporary name, digested as it lies on the disk, synced, and only then named. A stream on stdout is
//! digested as it goes by.

mod disk;
mod plan;
pub(super) mod scrub;
mod spool;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vmcore::addr::{KVirtAddr, Pfn};
use vmcore::distill;
use vmcore::filter::{Classes, Level, Selection};
use vmcore::format::Codec;
use vmcore::limits::Limits;
use vmcore::mem::{Dump, PhysicalMemory};
use vmcore::report::CanarySearch;
use vmcore::write::{self, Effort, FlatSink, Form, Options, Reuse, Texts, WriteError, Written};

pub(super) use plan::Plan;
pub(super) use spool::Source;

use self::scrub::{Scrub, Scrubbing};
use super::Context;
use crate::exit::{Exit, Failure, io_exit, plain_io};
use crate::output::progress::Piece;
use crate::size::Size;

/// The codec.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Letters {
    /// Compress with zlib
    #[arg(short = 'c', group = "codec")]
    zlib: bool,
    /// Compress with lzo
    #[arg(short = 'l', group = "codec")]
    lzo: bool,
    /// Compress with snappy
    #[arg(short = 'p', group = "codec")]
    snappy: bool,
    /// Compress with zstd
    #[arg(short = 'z', group = "codec")]
    zstd: bool,
    /// Do not compress
    #[arg(long, group = "codec")]
    raw: bool,
}

/// What is taken care of.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Care {
    /// Replace DST where it is there
    #[arg(short = 'f', long)]
    pub(super) force: bool,
    /// Threads that compress
    #[arg(long, visible_alias = "num-threads", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: Option<u64>,
    /// Do not decode and compare what is written
    #[arg(long)]
    no_verify: bool,
    /// Write no DST.sha256 beside it
    #[arg(long)]
    no_digest: bool,
    /// Keep no DST-incomplete where there is no room for all
    #[arg(long, hide = true)]
    no_incomplete: bool,
}

/// How the new dump is written.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Shape {
    #[command(flatten)]
    pub(super) letters: Letters,
    /// Write ELF, which is not compressed
    #[arg(short = 'E', group = "codec", conflicts_with = "split")]
    pub(super) elf: bool,
    /// Write a flattened stream
    #[arg(short = 'F')]
    pub(super) flattened: bool,
    /// Write a set of N files, DST.1 to DST.N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000), conflicts_with = "flattened")]
    pub(super) split: Option<u64>,
    /// Write a set of files of which none is larger than S
    #[arg(long, value_name = "S", conflicts_with_all = ["split", "flattened", "elf"])]
    pub(super) part_size: Option<Size>,
    /// End the new dump at this size: pages for which there is no room are marked as missing
    #[arg(long, value_name = "S", conflicts_with_all = ["split", "part_size", "elf"])]
    pub(super) limit: Option<Size>,
    #[command(flatten)]
    pub(super) care: Care,
    #[command(flatten)]
    pub(super) scrubbing: Scrubbing,
}

/// Where the output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A flattened stream.
    Stdout,
    /// A file, or the beginning of the names of a set.
    File(PathBuf),
    /// The files of a set.
    Set(Vec<PathBuf>),
}

impl Target {
    /// The files that it names.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let paths = match self {
            Self::Stdout => &[],
            Self::File(path) => std::slice::from_ref(path),
            Self::Set(paths) => paths.as_slice(),
        };
        paths.iter().map(PathBuf::as_path)
    }

    /// What the words of the command line mean; `None` where no file is named.
    #[must_use]
    pub(super) fn named(path: Option<&Path>, shape: &Shape) -> Option<Self> {
        match path {
            Some(path) if path.as_os_str() == "-" => Some(Self::Stdout),
            Some(path) => Some(Self::File(path.to_owned())),
            None if shape.flattened => Some(Self::Stdout),
            None => None,
        }
    }
}

impl Letters {
    /// True where one was asked for.
    #[must_use]
    pub(super) fn any(&self) -> bool {
        self.zlib || self.lzo || self.snappy || self.zstd || self.raw
    }

    /// The codec that was asked for.
    #[must_use]
    pub(super) fn codec(&self, default: Codec) -> Codec {
        match (self.zlib, self.lzo, self.snappy, self.zstd, self.raw) {
            (true, ..) => Codec::Zlib,
            (_, true, ..) => Codec::Lzo,
            (_, _, true, ..) => Codec::Snappy,
            (_, _, _, true, _) => Codec::Zstd,
            (.., true) => Codec::Raw,
            _ => default,
        }
    }
}

impl Shape {
    /// The form that was asked for, with `default` where no codec was.
    #[must_use]
    pub(super) fn form(&self, default: Codec) -> Form {
        if self.elf { Form::Elf } else { Form::Kdump(self.letters.codec(default)) }
    }
}

impl Care {
    /// How many threads compress.
    #[must_use]
    pub(super) fn jobs(&self) -> usize {
        let there = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        self.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(there)
    }

    /// Refuses what would destroy something.
    ///
    /// # Errors
    /// Where the target is a directory, the source, or there already.
    pub(super) fn check(&self, path: &Path, sources: &[&Path]) -> Result<(), Failure> {
        let Ok(meta) = fs::metadata(path) else { return Ok(()) };
        if meta.is_dir() {
            return Err(Failure::usage(
                format!("{} is a directory", path.display()),
                "name the file that the new dump gets",
            ));
        }
        if sources.iter().any(|source| same_file(path, source)) {
            return Err(Failure::usage(
                format!("{} is the source: a source is never changed", path.display()),
                "choose another name for the new dump",
            ));
        }
        if !self.force && meta.is_file() {
            return Err(Failure::usage(
                format!("{} is there already", path.display()),
                "choose another name, or replace it with -f",
            ));
        }
        Ok(())
    }
}

/// A file or a stream that was written.
#[derive(Debug)]
pub(super) struct Done {
    /// Its name.
    pub(super) name: String,
    /// What is in it.
    pub(super) written: Written,
    /// Its length.
    pub(super) bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub(super) digest: String,
    /// What was found when it was read back; `None` where it was not.
    pub(super) proof: Option<CanarySearch>,
}

/// One writing.
pub(super) struct Writing<'a> {
    /// How.
    pub(super) shape: &'a Shape,
    /// The form.
    pub(super) form: Form,
    /// Which pages are taken over as they are stored.
    pub(super) reuse: Reuse,
    /// How much work a page is worth.
    pub(super) effort: Effort,
    /// The files that `dump` was opened from.
    pub(super) sources: &'a [&'a Path],
    /// The source.
    pub(super) dump: &'a Dump,
    /// Where the direct map of the kernel in it begins, where that is known.
    pub(super) direct: Option<KVirtAddr>,
    /// Which frames are kept.
    pub(super) classes: &'a Classes,
    /// What the header says of those that are not.
    pub(super) level: Level,
    /// What the dump says beside its pages.
    pub(super) texts: &'a Texts,
    /// What is erased, and what must not be there.
    pub(super) scrub: Option<&'a Scrub>,
    /// The streams.
    pub(super) context: &'a Context,
    /// Who is told.
    pub(super) progress: &'a Piece,
    /// Whether a dump that the space does not do for is kept as far as it got: not where another try needs the space.
    pub(super) keep_incomplete: bool,
}

impl Writing<'_> {
    /// Writes to `target`: one file, a set of them or a stream. The first failure ends it; files that were finished before stay.
    ///
    /// # Errors
    /// What stopped it, with the exit code and the next step.
    pub(super) fn run(&self, target: &Target) -> Result<Vec<Done>, Failure> {
        let end = self.dump.end_pfn().0;
        match target {
            Target::Stdout => Ok(vec![self.stream()?]),
            Target::File(path) => {
                let parts = match (self.shape.split, self.shape.part_size) {
                    (Some(parts), _) => parts,
                    (None, Some(size)) => self.parts_of(size)?,
                    (None, None) => return Ok(vec![self.one(path, None)?]),
                };
                (1..)
                    .zip(write::cut(self.classes, end, parts))
                    .map(|(number, range): (u64, _)| {
                        let mut name = path.clone().into_os_string();
                        name.push(format!(".{number}"));
                        let path = PathBuf::from(name);
                        self.shape.care.check(&path, self.sources)?;
                        self.one(&path, Some(range))
                    })
                    .collect()
            }
            Target::Set(paths) => {
                // Each name gets its file, though there may be fewer frames than names.
                let count = u64::try_from(paths.len()).unwrap_or(1);
                let mut ranges = write::cut(self.classes, end, count);
                ranges.resize(paths.len(), end..end);
                paths.iter().zip(ranges).map(|(path, range)| self.one(path, Some(range))).collect()
            }
        }
    }

    /// So many that none can get larger than `size`, even if no page can be compressed.
    fn parts_of(&self, size: Size) -> Result<u64, Failure> {
        let page = self.dump.page_size();
        let bitmaps = self.dump.end_pfn().0.div_ceil(8).div_ceil(page) * page * 2;
        let notes = u64::try_from(self.texts.notes.len()).unwrap_or(0);
        let fixed = bitmaps + notes + 4 * page;
        // A part may get that many more than its share.
        let each = (size.bytes().saturating_sub(fixed) / (page + 24)).saturating_sub(write::PART_ALIGN);
        if each == 0 {
            let least = Size::from(fixed + (write::PART_ALIGN + 1) * (page + 24));
            return Err(Failure::usage(
                format!("a part of {size} has no room for pages: its headers alone take {least}"),
                "choose larger parts",
            ));
        }
        Ok(self.classes.kept.len().div_ceil(each).max(1))
    }

    fn options(&self, part: Option<Range<u64>>, first: Vec<Selection>) -> Options {
        let care = &self.shape.care;
        Options {
            effort: self.effort,
            jobs: care.jobs(),
            verify: !care.no_verify,
            part,
            first,
            reuse: self.reuse,
            share_zeros: self.reuse != Reuse::None,
            blanks: self.scrub.map(|scrub| Arc::clone(&scrub.plan.blanks)),
            limit: self.shape.limit.map(Size::bytes),
            ..Options::new(self.form, self.level)
        }
    }

    fn write(&self, options: &Options, sink: &mut dyn write::Sink) -> Result<Written, WriteError> {
        let watch = (&self.context.cancel, self.progress as &dyn vmcore::progress::Progress);
        write::write(self.dump, self.classes, self.texts, self.direct, options, sink, watch)
    }

    /// Whether what found room is kept where that is not all. Not where something is erased: a part proves nothing of the rest.
    fn keeps_incomplete(&self) -> bool {
        self.keep_incomplete && self.scrub.is_none() && !self.shape.care.no_incomplete
    }

    /// What is written first where there may not be room for all: nothing where there surely is, because it takes a while to find.
    fn first(&self, dir: &Path, part: Option<&Range<u64>>) -> Vec<Selection> {
        let frames = part.cloned().unwrap_or(0..self.dump.end_pfn().0);
        let most = self.classes.kept.count(frames).saturating_mul(self.dump.page_size() + 24);
        let in_order = self.form == Form::Image || self.shape.flattened;
        let limit = self.shape.limit.map(Size::bytes);
        let room = if self.keeps_incomplete() { Some(disk::room(dir)) } else { None };
        // One that is not there leaves the other.
        let room = room.into_iter().chain(limit).min().unwrap_or(u64::MAX);
        if in_order || room > most {
            return Vec::new();
        }
        let limits = Limits::default();
        let first = distill::first(self.dump, &limits, self.progress, &self.context.cancel);
        first.iter().map(|frames| selection(frames)).collect()
    }

    fn one(&self, path: &Path, part: Option<Range<u64>>) -> Result<Done, Failure> {
        let failure = |error: &io::Error| Failure::io("write", path, error);
        let temporary = Temporary::beside(path)?;
        let file = temporary.file();
        let flat = self.shape.flattened;
        let first = self.first(folder(path), part.as_ref());
        let options = self.options(part, first);
        let (written, synced) = if flat {
            let mut sink = FlatSink::new(BufWriter::with_capacity(1 << 20, file));
            (self.write(&options, &mut sink), Ok(()))
        } else {
            disk::while_syncing(file, |sink| self.write(&options, sink))
        };
        let written = written.map_err(|why| Self::failed(&path.display().to_string(), why))?;
        synced.map_err(|e| failure(&e))?;
        if written.no_room > 0 && !self.keeps_incomplete() {
            let kept = if self.scrub.is_some() {
                "; an incomplete dump is not kept where something is erased"
            } else {
                ""
            };
            return Err(Failure::new(
                Exit::NoSpace,
                format!("there is no room for {}", path.display()),
                format!("{}{kept}", self.more_room()),
            ));
        }
        let bytes = if flat { file.metadata().map_err(|e| failure(&e))?.len() } else { written.bytes };
        if written.no_room > 0 {
            return Err(self.incomplete(temporary, path, &written, !options.first.is_empty()));
        }
        // The name comes behind the proof: what still holds a secret never gets it.
        let proof = match self.scrub {
            Some(scrub) => Some(scrub.prove(
                temporary.path(),
                &path.display().to_string(),
                self.context,
                self.progress,
            )?),
            None => None,
        };
        let digest = temporary.name(path, self.sources, &self.shape.care)?;
        Ok(Done { name: path.display().to_string(), written, bytes, digest, proof })
    }

    /// What to do where there is no room.
    fn more_room(&self) -> &'static str {
        if self.reuse == Reuse::None && self.level != Level::MAX {
            "free some space, or use a higher level with -d"
        } else {
            "free some space, or choose another place"
        }
    }

    /// Names a dump that found no room for all of its pages `DST-incomplete`, as kdump does, and says what is in it.
    fn incomplete(&self, temporary: Temporary, path: &Path, written: &Written, sorted: bool) -> Failure {
        let digest = match disk::sync_and_digest(temporary.file()) {
            Ok(digest) => digest,
            Err(e) => return Failure::io("write", path, &e),
        };
        let mut temporary = temporary.0;
        let names = (1..100).map(|n| match n {
            1 => with_suffix(path, "-incomplete"),
            n => with_suffix(path, &format!("-incomplete.{n}")),
        });
        // An earlier one may be all that there is of another crash.
        for name in names {
            let kept = if self.shape.care.force {
                temporary.persist(&name)
            } else {
                temporary.persist_noclobber(&name)
            };
            match kept {
                Ok(_) => {
                    let beside = digest_beside(&name, &digest, self.sources, &self.shape.care);
                    if beside.is_err() {
                        self.context.output.warn(&format!(
                            "there was no room for {}.sha256 either; it would say {digest}",
                            name.display()
                        ));
                    }
                    let all = written.pages + written.no_room + written.unreadable;
                    let order = if sorted {
                        ", those first that the log, the tasks and the symbols are in"
                    } else {
                        ""
                    };
                    return Failure::new(
                        Exit::NoSpace,
                        format!(
                            "there is no room for all of {}: {} has {} of {all} pages{order}, and its header says that it is incomplete",
                            path.display(),
                            name.display(),
                            written.pages,
                        ),
                        format!(
                            "what is in it can be used: kdt triage {}; for all of it {}",
                            name.display(),
                            self.more_room()
                        ),
                    );
                }
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => temporary = e.file,
                Err(e) => return Failure::io("name", &name, &e.error),
            }
        }
        Failure::io("name", &with_suffix(path, "-incomplete"), &io::ErrorKind::AlreadyExists.into())
    }

    fn stream(&self) -> Result<Done, Failure> {
        let out = Hashed { to: io::stdout().lock(), hash: Sha256::new(), bytes: 0 };
        let mut sink = FlatSink::new(BufWriter::with_capacity(1 << 20, out));
        let written = self.write(&self.options(None, Vec::new()), &mut sink);
        let written = written.map_err(|why| Self::failed("stdout", why))?;
        let out = sink.into_inner().into_inner().map_err(|e| {
            Failure::new(
                io_exit(e.error()),
                format!("can't write to stdout: {}", plain_io(e.error())),
                "run it again",
            )
        })?;
        let digest = hex::encode(out.hash.finalize());
        Ok(Done { name: "stdout".into(), written, bytes: out.bytes, digest, proof: None })
    }

    fn failed(name: &str, why: WriteError) -> Failure {
        match why {
            WriteError::Cancelled => Failure::interrupted(),
            WriteError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Failure::new(
                Exit::Partial,
                format!(
                    "{name} was closed before the whole dump was written: what its reader has is no dump"
                ),
                "look why the reader ended, and run it again",
            ),
            WriteError::Io { at, source } => Failure::new(
                match io_exit(&source) {
                    Exit::Input => Exit::Partial,
                    exit => exit,
                },
                format!("can't write {name} at offset {at:#x}: {}", plain_io(&source)),
                "free some space, or use a higher level with -d; nothing was left under that name",
            ),
            why @ WriteError::Verify { .. } => Failure::new(
                Exit::Verify,
                format!("{name}: {why}"),
                "check this machine's memory, and run it again",
            ),
            why => {
                Failure::new(Exit::Input, format!("{name}: {why}"), "choose another form for the new dump")
            }
        }
    }
}

/// How it ended, and what is said where pages of the source are missing: `lost` that were so before, and those that can't be read.
#[must_use]
pub(super) fn ending(done: &[Done], lost: u64, source: &Path, context: &Context) -> Exit {
    let unreadable: u64 = done.iter().map(|done| done.written.unreadable).sum();
    let cut_off: u64 = done.iter().map(|done| done.written.cut_off).sum();
    if cut_off > 0 {
        context.output.warn(&format!(
            "the size that was allowed leaves no room for {cut_off} pages, which are marked as missing"
        ));
    }
    let misplaced = done.iter().any(|done| done.written.misplaced > 0);
    if misplaced {
        context.output.warn(&format!(
            "the bitmap of {} is damaged: pages were written as those of other frames; kdt info says more",
            source.display()
        ));
    }
    if lost + unreadable == 0 {
        return if cut_off > 0 || misplaced { Exit::Partial } else { Exit::Done };
    }
    let why = done.iter().find_map(|done| done.written.first_unreadable.as_ref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let name = done.first().map_or("the new dump", |done| &done.name);
    context.output.warn(&format!(
        "{} pages of {} can't be read, and {name} says that they are missing{why}",
        lost + unreadable,
        source.display()
    ));
    Exit::Partial
}

/// Counts and digests what goes through.
struct Hashed<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.bytes += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A file that has no name yet, in the folder that it gets its name in.
pub(super) struct Temporary(tempfile::NamedTempFile);

impl Temporary {
    /// One beside `path`.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn beside(path: &Path) -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix(".kdt-").suffix(".tmp").tempfile_in(folder(path));
        made.map(Self).map_err(|e| Failure::io("write", path, &e))
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.0.as_file()
    }

    /// What it is called until it has its name.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Brings it to the disk, digests it, and gives it its name, with its digest in a file beside it where that is wanted.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn name(self, path: &Path, sources: &[&Path], care: &Care) -> Result<String, Failure> {
        let failure = |error: &io::Error| Failure::io("write", path, error);
        let digest = disk::sync_and_digest(self.file()).map_err(|e| failure(&e))?;
        self.0.persist(path).map_err(|e| failure(&e.error))?;
        digest_beside(path, &digest, sources, care)?;
        File::open(folder(path)).and_then(|dir| dir.sync_all()).map_err(|e| failure(&e))?;
        Ok(digest)
    }
}

/// Puts the digest beside a dump, where that is wanted.
fn digest_beside(path: &Path, digest: &str, sources: &[&Path], care: &Care) -> Result<(), Failure> {
    if care.no_digest {
        return Ok(());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    crate::output::file::write(&with_suffix(path, ".sha256"), &format!("{digest}  {name}\n"), sources)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Runs of first and count as a set.
fn selection(frames: &[(Pfn, u64)]) -> Selection {
    let mut set = Selection::default();
    for (first, count) in frames {
        set.insert_all(first.0..first.0.saturating_add(*count));
    }
    set
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}
