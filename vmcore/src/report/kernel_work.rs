//! Work that the kernel had to do later: workqueues and timers, as the report has them.

use serde::{Deserialize, Serialize};

use super::{Address, TaskRef};

/// A workqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkQueue {
    /// Its name.
    pub name: String,
    /// Work that waits.
    pub pending: Option<u64>,
    /// Work that runs.
    pub active: Option<u64>,
    /// Where it is.
    #[serde(default)]
    pub kaddr: Option<Address>,
    /// Its `WQ_*` flags.
    #[serde(default)]
    pub flags: Option<u32>,
}

/// A pool of workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerPool {
    /// Its number.
    pub id: u64,
    /// The CPU that it is of; `null` for one that is of no CPU.
    pub cpu: Option<u32>,
    /// The nice value of its workers.
    pub nice: Option<i32>,
    /// Workers that it has.
    pub nr_workers: Option<u64>,
    /// Workers that are idle.
    pub nr_idle: Option<u64>,
    /// Workers that are on a CPU or ready for one.
    pub nr_running: Option<i64>,
    /// Seconds since it last got on; `null` where it has nothing to do or that is not known.
    pub stalled_s: Option<f64>,
    /// Its workers that run something.
    pub busy: Vec<Worker>,
    /// What waits for a worker, the oldest first.
    pub pending: Vec<Work>,
}

/// A worker that runs something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its task.
    pub task: TaskRef,
    /// What it runs.
    pub work: Work,
    /// What only it may run next.
    pub scheduled: Vec<Work>,
}

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its function.
    pub function: String,
    /// The workqueue that it is of, where that is known.
    pub workqueue: Option<String>,
    /// Where it is.
    pub kaddr: Address,
}

/// The timers of a CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuTimers {
    /// The CPU.
    pub cpu: u32,
    /// Seconds by which its most overdue timer is late; `null` where none is.
    pub overdue_s: Option<f64>,
    /// The timers of its wheel, the next first.
    pub wheel: Vec<PendingTimer>,
    /// Its high-resolution timers, by clock and time.
    pub hrtimers: Vec<PendingTimer>,
}

/// A timer that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingTimer {
    /// Its function.
    pub function: String,
    /// Where it is.
    pub kaddr: Address,
    /// When it is to come: jiffies of the wheel, nanoseconds of its clock.
    pub expires: i64,
    /// In how many seconds it is to come; below zero it is overdue; `null` where the time is not known.
    pub in_s: Option<f64>,
    /// Its clock: `jiffies`, `monotonic`, `realtime`, …
    pub clock: String,
    /// It may come late on an idle CPU.
    pub deferrable: bool,
    /// For delayed work: what it will run.
    pub work: Option<String>,
}
