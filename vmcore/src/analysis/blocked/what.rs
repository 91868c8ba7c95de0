//! What a task waits for, by the functions on its stack.
//!
//! Names are those of 4.18 to 7.x. The innermost function that blocks tells which structure is on the stack; one further out can
//! tell what for.

use crate::kernel::lock::LockKind;

/// How a task gives up its CPU: the same for all.
const SCHEDULER: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_preempt_disabled",
    "preempt_schedule_common",
    "schedule_rtlock",
    "rt_mutex_schedule",
];

/// What a blocking function says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct What {
    /// Beginnings of function names.
    names: &'static [&'static str],
    /// A word for the kind, as in the report.
    pub(super) kind: &'static str,
    /// In words, to follow «waits for».
    pub(super) text: &'static str,
    /// The locks whose waiter may be on the stack.
    pub(super) locks: &'static [LockKind],
}

const fn what(
    names: &'static [&'static str],
    kind: &'static str,
    text: &'static str,
    locks: &'static [LockKind],
) -> What {
    What { names, kind, text, locks }
}

use LockKind::{Completion, Mutex, PerCpuRwSem, RtMutex, RwSem, Semaphore, WaitQueue};

/// Functions that block by themselves, looked for from the innermost frame on.
const BLOCKS: &[What] = &[
    what(&["__mutex_lock", "mutex_lock", "__ww_mutex_lock"], "mutex", "a mutex", &[Mutex, RtMutex]),
    what(
        &["rwsem_down_read", "down_read", "__down_read"],
        "rwsem",
        "a rw-semaphore, to read",
        &[RwSem, RtMutex],
    ),
    what(
        &["rwsem_down_write", "down_write", "__down_write"],
        "rwsem",
        "a rw-semaphore, to write",
        &[RwSem, RtMutex],
    ),
    what(&["call_rwsem_down_read"], "rwsem", "a rw-semaphore, to read", &[RwSem]),
    what(&["call_rwsem_down_write"], "rwsem", "a rw-semaphore, to write", &[RwSem]),
    what(&["rwbase_read_lock", "__rwbase_read_lock"], "rwsem", "a rw-semaphore, to read", &[RtMutex]),
    what(&["rwbase_write_lock"], "rwsem", "a rw-semaphore, to write", &[RtMutex]),
    what(
        &["percpu_rwsem_wait", "__percpu_down_read"],
        "percpu_rwsem",
        "a per-CPU rw-semaphore",
        &[PerCpuRwSem, RwSem],
    ),
    what(&["percpu_down_write"], "percpu_rwsem", "the readers of a per-CPU rw-semaphore", &[RwSem]),
    what(
        &["rt_spin_lock", "rtlock_slowlock", "rt_read_lock", "rt_write_lock"],
        "spinlock",
        "a spinlock that can sleep (PREEMPT_RT)",
        &[RtMutex],
    ),
    what(&["rt_mutex_", "__rt_mutex_"], "rt_mutex", "a rt-mutex", &[RtMutex]),
    what(&["__down", "down"], "semaphore", "a semaphore", &[Semaphore]),
    what(
        &[
            "wait_for_completion",
            "__wait_for_common",
            "do_wait_for_common",
            "wait_for_common",
            "__wait_for_completion",
        ],
        "completion",
        "a completion",
        &[Completion],
    ),
    what(
        &[
            "folio_wait_bit",
            "__folio_lock",
            "wait_on_page_bit",
            "__lock_page",
            "folio_wait_writeback",
            "wait_on_page_writeback",
            "put_and_wait_on_page",
        ],
        "page",
        "a page that is read, written or locked",
        &[WaitQueue],
    ),
    what(
        &["__wait_on_buffer", "out_of_line_wait_on_bit", "__wait_on_bit", "bit_wait"],
        "bit",
        "a bit that somebody is to clear",
        &[WaitQueue],
    ),
    what(
        &["msleep", "usleep_range", "ssleep", "fsleep", "schedule_timeout_uninterruptible"],
        "sleep",
        "time to pass",
        &[],
    ),
    what(&["do_nanosleep", "schedule_hrtimeout"], "sleep", "time to pass", &[]),
    what(&["io_schedule"], "io", "input or output", &[WaitQueue]),
    what(&["__refrigerator"], "freezer", "the freezer to let it go", &[]),
];

