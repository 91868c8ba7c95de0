//! How the tasks are found: in the list of processes, in the table of process ids, in the thread groups and on the run queues.
//!
//! Each of these alone can lose tasks. A filter that is older than the kernel may leave the table's pages out; one bad page breaks the
//! list. So all are looked at and merged by address, and where one is broken, children and parents lead further.
//! Each `task_struct` is read once: later walks take its list nodes from what was read.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::view::{SignalView, TaskView, is_kernel, node};
use super::{Lost, Source, Sources};
use crate::addr::KVirtAddr;
use crate::kernel::Gap;
use crate::kernel::cpu::Cpus;
use crate::kernel::describe::Description;
use crate::kernel::list::{self, Node};
use crate::kernel::pid::{self, Entry, Pids};
use crate::kernel::value::{Layout, Maybe};
use crate::kernel::walk::Walk;
use crate::limits::Limits;
use crate::sym::btf::{Member, TypeError, Types};
use crate::xlat::KernelMemory;

/// Losses that are told one by one; the others are counted.
const LOST_TOLD: usize = 1000;

/// Where in a task and in what its threads share the nodes of lists are.
struct Offsets {
    tasks: u64,
    thread_node: u64,
    thread_head: u64,
    children: u64,
    sibling: u64,
    pid_link: u64,
}

impl Offsets {
    fn new(types: &Types) -> Result<Self, TypeError> {
        let task = types.structure("task_struct")?;
        let of = |names: &[&str]| task.member_of(names).map(Member::offset);
        Ok(Self {
            tasks: of(&["tasks"])?,
            thread_node: of(&["thread_node"])?,
            thread_head: types.structure("signal_struct")?.member("thread_head")?.offset(),
            children: of(&["children"])?,
            sibling: of(&["sibling"])?,
            pid_link: of(&["pid_links[0]", "pids[0].node"])?,
        })
    }
}

/// A task that was read.
pub(super) struct Record {
    /// Apart: it is large, and records are moved as they are put in order.
    pub(super) view: Box<TaskView>,
    pub(super) found: Sources,
}

/// A place where a task may be.
#[derive(Clone, Copy)]
struct Candidate {
    kaddr: KVirtAddr,
    source: Source,
    /// Its number by the table of process ids.
    number: Option<u64>,
    /// Where the pointer is that leads to it, for who is in the chain of a `struct pid`.
    link: Option<KVirtAddr>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) records: BTreeMap<KVirtAddr, Record>,
    pub(super) signals: BTreeMap<KVirtAddr, SignalView>,
    pub(super) nested: BTreeMap<KVirtAddr, pid::NamespacePid>,
    /// True where nothing of the table of process ids is missing.
    pub(super) complete_pids: bool,
    /// How many threads the kernel itself counts.
    pub(super) counted: Option<u32>,
    pub(super) lost: Vec<Lost>,
    pub(super) lost_count: usize,
    pub(super) gaps: Vec<Gap>,
}

impl Found {
    fn gap(&mut self, what: &str, why: impl Into<String>) {
        self.gaps.push(Gap { what: what.into(), why: why.into() });
    }

    fn lose(&mut self, lost: Lost) {
        self.lost_count = self.lost_count.saturating_add(1);
        if self.lost.len() < LOST_TOLD {
            self.lost.push(lost);
        }
    }
}

/// Finds them.
pub(super) fn all(
    memory: &KernelMemory<'_>,
    description: &Description,
    cpus: &Cpus,
    limits: &Limits,
) -> Found {
    let mut found = Found::default();
    let types = &description.types;
    let settled = Offsets::new(types).and_then(|o| Ok((o, Layout::new(types)?, Layout::new(types)?)));
    let (offsets, tasks, signals) = match settled {
        Ok(settled) => settled,
        Err(why) => {
            found.gap("tasks", why.to_string());
            return found;
        }
    };
    let mut finder = Finder {
        memory,
        limits,
        offsets,
        tasks,
        signals,
        refused: BTreeMap::new(),
        groups: BTreeSet::new(),
        full: false,
        broken: false,
        found,
    };
    finder.run(description, cpus);
    finder.found
}

struct Finder<'k, 'm> {
    memory: &'k KernelMemory<'m>,
    limits: &'k Limits,
    offsets: Offsets,
    tasks: Layout<TaskView>,
    signals: Layout<SignalView>,
    /// Candidates that are no task, or can't be read, with the reason.
    refused: BTreeMap<KVirtAddr, (Candidate, String)>,
    /// Thread groups that were walked.
    groups: BTreeSet<KVirtAddr>,
    full: bool,
    /// True where something was lost, so that relatives are asked.
    broken: bool,
    found: Found,
}

