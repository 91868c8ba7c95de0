//! `struct task_struct` and `struct signal_struct`, as far as they are looked at.
//!
//! Names are the newest first. A task is not given up for a page of it that is missing, so nearly everything may be.

use crate::addr::KVirtAddr;
use crate::kernel::list::Node;
use crate::kernel::value::{Maybe, view};

view! {
    /// A task, as it stands in memory.
    pub(super) struct TaskView of "task_struct" {
        // Moved from the task to its thread_info in 5.16 (commit bcf9033e5449).
        pub(super) cpu: Maybe<u32> = ["thread_info.cpu", "cpu"],
        // Renamed, and halved, in 5.14 (commit 2f064a59a11f).
        pub(super) state: Maybe<u64> = ["__state", "state"],
        pub(super) exit_state: Maybe<u32> = ["exit_state"],
        pub(super) flags: Maybe<u32> = ["flags"],
        pub(super) pid: u32 = ["pid"],
        pub(super) tgid: u32 = ["tgid"],
        pub(super) comm: Vec<u8> = ["comm"],
        pub(super) stack: Maybe<KVirtAddr> = ["stack"],
        pub(super) sp: Maybe<KVirtAddr> = ["thread.sp"],
        pub(super) mm: Maybe<KVirtAddr> = ["mm"],
        pub(super) real_parent: Maybe<KVirtAddr> = ["real_parent"],
        pub(super) group_leader: Maybe<KVirtAddr> = ["group_leader"],
        pub(super) signal: Maybe<KVirtAddr> = ["signal"],
        pub(super) real_cred: Maybe<KVirtAddr> = ["real_cred"],
        pub(super) cgroups: Maybe<KVirtAddr> = ["cgroups"],
        // Since 4.19 (commit 2c4704756cab); before it, a pid_link for each type.
        pub(super) thread_pid: Maybe<KVirtAddr> = ["thread_pid", "pids[0].pid"],
        pub(super) pid_pprev: Maybe<KVirtAddr> = ["pid_links[0].pprev", "pids[0].node.pprev"],
        pub(super) tasks_next: Maybe<KVirtAddr> = ["tasks.next"],
        pub(super) tasks_prev: Maybe<KVirtAddr> = ["tasks.prev"],
        pub(super) thread_next: Maybe<KVirtAddr> = ["thread_node.next"],
        pub(super) thread_prev: Maybe<KVirtAddr> = ["thread_node.prev"],
        pub(super) children_next: Maybe<KVirtAddr> = ["children.next"],
        pub(super) children_prev: Maybe<KVirtAddr> = ["children.prev"],
        pub(super) sibling_next: Maybe<KVirtAddr> = ["sibling.next"],
        pub(super) sibling_prev: Maybe<KVirtAddr> = ["sibling.prev"],
        pub(super) policy: Maybe<u32> = ["policy"],
        pub(super) prio: Maybe<i32> = ["prio"],
        pub(super) static_prio: Maybe<i32> = ["static_prio"],
        pub(super) rt_priority: Maybe<u32> = ["rt_priority"],
        pub(super) on_cpu: Maybe<u32> = ["on_cpu"],
        pub(super) on_rq: Maybe<u32> = ["on_rq"],
        pub(super) exec_start: Maybe<u64> = ["se.exec_start"],
        pub(super) last_arrival: Maybe<u64> = ["sched_info.last_arrival"],
        pub(super) last_queued: Maybe<u64> = ["sched_info.last_queued"],
        pub(super) run_delay: Maybe<u64> = ["sched_info.run_delay"],
        pub(super) voluntary_switches: Maybe<u64> = ["nvcsw"],
        pub(super) involuntary_switches: Maybe<u64> = ["nivcsw"],
        pub(super) utime: Maybe<u64> = ["utime"],
        pub(super) stime: Maybe<u64> = ["stime"],
        pub(super) start_time: Maybe<u64> = ["start_time"],
        // Renamed in 5.5 (commit cf25e24db61c).
        pub(super) start_boottime: Maybe<u64> = ["start_boottime", "real_start_time"],
        pub(super) pending: Maybe<u64> = ["pending.signal.sig[0]"],
        pub(super) blocked: Maybe<u64> = ["blocked.sig[0]"],
        pub(super) in_iowait: Maybe<bool> = ["in_iowait"],
    }
}

view! {
    /// What the threads of a process share.
    pub(super) struct SignalView of "signal_struct" {
        pub(super) nr_threads: Maybe<u32> = ["nr_threads"],
        pub(super) pending: Maybe<u64> = ["shared_pending.signal.sig[0]"],
    }
}

/// Two pointers as the node of a list that they are.
pub(super) fn node(next: &Maybe<KVirtAddr>, prev: &Maybe<KVirtAddr>) -> Option<Node> {
    Some(Node { next: *next.as_ref()?, prev: *prev.as_ref()? })
}

impl TaskView {
    /// True where nothing that it says can't be said by a task.
    pub(super) fn is_possible(&self) -> bool {
        let kernel = |at: &Maybe<KVirtAddr>| at.as_ref().is_none_or(|at| at.is_null() || is_kernel(*at));
        let pointers = [
            &self.stack,
            &self.sp,
            &self.mm,
            &self.real_parent,
            &self.group_leader,
            &self.signal,
            &self.real_cred,
        ];
        self.pid < PID_MAX
            && self.tgid < PID_MAX
            && self.comm.contains(&0)
            && pointers.iter().all(|at| kernel(at))
            // Who has a number has a leader; the task that died longest ago keeps it.
            && self.group_leader.as_ref().is_none_or(|at| !at.is_null())
    }

    /// True where it looks like a task though nothing that was checked points back at it.
    pub(super) fn is_plausible(&self) -> bool {
        let name = self.comm.split(|b| *b == 0).next().unwrap_or_default();
        self.is_possible()
            && !name.is_empty()
            && std::str::from_utf8(name).is_ok_and(|name| !name.chars().any(char::is_control))
            && self.tasks_next.as_ref().is_none_or(|at| is_kernel(*at))
    }

    /// The first reason why a member is missing.
    pub(super) fn gap(&self) -> Option<String> {
        let reason = |value: &Maybe<u64>| match value {
            Maybe::Unreadable(why) => Some(why.clone()),
            _ => None,
        };
        let pointer = |value: &Maybe<KVirtAddr>| match value {
            Maybe::Unreadable(why) => Some(why.clone()),
            _ => None,
        };
        reason(&self.state)
            .or_else(|| pointer(&self.sp))
            .or_else(|| pointer(&self.signal))
            .or_else(|| pointer(&self.real_parent))
            .or_else(|| reason(&self.utime))
            .or_else(|| pointer(&self.real_cred))
    }
}

/// `PID_MAX_LIMIT` of a 64-bit kernel.
const PID_MAX: u32 = 4 << 20;

/// True for an address of the kernel's half, with four or five levels of page tables.
pub(super) fn is_kernel(at: KVirtAddr) -> bool {
    at.0 >= 0xff00_0000_0000_0000
}
