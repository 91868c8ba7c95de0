//! The tasks: all that `ps` shows, from the dump alone.
//!
//! [`read`] never fails. Tasks are looked for in the list of processes, the table of process ids, the thread groups and on the
//! run queues; each task says where it was found, and what is known to be missing is told in [`Tasks::lost`].
//! Layouts come from the dump's own types (4.18 to 7.x).

mod find;
mod state;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

pub use super::cgroup::CgroupPath;
pub use super::cmdline::Cmdline;
pub use super::cred::Credentials;
pub use super::pid::NamespacePid;
pub use state::{Flags, State};

use super::Gap;
use super::cgroup::Paths;
use super::cmdline;
use super::cpu::{self, Cpus};
use super::describe::Description;
use super::percpu::PerCpu;
use super::pid::Pids;
use super::value::{self, Layout, Maybe, Slot};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::xlat::KernelMemory;
use find::{Found, Record};

/// A nice value of 0 as `static_prio`: `DEFAULT_PRIO`.
const DEFAULT_PRIO: i32 = 120;
/// Processes that are asked for their arguments before all are.
const CMDLINE_SAMPLE: usize = 64;
/// The bit of `SIGKILL` in a set of signals.
const SIGKILL: u64 = 1 << 8;

/// Where a task was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// In the list of processes that begins at `init_task`.
    List,
    /// In the table of process ids.
    Pids,
    /// Among the threads of a process.
    Threads,
    /// On a CPU, or as its idle task.
    RunQueue,
    /// As parent, leader or child of another task. These are asked only where one of the others is broken.
    Relatives,
}

impl Source {
    fn bit(self) -> u8 {
        match self {
            Self::List => 1,
            Self::Pids => 2,
            Self::Threads => 4,
            Self::RunQueue => 8,
            Self::Relatives => 16,
        }
    }
}

/// All the places where a task was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sources(u8);

impl Sources {
    pub(super) fn add(&mut self, source: Source) {
        self.0 |= source.bit();
    }

    /// True where it was found there.
    #[must_use]
    pub fn has(self, source: Source) -> bool {
        self.0 & source.bit() != 0
    }
}

/// What kind of task it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A thread of a process. One that has exited, too.
    User,
    /// A kernel thread (`PF_KTHREAD`).
    Kernel,
    /// A CPU's idle task: pid 0, which `ps` does not show.
    Idle,
}

/// How a task is scheduled. Times are nanoseconds on the scheduler's clock, see [`Cpus::now_ns`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// `SCHED_NORMAL` 0, `SCHED_FIFO` 1, `SCHED_RR` 2, `SCHED_BATCH` 3, `SCHED_IDLE` 5, `SCHED_DEADLINE` 6, `SCHED_EXT` 7.
    pub policy: Option<u32>,
    /// The priority that it runs with now: 0 to 99 real-time, 100 to 139 others, below 0 deadline. `ps` and `top` show other numbers.
    pub prio: Option<i32>,
    /// Nice value, -20 to 19.
    pub nice: Option<i32>,
    /// Real-time priority, 1 to 99; 0 for others.
    pub rt_priority: Option<u32>,
    /// Whether a CPU has it loaded (`on_cpu`).
    pub on_cpu: Option<bool>,
    /// Whether it is on a run queue (`on_rq`). Since 6.12 a task that sleeps may stay there for a while (delayed dequeue).
    pub on_rq: Option<bool>,
    /// When it last got a CPU; 0 for never. The kernel keeps it only with `CONFIG_SCHED_INFO`.
    pub last_arrival_ns: Option<u64>,
    /// Since when it waits for a CPU; 0 where it does not.
    pub last_queued_ns: Option<u64>,
    /// How long it has waited for a CPU in all.
    pub run_delay_ns: Option<u64>,
    /// When its run time was last counted, which is when it last gave up its CPU. On its CPU's `clock_task`.
    pub exec_start_ns: Option<u64>,
    /// How often it gave up the CPU by itself.
    pub voluntary_switches: Option<u64>,
    /// How often the CPU was taken from it.
    pub involuntary_switches: Option<u64>,
}

/// Signals of a task, one bit each: that of signal 1 is the lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signals {
    /// Those that wait for this thread.
    pub pending: Option<u64>,
    /// Those that wait for any thread of its process.
    pub shared: Option<u64>,
    /// Those that it does not take now.
    pub blocked: Option<u64>,
}

impl Signals {
    /// True where it was told to die and has not yet: `fatal_signal_pending`.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.pending.is_some_and(|set| set & SIGKILL != 0)
    }
}

