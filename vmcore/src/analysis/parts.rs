//! The analyses that stand beside each other: each looks at one subsystem and brings one part of the report. They run in
//! parallel, each within its own time, and one that fails takes none of the others down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::follow::{Ended, Follow};
use super::subject::Subject;
use super::triage::{LEFT_OUT, Options, Section, Steps};
use super::{irqs, settings, timers, trace, workqueues};
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::printk::KernelLog;
use crate::kernel::reader::Reader;
use crate::kernel::task::Tasks;
use crate::kernel::{Gap, Kernel};
use crate::limits::Limits;
use crate::progress::{Cancel, Progress};
use crate::report::{Finding, NotLookedAt, Report, StepTime};
use crate::unwind::Unwinder;
use crate::xlat::KernelMemory;

/// `PAGE_SIZE` where VMCOREINFO does not tell: `x86_64` has no other.
const PAGE: u64 = 4096;

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

impl<'a> Context<'a> {
    /// What the readers of the kernel's subsystems need.
    pub(super) fn reader(&self) -> Reader<'a, 'a> {
        let page_size = self.kernel.facts().page_size.filter(|n| *n > 0).unwrap_or(PAGE);
        Reader::new(self.memory, self.description, self.per_cpu, self.limits, page_size)
    }
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

/// The reason for what is not all because the time was up.
const STOPPED: &str = "stopped at budget: its time was up, and what is shown is not all";

type Fill = Box<dyn FnOnce(&mut Report) + Send>;

/// What an analysis brings.
#[derive(Default)]
pub(super) struct Part {
    fill: Option<Fill>,
    /// What is worth a person's attention.
    pub(super) findings: Vec<Finding>,
    /// What could not be had.
    pub(super) not_looked_at: Vec<NotLookedAt>,
    stopped: bool,
}

impl Part {
    /// A part that writes itself into the report.
    pub(super) fn new(fill: impl FnOnce(&mut Report) + Send + 'static) -> Self {
        Self { fill: Some(Box::new(fill)), ..Self::default() }
    }

    /// Says what could not be had, and why.
    pub(super) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let why = why.into();
        self.stopped |= why == STOPPED;
        self.not_looked_at.push(NotLookedAt { what: what.into(), why });
    }

    /// The same for what the kernel's readers could not have; `of` is the field of the report.
    pub(super) fn gaps(&mut self, of: &str, gaps: &[Gap]) {
        for gap in gaps {
            self.skip(format!("{of}: {}", gap.what), gap.why.clone());
        }
    }

    /// Says that the time was up before all was seen.
    pub(super) fn stopped(&mut self, what: &str) {
        self.skip(what, STOPPED);
    }
}

/// One analysis.
struct Analysis {
    section: Section,
    run: fn(&Context<'_>, &Clock) -> Part,
}

/// What comes first: what happened, which the others do not ask for and a person does.
const FIRST: &[Analysis] = &[
    Analysis { section: Section::Panic, run: super::panic::scene::run },
    Analysis { section: Section::Events, run: super::panic::events::run },
];

/// All the others, in the order in which their findings come.
const OTHERS: &[Analysis] = &[
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
    Analysis { section: Section::DeviceMapper, run: super::device_mapper::run },
    Analysis { section: Section::Md, run: super::md::run },
    Analysis { section: Section::Virtio, run: super::virtio::run },
    Analysis { section: Section::Net, run: super::net::run },
    Analysis { section: Section::UnixSockets, run: super::unix::run },
    Analysis { section: Section::Softnet, run: super::softnet::run },
    Analysis { section: Section::Cgroups, run: super::cgroups::run },
    Analysis { section: Section::Memory, run: super::memory::memory },
    Analysis { section: Section::Slab, run: super::memory::slab },
];

/// An analysis that knows what it looks at.
type Bound<'a> = (Section, Box<dyn Fn(&Clock) -> Part + Sync + 'a>);

