//! `kdt filter`: a dump without the pages that nobody needs, compressed.

mod disk;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vmcore::analysis::subject::Subject;
use vmcore::filter::{self, Class, Classes, FilterError, Level};
use vmcore::format::Codec;
use vmcore::kernel::{self, Kernel};
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::write::{self, FlatSink, Form, Options, Texts, WriteError, Written};

use super::{Context, Run};
use crate::exit::{Exit, Failure, Outcome, io_exit, plain_io};
use crate::output::human;
use crate::output::progress::Piece;
use crate::size::Size;

/// Write a dump without the pages that nobody needs, compressed
///
/// Takes makedumpfile's letters, and writes what crash, drgn and makedumpfile read. What each page was used for is taken from the
/// dumped kernel's own words; a page whose use is not certain is kept. Each page is decoded and compared as it is written, and
/// DST.sha256 holds the digest of the whole file. Exit code 4: pages of the source could not be read, and are marked.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// The dump: of any format that kdt reads
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The new dump; `-`, or none with -F, for a flattened stream on stdout
    #[arg(value_name = "DST")]
    target: Option<PathBuf>,
    /// What is left out, a sum: 1 zeros, 2 page cache, 4 page cache with private data, 8 processes, 16 free; `11,31` tries 31 where
    /// there is no space at 11
    #[arg(short, long, default_value = "31", value_delimiter = ',', value_name = "LEVEL")]
    dump_level: Vec<Level>,
    /// Compress with zlib
    #[arg(short = 'c', group = "codec")]
    zlib: bool,
    /// Compress with lzo, which is the default
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
    /// Write ELF, which is not compressed
    #[arg(short = 'E', group = "codec", conflicts_with = "split")]
    elf: bool,
    /// Write a flattened stream
    #[arg(short = 'F')]
    flattened: bool,
    /// Replace DST where it is there
    #[arg(short = 'f', long)]
    force: bool,
    /// Write a set of N files, DST.1 to DST.N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000), conflicts_with = "flattened")]
    split: Option<u64>,
    /// Write a set of files of which none is larger than S
    #[arg(long, value_name = "S", conflicts_with_all = ["split", "flattened", "elf"])]
    part_size: Option<Size>,
    /// Threads that compress
    #[arg(long, visible_alias = "num-threads", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: Option<u64>,
    /// Do not decode and compare what is written
    #[arg(long)]
    no_verify: bool,
    /// Say how large the dump gets at each level, and write nothing
    #[arg(long, visible_alias = "mem-usage")]
    plan: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Taken for makedumpfile's sake: -q and -v say how much is said
    #[arg(long, value_name = "N", hide = true)]
    message_level: Option<u32>,
}

/// Where the output goes.
enum Target {
    Stdout,
    File(PathBuf),
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let target = self.target()?;
        let dump = Dump::open(&self.source, &OpenOptions::default())?;
        if let Some(Target::File(path)) = &target {
            self.check_target(path)?;
        }
        let progress = context.output.display().piece(&self.source.display().to_string());
        let subject = Subject::new(&dump);
        let watched = kernel::Options::default().watched(&context.cancel, &progress);
        let kernel = Kernel::open(subject.memory, &subject.hints, watched);
        let mut levels = self.dump_level.iter().copied();
        let mut level = levels.next().unwrap_or(Level::MAX);
        loop {
            let classes = self.classify(&dump, &kernel, level, context, &progress)?;
            for note in &classes.notes {
                context.output.warn(note);
            }
            let Some(target) = target.as_ref().filter(|_| !self.plan && !self.dry_run) else {
                return self.tell_plan(&dump, &classes, level, context);
            };
            let job = Job {
                args: &self,
                dump: &dump,
                kernel: &kernel,
                classes: &classes,
                level,
                context,
                progress: &progress,
            };
            match (job.run(target), levels.next()) {
                (Err(failure), Some(next)) if failure.exit == Exit::NoSpace => {
                    context.output.warn(&format!("{}; it is tried again at level {next}", failure.message));
                    level = next;
                }
                (outcome, _) => return outcome,
            }
        }
    }
}

impl Args {
    fn target(&self) -> Result<Option<Target>, Failure> {
        match &self.target {
            Some(path) if path.as_os_str() == "-" => Ok(Some(Target::Stdout)),
            Some(path) => Ok(Some(Target::File(path.clone()))),
            None if self.flattened => Ok(Some(Target::Stdout)),
            None if self.plan || self.dry_run => Ok(None),
            None => Err(Failure::usage(
                "the new dump has no name",
                "name it behind the source, or use -F for a stream on stdout",
            )),
        }
    }