/// A task. A member is `None` where this kernel does not have it or its page is not in the dump; [`Task::gap`] tells the latter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// Its `task_struct`.
    pub kaddr: KVirtAddr,
    /// Its number: that of the thread, in the first pid namespace.
    pub pid: u32,
    /// The number of its process.
    pub tgid: u32,
    /// The number of the process that it is a child of; 0 for those that the kernel started.
    pub ppid: Option<u32>,
    /// Its name: the bytes up to the NUL, with what is no UTF-8 replaced. Not escaped: a process can choose any.
    pub comm: String,
    /// Its state.
    pub state: Option<State>,
    /// The CPU that it is on, or was last on.
    pub cpu: Option<u32>,
    /// The CPU that runs it, by that CPU's run queue.
    pub running_on: Option<usize>,
    /// What kind it is.
    pub kind: Kind,
    /// `PF_…`.
    pub flags: Option<Flags>,
    /// Its `mm_struct`; `None` for kernel threads and for processes that have exited.
    pub mm: Option<KVirtAddr>,
    /// What its threads share, its `signal_struct`; `None` where it has none any more.
    pub signal: Option<KVirtAddr>,
    /// Its command line.
    pub cmdline: Cmdline,
    /// Whom it acts for.
    pub credentials: Option<Credentials>,
    /// Its control group; shared by the tasks in it.
    pub cgroup: Option<Arc<CgroupPath>>,
    /// How it is scheduled.
    pub schedule: Schedule,
    /// For how long it has not run, in nanoseconds: from when it last gave up its CPU to [`Cpus::now_ns`]. 0 for who runs, `None`
    /// for who has never run. For a task in D that is how long it is blocked.
    ///
    /// Taken from `se.exec_start`, or from `sched_info.last_arrival` where that is later (a migration can reset the former).
    pub not_run_ns: Option<u64>,
    /// From when it last got a CPU to what its CPU's run queue says is now, in nanoseconds: what crash's `ps -m` and drgn's
    /// `task_since_last_arrival_ns` show. Includes the time that it then ran, and is too short where that CPU slept.
    pub since_arrival_ns: Option<i64>,
    /// When it was started, in nanoseconds since boot: time that the machine slept does not count.
    pub start_ns: Option<u64>,
    /// The same with the time that the machine slept.
    pub start_boottime_ns: Option<u64>,
    /// Time that it ran in user space, in nanoseconds. By ticks on most kernels.
    pub utime_ns: Option<u64>,
    /// Time that it ran in the kernel, in nanoseconds.
    pub stime_ns: Option<u64>,
    /// The lowest byte of its kernel stack; `None` where it was freed.
    pub stack: Option<KVirtAddr>,
    /// Where its stack pointer was when it last gave up the CPU. Stale for a task that runs.
    pub sp: Option<KVirtAddr>,
    /// Signals that wait for it.
    pub signals: Signals,
    /// Whether it waits for input or output.
    pub in_iowait: Option<bool>,
    /// Its number in its own pid namespace, where that is not the first.
    pub namespace_pid: Option<NamespacePid>,
    /// Where it was found.
    pub found: Sources,
    /// Why something of it is missing, where that is so.
    pub gap: Option<String>,
}

impl Task {
    /// The letter of its state as `ps` shows it; `?` where that is not known.
    #[must_use]
    pub fn letter(&self) -> char {
        self.state.map_or('?', State::letter)
    }

    /// For how long it is blocked, in nanoseconds; `None` for a task that is not in D.
    #[must_use]
    pub fn blocked_for_ns(&self) -> Option<u64> {
        (self.letter() == 'D').then_some(self.not_run_ns).flatten()
    }

    /// True for the first thread of a process.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.pid == self.tgid
    }
}

/// A task that is known to exist, or to have existed, and can't be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Its number, where that is known. The number in the table of process ids can also be that of a group without a task.
    pub pid: Option<u64>,
    /// Where its `task_struct` should be, where that is known.
    pub kaddr: Option<KVirtAddr>,
    /// What leads to it.
    pub source: Source,
    /// Why it can't be shown.
    pub why: String,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.source {
            Source::List => "in the list of tasks",
            Source::Pids => "in the table of process ids",
            Source::Threads => "among the threads of a process",
            Source::RunQueue => "on a run queue",
            Source::Relatives => "a relative of another task",
        };
        match self.pid {
            Some(pid) => write!(f, "pid {pid} is {place}, but {}", self.why),
            None => write!(f, "a task is {place}, but {}", self.why),
        }
    }
}

