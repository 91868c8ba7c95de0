//! The first analysis of a dump, from the file to the report. Each step has its time, and what one step can't find
//! out costs none of the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::follow::{Alone, Follow, Stage};
use super::inside::Inside;
use super::parts::Runner;
use super::subject::Subject;
use super::{completeness, cpus, identity, log, panic, signature, source_lines, taint, verdict};
use crate::kernel::describe::Description;
use crate::kernel::printk::{KernelLog, LogError};
use crate::kernel::{self, Kernel};
use crate::limits::Limits;
use crate::progress::{Cancel, Progress};
use crate::report::{Confidence, Finding, Report, Severity, StepTime, Timings};
use crate::sym::find::Finder;

/// A part of the report that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Section {
    /// Who the kernel is.
    Kernel,
    /// Its log.
    Log,
    /// What it died of.
    Panic,
    /// Its CPUs.
    Cpus,
    /// Its tasks.
    Tasks,
    /// The callers of its tasks.
    Stacks,
    /// Its modules.
    Modules,
    /// Who waits for whom.
    Blocked,
    /// The consoles and their lock.
    Console,
    /// The run queues, lockups and stalls.
    RunQueues,
    /// How the memory was used.
    Memory,
    /// The slab caches.
    Slab,
    /// The mounted filesystems and open files.
    Mounts,
    /// The interrupts.
    Irqs,
    /// The block devices and their requests in flight.
    BlockIo,
    /// The devices of device-mapper and their paths.
    DeviceMapper,
    /// The arrays of md.
    Md,
    /// The virtio devices and their queues.
    Virtio,
    /// The network devices and sockets.
    Net,
    /// The sockets of `AF_UNIX`.
    UnixSockets,
    /// The packets that each CPU received and dropped.
    Softnet,
    /// The workqueues.
    WorkQueues,
    /// The timers.
    Timers,
    /// The control groups.
    Cgroups,
    /// Settings that matter for a crash, BPF programs, livepatches.
    Settings,
    /// The last events of the trace buffer.
    Trace,
    /// What the log tells of before the end.
    Events,
}

impl Section {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 27] = [
        Self::Kernel,
        Self::Log,
        Self::Panic,
        Self::Cpus,
        Self::Tasks,
        Self::Stacks,
        Self::Modules,
        Self::Blocked,
        Self::Console,
        Self::RunQueues,
        Self::Memory,
        Self::Slab,
        Self::Mounts,
        Self::Irqs,
        Self::BlockIo,
        Self::DeviceMapper,
        Self::Md,
        Self::Virtio,
        Self::Net,
        Self::UnixSockets,
        Self::Softnet,
        Self::WorkQueues,
        Self::Timers,
        Self::Cgroups,
        Self::Settings,
        Self::Trace,
        Self::Events,
    ];

    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Log => "log",
            Self::Panic => "panic",
            Self::Cpus => "cpus",
            Self::Tasks => "tasks",
            Self::Stacks => "stacks",
            Self::Modules => "modules",
            Self::Blocked => "blocked",
            Self::Console => "console",
            Self::RunQueues => "runqueues",
            Self::Memory => "memory",
            Self::Slab => "slab",
            Self::Mounts => "mounts",
            Self::Irqs => "irqs",
            Self::BlockIo => "block_io",
            Self::DeviceMapper => "device_mapper",
            Self::Md => "md",
            Self::Virtio => "virtio",
            Self::Net => "net",
            Self::UnixSockets => "unix_sockets",
            Self::Softnet => "softnet",
            Self::WorkQueues => "workqueues",
            Self::Timers => "timers",
            Self::Cgroups => "cgroups",
            Self::Settings => "settings",
            Self::Trace => "trace",
            Self::Events => "events",
        }
    }
}

/// How a dump is analysed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The program that asks, for the report.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Only these parts; all where it is empty.
    pub only: Vec<Section>,
    /// How long the search of all memory for VMCOREINFO may take.
    pub scan_time: Duration,
    /// How long each of the analyses that run beside each other may take.
    pub analysis_time: Duration,
    /// Ceilings for what comes from the dump.
    pub limits: Limits,
    /// Who finds debuginfo, where it is wanted.
    pub debuginfo: Option<Arc<dyn Finder>>,
}

