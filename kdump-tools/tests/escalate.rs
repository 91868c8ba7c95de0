//! Escalation: what is found, done, kept and told, with a crew that needs no kernel.
#![expect(clippy::unwrap_used, reason = "tests may, in their helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use kdump_tools::escalate::{Analysis, Bundle, Crew, Escalated, Journal, Missing, Plan, Request, plan, run};
use kdump_tools::exit::{Exit, Failure};
use kdump_tools::pack::{CaseId, Depth, UnpackRequest, plan_unpack, unpack, verify};
use kdump_tools::transfer::Destination;
use tempfile::TempDir;
use vmcore::progress::{Cancel, Quiet};

/// A crew that counts what it is asked, and fails where it is told to.
#[derive(Default)]
struct Actors {
    analysed: AtomicUsize,
    collected: AtomicUsize,
    /// Whether the analysis was given the bundle, whole.
    saw_bundle: AtomicUsize,
    collect_fails: bool,
    /// Cancelled once the analysis is done, as a Ctrl-C then would.
    cancel_after_analysis: Option<Cancel>,
}

impl Crew for Actors {
    fn dumps(&self, paths: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, Failure> {
        Ok(paths.iter().map(|path| vec![path.clone()]).collect())
    }

    fn analyse(
        &self,
        dumps: &[Vec<PathBuf>],
        bundle: &dyn Fn() -> Option<PathBuf>,
    ) -> Result<Analysis, Failure> {
        self.analysed.fetch_add(1, Ordering::Relaxed);
        if bundle().is_some_and(|path| fs::read(path).unwrap() == b"bundle") {
            self.saw_bundle.fetch_add(1, Ordering::Relaxed);
        }
        let missing = dumps.iter().flatten().filter(|path| fs::read(path).unwrap().starts_with(b"garbage"));
        Ok(Analysis {
            json: "{\"schema\":\"kdt/triage/1\"}\n".into(),
            html: "<!DOCTYPE html><p>sysrq triggered crash".into(),
            text: "Kernel panic - not syncing: sysrq triggered crash\n".into(),
            headlines: dumps.iter().map(|_| "sysrq: sysrq triggered crash".into()).collect(),
            missing: missing
                .map(|path| Missing::new("the analysis of a dump", &format!("{} is no dump", path.display())))
                .collect(),
        })
    }

    fn collecting(&self, _: &Path) -> Result<String, Failure> {
        Ok("3 items".into())
    }

    fn collect(&self, into: &Path) -> Result<Bundle, Failure> {
        self.collected.fetch_add(1, Ordering::Relaxed);
        if let Some(cancel) = &self.cancel_after_analysis {
            cancel.cancel();
        }
        if self.collect_fails {
            return Err(Failure::new(Exit::Input, "the host does not answer", "try again"));
        }
        let path = into.join("sosreport-web1.tar.gz");
        fs::write(&path, "bundle").unwrap();
        Ok(Bundle { path, summary: "3 items taken".into(), missing: Vec::new() })
    }
}

struct Desk(TempDir);

impl Desk {
    /// A host whose kdump has written a dump.
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let folder = desk.path("host/var/crash/127.0.0.1-2026-11-22-06:07:36");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vmcore"), vec![7; 3 << 20]).unwrap();
        fs::write(folder.join("vmcore-dmesg.txt"), "[    1.0] panic\n").unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn request(&self) -> Request {
        Request {
            case: CaseId::new("123").unwrap(),
            dumps: Vec::new(),
            out: self.path("out"),
            part_size: 1 << 20,
            level: 1,
            jobs: Some(2),
            collect: true,
            send: Some(Destination::Folder(self.path("sent"))),
            root: self.path("host"),
            check_space: true,
        }
    }

    fn run(&self, crew: &Actors) -> Result<Escalated, Failure> {
        run(&plan(&self.request(), crew).unwrap(), crew, &Quiet, &Cancel::default())
    }

    fn journal(&self) -> Vec<String> {
        let entries = Journal::read(&self.path("out/escalate.journal")).unwrap();
        entries.iter().map(|entry| format!("{} {}", entry.step, entry.result)).collect()
    }
}

fn steps(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name).collect()
}

