//! The command line: one module a command.
//!
//! To add one: write `cli/<command>.rs` with `Args` (its doc comment is what `--help` shows) and its [`Run`], then
//! name it in the two lists below. A command that does not exist yet is in neither.

pub mod check;
pub mod collect;
pub mod convert;
pub mod distill;
pub mod drill;
pub mod escalate;
pub mod filter;
mod followed;
pub mod gen_docs;
pub mod info;
pub mod join;
pub mod log;
pub mod makedumpfile;
mod opened;
pub mod pack;
pub mod send;
pub mod similar;
pub mod triage;
pub mod unpack;
mod usage;
pub mod verify;
mod writing;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory, Parser, Subcommand};
use vmcore::progress::Cancel;
use vmcore::report::Tool;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::color::Color;
use crate::output::{self, Output, Settings};

/// Makes the list of commands, and the way from each to its code.
macro_rules! commands {
    ($($variant:ident => $module:ident),+ $(,)?) => {
        /// The commands.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $(
                #[expect(missing_docs, reason = "the doc comment would replace the help text of the command's Args")]
                $variant($module::Args),
            )+
        }

        impl Run for Command {
            fn run(self, context: &Context) -> Outcome {
                match self {
                    $(Self::$variant(args) => args.run(context),)+
                }
            }
        }
    };
}

// In the order in which `--help` lists them: the work of a crash first.
commands! {
    Escalate => escalate,
    Triage => triage,
    Similar => similar,
    Log => log,
    Info => info,
    Check => check,
    Filter => filter,
    Distill => distill,
    Convert => convert,
    Join => join,
    Collect => collect,
    Pack => pack,
    Verify => verify,
    Unpack => unpack,
    Send => send,
    Drill => drill,
    GenDocs => gen_docs,
}

/// Gets usable evidence out of a crashed Linux kernel.
///
/// stdout is the answer, stderr is progress and notes. The exit code tells how it ended: 0 done, 2 wrong use,
/// 3 input not usable, 4 done in part, 5 verification failed, 6 transfer failed, 7 not permitted, 8 no space,
/// 10 findings, 130 interrupted, 1 a bug in kdt.
#[derive(Debug, Parser)]
#[command(
    name = "kdt",
    version,
    propagate_version = true,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        help = "Colours: auto, always or never"
    )]
    color: Color,
    /// Say only the answer and errors: no notes, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// The streams.
    pub output: Output,
    /// Set when somebody presses Ctrl-C or ends the program.
    pub cancel: Cancel,
    /// The flag behind `cancel`, for libraries that take the flag itself.
    pub stop: Arc<AtomicBool>,
}

/// A command's own code.
pub trait Run {
    /// Does the work. What it answers goes to `context.output`; what stops it is returned.
    ///
    /// # Errors
    /// What stopped it, with the exit code and the next step.
    fn run(self, context: &Context) -> Outcome;
}

/// `--format`, for a person or for a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for a person.
    #[default]
    Human,
    /// A document with a version.
    Json,
}

/// This program, as documents name it.
#[must_use]
pub fn tool() -> Tool {
    Tool { name: "kdt".into(), version: env!("CARGO_PKG_VERSION").into() }
}

/// The clap description of the whole command line, for documents and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Understands the words, runs the command, says what stopped it, and returns how it ended.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    install_panic_hook();
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return usage::end(&error),
    };
    let settings = Settings { color: cli.color, quiet: cli.quiet, verbose: cli.verbose };
    output::log::start(settings);
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(failure) => {
            output::last_words(&failure);
            return failure.exit;
        }
    };
    let context = Context { output: Output::new(settings), cancel: Cancel::from(Arc::clone(&stop)), stop };
    let command = cli.command;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| command.run(&context)));
    if let Some(most) = resident_at_most() {
        tracing::info!("memory: {most} resident at most");
    }
    match outcome {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            let interrupted = context.cancel.is_cancelled() && failure.exit != Exit::Interrupted;
            let failure = if interrupted { Failure::interrupted() } else { failure };
            context.output.failure(&failure);
            failure.exit
        }
        // The panic hook has said it.
        Err(_) => Exit::Internal,
    }
}

/// A person gets a sentence and what to do with it; whoever sets `RUST_BACKTRACE` gets the backtrace too.
fn install_panic_hook() {
    let with_backtrace = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            with_backtrace(info);
        }
        let place = info.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
        let what = info.payload_as_str().unwrap_or("no message");
        output::last_words(&Failure::internal(format!("kdt ran into a bug at {place}: {what}")));
    }));
}

/// The first Ctrl-C (or SIGTERM, SIGHUP) asks the work to stop at a safe point; the second ends it where it is.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        let status = i32::from(Exit::Interrupted.code());
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|error| Failure::internal(format!("can't catch signal {signal}: {error}")))?;
    }
    // A file that grows past `ulimit -f` is an error of the write then (EFBIG), as a full disk is, and not the end of the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .map_err(|error| Failure::internal(format!("can't catch SIGXFSZ: {error}")))?;
    Ok(flag)
}

/// The most memory that was resident so far, in the kernel's words: a capture kernel has little of it.
fn resident_at_most() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|kib| kib.trim().to_owned())
}

/// The program `name` beside the running `kdt`, else in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|kdt| kdt.parent().map(|dir| dir.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|file| is_executable(file))
}

fn is_executable(file: &std::path::Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for sub in command().get_subcommands() {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.len() > 10, "kdt {} has no help text", sub.get_name());
        }
    }
}
