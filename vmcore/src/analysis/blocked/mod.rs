//! Who waits for whom: blocked tasks by their stacks, the locks that they wait for, and who holds these.

mod behind;
mod findings;
mod flush;
mod graph;
mod object;
mod place;
mod rt;
mod what;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;

use super::console;
use super::cpus::Registers;
use super::parts::{Clock, Context, Part};
use super::tasks as words;
use crate::addr::KVirtAddr;
use crate::kernel::lock::{Candidate, LockKind, Locks, Owner, Wait};
use crate::kernel::task::{State, Task};
use crate::kernel::variable::Variables;
use crate::report::{Address, Blocked, BlockedGroup, Blocker, Frame, Lock, WaitEdge};
use graph::Graph;
pub(super) use what::is_sleeping;

/// Pids that a group names.
const PIDS: usize = 64;
/// Functions that a group names.
const SYMBOLS: usize = 24;
/// How often those who hold a lock are asked what they wait for themselves: a chain through tasks that are not in D.
const ROUNDS: usize = 64;
/// Who waits for less is no news, in seconds.
const NEWS: f64 = 10.0;
/// For several behind the same one: a lock that none of them got for so long is held, not merely busy.
const CROWD_NEWS: f64 = 1.0;
/// How many are several.
const CROWD: u64 = 3;
/// `kernel.hung_task_timeout_secs` where it can't be read.
const HUNG: f64 = 120.0;

/// One task that waits.
struct Waiting<'a> {
    task: &'a Task,
    symbols: Vec<String>,
    why: what::Wait,
    wait: Option<Wait>,
    owner: Option<&'a Task>,
    sure: bool,
    /// The lock.
    whole: Option<rt::Whole>,
    /// The name of the lock.
    name: Option<String>,
    /// The work that it waits for, where it waits for one.
    flushed: Option<flush::Flushed>,
    /// What stands behind a wait without an owner, in words.
    object: Option<String>,
    /// Who is in the way where no lock tells.
    behind: Option<behind::Behind<'a>>,
}

impl Waiting<'_> {
    fn seconds(&self) -> f64 {
        self.task.not_run_ns.map_or(0.0, |ns| std::time::Duration::from_nanos(ns).as_secs_f64())
    }

    fn kind(&self) -> &'static str {
        if let Some(behind) = &self.behind {
            return behind.kind;
        }
        match &self.wait {
            Some(_) if self.flushed.is_some() => "work",
            // With PREEMPT_RT other locks are built on it, and the function that was called tells which.
            Some(wait) if wait.kind == LockKind::RtMutex && self.why.block.is_some() => self.why.kind(),
            Some(wait) => wait.kind.name(),
            None => self.why.kind(),
        }
    }

    /// `mutex lab_mutex_a (0x…)`.
    fn lock_words(&self) -> String {
        if let Some(flushed) = &self.flushed {
            return flushed.words.clone();
        }
        if let Some(behind) = &self.behind {
            return behind.words.clone();
        }
        if let Some(object) = &self.object {
            return object.clone();
        }
        match (&self.wait, &self.name) {
            (Some(_), Some(name)) => format!("{} {name}{}", self.kind(), self.place(" (", ")")),
            (Some(_), None) => format!("{}{}", self.kind(), self.place(" at ", "")),
            (None, _) => self.why.text().unwrap_or_else(|| "something that its stack does not tell".into()),
        }
    }

    fn place(&self, before: &str, behind: &str) -> String {
        self.whole.map(|whole| format!("{before}{}{behind}", whole.at)).unwrap_or_default()
    }

    /// True where it is before the other in the queue of the same lock, and does not hold it either.
    fn is_next_for_what(&self, other: &Self) -> bool {
        self.wait.is_none() && self.whole.is_some() && self.whole == other.whole
    }

    /// Where the lock is; of a work, the work.
    fn at(&self) -> Option<KVirtAddr> {
        if let Some(behind) = &self.behind {
            return behind.at;
        }
        self.flushed.as_ref().map(|flushed| flushed.at).or_else(|| Some(self.whole?.at))
    }

    /// The lock's name; of a work, its function.
    fn lock_name(&self) -> Option<String> {
        if let Some(behind) = &self.behind {
            return behind.name.clone();
        }
        self.flushed.as_ref().and_then(|flushed| flushed.name.clone()).or_else(|| self.name.clone())
    }

    /// A person's words for what it waits for.
    fn what(&self) -> Option<String> {
        if let Some(flushed) = &self.flushed {
            return Some(flushed.words.clone());
        }
        let object = self.behind.as_ref().map(|behind| &behind.words).or(self.object.as_ref());
        let queue = || self.wait.as_ref().filter(|wait| wait.kind == LockKind::WaitQueue);
        match (self.why.text(), object) {
            // Who waits by a macro is in no function that tells.
            (None, None) if queue().is_some() => Some("a wake-up from a wait queue".into()),
            (Some(text), Some(object)) => Some(format!("{text}: {object}")),
            (text, object) => text.or_else(|| object.cloned()),
        }
    }
}

