//! `kdt collect`: the facts of this host that matter after a crash, as one bundle.

use std::cell::OnceCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sosreport_lite::{
    CollectError, ItemReport, ItemStatus, Limits, Options, Outcome as Collected, Plan, Profile,
    Progress as Watch, ReaderCommand, plan, run,
};
use vmcore::progress::Progress;

use super::{Context, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::human;
use crate::output::progress::Piece;
use crate::size::Size;

/// Collect the facts of this host that matter after a crash into one .tar.gz, in the layout of sos
///
/// Nothing that the host does keeps it from ending: each command and each file has its time limit. Items that can't
/// be had are told, and the exit code is then 4.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What happened: the kernel crashed, the host hangs now, or take all there is
    #[arg(long, value_enum, default_value_t, value_name = "PROFILE")]
    profile: ProfileName,
    /// The support case, for the name of the bundle
    #[arg(long, value_name = "ID")]
    case: Option<String>,
    /// A directory, or a new file that ends in .tar.gz
    #[arg(short, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// Collect the files of the host whose root is mounted at DIR; no command is run for it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// End after this many seconds with what there is
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_time: u64,
    /// Take at most this much, before compression
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    max_size: Size,
    /// With --profile hang or full: have the kernel log its blocked tasks first (sysrq w)
    #[arg(long)]
    sysrq: bool,
    /// Print what would be collected, and with which limits; touch nothing
    #[arg(long)]
    dry_run: bool,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ProfileName {
    #[default]
    Crash,
    Hang,
    Full,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let options = Options {
            profile: match self.profile {
                ProfileName::Crash => Profile::Crash,
                ProfileName::Hang => Profile::Hang,
                ProfileName::Full => Profile::Full,
            },
            case: self.case,
            out: self.output,
            root: self.root,
            sysrq: self.sysrq,
            reader: Some(ReaderCommand::this_program()),
            limits: Limits {
                max_time: Duration::from_secs(self.max_time),
                max_bytes: self.max_size.bytes(),
                ..Limits::default()
            },
        };
        let plan = plan(&options)?;
        if self.dry_run {
            context.output.answer(&plan.describe())?;
            return Ok(Exit::Done);
        }
        let show = Show { piece: context.output.display().piece("collect"), total: OnceCell::new() };
        let cancel = sosreport_lite::Cancel::from_flag(Arc::clone(&context.stop));
        let outcome = run(&plan, &show, &cancel)?;
        drop(show);
        tell(context, &outcome);
        context.output.answer(&format!("{}\n", outcome.path.display()))?;
        Ok(if outcome.is_partial() { Exit::Partial } else { Exit::Done })
    }
}

/// Says what is not in the bundle, and how large it is.
fn tell(context: &Context, outcome: &Collected) {
    for item in outcome.worth_telling() {
        context.output.note(&format!("{}: {}: {}", item.status.word(), item.what, item.status.why()));
    }
    for note in &outcome.notes {
        context.output.note(note);
    }
    context.output.note(&format!(
        "{} in {}, {} from {}, sha256 {}",
        outcome.summary(),
        human::duration(outcome.took.as_secs_f64()),
        Size::from(outcome.size_bytes),
        Size::from(outcome.content_bytes),
        outcome.sha256,
    ));
}

/// The line on a terminal that says how far it is.
struct Show {
    piece: Piece,
    total: OnceCell<u64>,
}

impl Watch for Show {
    fn begin(&self, plan: &Plan) {
        let total = *self.total.get_or_init(|| u64::try_from(plan.items.len()).unwrap_or(u64::MAX));
        self.piece.step("collecting", Some(total));
    }

    fn item(&self, report: &ItemReport) {
        if matches!(report.status, ItemStatus::TimedOut(_)) {
            self.piece.step(&format!("{} timed out", report.what), self.total.get().copied());
        }
        self.piece.advance(1);
    }

    fn finishing(&self) {
        self.piece.step("reading the bundle back", None);
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        let exit = match &error {
            CollectError::Out { .. } | CollectError::Root { .. } => Exit::Usage,
            CollectError::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::NotPermitted
            }
            CollectError::Write { .. } => Exit::Input,
            CollectError::Verify { .. } => Exit::Verify,
            CollectError::NoSpace { .. } => Exit::NoSpace,
            CollectError::Cancelled { .. } => Exit::Interrupted,
            _ => Exit::Internal,
        };
        Self::new(exit, error.to_string(), error.hint())
    }
}
