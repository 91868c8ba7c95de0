//! The CPUs in the words of the report: which task each ran, its registers, and its stack.

use std::collections::BTreeMap;

use super::{stacks, tasks};
use crate::addr::KVirtAddr;
use crate::format::PrStatus;
use crate::kernel::cpu;
use crate::kernel::task::{Task, Tasks};
use crate::report::{Address, Cpu, TaskRef};
use crate::unwind::Unwinder;

/// A stack pointer this far above the lowest byte of a task's stack is on it, whatever its size (`THREAD_SIZE` is 16 KiB).
const STACK: u64 = 16 << 10;

/// The registers in the dump, by the CPU that they are of.
#[derive(Debug, Default)]
pub(super) struct Registers {
    by_cpu: BTreeMap<usize, PrStatus>,
}

impl Registers {
    /// The registers of a CPU.
    pub(super) fn of(&self, cpu: usize) -> Option<&crate::format::prstatus::Registers> {
        self.by_cpu.get(&cpu).map(|status| &status.registers)
    }

    /// By the order of their notes, as the container numbers them.
    fn as_numbered(notes: &[PrStatus]) -> Self {
        Self { by_cpu: notes.iter().map(|status| (status.cpu, *status)).collect() }
    }

    /// Finds out whose they are. The notes come in the order of the CPUs, but those of a CPU that was offline, or that did not
    /// answer, are missing: each goes to the next CPU which ran that task.
    pub(super) fn assign(notes: &[PrStatus], tasks: Option<&Tasks>) -> Self {
        let Some(tasks) = tasks.filter(|tasks| !tasks.cpus.cpus.is_empty()) else {
            return Self::as_numbered(notes);
        };
        let mut free: &[cpu::Cpu] = &tasks.cpus.cpus;
        let mut this = Self::default();
        for status in notes {
            let current = |cpu: &cpu::Cpu| tasks.current(cpu.number);
            let own = free.iter().position(|cpu| cpu.number == status.cpu);
            let fits = |cpu: &cpu::Cpu| current(cpu).is_some_and(|task| ran(status, task));
            let place = own
                .filter(|at| free.get(*at).is_some_and(fits))
                .or_else(|| free.iter().position(fits))
                .or(own)
                .or_else(|| free.iter().position(|cpu| cpu.online != Some(false)));
            let Some((place, cpu)) = place.and_then(|at| Some((at, free.get(at)?))) else { continue };
            this.by_cpu.insert(cpu.number, *status);
            free = free.get(place.saturating_add(1)..).unwrap_or_default();
        }
        this
    }
}

/// True where the registers can be those of that task.
fn ran(status: &PrStatus, task: &Task) -> bool {
    let rsp = status.registers.rsp;
    let on_stack = task.stack.is_some_and(|KVirtAddr(low)| rsp.checked_sub(low).is_some_and(|n| n < STACK));
    match status.pid {
        // All idle tasks have pid 0: the stack tells them apart, where the CPU was on it.
        Some(0) => task.pid == 0 && (on_stack || status.registers.cs & 3 == 3 || !is_task_stack(rsp, task)),
        Some(pid) => task.pid == pid,
        None => on_stack,
    }
}

/// False where a stack pointer is far from any idle task's stack: on a CPU's own stacks.
fn is_task_stack(rsp: u64, task: &Task) -> bool {
    const SAME_REGION: u64 = 1 << 40;
    task.stack.is_some_and(|KVirtAddr(low)| rsp.abs_diff(low) < SAME_REGION)
}

/// What is known without any of the kernel's own structures.
pub(super) fn from_notes(notes: &[PrStatus]) -> Vec<Cpu> {
    let task =
        |status: &PrStatus| status.pid.map(|pid| TaskRef { pid: Some(i64::from(pid)), ..TaskRef::default() });
    let mut cpus: Vec<Cpu> = notes.iter().map(|status| Cpu { task: task(status), ..of(status) }).collect();
    cpus.sort_by_key(|cpu| cpu.cpu);
    cpus
}

fn of(status: &PrStatus) -> Cpu {
    let registers = status.registers.named().into_iter();
    Cpu {
        cpu: u32::try_from(status.cpu).unwrap_or(u32::MAX),
        registers: registers.map(|(name, value)| (name.to_owned(), Address(value))).collect(),
        ..Cpu::default()
    }
}

/// The CPUs that were there, each with its task, its registers and its stack as far as they are known.
pub(super) fn section(tasks: &Tasks, registers: &Registers, unwinder: Option<&Unwinder<'_>>) -> Vec<Cpu> {
    let there = |cpu: &&cpu::Cpu| {
        // A panic takes CPUs offline on some machines: who has registers was there.
        registers.by_cpu.contains_key(&cpu.number) || cpu.present != Some(false) && cpu.online != Some(false)
    };
    tasks.cpus.cpus.iter().filter(there).map(|cpu| one(cpu.number, tasks, registers, unwinder)).collect()
}

fn one(number: usize, tasks: &Tasks, registers: &Registers, unwinder: Option<&Unwinder<'_>>) -> Cpu {
    let status = registers.by_cpu.get(&number);
    let mut cpu = status.map(of).unwrap_or_default();
    cpu.cpu = u32::try_from(number).unwrap_or(u32::MAX);
    cpu.task = tasks.current(number).map(tasks::name);
    match (status, unwinder) {
        (Some(status), Some(unwinder)) => {
            let stack = unwinder.unwind_registers(&status.registers, number);
            cpu.backtrace = stacks::frames(unwinder, &stack, 0);
            cpu.backtrace_end = stacks::end(&stack);
        }
        (None, _) => cpu.backtrace_end = Some("its registers are not in the dump".into()),
        (Some(_), None) => {}
    }
    cpu
}

/// The registers that the dump notes for a CPU, of the kernel that crashed.
pub(super) fn noted(
    context: &super::parts::Context<'_>,
    cpu: usize,
) -> Option<crate::format::prstatus::Registers> {
    let handed_over = context.kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
    let notes = handed_over.map_or(context.subject.cpus.as_slice(), |crashed| &crashed.registers);
    Registers::assign(notes, Some(context.tasks)).of(cpu).copied()
}
