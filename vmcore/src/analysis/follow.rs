//! How who asked for an analysis hears of its results before all of it is done.

use super::triage::Section;
use crate::report::{Finding, Report};

/// How far a report has come. What a stage brings does not change any more, but for source lines, which come last of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The file, the kernel, its log, and what the log tells of the panic.
    Log,
    /// Modules, tasks with their stacks, CPUs, and on which CPU and in which task the panic was.
    Tasks,
    /// The instruction that failed, its registers, who is likely to be at fault, and what went before.
    Scene,
}

/// How an analysis ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// It looked at all that it wanted to.
    Done,
    /// Its time was up: what it brings is not all.
    Stopped,
    /// It met a fault of its own and brings nothing.
    Failed,
    /// Nobody asked for it.
    LeftOut,
}

/// Is told of the parts of a report as they are done. Calls come from the threads of the analyses, one at a time: who takes long
/// over one holds up the analyses that have ended meanwhile, and costs none of them its time.
pub trait Follow: Send + Sync {
    /// The report has come as far as this stage.
    fn reached(&self, _stage: Stage, _report: &Report) {}
    /// An analysis begins.
    fn began(&self, _section: Section) {}
    /// An analysis has ended, with these findings. `parts` has what the analyses have brought so far, and what stands in a report besides:
    /// file, kernel and panic; its log, tasks, CPUs and modules are not in it, and findings come all together in the report that is whole.
    fn ended(&self, _section: Section, _how: Ended, _findings: &[Finding], _parts: &Report) {}
}

/// Nobody follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Follow for Alone {}
