//! Who waits, and on which CPU: groups of blocked tasks, who holds them up, and the run queues.

use serde::{Deserialize, Serialize};

/// Blocked tasks with the same callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockedGroup {
    /// Their pids, the longest wait first; of many, the first of them.
    pub pids: Vec<i64>,
    /// How many there are.
    pub count: u64,
    /// The letter of their state; `D`.
    pub state: String,
    /// True where a signal that kills wakes them.
    pub killable: bool,
    /// How long the longest of them has waited.
    pub oldest_s: Option<f64>,
    /// The functions that they are in, innermost first.
    pub symbols: Vec<String>,
    /// What they wait for, in words; `null` where their stack does not tell.
    pub what: Option<String>,
}

/// A task that others wait for and that does not wait for a lock itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocker {
    /// Its pid.
    pub pid: i64,
    /// Its command name.
    pub comm: Option<String>,
    /// The letter of its state.
    pub state: Option<String>,
    /// How many wait for what it holds.
    pub direct: u64,
    /// The same with those that wait for these in turn.
    pub all: u64,
    /// The functions that it is in, innermost first.
    pub symbols: Vec<String>,
}

/// A CPU's run queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunQueue {
    /// The CPU.
    pub cpu: u32,
    /// How many tasks are ready to run.
    pub nr_running: Option<u64>,
    /// The task that runs.
    pub current: Option<i64>,
    /// Its command name.
    pub curr_comm: Option<String>,
    /// The run queue's clock, in seconds. It stands still while the CPU is idle, and where no tick reaches it.
    pub clock_s: Option<f64>,
    /// How far this clock is behind that of the CPU whose clock is the latest.
    pub behind_s: Option<f64>,
    /// For how long the task that runs has had the CPU; `null` for an idle CPU.
    pub running_for_s: Option<f64>,
    /// True where real-time tasks have used up their share and are held back.
    pub rt_throttled: Option<bool>,
    /// Run time that real-time tasks have used in this period.
    pub rt_time_s: Option<f64>,
    /// True where the CPU took no interrupts when it was stopped; `null` where its registers are not in the dump.
    pub irqs_off: Option<bool>,
    /// Since when the watchdog's thread has not run on this CPU; `null` where there is none or it was told to look away.
    pub watchdog_silent_s: Option<f64>,
    /// True where the present RCU grace period waits for this CPU; `null` where that is not known.
    pub holds_up_rcu: Option<bool>,
    /// The pids that are ready to run and wait for the CPU.
    pub queued: Vec<i64>,
}
