//! The first analysis of a dump, from the file to the report. Each step has its time, and what one step can't find
//! out costs none of the others.

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::subject::Subject;
use super::{completeness, identity, log, panic, taint, verdict};
use crate::format::PrStatus;
use crate::kernel::printk::{KernelLog, LogError};
use crate::kernel::{self, Kernel};
use crate::limits::Limits;
use crate::progress::{Cancel, Progress};
use crate::report::{Address, Confidence, Cpu, Finding, Report, Severity, StepTime, TaskRef, Timings};

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
}

impl Section {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Log, Self::Panic, Self::Cpus];

    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Log => "log",
            Self::Panic => "panic",
            Self::Cpus => "cpus",
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
    /// Ceilings for what comes from the dump.
    pub limits: Limits,
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
            limits: Limits::default(),
        }
    }

    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// What later parts of the report would need that is not read yet.
const NOT_READ: &[(&str, &str)] = &[
    ("tasks", UNREAD),
    ("modules", UNREAD),
    ("blocked", UNREAD),
    ("memory", UNREAD),
    ("slab", UNREAD),
    ("mounts", UNREAD),
    ("irqs", UNREAD),
    ("block_io", UNREAD),
    ("net", UNREAD),
    ("workqueues", UNREAD),
    ("runqueues", UNREAD),
    (
        "cpus.backtrace",
        "kdt does not walk stacks yet; panic.backtrace is the call trace that the kernel itself printed",
    ),
];
const UNREAD: &str = "kdt does not read these parts of the kernel yet";

/// Analyses one dump. It never fails: what can't be had is told in the report.
#[must_use]
pub fn triage(subject: &Subject<'_>, options: &Options, progress: &dyn Progress, cancel: &Cancel) -> Report {
    let start = Instant::now();
    let mut report = Report::empty(&options.tool, &options.version, &subject.dump.path);
    report.dump = subject.dump.clone();
    report.findings.extend(completeness::findings(&subject.dump));
    let mut steps = Steps::new();

    progress.step("find the kernel", None);
    let budget = Budget::new(options.scan_time, progress, cancel);
    let watched = kernel::Options::default().watched(budget.stop(), &budget);
    let kernel = Kernel::open(subject.memory, &subject.hints, watched);
    if budget.is_spent() {
        let seconds = options.scan_time.as_secs();
        report.skip("VMCOREINFO", format!("the search of all memory for it was stopped after {seconds} s"));
    }
    report.symbols = identity::symbols(&kernel);
    report.findings.extend(identity::findings(&kernel));
    steps.done("kernel");

    progress.step("read the log", None);
    let logged = kernel.log(&options.limits);
    fill_log(&mut report, &logged, options);
    steps.done("log");

    fill_panic(&mut report, &kernel, &logged, options);
    steps.done("panic");

    fill_kernel(&mut report, subject, &kernel, &logged, options);
    fill_cpus(&mut report, subject, options);
    steps.done("cpus");

    for (what, why) in NOT_READ {
        report.skip(*what, *why);
    }
    if cancel.is_cancelled() {
        report.skip("the rest", "the analysis was interrupted");
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report.timings = Timings { total_s: start.elapsed().as_secs_f64(), steps: steps.times };
    report
}

/// Notes how long each step took.
struct Steps {
    started: Instant,
    times: Vec<StepTime>,
}

impl Steps {
    fn new() -> Self {
        Self { started: Instant::now(), times: Vec::new() }
    }

    fn done(&mut self, name: &str) {
        let s = self.started.elapsed().as_secs_f64();
        tracing::debug!("{name}: {:.1} ms", s * 1000.0);
        self.times.push(StepTime { name: name.into(), s });
        self.started = Instant::now();
    }
}

const LEFT_OUT: &str = "--only left it out";

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
        None => report.findings.push(no_panic(crashed)),
    }
}

fn no_panic(crashed: bool) -> Finding {
    if crashed {
        return Finding::new(
            "KD-PANIC-UNTOLD",
            Severity::Error,
            Confidence::Certain,
            "The kernel crashed, and its log does not tell of what.",
        )
        .because("VMCOREINFO has a CRASHTIME, which the kernel notes when it crashes")
        .because("the log has no panic and no oops at its end")
        .next("Look at the last lines of the log, and at the console of that host.");
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

fn fill_cpus(report: &mut Report, subject: &Subject<'_>, options: &Options) {
    if !options.wants(Section::Cpus) {
        report.skip("cpus", LEFT_OUT);
        return;
    }
    if subject.cpus.is_empty() {
        report.skip("cpus", "the dump has no register notes that kdt can read");
        return;
    }
    report.cpus = subject.cpus.iter().map(cpu).collect();
    report.cpus.sort_by_key(|cpu| cpu.cpu);
    name_the_panicked_task(report);
    let announced = subject.header.cpus.and_then(|n| usize::try_from(n).ok());
    if let Some(announced) = announced.filter(|n| *n > subject.cpus.len()) {
        let found = subject.cpus.len();
        report.skip("cpus", format!("the dump has registers of {found} of {announced} CPUs: the others did not answer when the kernel stopped them"));
    }
}

fn cpu(status: &PrStatus) -> Cpu {
    let registers =
        status.registers.named().into_iter().map(|(name, value)| (name.to_owned(), Address(value))).collect();
    Cpu {
        cpu: u32::try_from(status.cpu).unwrap_or(u32::MAX),
        task: status.pid.map(|pid| TaskRef { pid: Some(i64::from(pid)), ..TaskRef::default() }),
        registers,
        backtrace: Vec::new(),
        backtrace_end: None,
    }
}

/// The register notes know the pid alone; the log knows the panicked task's name too.
fn name_the_panicked_task(report: &mut Report) {
    let Some(panicked) = report.panic.as_ref() else { return };
    let Some(task) = panicked.task.clone() else { return };
    for cpu in report.cpus.iter_mut().filter(|cpu| Some(cpu.cpu) == panicked.cpu) {
        match &mut cpu.task {
            Some(known) if known.pid == task.pid => known.comm.clone_from(&task.comm),
            Some(_) => {}
            None => cpu.task = Some(task.clone()),
        }
    }
}