impl Finder<'_, '_> {
    fn run(&mut self, description: &Description, cpus: &Cpus) {
        let init_task = description.symbols.address("init_task");
        let table = self.seeds(description, cpus, init_task);
        self.list(init_task);
        self.threads();
        if self.broken {
            self.relatives();
        }
        self.settle(table);
        self.count(description);
    }

    /// Reads the tasks that nothing was read of yet, and notes of all of them where they were found.
    fn load(&mut self, candidates: &[Candidate]) {
        let mut new: BTreeMap<KVirtAddr, Candidate> = BTreeMap::new();
        for candidate in candidates {
            if self.found.records.contains_key(&candidate.kaddr) || !self.may_retry(candidate) {
                continue;
            }
            let mut candidate = *candidate;
            if let Some((before, _)) = self.refused.remove(&candidate.kaddr) {
                candidate.number = candidate.number.or(before.number);
            }
            new.entry(candidate.kaddr).or_insert(candidate);
        }
        let room = self.limits.tasks.saturating_sub(self.found.records.len());
        if new.len() > room && !self.full {
            self.full = true;
            self.found
                .gap("tasks", format!("only {} are looked at, as many as a limit allows", self.limits.tasks));
        }
        let new: Vec<Candidate> = new.into_values().take(room).collect();
        let read: Vec<_> = new.par_iter().map(|candidate| (*candidate, self.read(candidate))).collect();
        for (candidate, result) in read {
            match result {
                Ok(view) => {
                    let mut found = Sources::default();
                    found.add(candidate.source);
                    self.found.records.insert(candidate.kaddr, Record { view, found });
                }
                Err(why) => {
                    self.refused.insert(candidate.kaddr, (candidate, why));
                }
            }
        }
        // Also what was known before, and what was found twice in the same batch.
        for candidate in candidates {
            if let Some(record) = self.found.records.get_mut(&candidate.kaddr) {
                record.found.add(candidate.source);
            }
        }
    }

    /// A place that was refused is looked at again where a list leads to it too, whose nodes were seen to point back.
    fn may_retry(&self, candidate: &Candidate) -> bool {
        let checked = matches!(candidate.source, Source::List | Source::Threads);
        self.refused
            .get(&candidate.kaddr)
            .is_none_or(|(before, _)| checked && !matches!(before.source, Source::List | Source::Threads))
    }

    fn read(&self, candidate: &Candidate) -> Result<Box<TaskView>, String> {
        let Candidate { kaddr, source, link, .. } = *candidate;
        if !is_kernel(kaddr) || kaddr.0 & 7 != 0 {
            return Err(format!("no task can be at {kaddr}"));
        }
        let view = self.tasks.read(self.memory, kaddr).map_err(|e| e.to_string())?;
        let fits = match source {
            // The walks over these lists saw that the next node points back.
            Source::List | Source::Threads => view.is_possible(),
            Source::Pids => {
                view.is_possible() && view.pid_pprev.as_ref().is_none_or(|back| Some(*back) == link)
            }
            Source::RunQueue | Source::Relatives => view.is_plausible(),
        };
        if fits { Ok(Box::new(view)) } else { Err(format!("what is at {kaddr} is no task")) }
    }

    /// What is found without any list: the run queues' tasks and the table of process ids.
    fn seeds(
        &mut self,
        description: &Description,
        cpus: &Cpus,
        init_task: Option<KVirtAddr>,
    ) -> Option<Walk<Entry>> {
        let plain = |kaddr, source| Candidate { kaddr, source, number: None, link: None };
        let running = cpus.cpus.iter().flat_map(|cpu| [cpu.curr, cpu.current_task, cpu.idle, cpu.stop]);
        let running = running.flatten().map(|kaddr| plain(kaddr, Source::RunQueue));
        let mut seeds: Vec<Candidate> = Vec::new();
        seeds.extend(init_task.map(|kaddr| plain(kaddr, Source::List)));
        let table = Pids::new(&description.types).map_err(|e| e.to_string());
        let table = table.and_then(|pids| pids.table(self.memory, description, self.limits));
        let table = match table {
            Ok(table) => table,
            Err(why) => {
                self.broken = true;
                self.found.gap("the table of process ids", why);
                seeds.extend(running);
                self.load(&seeds);
                return None;
            }
        };
        self.found.complete_pids = pid::is_whole(&table);
        self.broken |= !self.found.complete_pids;
        for entry in &table.items {
            let Ok(pid) = &entry.pid else { continue };
            if let Some(nested) = pid.nested {
                self.found.nested.insert(entry.kaddr, nested);
            }
            if !pid.first.is_null() {
                let kaddr = KVirtAddr(pid.first.0.wrapping_sub(self.offsets.pid_link));
                let (number, link) = (Some(entry.number), Some(pid.head));
                seeds.push(Candidate { kaddr, source: Source::Pids, number, link });
            }
        }
        // Last, since nothing that was checked points back at them: whoever else leads there counts more.
        seeds.extend(running);
        self.load(&seeds);
        Some(table)
    }