impl Options {
    /// All parts, with the usual ceilings.
    #[must_use]
    pub fn new(tool: &str, version: &str) -> Self {
        Self {
            tool: tool.into(),
            version: version.into(),
            only: Vec::new(),
            scan_time: Duration::from_mins(5),
            analysis_time: Duration::from_secs(20),
            limits: Limits::default(),
            debuginfo: None,
        }
    }

    pub(super) fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// Analyses one dump. It never fails: what can't be had is told in the report.
#[must_use]
pub fn triage(subject: &Subject<'_>, options: &Options, progress: &dyn Progress, cancel: &Cancel) -> Report {
    triage_followed(subject, options, progress, &Alone, cancel)
}

/// The same, and `follow` is told of each part as it is done. The report that is whole is the same whoever follows.
#[must_use]
pub fn triage_followed(
    subject: &Subject<'_>,
    options: &Options,
    progress: &dyn Progress,
    follow: &dyn Follow,
    cancel: &Cancel,
) -> Report {
    let start = Instant::now();
    let mut report = Report::empty(&options.tool, &options.version, &subject.dump.path);
    report.dump = subject.dump.clone();
    report.findings.extend(completeness::findings(&subject.dump));
    let of_the_file = report.findings.len();
    let mut steps = Steps::new();

    progress.step("find the kernel", None);
    let budget = Budget::new(options.scan_time, progress, cancel);
    let watched = kernel::Options::default().watched(budget.stop(), &budget);
    let kernel = Kernel::open(subject.memory, &subject.hints, watched);
    if budget.is_spent() {
        let seconds = options.scan_time.as_secs();
        report.skip("VMCOREINFO", format!("the search of all memory for it was stopped after {seconds} s"));
    }
    report.findings.extend(identity::findings(&kernel));
    steps.done("kernel");

    progress.step("read the log, symbols and types", None);
    let needs_structures = Section::ALL.iter().any(|part| *part != Section::Log && options.wants(*part));
    let finder = options.debuginfo.as_deref();
    let (logged, description) = rayon::join(
        || {
            let logged = kernel.log(&options.limits);
            fill_log(&mut report, &logged, options);
            fill_panic(&mut report, &kernel, &logged, options);
            fill_kernel(&mut report, subject, &kernel, &logged, options);
            // The log is there long before all names and types are.
            follow.reached(Stage::Log, &report);
            logged
        },
        || {
            let (memory, info) = (kernel.memory(), kernel.vmcoreinfo());
            needs_structures.then(|| Description::load_with(memory, info, &options.limits, finder))
        },
    );
    report.symbols = identity::symbols(&kernel, description.as_ref());
    steps.done("log, symbols and types");

    match &description {
        Some(description) => {
            progress.step("read the kernel's own structures", None);
            let log = logged.as_ref().ok();
            let runner = Runner { options, progress, follow, cancel };
            let inside = Inside { subject, kernel: &kernel, description, log, options, runner };
            let types = description.types.kernel().is_some().then_some(&description.types);
            let (overfiltered, ()) = rayon::join(
                || completeness::overfiltered(&subject.dump, &kernel, types),
                || inside.fill(&mut report, &mut steps),
            );
            report.findings.extend(overfiltered);
            source_lines::fill(&mut report, description, finder, kernel.vmcoreinfo().release());
            steps.done("source lines");
        }
        None => fill_cpus_from_notes(&mut report, subject, options),
    }

    taint::explain(&mut report, logged.as_ref().ok());
    verdict::explain_nmi(&mut report);
    panic::fault::explain(&mut report, description.as_ref());
    panic::fault::explain_poison(&mut report);
    verdict::explain_call(&mut report);
    verdict::explain_module(&mut report);
    report.findings.extend(verdict::in_interrupt(&report));
    if cancel.is_cancelled() {
        report.skip("the rest", "the analysis was interrupted");
    }
    if subject.dump.completeness.misplaced_pages > Some(0) {
        // What is read in pages that can be those of other frames is no evidence.
        completeness::doubt(report.findings.iter_mut().skip(of_the_file));
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report.signature = signature::of(&report);
    report.timings = Timings { total_s: start.elapsed().as_secs_f64(), steps: steps.times };
    report
}

/// Notes how long each step took.
pub(super) struct Steps {
    started: Instant,
    times: Vec<StepTime>,
}

impl Steps {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), times: Vec::new() }
    }

    /// Notes a step that ran beside others.
    pub(super) fn note(&mut self, step: StepTime) {
        self.times.push(step);
    }

    pub(super) fn done(&mut self, name: &str) {
        let s = self.started.elapsed().as_secs_f64();
        tracing::debug!("{name}: {:.1} ms", s * 1000.0);
        self.times.push(StepTime { name: name.into(), s });
        self.started = Instant::now();
    }
}

