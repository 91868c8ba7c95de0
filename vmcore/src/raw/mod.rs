//! Layouts of the structures in dump files, and nothing else: no I/O, no opinion on what is valid.
//!
//! The names are those of the program that writes the structure; every size is asserted.

pub mod btf;
pub mod diskdump;
pub mod elf;
pub mod flattened;
pub mod orc;
pub mod qemu;