    /// The list of processes, from `init_task` on.
    fn list(&mut self, init_task: Option<KVirtAddr>) {
        let Some(init_task) = init_task else {
            self.broken = true;
            return self.found.gap("the list of tasks", "the kernel has no symbol init_task");
        };
        let inside = self.offsets.tasks;
        let head = KVirtAddr(init_task.0.wrapping_add(inside));
        let walk = {
            let node = |at| self.node(at, inside, |view| node(&view.tasks_next, &view.tasks_prev));
            list::walk_with(&node, head, self.limits.tasks)
        };
        self.take(&walk.items, inside, Source::List);
        if !walk.end.is_complete() {
            self.broken = true;
            self.found.gap("the list of tasks", walk.end.to_string());
        }
    }

    /// A node of a list that runs through tasks, from what was read of them where that is so.
    fn node(
        &self,
        at: KVirtAddr,
        inside: u64,
        of: impl Fn(&TaskView) -> Option<Node>,
    ) -> Result<Node, crate::error::MemError> {
        let kaddr = KVirtAddr(at.0.wrapping_sub(inside));
        let known = self.found.records.get(&kaddr).and_then(|record| of(&record.view));
        known.map_or_else(|| list::read(self.memory, at), Ok)
    }

    fn take(&mut self, nodes: &[KVirtAddr], inside: u64, source: Source) {
        let candidate = |at: &KVirtAddr| Candidate {
            kaddr: KVirtAddr(at.0.wrapping_sub(inside)),
            source,
            number: None,
            link: None,
        };
        let candidates: Vec<Candidate> = nodes.iter().map(candidate).collect();
        self.load(&candidates);
    }

    /// The threads of all processes whose threads were not looked at yet.
    fn threads(&mut self) {
        let mut new: BTreeMap<KVirtAddr, KVirtAddr> = BTreeMap::new();
        for (kaddr, record) in &self.found.records {
            let signal = record.view.signal.as_ref().copied().filter(|at| !at.is_null());
            if let Some(signal) = signal.filter(|at| !self.groups.contains(at)) {
                new.entry(signal).or_insert(*kaddr);
            }
        }
        let new: Vec<_> = new.into_iter().collect();
        let groups: Vec<_> = new
            .par_iter()
            .map(|(signal, member)| {
                (*signal, self.signals.read(self.memory, *signal), self.group(*signal, *member))
            })
            .collect();
        // All at once: most processes have one thread, which is not worth handing to another core.
        let nodes: Vec<KVirtAddr> = groups.iter().flat_map(|(_, _, walk)| &walk.items).copied().collect();
        self.take(&nodes, self.offsets.thread_node, Source::Threads);
        let mut broken: Option<String> = None;
        for (signal, view, walk) in groups {
            self.groups.insert(signal);
            let has = walk.items.len();
            if let Ok(view) = view {
                if let Some(should) = view.nr_threads.as_ref()
                    && usize::try_from(*should).is_ok_and(|should| should > has)
                    && !walk.end.is_complete()
                {
                    broken.get_or_insert_with(|| {
                        format!("{has} of {should} threads of a process are found: {}", walk.end)
                    });
                }
                self.found.signals.insert(signal, view);
            }
            if !walk.end.is_complete() {
                self.broken = true;
                broken.get_or_insert_with(|| walk.end.to_string());
            }
        }
        if let Some(why) = broken {
            self.found.gap("threads", why);
        }
    }

    /// The threads of one process, of which one member is known.
    fn group(&self, signal: KVirtAddr, member: KVirtAddr) -> Walk<KVirtAddr> {
        let inside = self.offsets.thread_node;
        let node = |at| self.node(at, inside, |view| node(&view.thread_next, &view.thread_prev));
        let head = KVirtAddr(signal.0.wrapping_add(self.offsets.thread_head));
        let from_head = list::walk_with(&node, head, self.limits.tasks);
        if from_head.end.is_complete() {
            return from_head;
        }
        // The ring is the same from each of its members, so that one of them leads to those that the head does not.
        let start = KVirtAddr(member.0.wrapping_add(inside));
        let mut walk = list::walk_with(&node, start, self.limits.tasks);
        walk.items.push(start);
        walk.items.extend(from_head.items);
        walk.items.retain(|at| *at != head);
        walk.items.sort_unstable();
        walk.items.dedup();
        walk.end = from_head.end;
        walk
    }