/// The tasks of a dump, by ascending pid; idle tasks first.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Tasks {
    /// All that were found.
    pub tasks: Vec<Task>,
    /// The CPUs.
    pub cpus: Cpus,
    /// Tasks that can't be shown; at most the first thousand of them.
    pub lost: Vec<Lost>,
    /// How many can't be shown.
    pub lost_count: usize,
    /// How many threads the kernel itself counts (`nr_threads`), idle tasks not among them. A gap says so where fewer are found.
    pub counted: Option<u32>,
    /// What else is broken, and why. A broken list need not mean a lost task: the others lead to it too.
    pub gaps: Vec<Gap>,
    by_kaddr: HashMap<KVirtAddr, usize>,
}

impl Tasks {
    /// The task whose `task_struct` is at `kaddr`.
    #[must_use]
    pub fn at(&self, kaddr: KVirtAddr) -> Option<&Task> {
        self.by_kaddr.get(&kaddr).and_then(|at| self.tasks.get(*at))
    }

    /// The task of that number. There is one idle task for each CPU; for 0, that of the first is given.
    #[must_use]
    pub fn by_pid(&self, pid: u32) -> Option<&Task> {
        let first = self.tasks.partition_point(|task| task.pid < pid);
        self.tasks.get(first).filter(|task| task.pid == pid)
    }

    /// The task that a CPU runs.
    #[must_use]
    pub fn current(&self, cpu: usize) -> Option<&Task> {
        let cpu = self.cpus.get(cpu)?;
        cpu.current_task.and_then(|at| self.at(at)).or_else(|| cpu.curr.and_then(|at| self.at(at)))
    }
}

/// Finds and reads them.
#[must_use]
pub fn read(memory: &KernelMemory<'_>, description: &Description, percpu: &PerCpu, limits: &Limits) -> Tasks {
    let cpus = cpu::read(memory, description, percpu);
    let found = find::all(memory, description, &cpus, limits);
    let mut gaps = cpus.gaps.clone();
    let others = Others::read(memory, description, limits, &found, &mut gaps);
    let running: HashMap<KVirtAddr, usize> =
        cpus.cpus.iter().filter_map(|cpu| Some((cpu.curr?, cpu.number))).collect();
    let context = Context { found: &found, others: &others, cpus: &cpus, running, now: cpus.now_ns() };
    let records: Vec<(&KVirtAddr, &Record)> = found.records.iter().collect();
    let mut tasks: Vec<Task> = records.par_iter().map(|(at, record)| context.task(**at, record)).collect();
    // A task is large: its key is put in order first, and the task moved once.
    tasks.sort_by_cached_key(|task| (task.pid, task.cpu, task.kaddr));
    let by_kaddr = tasks.iter().enumerate().map(|(at, task)| (task.kaddr, at)).collect();
    gaps.extend(found.gaps);
    let (lost, lost_count, counted) = (found.lost, found.lost_count, found.counted);
    Tasks { tasks, cpus, lost, lost_count, counted, gaps, by_kaddr }
}

/// What tasks point at and share.
#[derive(Default)]
struct Others {
    credentials: HashMap<KVirtAddr, Credentials>,
    cgroups: HashMap<KVirtAddr, Arc<CgroupPath>>,
    cmdlines: HashMap<KVirtAddr, Cmdline>,
    /// `tgid` of parents that were not found as tasks.
    parents: HashMap<KVirtAddr, u32>,
    /// Numbers in nested namespaces, where the table of process ids did not lead to them.
    nested: HashMap<KVirtAddr, NamespacePid>,
}

