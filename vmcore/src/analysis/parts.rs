//! The analyses that stand beside each other: each looks at one subsystem and brings one part of the report. They run in
//! parallel, each within its own time, and one that fails takes none of the others down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::subject::Subject;
use super::triage::{LEFT_OUT, Options, Section, Steps};
use super::{irqs, settings, timers, trace, workqueues};
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::printk::KernelLog;
use crate::kernel::task::Tasks;
use crate::kernel::{Gap, Kernel};
use crate::limits::Limits;
use crate::progress::{Cancel, Progress};
use crate::report::{Finding, NotLookedAt, Report, StepTime};
use crate::unwind::Unwinder;
use crate::xlat::KernelMemory;

/// What an analysis is given: an opened kernel that has described itself, and the report as far as it has come (kernel, log, panic,
/// modules, CPUs, and tasks with their stacks).
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) kernel: &'a Kernel<'a>,
    pub(super) memory: &'a KernelMemory<'a>,
    pub(super) description: &'a Description,
    pub(super) per_cpu: &'a PerCpu,
    pub(super) tasks: &'a Tasks,
    pub(super) unwinder: &'a Unwinder<'a>,
    pub(super) log: Option<&'a KernelLog>,
    pub(super) report: &'a Report,
    pub(super) limits: &'a Limits,
}

/// How long an analysis may still take.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    until: Option<Instant>,
    cancel: Cancel,
}

impl Clock {
    fn new(time: Duration, cancel: &Cancel) -> Self {
        Self { until: Instant::now().checked_add(time), cancel: cancel.clone() }
    }

    /// True once the analysis should end with what it has; it then says so with [`Part::stopped`].
    pub(super) fn is_spent(&self) -> bool {
        self.cancel.is_cancelled() || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

type Fill = Box<dyn FnOnce(&mut Report) + Send>;

/// What an analysis brings.
#[derive(Default)]
pub(super) struct Part {
    fill: Option<Fill>,
    /// What is worth a person's attention.
    pub(super) findings: Vec<Finding>,
    /// What could not be had.
    pub(super) not_looked_at: Vec<NotLookedAt>,
}

impl Part {
    /// A part that writes itself into the report.
    pub(super) fn new(fill: impl FnOnce(&mut Report) + Send + 'static) -> Self {
        Self { fill: Some(Box::new(fill)), ..Self::default() }
    }

    /// Says what could not be had, and why.
    pub(super) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.not_looked_at.push(NotLookedAt { what: what.into(), why: why.into() });
    }

    /// The same for what the kernel's readers could not have; `of` is the field of the report.
    pub(super) fn gaps(&mut self, of: &str, gaps: &[Gap]) {
        for gap in gaps {
            self.skip(format!("{of}: {}", gap.what), gap.why.clone());
        }
    }

    /// Says that the time was up before all was seen.
    pub(super) fn stopped(&mut self, what: &str) {
        self.skip(what, "stopped at budget: its time was up, and what is shown is not all");
    }
}

/// One analysis.
struct Analysis {
    section: Section,
    run: fn(&Context<'_>, &Clock) -> Part,
}

/// All of them, in the order in which their parts and findings come.
const ANALYSES: &[Analysis] = &[
    Analysis { section: Section::Panic, run: super::panic::scene::run },
    Analysis { section: Section::Events, run: super::panic::events::run },
    Analysis { section: Section::Blocked, run: super::blocked::run },
    Analysis { section: Section::Console, run: super::console::run },
    Analysis { section: Section::RunQueues, run: super::lockup::run },
    Analysis { section: Section::Irqs, run: irqs::run },
    Analysis { section: Section::WorkQueues, run: workqueues::run },
    Analysis { section: Section::Timers, run: timers::run },
    Analysis { section: Section::Settings, run: settings::run },
    Analysis { section: Section::Trace, run: trace::run },
    Analysis { section: Section::Mounts, run: super::mounts::run },
    Analysis { section: Section::BlockIo, run: super::block_io::run },
    Analysis { section: Section::Net, run: super::net::run },
    Analysis { section: Section::Cgroups, run: super::cgroups::run },
    Analysis { section: Section::Memory, run: super::memory::memory },
    Analysis { section: Section::Slab, run: super::memory::slab },
];

/// Runs those that are wanted, and puts their parts into the report.
pub(super) fn run(
    context: &Context<'_>,
    options: &Options,
    progress: &dyn Progress,
    cancel: &Cancel,
    steps: &mut Steps,
) -> Vec<(&'static str, Part)> {
    progress.step("analyse", u64::try_from(ANALYSES.len()).ok());
    let one = |analysis: &Analysis| {
        let name = analysis.section.name();
        if !options.wants(analysis.section) {
            let mut part = Part::default();
            part.skip(name, LEFT_OUT);
            return (name, part, 0.0);
        }
        let start = Instant::now();
        let clock = Clock::new(options.analysis_time, cancel);
        let part = catch_unwind(AssertUnwindSafe(|| (analysis.run)(context, &clock))).unwrap_or_else(|_| {
            let mut part = Part::default();
            part.skip(name, "this analysis met a fault of its own and was ended; please report it");
            part
        });
        progress.advance(1);
        (name, part, start.elapsed().as_secs_f64())
    };
    let done: Vec<_> = ANALYSES.par_iter().map(one).collect();
    let mut parts = Vec::new();
    for (name, part, s) in done {
        steps.note(StepTime { name: name.into(), s });
        parts.push((name, part));
    }
    parts
}

/// Puts the parts into the report, in their order.
pub(super) fn fill(report: &mut Report, parts: Vec<(&'static str, Part)>) {
    for (_, part) in parts {
        if let Some(fill) = part.fill {
            fill(report);
        }
        report.findings.extend(part.findings);
        for skipped in part.not_looked_at {
            // What the log alone tells of the panic was looked at, or left out, before.
            if !report.not_looked_at.contains(&skipped) {
                report.not_looked_at.push(skipped);
            }
        }
    }
}
