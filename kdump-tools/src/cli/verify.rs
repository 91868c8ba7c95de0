//! `kdt verify`: is every byte of a package right?

use std::path::PathBuf;

use serde::Serialize;

use super::pack::quoted;
use super::{Context, Format, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::color::Style;
use crate::output::{human, json};
use crate::pack::{Depth, Problem, Verdict, shown_path, verify};

/// Check a package: every part, its digests, and what the parts decompress to
///
/// Each part that is missing, renamed, cut off, damaged or doubled is named, with the byte where it is known, and the
/// exit code is 5. A package that can't be read at all, because its manifest.json can't, ends with 3.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only the parts' own digests: decompress nothing
    #[arg(long)]
    quick: bool,
    /// human: lines for a person; json: the document kdt/verify/1
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    dir: String,
    case: &'a crate::pack::CaseId,
    whole: bool,
    root_digest: String,
    parts: usize,
    parts_right: usize,
    artifacts: usize,
    artifacts_right: Option<usize>,
    problems: &'a [Problem],
    strangers: &'a [String],
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let depth = if self.quick { Depth::Parts } else { Depth::Artifacts };
        let progress = context.output.display().piece(&shown_path(&self.dir));
        let verdict = verify(&self.dir, depth, &progress, &context.cancel)?;
        drop(progress);
        for stranger in &verdict.strangers {
            context.output.note(&format!("{stranger} lies in the package and is not of it"));
        }
        match self.format {
            Format::Human => tell(context, &verdict)?,
            Format::Json => json::print(&context.output, &document(&verdict))?,
        }
        if verdict.problems.is_empty() {
            return Ok(Exit::Done);
        }
        let problems = human::plural(verdict.problems.len(), "problem");
        let dir = quoted(&self.dir);
        Err(Failure::new(
            Exit::Verify,
            format!("the package in {} is not whole: {problems}", shown_path(&self.dir)),
            format!(
                "ask the sender for the named parts only and put them in place; kdt unpack {dir} gives back what is whole"
            ),
        ))
    }
}

fn document(verdict: &Verdict) -> Document<'_> {
    let manifest = &verdict.package.manifest;
    Document {
        schema: "kdt/verify/1",
        dir: shown_path(&verdict.package.dir),
        case: &manifest.case,
        whole: verdict.problems.is_empty(),
        root_digest: manifest.root_digest.to_string(),
        parts: manifest.parts.len(),
        parts_right: verdict.parts_right,
        artifacts: manifest.artifacts.len(),
        artifacts_right: verdict.artifacts_right,
        problems: &verdict.problems,
        strangers: &verdict.strangers,
    }
}

fn tell(context: &Context, verdict: &Verdict) -> Result<(), Failure> {
    let painter = context.output.painter();
    let manifest = &verdict.package.manifest;
    for problem in &verdict.problems {
        context.output.answer(&format!("{} {}\n", painter.paint(Style::Bad, "bad:"), problem.sentence))?;
    }
    if !verdict.problems.is_empty() {
        return Ok(());
    }
    let artifacts = match verdict.artifacts_right {
        Some(right) => format!(" and {} in them", human::plural(right, "file")),
        None => String::new(),
    };
    let parts = human::plural(verdict.parts_right, "part");
    context.output.answer(&format!(
        "case {}: {parts}{artifacts} are right; root digest {}\n",
        manifest.case, manifest.root_digest
    ))
}
