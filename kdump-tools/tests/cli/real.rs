//! The small real dump of `fixtures/data`: a kernel that crashed, read as a user reads it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::run;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data").join(name)
}

#[test]
fn the_log_is_what_makedumpfile_wrote_of_it() {
    // makedumpfile 1.7.8 wrote it, which shows the callers.
    let dump = data("panic-6.1.kdump");
    let ran = run(["log".as_ref(), "--caller".as_ref(), dump.as_os_str()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let expected = fs::read_to_string(data("panic-6.1.dmesg")).unwrap();
    assert_eq!(ran.stdout, expected);
    let without = run(["log".as_ref(), dump.as_os_str()]).stdout;
    assert_eq!(without.lines().count(), expected.lines().count());
    let (with, without) = (expected.lines().next().unwrap(), without.lines().next().unwrap());
    assert_eq!(with.replace("[      T0] ", ""), without);
}

#[test]
fn the_document_is_the_one_that_was_looked_at() {
    let dump = data("panic-6.1.kdump");
    let ran = run(["triage".as_ref(), dump.as_os_str(), "--format=json".as_ref()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let mut document = ran.json();
    let lines = fs::read_to_string(data("panic-6.1.dmesg")).unwrap();
    let records = lines.lines().filter(|line| line.starts_with('[')).count();
    assert_eq!(document["log"]["lines"].as_array().unwrap().len(), records);
    // What differs from machine to machine and from release to release; the log's lines have their own test.
    document["dump"]["path"] = json!("panic-6.1.kdump");
    document["tool"]["version"] = json!("0");
    document["log"]["lines"] = json!([]);
    assert!(!document["timings"]["steps"].as_array().unwrap().is_empty());
    document["timings"] = json!({});
    // One of each sort of task is enough to be looked at: a process, a kernel thread, one that ran in user space.
    let tasks = document["tasks"].as_array_mut().unwrap();
    assert_eq!(tasks.len(), 58);
    tasks.retain(|task| [1, 2, 115, 116].contains(&task["pid"].as_i64().unwrap()));
    // So are a few of each of the long lists.
    for (name, least) in [("slab", 100), ("irqs", 20), ("workqueues", 40), ("worker_pools", 6)] {
        let list = document[name].as_array_mut().unwrap();
        assert!(list.len() >= least, "{name}: {}", list.len());
        list.truncate(3);
    }
    for cpu in document["timers"].as_array_mut().unwrap() {
        for kind in ["wheel", "hrtimers"] {
            if let Some(list) = cpu[kind].as_array_mut() {
                list.truncate(2);
            }
        }
    }
    let snapshot = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/panic-6.1.triage.json");
    let expected: Value = serde_json::from_str(&fs::read_to_string(&snapshot).unwrap()).unwrap();
    if document != expected {
        let found = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("panic-6.1.triage.json");
        fs::write(&found, format!("{document:#}\n")).unwrap();
        panic!("it is another one: look at diff {} {}", snapshot.display(), found.display());
    }
}

#[test]
fn what_goes_out_while_the_analyses_run_is_what_a_file_gets_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, same) = (data("panic-6.1.kdump"), folder.path().join("same.kdump"));
    fs::copy(&dump, &same).unwrap();
    for (number, dumps) in [vec![&dump], vec![&dump, &same]].into_iter().enumerate() {
        let file = folder.path().join(number.to_string());
        let words = || ["triage".as_ref()].into_iter().chain(dumps.iter().map(|dump| dump.as_os_str()));
        let told = run(words());
        let kept = run(words().chain(["-o".as_ref(), file.as_os_str()]));
        assert_eq!((told.code, kept.code, kept.stdout.as_str()), (0, 0, ""));
        assert!(told.stdout.starts_with("PANIC"), "{}", told.stdout);
        assert_eq!(told.stdout, fs::read_to_string(file).unwrap());
    }
}
