//! `kdt drill`: hands its words to `kdt-drill`, the program that rehearses.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process;

use super::{Context, Run, find_program};
use crate::exit::{Exit, Failure, Outcome};

/// The program that knows the drills.
const PROGRAM: &str = "kdt-drill";

/// Rehearse a failure, from the panic to the unpacked evidence
///
/// Runs the program kdt-drill, which lies beside kdt or in PATH, with the words that follow, and ends with its
/// exit code. `kdt drill --help` shows what it can do.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// What to rehearse: list, show, run, report
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    words: Vec<OsString>,
}

impl Run for Args {
    fn run(self, _context: &Context) -> Outcome {
        let Some(program) = find_program(PROGRAM) else {
            return Err(Failure::new(
                Exit::Input,
                format!("the program {PROGRAM} is neither beside kdt nor in PATH"),
                "install the drills where kdt is: cargo install --path drills",
            ));
        };
        // Only a failure returns: the drill takes this process over, and with it terminal, signals and exit code.
        let error = process::Command::new(&program).args(&self.words).exec();
        Err(Failure::io("run", &program, &error))
    }
}
