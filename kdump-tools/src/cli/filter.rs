//! `kdt filter`: a dump without the pages that nobody needs, compressed.

use std::path::PathBuf;

use vmcore::analysis::subject::Subject;
use vmcore::filter::{self, Class, Classes, FilterError, Level};
use vmcore::format::Codec;
use vmcore::kernel::{self, Kernel};
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::write::{Effort, Form, Reuse, Texts};

use super::writing::scrub::Scrub;
use super::writing::{self, Done, Plan, Shape, Source, Target, Writing};
use super::{Context, Format, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::progress::Piece;
use crate::output::{human, json};
use crate::size::Size;

/// Write a dump without the pages that nobody needs, compressed
///
/// Takes makedumpfile's letters, and writes what crash, drgn and makedumpfile read. What each page was used for is taken from the
/// dumped kernel's own words; a page whose use is not certain is kept. Each page is decoded and compared as it is written, and
/// DST.sha256 holds the digest of the whole file. Exit code 4: pages of the source could not be read, and are marked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump: of any format that kdt reads; `-` for stdin, which is kept in a temporary file beside DST, or in TMPDIR
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The new dump; `-`, or none with -F, for a flattened stream on stdout
    #[arg(value_name = "DST")]
    target: Option<PathBuf>,
    /// What is left out, a sum: 1 zeros, 2 page cache, 4 page cache with private data, 8 processes, 16 free; `11,31` tries 31 where
    /// there is no space at 11
    #[arg(short, long, default_value = "31", value_delimiter = ',', value_name = "LEVEL")]
    dump_level: Vec<Level>,
    #[command(flatten)]
    shape: Shape,
    /// Say how large the dump gets at each level and in each codec, and how long it takes, from some pages of each class;
    /// write nothing
    #[arg(long, visible_alias = "mem-usage")]
    plan: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How the plan is said: human or json
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// One file of a split set, as makedumpfile takes their names
    #[arg(long, value_name = "FILE", hide = true, conflicts_with_all = ["target", "split", "part_size", "flattened", "elf", "limit"])]
    into: Vec<PathBuf>,
    /// A number of makedumpfile's of which kdt knows the 1: with it, a line with the progress every few seconds. On the
    /// console of a machine that is the default
    #[arg(long, value_name = "N")]
    message_level: Option<u32>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let target = self.target()?;
        for path in target.iter().flat_map(Target::paths) {
            self.shape.care.check(path, &[&self.source])?;
        }
        let source = Source::open(&self.source, target.as_ref(), context)?;
        let dump = Dump::open(source.path(), &OpenOptions::default())?;
        let name = source.name().display().to_string();
        let progress = context.output.page_progress(&name, dump.page_size(), self.message_level);
        let subject = Subject::new(&dump);
        let watched = kernel::Options::default().watched(&context.cancel, &progress);
        let kernel = Kernel::open(subject.memory, &subject.hints, watched);
        let told = Texts::told_by(&dump, &kernel);
        let wanted = self.shape.scrubbing.wanted()?;
        let mut levels = self.dump_level.iter().copied();
        let mut level = levels.next().unwrap_or(Level::MAX);
        let mut next = levels.next();
        loop {
            let mut classes = self.classify(&dump, &kernel, level, context, (&source, &progress))?;
            for note in &classes.notes {
                context.output.warn(note);
            }
            let mut texts = told.clone();
            let scrub = Scrub::plan(
                wanted.as_ref().filter(|_| !self.plan),
                &dump,
                &kernel,
                &mut classes,
                &mut texts,
                &self.shape,
                context,
                &progress,
            )?;
            let Some(target) = target.as_ref().filter(|_| !self.plan && !self.dry_run) else {
                return self.tell_plan(&dump, &classes, level, (&name, &texts), context);
            };
            if self.shape.form(Codec::Lzo) != Form::Elf {
                classes.keep_missing();
            }
            let writing = Writing {
                shape: &self.shape,
                form: self.shape.form(Codec::Lzo),
                reuse: Reuse::None,
                effort: Effort::Fast,
                sources: &[source.path()],
                dump: &dump,
                direct: kernel.facts().page_offset,
                classes: &classes,
                level,
                texts: &texts,
                scrub: scrub.as_ref(),
                context,
                progress: &progress,
                keep_incomplete: next.is_none(),
            };
            match (writing.run(target), next) {
                (Err(failure), Some(higher)) if failure.exit == Exit::NoSpace => {
                    context.output.warn(&format!("{}; it is tried again at level {higher}", failure.message));
                    (level, next) = (higher, levels.next());
                }
                (Err(failure), _) => return Err(failure),
                (Ok(done), _) => {
                    let exit = Self::tell(&done, &classes, level, (&source, context));
                    return match &scrub {
                        Some(scrub) => scrub.account_for(&done, target, source.name(), context, exit),
                        None => Ok(exit),
                    };
                }
            }
        }
    }
}

