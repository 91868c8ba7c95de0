//! What the kernel's own structures tell: its machine, modules, tasks, CPUs and their stacks.

use super::cpus::Registers;
use super::follow::Stage;
use super::parts::{Context, Runner};
use super::subject::Subject;
use super::triage::{LEFT_OUT, Options, Section, Steps};
use super::{cpus, machine, modules, stacks, tasks};
use crate::kernel::describe::Description;
use crate::kernel::machine as kernel_machine;
use crate::kernel::machine::Noted;
use crate::kernel::percpu::PerCpu;
use crate::kernel::printk::KernelLog;
use crate::kernel::task::Tasks;
use crate::kernel::{Gap, Kernel, module, task};
use crate::report::{Confidence, Finding, Report, Severity};
use crate::sym::btf::BtfSource;
use crate::unwind::{Method, Unwinder};

/// An opened kernel that has described itself.
pub(super) struct Inside<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) kernel: &'a Kernel<'a>,
    pub(super) description: &'a Description,
    pub(super) log: Option<&'a KernelLog>,
    pub(super) options: &'a Options,
    pub(super) runner: Runner<'a>,
}

impl Inside<'_> {
    /// Fills the report's parts, each as far as it can be had.
    pub(super) fn fill(&self, report: &mut Report, steps: &mut Steps) {
        let (memory, limits) = (self.kernel.memory(), &self.options.limits);
        match self.description.types_from {
            Some(BtfSource::Dwarf) => report.symbols.types = "dwarf".into(),
            Some(_) => report.symbols.types = "btf".into(),
            None => {}
        }
        skip_gaps(report, "", &self.description.gaps);
        report.findings.extend(self.no_types());
        let per_cpu = PerCpu::read(memory, &self.description.symbols, limits);
        if let Err(why) = &per_cpu {
            report.skip("per-CPU variables", why.to_string());
        }

        if self.options.wants(Section::Kernel) {
            let info = self.kernel.vmcoreinfo();
            let found = kernel_machine::read(memory, info, self.description, per_cpu.as_ref().ok(), limits);
            machine::fill(report, &found);
            if let (Some(panic), Some(Noted::Cpu(cpu))) = (&mut report.panic, found.panic_cpu)
                && panic.cpu.is_none()
            {
                panic.cpu = Some(cpu);
            }
            steps.done("machine");
        }
        if self.options.wants(Section::Modules) {
            let found = module::read(memory, self.description, limits);
            report.modules = modules::section(&found);
            report.not_looked_at.extend(modules::not_looked_at(&found));
            steps.done("modules");
        } else {
            report.skip("modules", LEFT_OUT);
        }

        let per_cpu = per_cpu.unwrap_or_default();
        let tasks = task::read(memory, self.description, &per_cpu, limits);
        report.findings.extend(tasks::finding(&tasks));
        report.not_looked_at.extend(tasks::not_looked_at(&tasks));
        steps.done("tasks");

        let unwinder = Unwinder::new(memory, self.description, &per_cpu, limits);
        report.symbols.unwinder = Some(match unwinder.method() {
            Method::Orc(_) => "orc".into(),
            _ => "fp".into(),
        });
        skip_gaps(report, "stacks: ", unwinder.gaps());
        self.fill_tasks(report, &tasks, &unwinder);
        steps.done("stacks");

        self.runner.follow.reached(Stage::Tasks, report);

        let blank = Report::empty("", "", "");
        let shared = Context {
            subject: self.subject,
            kernel: self.kernel,
            memory,
            description: self.description,
            per_cpu: &per_cpu,
            tasks: &tasks,
            unwinder: &unwinder,
            log: self.log,
            report: &blank,
            limits,
        };
        let what_happened = self.runner.first(&Context { report, ..shared });
        what_happened.put_into(report, steps);
        self.runner.follow.reached(Stage::Scene, report);
        let others = self.runner.others(&Context { report, ..shared });
        others.put_into(report, steps);
        steps.done("analyses");
    }

    /// What it means that nothing tells the kernel's types.
    fn no_types(&self) -> Option<Finding> {
        if self.description.types.kernel().is_some() {
            return None;
        }
        let title = "The kernel's types are not known, so its tasks, modules and stacks can't be read.";
        let mut finding = Finding::new("KD-NO-TYPES", Severity::Warning, Confidence::Certain, title)
            .next("Give the kernel's debuginfo: kdt triage --vmlinux FILE.");
        let gaps = self.description.gaps.iter().filter(|gap| gap.what == "types");
        finding.evidence.extend(gaps.map(|gap| gap.why.clone()));
        Some(finding)
    }

    fn fill_tasks(&self, report: &mut Report, tasks: &Tasks, unwinder: &Unwinder<'_>) {
        let wants = |section| self.options.wants(section);
        // Where the capture kernel runs already, the notes have its registers: the crashed kernel's lie where it left them.
        let handed_over = self.kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
        let notes = handed_over.map_or(self.subject.cpus.as_slice(), |crashed| &crashed.registers);
        let registers = Registers::assign(notes, Some(tasks));
        if wants(Section::Tasks) || wants(Section::Stacks) {
            let unwinder = wants(Section::Stacks).then_some(unwinder);
            report.tasks = tasks::section(tasks, &registers, unwinder);
            if unwinder.is_none() {
                report.skip("tasks.backtrace", LEFT_OUT);
            }
        } else {
            report.skip("tasks", LEFT_OUT);
        }
        if wants(Section::Cpus) {
            report.cpus = cpus::section(tasks, &registers, Some(unwinder));
            if report.cpus.is_empty() {
                report.cpus = cpus::from_notes(notes);
            }
            if notes.is_empty() {
                report.skip("cpus.registers", "the dump has no register notes that kdt can read");
            }
        } else {
            report.skip("cpus", LEFT_OUT);
        }
        fill_panic(report, tasks, &registers, unwinder);
    }
}

fn skip_gaps(report: &mut Report, of: &str, gaps: &[Gap]) {
    for gap in gaps {
        report.skip(format!("{of}{}", gap.what), gap.why.clone());
    }
}

/// What the panicked CPU was at, from where the trouble is: the stack itself says more, and more exactly, than what was printed.
fn fill_panic(report: &mut Report, tasks: &Tasks, registers: &Registers, unwinder: &Unwinder<'_>) {
    let Some(panic) = &mut report.panic else { return };
    let Some(cpu) = panic.cpu.and_then(|cpu| usize::try_from(cpu).ok()) else { return };
    let current = tasks.current(cpu);
    match (&mut panic.task, current) {
        (Some(known), Some(task)) if known.pid == Some(i64::from(task.pid)) => *known = tasks::name(task),
        (unknown @ None, Some(task)) => *unknown = Some(tasks::name(task)),
        _ => {}
    }
    let Some(registers) = registers.of(cpu) else { return };
    let stack = unwinder.unwind_registers(registers, cpu);
    // An oops hands the registers of the fault itself to kdump: no crash code is on the stack then.
    let from = unwinder.trouble(&stack).map_or(0, |trouble| trouble.frame);
    let found = stacks::frames(unwinder, &stack, from);
    if !found.is_empty() {
        panic.backtrace = found;
    }
}
