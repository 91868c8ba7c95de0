//! `kdt unpack`: the files of a package, given back.

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Format, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::color::Style;
use crate::output::{human, json};
use crate::pack::{
    ArtifactName, Problem, UnpackPlan, UnpackRequest, Unpacked, plan_unpack, shown_path, unpack,
};
use crate::size::Size;

/// Give back the files of a package, each checked against its digest
///
/// A file gets its name only when its digest is right, and nothing that is there is overwritten. Where parts are
/// missing or damaged, what is whole is given back and the rest is named: exit code 4 where parts are missing, 5 where
/// one is damaged or nothing could be given back. Interrupted, the same command goes on where it stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The directory for the files; it is made where it is not there
    #[arg(short, value_name = "OUT")]
    output: PathBuf,
    /// Begin even where the space seems not to do: zeros take none
    #[arg(long)]
    no_space_check: bool,
    /// Print what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// human: lines for a person; json: the document kdt/unpack/1
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

#[derive(Serialize)]
struct Lost {
    name: String,
    why: String,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    dry_run: bool,
    out: String,
    written: Vec<String>,
    already: Vec<String>,
    lost: Vec<Lost>,
    problems: &'a [Problem],
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let request = UnpackRequest {
            dir: self.dir.clone(),
            out: self.output.clone(),
            check_space: !self.no_space_check,
        };
        let progress = context.output.display().piece(&shown_path(&self.dir));
        let plan = plan_unpack(&request, &progress, &context.cancel)?;
        let bytes = plan.bytes();
        let done = if self.dry_run { as_planned(plan) } else { unpack(plan, &progress, &context.cancel)? };
        drop(progress);
        match self.format {
            Format::Human => self.tell(context, &done, bytes)?,
            Format::Json => {
                let texts = |names: &[ArtifactName]| names.iter().map(ToString::to_string).collect();
                let lost =
                    done.lost.iter().map(|(name, why)| Lost { name: name.to_string(), why: why.clone() });
                json::print(
                    &context.output,
                    &Document {
                        schema: "kdt/unpack/1",
                        dry_run: self.dry_run,
                        out: shown_path(&self.output),
                        written: texts(&done.written),
                        already: texts(&done.already),
                        lost: lost.collect(),
                        problems: &done.problems,
                    },
                )?;
            }
        }
        self.end(&done)
    }
}

/// What a plan would give, if the parts that are there are right.
fn as_planned(plan: UnpackPlan) -> Unpacked {
    let names = plan.write.iter().filter_map(|index| plan.package.artifact_name(*index)).cloned();
    Unpacked { written: names.collect(), already: plan.already, lost: plan.lost, ..Unpacked::default() }
}

impl Args {
    fn tell(&self, context: &Context, done: &Unpacked, bytes: u64) -> Result<(), Failure> {
        let painter = context.output.painter();
        for problem in &done.problems {
            context.output.answer(&format!(
                "{} {}\n",
                painter.paint(Style::Bad, "bad:"),
                problem.sentence
            ))?;
        }
        for (name, why) in &done.lost {
            context.output.answer(&format!("{} {name}: {why}\n", painter.paint(Style::Bad, "lost:")))?;
        }
        if context.output.settings().verbose > 0 || self.dry_run {
            for name in &done.written {
                context.output.answer(&format!("  {name}\n"))?;
            }
        }
        let files = human::plural(done.written.len(), "file");
        let already = match done.already.len() {
            0 => String::new(),
            count => format!("; {} had been there, with the right digest", human::plural(count, "file")),
        };
        let out = shown_path(&self.output);
        context.output.answer(&if self.dry_run {
            format!("would write {files} ({}) into {out}{already}\n", Size::from(bytes))
        } else {
            format!("{files} in {out}, each with the digest that the manifest tells{already}\n")
        })
    }

    fn end(&self, done: &Unpacked) -> Outcome {
        if done.lost.is_empty() && done.problems.is_empty() {
            return Ok(Exit::Done);
        }
        let damaged = done.problems.iter().any(|problem| problem.code != "part-missing");
        let nothing = done.written.is_empty() && done.already.is_empty();
        let exit = if damaged || nothing { Exit::Verify } else { Exit::Partial };
        let lost = human::plural(done.lost.len(), "file");
        Err(Failure::new(
            exit,
            format!("{lost} of the package in {} can't be given back", shown_path(&self.dir)),
            "ask the sender for the named parts only, put them in place, and run the same command again",
        ))
    }
}
