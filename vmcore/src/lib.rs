//! Reads Linux kernel memory dumps: opens them, translates addresses, and says what happened.
//!
//! Data flows one way, and a module uses only what stands before it:
//! `addr, limits, progress, error → raw → source → format → mem → xlat → kernel → report → analysis`.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod addr;
pub mod analysis;
pub mod error;
pub mod format;
pub mod kernel;
pub mod limits;
pub mod mem;
pub mod progress;
pub mod report;
pub mod source;
pub mod xlat;
