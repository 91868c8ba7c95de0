//! What happened to the kernel. Analyses return data with their evidence, and print nothing.

pub mod budget;
pub mod completeness;
pub mod identity;
pub mod log;
pub mod panic;
pub mod subject;
pub mod taint;
pub mod triage;
pub mod verdict;
