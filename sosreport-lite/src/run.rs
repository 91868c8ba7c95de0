//! Carries a plan out: a few workers collect, this thread writes. A worker that hangs is left behind and
//! replaced, so that the bundle is always finished in its time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::archive::Bundle;
use crate::collect::{Context, Harvest, blank_report, collect, epoch_seconds};
use crate::error::{CollectError, is_no_space};
use crate::manifest::{Story, own_files, version_file};
use crate::outcome::{ItemReport, ItemStatus, Outcome};
use crate::plan::{Plan, Source};
use crate::progress::{Cancel, Progress};
use crate::reader::Reader;
use crate::spool::Spool;

/// The host has better things to do: workers, and all that they start, stand back. The kernel derives the
/// priority of their I/O from it.
pub(crate) const NICENESS: i32 = 10;
/// How much later than its deadline a worker may answer before it is given up.
const SLACK: Duration = Duration::from_secs(2);

/// Collects what `plan` says and writes the bundle.
///
/// # Errors
/// [`CollectError::NoSpace`], [`CollectError::Write`], [`CollectError::Verify`] where no bundle could be made
/// under its name, [`CollectError::Cancelled`] where `cancel` asked for the stop. What can't be had for an item
/// is no error, but in the outcome.
pub fn run(plan: &Plan, progress: &dyn Progress, cancel: &Cancel) -> Result<Outcome, CollectError> {
    let began = Instant::now();
    let start = epoch_seconds();
    progress.begin(plan);
    let bundle = Bundle::create(plan, &version_file())?;
    let mut crew = Crew::new(plan, began);
    let mut writing = Writing { plan, bundle, reports: BTreeMap::new(), progress };
    let interrupted = crew.work(&mut writing, cancel);
    if interrupted {
        return Err(CollectError::Cancelled { partial: writing.bundle.partial().to_owned() });
    }
    progress.finishing();
    let items: Vec<ItemReport> = writing.reports.into_values().collect();
    let as_root = rustix::process::geteuid().is_root();
    let notes = notes(plan, crew.left_behind);
    let story = Story { plan, items: &items, notes: &notes, as_root, start, end: epoch_seconds() };
    let finished = writing.bundle.finish(&own_files(&story))?;
    Ok(Outcome {
        path: plan.path.clone(),
        digest_path: finished.digest_path,
        sha256: finished.sha256,
        size_bytes: finished.size,
        content_bytes: finished.content,
        entries: finished.entries,
        items,
        as_root,
        took: began.elapsed(),
        notes,
    })
}

fn notes(plan: &Plan, left_behind: usize) -> Vec<String> {
    let mut notes = Vec::new();
    match left_behind {
        0 => {}
        1 => notes.push("1 worker hung on the host and was left behind".into()),
        many => notes.push(format!("{many} workers hung on the host and were left behind")),
    }
    if plan.options.reader.is_none() {
        notes.push("files were read in threads of the collector, not in a process of their own".into());
    }
    notes
}

/// The writing side of a run.
struct Writing<'a> {
    plan: &'a Plan,
    bundle: Bundle,
    reports: BTreeMap<usize, ItemReport>,
    progress: &'a dyn Progress,
}

impl Writing<'_> {
    fn take(&mut self, mut harvest: Harvest) {
        let index = harvest.report.index;
        if self.reports.contains_key(&index) {
            // It was given up, and the worker came back after all: its report has been told.
            return;
        }
        let room = self.plan.options.limits.max_bytes.saturating_sub(self.bundle.content_bytes());
        if harvest.spool.len() > room {
            harvest.report.status = ItemStatus::NotReached("the bundle has reached its greatest size".into());
            forget(&mut harvest.report);
        } else if let Err(e) = self.bundle.add(&mut harvest) {
            harvest.report.status = if is_no_space(&e) {
                ItemStatus::NoSpace
            } else {
                ItemStatus::Failed(format!("it can't be written to the bundle: {e}"))
            };
            forget(&mut harvest.report);
        }
        self.tell(harvest.report);
    }

    fn tell(&mut self, report: ItemReport) {
        self.progress.item(&report);
        self.reports.insert(report.index, report);
    }
}

/// What is not in the bundle has no place in it.
fn forget(report: &mut ItemReport) {
    report.files.clear();
    for command in &mut report.commands {
        command.place = None;
    }
}

/// What a worker is at: the item and the time after which it is given up.
type Slot = Arc<Mutex<Option<(usize, Instant)>>>;

