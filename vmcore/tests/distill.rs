//! Which frames the analyses read, and that these are enough for them.
#![allow(
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests"
)]

use std::path::PathBuf;

use serde_json::{Value, json};
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options, triage};
use vmcore::distill::{Level, Plan, plan};
use vmcore::error::PageError;
use vmcore::mem::Recorder;
use vmcore::progress::{Cancel, Quiet};
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

/// A dump of which only some frames are there.
struct Only<'m> {
    dump: &'m Dump,
    has: &'m (dyn Fn(Pfn) -> bool + Sync + Send),
}

impl PhysicalMemory for Only<'_> {
    fn page_size(&self) -> u64 {
        self.dump.page_size()
    }
    fn end_pfn(&self) -> Pfn {
        self.dump.end_pfn()
    }
    fn state(&self, pfn: Pfn) -> PageState {
        match self.dump.state(pfn) {
            PageState::Present if !(self.has)(pfn) => PageState::Excluded,
            state => state,
        }
    }
    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let size = self.page_size();
        let last = paddr.0.saturating_add((buf.len() as u64).saturating_sub(1)) / size;
        for pfn in (paddr.0 / size..=last).map(Pfn) {
            if self.dump.state(pfn) == PageState::Present && !(self.has)(pfn) {
                return Err(PageError::Excluded { pfn, level: 31 });
            }
        }
        self.dump.read(paddr, buf)
    }
}

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

fn open(path: &PathBuf) -> Dump {
    Dump::open(path, &OpenOptions::default()).unwrap()
}

fn options() -> Options {
    Options::new("test", "0")
}

/// The report of a memory without what differs from run to run.
fn report(dump: &Dump, memory: &dyn PhysicalMemory) -> Value {
    let mut subject = Subject { memory, ..Subject::new(dump) };
    // A distilled dump says that it is one, so that what it leaves out is no finding.
    subject.dump.made = Some("distilled".into());
    document(&triage(&subject, &options(), &Quiet, &Cancel::default()))
}

fn document(report: &vmcore::report::Report) -> Value {
    let mut value = serde_json::to_value(report).unwrap();
    value["timings"] = json!(null);
    value["dump"]["made"] = json!(null);
    value
}

/// The first places in which two documents differ.
fn differences(a: &Value, b: &Value, at: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().for_each(|(key, value)| differences(value, &b[key], &format!("{at}/{key}"), found));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter()
                .zip(b)
                .enumerate()
                .for_each(|(n, (a, b))| differences(a, b, &format!("{at}/{n}"), found));
        }
        _ if a != b => found.push(format!("{at}: {a} is not {b}")),
        _ => {}
    }
}

#[track_caller]
fn same(a: &Value, b: &Value, what: &str) {
    let mut found = Vec::new();
    differences(a, b, "", &mut found);
    found.truncate(10);
    assert!(found.is_empty(), "{what}: {}", found.join("\n"));
}

fn tell(name: &str, level: Level, plan: &Plan, dump: &Dump) {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let mut page = vec![0; dump.page_size() as usize];
    let runs = plan.frames.iter().flat_map(|(first, count)| (first.0..first.0 + count).map(Pfn));
    let mut packed = 0;
    for pfn in runs {
        dump.read_frame(pfn, &mut page).unwrap();
        packed += zstd::bulk::compress(&page, 3).unwrap().len().min(page.len()) as u64;
    }
    let (raw, packed) = (mib(plan.count() * dump.page_size()), mib(packed));
    eprintln!(
        "{name} {}: {} frames, {raw:.1} MiB, {packed:.1} MiB in zstd pages",
        level.name(),
        plan.count()
    );
    for (reason, frames) in &plan.why {
        let frames: u64 = frames.iter().map(|(_, count)| count).sum();
        eprintln!("    {frames:>6} {}", reason.name());
    }
    plan.gaps.iter().for_each(|gap| eprintln!("    gap: {gap}"));
}

#[test]
fn a_recorder_changes_nothing_and_what_it_saw_is_enough() {
    let dump = open(&committed());
    let whole = report(&dump, &dump);
    let recorder = Recorder::new(&dump);
    same(&report(&dump, &recorder), &whole, "over a recorder");
    let frames = recorder.count();
    let present = dump.completeness().present_pages;
    eprintln!("the analyses read {frames} frames of {present}, {} bytes", frames * dump.page_size());
    assert!(frames > 100 && frames < present, "{frames} of {present}");
    let only = Only { dump: &dump, has: &|pfn| recorder.has(pfn) };
    same(&report(&dump, &only), &whole, "over what was read only");
    // That it can fail: without one of these frames the report is another one.
    let first = recorder.touched().map(|(pfn, _)| pfn).find(|pfn| dump.state(*pfn) == PageState::Present);
    let (skip, keep) = (first.unwrap(), recorder.touched().nth(3).unwrap().0);
    let less = Only { dump: &dump, has: &|pfn| recorder.has(pfn) && pfn != skip && pfn == keep };
    let mut found = Vec::new();
    differences(&report(&dump, &less), &whole, "", &mut found);
    assert!(!found.is_empty());
}

#[test]
fn each_plan_is_enough_for_the_analyses_and_holds_the_smaller_ones() {
    check_plans("panic-6.1", &open(&committed()));
}

fn check_plans(name: &str, dump: &Dump) {
    let whole = report(dump, dump);
    let mut before: Option<Plan> = None;
    for level in Level::ALL {
        let plan = plan(dump, level, &options(), &Quiet, &Cancel::default());
        tell(name, level, &plan, dump);
        same(&document(&plan.report), &whole, "the report of the plan");
        assert!(plan.count() <= dump.completeness().present_pages);
        let only = Only { dump, has: &|pfn| plan.has(pfn) };
        same(&report(dump, &only), &whole, level.name());
        if let Some(smaller) = before {
            let runs = smaller.frames.iter();
            let all = runs.flat_map(|(first, count)| (first.0..first.0 + count).map(Pfn));
            assert_eq!(all.filter(|pfn| !plan.has(*pfn)).count(), 0, "{} has less", level.name());
        }
        before = Some(plan);
    }
}

/// `KDT_FOREIGN_DUMPS` names directories of real dumps, as in the other tests.
#[test]
fn plans_of_real_dumps_are_enough() {
    let Some(dirs) = std::env::var_os("KDT_FOREIGN_DUMPS") else {
        eprintln!("SKIP: KDT_FOREIGN_DUMPS names no directory of dumps");
        return;
    };
    for dir in std::env::split_paths(&dirs) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|kind| kind == "kdump" || kind == "elf" || kind == "vmcore") {
                check_plans(&path.file_name().unwrap().to_string_lossy(), &open(&path));
            }
        }
    }
}