impl Others {
    fn read(
        memory: &KernelMemory<'_>,
        description: &Description,
        limits: &Limits,
        found: &Found,
        gaps: &mut Vec<Gap>,
    ) -> Self {
        let types = &description.types;
        let views = || found.records.values().map(|record| &record.view);
        let mut others = Self::default();
        if found.records.is_empty() {
            return others;
        }
        let mut gap = |what: &str, why: String| gaps.push(Gap { what: what.into(), why });
        match Layout::<Credentials>::new(types) {
            Ok(layout) => {
                let all = distinct(views().map(|view| &view.real_cred));
                let read = all.par_iter().filter_map(|at| Some((*at, layout.read(memory, *at).ok()?)));
                others.credentials = read.collect();
                missing(&mut gap, "credentials", all.len(), others.credentials.len());
            }
            Err(why) => gap("credentials", why.to_string()),
        }
        // A kernel without control groups has no such member.
        if views().any(|view| !matches!(view.cgroups, Maybe::Absent)) {
            match Paths::new(types) {
                Ok(paths) => {
                    let all = distinct(views().map(|view| &view.cgroups));
                    let read =
                        all.par_iter().filter_map(|at| Some((*at, Arc::new(paths.of(memory, *at).ok()?))));
                    others.cgroups = read.collect();
                    missing(&mut gap, "control groups", all.len(), others.cgroups.len());
                }
                Err(why) => gap("control groups", why.to_string()),
            }
        }
        match Layout::new(types) {
            Ok(layout) => {
                let own =
                    views().filter(|view| !view.flags.as_ref().is_some_and(|f| Flags(*f).is_kernel_thread()));
                let all = distinct(own.map(|view| &view.mm));
                let read = |at: &KVirtAddr| (*at, cmdline::read(memory, &layout, *at, limits.cmdline_bytes));
                // To learn that a page was left out costs the page tables of its process. Where user memory was left out
                // altogether, some processes tell it for all.
                let step = all.len().div_ceil(CMDLINE_SAMPLE).max(1);
                let (sample, rest): (Vec<_>, Vec<_>) =
                    all.iter().enumerate().partition(|(number, _)| number.is_multiple_of(step));
                others.cmdlines = sample.par_iter().map(|(_, at)| read(at)).collect();
                // The first by its address: the reason is told, and is to be the same each time.
                let missing = sample.iter().find_map(|(_, at)| match others.cmdlines.get(at) {
                    Some(Cmdline::Missing(why)) => Some(why.clone()),
                    _ => None,
                });
                let some = others.cmdlines.values().any(|found| matches!(found, Cmdline::Arguments { .. }));
                match missing.filter(|_| !some) {
                    None => others.cmdlines.par_extend(rest.par_iter().map(|(_, at)| read(at))),
                    Some(why) => {
                        let why =
                            format!("not looked for, since none of {} others is there: {why}", sample.len());
                        others
                            .cmdlines
                            .extend(rest.iter().map(|(_, at)| (**at, Cmdline::Missing(why.clone()))));
                    }
                }
            }
            Err(why) => gap("command lines", why.to_string()),
        }
        let tgid = types.structure("task_struct").and_then(|task| Slot::new(task.member("tgid")?));
        if let Ok(tgid) = tgid {
            let parents = distinct(views().map(|view| &view.real_parent));
            let unknown = parents.into_iter().filter(|at| !found.records.contains_key(at));
            let read = |at| Some((at, u32::try_from(value::read_number(memory, at, &tgid).ok()?).ok()?));
            others.parents = unknown.filter_map(read).collect();
        }
        if let Ok(pids) = Pids::new(types) {
            let unknown = views().filter_map(|view| Some((view.thread_pid.as_ref().copied()?, view.pid)));
            let unknown = unknown.filter(|(at, _)| !at.is_null() && !found.complete_pids);
            others.nested = unknown
                .filter_map(|(at, pid)| Some((at, pids.read(memory, at, pid.into()).ok()?.nested?)))
                .collect();
        }
        others
    }
}

/// The pointers that lead somewhere, each once.
fn distinct<'a>(pointers: impl Iterator<Item = &'a Maybe<KVirtAddr>>) -> Vec<KVirtAddr> {
    let all: BTreeSet<KVirtAddr> =
        pointers.filter_map(Maybe::as_ref).copied().filter(|at| !at.is_null()).collect();
    all.into_iter().collect()
}

fn missing(gap: &mut impl FnMut(&str, String), what: &str, all: usize, read: usize) {
    if read < all {
        gap(what, format!("{} of {all} can't be read", all.saturating_sub(read)));
    }
}

/// All that is needed to make a task of what was read.
struct Context<'a> {
    found: &'a Found,
    others: &'a Others,
    cpus: &'a Cpus,
    running: HashMap<KVirtAddr, usize>,
    now: Option<u64>,
}

