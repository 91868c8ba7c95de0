//! The workqueues, their pools of workers, and what each had to do.
//!
//! Facts: `kernel/workqueue.c`, `include/linux/workqueue.h`. A work's `data` leads to the queue that it waits in.

use std::collections::HashMap;

use super::reader::{Reader, note, note_end};
use super::value::{Layout, Maybe, Place, view};
use super::{Gap, idr};
use crate::addr::KVirtAddr;
use crate::sym::btf::TypeError;

/// Pools, queues or workers that are read.
const MOST: usize = 1 << 18;
/// `WORK_STRUCT_PWQ`: the data is a pointer.
const IS_POINTER: u64 = 4;

view! {
    struct Queue of "workqueue_struct" {
        name: String = ["name"],
        flags: u32 = ["flags"],
        pwqs: Place = ["pwqs"],
    }
}

view! {
    struct PoolQueue of "pool_workqueue" {
        wq: KVirtAddr = ["wq"],
        active: u32 = ["nr_active"],
        waiting: Place = ["inactive_works", "delayed_works"],
    }
}

view! {
    struct Pool of "worker_pool" {
        cpu: i32 = ["cpu"],
        watchdog: Maybe<u64> = ["watchdog_ts"],
        running: Maybe<i32> = ["nr_running"],
        workers: i32 = ["nr_workers"],
        idle: i32 = ["nr_idle"],
        worklist: Place = ["worklist"],
        list: Place = ["workers"],
        attributes: Maybe<KVirtAddr> = ["attrs"],
    }
}

view! {
    struct Attributes of "workqueue_attrs" {
        nice: i32 = ["nice"],
    }
}

view! {
    struct WorkerObject of "worker" {
        work: KVirtAddr = ["current_work"],
        function: KVirtAddr = ["current_func"],
        queue: KVirtAddr = ["current_pwq"],
        task: KVirtAddr = ["task"],
        id: i32 = ["id"],
        scheduled: Place = ["scheduled"],
    }
}

view! {
    struct WorkObject of "work_struct" {
        data: u64 = ["data"],
        function: KVirtAddr = ["func"],
    }
}

/// A piece of work that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// Its function's address.
    pub function: KVirtAddr,
    /// The workqueue that it is of, where its data tells.
    pub queue: Option<String>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// Its number in its pool.
    pub id: i32,
    /// Its task.
    pub task: KVirtAddr,
    /// What it runs; `None` where it is idle.
    pub current: Option<Work>,
    /// Work that only it may run next.
    pub scheduled: Vec<Work>,
}

/// A pool of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerPool {
    /// Its number.
    pub id: u64,
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// The CPU that it is of; `None` for one that is of no CPU.
    pub cpu: Option<u32>,
    /// The nice value of its workers.
    pub nice: Option<i32>,
    /// Workers that it has.
    pub workers_total: i32,
    /// Workers that are idle.
    pub idle: i32,
    /// Workers that are on a CPU or ready for one.
    pub running: Option<i32>,
    /// When it last got on, in jiffies.
    pub watchdog: Option<u64>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// What waits for a worker, the oldest first.
    pub pending: Vec<Work>,
    /// False where the list of waiting work could not be read to its end.
    pub all_pending: bool,
}

/// A workqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkQueue {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// `WQ_*`, as they are.
    pub flags: u32,
    /// Work of it that a pool has, waiting or running.
    pub active: u64,
    /// Work of it that waits until less is active.
    pub inactive: Vec<Work>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WorkQueues {
    /// In the kernel's order.
    pub queues: Vec<WorkQueue>,
    /// By ascending number.
    pub pools: Vec<WorkerPool>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

impl WorkQueues {
    /// The worker that a task is, and its pool.
    #[must_use]
    pub fn worker_of(&self, task: KVirtAddr) -> Option<(&WorkerPool, &Worker)> {
        self.pools
            .iter()
            .find_map(|pool| Some((pool, pool.workers.iter().find(|worker| worker.task == task)?)))
    }

    /// The worker that runs a piece of work.
    #[must_use]
    pub fn running(&self, work: KVirtAddr) -> Option<(&WorkerPool, &Worker)> {
        let runs = |worker: &&Worker| worker.current.as_ref().is_some_and(|current| current.kaddr == work);
        self.pools.iter().find_map(|pool| Some((pool, pool.workers.iter().find(runs)?)))
    }
}

/// Reads all workqueues and pools.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> WorkQueues {
    let mut found = WorkQueues::default();
    let mut each = match Each::new(reader) {
        Ok(each) => each,
        Err(why) => {
            note(&mut found.gaps, "workqueues", why);
            return found;
        }
    };
    if let Err(why) = each.queues(&mut found) {
        note(&mut found.gaps, "workqueues", why);
    }
    if let Err(why) = each.pools(&mut found) {
        note(&mut found.gaps, "pools of workers", why);
    }
    found
}

struct Each<'a, 'm> {
    reader: Reader<'a, 'm>,
    queues: Layout<Queue>,
    pool_queues: Layout<PoolQueue>,
    pools: Layout<Pool>,
    workers: Layout<WorkerObject>,
    works: Layout<WorkObject>,
    work_entry: u64,
    /// Bits of a work's data that are no part of the pointer.
    flag_bits: u64,
    /// Names of workqueues, by the `pool_workqueue`.
    names: HashMap<KVirtAddr, String>,
}

