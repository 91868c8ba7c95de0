//! Locks and other things that tasks wait for, found from the waiter's own stack.
//!
//! Who waits leaves a small structure on its stack which is a node in the lock's list of waiters. [`Locks::candidates`] looks for
//! words that point at the task itself; [`Locks::settle`] believes one only where the list around it agrees in both directions and
//! exactly one node of it is no waiter: that is the list's head, which is inside the lock. Where waiters stand in a ring without a
//! head (seen in 7.2), the lock is what a waiter's stack points at and what points back at one of the ring. A rt-mutex has a tree in
//! place of a list, and its waiters name it. Facts: `kernel/locking/`, `include/linux/{mutex,rwsem,swait,wait}.h`.

mod shape;

use std::collections::{HashMap, HashSet};

use super::list;
use super::task::{Task, Tasks};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::Symbols;
use crate::sym::btf::Types;
use crate::xlat::{KernelMemory, Sparse, le};
use shape::{Head, Shape};

/// No kernel stack is larger (16 KiB, with KASAN 64 KiB).
const STACK: u64 = 64 << 10;
/// Bytes of a stack that are searched.
const SEARCHED: u64 = 16 << 10;
/// Waiters of one lock on whose stacks its address is looked for.
const STACKS: usize = 16;
/// Waiters of one lock that are looked at.
const WAITERS: usize = 64 << 10;
/// Low bits of an owner are flags: three of a mutex (4.10 and later) and of a rw-semaphore (5.3 and later).
const FLAGS: u64 = 7;
/// A reader is, or was the last, owner of a rw-semaphore.
const READER: u64 = 1;

/// What kind of thing is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LockKind {
    /// `struct mutex`.
    Mutex,
    /// `struct rw_semaphore`.
    RwSem,
    /// `struct rt_mutex`, or what is built on it with `PREEMPT_RT`.
    RtMutex,
    /// `struct semaphore`.
    Semaphore,
    /// `struct percpu_rw_semaphore`: freezing of a filesystem, CPU hotplug, control groups.
    PerCpuRwSem,
    /// `struct completion`.
    Completion,
    /// `struct wait_queue_head`.
    WaitQueue,
}

impl LockKind {
    /// Its name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::RwSem => "rwsem",
            Self::RtMutex => "rt_mutex",
            Self::Semaphore => "semaphore",
            Self::PerCpuRwSem => "percpu_rwsem",
            Self::Completion => "completion",
            Self::WaitQueue => "wait_queue",
        }
    }

    /// The kernel's structure.
    #[must_use]
    pub fn structure(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::RwSem => "rw_semaphore",
            Self::RtMutex => "rt_mutex_base",
            Self::Semaphore => "semaphore",
            Self::PerCpuRwSem => "percpu_rw_semaphore",
            Self::Completion => "completion",
            Self::WaitQueue => "wait_queue_head",
        }
    }
}

/// Who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// This task.
    Task(KVirtAddr),
    /// Readers: how many is in its count, and this one took it last. It may have let go since.
    Readers(Option<KVirtAddr>),
    /// Nobody: it was just let go.
    Nobody,
    /// Things of this kind have no owner.
    Untold,
    /// Its owner is no task that is known, or can't be read.
    Unknown,
}

/// A wait that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// What kind it is.
    pub kind: LockKind,
    /// Where the lock is.
    pub lock: KVirtAddr,
    /// The structure of the waiter, on its stack.
    pub waiter: KVirtAddr,
    /// Who holds it.
    pub owner: Owner,
    /// The word that names the owner, with its flags.
    pub owner_word: Option<u64>,
    /// How many wait in its list.
    pub waiters: usize,
}

/// A place on a stack that may be a waiter.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    kind: LockKind,
    waiter: KVirtAddr,
}

/// The layouts of this kernel's locks, and what was found of them so far.
pub struct Locks<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    symbols: &'a Symbols,
    tasks: &'a Tasks,
    shapes: Vec<Shape>,
    /// Where a `task_struct` names the mutex, or the waiter, that it is blocked on.
    blocked_on: Option<u64>,
    pi_blocked_on: Option<u64>,
    /// Nodes that were seen in a list, with its lock, and how many wait there.
    known: HashMap<(LockKind, KVirtAddr), (KVirtAddr, usize)>,
    limit: usize,
}

impl std::fmt::Debug for Locks<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locks").field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

