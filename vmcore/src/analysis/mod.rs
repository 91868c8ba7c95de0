//! What happened to the kernel. Analyses return data with their evidence, and print nothing.

mod block_io;
pub mod budget;
mod cgroups;
pub mod completeness;
mod cpus;
pub mod identity;
mod inside;
pub mod log;
mod machine;
mod modules;
mod mounts;
mod net;
pub mod panic;
mod parts;
pub mod source_lines;
mod stacks;
pub mod subject;
pub mod taint;
mod tasks;
pub mod triage;
pub mod verdict;
