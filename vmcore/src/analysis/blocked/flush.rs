//! Waits for work: which work or workqueue a task flushes, and the worker that runs it.
//!
//! Who flushes a work puts a barrier (`struct wq_barrier`, on its own stack) into the list behind that work and waits for the barrier's
//! completion. The barrier proves itself: it names its function and its task, and it is in a list of the workqueues. Who flushes a
//! whole workqueue waits by a `struct wq_flusher` that the workqueue names. Facts: `kernel/workqueue.c`.

use std::cell::OnceCell;

use super::what;
use crate::addr::KVirtAddr;
use crate::analysis::parts::Context;
use crate::kernel::lock::{LockKind, Wait};
use crate::kernel::reader::Reader;
use crate::kernel::task::Task;
use crate::kernel::workqueue::{self, Work, WorkQueue, WorkQueues, WorkerPool};

/// What a task flushes.
#[derive(Clone, Debug)]
pub(super) struct Flushed {
    /// The work, or the workqueue.
    pub(super) at: KVirtAddr,
    /// Which of both, as the kernel names it.
    pub(super) structure: &'static str,
    /// The function of the work; the name of the workqueue.
    pub(super) name: Option<String>,
    /// The task of the worker that runs it.
    pub(super) worker: Option<KVirtAddr>,
    /// False where the worker may run what came later.
    pub(super) sure: bool,
    /// To follow «waits for».
    pub(super) words: String,
    /// What it was concluded from.
    pub(super) proof: String,
}

/// The workqueues, once somebody is found to wait for one.
pub(super) struct Works<'c, 'a> {
    context: &'c Context<'a>,
    reader: Reader<'c, 'a>,
    all: OnceCell<WorkQueues>,
}

impl<'c, 'a> Works<'c, 'a> {
    pub(super) fn new(context: &'c Context<'a>) -> Self {
        let reader = context.reader();
        Self { context, reader, all: OnceCell::new() }
    }

    /// What this task flushes, where that is proven.
    pub(super) fn flushed(&self, task: &Task, why: what::Wait, wait: Option<&Wait>) -> Option<Flushed> {
        let wait = wait.filter(|wait| wait.kind == LockKind::Completion && why.kind() == "work")?;
        self.barrier(task, wait.lock).or_else(|| self.flusher(wait.lock))
    }

    fn all(&self) -> &WorkQueues {
        self.all.get_or_init(|| workqueue::read(self.reader))
    }

    fn barrier(&self, task: &Task, done: KVirtAddr) -> Option<Flushed> {
        let of = |member: &str| self.reader.offset("wq_barrier", member).ok();
        let barrier = done.checked_sub(of("done")?)?;
        let read = |inside: u64| self.reader.memory.read_ptr(barrier.checked_add(inside)?).ok();
        let function = self.reader.symbols.address("wq_barrier_func")?;
        if read(of("work.func")?)? != function {
            return None;
        }
        // Older kernels' barriers do not name their task.
        if of("task").is_some_and(|inside| read(inside) != Some(task.kaddr)) {
            return None;
        }
        let work = barrier.checked_add(of("work")?)?;
        let all = self.all();
        for pool in &all.pools {
            for worker in &pool.workers {
                // The first barrier behind a work that runs is the first that the worker will run next.
                let target = match before(&worker.scheduled, work, function) {
                    Before::Elsewhere => continue,
                    Before::Nothing => worker.current.as_ref()?,
                    Before::Work(target) => target,
                };
                let runs = worker.current.as_ref().is_some_and(|current| current.kaddr == target.kaddr);
                let who = self.named(worker.task);
                let how = if runs { "runs" } else { "is to run next" };
                return Some(Flushed {
                    worker: Some(worker.task),
                    ..self.of_work(target, barrier, &format!("which {who} {how}"))
                });
            }
            match before(&pool.pending, work, function) {
                Before::Elsewhere => {}
                Before::Nothing => return None,
                Before::Work(target) => {
                    let state = format!("which no worker has taken: {}", state(pool));
                    return Some(self.of_work(target, barrier, &state));
                }
            }
        }
        let (queue, target) =
            all.queues.iter().find_map(|queue| match before(&queue.inactive, work, function) {
                Before::Work(target) => Some((queue, target)),
                Before::Elsewhere | Before::Nothing => None,
            })?;
        // Of a queue that runs one work at a time, that one is in the way.
        let (running, pending) = self.active(queue);
        let (state, worker) = match running.as_slice() {
            [one] if pending == 0 => {
                (format!("which waits until {} is done with other work of it", self.named(*one)), Some(*one))
            }
            _ => ("which waits until less of its workqueue is active".to_owned(), None),
        };
        Some(Flushed { worker, ..self.of_work(target, barrier, &state) })
    }

    fn of_work(&self, target: &Work, barrier: KVirtAddr, state: &str) -> Flushed {
        let function = self.reader.function(target.function);
        let queue = target.queue.as_ref().map(|name| format!(" of workqueue {name}")).unwrap_or_default();
        Flushed {
            at: target.kaddr,
            structure: "work_struct",
            words: format!("work {function} ({}){queue}, {state}", target.kaddr),
            name: Some(function),
            worker: None,
            sure: true,
            proof: format!(
                "its barrier at {barrier} is in the list behind that work, and names wq_barrier_func"
            ),
        }
    }

