//! `kdt distill`: the smallest valid dump on which the standard analyses give the same answers.

use std::fmt::Write as _;
use std::path::PathBuf;

use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage;
use vmcore::distill::{self, Level, Plan};
use vmcore::filter::{self, Classes};
use vmcore::format::Codec;
use vmcore::format::notes::KDT_NOTE;
use vmcore::kernel::{self, Kernel};
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions, PhysicalMemory};
use vmcore::progress::Cancel;
use vmcore::write::{self, Effort, Reuse, Texts};

use super::writing::scrub::Scrub;
use super::writing::{self, Shape, Source, Target, Writing};
use super::{Context, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::human;
use crate::size::Size;

/// Write the smallest valid dump on which the standard analyses give the same answers
///
/// Runs the analyses of `kdt triage`, and keeps the pages that they read, with the page tables, stacks, structures, symbols and types
/// that crash and drgn need to answer the same questions. What else the memory held does not travel. zstd is the default.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump: of any format that kdt reads; `-` for stdin, which is kept in a temporary file beside DST, or in TMPDIR
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The new dump; `-`, or none with -F, for a flattened stream on stdout
    #[arg(value_name = "DST")]
    target: Option<PathBuf>,
    /// minimal: what the analyses read; standard: the code that stacks lead to, strings and all open files too; generous: all code and constants, and all slab pages too
    #[arg(long, value_parser = level, default_value = "standard", value_name = "LEVEL")]
    level: Level,
    #[command(flatten)]
    shape: Shape,
    /// Say what would be kept and why, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// A number of makedumpfile's of which kdt knows the 1: with it, a line with the progress every few seconds
    #[arg(long, value_name = "N")]
    message_level: Option<u32>,
}

fn level(word: &str) -> Result<Level, String> {
    let all = Level::ALL.map(Level::name);
    Level::ALL
        .into_iter()
        .find(|level| level.name() == word)
        .ok_or_else(|| format!("it is one of {}", all.join(", ")))
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let target = Target::named(self.target.as_deref(), &self.shape);
        if target.is_none() && !self.dry_run {
            return Err(Failure::usage(
                "the new dump has no name",
                "name it behind the source, or use -F for a stream on stdout",
            ));
        }
        for path in target.iter().flat_map(Target::paths) {
            self.shape.care.check(path, &[&self.source])?;
        }
        let source = Source::open(&self.source, target.as_ref(), context)?;
        let dump = Dump::open(source.path(), &OpenOptions::default())?;
        let name = source.name().display().to_string();
        let progress = context.output.page_progress(&name, dump.page_size(), self.message_level);
        let options = triage::Options::new("kdt", env!("CARGO_PKG_VERSION"));
        let plan = distill::plan(&dump, self.level, &options, &progress, &context.cancel);
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        for gap in plan.notes.iter().chain(&plan.gaps) {
            context.output.warn(gap);
        }
        let wanted = self.shape.scrubbing.wanted()?;
        let Some(target) = target.filter(|_| !self.dry_run) else {
            return tell_plan(&plan, &dump, self.shape.letters.codec(Codec::Zstd), context);
        };
        let mut classes = kept(&dump, &plan, &context.cancel)?;
        let subject = Subject::new(&dump);
        let watched = kernel::Options::default().watched(&context.cancel, &progress);
        let kernel = Kernel::open(subject.memory, &subject.hints, watched);
        let mut texts = Texts::told_by(&dump, &kernel);
        texts.add(KDT_NOTE.0, KDT_NOTE.1, distill::words(self.level, env!("CARGO_PKG_VERSION")).as_bytes());
        let scrub = Scrub::plan(
            wanted.as_ref(),
            &dump,
            &kernel,
            &mut classes,
            &mut texts,
            &self.shape,
            context,
            &progress,
        )?;
        let writing = Writing {
            shape: &self.shape,
            form: self.shape.form(Codec::Zstd),
            reuse: Reuse::None,
            effort: Effort::Small,
            sources: &[source.path()],
            dump: &dump,
            direct: kernel.facts().page_offset,
            classes: &classes,
            level: filter::Level::MAX,
            texts: &texts,
            scrub: scrub.as_ref(),
            context,
            progress: &progress,
            keep_incomplete: true,
        };
        let done = writing.run(&target)?;
        for one in &done {
            context.output.note(&format!(
                "{}: {}, {} of the {} that the source has; sha256 {}",
                one.name,
                Size::from(one.bytes),
                human::plural(usize::try_from(one.written.pages).unwrap_or(usize::MAX), "page"),
                dump.completeness().present_pages,
                one.digest
            ));
        }
        let exit = writing::ending(&done, classes.lost, source.name(), context);
        let exit = if plan.gaps.is_empty() { exit } else { Exit::Partial };
        match &scrub {
            Some(scrub) => scrub.account_for(&done, &target, source.name(), context, exit),
            None => Ok(exit),
        }
    }
}

/// The frames of the plan, as those who write take them.
fn kept(dump: &Dump, plan: &Plan, cancel: &Cancel) -> Result<Classes, Failure> {
    let mut classes = filter::frames(dump, &Limits::default(), cancel).map_err(|why| {
        Failure::new(
            Exit::Input,
            format!("{}: {why}", dump.path().display()),
            "compare size and checksum with the original",
        )
    })?;
    classes.keep_only(&plan.frames);
    Ok(classes)
}

fn tell_plan(plan: &Plan, dump: &Dump, codec: Codec, context: &Context) -> Outcome {
    let page = dump.page_size();
    let row = |what: &str, pages: u64, stored: u64| {
        let (size, stored) = (Size::from(pages * page).to_string(), Size::from(stored).to_string());
        format!("{what:<24} {pages:>10} {size:>12} {stored:>12}")
    };
    let mut text = format!("{:<24} {:>10} {:>12} {:>12}\n", "kept for", "pages", "size", codec.name());
    let mut sum = 0;
    for (reason, frames) in &plan.why {
        let stored = write::stored(dump, frames, codec, Effort::Small, &context.cancel);
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        sum += stored;
        let _ = writeln!(text, "{}", row(reason.name(), frames.iter().map(|(_, count)| count).sum(), stored));
    }
    let there = usize::try_from(dump.completeness().present_pages).unwrap_or(usize::MAX);
    let _ = writeln!(
        text,
        "{}, of {} in the dump",
        row("in all", plan.count(), sum),
        human::plural(there, "page")
    );
    context.output.answer(&text)?;
    Ok(Exit::Done)
}