fn at(slot: &Slot) -> Option<(usize, Instant)> {
    *slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(slot: &Slot, what: Option<(usize, Instant)>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

struct Crew {
    plan: Arc<Plan>,
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    end: Instant,
    sender: SyncSender<Harvest>,
    receiver: Receiver<Harvest>,
    slots: Vec<Slot>,
    left_behind: usize,
}

impl Crew {
    fn new(plan: &Plan, began: Instant) -> Self {
        let (sender, receiver) = sync_channel(2);
        Self {
            plan: Arc::new(plan.clone()),
            next: Arc::new(AtomicUsize::new(0)),
            stop: Arc::new(AtomicBool::new(false)),
            end: began + plan.options.limits.max_time,
            sender,
            receiver,
            slots: Vec::new(),
            left_behind: 0,
        }
    }

    /// Works until every item has its report. True if it was interrupted.
    fn work(&mut self, writing: &mut Writing<'_>, cancel: &Cancel) -> bool {
        let total = self.plan.items.len();
        // What acts on the kernel log comes before those that read it.
        let first = self.plan.items.iter().take_while(|i| matches!(i.source, Source::Sysrq(_))).count();
        let crew = if first > 0 { 1 } else { self.plan.options.limits.workers.max(1) };
        for _ in 0..crew {
            self.hire();
        }
        while writing.reports.len() < total {
            match self.receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(harvest) => writing.take(harvest),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if cancel.is_cancelled() {
                self.stop.store(true, Ordering::Relaxed);
                // Running programs are ended, as far as they can be, before the answer.
                let patience = Instant::now() + self.grace();
                while Instant::now() < patience && self.slots.iter().any(|slot| at(slot).is_some()) {
                    if let Ok(harvest) = self.receiver.recv_timeout(Duration::from_millis(20)) {
                        writing.take(harvest);
                    }
                }
                return true;
            }
            self.give_up_overdue(writing);
            if self.slots.is_empty() {
                self.give_up_all(writing);
                return false;
            }
            if first > 0 && writing.reports.len() >= first {
                while self.slots.len() < self.plan.options.limits.workers {
                    self.hire();
                }
            }
        }
        false
    }

    fn grace(&self) -> Duration {
        let limits = &self.plan.options.limits;
        limits.term_grace + limits.reap_grace + SLACK
    }

    fn give_up_overdue(&mut self, writing: &mut Writing<'_>) {
        let now = Instant::now();
        let overdue: Vec<(Slot, usize)> = self
            .slots
            .iter()
            .filter_map(|slot| at(slot).filter(|(_, by)| now > *by).map(|(index, _)| (slot.clone(), index)))
            .collect();
        for (slot, index) in overdue {
            self.slots.retain(|s| !Arc::ptr_eq(s, &slot));
            self.left_behind += 1;
            if !writing.reports.contains_key(&index)
                && let Some(item) = self.plan.items.get(index)
            {
                let mut report = blank_report(index, item);
                report.status = ItemStatus::TimedOut("the host never answered, not even to start it".into());
                writing.tell(report);
            }
            self.hire();
        }
    }

    /// The host does not even give a thread any more: what is left gets its report, and the bundle its end.
    fn give_up_all(&self, writing: &mut Writing<'_>) {
        for (index, item) in self.plan.items.iter().enumerate() {
            if !writing.reports.contains_key(&index) {
                let mut report = blank_report(index, item);
                report.status = ItemStatus::NotReached("the host gives no thread to collect it".into());
                writing.tell(report);
            }
        }
    }

    fn hire(&mut self) {
        let slot = Slot::default();
        self.slots.push(slot.clone());
        let (plan, next, stop) = (self.plan.clone(), self.next.clone(), self.stop.clone());
        let (sender, end, grace) = (self.sender.clone(), self.end, self.grace());
        let hired = std::thread::Builder::new().name("collect".into()).spawn(move || {
            // Not permitted in some containers; then it runs as it is.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let mut reader = Reader::new(plan.options.reader.clone(), &plan.options.root);
            let dir = plan.path.parent().filter(|p| !p.as_os_str().is_empty());
            let dir = dir.unwrap_or(std::path::Path::new("."));
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = plan.items.get(index) else { return };
                let deadline = end.min(Instant::now() + item.limit);
                let harvest = if stop.load(Ordering::Relaxed) || Instant::now() >= end {
                    let mut report = blank_report(index, item);
                    report.status = ItemStatus::NotReached("the time of the whole run was up".into());
                    Harvest { spool: Spool::new(dir), entries: Vec::new(), report }
                } else {
                    set(&slot, Some((index, deadline + grace)));
                    let cancel = &stop;
                    let mut context = Context { plan: &plan, item, deadline, cancel, reader: &mut reader };
                    collect(index, &mut context, Spool::new(dir))
                };
                set(&slot, None);
                if sender.send(harvest).is_err() {
                    return;
                }
            }
        });
        if hired.is_err() {
            self.slots.pop();
        }
    }
}