impl<'a, 'm> Each<'a, 'm> {
    fn new(reader: Reader<'a, 'm>) -> Result<Self, TypeError> {
        let types = reader.types;
        let kernel = types.kernel();
        let bits = ["WORK_STRUCT_PWQ_SHIFT", "WORK_STRUCT_FLAG_BITS"]
            .iter()
            .find_map(|name| kernel?.constant(name).ok())
            .and_then(|bits| u32::try_from(bits).ok());
        Ok(Self {
            reader,
            queues: Layout::new(types)?,
            pool_queues: Layout::new(types)?,
            pools: Layout::new(types)?,
            workers: Layout::new(types)?,
            works: Layout::new(types)?,
            work_entry: types.structure("work_struct")?.member("entry")?.offset(),
            flag_bits: 1_u64.checked_shl(bits.unwrap_or(8)).unwrap_or(256).saturating_sub(1),
            names: HashMap::new(),
        })
    }

    fn queues(&mut self, found: &mut WorkQueues) -> Result<(), String> {
        let reader = self.reader;
        let walk = reader.objects("workqueues", "workqueue_struct", "list")?;
        note_end(&mut found.gaps, "the list of workqueues", &walk.end);
        let inside = reader.offset("pool_workqueue", "pwqs_node")?;
        for kaddr in walk.items.into_iter().take(MOST) {
            let queue = match self.queues.read(reader.memory, kaddr) {
                Ok(queue) => queue,
                Err(why) => {
                    note(&mut found.gaps, "a workqueue", why);
                    continue;
                }
            };
            let what = format!("workqueue {}", queue.name);
            let mut read =
                WorkQueue { name: queue.name, kaddr, flags: queue.flags, active: 0, inactive: Vec::new() };
            let parts = reader.list(queue.pwqs.0, inside, MOST);
            note_end(&mut found.gaps, &what, &parts.end);
            for part in parts.items {
                match self.pool_queues.read(reader.memory, part) {
                    Ok(own) if own.wq == kaddr => {
                        self.names.insert(part, read.name.clone());
                        read.active = read.active.saturating_add(u64::from(own.active));
                        let waiting = self.works(own.waiting.0, &what, &mut found.gaps);
                        read.inactive.extend(waiting.0);
                    }
                    Ok(own) => {
                        note(&mut found.gaps, &what, format!("its part at {part} is that of {}", own.wq));
                    }
                    Err(why) => note(&mut found.gaps, &what, why),
                }
            }
            found.queues.push(read);
        }
        Ok(())
    }

    fn pools(&self, found: &mut WorkQueues) -> Result<(), String> {
        let reader = self.reader;
        let layout = idr::Layout::new(reader.types).map_err(|why| why.to_string())?;
        let idr = reader.symbols.address("worker_pool_idr").ok_or("no symbol worker_pool_idr is known")?;
        let walk = layout.entries(reader.memory, idr, MOST);
        note_end(&mut found.gaps, "the pools of workers", &walk.end);
        let node = reader.offset("worker", "node")?;
        let attributes = Layout::<Attributes>::new(reader.types).ok();
        for (id, kaddr) in walk.items {
            let what = format!("pool {id} of workers");
            let pool = match self.pools.read(reader.memory, kaddr) {
                Ok(pool) => pool,
                Err(why) => {
                    note(&mut found.gaps, &what, why);
                    continue;
                }
            };
            let nice = attributes.as_ref().zip(pool.attributes.value());
            let nice = nice.and_then(|(layout, at)| Some(layout.read(reader.memory, at).ok()?.nice));
            let (pending, all_pending) = self.works(pool.worklist.0, &what, &mut found.gaps);
            let mut read = WorkerPool {
                id,
                kaddr,
                cpu: u32::try_from(pool.cpu).ok(),
                nice,
                workers_total: pool.workers,
                idle: pool.idle,
                running: pool.running.value(),
                watchdog: pool.watchdog.value(),
                workers: Vec::new(),
                pending,
                all_pending,
            };
            let workers = reader.list(pool.list.0, node, MOST);
            note_end(&mut found.gaps, &what, &workers.end);
            for at in workers.items {
                match self.workers.read(reader.memory, at) {
                    Ok(worker) => {
                        let scheduled = self.works(worker.scheduled.0, &what, &mut found.gaps).0;
                        let current = (!worker.work.is_null()).then(|| Work {
                            kaddr: worker.work,
                            function: worker.function,
                            queue: self.names.get(&worker.queue).cloned(),
                        });
                        read.workers.push(Worker {
                            kaddr: at,
                            id: worker.id,
                            task: worker.task,
                            current,
                            scheduled,
                        });
                    }
                    Err(why) => note(&mut found.gaps, &what, why),
                }
            }
            found.pools.push(read);
        }
        Ok(())
    }

    /// The works of a list, and whether these are all.
    fn works(&self, head: KVirtAddr, what: &str, gaps: &mut Vec<Gap>) -> (Vec<Work>, bool) {
        let walk = self.reader.list(head, self.work_entry, self.reader.limits.walk_items);
        let mut all = walk.end.is_complete();
        note_end(gaps, &format!("work of {what}"), &walk.end);
        let mut found = Vec::new();
        for kaddr in walk.items {
            match self.works.read(self.reader.memory, kaddr) {
                Ok(work) => found.push(Work {
                    kaddr,
                    function: work.function,
                    queue: (work.data & IS_POINTER != 0)
                        .then(|| self.names.get(&KVirtAddr(work.data & !self.flag_bits)).cloned())
                        .flatten(),
                }),
                Err(why) => {
                    all = false;
                    note(gaps, &format!("work of {what}"), why);
                }
            }
        }
        (found, all)
    }
}