/// The reason for a part that nobody asked for.
pub const LEFT_OUT: &str = "--only left it out";

fn fill_log(report: &mut Report, logged: &Result<KernelLog, LogError>, options: &Options) {
    match logged {
        Ok(log) => {
            report.findings.extend(log::findings(log));
            if options.wants(Section::Log) {
                report.log = log::section(log);
                if log.unfinished > 0 {
                    report.skip(
                        "log",
                        format!(
                            "{} records were still being written when the kernel stopped",
                            log.unfinished
                        ),
                    );
                }
            } else {
                report.skip("log", LEFT_OUT);
            }
        }
        Err(error) => {
            report.findings.push(log::unreadable(error));
            report.skip("log", error.to_string());
        }
    }
}

fn fill_panic(
    report: &mut Report,
    kernel: &Kernel<'_>,
    logged: &Result<KernelLog, LogError>,
    options: &Options,
) {
    if !options.wants(Section::Panic) {
        report.skip("panic", LEFT_OUT);
        return;
    }
    let Ok(log) = logged else {
        report.skip("panic", "it is read from the kernel log, which can't be read");
        return;
    };
    let crashed = kernel.facts().crash_time.is_some();
    match panic::from_log(log, crashed) {
        Some(found) => {
            report.findings.push(verdict::finding(&found));
            report.panic = Some(found.to_report());
        }
        None => report.findings.push(no_panic(crashed, panic::last_trouble(log))),
    }
}

fn no_panic(crashed: bool, trouble: Option<String>) -> Finding {
    if crashed {
        let mut finding = Finding::new(
            "KD-PANIC-UNTOLD",
            Severity::Error,
            Confidence::Certain,
            "The kernel crashed, and its log does not tell of what.",
        )
        .because("VMCOREINFO has a CRASHTIME, which the kernel notes when it crashes")
        .because("the log has no panic and no oops at its end")
        .next("Look at the last lines of the log, and at the console of that host.")
        .by_hand_crash("log")
        .by_hand_crash("bt -a")
        .by_hand_drgn("prog.crashed_thread().stack_trace()");
        let last =
            trouble.map(|line| format!("the last trouble that it tells of, which need not be why: {line}"));
        finding.evidence.extend(last);
        return finding;
    }
    Finding::new(
        "KD-NO-PANIC",
        Severity::Info,
        Confidence::Likely,
        "The kernel had not panicked when the dump was taken.",
    )
    .because("the log has no panic and no oops at its end")
    .because("VMCOREINFO has no CRASHTIME, which the kernel notes when it crashes")
    .next("For a machine that hung: look at the last lines of the log and at what each CPU was at.")
    .by_hand_crash("bt -a")
    .by_hand_crash("foreach UN bt")
    .by_hand_drgn("[prog.stack_trace(cpu_curr(cpu)) for cpu in for_each_online_cpu()]")
}

fn fill_kernel(
    report: &mut Report,
    subject: &Subject<'_>,
    kernel: &Kernel<'_>,
    logged: &Result<KernelLog, LogError>,
    options: &Options,
) {
    if !options.wants(Section::Kernel) {
        report.skip("kernel", LEFT_OUT);
        return;
    }
    let log = logged.as_ref().ok();
    let found = identity::identify(subject, kernel, log);
    report.kernel = found.kernel;
    report.not_looked_at.extend(found.not_looked_at);
    report.kernel.taint = log.and_then(taint::from_log);
    if log.is_some() && report.kernel.taint.is_none() {
        report.skip("kernel.taint", "no line of the log tells it");
    }
}

fn fill_cpus_from_notes(report: &mut Report, subject: &Subject<'_>, options: &Options) {
    if !options.wants(Section::Cpus) {
        report.skip("cpus", LEFT_OUT);
    } else if subject.cpus.is_empty() {
        report.skip("cpus", "the dump has no register notes that kdt can read");
    } else {
        report.cpus = cpus::from_notes(&subject.cpus);
    }
}
