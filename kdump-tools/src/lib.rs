//! kdt, the kernel-crash and memory-dump triage toolkit: the command line over `vmcore` and `sosreport-lite`.
//!
//! - [`cli`]: one module a command; each parses its words, calls the libraries, and hands data to `output`.
//! - [`escalate`]: the main job in one go, from the dump to the verified package.
//! - [`output`]: the only place that prints. It escapes what comes from dumps and file names, knows colours,
//!   progress bars and closed pipes.
//! - [`exit`]: the exit codes, and which error ends with which of them.
//! - [`pack`]: files of any size, compressed, cut into verified parts, and given back.
//! - [`debuginfo`]: finds debuginfo on disk and on debuginfod servers.
//! - [`discover`]: which of the files below a directory are dumps, and which of them belong together.
//! - [`host`]: what a host bundle and a dump tell together.
//! - [`similar`]: whether a crash was seen before, from a folder of reports.
//! - [`size`]: sizes as people write them, `4MiB`.
//! - [`transfer`]: brings a package elsewhere, and gets a receipt for it.
//!
//! ```
//! use kdump_tools::size::Size;
//! assert_eq!("4MiB".parse::<Size>()?.bytes(), 4 << 20);
//! # Ok::<(), kdump_tools::size::SizeError>(())
//! ```

use std::ffi::OsString;
use std::process::ExitCode;

pub mod cli;
pub mod debuginfo;
pub mod discover;
pub mod escalate;
pub mod exit;
pub mod host;
pub mod output;
pub mod pack;
pub mod similar;
pub mod size;
pub mod transfer;

/// Runs `kdt` with these words (the first is the program's name) and returns its exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    // `kdt collect` starts this program again to read files that may hang.
    if let Some(code) = sosreport_lite::serve_if_asked(words.iter().cloned()) {
        return code;
    }
    if cli::makedumpfile::is_called(&words) {
        return ExitCode::from(cli::makedumpfile::run(&words));
    }
    ExitCode::from(cli::run(words).code())
}
