//! Collects one item, within its time and its size. What can't be had is a note in its report.

mod command;
mod files;
mod sample;
mod tasks;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::error::is_no_space;
use crate::outcome::{ItemReport, ItemStatus};
use crate::plan::{Item, Plan, Source};
use crate::reader::frame::Verdict;
use crate::reader::{NoAnswer, Reader};
use crate::spool::Spool;

/// A record of the archive, its bytes still in the spool.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where in the bundle, without its top directory.
    pub(crate) path: Vec<u8>,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    File { range: Range<u64>, mode: u32, uid: u32, gid: u32, mtime: u64 },
    Link { target: Vec<u8> },
}

/// All that one item brought.
#[derive(Debug)]
pub(crate) struct Harvest {
    pub(crate) spool: Spool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) report: ItemReport,
}

/// What a worker knows of its run.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) item: &'a Item,
    pub(crate) deadline: Instant,
    pub(crate) cancel: &'a Arc<AtomicBool>,
    pub(crate) reader: &'a mut Reader,
}

impl Context<'_> {
    fn is_over(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }

    /// The end of one file's time.
    fn file_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + self.plan.options.limits.file_time)
    }
}

/// An empty report on an item.
pub(crate) fn blank_report(index: usize, item: &Item) -> ItemReport {
    ItemReport {
        index,
        plugin: item.plugin.clone(),
        what: item.what(),
        status: ItemStatus::Taken,
        commands: Vec::new(),
        files: Vec::new(),
        notes: Vec::new(),
        bytes: 0,
        start: epoch_seconds(),
        took: std::time::Duration::ZERO,
    }
}

/// Now, in seconds since 1970.
pub(crate) fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Collects one item.
pub(crate) fn collect(index: usize, context: &mut Context<'_>, spool: Spool) -> Harvest {
    let began = Instant::now();
    let mut harvest = Harvest { spool, entries: Vec::new(), report: blank_report(index, context.item) };
    let status = match &context.item.source {
        Source::Command(command) => command::collect(context, command, &mut harvest),
        Source::Files { glob, exclude } => files::collect(context, glob, exclude, &mut harvest),
        Source::Sample { paths, interval } => sample::collect(context, paths, *interval, &mut harvest),
        Source::Tasks { states, files } => tasks::collect(context, states, files, &mut harvest),
        Source::Sysrq(letter) => match context.reader.sysrq(*letter, context.deadline) {
            Ok((Verdict::Complete, _)) => ItemStatus::Taken,
            Ok((verdict, why)) => status_of(verdict, why),
            Err(e) => status_of_no_answer(&e, "/proc/sysrq-trigger"),
        },
    };
    harvest.report.status = status;
    harvest.report.took = began.elapsed();
    harvest
}

/// The status of an item that is one answer of the reader.
fn status_of(verdict: Verdict, why: String) -> ItemStatus {
    match verdict {
        Verdict::Complete | Verdict::Truncated => ItemStatus::Taken,
        Verdict::Absent => ItemStatus::Absent(why),
        Verdict::Denied => ItemStatus::Denied(why),
        Verdict::Refused | Verdict::Failed => ItemStatus::Failed(why),
    }
}

fn status_of_no_answer(e: &NoAnswer, what: &str) -> ItemStatus {
    match e {
        NoAnswer::TimedOut => ItemStatus::TimedOut(format!("{what} did not answer")),
        NoAnswer::Broken(e) => ItemStatus::Failed(format!("{what} can't be read: {e}")),
        NoAnswer::Sink(e) if is_no_space(e) => ItemStatus::NoSpace,
        NoAnswer::Sink(e) => ItemStatus::Failed(format!("{what} can't be kept: {e}")),
    }
}

/// Where the kept end of a file or output is: sos has it under `sos_strings/`, with a link in its own place.
fn tailed_place(plugin: &str, name: &[u8]) -> Vec<u8> {
    [b"sos_strings/".as_slice(), plugin.as_bytes(), b"/", name].concat()
}
