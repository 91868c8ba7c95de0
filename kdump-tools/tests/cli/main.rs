//! `kdt` as a user meets it: the real program, its words, its exit codes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: what can't go on ends there"
)]

mod bad_input;
mod check;
mod convert;
mod debuginfo;
mod dumps;
mod examples;
mod failures;
mod filter;
mod frame;
mod real;
mod scrub;
mod similar;
mod support;