    fn check_target(&self, path: &Path) -> Result<(), Failure> {
        let Ok(meta) = fs::metadata(path) else { return Ok(()) };
        if meta.is_dir() {
            return Err(Failure::usage(
                format!("{} is a directory", path.display()),
                "name the file that the new dump gets",
            ));
        }
        if same_file(path, &self.source) {
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

    fn codec(&self) -> Codec {
        match (self.zlib, self.snappy, self.zstd, self.raw) {
            (true, ..) => Codec::Zlib,
            (_, true, ..) => Codec::Snappy,
            (_, _, true, _) => Codec::Zstd,
            (.., true) => Codec::Raw,
            _ => Codec::Lzo,
        }
    }

    fn jobs(&self) -> usize {
        let there = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        self.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(there)
    }

    fn classify(
        &self,
        dump: &Dump,
        kernel: &Kernel<'_>,
        level: Level,
        context: &Context,
        progress: &Piece,
    ) -> Result<Classes, Failure> {
        // A plan counts every class.
        let wanted = if self.plan { Level::MAX } else { level };
        let (memory, info, limits) = (kernel.memory(), kernel.vmcoreinfo(), Limits::default());
        filter::classify(dump, memory, info, None, wanted, &limits, (&context.cancel, progress)).map_err(
            |why| match why {
                FilterError::Cancelled => Failure::interrupted(),
                why => Failure::new(
                    Exit::Input,
                    format!("{}: {why}", self.source.display()),
                    "compare size and checksum with the original",
                ),
            },
        )
    }

    fn tell_plan(&self, dump: &Dump, classes: &Classes, level: Level, context: &Context) -> Outcome {
        let size = dump.page_size();
        let mut text = format!("{:<14} {:>12} {:>12}\n", "class", "pages", "size");
        for (class, count) in classes.counts.iter() {
            let _ = writeln!(
                text,
                "{:<14} {count:>12} {:>12}",
                class.name(),
                Size::from(count * size).to_string()
            );
        }
        let all: u64 = classes.counts.iter().map(|(_, count)| count).sum();
        let levels = if self.plan { vec![0, 2, 4, 8, 16, 30] } else { vec![level.number()] };
        for number in levels {
            let Some(level) = Level::new(number) else { continue };
            let kept: u64 = classes
                .counts
                .iter()
                .filter(|(class, _)| !level.excludes(*class))
                .map(|(_, count)| count)
                .sum();
            let kept = if all == 0 { classes.kept.len() } else { kept };
            let _ = writeln!(
                text,
                "level {:>2}: {kept} pages kept, {} before compression",
                level.number(),
                Size::from(kept * size)
            );
        }
        context.output.answer(&text)?;
        Ok(Exit::Done)
    }
}

/// One writing.
struct Job<'a> {
    args: &'a Args,
    dump: &'a Dump,
    kernel: &'a Kernel<'a>,
    classes: &'a Classes,
    level: Level,
    context: &'a Context,
    progress: &'a Piece,
}

impl Job<'_> {
    fn run(&self, target: &Target) -> Outcome {
        let texts = self.texts();
        let end = self.dump.end_pfn().0;
        match target {
            Target::Stdout => self.stream(&texts),
            Target::File(path) => {
                let parts = match (self.args.split, self.args.part_size) {
                    (Some(parts), _) => parts,
                    (None, Some(size)) => self.parts_of(size, &texts)?,
                    (None, None) => return self.one(path, &texts, None),
                };
                let mut worst = Exit::Done;
                for (number, range) in (1..).zip(write::cut(self.classes, end, parts)) {
                    let mut name = path.clone().into_os_string();
                    name.push(format!(".{number}"));
                    let path = PathBuf::from(name);
                    self.args.check_target(&path)?;
                    if self.one(&path, &texts, Some(range))? == Exit::Partial {
                        worst = Exit::Partial;
                    }
                }
                Ok(worst)
            }
        }
    }

    /// So many that none can get larger than `size`, even if no page can be compressed.
    fn parts_of(&self, size: Size, texts: &Texts) -> Result<u64, Failure> {
        let page = self.dump.page_size();
        let bitmaps = self.dump.end_pfn().0.div_ceil(8).div_ceil(page) * page * 2;
        let notes = u64::try_from(texts.notes.len()).unwrap_or(0);
        let fixed = bitmaps + notes + 4 * page;
        let each = size.bytes().saturating_sub(fixed) / (page + 24);
        if each == 0 {
            let least = Size::from(fixed + page + 24);
            return Err(Failure::usage(
                format!("a part of {size} has no room for pages: its headers alone take {least}"),
                "choose larger parts",
            ));
        }
        Ok(self.classes.kept.len().div_ceil(each).max(1))
    }

