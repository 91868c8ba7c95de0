//! `kdt join`: one seekable file from the parts of a split set, or from a flattened stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vmcore::filter::Level;
use vmcore::format::Codec;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::source::Flattened;
use vmcore::write::{Effort, FileSink, Form, RearrangeError, Reuse, Texts, rearrange};

use super::convert::frames;
use super::opened::Opened;
use super::writing::{self, Care, Shape, Target, Temporary, Writing};
use super::{Context, Run};
use crate::exit::{Exit, Failure, Outcome, io_exit, plain_io};
use crate::output::human;
use crate::size::Size;

/// Make one file of the parts of a split set, or of a flattened stream
///
/// Takes parts in any order. Each page is taken over as it is stored, and decoded once to see that it can be. Where a part is not
/// named, its pages are marked as missing, and the exit code is 4. Of a stream, every byte goes where it belongs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The parts; or one flattened stream, `-` for stdin
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// The new dump
    #[arg(required = true, value_name = "DST")]
    target: PathBuf,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    care: Care,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let sources: Vec<&Path> = self.parts.iter().map(PathBuf::as_path).collect();
        self.care.check(&self.target, &sources)?;
        if let [only] = &sources[..]
            && only.as_os_str() == "-"
        {
            return self.stream("stdin", &mut io::stdin().lock(), context);
        }
        let opened = Opened::open(&self.parts)?;
        let dump = opened.dump();
        let facts = dump.facts();
        if facts.parts.is_empty() {
            // Of a stream that was cut, a kdump can say which pages never arrived: it is written anew.
            let anew = facts.format == "kdump-compressed" && !dump.completeness().is_complete();
            return match &sources[..] {
                [only] if is_stream(only) && !anew => {
                    let failure = |e: &io::Error| Failure::io("read", only, e);
                    let mut file = File::open(only).map_err(|e| failure(&e))?;
                    self.stream(&only.display().to_string(), &mut file, context)
                }
                [only] if is_stream(only) => self.set(&opened, &sources, context),
                _ => Err(Failure::usage(
                    format!("{} is a whole dump: there is nothing to join", opened.name()),
                    "kdt convert changes the container of a dump",
                )),
            };
        }
        self.set(&opened, &sources, context)
    }
}

/// True for a file that begins as a flattened stream does.
fn is_stream(path: &Path) -> bool {
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(16).read_to_end(&mut head)).is_ok() && Flattened::detect(&head)
}

impl Args {
    fn set(&self, opened: &Opened, sources: &[&Path], context: &Context) -> Outcome {
        let dump = opened.dump();
        let missing = opened.split().map(|split| split.missing).unwrap_or_default();
        for range in &missing {
            context.output.warn(&format!(
                "no part was named that has the frames {:#x} to {:#x}: the pages there are marked as missing",
                range.start_pfn, range.end_pfn
            ));
        }
        let mut classes = frames(dump, &context.cancel)?;
        classes.keep_missing();
        if self.dry_run {
            let pages = dump.completeness().present_pages;
            context.output.answer(&format!(
                "{}: {} of {}, and {} that are missing\n",
                self.target.display(),
                human::plural(usize::try_from(pages).unwrap_or(usize::MAX), "page"),
                opened.what(),
                dump.completeness().lost_pages
            ))?;
            return Ok(if missing.is_empty() { Exit::Done } else { Exit::Partial });
        }
        let progress = context.output.display().piece(&opened.name());
        let codecs = &dump.facts().codecs;
        let codec = codecs.iter().copied().find(|codec| *codec != Codec::Raw).unwrap_or(Codec::Raw);
        let shape = Shape { care: self.care.clone(), ..Shape::default() };
        let writing = Writing {
            scrub: None,
            shape: &shape,
            form: Form::Kdump(codec),
            reuse: Reuse::All,
            effort: Effort::Fast,
            sources,
            dump,
            direct: None,
            classes: &classes,
            level: Level::default(),
            texts: &Texts::of(dump),
            context,
            progress: &progress,
            keep_incomplete: false,
        };
        let done = writing.run(&Target::File(self.target.clone()))?;
        for one in &done {
            context.output.note(&format!(
                "{}: {}, {} of {}; sha256 {}",
                one.name,
                Size::from(one.bytes),
                human::plural(usize::try_from(one.written.pages).unwrap_or(usize::MAX), "page"),
                human::plural(dump.paths().len(), "file"),
                one.digest
            ));
        }
        let exit = writing::ending(&done, 0, dump.path(), context);
        Ok(if missing.is_empty() { exit } else { Exit::Partial })
    }

    /// What `makedumpfile -R` does: the same bytes, each where it belongs.
    fn stream(&self, name: &str, from: &mut dyn Read, context: &Context) -> Outcome {
        if self.dry_run {
            context.output.answer(&format!("{}: the dump in {name}\n", self.target.display()))?;
            return Ok(Exit::Done);
        }
        let temporary = Temporary::beside(&self.target)?;
        let cancelled = || context.cancel.is_cancelled();
        let done = rearrange(from, &mut FileSink(temporary.file()), &cancelled).map_err(|why| match why {
            RearrangeError::Cancelled => Failure::interrupted(),
            RearrangeError::Write { source, .. } => Failure::io("write", &self.target, &source),
            RearrangeError::Read { source, at } => Failure::new(
                io_exit(&source),
                format!("{name} can't be read at offset {at:#x}: {}", plain_io(&source)),
                "check the medium that it lies on",
            ),
            why => Failure::new(
                Exit::Input,
                format!("{name} {why}"),
                "give the stream that makedumpfile -F or kdt filter -F wrote; kdt info says what a file is",
            ),
        })?;
        let dump = Dump::open(temporary.path(), &OpenOptions::default()).map_err(|error| {
            Failure::new(
                Exit::Input,
                format!("what {name} holds is of no use: it {}", error.kind),
                "compare size and checksum with the original",
            )
        })?;
        let whole = dump.completeness().is_complete();
        let pages = dump.completeness().present_pages;
        let frames = dump.end_pfn();
        drop(dump);
        let sources: Vec<&Path> = self.parts.iter().map(PathBuf::as_path).collect();
        let digest = temporary.name(&self.target, &sources, &self.care)?;
        context.output.note(&format!(
            "{}: {}, {} below {frames}; sha256 {digest}",
            self.target.display(),
            Size::from(done.bytes),
            human::plural(usize::try_from(pages).unwrap_or(usize::MAX), "page"),
        ));
        if let Some(cut) = &done.cut {
            context.output.warn(&format!("{name} {cut}: what should follow is missing in the dump"));
        } else if !whole {
            context.output.warn(&format!("the dump in {name} is not whole: kdt info says what is missing"));
        }
        Ok(if whole && done.cut.is_none() { Exit::Done } else { Exit::Partial })
    }
}
