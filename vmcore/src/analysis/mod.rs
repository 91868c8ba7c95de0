//! What happened to the kernel. Analyses return data with their evidence, and print nothing.

pub mod panic;
