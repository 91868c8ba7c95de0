use std::fs;
use std::path::Path;

use vmcore::progress::Cancel;
use vmcore::report::{Frame, FrameTrust, Panic, PanicKind, Report};

use super::*;

fn report(host: &str, time: f64, names: &[&str]) -> Report {
    let mut report = Report::empty("kdt", "0", &format!("{host}-{time}"));
    report.kernel.nodename = Some(host.into());
    report.kernel.release = Some("6.1.0-1".into());
    report.kernel.crash_time = Some(time);
    report.symbols.unwinder = Some("orc".into());
    let frame = |name: &&str| Frame {
        pc: None,
        symbol: Some((*name).into()),
        offset: None,
        module: None,
        trust: FrameTrust::Orc,
        sure: true,
        sp: None,
        file: None,
        line: None,
        inlined: false,
        stack: None,
        interrupted: false,
    };
    let backtrace = names.iter().map(frame).collect();
    report.panic = Some(Panic { backtrace, ..Panic::new(PanicKind::Bug, "x") });
    report.signature = vmcore::analysis::signature::of(&report);
    report
}

fn seen(host: &str, time: f64, names: &[&str]) -> Seen {
    Seen::of(Path::new(&format!("/{host}/{time}")), &report(host, time, names))
}

#[test]
fn the_same_the_nearly_same_and_others_are_told_apart() {
    let stack = ["a", "b", "c", "d"];
    let others = [
        seen("db1", 100.0, &stack),
        seen("db2", 300.0, &stack),
        seen("db3", 200.0, &["a", "b", "c", "e"]),
        seen("db4", 200.0, &["x", "y"]),
    ];
    let found = compare(&seen("db1", 400.0, &stack), &others);
    let groups: Vec<_> = found.groups.iter().map(|group| (group.kind, group.history.count)).collect();
    assert_eq!(groups, [(Match::Exact, 2), (Match::Near, 1)]);
    let history = found.history.unwrap();
    assert_eq!((history.count, history.first_seen, history.last_seen), (3, Some(100.0), Some(400.0)));
    assert_eq!((history.hosts["db1"], history.only_host()), (2, None));
}

#[test]
fn one_host_each_time_is_told() {
    let found =
        compare(&seen("db1", 400.0, &["a"]), &[seen("db1", 100.0, &["a"]), seen("db1", 200.0, &["a"])]);
    assert_eq!(found.history.unwrap().only_host(), Some("db1"));
}

#[test]
fn a_crash_counts_once_however_many_reports_there_are_of_it() {
    let twice = [seen("db1", 100.0, &["a"]), Seen { path: "/copy".into(), ..seen("db1", 100.0, &["a"]) }];
    let found = compare(&seen("db1", 400.0, &["a"]), &twice);
    assert_eq!((found.groups[0].history.count, found.groups[0].crashes[0].reports.len()), (1, 2));
    // And the one that was asked about is not seen before because its own report is there.
    let found = compare(&seen("db1", 100.0, &["a"]), &twice);
    assert_eq!((found.itself, found.groups.len()), (2, 0));
}

#[test]
fn without_a_stack_the_same_kind_is_no_match() {
    let found = compare(&seen("db1", 1.0, &[]), &[seen("db2", 2.0, &[])]);
    assert_eq!(found.groups[0].kind, Match::KindOnly);
    assert_eq!(found.history, None);
}

#[test]
fn reports_are_found_wherever_they_are_and_bad_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    let one = report("db1", 1.0, &["a"]);
    let text = serde_json::to_string_pretty(&one).unwrap();
    fs::write(deep.join("x.json"), &text).unwrap();
    fs::write(deep.join("many.json"), serde_json::to_string(&[&one, &one]).unwrap()).unwrap();
    // From before there were signatures.
    let mut old = serde_json::to_value(&one).unwrap();
    old.as_object_mut().unwrap().remove("signature");
    fs::write(deep.join("old.json"), old.to_string()).unwrap();
    fs::write(deep.join("other.json"), r#"{"schema":"kdt/info/1"}"#).unwrap();
    fs::write(deep.join("no.txt"), &text).unwrap();
    fs::write(deep.join("cut.json"), &text[..text.len() / 2]).unwrap();
    fs::write(deep.join("later.json"), text.replace("kdt/triage/1", "kdt/triage/9")).unwrap();
    fs::write(deep.join("report.json"), "").unwrap();
    std::os::unix::fs::symlink(dir.path(), deep.join("loop")).unwrap();
    let (found, searched) = search(&[dir.path().to_owned()], &Cancel::default()).unwrap();
    assert_eq!((found.len(), searched.reports, searched.files), (4, 4, 7));
    assert!(found.iter().all(|seen| seen.signature == one.signature));
    let bad: Vec<_> = searched
        .unreadable
        .iter()
        .map(|bad| (Path::new(&bad.path).file_name().unwrap().to_str().unwrap(), bad.why.as_str()))
        .collect();
    assert_eq!(bad.iter().map(|bad| bad.0).collect::<Vec<_>>(), ["cut.json", "later.json", "report.json"]);
    assert!(bad[0].1.contains("no whole report") && bad[1].1.contains("kdt/triage/9"), "{bad:?}");
}
