//! What happened to the kernel. Analyses return data with their evidence, and print nothing.

pub mod budget;
pub mod completeness;
mod cpus;
pub mod identity;
mod inside;
pub mod log;
mod machine;
mod memory;
mod modules;
pub mod panic;
mod parts;
pub mod source_lines;
mod stacks;
pub mod subject;
pub mod taint;
mod tasks;
pub mod triage;
pub mod verdict;