#[test]
fn the_whole_way_from_the_dump_to_the_receiver() {
    let desk = Desk::new();
    let crew = Actors::default();
    let done = desk.run(&crew).unwrap();
    assert_eq!(done.exit(), Exit::Done);
    assert_eq!(done.headlines, ["sysrq: sysrq triggered crash"]);
    assert_eq!(crew.saw_bundle.load(Ordering::Relaxed), 1);
    let names: Vec<&str> = done.manifest.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(
        names,
        ["report.json", "report.html", "report.txt", "sosreport-web1.tar.gz", "vmcore", "vmcore-dmesg.txt"]
    );
    assert_eq!(done.receipt.unwrap().root_digest, done.manifest.root_digest);
    let mut journal = desk.journal();
    journal[1..3].sort();
    assert_eq!(
        journal,
        ["begin done", "collect done", "triage done", "pack done", "verify done", "send done", "end done"]
    );
    // The receiver has all of it.
    let there = desk.path("sent");
    let verdict = verify(&there, Depth::Artifacts, &Quiet, &Cancel::default()).unwrap();
    assert_eq!((verdict.problems.len(), verdict.strangers.len()), (0, 0));
    let request = UnpackRequest { dir: there, out: desk.path("unpacked"), check_space: true };
    unpack(plan_unpack(&request, &Quiet, &Cancel::default()).unwrap(), &Quiet, &Cancel::default()).unwrap();
    assert_eq!(fs::read(desk.path("unpacked/vmcore")).unwrap(), vec![7; 3 << 20]);
    let report = fs::read_to_string(desk.path("unpacked/report.txt")).unwrap();
    assert!(report.contains("sysrq triggered crash") && report.contains("the newest in "), "{report}");
    // Beside the sender's package are the reports and the journal, and they do not disturb.
    let verdict = verify(&desk.path("out"), Depth::Artifacts, &Quiet, &Cancel::default()).unwrap();
    assert_eq!((verdict.problems.len(), verdict.strangers), (0, Vec::<String>::new()));
    assert!(desk.path("out/report.txt").exists() && !desk.path("out/.kdt-escalate").exists());
}

