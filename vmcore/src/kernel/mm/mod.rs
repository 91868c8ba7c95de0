//! How the kernel's memory is used: the counters behind `/proc/meminfo`, the zones, and what each process has.
//!
//! Members, enumerators and their places come from the dump's types. A counter that can't be read is a [`Gap`](super::Gap), never a zero.

pub mod counters;
pub mod huge;
pub mod process;
pub mod swap;
pub mod vmalloc;
pub mod zone;
