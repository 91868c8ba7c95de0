//! Files with debuginfo, made by the compiler of this host; where there is none, nothing is tried.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod build;
mod hostile;
mod lines;
mod real;
mod types;