#[test]
fn a_second_run_keeps_all_that_is_right() {
    let desk = Desk::new();
    let crew = Actors::default();
    let first = desk.run(&crew).unwrap();
    let second = desk.run(&crew).unwrap();
    assert_eq!(second.kept, ["collect", "triage", "pack"]);
    assert_eq!((crew.collected.load(Ordering::Relaxed), crew.analysed.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(second.manifest, first.manifest);
    assert_eq!(second.headlines, first.headlines);
    assert_eq!(second.exit(), Exit::Done);
}

#[test]
fn interrupted_before_packing_it_keeps_what_was_gathered() {
    let desk = Desk::new();
    let cancel = Cancel::default();
    let crew = Actors { cancel_after_analysis: Some(cancel.clone()), ..Actors::default() };
    let failure = run(&plan(&desk.request(), &crew).unwrap(), &crew, &Quiet, &cancel).unwrap_err();
    assert_eq!(failure.exit, Exit::Interrupted);
    assert!(!desk.path("out/manifest.json").exists());
    let again = Actors::default();
    desk.run(&again).unwrap();
    assert!(again.collected.load(Ordering::Relaxed) + again.analysed.load(Ordering::Relaxed) < 2);
}

#[test]
fn a_bundle_that_was_damaged_meanwhile_is_collected_again() {
    let desk = Desk::new();
    let cancel = Cancel::default();
    let crew = Actors { cancel_after_analysis: Some(cancel.clone()), ..Actors::default() };
    // The collector may be seen as cancelled before it is done; then there is nothing to damage.
    run(&plan(&desk.request(), &crew).unwrap(), &crew, &Quiet, &cancel).unwrap_err();
    let bundle = desk.path("out/.kdt-escalate/sosreport-web1.tar.gz");
    fs::write(&bundle, "other bytes").unwrap();
    let again = Actors::default();
    let done = desk.run(&again).unwrap();
    assert_eq!(again.collected.load(Ordering::Relaxed), 1);
    assert_eq!(done.exit(), Exit::Done);
}

#[test]
fn what_can_not_be_had_is_told_and_the_rest_is_done() {
    let desk = Desk::new();
    let crew = Actors { collect_fails: true, ..Actors::default() };
    let done = desk.run(&crew).unwrap();
    assert_eq!(done.exit(), Exit::Partial);
    assert_eq!(done.missing, [Missing::new("the host bundle", "the host does not answer")]);
    assert_eq!(done.manifest.artifacts.len(), 5);
    // A later run does not pretend that the package has what it has not.
    let again = desk.run(&Actors::default()).unwrap();
    assert_eq!(again.missing, [Missing::new("the host bundle", "the host does not answer")]);
}

#[test]
fn a_dump_that_can_not_be_opened_travels_all_the_same() {
    let desk = Desk::new();
    let dump = desk.path("broken");
    fs::write(&dump, "garbage").unwrap();
    let crew = Actors::default();
    let request = Request { dumps: vec![dump], collect: false, send: None, ..desk.request() };
    let done = run(&plan(&request, &crew).unwrap(), &crew, &Quiet, &Cancel::default()).unwrap();
    assert_eq!(done.exit(), Exit::Partial);
    assert!(done.missing[0].why.ends_with("broken is no dump"), "{:?}", done.missing);
    assert!(done.manifest.artifacts.iter().any(|artifact| artifact.name == "broken"));
    assert!(
        fs::read_to_string(desk.path("out/report.txt")).unwrap().contains("missing: the analysis of a dump")
    );
}

#[test]
fn a_host_without_a_dump_still_sends_its_facts() {
    let desk = Desk::new();
    fs::remove_dir_all(desk.path("host/var/crash")).unwrap();
    let crew = Actors::default();
    let done = desk.run(&crew).unwrap();
    assert_eq!(done.exit(), Exit::Partial);
    assert_eq!(done.missing, [Missing::new("a dump", "none was found where kdump writes")]);
    let request = Request { collect: false, out: desk.path("other"), ..desk.request() };
    let failure = plan(&request, &crew).unwrap_err();
    assert_eq!(failure.message, "there is nothing to escalate: none was found where kdump writes");
    assert_eq!(failure.exit, Exit::Input);
}

#[test]
fn the_plan_writes_nothing_and_says_what_will_be_done() {
    let desk = Desk::new();
    let made = plan(&desk.request(), &Actors::default()).unwrap();
    assert_eq!(steps(&made), ["collect", "triage", "pack", "verify", "send"]);
    assert!(
        made.steps[2].what.starts_with("2 files of the crash (3 MiB), report and bundle into "),
        "{}",
        made.steps[2].what
    );
    assert!(made.steps[2].time.is_some());
    assert!(!desk.path("out").exists() && !desk.path("sent").exists());
    let request = Request { dumps: vec![desk.path("nowhere")], ..desk.request() };
    let failure = plan(&request, &Actors::default()).unwrap_err();
    assert!(failure.message.ends_with("nowhere: No such file or directory"), "{failure}");
}

#[test]
fn another_escalation_is_not_written_over() {
    let desk = Desk::new();
    let crew = Actors::default();
    desk.run(&crew).unwrap();
    let dump = desk.path("other");
    fs::write(&dump, "another dump").unwrap();
    let request = Request { dumps: vec![dump], ..desk.request() };
    let failure = run(&plan(&request, &crew).unwrap(), &crew, &Quiet, &Cancel::default()).unwrap_err();
    assert!(failure.message.ends_with("holds the package of another escalation"), "{failure}");
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn a_package_that_can_not_be_sent_stays_and_says_why() {
    let desk = Desk::new();
    fs::write(desk.path("sent"), "a file").unwrap();
    let crew = Actors::default();
    let done = desk.run(&crew).unwrap();
    let failure = done.not_sent.clone().unwrap();
    assert!(failure.message.contains("sent"), "{failure}");
    assert_ne!(done.exit(), Exit::Done);
    assert!(desk.path("out/manifest.json").exists());
    fs::remove_file(desk.path("sent")).unwrap();
    assert_eq!(desk.run(&crew).unwrap().exit(), Exit::Done);
}
