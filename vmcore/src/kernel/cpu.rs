//! The CPUs: which there are, what runs on each, and what its run queue's clock says.
//!
//! Facts: `kernel/sched/sched.h` (`struct rq`), `arch/x86/include/asm/current.h`. The current task is a per-CPU variable of its
//! own, but for the kernels that keep it in `pcpu_hot` (6.2, commit e57ef2ed97c1, to 6.14).

use super::Gap;
use super::describe::Description;
use super::percpu::PerCpu;
use super::value::{Layout, Maybe, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::Member;
use crate::xlat::KernelMemory;

view! {
    /// `struct rq`: a CPU's run queue.
    struct RunQueue of "rq" {
        nr_running: Maybe<u32> = ["nr_running"],
        curr: Maybe<KVirtAddr> = ["curr"],
        idle: Maybe<KVirtAddr> = ["idle"],
        stop: Maybe<KVirtAddr> = ["stop"],
        clock: Maybe<u64> = ["clock"],
        clock_task: Maybe<u64> = ["clock_task"],
    }
}

/// One CPU. A member is `None` where it can't be had; [`Cpus::gaps`] says why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cpu {
    /// Its number.
    pub number: usize,
    /// Whether it is plugged in.
    pub present: Option<bool>,
    /// Whether the kernel runs on it. A panic takes the others offline on some machines.
    pub online: Option<bool>,
    /// Its run queue.
    pub rq: Option<KVirtAddr>,
    /// Tasks that run or wait to run on it.
    pub nr_running: Option<u32>,
    /// The task that its run queue says is running.
    pub curr: Option<KVirtAddr>,
    /// The task that it says itself is running. It differs from [`Self::curr`] only in the middle of a switch.
    pub current_task: Option<KVirtAddr>,
    /// Its idle task.
    pub idle: Option<KVirtAddr>,
    /// Its stopper, which migrates tasks.
    pub stop: Option<KVirtAddr>,
    /// Its run queue's clock in nanoseconds. It stands still while the CPU sleeps.
    pub clock_ns: Option<u64>,
    /// The same without the time that interrupts and the host took.
    pub clock_task_ns: Option<u64>,
}

/// The CPUs that can exist, by ascending number.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Cpus {
    /// All of them.
    pub cpus: Vec<Cpu>,
    /// What can't be had, and why.
    pub gaps: Vec<Gap>,
}

impl Cpus {
    /// A CPU by its number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&number, |cpu| cpu.number).ok().and_then(|at| self.cpus.get(at))
    }

    /// The time when the machine stopped, on the scheduler's clock, in nanoseconds: the latest of the run queues' clocks,
    /// since that of a sleeping CPU stands still.
    #[must_use]
    pub fn now_ns(&self) -> Option<u64> {
        self.cpus.iter().filter_map(|cpu| cpu.clock_ns).max().filter(|ns| *ns > 0)
    }

    fn gap(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.gaps.push(Gap { what: what.into(), why: why.to_string() });
    }
}

/// Reads them.
#[must_use]
pub fn read(memory: &KernelMemory<'_>, description: &Description, percpu: &PerCpu) -> Cpus {
    let mut all = Cpus::default();
    let among = |list: Option<&[usize]>, cpu: usize| list.map(|list| list.contains(&cpu));
    all.cpus = percpu
        .possible()
        .iter()
        .map(|number| Cpu {
            number: *number,
            present: among(percpu.present(), *number),
            online: among(percpu.online(), *number),
            ..Cpu::default()
        })
        .collect();
    run_queues(memory, description, percpu, &mut all);
    current_tasks(memory, description, percpu, &mut all);
    all
}

fn run_queues(memory: &KernelMemory<'_>, description: &Description, percpu: &PerCpu, all: &mut Cpus) {
    let layout = match Layout::<RunQueue>::new(&description.types) {
        Ok(layout) => layout,
        Err(why) => return all.gap("the run queues", &why),
    };
    let places = match percpu.variable(&description.symbols, "runqueues") {
        Ok(places) => places,
        Err(why) => return all.gap("the run queues", &why),
    };
    let mut failed = None;
    for (number, at) in places {
        let Some(cpu) = all.cpus.iter_mut().find(|cpu| cpu.number == number) else { continue };
        cpu.rq = Some(at);
        let Ok(rq) = layout.read(memory, at) else { continue };
        if let (None, Maybe::Unreadable(why)) = (&failed, &rq.curr) {
            failed = Some(format!("that of cpu {number} can't be read: {why}"));
        }
        let pointer = |at: Maybe<KVirtAddr>| at.value().filter(|at| !at.is_null());
        cpu.nr_running = rq.nr_running.value();
        cpu.curr = pointer(rq.curr);
        cpu.idle = pointer(rq.idle);
        cpu.stop = pointer(rq.stop);
        cpu.clock_ns = rq.clock.value();
        cpu.clock_task_ns = rq.clock_task.value();
    }
    if let Some(why) = failed {
        all.gap("the run queues", &why);
    }
}

fn current_tasks(memory: &KernelMemory<'_>, description: &Description, percpu: &PerCpu, all: &mut Cpus) {
    let symbols = &description.symbols;
    let hot = description.types.structure("pcpu_hot").and_then(|s| s.member("current_task"));
    let hot = hot.ok().map(Member::offset);
    let (name, inside) = match hot {
        Some(inside) if symbols.address("pcpu_hot").is_some() => ("pcpu_hot", inside),
        _ => ("current_task", 0),
    };
    let places = match percpu.variable(symbols, name) {
        Ok(places) => places,
        Err(why) => return all.gap("the CPUs' current tasks", &why),
    };
    let mut failed = None;
    for (number, at) in places {
        let Some(cpu) = all.cpus.iter_mut().find(|cpu| cpu.number == number) else { continue };
        match memory.read_ptr(KVirtAddr(at.0.wrapping_add(inside))) {
            Ok(task) => cpu.current_task = Some(task).filter(|task| !task.is_null()),
            Err(why) if failed.is_none() => failed = Some(format!("that of cpu {number}: {why}")),
            Err(_) => {}
        }
    }
    if let Some(why) = failed {
        all.gap("the CPUs' current tasks", &why);
    }
}
