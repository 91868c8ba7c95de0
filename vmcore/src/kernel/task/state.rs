//! A task's state and flags.
//!
//! Macros have no BTF. These values have been the same since 4.14 (commit 8ef9925b02c2), thus in every kernel with BTF.
//! Facts: `include/linux/sched.h`, `fs/proc/array.c`.

use std::fmt;

const INTERRUPTIBLE: u64 = 0x1;
const UNINTERRUPTIBLE: u64 = 0x2;
const STOPPED: u64 = 0x4;
const TRACED: u64 = 0x8;
const EXIT_DEAD: u64 = 0x10;
const EXIT_ZOMBIE: u64 = 0x20;
const PARKED: u64 = 0x40;
const DEAD: u64 = 0x80;
const WAKEKILL: u64 = 0x100;
const WAKING: u64 = 0x200;
const NOLOAD: u64 = 0x400;
const NEW: u64 = 0x800;
/// Since 5.16; before it, the end of the states.
const RTLOCK_WAIT: u64 = 0x1000;
/// Since 6.1.
const FREEZABLE: u64 = 0x2000;
/// Since 6.1.
const FROZEN: u64 = 0x8000;
const IDLE: u64 = UNINTERRUPTIBLE | NOLOAD;

/// A task's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// `task_struct.__state`: whether it can run.
    pub raw: u64,
    /// `task_struct.exit_state`: whether it has exited.
    pub exit: u64,
}

impl State {
    /// The letter that `ps` shows: R, S, D, T (stopped), t (traced), X (dead), Z (zombie), P (parked) or I (idle).
    ///
    /// As the newest kernels count. Older ones show a frozen task as R (6.1 to 6.12, mended in commit f718faf3940e), and one that
    /// is idle and may be frozen as D (before 6.7, mended in commit 194600008d5c).
    #[must_use]
    pub fn letter(self) -> char {
        if self.raw & (RTLOCK_WAIT | FROZEN) != 0 {
            return 'D';
        }
        if self.raw & IDLE == IDLE {
            return 'I';
        }
        // The kernel shows the highest of these bits that is set.
        let shown = [
            (PARKED, 'P'),
            (EXIT_ZOMBIE, 'Z'),
            (EXIT_DEAD, 'X'),
            (TRACED, 't'),
            (STOPPED, 'T'),
            (UNINTERRUPTIBLE, 'D'),
            (INTERRUPTIBLE, 'S'),
        ];
        let all = self.raw | self.exit;
        shown.iter().find(|(bit, _)| all & bit != 0).map_or('R', |(_, letter)| *letter)
    }

    /// True where nothing but what it waits for wakes it: not even a signal that kills. That is what the hung-task detector
    /// looks for.
    #[must_use]
    pub fn is_unkillable(self) -> bool {
        self.raw & UNINTERRUPTIBLE != 0 && self.raw & (WAKEKILL | NOLOAD) == 0
    }

    /// True where the freezer (suspend, or a control group) holds it.
    #[must_use]
    pub fn is_frozen(self) -> bool {
        self.raw & FROZEN != 0
    }

    /// The names of the bits that are set, as the kernel names them.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let raw = [
            (INTERRUPTIBLE, "TASK_INTERRUPTIBLE"),
            (UNINTERRUPTIBLE, "TASK_UNINTERRUPTIBLE"),
            (STOPPED, "__TASK_STOPPED"),
            (TRACED, "__TASK_TRACED"),
            (PARKED, "TASK_PARKED"),
            (DEAD, "TASK_DEAD"),
            (WAKEKILL, "TASK_WAKEKILL"),
            (WAKING, "TASK_WAKING"),
            (NOLOAD, "TASK_NOLOAD"),
            (NEW, "TASK_NEW"),
            (RTLOCK_WAIT, "TASK_RTLOCK_WAIT"),
            (FREEZABLE, "TASK_FREEZABLE"),
            (FROZEN, "TASK_FROZEN"),
        ];
        let exit = [(EXIT_DEAD, "EXIT_DEAD"), (EXIT_ZOMBIE, "EXIT_ZOMBIE")];
        let raw = raw.iter().filter(|(bit, _)| self.raw & bit != 0);
        raw.chain(exit.iter().filter(|(bit, _)| self.exit & bit != 0)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// `task_struct.flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

/// Bits that mean the same in all kernels with BTF. Others were given to something else in between, so they have no name here.
const FLAGS: [(u32, &str); 20] = [
    (0x2, "PF_IDLE"),
    (Flags::EXITING, "PF_EXITING"),
    (0x20, "PF_WQ_WORKER"),
    (0x40, "PF_FORKNOEXEC"),
    (0x80, "PF_MCE_PROCESS"),
    (0x100, "PF_SUPERPRIV"),
    (0x200, "PF_DUMPCORE"),
    (0x400, "PF_SIGNALED"),
    (0x800, "PF_MEMALLOC"),
    (0x1000, "PF_NPROC_EXCEEDED"),
    (0x2000, "PF_USED_MATH"),
    (0x8000, "PF_NOFREEZE"),
    (0x2_0000, "PF_KSWAPD"),
    (0x4_0000, "PF_MEMALLOC_NOFS"),
    (0x8_0000, "PF_MEMALLOC_NOIO"),
    (Flags::KTHREAD, "PF_KTHREAD"),
    (0x40_0000, "PF_RANDOMIZE"),
    (0x400_0000, "PF_NO_SETAFFINITY"),
    (0x800_0000, "PF_MCE_EARLY"),
    (0x8000_0000, "PF_SUSPEND_TASK"),
];

impl Flags {
    const EXITING: u32 = 0x4;
    const KTHREAD: u32 = 0x20_0000;

    /// True for a kernel thread.
    #[must_use]
    pub fn is_kernel_thread(self) -> bool {
        self.0 & Self::KTHREAD != 0
    }

    /// True for a task that is on its way out.
    #[must_use]
    pub fn is_exiting(self) -> bool {
        self.0 & Self::EXITING != 0
    }

    /// The names of the bits that are set, as far as they mean the same in every kernel.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        FLAGS.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect()
    }
}
