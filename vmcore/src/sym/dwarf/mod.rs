//! Debuginfo, where there is some: a vmlinux or a module's file with DWARF, opened beside the dump.
//!
//! [`Debuginfo`] is such a file; nothing of it is read before it is asked for. [`check`] says whether it belongs to the dumped
//! kernel, [`Lines`] which source line and which inlined functions an address belongs to, [`types`] turns its types into the
//! table that BTF would be, [`LinkedSymbols`] its symbol table into the kernel's. None of it is needed: a dump with BTF and
//! kallsyms tells all but the lines.

mod error;
mod file;
mod index;
mod lines;
mod module;
mod symtab;
pub mod types;
mod unpack;
mod witness;

pub use error::{DebuginfoError, DebuginfoErrorKind};
pub use file::Debuginfo;
pub use lines::{Lines, Location};
pub use module::place_module;
pub use symtab::LinkedSymbols;
pub use witness::{Agreement, Proof, check};