/// All that was found out.
struct Waits<'a> {
    waiting: Vec<Waiting<'a>>,
    graph: Graph,
    registers: Registers,
    hung_s: f64,
}

/// The analysis.
pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    if context.tasks.tasks.is_empty() {
        let mut part = Part::default();
        part.skip("blocked", "it needs the tasks, and none could be read");
        return part;
    }
    let (waits, stopped) = find(context, clock);
    let blocked = section(context, &waits);
    let findings = findings::all(context, &waits, &blocked);
    let mut part = Part::new(move |report| report.blocked = Some(blocked));
    part.findings = findings;
    if stopped {
        part.stopped("blocked");
    }
    let unread = waits.waiting.iter().filter(|waiting| waiting.symbols.is_empty()).count();
    if unread > 0 {
        part.skip(
            "blocked",
            format!("the stacks of {unread} blocked tasks can't be read, so what they wait for is not known"),
        );
    }
    part
}

fn find<'a>(context: &Context<'a>, clock: &Clock) -> (Waits<'a>, bool) {
    let handed_over = context.kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
    let notes = handed_over.map_or(context.subject.cpus.as_slice(), |crashed| &crashed.registers);
    let registers = Registers::assign(notes, Some(context.tasks));
    let (symbols, types) = (&context.description.symbols, &context.description.types);
    let mut locks = Locks::new(context.memory, symbols, types, context.tasks, context.limits);
    let known: HashMap<Address, &[Frame]> = context
        .report
        .tasks
        .iter()
        .filter(|task| !task.backtrace.is_empty())
        .filter_map(|task| Some((task.kaddr?, task.backtrace.as_slice())))
        .collect();
    let mut waiting: Vec<Waiting<'a>> = Vec::new();
    let mut graph = Graph::default();
    let mut seen: BTreeSet<KVirtAddr> = BTreeSet::new();
    let is_blocked = |task: &&Task| task.letter() == 'D' && task.running_on.is_none();
    let mut next: Vec<&Task> = context.tasks.tasks.iter().filter(is_blocked).collect();
    let mut stopped = false;
    let works = flush::Works::new(context);
    let objects = object::Objects::new(context);
    let grace = behind::Grace::new(context);
    let console = console::read(context);
    for round in 0..ROUNDS {
        seen.extend(next.iter().map(|task| task.kaddr));
        let asked: Vec<(&Task, Vec<String>, what::Wait, Vec<Candidate>)> = next
            .par_iter()
            .filter(|_| !clock.is_spent())
            .map(|task| {
                let task: &'a Task = task;
                let frames = frames_of(context, task, &registers, &known);
                let names = names(&frames);
                let why = what::tell(names.iter().map(String::as_str));
                let why = if why.kind() == "rt_mutex" { api(context, &frames, &names, why) } else { why };
                // Who merely sleeps and is asked because it holds a lock is no waiter by a queue of its own.
                let asks = round == 0 || why.block.is_some();
                let candidates = if asks { locks.candidates(task, why.locks()) } else { Vec::new() };
                (task, names, why, candidates)
            })
            .collect();
        stopped |= asked.len() < next.len();
        let mut owners: BTreeMap<KVirtAddr, &Task> = BTreeMap::new();
        for (task, names, why, candidates) in asked {
            let wait = locks.settle(task, &candidates, why.locks());
            if round > 0 && wait.is_none() {
                continue;
            }
            let flushed = works.flushed(task, why, wait.as_ref());
            let behind = grace.behind(why, &names);
            let of_console = wait.as_ref().is_some_and(|wait| console.lock == Some(wait.lock));
            let (owner, sure) = match (&flushed, &behind) {
                (Some(flushed), _) => (flushed.worker.and_then(|at| context.tasks.at(at)), flushed.sure),
                (None, Some(behind)) => (behind.owner, true),
                (None, None) if of_console => match console::holder(context, &console) {
                    Some((task, sure)) => (Some(task), sure),
                    None => (None, true),
                },
                (None, None) => owner(context, wait.as_ref()),
            };
            if let Some(owner) = owner {
                graph.add(task.kaddr, owner.kaddr);
                if !seen.contains(&owner.kaddr) && owner.running_on.is_none() {
                    owners.insert(owner.kaddr, owner);
                }
            }
            let whole = wait.as_ref().map(|wait| rt::whole(context, why, &names, wait));
            let name = match &flushed {
                Some(_) => None,
                None => whole.and_then(|whole| place::name(context, whole.at, whole.structure)),
            };
            let object = wait.as_ref().filter(|_| flushed.is_none() && behind.is_none());
            let object = object.and_then(|wait| objects.told(&names, wait));
            waiting.push(Waiting {
                object,
                task,
                symbols: names,
                why,
                wait,
                owner,
                sure,
                whole,
                name,
                flushed,
                behind,
            });
        }
        next = owners.into_values().collect();
        if next.is_empty() {
            break;
        }
    }
    rt::writers(&mut waiting);
    waiting.extend(spinning(context, &registers, &known, &mut graph));
    waiting.sort_by(|a, b| b.seconds().total_cmp(&a.seconds()).then(a.task.pid.cmp(&b.task.pid)));
    let hung_s = hung_timeout(context);
    (Waits { waiting, graph, registers, hung_s }, stopped)
}