impl<'a, 'm> Locks<'a, 'm> {
    /// Settles the layouts. What this kernel's types lack is not looked for.
    #[must_use]
    pub fn new(
        memory: &'a KernelMemory<'m>,
        symbols: &'a Symbols,
        types: &Types,
        tasks: &'a Tasks,
        limits: &Limits,
    ) -> Self {
        let of_task = |name: &str| {
            let member = types.structure("task_struct").ok()?.member(name).ok()?;
            Some((member.offset(), member.ty().pointee().ok()?.name()))
        };
        Self {
            memory,
            symbols,
            tasks,
            shapes: shape::all(types),
            // A pointer to the waiter with CONFIG_DEBUG_MUTEXES before 6.16, whose list leads to the mutex anyway.
            blocked_on: of_task("blocked_on").filter(|(_, to)| *to == "mutex").map(|(at, _)| at),
            pi_blocked_on: of_task("pi_blocked_on").map(|(at, _)| at),
            known: HashMap::new(),
            limit: limits.walk_items.min(WAITERS),
        }
    }

    /// True where this kernel's types tell of such locks.
    #[must_use]
    pub fn knows(&self, kind: LockKind) -> bool {
        self.shape(kind).is_some()
    }

    fn shape(&self, kind: LockKind) -> Option<&Shape> {
        self.shapes.iter().find(|shape| shape.kind == kind)
    }

    /// Words on the stack of a sleeping task that may belong to a waiter of one of these kinds, innermost first.
    #[must_use]
    pub fn candidates(&self, task: &Task, kinds: &[LockKind]) -> Vec<Candidate> {
        let Some((sp, sparse)) = self.used_stack(task) else { return Vec::new() };
        let mut found = Vec::new();
        for (number, word) in sparse.bytes.chunks_exact(8).enumerate() {
            if le::u64_at(word, 0) != Some(task.kaddr.0) {
                continue;
            }
            let at = u64::try_from(number).ok().and_then(|n| sp.0.checked_add(n.checked_mul(8)?));
            for kind in kinds {
                let inside = self.shape(*kind).map(|shape| shape.task);
                let waiter = at.zip(inside).and_then(|(at, inside)| at.checked_sub(inside));
                found.extend(waiter.map(|at| Candidate { kind: *kind, waiter: KVirtAddr(at) }));
            }
        }
        found
    }

    /// The part of a sleeping task's stack that is searched, and where it begins.
    fn used_stack(&self, task: &Task) -> Option<(KVirtAddr, Sparse)> {
        let (stack, sp) = task.stack.zip(task.sp)?;
        let used = sp.0.checked_sub(stack.0).filter(|used| *used < STACK)?;
        let left = SEARCHED.saturating_sub(used & SEARCHED.wrapping_sub(1)) & !7;
        Some((sp, self.memory.read_sparse(sp, usize::try_from(left).unwrap_or_default())))
    }

    /// What the task itself says that it is blocked on; else the first candidate that really waits for a lock.
    pub fn settle(&mut self, task: &Task, candidates: &[Candidate], kinds: &[LockKind]) -> Option<Wait> {
        if kinds.contains(&LockKind::RtMutex)
            && let Some(wait) = self.by_priority(task)
        {
            return Some(wait);
        }
        let mutex = kinds.contains(&LockKind::Mutex).then_some(self.blocked_on).flatten();
        let by_task = mutex.and_then(|mutex| self.by_first(task, mutex, candidates));
        by_task.or_else(|| candidates.iter().find_map(|candidate| self.by_waiter(*candidate)))
    }

    /// `pi_blocked_on`: the waiter of a rt-mutex names the lock.
    fn by_priority(&self, task: &Task) -> Option<Wait> {
        let shape = self.shape(LockKind::RtMutex)?;
        let waiter = self.pointer(task.kaddr, self.pi_blocked_on?)?;
        if self.pointer(waiter, shape.task)? != task.kaddr {
            return None;
        }
        let lock = self.pointer(waiter, shape.node)?;
        let (owner, owner_word) = self.owner(shape, lock);
        Some(Wait { kind: LockKind::RtMutex, lock, waiter, owner, owner_word, waiters: 1 })
    }

    /// `blocked_on`, for kernels whose mutex names its first waiter only: the waiter must be in that ring.
    fn by_first(&self, task: &Task, blocked_on: u64, candidates: &[Candidate]) -> Option<Wait> {
        let shape = self.shape(LockKind::Mutex)?;
        let lock = KVirtAddr(self.pointer(task.kaddr, blocked_on)?.0 & !FLAGS);
        let (first, inside) = match shape.head {
            Head::First(inside) => (self.pointer(lock, inside)?, shape.node),
            Head::List(inside) => (lock, inside),
            Head::Named => return None,
        };
        let start = KVirtAddr(first.0.wrapping_add(inside));
        let ring = list::walk(self.memory, start, self.limit);
        let node = |waiter: KVirtAddr| KVirtAddr(waiter.0.wrapping_add(shape.node));
        let waiter = candidates
            .iter()
            .filter(|candidate| candidate.kind == LockKind::Mutex)
            .map(|candidate| candidate.waiter)
            .find(|waiter| node(*waiter) == start || ring.items.contains(&node(*waiter)))?;
        let (owner, owner_word) = self.owner(shape, lock);
        let waiters = ring.items.len().saturating_add(usize::from(matches!(shape.head, Head::First(_))));
        Some(Wait { kind: LockKind::Mutex, lock, waiter, owner, owner_word, waiters })
    }

