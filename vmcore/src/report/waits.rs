//! Who waits, and on which CPU: groups of blocked tasks, who holds them up, and the run queues.

use serde::{Deserialize, Serialize};

use super::{Address, TaskRef};

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

/// The consoles, and the lock around them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consoles {
    /// Where `console_sem` is.
    pub lock: Option<Address>,
    /// True where somebody has it.
    pub held: Option<bool>,
    /// `console_locked`.
    pub locked: Option<bool>,
    /// `console_may_schedule`: who has it may sleep with it.
    pub may_schedule: Option<bool>,
    /// Who has it: `console_owner`, or the only task in a function that has it. `null` where nothing tells; the kernel does not record it.
    pub owner: Option<TaskRef>,
    /// True where `console_owner` names the owner, false where its functions only suggest it.
    pub owner_sure: bool,
    /// `console_waiter`: a CPU spins to take over from the owner.
    pub spinning: Option<bool>,
    /// The pids that wait for it, the oldest first.
    pub waiters: Vec<i64>,
    /// The consoles.
    pub consoles: Vec<Console>,
}

/// One console.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Its name, with its number: `ttyS0`.
    pub name: String,
    /// Where its `struct console` is.
    pub kaddr: Option<Address>,
    /// True where records go to it.
    pub enabled: Option<bool>,
    /// True where it prints without `console_sem`.
    pub nbcon: Option<bool>,
    /// The number of the record that it prints next.
    pub seq: Option<u64>,
    /// How many finished records of the log it has not printed; those above its log level are among them.
    pub behind: Option<u64>,
    /// Records that were overwritten before they got to it.
    pub dropped: Option<u64>,
    /// The CPU that owns it, where it prints without `console_sem`.
    pub owner_cpu: Option<u64>,
}