/// The same wait with the function that was called, where a jump left no frame of it.
fn api(context: &Context<'_>, frames: &[Frame], names: &[String], why: what::Wait) -> what::Wait {
    let Some(called) = rt::jumped_from(context, frames) else { return why };
    let inner = names.iter().take_while(|name| is_sleeping(name)).map(String::as_str);
    let known = what::tell(inner.chain([called.as_str()]));
    if known.block.is_some() { known } else { why }
}

/// Tasks that run, and wait for another CPU's answer.
fn spinning<'a>(
    context: &Context<'a>,
    registers: &Registers,
    known: &HashMap<Address, &[Frame]>,
    graph: &mut Graph,
) -> Vec<Waiting<'a>> {
    let mut found = Vec::new();
    for (task, behind) in behind::calls(context, registers) {
        if let Some(owner) = behind.owner {
            graph.add(task.kaddr, owner.kaddr);
        }
        found.push(Waiting {
            symbols: symbols_of(context, task, registers, known),
            task,
            why: what::Wait::default(),
            wait: None,
            owner: behind.owner,
            sure: true,
            whole: None,
            name: None,
            flushed: None,
            object: None,
            behind: Some(behind),
        });
    }
    found
}

/// When the kernel itself calls a task hung; with the detector off, its usual value.
fn hung_timeout(context: &Context<'_>) -> f64 {
    let variables = Variables::new(context.memory, &context.description.symbols);
    let seconds = variables.u64("sysctl_hung_task_timeout_secs").ok().and_then(|s| u32::try_from(s).ok());
    seconds.filter(|s| *s > 0).map_or(HUNG, f64::from)
}

fn owner<'a>(context: &Context<'a>, wait: Option<&Wait>) -> (Option<&'a Task>, bool) {
    match wait.map(|wait| wait.owner) {
        Some(Owner::Task(at)) => (context.tasks.at(at), true),
        // One of several, and it may have let go: for a writer that waits it is a hint, no more.
        Some(Owner::Readers(Some(at))) => (context.tasks.at(at), false),
        Some(Owner::Untold | Owner::Nobody) => (None, true),
        _ => (None, false),
    }
}