impl Context<'_> {
    fn task(&self, kaddr: KVirtAddr, record: &Record) -> Task {
        let view = &record.view;
        let some = |at: &Maybe<KVirtAddr>| at.as_ref().copied().filter(|at| !at.is_null());
        let flags = view.flags.as_ref().copied().map(Flags);
        let mm = some(&view.mm);
        let kind = match flags {
            _ if view.pid == 0 => Kind::Idle,
            Some(flags) if flags.is_kernel_thread() => Kind::Kernel,
            _ => Kind::User,
        };
        let cmdline = match mm {
            Some(mm) if kind == Kind::User => self.others.cmdlines.get(&mm).cloned().unwrap_or(Cmdline::None),
            _ => Cmdline::None,
        };
        let name = view.comm.split(|b| *b == 0).next().unwrap_or_default();
        let signal = some(&view.signal);
        let shared = signal.and_then(|at| self.found.signals.get(&at));
        let state = view
            .state
            .as_ref()
            .map(|raw| State { raw: *raw, exit: view.exit_state.as_ref().copied().map_or(0, u64::from) });
        let running_on = self.running.get(&kaddr).copied();
        Task {
            kaddr,
            pid: view.pid,
            tgid: view.tgid,
            ppid: some(&view.real_parent).and_then(|at| self.tgid_of(at)),
            comm: String::from_utf8_lossy(name).into_owned(),
            state,
            cpu: view.cpu.as_ref().copied(),
            running_on,
            kind,
            flags,
            mm,
            signal,
            cmdline,
            credentials: some(&view.real_cred).and_then(|at| self.others.credentials.get(&at).copied()),
            cgroup: some(&view.cgroups).and_then(|at| self.others.cgroups.get(&at).map(Arc::clone)),
            schedule: schedule(record),
            not_run_ns: if running_on.is_some() { Some(0) } else { self.not_run(record) },
            since_arrival_ns: self.since_arrival(record),
            start_ns: view.start_time.as_ref().copied(),
            start_boottime_ns: view.start_boottime.as_ref().copied(),
            utime_ns: view.utime.as_ref().copied(),
            stime_ns: view.stime.as_ref().copied(),
            stack: some(&view.stack),
            sp: some(&view.sp),
            signals: Signals {
                pending: view.pending.as_ref().copied(),
                shared: shared.and_then(|shared| shared.pending.as_ref().copied()),
                blocked: view.blocked.as_ref().copied(),
            },
            in_iowait: view.in_iowait.as_ref().copied(),
            namespace_pid: some(&view.thread_pid)
                .and_then(|at| self.found.nested.get(&at).or_else(|| self.others.nested.get(&at)).copied()),
            found: record.found,
            gap: view.gap(),
        }
    }

    fn tgid_of(&self, task: KVirtAddr) -> Option<u32> {
        let known = self.found.records.get(&task).map(|record| record.view.tgid);
        known.or_else(|| self.others.parents.get(&task).copied())
    }

    fn cpu_of(&self, record: &Record) -> Option<&cpu::Cpu> {
        self.cpus.get(usize::try_from(*record.view.cpu.as_ref()?).ok()?)
    }

    fn not_run(&self, record: &Record) -> Option<u64> {
        let view = &record.view;
        let cpu = self.cpu_of(record);
        // clock_task runs behind by the time that interrupts and the host took. What they took since is counted as time that it
        // did not run, for which it is too short by a little.
        let behind = cpu.and_then(|cpu| cpu.clock_ns?.checked_sub(cpu.clock_task_ns?)).unwrap_or_default();
        let counted = view.exec_start.as_ref().filter(|at| **at > 0).map(|at| at.saturating_add(behind));
        let arrived = view.last_arrival.as_ref().copied().filter(|at| *at > 0);
        let last = counted.max(arrived)?;
        Some(self.now?.saturating_sub(last))
    }

    fn since_arrival(&self, record: &Record) -> Option<i64> {
        let clock = self.cpu_of(record)?.clock_ns?;
        let arrived = record.view.last_arrival.as_ref().copied()?;
        Some(clock.wrapping_sub(arrived).cast_signed())
    }
}

fn schedule(record: &Record) -> Schedule {
    let view = &record.view;
    Schedule {
        policy: view.policy.as_ref().copied(),
        prio: view.prio.as_ref().copied(),
        nice: view.static_prio.as_ref().and_then(|prio| prio.checked_sub(DEFAULT_PRIO)),
        rt_priority: view.rt_priority.as_ref().copied(),
        on_cpu: view.on_cpu.as_ref().map(|on| *on != 0),
        on_rq: view.on_rq.as_ref().map(|on| *on != 0),
        last_arrival_ns: view.last_arrival.as_ref().copied(),
        last_queued_ns: view.last_queued.as_ref().copied(),
        run_delay_ns: view.run_delay.as_ref().copied(),
        exec_start_ns: view.exec_start.as_ref().copied(),
        voluntary_switches: view.voluntary_switches.as_ref().copied(),
        involuntary_switches: view.involuntary_switches.as_ref().copied(),
    }
}