/// How the analyses are run, and who hears of it.
#[derive(Clone, Copy)]
pub(super) struct Runner<'a> {
    pub(super) options: &'a Options,
    pub(super) progress: &'a dyn Progress,
    pub(super) follow: &'a dyn Follow,
    pub(super) cancel: &'a Cancel,
}

impl Runner<'_> {
    /// Runs what tells what happened. What it brings goes into the report with [`Brought::put_into`].
    pub(super) fn first(&self, context: &Context<'_>) -> Brought {
        self.beside(&bind(FIRST, context), context.report)
    }

    /// Runs the others.
    pub(super) fn others(&self, context: &Context<'_>) -> Brought {
        self.beside(&bind(OTHERS, context), context.report)
    }

    /// Runs those that are wanted beside each other.
    fn beside(&self, analyses: &[Bound<'_>], report: &Report) -> Brought {
        self.progress.step("analyse", u64::try_from(analyses.len()).ok());
        let parts = Mutex::new(without_lists(report));
        let one = |(section, run): &Bound<'_>| {
            let start = Instant::now();
            let (mut part, how) = self.one(*section, run);
            let fill = part.fill.take();
            {
                // One that panicked while it told of its part leaves a report that is good enough to be told of.
                let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(fill) = fill {
                    fill(&mut parts);
                }
                self.follow.ended(*section, how, &part.findings, &parts);
            }
            self.progress.advance(1);
            (part, StepTime { name: section.name().into(), s: start.elapsed().as_secs_f64() })
        };
        let (said, steps) = analyses.par_iter().map(one).unzip();
        Brought { report: parts.into_inner().unwrap_or_else(PoisonError::into_inner), said, steps }
    }

    fn one(&self, section: Section, run: &(dyn Fn(&Clock) -> Part + Sync)) -> (Part, Ended) {
        let name = section.name();
        if !self.options.wants(section) {
            let mut part = Part::default();
            part.skip(name, LEFT_OUT);
            return (part, Ended::LeftOut);
        }
        self.follow.began(section);
        let clock = Clock::new(self.options.analysis_time, self.cancel);
        match catch_unwind(AssertUnwindSafe(|| run(&clock))) {
            Ok(part) if part.stopped => (part, Ended::Stopped),
            Ok(part) => (part, Ended::Done),
            Err(_) => {
                let mut part = Part::default();
                part.skip(name, "this analysis met a fault of its own and was ended; please report it");
                (part, Ended::Failed)
            }
        }
    }
}

fn bind<'a>(analyses: &'a [Analysis], context: &'a Context<'a>) -> Vec<Bound<'a>> {
    let one = |analysis: &'a Analysis| -> Bound<'a> {
        (analysis.section, Box::new(move |clock: &Clock| (analysis.run)(context, clock)))
    };
    analyses.iter().map(one).collect()
}

/// The report but for its long lists, which analyses read and none writes.
fn without_lists(report: &Report) -> Report {
    Report {
        dump: report.dump.clone(),
        kernel: report.kernel.clone(),
        symbols: report.symbols.clone(),
        panic: report.panic.clone(),
        events: report.events.clone(),
        findings: report.findings.clone(),
        not_looked_at: report.not_looked_at.clone(),
        ..Report::empty(&report.tool.name, &report.tool.version, &report.dump.path)
    }
}

/// What analyses brought.
pub(super) struct Brought {
    /// Their parts, in a report without the long lists.
    report: Report,
    /// What else they said, in the order of the analyses.
    said: Vec<Part>,
    steps: Vec<StepTime>,
}

