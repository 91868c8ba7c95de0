//! The workqueues and pools of workers in the words of the report.

use super::parts::{Clock, Context, Part};
use super::tasks;
use super::ticks::Ticks;
use crate::kernel::reader::Reader;
use crate::kernel::workqueue::{self, Work, WorkQueues};
use crate::report::{self, Confidence, Finding, Severity, TaskRef};

/// After as many seconds the kernel's own watchdog speaks (`workqueue.watchdog_thresh`).
const STALLED: f64 = 30.0;
/// Functions that a finding names.
const NAMED: usize = 5;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let reader = context.reader();
    let found = workqueue::read(reader);
    let ticks = Ticks::read(context);
    let pools: Vec<report::WorkerPool> =
        found.pools.iter().map(|pool| one(context, reader, pool, ticks.as_ref().ok())).collect();
    let queues = queues(&found);
    let stalled = ticks.as_ref().ok().and_then(|ticks| stalled(&pools, ticks.after_panic_s));
    let mut part = Part::new(move |report| {
        report.workqueues = queues;
        report.worker_pools = pools;
    });
    part.gaps("workqueues", &found.gaps);
    if let Err(why) = ticks {
        part.skip("worker_pools.stalled_s", why);
    }
    part.findings.extend(stalled);
    part
}

fn queues(found: &WorkQueues) -> Vec<report::WorkQueue> {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let one = |queue: &workqueue::WorkQueue| {
        let of = |work: &&Work| work.queue.as_deref() == Some(queue.name.as_str());
        let waiting = found.pools.iter().map(|pool| pool.pending.iter().filter(of).count());
        let workers = || found.pools.iter().flat_map(|pool| &pool.workers);
        let scheduled = workers().map(|worker| worker.scheduled.iter().filter(of).count());
        let pending = waiting.chain(scheduled).fold(queue.inactive.len(), usize::saturating_add);
        let running = workers().filter_map(|worker| worker.current.as_ref()).filter(of).count();
        report::WorkQueue {
            name: queue.name.clone(),
            pending: Some(count(pending)),
            active: Some(count(running)),
            kaddr: Some(queue.kaddr.into()),
            flags: Some(queue.flags),
        }
    };
    found.queues.iter().map(one).collect()
}

fn one(
    context: &Context<'_>,
    reader: Reader<'_, '_>,
    pool: &workqueue::WorkerPool,
    ticks: Option<&Ticks>,
) -> report::WorkerPool {
    let work = |work: &Work| report::Work {
        function: reader.function(work.function),
        workqueue: work.queue.clone(),
        kaddr: work.kaddr.into(),
    };
    let busy = pool.workers.iter().filter_map(|worker| {
        let task = context.tasks.at(worker.task).map(tasks::name);
        Some(report::Worker {
            task: task.unwrap_or(TaskRef { pid: None, comm: None, kaddr: Some(worker.task.into()) }),
            work: work(worker.current.as_ref()?),
            scheduled: worker.scheduled.iter().map(work).collect(),
        })
    });
    let since = pool.watchdog.zip(ticks).map(|(since, ticks)| ticks.late_s(since).max(0.0));
    report::WorkerPool {
        id: pool.id,
        cpu: pool.cpu,
        nice: pool.nice,
        nr_workers: u64::try_from(pool.workers_total).ok(),
        nr_idle: u64::try_from(pool.idle).ok(),
        nr_running: pool.running.map(i64::from),
        stalled_s: since.filter(|_| !pool.pending.is_empty()),
        busy: busy.collect(),
        pending: pool.pending.iter().map(work).collect(),
    }
}

/// A pool that has work and has not got on for longer than the kernel's watchdog allows. What passed since a panic does not count:
/// no CPU did anything then.
fn stalled(pools: &[report::WorkerPool], after_panic_s: Option<f64>) -> Option<Finding> {
    let after = after_panic_s?;
    let late = |pool: &&report::WorkerPool| pool.stalled_s.is_some_and(|s| s - after > STALLED);
    let all: Vec<&report::WorkerPool> = pools.iter().filter(late).collect();
    let count = match all.len() {
        0 => return None,
        1 => "A pool of kernel workers has".to_owned(),
        n => format!("{n} pools of kernel workers have"),
    };
    let title = format!("{count} work that waits and did not get on for more than {STALLED:.0} s.");
    let first = all.first()?.id;
    let mut finding = Finding::new("KD-WQ-STALLED", Severity::Warning, Confidence::Likely, title);
    for pool in all {
        let names: Vec<&str> = pool.pending.iter().take(NAMED).map(|work| work.function.as_str()).collect();
        let place = pool.cpu.map_or_else(|| "of no CPU".into(), |cpu| format!("of CPU {cpu}"));
        finding = finding.because(format!(
            "pool {} ({place}) stands for {:.0} s with {} waiting: {}",
            pool.id,
            pool.stalled_s.unwrap_or_default() - after,
            pool.pending.len(),
            names.join(", ")
        ));
    }
    Some(
        finding.next(
            "Look at what that CPU and the pool's busy workers are at: kdt triage --only workqueues,cpus.",
        )
        .by_hand_crash("foreach '^kworker.*' bt")
        .by_hand_drgn(format!("cast(\"struct worker_pool *\", idr_find(prog[\"worker_pool_idr\"].address_of_(), {first})).watchdog_ts")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(stalled_s: Option<f64>) -> report::WorkerPool {
        report::WorkerPool { id: 3, cpu: Some(1), stalled_s, ..report::WorkerPool::default() }
    }

    #[test]
    fn a_pool_that_stands_still_is_told_of_and_time_after_a_panic_does_not_count() {
        let pools = [pool(Some(40.0)), pool(None), pool(Some(3.0))];
        let finding = stalled(&pools, Some(0.0)).unwrap();
        assert_eq!((finding.code.as_str(), finding.evidence.len()), ("KD-WQ-STALLED", 1));
        assert!(finding.evidence[0].contains("pool 3 (of CPU 1) stands for 40 s"), "{:?}", finding.evidence);
        assert_eq!(stalled(&pools, Some(20.0)), None);
        assert_eq!(stalled(&pools, None), None);
    }
}
