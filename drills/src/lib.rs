//! Rehearses kernel failures, from the panic to the unpacked evidence.
//!
//! - [`world`]: where a rehearsal plays: a guest under QEMU, and the talk with it.
//! - [`lab`]: real kernels crash for real, and real dumps come out, all of it from Debian packages.
//! - [`cli`]: the program `kdt-drill`.
//!
//! This crate calls the built `kdt` as a user would; it uses no library of the product that it rehearses.

pub mod cli;
pub mod lab;
pub mod world;
