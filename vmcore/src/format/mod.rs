//! Dump formats: which frames a file holds, and what it says of itself.

pub mod vmcoreinfo;
