//! `kdt-drill`: rehearses kernel failures.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use drills::cli::{Cli, Environment};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = Environment::of_this_process();
    let code = drills::cli::run(&cli, &environment, &mut io::stdout().lock(), &mut io::stderr().lock());
    ExitCode::from(code)
}