/// What for, where a function further out tells more. `kind` is put in place of the other where it is not empty.
const PURPOSES: &[What] = &[
    what(
        &["__flush_work", "flush_work", "__cancel_work_timer", "cancel_work_sync", "__cancel_work_sync"],
        "work",
        "a work item to be done",
        &[],
    ),
    what(
        &["__flush_workqueue", "flush_workqueue", "drain_workqueue"],
        "work",
        "a workqueue to be empty",
        &[],
    ),
    what(
        &[
            "__wait_rcu_gp",
            "synchronize_rcu",
            "synchronize_net",
            "rcu_barrier",
            "synchronize_sched",
            "synchronize_rcu_expedited",
        ],
        "rcu",
        "an RCU grace period",
        &[],
    ),
    what(&["synchronize_srcu", "__synchronize_srcu", "srcu_barrier"], "rcu", "an SRCU grace period", &[]),
    what(&["blk_mq_get_tag", "__blk_mq_get_tag"], "io", "a free request of a block device", &[]),
    what(&["rq_qos_wait", "wbt_wait"], "io", "the block layer to let it write", &[]),
    what(
        &[
            "submit_bio_wait",
            "blk_execute_rq",
            "blkdev_issue_",
            "__blkdev_direct_IO",
            "iomap_dio_rw",
            "blkdev_direct_IO",
        ],
        "io",
        "a block device's answer",
        &[],
    ),
    what(
        &["blk_mq_freeze_queue_wait", "blk_queue_enter", "__bio_queue_enter"],
        "io",
        "a block device's queue that is frozen",
        &[],
    ),
    what(&["__wait_on_buffer"], "io", "a buffer of a block device", &[]),
    what(
        &["jbd2_", "wait_transaction_", "start_this_handle", "add_transaction_credits"],
        "journal",
        "the journal (jbd2) to go on",
        &[],
    ),
    what(&["xfs_log_force", "xlog_wait", "xlog_grant_head_wait"], "journal", "the log of XFS to go on", &[]),
    what(&["rpc_wait_bit_killable", "__rpc_execute", "nfs_wait", "nfs4_"], "nfs", "an NFS server", &[]),
    what(
        &[
            "__sb_start_write",
            "sb_start_write",
            "mnt_want_write",
            "ext4_journal_check_start",
            "sb_wait_write",
        ],
        "freeze",
        "a filesystem that is frozen",
        &[],
    ),
    what(&["freeze_super"], "freeze", "the writers of a filesystem that is being frozen", &[]),
    what(&["balance_dirty_pages"], "writeback", "dirty pages to be written", &[]),
    what(
        &["throttle_direct_reclaim", "reclaim_throttle", "congestion_wait", "wait_iff_congested"],
        "reclaim",
        "memory to be reclaimed",
        &[],
    ),
    what(&["console_lock", "console_trylock", "__console_lock"], "console", "the console's lock", &[]),
    what(&["kthread_stop"], "thread", "a kernel thread to end", &[]),
    what(
        &["__kthread_create_on_node", "kthread_create_on_node"],
        "thread",
        "a kernel thread to be made",
        &[],
    ),
    what(&["call_usermodehelper"], "helper", "a program that the kernel started", &[]),
    what(&["wait_for_vfork_done", "kernel_clone", "_do_fork"], "vfork", "a child to start its program", &[]),
    what(&["coredump_wait", "do_coredump"], "coredump", "a core dump to be written", &[]),
    what(&["stop_one_cpu", "stop_machine", "stop_two_cpus"], "cpu", "another CPU's stopper thread", &[]),
    what(&["smp_call_function", "on_each_cpu", "smp_call_on_cpu"], "cpu", "another CPU to answer", &[]),
    what(&["request_wait_answer", "fuse_"], "fuse", "a FUSE server", &[]),
];

/// How many callers further out are asked for a purpose: further ones say what the task does, not what it waits for.
const NEAR: usize = 6;

/// What the functions of a stack say, innermost first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    /// The function that blocks.
    pub(super) block: Option<&'static What>,
    /// What for.
    pub(super) purpose: Option<&'static What>,
}

impl Wait {
    /// The kinds of locks whose waiter may be on the stack.
    pub(super) fn locks(self) -> &'static [LockKind] {
        // Where no function is known it may be a wait queue, on which a task sleeps by a macro.
        self.block.map_or(&[WaitQueue], |block| block.locks)
    }

    /// A word for it.
    pub(super) fn kind(self) -> &'static str {
        self.purpose.or(self.block).map_or("unknown", |what| what.kind)
    }

    /// In words.
    pub(super) fn text(self) -> Option<String> {
        match (self.purpose, self.block) {
            (Some(purpose), _) => Some(purpose.text.to_owned()),
            (None, Some(block)) => Some(block.text.to_owned()),
            (None, None) => None,
        }
    }

    /// True where it waits for a device, or for what stands behind it.
    pub(super) fn is_io(self) -> bool {
        matches!(self.kind(), "io" | "page" | "bit" | "journal" | "nfs" | "writeback")
    }

    /// True where nobody holds it up: its own time is to pass.
    pub(super) fn is_sleep(self) -> bool {
        self.kind() == "sleep"
    }
}

/// True for functions in which a task only sleeps: whoever called them tells why.
pub(in crate::analysis) fn is_sleeping(name: &str) -> bool {
    is_scheduler(name) || of(BLOCKS, name).is_some()
}

/// True for the scheduler's own functions.
pub(super) fn is_scheduler(name: &str) -> bool {
    SCHEDULER.contains(&bare(name))
        || bare(name).starts_with("schedule_timeout") && bare(name) != "schedule_timeout_uninterruptible"
}

