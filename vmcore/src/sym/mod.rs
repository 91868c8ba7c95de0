//! What the dumped kernel knows of itself: its symbols, its types, and those of its modules. Needs no debuginfo.
//!
//! [`kallsyms`] and [`modules`] tell names and addresses, [`btf`] tells types, [`globals`] which variable has which type. A table
//! that is there in part is read in part and says so. This module follows no list and knows no structure of the kernel but those
//! that describe symbols.

pub mod btf;
pub mod build_id;
pub mod dwarf;
pub mod find;
pub mod globals;
mod image;
pub mod kallsyms;
pub mod modules;
mod symbols;

use std::fmt;
use std::sync::Arc;

pub use symbols::{SymbolAt, Symbols};

use crate::addr::KVirtAddr;

/// A symbol of the dumped kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Where it is. For a per-CPU symbol: where it is before the CPU's offset is added.
    pub address: KVirtAddr,
    /// Bytes up to the next symbol: at least what it has, padding included. `None` where that can't be told.
    pub size: Option<u64>,
    /// The letter that `nm` prints: `T` and `t` text, `D`, `d`, `B`, `b` data, `R`, `r` read-only data; `?` where it is not known.
    pub letter: char,
    /// The module that it is of; `None` for the kernel itself.
    pub module: Option<Arc<str>>,
    /// True where the address needs a CPU's offset.
    pub per_cpu: bool,
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}
