//! `kdt pack`: files into a package that travels.

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Format, Run};
use crate::exit::{Exit, Outcome};
use crate::output::table::Facts;
use crate::output::{human, json};
use crate::pack::{CaseId, Estimate, PackPlan, PackRequest, Packed, estimate, pack, plan};
use crate::size::Size;

/// Compress files, split them into parts, and list them with digests, ready to send
///
/// A directory means every file below it. The parts, one after the other, are what `zstd -dc | tar x` reads, so the
/// receiver needs no kdt. Files named report.json, report.html and report.txt go first, in a part of their own.
/// Interrupted, the same command goes on where it stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to pack
    #[arg(required = true, value_name = "ARTIFACT")]
    artifacts: Vec<PathBuf>,
    /// The directory that becomes the package; it is made where it is not there
    #[arg(short, value_name = "DIR")]
    output: PathBuf,
    /// The case: the parts are named after it. Without it, they are named after the directory
    #[arg(long, value_name = "ID", value_parser = case_id)]
    case: Option<CaseId>,
    /// No part is longer than this
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    part_size: Size,
    /// How hard to compress, from 1 (fast) to 19 (small)
    #[arg(long, value_name = "N", default_value_t = 3)]
    level: i32,
    /// Threads that compress; one for each CPU where it is not given
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Begin even where the space seems not to do
    #[arg(long)]
    no_space_check: bool,
    /// Print what would be done, with sizes and time, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// human: lines for a person; json: the document kdt/pack/1
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// Understands `--case`.
///
/// # Errors
/// What a case may be made of.
pub(super) fn case_id(text: &str) -> Result<CaseId, String> {
    CaseId::try_from(text.to_owned()).map_err(str::to_owned)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    dry_run: bool,
    dir: String,
    case: &'a CaseId,
    artifacts: usize,
    input_bytes: u64,
    packed_bytes: u64,
    parts: u64,
    seconds: Option<f64>,
    root_digest: Option<String>,
    left_out: &'a [crate::pack::LeftOut],
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let request = PackRequest {
            case: self.case.clone(),
            part_size: self.part_size.bytes(),
            level: self.level,
            jobs: self.jobs,
            ..PackRequest::new(self.artifacts.clone(), self.output.clone())
        };
        let plan = plan(&request)?;
        for left in &plan.left_out {
            context.output.warn(&format!("{} is not packed: {}", left.path, left.why));
        }
        if self.dry_run {
            let estimate = estimate(&plan)?;
            self.tell_plan(context, &plan, &estimate)?;
        } else {
            let progress = context.output.display().piece(plan.case.as_str());
            let packed = pack(&plan, !self.no_space_check, &progress, &context.cancel)?;
            drop(progress);
            self.tell_packed(context, &plan, &packed)?;
        }
        Ok(if plan.left_out.is_empty() { Exit::Done } else { Exit::Partial })
    }
}

impl Args {
    fn tell_plan(
        &self,
        context: &Context,
        plan: &PackPlan,
        estimate: &Estimate,
    ) -> Result<(), crate::exit::Failure> {
        if self.format == Format::Json {
            return json::print(
                &context.output,
                &Document {
                    schema: "kdt/pack/1",
                    dry_run: true,
                    dir: crate::pack::shown_path(&plan.target),
                    case: &plan.case,
                    artifacts: plan.artifacts.len(),
                    input_bytes: estimate.input_bytes,
                    packed_bytes: estimate.packed_bytes,
                    parts: estimate.parts,
                    seconds: Some(estimate.time.as_secs_f64()),
                    root_digest: None,
                    left_out: &plan.left_out,
                },
            );
        }
        let mut facts = Facts::new();
        facts.row("would pack", inventory(plan));
        facts.row("into", crate::pack::shown_path(&plan.target));
        let parts = human::plural(usize::try_from(estimate.parts).unwrap_or(usize::MAX), "part");
        let most = Size::from(plan.part_size);
        facts.row("as", format!("about {} in {parts} of at most {most}", Size::from(estimate.packed_bytes)));
        facts.row("in", format!("about {}", human::duration(estimate.time.as_secs_f64())));
        context.output.answer(&facts.render(100, context.output.painter()))?;
        for artifact in &plan.artifacts {
            let line = format!(
                "  {:>10}  {:<11}  {}\n",
                Size::from(artifact.size).to_string(),
                artifact.kind.as_str(),
                artifact.name
            );
            context.output.answer(&line)?;
        }
        Ok(())
    }

    fn tell_packed(
        &self,
        context: &Context,
        plan: &PackPlan,
        packed: &Packed,
    ) -> Result<(), crate::exit::Failure> {
        let manifest = &packed.manifest;
        if self.format == Format::Json {
            return json::print(
                &context.output,
                &Document {
                    schema: "kdt/pack/1",
                    dry_run: false,
                    dir: crate::pack::shown_path(&packed.dir),
                    case: &plan.case,
                    artifacts: manifest.artifacts.len(),
                    input_bytes: plan.bytes(),
                    packed_bytes: packed.packed_bytes(),
                    parts: u64::try_from(manifest.parts.len()).unwrap_or(u64::MAX),
                    seconds: None,
                    root_digest: Some(manifest.root_digest.to_string()),
                    left_out: &manifest.left_out,
                },
            );
        }
        let dir = crate::pack::shown_path(&packed.dir);
        let mut facts = Facts::new();
        facts.row("packed", inventory(plan));
        facts.row("into", &dir);
        let parts = human::plural(manifest.parts.len(), "part");
        let resumed = match packed.resumed_parts {
            0 => String::new(),
            parts => format!(", {parts} of them by an earlier run"),
        };
        facts.row("as", format!("{} in {parts}{resumed}", Size::from(packed.packed_bytes())));
        facts.row("root digest", manifest.root_digest.to_string());
        facts.row("next", format!("kdt verify {}", quoted(&packed.dir)));
        context.output.answer(&facts.render(100, context.output.painter()))
    }
}

/// A path as a word of a shell's command line.
pub(super) fn quoted(path: &std::path::Path) -> String {
    let text = crate::pack::shown_path(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `3 files, 1.2 GiB (1 report, 1 vmcore, 1 other)`.
fn inventory(plan: &PackPlan) -> String {
    let kinds: Vec<String> =
        plan.kinds().into_iter().map(|(kind, count, _)| format!("{count} {kind}")).collect();
    let files = human::plural(plan.artifacts.len(), "file");
    format!("{files}, {} ({})", Size::from(plan.bytes()), kinds.join(", "))
}
