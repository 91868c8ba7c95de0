//! Rehearses kernel failures, from the panic to the unpacked evidence.
//!
//! - [`world`]: where a rehearsal plays: a guest under QEMU, and the talk with it.
//! - [`lab`]: real kernels crash for real, and real dumps come out, all of it from Debian packages.
//! - [`scenario`]: a drill as data; [`run`] carries it out with the real `kdt`, [`fault`] is the damage on the way,
//!   [`compare`] what the receiving side looks at, [`verdict`] what it showed.
//! - [`cli`]: the program `kdt-drill`.
//!
//! This crate calls the built `kdt` as a user would; it uses no library of the product that it rehearses.

pub mod cli;
pub mod compare;
pub mod fault;
pub mod lab;
pub mod run;
pub mod scenario;
pub mod verdict;
pub mod world;
