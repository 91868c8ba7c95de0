//! The state of the kernel when it died: what it said, what its CPUs and tasks were at.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, BlockedGroup, Blocker, Culprit, FaultRegister, Instruction};

/// What the kernel died of, in the kernel's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PanicKind {
    /// Somebody asked for it: `echo c > /proc/sysrq-trigger`.
    Sysrq,
    /// A NULL pointer was followed.
    NullDeref,
    /// Another bad address was followed.
    PageFault,
    /// A general protection fault.
    GeneralProtection,
    /// `BUG()`: the kernel found itself in a state that must not be.
    Bug,
    /// `WARN()` with `panic_on_warn`.
    Warn,
    /// A division by zero.
    DivideError,
    /// A CPU ran kernel code for too long without giving way.
    SoftLockup,
    /// A CPU took no interrupts for too long.
    HardLockup,
    /// A task slept uninterruptibly for too long.
    HungTask,
    /// Out of memory.
    Oom,
    /// RCU waited for a CPU or a task for too long.
    RcuStall,
    /// A kernel stack was used up.
    StackOverflow,
    /// The hardware reported an error.
    Mce,
    /// A non-maskable interrupt that nobody claimed, or one that asks for a panic.
    Nmi,
    /// Something else; the message says what.
    Other,
}

/// What the kernel died of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// Which kind.
    pub kind: PanicKind,
    /// The kernel's own sentence.
    pub message: String,
    /// The CPU that panicked.
    pub cpu: Option<u32>,
    /// The task that it ran.
    pub task: Option<TaskRef>,
    /// The callers, innermost first.
    pub backtrace: Vec<Frame>,
    /// The address that the kernel could not use, by its own message.
    #[serde(default)]
    pub fault_address: Option<Address>,
    /// The instruction; `null` where code called `panic` by itself.
    #[serde(default)]
    pub instruction: Option<Instruction>,
    /// The registers at that instruction.
    #[serde(default)]
    pub registers: Vec<FaultRegister>,
    /// Where it came from.
    #[serde(default)]
    pub culprit: Option<Culprit>,
    /// The first line of the log of this incident that says that something went wrong.
    #[serde(default)]
    pub first_bad_line: Option<String>,
}

impl Panic {
    /// A panic of which no more is known.
    #[must_use]
    pub fn new(kind: PanicKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            cpu: None,
            task: None,
            backtrace: Vec::new(),
            fault_address: None,
            instruction: None,
            registers: Vec::new(),
            culprit: None,
            first_bad_line: None,
        }
    }
}

/// A task, by what names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its pid; 0 for the idle task.
    pub pid: Option<i64>,
    /// Its command name.
    pub comm: Option<String>,
    /// Its `task_struct`.
    pub kaddr: Option<Address>,
}

/// How a frame of a backtrace was found, the most trustworthy first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FrameTrust {
    /// From saved registers.
    Regs,
    /// By the kernel's ORC tables.
    Orc,
    /// By DWARF's call-frame information.
    Cfi,
    /// By frame pointers.
    Fp,
    /// A value on the stack that looks like a return address.
    Scan,
}

/// One frame of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The instruction.
    pub pc: Option<Address>,
    /// The function.
    pub symbol: Option<String>,
    /// Bytes from the function's start.
    pub offset: Option<u64>,
    /// The module; `null` for the kernel itself.
    pub module: Option<String>,
    /// How it was found.
    pub trust: FrameTrust,
    /// False from the first guess on: what was found in a sure way above a guess hangs on that guess.
    pub sure: bool,
    /// The stack pointer.
    pub sp: Option<Address>,
    /// The source file.
    pub file: Option<String>,
    /// The source line.
    pub line: Option<u32>,
    /// True for a function that the compiler inlined.
    pub inlined: bool,
    /// Which stack it is on: `task`, `irq`, `nmi`, `#DF`, `entry`, …; `null` where that is not known.
    pub stack: Option<Cow<'static, str>>,
    /// True where an interrupt or exception hit: `pc` is the instruction itself and not where a call returns to.
    pub interrupted: bool,
}