/// The functions that a task is in, as far as they are sure.
fn symbols_of(
    context: &Context<'_>,
    task: &Task,
    registers: &Registers,
    known: &HashMap<Address, &[Frame]>,
) -> Vec<String> {
    names(&frames_of(context, task, registers, known))
}

fn frames_of<'f>(
    context: &Context<'_>,
    task: &Task,
    registers: &Registers,
    known: &HashMap<Address, &'f [Frame]>,
) -> Cow<'f, [Frame]> {
    match known.get(&Address(task.kaddr.0)) {
        Some(frames) => Cow::Borrowed(*frames),
        None => Cow::Owned(words::backtrace(task, registers, context.unwinder).0),
    }
}

fn names(frames: &[Frame]) -> Vec<String> {
    let sure = frames.iter().filter(|frame| frame.sure && !frame.inlined);
    sure.take(SYMBOLS).map(|frame| frame.symbol.clone().unwrap_or_else(|| "?".into())).collect()
}

fn section(context: &Context<'_>, waits: &Waits<'_>) -> Blocked {
    let edges = waits.waiting.iter().map(|waiting| WaitEdge {
        waiter: i64::from(waiting.task.pid),
        lock: Lock {
            kind: waiting.kind().to_owned(),
            kaddr: waiting.at().map(|at| Address(at.0)),
            name: waiting.lock_name(),
        },
        owner: waiting.owner.map(|owner| i64::from(owner.pid)),
        sure: (waiting.wait.is_some() || waiting.behind.is_some()) && waiting.sure,
        what: waiting.what(),
    });
    let pid = |at: &KVirtAddr| context.tasks.at(*at).map(|task| i64::from(task.pid));
    let cycles = waits.graph.cycles().iter().map(|circle| circle.iter().filter_map(pid).collect()).collect();
    let blockers: Vec<Blocker> =
        waits.graph.roots().iter().filter_map(|root| blocker(context, waits, root)).collect();
    Blocked {
        groups: groups(&waits.waiting),
        edges: edges.collect(),
        roots: blockers.iter().map(|blocker| blocker.pid).collect(),
        cycles,
        blockers,
    }
}

fn blocker(context: &Context<'_>, waits: &Waits<'_>, root: &graph::Root) -> Option<Blocker> {
    let task = context.tasks.at(root.task)?;
    let mut symbols = symbols_of(context, task, &waits.registers, &HashMap::new());
    if symbols.iter().any(|name| !what::is_scheduler(name)) {
        symbols.retain(|name| !what::is_scheduler(name));
    }
    Some(Blocker {
        pid: i64::from(task.pid),
        comm: Some(task.comm.clone()),
        state: Some(task.letter().to_string()),
        direct: root.direct,
        all: root.all,
        symbols,
    })
}

fn groups(waiting: &[Waiting<'_>]) -> Vec<BlockedGroup> {
    let mut groups: Vec<BlockedGroup> = Vec::new();
    let mut places: HashMap<(&[String], bool), usize> = HashMap::new();
    for one in waiting.iter().filter(|one| one.task.letter() == 'D') {
        let killable = !one.task.state.is_some_and(State::is_unkillable);
        let pid = i64::from(one.task.pid);
        let key = (one.symbols.as_slice(), killable);
        let place = places.get(&key).copied().filter(|_| !one.symbols.is_empty());
        if let Some(group) = place.and_then(|place| groups.get_mut(place)) {
            group.count = group.count.saturating_add(1);
            if group.pids.len() < PIDS {
                group.pids.push(pid);
            }
            continue;
        }
        places.insert(key, groups.len());
        groups.push(BlockedGroup {
            pids: vec![pid],
            count: 1,
            state: one.task.letter().to_string(),
            killable,
            oldest_s: one.task.not_run_ns.map(|_| one.seconds()),
            symbols: one.symbols.clone(),
            what: one.what(),
        });
    }
    groups
}

/// The kinds that keep their owner as an atomic word with flags in it. (A rt-mutex has a pointer.)
fn has_owner(kind: LockKind) -> bool {
    matches!(kind, LockKind::Mutex | LockKind::RwSem)
}
