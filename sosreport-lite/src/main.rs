//! `sosreport-lite`: collects the facts of this host that matter after a kernel crash.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sosreport_lite::{
    Cancel, CollectError, ItemReport, ItemStatus, Limits, Options, Outcome, Plan, Profile, Progress,
    ReaderCommand, human_size, parse_size, plan, run, serve_if_asked,
};

/// Collects the facts of this host that matter after a kernel crash, into one .tar.gz in the layout of sos.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Args {
    /// What happened: the kernel crashed, the host hangs now, or take all there is
    #[arg(long, value_enum, default_value_t = ProfileArg::Crash)]
    profile: ProfileArg,
    /// The support case, for the name of the bundle
    #[arg(long, value_name = "ID")]
    case: Option<String>,
    /// A directory, or a new file that ends in .tar.gz
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    out: PathBuf,
    /// Collect the files of the host whose root is mounted at DIR; no command is run for it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// End after this many seconds with what there is
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_time: u64,
    /// Take at most this much, before compression (such as 512MiB)
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    max_size: u64,
    /// With --profile hang or full: have the kernel log its blocked tasks first (sysrq w)
    #[arg(long)]
    sysrq: bool,
    /// Print what would be collected, and with which limits; touch nothing
    #[arg(long)]
    dry_run: bool,
    /// No progress, only the answer
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileArg {
    Crash,
    Hang,
    Full,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("«{text}» is not a size such as 512MiB"))
}

fn main() -> ExitCode {
    if let Some(code) = serve_if_asked(std::env::args_os()) {
        return code;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // A closed stdout is no error, and there is nobody else to tell.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    match collect(&args) {
        Ok(code) => code,
        Err(e) => {
            let _ = writeln!(io::stderr(), "error: {e}\nhint: {}", e.hint());
            ExitCode::from(exit_code(&e))
        }
    }
}

fn exit_code(e: &CollectError) -> u8 {
    match e {
        CollectError::Out { .. } | CollectError::Root { .. } => 2,
        CollectError::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 7,
        CollectError::Verify { .. } => 5,
        CollectError::NoSpace { .. } => 8,
        CollectError::Cancelled { .. } => 130,
        CollectError::Write { .. } => 3,
        _ => 1,
    }
}

fn collect(args: &Args) -> Result<ExitCode, CollectError> {
    let limits = Limits {
        max_time: Duration::from_secs(args.max_time),
        max_bytes: args.max_size,
        ..Limits::default()
    };
    let options = Options {
        profile: match args.profile {
            ProfileArg::Crash => Profile::Crash,
            ProfileArg::Hang => Profile::Hang,
            ProfileArg::Full => Profile::Full,
        },
        case: args.case.clone(),
        out: args.out.clone(),
        root: args.root.clone(),
        sysrq: args.sysrq,
        reader: Some(ReaderCommand::this_program()),
        limits,
    };
    let plan = plan(&options)?;
    if args.dry_run {
        say(&plan.describe());
        return Ok(ExitCode::SUCCESS);
    }
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // Where it can't be had, the signal ends the program at once, as ever.
        let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
    }
    let show =
        Show { line: !args.quiet && io::stderr().is_terminal(), total: plan.items.len(), done: 0.into() };
    let outcome = run(&plan, &show, &Cancel::from_flag(flag))?;
    show.clear();
    if !args.quiet {
        tell(&outcome);
    }
    say(&format!("{}\n", outcome.path.display()));
    Ok(ExitCode::from(if outcome.is_partial() { 4 } else { 0 }))
}

/// The answer. A closed stdout is no error.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn tell(outcome: &Outcome) {
    let mut err = io::stderr().lock();
    for item in outcome.worth_telling() {
        let _ = writeln!(
            err,
            "{:<13} {}: {}",
            item.status.word(),
            item.what.escape_debug(),
            item.status.why().escape_debug()
        );
    }
    for note in &outcome.notes {
        let _ = writeln!(err, "{note}");
    }
    let _ = writeln!(
        err,
        "{} in {:.1} s, {} from {}, sha256 {}",
        outcome.summary(),
        outcome.took.as_secs_f64(),
        human_size(outcome.size_bytes),
        human_size(outcome.content_bytes),
        outcome.sha256,
    );
}

/// One line on a terminal that says how far it is.
struct Show {
    line: bool,
    total: usize,
    done: std::cell::Cell<usize>,
}

impl Show {
    fn write(&self, text: &str) {
        if self.line {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn clear(&self) {
        self.write("");
    }
}

impl Progress for Show {
    fn begin(&self, plan: &Plan) {
        self.write(&format!("collecting {} items", plan.items.len()));
    }

    fn item(&self, report: &ItemReport) {
        self.done.set(self.done.get() + 1);
        let trouble = if let ItemStatus::TimedOut(_) = report.status { " timed out" } else { "" };
        let what: String = report.what.escape_debug().take(60).collect();
        self.write(&format!("{}/{} {what}{trouble}", self.done.get(), self.total));
    }

    fn finishing(&self) {
        self.write("putting the bundle together and reading it back");
    }
}