    /// Parents, leaders and children of what is known, and theirs, until nothing new comes.
    fn relatives(&mut self) {
        let mut asked: BTreeSet<KVirtAddr> = BTreeSet::new();
        loop {
            let new: Vec<KVirtAddr> =
                self.found.records.keys().filter(|at| !asked.contains(at)).copied().collect();
            if new.is_empty() || self.full {
                return;
            }
            let near: Vec<Vec<Candidate>> = new.par_iter().map(|at| self.near(*at)).collect();
            asked.extend(new);
            let near: Vec<Candidate> = near.into_iter().flatten().collect();
            self.load(&near);
            self.threads();
        }
    }

    fn near(&self, kaddr: KVirtAddr) -> Vec<Candidate> {
        let plain = |kaddr| Candidate { kaddr, source: Source::Relatives, number: None, link: None };
        let Some(record) = self.found.records.get(&kaddr) else { return Vec::new() };
        let view = &record.view;
        let up = [&view.real_parent, &view.group_leader];
        let mut near: Vec<Candidate> = up
            .into_iter()
            .filter_map(Maybe::as_ref)
            .copied()
            .filter(|at| is_kernel(*at) && !self.found.records.contains_key(at))
            .map(plain)
            .collect();
        let inside = self.offsets.sibling;
        let head = KVirtAddr(kaddr.0.wrapping_add(self.offsets.children));
        let node = |at: KVirtAddr| {
            if at == head
                && let Some(node) = node(&view.children_next, &view.children_prev)
            {
                return Ok(node);
            }
            self.node(at, inside, |view| node(&view.sibling_next, &view.sibling_prev))
        };
        let walk = list::walk_with(&node, head, self.limits.tasks);
        near.extend(walk.items.iter().map(|at| plain(KVirtAddr(at.0.wrapping_sub(inside)))));
        near
    }

    /// Says what is known to be missing after all sources were asked.
    fn settle(&mut self, table: Option<Walk<Entry>>) {
        let known: BTreeSet<u64> =
            self.found.records.values().map(|record| u64::from(record.view.pid)).collect();
        let mut unread = 0_usize;
        if let Some(table) = table {
            if !table.end.is_complete() {
                let why = match table.lost {
                    0 | 1 => table.end.to_string(),
                    more => format!("{more} branches of it are lost; the first: {}", table.end),
                };
                self.found.gap("the table of process ids", why);
            }
            for entry in table.items {
                let Err(why) = entry.pid else { continue };
                unread = unread.saturating_add(1);
                if !known.contains(&entry.number) {
                    let why = format!("its struct pid can't be read: {why}");
                    self.found.lose(Lost { pid: Some(entry.number), kaddr: None, source: Source::Pids, why });
                }
            }
        }
        if unread > 0 {
            self.found.gap(
                "the table of process ids",
                format!("{unread} of the struct pid that it names can't be read"),
            );
        }
        for (kaddr, (candidate, why)) in std::mem::take(&mut self.refused) {
            // What relatives seem to point at need not be a task.
            let is_lost = match candidate.source {
                Source::Relatives => false,
                Source::RunQueue | Source::List | Source::Threads | Source::Pids => true,
            };
            if is_lost && candidate.number.is_none_or(|number| !known.contains(&number)) {
                let Candidate { number, source, .. } = candidate;
                self.found.lose(Lost { pid: number, kaddr: Some(kaddr), source, why });
            }
        }
    }

    /// Compares what was found with the kernel's own count, `nr_threads` of `kernel/fork.c`: idle tasks are not in it, nor is a
    /// task that was taken off all lists and still runs.
    fn count(&mut self, description: &Description) {
        let [symbol] = &description.symbols.all("nr_threads")[..] else { return };
        self.found.counted = self.memory.read_u32(symbol.address).ok();
        let listed = [Source::List, Source::Pids, Source::Threads, Source::Relatives];
        let has = |record: &&Record| record.view.pid != 0 && listed.iter().any(|at| record.found.has(*at));
        let found = self.found.records.values().filter(has).count();
        if let Some(counted) = self.found.counted
            && usize::try_from(counted).is_ok_and(|counted| counted > found)
        {
            self.found
                .gap("tasks", format!("the kernel counts {counted} threads, of which {found} are found"));
        }
    }
}
