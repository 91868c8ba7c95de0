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
use vmcore::addr::Pfn;
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options as TriageOptions, triage};
use vmcore::filter::{Classes, Level, frames};
use vmcore::format::Codec;
use vmcore::kernel::{Kernel, Options as KernelOptions};
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
    let subject = Subject::new(dump);
    let kernel = Kernel::open(subject.memory, &subject.hints, KernelOptions::default().without_scan());
    let (limits, watch) = (Limits::default(), (&Cancel::default(), &Quiet as _));
    let mut classes = frames(dump, &limits, watch.0).unwrap();
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
}
