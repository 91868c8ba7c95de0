//! `kdt`: the kernel-crash and memory-dump triage toolkit.

use std::process::ExitCode;

fn main() -> ExitCode {
    kdump_tools::main(std::env::args_os())
}
