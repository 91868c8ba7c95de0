//! What is erased from a real dump is gone when it is read back, and nothing else is.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use vmcore::addr::{KVirtAddr, Pfn};
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options as TriageOptions, triage};
use vmcore::filter::{Classes, Level, frames};
use vmcore::format::Codec;
use vmcore::kernel::describe::Description;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::{Kernel, Options as KernelOptions, task};
use vmcore::limits::Limits;
use vmcore::progress::{Cancel, Quiet};
use vmcore::scrub::{Canary, FILL, Pattern, Plan, Wanted, What, plan, search};
use vmcore::write::{FileSink, Form, Options, Texts, write};
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

fn real() -> Dump {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/data/panic-6.1.kdump");
    Dump::open(path, &OpenOptions::default()).unwrap()
}

fn planned(dump: &Dump, wanted: &Wanted) -> (Plan, Classes) {
    planned_without(dump, wanted, None)
}

/// The same where one frame is not to be written.
fn planned_without(dump: &Dump, wanted: &Wanted, left_out: Option<Pfn>) -> (Plan, Classes) {
    let subject = Subject::new(dump);
    let kernel = Kernel::open(subject.memory, &subject.hints, KernelOptions::default().without_scan());
    let (limits, watch) = (Limits::default(), (&Cancel::default(), &Quiet as _));
    let mut classes = frames(dump, &limits, watch.0).unwrap();
    if let Some(pfn) = left_out {
        classes.kept.remove(pfn.0);
    }
    let plan = plan(dump, &kernel, &mut classes, wanted, &limits, watch);
    (plan, classes)
}

fn put(dump: &Dump, plan: &Plan, classes: &Classes, path: &Path) -> Dump {
    let options = Options {
        jobs: 2,
        blanks: Some(Arc::clone(&plan.blanks)),
        ..Options::new(Form::Kdump(Codec::Raw), Level::new(0).unwrap())
    };
    let mut texts = Texts::of(dump);
    texts.erased = Some(plan.erase_info());
    let file = File::create_new(path).unwrap();
    write(dump, classes, &texts, None, &options, &mut FileSink(&file), (&Cancel::default(), &Quiet)).unwrap();
    Dump::open(path, &OpenOptions::default()).unwrap()
}

fn all_but_names() -> BTreeSet<What> {
    What::ALL.into_iter().filter(|what| !matches!(what, What::Names | What::Strings)).collect()
}

fn report(dump: &Dump) -> Value {
    let options = TriageOptions::new("test", "0");
    let mut value =
        serde_json::to_value(triage(&Subject::new(dump), &options, &Quiet, &Cancel::default())).unwrap();
    value["timings"] = json!(null);
    value["dump"] = json!(null);
    value
}

#[test]
fn a_text_is_gone_everywhere_and_nothing_else_is_changed() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let text = "lab: mark";
    let canaries = [Canary::named(text)];
    let watch = (&Cancel::default(), &Quiet as _);
    let before = search(&dump, &canaries, watch);
    assert!(before.count > 0, "the mark is in the log");
    let wanted = Wanted { patterns: vec![Pattern::text(text).unwrap()], ..Wanted::default() };
    let (plan, classes) = planned(&dump, &wanted);
    assert!(plan.is_whole(), "{:?}", plan.accounts);
    assert_eq!(plan.accounts[0].objects, before.count);
    let copy = put(&dump, &plan, &classes, &dir.path().join("copy"));
    let after = search(&copy, &canaries, watch);
    assert_eq!((after.count, after.pages, after.unreadable), (0, before.pages, 0));
    let (mut was, mut is, mut changed) = (vec![0; 4096], vec![0; 4096], 0);
    for pfn in (0..dump.end_pfn().0).map(Pfn).filter(|pfn| dump.state(*pfn) == PageState::Present) {
        dump.read_frame(pfn, &mut was).unwrap();
        copy.read_frame(pfn, &mut is).unwrap();
        for (was, is) in was.iter().zip(&is).filter(|(was, is)| was != is) {
            assert_eq!((*is, was.is_ascii()), (FILL, true), "{pfn}");
            changed += 1;
        }
    }
    assert_eq!(changed, plan.blanks.bytes());
    assert_eq!(copy.facts().erase_info.as_deref(), Some(format!("erase kdt.strings {changed}\n").as_str()));
}