/// A CPU at the time of the crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// The task that it ran.
    pub task: Option<TaskRef>,
    /// Its registers by name.
    pub registers: BTreeMap<String, Address>,
    /// The callers, innermost first.
    pub backtrace: Vec<Frame>,
    /// Why the callers end there although more would be expected; `null` where they are all.
    pub backtrace_end: Option<String>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its pid.
    pub pid: i64,
    /// Its thread group.
    pub tgid: Option<i64>,
    /// Its parent.
    pub ppid: Option<i64>,
    /// Its command name.
    pub comm: Option<String>,
    /// Its state as `ps` writes it: R S D T t X Z P I.
    pub state: Option<String>,
    /// Its `task_struct`.
    pub kaddr: Option<Address>,
    /// The CPU it runs on or ran on last.
    pub cpu: Option<u32>,
    /// True for a kernel thread.
    pub kernel_thread: Option<bool>,
    /// How long it has been blocked; `null` for a task that is not.
    pub blocked_for_s: Option<f64>,
    /// How long it has not run; `null` for one that runs.
    pub not_run_s: Option<f64>,
    /// Its effective user, as a number.
    pub uid: Option<u64>,
    /// Its effective group, as a number.
    pub gid: Option<u64>,
    /// Its control group's path.
    pub cgroup: Option<String>,
    /// Its arguments, where their page is in the dump.
    pub cmdline: Option<String>,
    /// Its `PF_` flags, by name and without the prefix.
    pub flags: Vec<String>,
    /// How it is scheduled: `normal`, `fifo`, `rr`, `batch`, `idle`, `deadline`, `ext`.
    pub policy: Option<String>,
    /// Its nice value.
    pub nice: Option<i64>,
    /// Where it was found: `tasks` (the list), `pids` (the table of pids), `runqueues`, …
    pub found_in: Vec<String>,
    /// The callers, innermost first.
    pub backtrace: Vec<Frame>,
    /// Why the callers end there although more would be expected; `null` where they are all.
    pub backtrace_end: Option<String>,
}

/// Who waits for whom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// The blocked tasks, those with the same callers together, the longest wait first.
    pub groups: Vec<BlockedGroup>,
    /// One wait each.
    pub edges: Vec<WaitEdge>,
    /// The pids for which others wait and which wait for nobody.
    pub roots: Vec<i64>,
    /// The circles of pids that wait for each other.
    pub cycles: Vec<Vec<i64>>,
    /// Who holds others up: the roots with what they do, those with the most waiters first.
    pub blockers: Vec<Blocker>,
}

/// One task that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitEdge {
    /// The pid that waits.
    pub waiter: i64,
    /// What it waits for.
    pub lock: Lock,
    /// The pid that holds it, where the lock tells.
    pub owner: Option<i64>,
    /// True where the lock's list of waiters and its owner were read and agree; false where the owner is a hint.
    pub sure: bool,
    /// What it waits for, in words.
    pub what: Option<String>,
}

/// A lock, or another thing that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// `mutex`, `rwsem`, …
    pub kind: String,
    /// Where it is.
    pub kaddr: Option<Address>,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// The kernel log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReport {
    /// How many records the log holds; `null` where it could not be read.
    pub records: Option<u64>,
    /// How many records are known to be lost; `null` where the log could not be read.
    pub dropped: Option<u64>,
    /// The records, oldest first.
    pub lines: Vec<LogLine>,
}

/// One record of the kernel log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Seconds since boot; `null` for a log without times.
    pub ts: Option<f64>,
    /// Its level, 0 (emergency) to 7 (debug).
    pub level: Option<u8>,
    /// Who wrote it: `T123` a task, `C1` a CPU; `null` where the kernel does not tell.
    pub caller: Option<String>,
    /// Its text. A record of several lines has line breaks in it.
    pub text: String,
}

impl PanicKind {
    /// The word for it, as in the document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sysrq => "sysrq",
            Self::NullDeref => "null-deref",
            Self::PageFault => "page-fault",
            Self::GeneralProtection => "general-protection",
            Self::Bug => "bug",
            Self::Warn => "warn",
            Self::DivideError => "divide-error",
            Self::SoftLockup => "soft-lockup",
            Self::HardLockup => "hard-lockup",
            Self::HungTask => "hung-task",
            Self::Oom => "oom",
            Self::RcuStall => "rcu-stall",
            Self::StackOverflow => "stack-overflow",
            Self::Mce => "mce",
            Self::Nmi => "nmi",
            Self::Other => "other",
        }
    }

    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Sysrq,
        Self::NullDeref,
        Self::PageFault,
        Self::GeneralProtection,
        Self::Bug,
        Self::Warn,
        Self::DivideError,
        Self::SoftLockup,
        Self::HardLockup,
        Self::HungTask,
        Self::Oom,
        Self::RcuStall,
        Self::StackOverflow,
        Self::Mce,
        Self::Nmi,
        Self::Other,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written_with_its_word() {
        for kind in PanicKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }
}