impl Brought {
    /// Puts the parts into the report that the analyses were given, what they said in their order.
    pub(super) fn put_into(self, report: &mut Report, steps: &mut Steps) {
        let mut whole = self.report;
        whole.log = std::mem::take(&mut report.log);
        whole.tasks = std::mem::take(&mut report.tasks);
        whole.cpus = std::mem::take(&mut report.cpus);
        whole.modules = std::mem::take(&mut report.modules);
        for part in self.said {
            whole.findings.extend(part.findings);
            for skipped in part.not_looked_at {
                // What the log alone tells of the panic was looked at, or left out, before.
                if !whole.not_looked_at.contains(&skipped) {
                    whole.not_looked_at.push(skipped);
                }
            }
        }
        *report = whole;
        for step in self.steps {
            steps.note(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Quiet;
    use crate::report::{Confidence, Irq, Severity};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Passes on each analysis that ended, with the number of interrupts in the parts so far.
    struct Told(Mutex<Sender<(Section, Ended, usize)>>);

    impl Follow for Told {
        fn ended(&self, section: Section, how: Ended, _: &[Finding], parts: &Report) {
            let _ = self.0.lock().unwrap().send((section, how, parts.irqs.len()));
        }
    }

    fn irqs() -> Part {
        let mut part = Part::new(|report| report.irqs = vec![Irq::default()]);
        part.findings.push(Finding::new("KD-X", Severity::Info, Confidence::Certain, "x"));
        part
    }

    /// Runs them on two threads, and what hears of them.
    fn run(analyses: &[Bound<'_>], follow: &dyn Follow) -> Report {
        let (options, cancel) = (Options::new("kdt", "test"), Cancel::default());
        let runner = Runner { options: &options, progress: &Quiet, follow, cancel: &cancel };
        let mut report = Report::empty("kdt", "test", "dump");
        report.log.records = Some(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let brought = pool.install(|| runner.beside(analyses, &report));
        let mut steps = Steps::new();
        brought.put_into(&mut report, &mut steps);
        report
    }

    #[test]
    fn a_part_is_told_while_another_analysis_still_runs() {
        let (send, told): (_, Receiver<_>) = channel();
        let told = Mutex::new(told);
        let heard = Mutex::new(None);
        // It ends only when somebody has heard of the other one.
        let waits = |_: &Clock| {
            *heard.lock().unwrap() = Some(told.lock().unwrap().recv().unwrap());
            Part::new(|report| report.mounts = Vec::new())
        };
        let analyses: [Bound<'_>; 2] =
            [(Section::Irqs, Box::new(|_: &Clock| irqs())), (Section::Mounts, Box::new(waits))];
        let report = run(&analyses, &Told(Mutex::new(send)));
        assert_eq!(*heard.lock().unwrap(), Some((Section::Irqs, Ended::Done, 1)));
        assert_eq!((report.irqs.len(), report.findings.len(), report.log.records), (1, 1, Some(1)));
    }

    #[test]
    fn one_that_fails_is_named_and_takes_no_other_down() {
        let (send, told) = channel();
        let fails: Bound<'_> =
            (Section::Slab, Box::new(|_: &Clock| std::panic::panic_any("a fault of the analysis")));
        let stops = |_: &Clock| {
            let mut part = Part::default();
            part.stopped("mounts");
            part
        };
        let analyses: [Bound<'_>; 3] =
            [fails, (Section::Mounts, Box::new(stops)), (Section::Irqs, Box::new(|_: &Clock| irqs()))];
        let report = run(&analyses, &Told(Mutex::new(send)));
        assert_eq!(report.irqs.len(), 1);
        let named: Vec<&str> = report.not_looked_at.iter().map(|skipped| skipped.what.as_str()).collect();
        assert_eq!(named, ["slab", "mounts"]);
        let why = |n: usize| report.not_looked_at[n].why.as_str();
        assert!(why(0).contains("fault of its own") && why(1).contains("stopped at budget"));
        let mut ends: Vec<_> = told.try_iter().map(|(section, how, _)| (section, how)).collect();
        ends.sort_by_key(|(section, _)| section.name());
        assert_eq!(
            ends,
            [(Section::Irqs, Ended::Done), (Section::Mounts, Ended::Stopped), (Section::Slab, Ended::Failed)]
        );
    }
}
