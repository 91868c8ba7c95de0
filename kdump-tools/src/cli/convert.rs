//! `kdt convert`: the same dump in another container, with every page that the source has.

use std::path::PathBuf;

use vmcore::analysis::subject::Subject;
use vmcore::filter::{self, Classes, Level};
use vmcore::format::Codec;
use vmcore::kernel::{self, Kernel};
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::progress::Cancel;
use vmcore::write::{Effort, Form, Reuse, Texts};

use super::writing::{self, Care, Letters, Shape, Target, Writing};
use super::{Context, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::human;
use crate::size::Size;

/// Change the container of a dump, and keep every page that it has
///
/// Pages that were left out stay left out, pages that are lost are marked as missing (exit code 4). A guest's dump without VMCOREINFO
/// gets that of the kernel that is found in it; of an image with two kernels, that of the one that crashed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump: of any format that kdt reads
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The new dump; `-` for a flattened stream on stdout
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// elf; kdump: compressed page by page; flattened: the same as a stream; raw: an image of physical memory from its first byte on
    #[arg(long, value_enum, value_name = "FORM")]
    to: To,
    #[command(flatten)]
    letters: Letters,
    /// Fill the pages that an image can't have with zeros
    #[arg(long)]
    zero_missing: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    care: Care,
}

/// The containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    Elf,
    Kdump,
    Flattened,
    Raw,
}

impl To {
    fn words(self) -> &'static str {
        match self {
            Self::Elf => "an ELF vmcore",
            Self::Kdump => "a kdump-compressed dump",
            Self::Flattened => "a flattened stream of a kdump-compressed dump",
            Self::Raw => "an image of physical memory",
        }
    }
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let target = self.target()?;
        let compressed = matches!(self.to, To::Kdump | To::Flattened);
        if !compressed && self.letters.any() {
            return Err(Failure::usage(
                format!("{} is not compressed", self.to.words()),
                "leave the codec away, or use --to kdump",
            ));
        }
        let dump = Dump::open(&self.source, &OpenOptions::default())?;
        let sources = [self.source.as_path()];
        for path in target.paths() {
            self.care.check(path, &sources)?;
        }
        let mut classes = frames(&dump, &context.cancel)?;
        let exit = if self.to == To::Raw { self.may_be_an_image(&classes, context)? } else { Exit::Done };
        if compressed {
            classes.keep_missing();
        }
        if self.dry_run {
            let pages = human::plural(usize::try_from(classes.kept.len()).unwrap_or(usize::MAX), "page");
            let (name, words) = (self.target.display(), self.to.words());
            context.output.answer(&format!("{name}: {words} with {pages}\n"))?;
            return Ok(exit);
        }
        let progress = context.output.display().piece(&self.source.display().to_string());
        let subject = Subject::new(&dump);
        let watched = kernel::Options::default().watched(&context.cancel, &progress);
        let kernel = Kernel::open(subject.memory, &subject.hints, watched);
        let texts = Texts::told_by(&dump, &kernel);
        let shape =
            Shape { flattened: self.to == To::Flattened, care: self.care.clone(), ..Shape::default() };
        let writing = Writing {
            scrub: None,
            shape: &shape,
            form: match self.to {
                To::Elf => Form::Elf,
                To::Kdump | To::Flattened => Form::Kdump(self.letters.codec(Codec::Zstd)),
                To::Raw => Form::Image,
            },
            reuse: Reuse::SameCodec,
            effort: Effort::Fast,
            sources: &sources,
            dump: &dump,
            direct: kernel.facts().page_offset,
            classes: &classes,
            level: Level::default(),
            texts: &texts,
            context,
            progress: &progress,
            keep_incomplete: false,
        };
        let done = writing.run(&target)?;
        for one in &done {
            context.output.note(&format!(
                "{}: {}, {}, {} of which {} are zeros; sha256 {}",
                one.name,
                self.to.words(),
                Size::from(one.bytes),
                human::plural(usize::try_from(one.written.pages).unwrap_or(usize::MAX), "page"),
                one.written.zero_pages,
                one.digest
            ));
        }
        if dump.vmcoreinfo_raw().is_none() && texts.vmcoreinfo.is_some() && self.to != To::Raw {
            context.output.note("the source has no VMCOREINFO; the one found in its memory was put in");
        }
        let holes = dump.end_pfn().0.saturating_sub(classes.ram.len());
        if self.to == To::Raw && holes > 0 {
            context.output.note(&format!(
                "{holes} pages below the end of memory are none that the source speaks of: they read as zeros"
            ));
        }
        let two = kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
        if two.is_some() && self.to != To::Raw {
            context.output.note(
                "the source has two kernels; the new dump has the VMCOREINFO and the registers of the one that crashed",
            );
        }
        let ending = writing::ending(&done, classes.lost, &self.source, context);
        Ok(if ending == Exit::Done { exit } else { ending })
    }
}

impl Args {
    fn target(&self) -> Result<Target, Failure> {
        if self.target.as_os_str() != "-" {
            return Ok(Target::File(self.target.clone()));
        }
        if self.to == To::Flattened {
            return Ok(Target::Stdout);
        }
        Err(Failure::usage(
            format!("{} can't be written to stdout", self.to.words()),
            "name a file, or use --to flattened",
        ))
    }

    /// An image has no way to say that a page is missing.
    fn may_be_an_image(&self, classes: &Classes, context: &Context) -> Outcome {
        let missing = classes.ram.len().saturating_sub(classes.kept.len());
        if missing == 0 {
            return Ok(Exit::Done);
        }
        let what = format!(
            "{missing} pages of {} are not in it ({} of them lost), and an image of memory can't say so",
            self.source.display(),
            classes.lost
        );
        if !self.zero_missing {
            return Err(Failure::new(
                Exit::Input,
                what,
                "use --to kdump or --to elf, which can; or --zero-missing, which fills them with zeros",
            ));
        }
        context.output.warn(&format!("{what}: they are zeros in {}", self.target.display()));
        Ok(Exit::Done)
    }
}

/// The frames that a dump has.
///
/// # Errors
/// A header that lies, or the user's stop.
pub(super) fn frames(dump: &Dump, cancel: &Cancel) -> Result<Classes, Failure> {
    filter::frames(dump, &Limits::default(), cancel).map_err(|why| match why {
        filter::FilterError::Cancelled => Failure::interrupted(),
        why => Failure::new(
            Exit::Input,
            format!("{}: {why}", dump.path().display()),
            "compare size and checksum with the original",
        ),
    })
}