/// What the compiler put behind a name is not part of it.
fn bare(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn of(table: &'static [What], name: &str) -> Option<&'static What> {
    let name = bare(name);
    let fits = |prefix: &&str| match *prefix {
        "down" | "__down" => {
            name == *prefix
                || name.strip_prefix(*prefix).is_some_and(|rest| {
                    matches!(rest, "_interruptible" | "_killable" | "_timeout" | "_common")
                })
        }
        prefix => name.starts_with(prefix),
    };
    table.iter().find(|what| what.names.iter().any(&fits))
}

/// What these functions say, innermost first.
pub(super) fn tell<'s>(names: impl Iterator<Item = &'s str>) -> Wait {
    let names: Vec<&str> = names.skip_while(|name| is_scheduler(name)).collect();
    // `io_schedule` only says that the time counts as waiting for a disk: who calls it tells for what.
    let outer = names.first().is_some_and(|name| name.starts_with("io_schedule"));
    let find = |skipped: usize| {
        let mut near = names.iter().enumerate().take(NEAR).skip(skipped);
        near.find_map(|(at, name)| Some((at, of(BLOCKS, name)?)))
    };
    let found = find(usize::from(outer)).or_else(|| find(0));
    let block = found.map(|(at, what)| of_rt(&names, at, what));
    // A mutex or rw-semaphore says itself what is waited for: its caller only says why the task wants it.
    if block.is_some_and(|what| matches!(what.kind, "mutex" | "rwsem" | "rt_mutex" | "spinlock" | "sleep")) {
        return Wait { block, purpose: None };
    }
    let near = found.map_or(0, |(at, _)| at).saturating_add(NEAR);
    Wait { block, purpose: names.iter().take(near).find_map(|name| of(PURPOSES, name)) }
}

/// With `PREEMPT_RT` the other locks are built on the rt-mutex: whoever called its functions tells which lock it is.
fn of_rt(names: &[&str], at: usize, found: &'static What) -> &'static What {
    if found.locks != [RtMutex] {
        return found;
    }
    let callers = names.iter().skip(at).map_while(|name| of(BLOCKS, name));
    callers.filter(|what| what.locks.contains(&RtMutex)).last().unwrap_or(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(names: &[&str]) -> (&'static str, Option<String>) {
        let wait = tell(names.iter().copied());
        (wait.kind(), wait.text())
    }

    #[test]
    fn a_mutex_is_one_whatever_the_compiler_made_of_its_function() {
        let stack = [
            "__schedule",
            "schedule",
            "schedule_preempt_disabled",
            "__mutex_lock.constprop.0",
            "jbd2_commit",
        ];
        assert_eq!(said(&stack), ("mutex", Some("a mutex".into())));
    }

    #[test]
    fn with_preempt_rt_the_caller_tells_which_lock_it_is() {
        let slow =
            ["__schedule", "schedule", "rt_mutex_slowlock_block.constprop.0", "__rt_mutex_slowlock_locked"];
        let called = |callers: &[&'static str]| said(&[&slow, callers].concat()).0;
        assert_eq!(called(&["mutex_lock", "my_driver"]), "mutex");
        assert_eq!(called(&["rwbase_read_lock", "down_read", "my_driver"]), "rwsem");
        assert_eq!(called(&["rt_mutex_lock", "my_driver", "mutex_lock"]), "rt_mutex");
        assert_eq!(said(&["schedule_rtlock", "rtlock_slowlock_locked", "rt_spin_lock", "x"]).0, "spinlock");
    }

    #[test]
    fn a_completion_tells_what_for_where_its_caller_does() {
        let stack =
            ["__schedule", "schedule", "schedule_timeout", "__wait_for_common", "__flush_work.isra.0", "x"];
        assert_eq!(said(&stack), ("work", Some("a work item to be done".into())));
        assert_eq!(said(&["schedule", "wait_for_completion", "my_driver"]).0, "completion");
    }

    #[test]
    fn a_page_is_told_also_where_the_time_counts_as_io() {
        let stack = ["__schedule", "schedule", "io_schedule", "folio_wait_bit_common", "my_driver"];
        assert_eq!(said(&stack).0, "page");
        assert_eq!(said(&["schedule", "io_schedule", "my_driver"]).0, "io");
    }

    #[test]
    fn a_semaphore_is_not_mistaken_for_a_rw_semaphore() {
        assert_eq!(said(&["schedule", "schedule_timeout", "__down_common", "__down", "down"]).0, "semaphore");
        assert_eq!(said(&["schedule", "rwsem_down_write_slowpath", "down_write"]).0, "rwsem");
        assert_eq!(said(&["schedule", "download_firmware"]).0, "unknown");
    }

    #[test]
    fn a_stack_that_blocks_in_no_known_way_says_nothing() {
        assert_eq!(said(&["schedule", "my_driver_wait"]), ("unknown", None));
        assert_eq!(said(&[]), ("unknown", None));
    }
}
