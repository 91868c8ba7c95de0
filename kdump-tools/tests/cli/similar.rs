//! `kdt similar` as a user meets it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vmcore::report::Report;

use crate::support::{run, schema};

/// A report of a crash on `host`.
fn report(path: &Path, host: &str, time: f64, names: &[&str]) {
    let mut report = Report::empty("kdt", "0", "vmcore");
    report.kernel.nodename = Some(host.into());
    report.kernel.release = Some("6.1.0-9-amd64".into());
    report.kernel.crash_time = Some(time);
    let frame = |name: &&str| {
        json!({"pc": null, "symbol": name, "offset": 1, "module": null, "trust": "orc", "sure": true, "sp": null,
            "file": null, "line": null, "inlined": false, "stack": null, "interrupted": false})
    };
    let backtrace: Vec<Value> = names.iter().map(frame).collect();
    let panic = json!({"kind": "bug", "message": "x", "cpu": null, "task": null, "backtrace": backtrace});
    report.panic = Some(serde_json::from_value(panic).unwrap());
    report.signature = vmcore::analysis::signature::of(&report);
    fs::write(path, serde_json::to_string(&report).unwrap()).unwrap();
}

#[test]
fn a_crash_that_was_seen_before_is_told_with_hosts_and_times_and_fits_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let (own, folder) = (dir.path().join("own.json"), dir.path().join("reports"));
    fs::create_dir(&folder).unwrap();
    report(&own, "db1", 1_700_000_000.0, &["a", "b", "c", "d"]);
    report(&folder.join("1.json"), "db1", 1_600_000_000.0, &["a.isra.0", "b", "c", "d"]);
    report(&folder.join("2.json"), "db2", 1_650_000_000.0, &["a", "b", "c", "e"]);
    let ran = run(["similar".as_ref(), own.as_os_str(), folder.as_os_str()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "Seen before, once; and something like it, once.",
        "first seen  2020-09-13 12:26:40 UTC",
        "It is db1 each time: look at what only it runs",
        "The same crash (1)",
        "Nearly the same (1), alike by 0.68",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {}", ran.stdout);
    }
    let ran = run(["similar".as_ref(), own.as_os_str(), folder.as_os_str(), "--format=json".as_ref()]);
    let document: Value = ran.json();
    schema::fits("similar-1", &document);
    assert_eq!(document["subjects"][0]["history"]["hosts"], json!({"db1": 2}));
}

#[test]
fn never_seen_is_an_answer_and_a_cut_report_makes_it_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let (own, folder) = (dir.path().join("own.json"), dir.path().join("reports"));
    fs::create_dir(&folder).unwrap();
    report(&own, "db1", 1.0, &["a"]);
    let ran = run(["-q".as_ref(), "similar".as_ref(), own.as_os_str(), folder.as_os_str()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("Not seen before.\n"), "{}", ran.stdout);
    let text = fs::read(&own).unwrap();
    fs::write(folder.join("cut.json"), &text[..text.len() / 2]).unwrap();
    let ran = run(["similar".as_ref(), own.as_os_str(), folder.as_os_str()]);
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("cut.json is no whole report"), "{}", ran.stderr);
}
