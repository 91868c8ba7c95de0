//! `kdt send`: brings a package elsewhere.

use std::path::PathBuf;

use super::{Context, Format, Run};
use crate::exit::{Exit, Outcome};
use crate::output::{human, json};
use crate::pack::shown_path;
use crate::size::Size;
use crate::transfer::{Destination, plan_send, send};

/// Bring a package to another directory, part by part, and get a receipt
///
/// Each part is copied under a temporary name, read back, and named when its digest is right; the manifest comes last,
/// then receipt.json. Interrupted, the same command goes on where it stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to: a directory, also as `file:///directory`
    #[arg(value_name = "URL")]
    url: String,
    /// Begin even where the space seems not to do
    #[arg(long)]
    no_space_check: bool,
    /// Print what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// human: lines for a person; json: the receipt
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let destination = Destination::parse(&self.url)?;
        let plan = plan_send(&self.dir, &destination, !self.no_space_check)?;
        if self.dry_run {
            let (copy, all) = (plan.copy.len(), plan.package.manifest.parts.len());
            let (bytes, to) = (Size::from(plan.bytes()), shown_path(&plan.to));
            let parts = human::plural(all, "part");
            context.output.answer(&format!("would copy {copy} of {parts} ({bytes}) to {to}\n"))?;
            return Ok(Exit::Done);
        }
        let progress = context.output.display().piece(&self.url);
        let sent = send(&plan, &progress, &context.cancel)?;
        drop(progress);
        match self.format {
            Format::Json => json::print(&context.output, &sent.receipt)?,
            Format::Human => {
                let already = match sent.already {
                    0 => String::new(),
                    count => format!(" ({count} of them had been there)"),
                };
                context.output.answer(&format!("{}{already}\n", sent.summary()))?;
            }
        }
        Ok(Exit::Done)
    }
}