/// Pages of zeros are stored once for all of them.
fn is_used(dump: &Dump, pfn: Pfn) -> bool {
    let mut page = vec![0; 4096];
    dump.read_frame(pfn, &mut page).is_ok() && page.iter().any(|byte| *byte != 0)
}

/// Two frames of a stack or a module that follow each other in virtual memory only, two that follow each other in physical memory,
/// and two of which the second is mapped next behind the first, with a gap between them.
fn borders(dump: &Dump) -> [(Pfn, Pfn); 3] {
    let subject = Subject::new(dump);
    let kernel = Kernel::open(subject.memory, &subject.hints, KernelOptions::default().without_scan());
    let (memory, limits) = (kernel.memory(), Limits::default());
    let description = Description::load(memory, kernel.vmcoreinfo(), &limits);
    let per_cpu = PerCpu::read(memory, &description.symbols, &limits).unwrap();
    let tasks = task::read(memory, &description, &per_cpu, &limits);
    let frame = |at: u64| memory.translate(KVirtAddr(at)).ok().map(|to| Pfn(to.paddr.0 >> 12));
    let all = || tasks.tasks.iter().filter_map(|task| task.stack);
    let stacks = all().map(|stack| stack.0..stack.0 + 0x3000);
    let behind_a_gap = |last: u64| (2..64).find_map(|pages| frame(last + 4096 * pages));
    let gap = all()
        .map(|stack| stack.0 + 0x3000)
        .filter(|last| frame(last + 4096).is_none())
        .filter_map(|last| Some((frame(last)?, behind_a_gap(last)?)))
        .find(|(a, b)| b.0 != a.0 + 1 && [a, b].iter().all(|pfn| is_used(dump, **pfn)))
        .unwrap();
    let modules = description.symbols.modules().iter().flat_map(|module| module.ranges().to_vec());
    let pairs: Vec<(Pfn, Pfn)> = stacks
        .chain(modules)
        .flat_map(|range| range.step_by(4096))
        .filter_map(|at| Some((frame(at)?, frame(at + 0x1000)?)))
        .filter(|(a, b)| [a, b].iter().all(|pfn| is_used(dump, **pfn)))
        .collect();
    let apart = |(a, b): &&(Pfn, Pfn)| b.0 != a.0 + 1;
    [*pairs.iter().find(apart).unwrap(), *pairs.iter().find(|pair| !apart(pair)).unwrap(), gap]
}

const HALVES: (&[u8], &[u8]) = (b"CUT-HERE-", b"SECRET");

/// The dump with a text from the end of one frame to the beginning of the other.
fn with_text_across(dump: &Dump, (before, after): (Pfn, Pfn), path: &Path) -> Dump {
    let (plan, classes) = planned(dump, &Wanted::default());
    drop(put(dump, &plan, &classes, path));
    let mut bytes = std::fs::read(path).unwrap();
    for (pfn, at, text) in [(before, 4096 - HALVES.0.len(), HALVES.0), (after, 0, HALVES.1)] {
        let mut page = vec![0; 4096];
        dump.read_frame(pfn, &mut page).unwrap();
        let places: Vec<usize> = places_of(&bytes, &page);
        assert_eq!(places.len(), 1, "{pfn} is like no other");
        bytes[places[0] + at..][..text.len()].copy_from_slice(text);
    }
    std::fs::write(path, bytes).unwrap();
    Dump::open(path, &OpenOptions::default()).unwrap()
}

/// Where a page lies in a file of raw pages.
fn places_of(bytes: &[u8], page: &[u8]) -> Vec<usize> {
    (0..=bytes.len() - page.len())
        .step_by(8)
        .filter(|at| bytes[*at..*at + 8] == page[..8] && bytes[*at..*at + page.len()] == *page)
        .collect()
}

