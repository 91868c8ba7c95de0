//! The tasks in the words of the report.

use rayon::prelude::*;

use super::cpus::Registers;
use super::stacks;
use crate::kernel::task::{self, Cmdline, Kind, Source, Tasks};
use crate::report::{Address, Confidence, Finding, Frame, NotLookedAt, Severity, Task, TaskRef};
use crate::unwind::Unwinder;

/// Lost tasks that a finding names.
const NAMED: usize = 8;
/// `SCHED_…` by number (`include/uapi/linux/sched.h`); 4 was never used.
const POLICIES: [&str; 8] = ["normal", "fifo", "rr", "batch", "", "idle", "deadline", "ext"];

/// All tasks but the CPUs' idle ones, by ascending pid; their stacks where there is an unwinder.
pub(super) fn section(tasks: &Tasks, registers: &Registers, unwinder: Option<&Unwinder<'_>>) -> Vec<Task> {
    tasks
        .tasks
        .par_iter()
        .filter(|task| task.kind != Kind::Idle)
        .map(|found| {
            let (backtrace, end) = match unwinder {
                Some(unwinder) => backtrace(found, registers, unwinder),
                None => (Vec::new(), None),
            };
            Task { backtrace, backtrace_end: end, ..facts(found) }
        })
        .collect()
}

/// A task by what names it.
pub(super) fn name(task: &task::Task) -> TaskRef {
    TaskRef {
        pid: Some(i64::from(task.pid)),
        comm: Some(task.comm.clone()),
        kaddr: Some(Address(task.kaddr.0)),
    }
}

/// A task's callers, and why they end there where more would be expected.
pub(super) fn backtrace(
    task: &task::Task,
    registers: &Registers,
    unwinder: &Unwinder<'_>,
) -> (Vec<Frame>, Option<String>) {
    let stack = match (task.running_on, task.stack, task.sp) {
        // What is saved of a task that runs is older than what it does.
        (Some(cpu), ..) => match registers.of(cpu) {
            Some(registers) => unwinder.unwind_registers(registers, cpu),
            None => {
                return (
                    Vec::new(),
                    Some(format!("it ran on CPU {cpu}, whose registers are not in the dump")),
                );
            }
        },
        (None, Some(stack), Some(sp)) => unwinder.unwind_sleeping(stack, sp),
        (None, None, _) if matches!(task.letter(), 'Z' | 'X') => {
            return (Vec::new(), Some("its stack was freed when it exited".into()));
        }
        _ => return (Vec::new(), Some("where its stack is can't be read".into())),
    };
    (stacks::frames(unwinder, &stack, 0), stacks::end(&stack))
}

fn facts(task: &task::Task) -> Task {
    let seconds = |ns: u64| std::time::Duration::from_nanos(ns).as_secs_f64();
    let letter = task.letter();
    let policy = task.schedule.policy.and_then(|n| POLICIES.get(usize::try_from(n).ok()?));
    Task {
        pid: i64::from(task.pid),
        tgid: Some(i64::from(task.tgid)),
        ppid: task.ppid.map(i64::from),
        comm: Some(task.comm.clone()),
        state: (letter != '?').then(|| letter.to_string()),
        kaddr: Some(Address(task.kaddr.0)),
        cpu: task.cpu,
        kernel_thread: task.flags.map(|_| task.kind != Kind::User),
        blocked_for_s: task.blocked_for_ns().map(seconds),
        not_run_s: task.not_run_ns.filter(|_| task.running_on.is_none()).map(seconds),
        uid: task.credentials.as_ref().map(|cred| u64::from(cred.euid)),
        gid: task.credentials.as_ref().map(|cred| u64::from(cred.egid)),
        cgroup: task.cgroup.as_ref().map(|cgroup| cgroup.path.clone()),
        cmdline: match &task.cmdline {
            Cmdline::Arguments { list, .. } => Some(list.join(" ")),
            _ => None,
        },
        flags: task
            .flags
            .map(|flags| {
                flags.names().into_iter().map(|name| name.trim_start_matches("PF_").to_owned()).collect()
            })
            .unwrap_or_default(),
        policy: policy.filter(|name| !name.is_empty()).map(|name| (*name).to_owned()),
        nice: task.schedule.nice.map(i64::from),
        found_in: found_in(task),
        ..Task::default()
    }
}

fn found_in(task: &task::Task) -> Vec<String> {
    let all = [
        (Source::List, "tasks"),
        (Source::Threads, "threads"),
        (Source::Pids, "pids"),
        (Source::RunQueue, "runqueues"),
        (Source::Relatives, "relatives"),
    ];
    all.into_iter().filter(|(source, _)| task.found.has(*source)).map(|(_, name)| name.to_owned()).collect()
}

/// What of the tasks could not be had.
pub(super) fn not_looked_at(tasks: &Tasks) -> Vec<NotLookedAt> {
    let skip = |what: &str, why: String| NotLookedAt { what: what.into(), why };
    let mut all: Vec<NotLookedAt> =
        tasks.gaps.iter().map(|gap| skip(&format!("tasks: {}", gap.what), gap.why.clone())).collect();
    let missing = || {
        tasks.tasks.iter().filter_map(|task| match &task.cmdline {
            Cmdline::Missing(why) => Some(why),
            _ => None,
        })
    };
    if let Some(why) = missing().next() {
        all.push(skip(
            "tasks.cmdline",
            format!("the arguments of {} tasks can't be read; of the first: {why}", missing().count()),
        ));
    }
    if tasks.lost_count > 0 {
        let named: Vec<String> = tasks.lost.iter().take(NAMED).map(ToString::to_string).collect();
        let more = tasks.lost_count.saturating_sub(named.len());
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        all.push(skip("tasks", format!("{} can't be shown: {}{more}", tasks.lost_count, named.join("; "))));
    }
    all
}

/// That tasks are missing.
pub(super) fn finding(tasks: &Tasks) -> Option<Finding> {
    if tasks.lost_count == 0 {
        return None;
    }
    let count = tasks.lost_count;
    let title = format!("{count} tasks are known of that can't be shown: the list of tasks is not whole.");
    let mut finding = Finding::new("KD-TASKS-LOST", Severity::Warning, Confidence::Certain, title)
        .next("Where makedumpfile is older than the kernel it can leave out too much: use a newer one, or a lower dump level.")
        .by_hand_crash("ps")
        .by_hand_drgn("len(list(for_each_task()))");
    finding.evidence.extend(tasks.lost.iter().take(NAMED).map(ToString::to_string));
    Some(finding)
}
