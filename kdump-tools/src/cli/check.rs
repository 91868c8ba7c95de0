//! `kdt check`: does every page of a dump decode?

use std::path::PathBuf;

use vmcore::analysis::subject;
use vmcore::check::{CheckOptions, Checked, check};
use vmcore::report::{BadPages, CHECK_SCHEMA, Check, CheckVerdict, CheckedPages, DumpInfo, ReportError};
use vmcore::scrub::{Canary, search};

use super::opened::Opened;
use super::triage::{jobs, tell_skipped};
use super::writing::scrub::proven;
use super::{Context, Format, Run, tool};
use crate::discover::{self, DumpSet};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, json};

/// Decode every page of a dump, and name those that can't be had
///
/// Ends with 5 where a page that is stored does not decode, or holds a --canary, with 4 where all that is there decodes but the file was
/// cut off, with 3 where it is no usable dump. A directory means every dump below it.
///
/// What is found depends on how the pages are stored: a zlib page carries a sum; a changed byte of a zstd, lzo or
/// snappy page may decode all the same, and that of a raw page always does. --digest finds such a change where an
/// intact copy is there to compare with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dumps, or directories with dumps; the parts of a split set belong together
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Tell a digest of what all pages hold: the same for each format, codec and container
    #[arg(long)]
    digest: bool,
    /// A text that must not be in the dump: each place where it is is named, and the exit code is 5. Can be given again
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    canary: Vec<String>,
    /// human: lines for a person; json: the document kdt/check/1, in an array where there are several dumps
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// How many threads decode; as many as there are CPUs where it is not given
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    jobs: Option<usize>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let found = discover::discover(&self.paths, &context.cancel)?;
        tell_skipped(context, &found.skipped);
        if found.sets.is_empty() {
            return Err(Failure::new(
                Exit::Input,
                "there is no dump in what was named",
                "name the dump itself: kdt info FILE says what a file is",
            ));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.jobs.unwrap_or(0))
            .build()
            .map_err(|error| Failure::internal(format!("the threads can't be started: {error}")))?;
        let mut documents = Vec::new();
        let mut exits = Vec::new();
        for set in &found.sets {
            let (document, exit) = match Opened::try_open(&set.paths) {
                Ok(opened) => {
                    let progress = context.output.display().piece(&set.name());
                    let options = CheckOptions::default().digest(self.digest);
                    let checked = pool.install(|| check(opened.dump(), options, &progress, &context.cancel));
                    if checked.interrupted {
                        return Err(Failure::interrupted());
                    }
                    let mut document = document(&opened, checked);
                    if !self.canary.is_empty() {
                        let canaries: Vec<Canary> =
                            self.canary.iter().map(|text| Canary::named(text)).collect();
                        let watch = (&context.cancel, &progress as &dyn vmcore::progress::Progress);
                        let found = pool.install(|| search(opened.dump(), &canaries, watch));
                        document.canaries = Some(proven(&canaries, &found)?);
                    }
                    let there = document.canaries.as_ref().is_some_and(|search| search.count > 0);
                    let exit = match document.verdict {
                        _ if there => Exit::Verify,
                        CheckVerdict::Corrupt => Exit::Verify,
                        CheckVerdict::Incomplete => Exit::Partial,
                        _ => Exit::Done,
                    };
                    (document, exit)
                }
                Err(error) => {
                    let failure = Failure::from(&error);
                    context.output.failure(&failure);
                    (unusable(set, &failure), failure.exit)
                }
            };
            documents.push(document);
            exits.push(exit);
        }
        if found.skipped.iter().any(|skipped| skipped.blind) {
            exits.push(Exit::Partial);
        }
        self.print(context, &documents)?;
        Ok(exit_of(&exits))
    }
}

impl Args {
    fn print(&self, context: &Context, documents: &[Check]) -> Result<(), Failure> {
        match (self.format, documents) {
            (Format::Json, [document]) => json::print(&context.output, document),
            (Format::Json, documents) => json::print(&context.output, &documents),
            (Format::Human, documents) => {
                let (width, painter) = (context.output.width(), context.output.painter());
                let usable = documents.iter().filter(|document| document.error.is_none());
                let texts: Vec<String> =
                    usable.map(|document| output::check::text(document, width, painter)).collect();
                context.output.answer(&texts.join("\n"))
            }
        }
    }
}

fn document(opened: &Opened, checked: Checked) -> Check {
    let verdict = checked.verdict();
    let mut dump = subject::dump_info(opened.dump());
    dump.completeness.corrupt_pages = Some(checked.pages.corrupt);
    Check {
        schema: CHECK_SCHEMA.into(),
        tool: tool(),
        dump,
        verdict,
        pages: checked.pages,
        codecs: checked.codecs,
        bad: checked.bad,
        digest: checked.digest,
        canaries: None,
        error: None,
    }
}

fn unusable(set: &DumpSet, failure: &Failure) -> Check {
    Check {
        schema: CHECK_SCHEMA.into(),
        tool: tool(),
        dump: DumpInfo { path: set.name(), ..DumpInfo::default() },
        verdict: CheckVerdict::Unusable,
        pages: CheckedPages::default(),
        codecs: Vec::new(),
        bad: BadPages::default(),
        digest: None,
        canaries: None,
        error: Some(ReportError { message: failure.message.clone(), hint: failure.hint.clone() }),
    }
}

/// Damage counts most; a dump that can't be used among others is a part of the work.
fn exit_of(exits: &[Exit]) -> Exit {
    let first = exits.first().copied().unwrap_or(Exit::Input);
    if exits.contains(&Exit::Verify) {
        Exit::Verify
    } else if exits.iter().all(|exit| *exit == first) {
        first
    } else if exits.iter().any(|exit| matches!(exit, Exit::Done | Exit::Partial)) {
        Exit::Partial
    } else {
        Exit::Input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_counts_most() {
        assert_eq!(exit_of(&[Exit::Done, Exit::Done]), Exit::Done);
        assert_eq!(exit_of(&[Exit::Done, Exit::Verify, Exit::Input]), Exit::Verify);
        assert_eq!(exit_of(&[Exit::Done, Exit::Input]), Exit::Partial);
        assert_eq!(exit_of(&[Exit::Partial]), Exit::Partial);
        assert_eq!(exit_of(&[Exit::Input, Exit::NotPermitted]), Exit::Input);
    }
}
