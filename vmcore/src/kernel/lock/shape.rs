//! Where the members of locks and of their waiters are, by the dump's own types.

use super::LockKind;
use crate::sym::btf::Types;

/// How a lock leads to its waiters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// A list head at this place in the lock.
    List(u64),
    /// A pointer at this place to the first waiter, whose ring has no head.
    First(u64),
    /// The waiter has a pointer to the lock.
    Named,
}

/// The members of one kind of lock.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) kind: LockKind,
    /// In the waiter: the pointer to its task.
    pub(super) task: u64,
    /// In the waiter: the node in the list (for [`Head::Named`], the pointer to the lock).
    pub(super) node: u64,
    /// In the waiter: the function that wakes it, for wait queues.
    pub(super) function: Option<u64>,
    pub(super) head: Head,
    /// In the lock: the word that names its owner.
    pub(super) owner: Option<u64>,
}

/// A kind by its names: structure of the waiter, its members, then the lock's list and owner.
struct Names {
    kind: LockKind,
    waiter: &'static str,
    task: &'static str,
    node: &'static str,
    function: Option<&'static str>,
    lock: &'static str,
    list: &'static str,
    owner: Option<&'static str>,
}

const fn names(kind: LockKind, waiter: &'static str, lock: &'static str, list: &'static str) -> Names {
    Names { kind, waiter, task: "task", node: "list", function: None, lock, list, owner: None }
}

const ALL: &[Names] = &[
    Names { owner: Some("owner"), ..names(LockKind::Mutex, "mutex_waiter", "mutex", "wait_list") },
    Names { owner: Some("owner"), ..names(LockKind::RwSem, "rwsem_waiter", "rw_semaphore", "wait_list") },
    names(LockKind::Semaphore, "semaphore_waiter", "semaphore", "wait_list"),
    // A list of its own since 5.7 (kernel commit 7f26482a872c).
    Names {
        task: "private",
        node: "entry",
        function: Some("func"),
        ..names(LockKind::PerCpuRwSem, "wait_queue_entry", "percpu_rw_semaphore", "waiters.head")
    },
    // A simple wait queue since 5.7 (kernel commit a5c6234e1028); before it, a wait queue.
    Names { node: "task_list", ..names(LockKind::Completion, "swait_queue", "completion", "wait.task_list") },
    Names {
        task: "private",
        node: "entry",
        function: Some("func"),
        ..names(LockKind::Completion, "wait_queue_entry", "completion", "wait.head")
    },
    Names {
        task: "private",
        node: "entry",
        function: Some("func"),
        ..names(LockKind::WaitQueue, "wait_queue_entry", "wait_queue_head", "head")
    },
];

/// The kinds that these types tell of.
pub(super) fn all(types: &Types) -> Vec<Shape> {
    let mut found: Vec<Shape> = ALL.iter().filter_map(|names| shape(types, names)).collect();
    found.extend(rt_mutex(types));
    found
}

fn place(types: &Types, of: &str, member: &str) -> Option<u64> {
    types.structure(of).ok()?.member(member).ok().map(crate::sym::btf::Member::offset)
}

fn shape(types: &Types, names: &Names) -> Option<Shape> {
    let head = match place(types, names.lock, names.list) {
        Some(at) => Head::List(at),
        None => Head::First(place(types, names.lock, "first_waiter")?),
    };
    Some(Shape {
        kind: names.kind,
        task: place(types, names.waiter, names.task)?,
        node: place(types, names.waiter, names.node)?,
        function: match names.function {
            Some(member) => Some(place(types, names.waiter, member)?),
            None => None,
        },
        head,
        owner: names.owner.and_then(|member| place(types, names.lock, member)),
    })
}

fn rt_mutex(types: &Types) -> Option<Shape> {
    // Named so since 5.15 (kernel commit 830e6acc8a1c).
    let owner = place(types, "rt_mutex_base", "owner").or_else(|| place(types, "rt_mutex", "owner"));
    Some(Shape {
        kind: LockKind::RtMutex,
        task: place(types, "rt_mutex_waiter", "task")?,
        node: place(types, "rt_mutex_waiter", "lock")?,
        function: None,
        head: Head::Named,
        owner,
    })
}