    fn by_waiter(&mut self, candidate: Candidate) -> Option<Wait> {
        let Candidate { kind, waiter } = candidate;
        let shape = self.shape(kind)?.clone();
        let node = KVirtAddr(waiter.0.wrapping_add(shape.node));
        if !self.is_waiter(&shape, node) {
            return None;
        }
        let (lock, waiters) = if let Some(known) = self.known.get(&(kind, node)) {
            *known
        } else {
            let (lock, nodes) = self.lock_of(&shape, node)?;
            for at in &nodes {
                self.known.insert((kind, *at), (lock, nodes.len()));
            }
            (lock, nodes.len())
        };
        let (owner, owner_word) = self.owner(&shape, lock);
        Some(Wait { kind, lock, waiter, owner, owner_word, waiters })
    }

    /// The lock of a waiter's node, and the nodes of all that wait for it.
    fn lock_of(&self, shape: &Shape, node: KVirtAddr) -> Option<(KVirtAddr, Vec<KVirtAddr>)> {
        let ring = list::walk(self.memory, node, self.limit);
        if !ring.end.is_complete() {
            return None;
        }
        let (mut nodes, heads): (Vec<_>, Vec<_>) =
            ring.items.into_iter().partition(|at| self.is_waiter(shape, *at));
        nodes.insert(0, node);
        let lock = match (shape.head, heads.as_slice()) {
            (Head::List(inside), [head]) => head.checked_sub(inside)?,
            // Who waits has the lock's address on the stack.
            (Head::First(inside), []) => {
                nodes.iter().take(STACKS).find_map(|at| self.named_on_stack(shape, inside, *at, &nodes))?
            }
            _ => return None,
        };
        Some((lock, nodes))
    }

    /// The lock that the stack of one waiter of a ring points at: its first waiter is one of the ring.
    fn named_on_stack(
        &self,
        shape: &Shape,
        inside: u64,
        node: KVirtAddr,
        nodes: &[KVirtAddr],
    ) -> Option<KVirtAddr> {
        let waiter = node.checked_sub(shape.node)?;
        let task = self.pointer(waiter, shape.task).and_then(|at| self.tasks.at(at))?;
        let (stack, (_, sparse)) = task.stack.zip(self.used_stack(task))?;
        let mut tried = HashSet::new();
        sparse.bytes.chunks_exact(8).filter_map(|word| le::u64_at(word, 0)).find_map(|word| {
            let lock = KVirtAddr(word);
            // What lies on the same stack can have a copy of the address anywhere.
            let on_stack = word.checked_sub(stack.0).is_some_and(|above| above < STACK);
            if word & 7 != 0 || word >> 63 == 0 || on_stack || !tried.insert(word) {
                return None;
            }
            let first = self.pointer(lock, inside)?.checked_add(shape.node)?;
            let known = nodes.contains(&first) && self.owner(shape, lock).0 != Owner::Unknown;
            known.then_some(lock)
        })
    }

    /// True for a node of a waiter: it names a task, and is on that task's stack where such waiters must be.
    fn is_waiter(&self, shape: &Shape, node: KVirtAddr) -> bool {
        let Some(waiter) = node.0.checked_sub(shape.node).map(KVirtAddr) else { return false };
        if let Some(function) = shape.function {
            // What is in a wait queue names the function that wakes it; it need not be on a stack.
            let Some(function) = self.pointer(waiter, function) else { return false };
            return self.symbols.at(function).is_some_and(|found| found.offset == 0);
        }
        let task = self.pointer(waiter, shape.task).and_then(|at| self.tasks.at(at));
        let on_stack = |stack: KVirtAddr| node.0.checked_sub(stack.0).is_some_and(|above| above < STACK);
        task.and_then(|task| task.stack).is_some_and(on_stack)
    }

    fn owner(&self, shape: &Shape, lock: KVirtAddr) -> (Owner, Option<u64>) {
        let Some(inside) = shape.owner else { return (Owner::Untold, None) };
        let Some(word) = self.pointer(lock, inside).map(|at| at.0) else { return (Owner::Unknown, None) };
        let at = KVirtAddr(word & !FLAGS);
        let task = self.tasks.at(at).map(|task| task.kaddr);
        let owner = match task {
            _ if shape.kind == LockKind::RwSem && word & READER != 0 => Owner::Readers(task),
            Some(task) => Owner::Task(task),
            None if at.is_null() => Owner::Nobody,
            None => Owner::Unknown,
        };
        (owner, Some(word))
    }

    fn pointer(&self, object: KVirtAddr, inside: u64) -> Option<KVirtAddr> {
        self.memory.read_ptr(object.checked_add(inside)?).ok()
    }
}
