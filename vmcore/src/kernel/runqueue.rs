//! The run queues: who runs, who waits for the CPU, and what the watchdog knew.
//!
//! Who waits is told by the tasks themselves (`on_rq`): the queues are trees within trees, one for each control group, and differ
//! from kernel to kernel. Facts: `kernel/sched/sched.h`, `kernel/watchdog.c`.

use std::collections::HashMap;

use super::Gap;
use super::describe::Description;
use super::percpu::PerCpu;
use super::task::{Kind, Tasks};
use super::value::{Layout, Maybe, view};
use super::variable::Variables;
use crate::addr::KVirtAddr;
use crate::xlat::KernelMemory;

/// Two words that say that the watchdog is to look away: the first since 5.13, and in any kernel a CPU that it never ran on.
const LOOK_AWAY: [u64; 2] = [u64::MAX, 0];

view! {
    /// `struct rq`.
    struct Rq of "rq" {
        throttled: Maybe<u32> = ["rt.rt_throttled"],
        rt_time: Maybe<u64> = ["rt.rt_time"],
    }
}

/// One CPU's run queue, besides what [`super::cpu::Cpu`] has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunQueue {
    /// The CPU.
    pub cpu: usize,
    /// Whether real-time tasks have used up their share and are held back.
    pub rt_throttled: Option<bool>,
    /// Run time that real-time tasks have used in this period, in nanoseconds.
    pub rt_time_ns: Option<u64>,
    /// When the watchdog's thread last ran, in units of 2^30 nanoseconds of the scheduler's clock (nearly seconds).
    pub watchdog_touched: Option<u64>,
    /// The tasks that are ready to run and do not.
    pub queued: Vec<KVirtAddr>,
}

/// All of them, and the watchdog's settings.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunQueues {
    /// One a CPU, by ascending number.
    pub queues: Vec<RunQueue>,
    /// `kernel.watchdog_thresh`, in seconds; `None` where the watchdog is off or not built in.
    pub watchdog_thresh_s: Option<u64>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads them.
#[must_use]
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    per_cpu: &PerCpu,
    tasks: &Tasks,
) -> RunQueues {
    let mut all = RunQueues::default();
    let variables = Variables::new(memory, &description.symbols);
    let on = variables.u32("watchdog_enabled").map_or(true, |enabled| enabled != 0);
    let thresh = variables.i32("watchdog_thresh").ok().and_then(|s| u64::try_from(s).ok());
    all.watchdog_thresh_s = thresh.filter(|s| on && (1..=3600).contains(s));
    let layout = match Layout::<Rq>::new(&description.types) {
        Ok(layout) => Some(layout),
        Err(why) => {
            all.gaps.push(Gap { what: "the run queues".into(), why: why.to_string() });
            None
        }
    };
    let touched = per_cpu.variable(&description.symbols, "watchdog_touch_ts").unwrap_or_default();
    let mut queued: HashMap<usize, Vec<KVirtAddr>> = HashMap::new();
    for task in &tasks.tasks {
        let ready = task.kind != Kind::Idle && task.schedule.on_rq == Some(true) && task.letter() == 'R';
        if let Some(cpu) = task.cpu.and_then(|n| usize::try_from(n).ok())
            && ready
            && task.running_on.is_none()
        {
            queued.entry(cpu).or_default().push(task.kaddr);
        }
    }
    for cpu in &tasks.cpus.cpus {
        let rq = cpu.rq.zip(layout.as_ref()).and_then(|(at, layout)| layout.read(memory, at).ok());
        let place = touched.iter().find(|(number, _)| *number == cpu.number);
        let stamp = place.and_then(|(_, at)| memory.read_u64(*at).ok());
        all.queues.push(RunQueue {
            cpu: cpu.number,
            rt_throttled: rq.as_ref().and_then(|rq| rq.throttled.as_ref()).map(|n| *n != 0),
            rt_time_ns: rq.as_ref().and_then(|rq| rq.rt_time.as_ref()).copied(),
            watchdog_touched: stamp.filter(|stamp| !LOOK_AWAY.contains(stamp)),
            queued: queued.remove(&cpu.number).unwrap_or_default(),
        });
    }
    all
}