#[test]
fn a_text_that_is_cut_by_a_border_of_pages_is_found_and_erased() {
    let (real, dir) = (real(), tempfile::tempdir().unwrap());
    let canaries = [Canary::named("CUT-HERE-SECRET")];
    let watch = (&Cancel::default(), &Quiet as _);
    let wanted = Wanted { patterns: vec![Pattern::regex("CUT-HERE-[A-Z]+T").unwrap()], ..Wanted::default() };
    let [apart, beside, gap] = borders(&real);
    let none = with_text_across(&real, gap, &dir.path().join("gap"));
    assert_eq!(search(&none, &canaries, watch).count, 0, "that is no one text");
    for (number, (before, after)) in [apart, beside].into_iter().enumerate() {
        let path = |name: &str| dir.path().join(format!("{name}{number}"));
        let dump = with_text_across(&real, (before, after), &path("planted"));
        let found = search(&dump, &canaries, watch);
        let hit = found.hits.first().unwrap_or_else(|| panic!("{number} {before} {after}: {found:?}"));
        assert_eq!((found.count, hit.pfn, hit.offset), (1, before.0, 4096 - 9), "{found:?}");
        assert!(found.borders > 10 && found.borders_lost.is_empty(), "{found:?}");

        let (plan, classes) = planned(&dump, &wanted);
        assert!(plan.is_whole(), "{:?}", plan.accounts);
        let account = &plan.accounts[0];
        assert_eq!((account.objects, account.bytes, account.absent), (1, 15, 0));
        let copy = put(&dump, &plan, &classes, &path("copy"));
        assert_eq!(search(&copy, &canaries, watch).count, 0);
        let mut page = vec![0; 4096];
        copy.read_frame(before, &mut page).unwrap();
        assert_eq!(page[4096 - 9..], [FILL; 9]);
        copy.read_frame(after, &mut page).unwrap();
        assert_eq!(page[..6], [FILL; 6]);

        // Half of a text is no longer one that could be found: it goes all the same.
        for (left_out, erased) in [(after, 9), (before, 6)] {
            let (plan, _) = planned_without(&dump, &wanted, Some(left_out));
            let account = &plan.accounts[0];
            assert_eq!((account.objects, account.bytes, account.absent), (1, erased, 15 - erased));
        }
    }
}

#[test]
fn what_is_erased_changes_no_answer_of_the_analyses() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let wanted = Wanted { what: all_but_names(), ..Wanted::default() };
    let (plan, classes) = planned(&dump, &wanted);
    assert!(plan.blanks.bytes() > 100_000, "freed objects and terminals are erased: {:?}", plan.accounts);
    let copy = put(&dump, &plan, &classes, &dir.path().join("copy"));
    assert_eq!(report(&copy), report(&dump));
    let found = search(&copy, &plan.samples, (&Cancel::default(), &Quiet));
    assert_eq!(found.count, 0, "{:?}", found.hits);
}

#[test]
fn a_kernel_that_can_t_be_read_is_never_said_to_be_clean() {
    let machine = fixtures::machine::Machine::default().build();
    let file = fixtures::kdump::Kdump {
        notes: machine.notes.clone(),
        ..fixtures::kdump::Kdump::of(fixtures::codec::Codec::Raw)
    }
    .build(&machine.memory);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    std::fs::write(&path, file.bytes()).unwrap();
    let dump = Dump::open(&path, &OpenOptions::default()).unwrap();
    let wanted = Wanted { what: What::ALL.into_iter().collect(), ..Wanted::default() };
    let (plan, _) = planned(&dump, &wanted);
    assert!(!plan.is_whole());
    for account in &plan.accounts {
        assert!(account.not_scrubbed_count > 0, "{account:?}");
        assert!(!account.not_scrubbed.is_empty());
    }
    assert!(plan.erase_info().contains("erase kdt.keys.partly 0\n"), "{}", plan.erase_info());
    let found = search(&dump, &[Canary::named("what no page has")], (&Cancel::default(), &Quiet));
    assert!(found.borders_lost.iter().any(|why| why.contains("no task is found")), "{found:?}");
}
