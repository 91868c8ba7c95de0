//! What happened to the kernel. Analyses return data with their evidence, and print nothing.

mod blocked;
pub mod budget;
pub mod completeness;
mod cpus;
pub mod identity;
mod inside;
mod irqs;
mod lockup;
pub mod log;
mod machine;
mod modules;
pub mod panic;
mod parts;
mod settings;
pub mod source_lines;
mod stacks;
pub mod subject;
pub mod taint;
mod tasks;
mod ticks;
mod timers;
mod trace;
pub mod triage;
pub mod verdict;
mod workqueues;