    fn texts(&self) -> Texts {
        let mut texts = Texts::of(self.dump);
        let facts = self.kernel.facts();
        if let Ok(uts) = self.kernel.uts() {
            let names = &mut texts.utsname;
            for (name, told) in [
                (&mut names.sysname, &uts.sysname),
                (&mut names.nodename, &uts.nodename),
                (&mut names.release, &uts.release),
                (&mut names.version, &uts.version),
                (&mut names.machine, &uts.machine),
                (&mut names.domainname, &uts.domainname),
            ] {
                if name.is_empty() {
                    name.clone_from(told);
                }
            }
        }
        if texts.time == (0, 0) {
            texts.time = (facts.crash_time.and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0);
        }
        texts.phys_base = facts.phys_base.unwrap_or(texts.phys_base);
        texts
    }

    fn options(&self, part: Option<Range<u64>>) -> Options {
        let form = if self.args.elf { Form::Elf } else { Form::Kdump(self.args.codec()) };
        Options { form, level: self.level, jobs: self.args.jobs(), verify: !self.args.no_verify, part }
    }

    fn write(
        &self,
        texts: &Texts,
        part: Option<Range<u64>>,
        sink: &mut dyn write::Sink,
    ) -> Result<Written, WriteError> {
        let direct = self.kernel.facts().page_offset;
        let watch = (&self.context.cancel, self.progress as &dyn vmcore::progress::Progress);
        write::write(self.dump, self.classes, texts, direct, &self.options(part), sink, watch)
    }

    fn one(&self, path: &Path, texts: &Texts, part: Option<Range<u64>>) -> Outcome {
        let failure = |error: &io::Error| Failure::io("write", path, error);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new().prefix(".kdt-").suffix(".tmp").tempfile_in(dir);
        let temporary = temporary.map_err(|e| failure(&e))?;
        let file = temporary.as_file();
        let flat = self.args.flattened;
        let (written, synced) = if flat {
            let mut sink = FlatSink::new(BufWriter::with_capacity(1 << 20, file));
            (self.write(texts, part, &mut sink), Ok(()))
        } else {
            disk::while_syncing(file, |sink| self.write(texts, part, sink))
        };
        let written = written.map_err(|why| Self::failed(&path.display().to_string(), why))?;
        synced.map_err(|e| failure(&e))?;
        let digest = disk::sync_and_digest(file).map_err(|e| failure(&e))?;
        let bytes = if flat { file.metadata().map_err(|e| failure(&e))?.len() } else { written.bytes };
        temporary.persist(path).map_err(|e| failure(&e.error))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut side = path.as_os_str().to_owned();
        side.push(".sha256");
        crate::output::file::write(Path::new(&side), &format!("{digest}  {name}\n"), &[&self.args.source])?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failure(&e))?;
        Ok(self.tell(&path.display().to_string(), &written, bytes, &digest))
    }

    fn stream(&self, texts: &Texts) -> Outcome {
        let out = Hashed { to: io::stdout().lock(), hash: Sha256::new(), bytes: 0 };
        let mut sink = FlatSink::new(BufWriter::with_capacity(1 << 20, out));
        let written = self.write(texts, None, &mut sink).map_err(|why| Self::failed("stdout", why))?;
        let out = sink.into_inner().into_inner().map_err(|e| {
            Failure::new(
                io_exit(e.error()),
                format!("can't write to stdout: {}", plain_io(e.error())),
                "run it again",
            )
        })?;
        let digest = hex(&out.hash.finalize());
        Ok(self.tell("stdout", &written, out.bytes, &digest))
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

    fn tell(&self, name: &str, written: &Written, bytes: u64, digest: &str) -> Exit {
        let lost = self.classes.lost + written.unreadable;
        let left_out: u64 = self
            .classes
            .counts
            .iter()
            .filter(|(class, _)| self.level.excludes(*class))
            .map(|(_, count)| count)
            .sum();
        self.context.output.note(&format!(
            "{name}: {}, {} of which {} are zeros; {} left out at level {}; sha256 {digest}",
            Size::from(bytes),
            human::plural(usize::try_from(written.pages).unwrap_or(usize::MAX), "page"),
            written.zero_pages,
            left_out,
            self.level
        ));
        let unknown = self.classes.counts.get(Class::Unknown);
        if self.context.output.settings().verbose > 0 {
            for (class, count) in self.classes.counts.iter() {
                self.context.output.note(&format!("{}: {count} pages", class.name()));
            }
            self.context.output.note(&format!("{unknown} pages were kept because their use is not certain"));
        }
        if lost == 0 {
            return Exit::Done;
        }
        let why = written.first_unreadable.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        self.context.output.warn(&format!(
            "{lost} pages of {} can't be read, and {name} says that they are missing{why}",
            self.args.source.display()
        ));
        Exit::Partial
    }
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}