impl Args {
    fn target(&self) -> Result<Option<Target>, Failure> {
        if !self.into.is_empty() {
            return Ok(Some(Target::Set(self.into.clone())));
        }
        match Target::named(self.target.as_deref(), &self.shape) {
            Some(target) => Ok(Some(target)),
            None if self.plan || self.dry_run => Ok(None),
            None => Err(Failure::usage(
                "the new dump has no name",
                "name it behind the source, or use -F for a stream on stdout",
            )),
        }
    }

    fn classify(
        &self,
        dump: &Dump,
        kernel: &Kernel<'_>,
        level: Level,
        context: &Context,
        (source, progress): (&Source, &Piece),
    ) -> Result<Classes, Failure> {
        // A plan counts every class.
        let wanted = if self.plan { Level::MAX } else { level };
        let (memory, info, limits) = (kernel.memory(), kernel.vmcoreinfo(), Limits::default());
        filter::classify(dump, memory, info, None, wanted, &limits, (&context.cancel, progress)).map_err(
            |why| match why {
                FilterError::Cancelled => Failure::interrupted(),
                why => Failure::new(
                    Exit::Input,
                    format!("{}: {why}", source.name().display()),
                    "compare size and checksum with the original",
                ),
            },
        )
    }

    fn tell_plan(
        &self,
        dump: &Dump,
        classes: &Classes,
        level: Level,
        (name, texts): (&str, &Texts),
        context: &Context,
    ) -> Outcome {
        let numbers = if self.plan { vec![0, 2, 4, 8, 16, 30, 31] } else { vec![level.number()] };
        let levels: Vec<Level> = numbers.into_iter().filter_map(Level::new).collect();
        let sizes = (self.shape.care.jobs(), texts.notes.len());
        let plan = Plan::make(dump, name.to_owned(), classes, &levels, sizes, &context.cancel);
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        match self.format {
            Format::Human => context.output.answer(&plan.text())?,
            Format::Json => json::print(&context.output, &plan)?,
        }
        Ok(if classes.lost > 0 { Exit::Partial } else { Exit::Done })
    }

    fn tell(done: &[Done], classes: &Classes, level: Level, (source, context): (&Source, &Context)) -> Exit {
        let left_out: u64 =
            classes.counts.iter().filter(|(class, _)| level.excludes(*class)).map(|(_, count)| count).sum();
        for Done { name, written, bytes, digest, .. } in done {
            context.output.note(&format!(
                "{name}: {}, {} of which {} are zeros; {left_out} left out at level {level}; sha256 {digest}",
                Size::from(*bytes),
                human::plural(usize::try_from(written.pages).unwrap_or(usize::MAX), "page"),
                written.zero_pages,
            ));
        }
        if context.output.settings().verbose > 0 {
            for (class, count) in classes.counts.iter() {
                context.output.note(&format!("{}: {count} pages", class.name()));
            }
            let unknown = classes.counts.get(Class::Unknown);
            context.output.note(&format!("{unknown} pages were kept because their use is not certain"));
        }
        writing::ending(done, classes.lost, source.name(), context)
    }
}
