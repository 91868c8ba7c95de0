//! `kdt filter`: where the space does not do, from a pipe, and the plan.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Ran, docs, kdt, ran, run, schema, scratch};

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

/// Runs `kdt filter` where no file gets larger than `kib`.
fn limited(kib: u32, words: &[&Path]) -> Ran {
    // The shell counts in 512 bytes.
    let script = format!("ulimit -f {}; exec \"$0\" filter \"$@\"", kib * 2);
    let kdt = kdt();
    ran(&Command::new("sh").arg("-c").arg(script).arg(kdt.get_program()).args(words).output().unwrap())
}

#[test]
fn a_full_disk_leaves_an_incomplete_dump_that_tells_what_happened() {
    // Of an ELF, whose pages take more room, too.
    filled("-z", 7000);
    filled("-E", 24_000);
}

fn filled(form: &str, kib: u32) {
    let dir = scratch();
    let target = dir.path().join("vmcore");
    let left = dir.path().join("vmcore-incomplete");
    let filled = limited(kib, &[form.as_ref(), &committed(), &target]);
    filled.fails(8, "vmcore-incomplete has ");
    assert!(!target.exists() && left.exists());
    assert!(filled.stderr.contains("those first that"), "{filled:?}");
    let side = fs::read_to_string(dir.path().join("vmcore-incomplete.sha256")).unwrap();
    assert!(side.ends_with("  vmcore-incomplete\n"), "{side}");
    // The log is whole, and so is the answer to what the kernel died of.
    let whole = run(["log".as_ref(), committed().as_os_str()]);
    let log = run(["log".as_ref(), left.as_os_str()]);
    assert_eq!(log.stdout, whole.stdout);
    let words = |path: &Path| run(["triage".as_ref(), path.as_os_str(), "--format=json".as_ref()]);
    let (whole, part) = (words(&committed()).json(), words(&left));
    assert_eq!(part.code, 4, "{}", part.stderr);
    let part = part.json();
    for name in ["panic", "culprit"] {
        assert_eq!(part[name], whole[name], "{name}");
    }
    assert_eq!(part["tasks"].as_array().unwrap().len(), whole["tasks"].as_array().unwrap().len());
    // What is there of an earlier crash is not written over.
    limited(kib, &[form.as_ref(), &committed(), &target]).fails(8, "vmcore-incomplete.2 has ");
}

#[test]
fn a_try_at_a_lower_level_leaves_nothing_of_itself() {
    let dir = scratch();
    let target = dir.path().join("vmcore");
    let ran = limited(7000, &["-z".as_ref(), "-d".as_ref(), "1,31".as_ref(), &committed(), &target]);
    assert_eq!(ran.code, 8);
    assert!(ran.stderr.contains("it is tried again at level 31"), "{ran:?}");
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["vmcore-incomplete", "vmcore-incomplete.sha256"]);
}

#[test]
fn a_dump_from_a_pipe_is_that_from_the_file() {
    let dir = scratch();
    let (from_pipe, from_file, flat) =
        (dir.path().join("pipe"), dir.path().join("file"), dir.path().join("flat"));
    let piped = |source: &Path, target: &Path| {
        let stdin = File::open(source).unwrap();
        ran(&kdt().args(["filter", "-z", "-"]).arg(target).stdin(stdin).output().unwrap())
    };
    let ended = piped(&committed(), &from_pipe);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("stdin is kept in a temporary file in "), "{ended:?}");
    assert_eq!(
        run(["filter".as_ref(), "-z".as_ref(), committed().as_os_str(), from_file.as_os_str()]).code,
        0
    );
    assert_eq!(fs::read(&from_pipe).unwrap(), fs::read(&from_file).unwrap());
    // A stream that was cut gives what is there.
    let stream = kdt().args(["filter", "-F", "-z"]).arg(committed()).output().unwrap().stdout;
    fs::write(&flat, &stream[..stream.len() / 2]).unwrap();
    let cut = dir.path().join("cut");
    assert_eq!(piped(&flat, &cut).code, 4);
    assert_eq!(run(["info".as_ref(), cut.as_os_str()]).code, 4);
    // A note of where stdin is kept comes before the error.
    let empty = piped(Path::new("/dev/null"), &dir.path().join("x"));
    assert_eq!(empty.code, 3, "{empty:?}");
    assert!(empty.stderr.contains("\nerror: stdin is empty\nhint: "), "{empty:?}");
    let left = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".kdt-"));
    assert_eq!(left.count(), 0);
}

#[test]
fn the_plan_comes_near_to_what_is_written() {
    let ran = run(["filter".as_ref(), "--plan".as_ref(), "--format=json".as_ref(), committed().as_os_str()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let document = ran.json();
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(docs("json-schemas/plan-1.json")).unwrap()).unwrap();
    assert_eq!(schema::violations(&schema, &document), Vec::<String>::new());
    assert_eq!(schema::undocumented(&schema, &document), Vec::<String>::new());
    let levels = document["levels"].as_array().unwrap();
    let level = levels.iter().find(|level| level["level"] == 31).unwrap();
    let zstd = level["codecs"].as_array().unwrap().iter().find(|codec| codec["codec"] == "zstd").unwrap();
    let dir = scratch();
    let target = dir.path().join("vmcore");
    assert_eq!(run(["filter".as_ref(), "-z".as_ref(), committed().as_os_str(), target.as_os_str()]).code, 0);
    let (real, told) = (fs::metadata(&target).unwrap().len(), zstd["bytes"].as_u64().unwrap());
    assert!(told.abs_diff(real) * 4 < real, "{told} for {real}");
    let human = run(["filter".as_ref(), "--plan".as_ref(), committed().as_os_str()]).stdout;
    assert!(human.contains("level 31: ") && human.contains("zstd     about "), "{human}");
}