    fn flusher(&self, done: KVirtAddr) -> Option<Flushed> {
        let of = |of: &'static str, member: &str| self.reader.offset(of, member).ok();
        let flusher = done.checked_sub(of("wq_flusher", "done")?)?;
        let node = of("wq_flusher", "list")?;
        let first = of("workqueue_struct", "first_flusher")?;
        let lists = ["flusher_queue", "flusher_overflow"].map(|name| of("workqueue_struct", name));
        let all = self.all();
        let is_flushed = |queue: &&WorkQueue| {
            let named = queue.kaddr.checked_add(first).and_then(|at| self.reader.memory.read_ptr(at).ok());
            named == Some(flusher)
                || lists.iter().flatten().filter_map(|inside| queue.kaddr.checked_add(*inside)).any(|head| {
                    self.reader.list(head, node, self.context.limits.walk_items).items.contains(&flusher)
                })
        };
        let queue = all.queues.iter().find(is_flushed)?;
        let (running, pending) = self.active(queue);
        let waiting = pending.saturating_add(queue.inactive.len());
        let (state, worker) = match running.as_slice() {
            [one] => (format!("of which {} runs work", self.named(*one)), Some(*one)),
            [] => ("of which no worker runs any work".to_owned(), None),
            several => (format!("of which {} workers run work", several.len()), None),
        };
        Some(Flushed {
            at: queue.kaddr,
            structure: "workqueue_struct",
            words: format!(
                "workqueue {} ({}) to be empty, {state} and {waiting} wait",
                queue.name, queue.kaddr
            ),
            name: Some(queue.name.clone()),
            worker,
            // What runs may have been queued after the flush began.
            sure: false,
            proof: format!("that workqueue names its flusher at {flusher}"),
        })
    }

    /// The workers that run work of a queue, and how much of it waits for one.
    fn active(&self, queue: &WorkQueue) -> (Vec<KVirtAddr>, usize) {
        let of_queue = |work: &&Work| work.queue.as_deref() == Some(queue.name.as_str());
        let pools = &self.all().pools;
        let running = pools
            .iter()
            .flat_map(|pool| &pool.workers)
            .filter(|worker| worker.current.as_ref().is_some_and(|work| of_queue(&work)))
            .map(|worker| worker.task)
            .collect();
        let pending = pools.iter().map(|pool| pool.pending.iter().filter(of_queue).count());
        (running, pending.fold(0, usize::saturating_add))
    }

    fn named(&self, task: KVirtAddr) -> String {
        let known = self.context.tasks.at(task);
        known.map_or_else(|| format!("a worker ({task})"), |task| format!("{} (pid {})", task.comm, task.pid))
    }
}

fn state(pool: &WorkerPool) -> String {
    let cpu = pool.cpu.map(|cpu| format!(" of CPU {cpu}")).unwrap_or_default();
    let (all, idle) = (pool.workers_total, pool.idle);
    format!("pool {}{cpu} has {all} workers, {idle} of them idle", pool.id)
}

/// Whose a barrier in a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before<'w> {
    /// The barrier is not in the list.
    Elsewhere,
    /// No work is before it but other barriers.
    Nothing,
    /// The last work before it that is no barrier.
    Work(&'w Work),
}

fn before(list: &[Work], barrier: KVirtAddr, function: KVirtAddr) -> Before<'_> {
    let Some(place) = list.iter().position(|work| work.kaddr == barrier) else { return Before::Elsewhere };
    let works = list.get(..place).unwrap_or_default().iter().rev();
    works.clone().find(|work| work.function != function).map_or(Before::Nothing, Before::Work)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARRIER: KVirtAddr = KVirtAddr(0xb);

    fn work(kaddr: u64, function: u64) -> Work {
        Work { kaddr: KVirtAddr(kaddr), function: KVirtAddr(function), queue: None }
    }

    #[test]
    fn a_barrier_is_of_the_last_work_before_it_whatever_barriers_are_between() {
        let list = [work(1, 7), work(2, 7), work(3, 0xb), work(4, 0xb), work(5, 7)];
        let [_, second, ..] = &list;
        assert_eq!(before(&list, KVirtAddr(3), BARRIER), Before::Work(second));
        assert_eq!(before(&list, KVirtAddr(4), BARRIER), Before::Work(second));
    }

    #[test]
    fn a_barrier_with_no_work_before_it_is_of_what_the_worker_runs() {
        assert_eq!(before(&[work(3, 0xb), work(4, 7)], KVirtAddr(3), BARRIER), Before::Nothing);
    }

    #[test]
    fn what_is_not_in_the_list_is_not_of_it() {
        assert_eq!(before(&[work(3, 0xb)], KVirtAddr(9), BARRIER), Before::Elsewhere);
        assert_eq!(before(&[], KVirtAddr(9), BARRIER), Before::Elsewhere);
    }
}
