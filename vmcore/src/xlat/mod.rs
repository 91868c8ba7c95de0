//! Kernel virtual addresses to physical ones, and the bytes behind them.
//!
//! [`KernelMemory`] is what the rest reads through. It knows two ways: the page tables, and the two linear mappings that every
//! `x86_64` kernel has (text and direct map). The tables decide; the linear ways stand in only where a table is not in the dump,
//! and [`KernelMemory::stand_ins`] counts how often they did.
//! This module never prints, and never gives zeros for a page that is not there.

pub(crate) mod le;
mod leaves;
mod memory;
mod tables;
mod user;
pub mod x86_64;

pub use memory::{KernelMemory, Linear, Mapping, Missing, Sparse, Translation, Way};
pub use user::UserMemory;
