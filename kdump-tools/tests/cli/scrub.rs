//! `--scrub`: what is erased, what is proven, and what gets no name.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Ran, run, schema, scratch};

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

/// Runs `kdt COMMAND SOURCE TARGET WORDS…`.
fn kdt(command: &str, source: &Path, target: &Path, words: &[&str]) -> Ran {
    let words = words.iter().map(OsStr::new);
    run([OsStr::new(command), source.as_os_str(), target.as_os_str()].into_iter().chain(words))
}

fn account(target: &Path) -> Value {
    let account =
        serde_json::from_slice(&fs::read(format!("{}.scrub.json", target.display())).unwrap()).unwrap();
    schema::fits("scrub-1", &account);
    account
}

/// How often each canary is in a dump.
fn hits(dump: &Path, canaries: &[String]) -> Vec<usize> {
    let words = canaries.iter().flat_map(|canary| ["--canary", canary]);
    let words = ["check", "--format=json"].into_iter().chain(words).map(OsStr::new);
    let found = run(words.chain([dump.as_os_str()])).json();
    let found = found["canaries"]["hits"].as_array().unwrap();
    let of = |number: usize| found.iter().filter(|hit| hit["canary"].as_u64() == Some(number as u64)).count();
    (0..canaries.len()).map(of).collect()
}

/// In the log, the command line and elsewhere, but not in the kernel's text.
const MARK: &str = "lab.mark=";

#[test]
fn a_text_is_erased_wherever_it_is_in_each_form_of_a_dump() {
    let dir = scratch();
    assert_eq!(run(["check".as_ref(), "--canary".as_ref(), MARK.as_ref(), committed().as_os_str()]).code, 5);
    for (command, words) in
        [("filter", &["-z"][..]), ("filter", &["-E"]), ("filter", &["-l", "-d", "31"]), ("distill", &[])]
    {
        let target = dir.path().join("clean");
        let words = [words, &["-f", "--scrub-text", MARK, "--canary", MARK]].concat();
        let ran = kdt(command, &committed(), &target, &words);
        assert_eq!(ran.code, 0, "{command} {words:?}: {}", ran.stderr);
        assert_eq!(hits(&target, &[MARK.into()]), [0], "{command} {words:?}");
        let account = account(&target);
        assert_eq!(account["whole"], true);
        assert!(account["what"][0]["bytes"].as_u64().unwrap() >= MARK.len() as u64);
        // It tells as much as before of what it died of.
        let whole = run(["triage".as_ref(), "--format=json".as_ref(), committed().as_os_str()]).json();
        let clean = run(["triage".as_ref(), "--format=json".as_ref(), target.as_os_str()]).json();
        assert_eq!(clean["panic"], whole["panic"], "{command} {words:?}");
    }
}

#[test]
fn each_file_of_a_set_is_proven_by_what_it_has() {
    let dir = scratch();
    let target = dir.path().join("clean");
    let words = ["-z", "--split", "2", "--scrub-text", MARK, "--canary", MARK];
    let ran = kdt("filter", &committed(), &target, &words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let account = account(&target);
    let proofs: Vec<&Value> =
        account["outputs"].as_array().unwrap().iter().map(|output| &output["proof"]).collect();
    let pages = |of: &Value| of["pages"].as_u64().unwrap();
    let all = run(["check".as_ref(), "--format=json".as_ref(), committed().as_os_str()]).json();
    assert_eq!(
        proofs.iter().map(|proof| pages(proof)).sum::<u64>(),
        all["pages"]["decoded"].as_u64().unwrap()
    );
    assert!(proofs.iter().all(|proof| proof["unreadable"] == 0 && pages(proof) > 0), "{proofs:?}");
}

#[test]
fn a_dump_that_has_a_canary_gets_no_name() {
    let dir = scratch();
    let target = dir.path().join("clean");
    let ran = kdt("filter", &committed(), &target, &["-z", "--scrub", "keys", "--canary", MARK]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(ran.stderr.contains("pfn"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn words_that_name_nothing_to_scrub_are_wrong_use() {
    let dir = scratch();
    let target = dir.path().join("clean");
    for words in [["--scrub", "everything"], ["--scrub-regex", "("], ["--scrub-text", ""]] {
        assert_eq!(kdt("filter", &committed(), &target, &words).code, 2, "{words:?}");
        assert!(!target.exists());
    }
}

/// `KDT_LAB_SECRETS` names a folder with the lab's dump of that name and its console; `drills/lab/test.sh` makes it.
#[test]
fn each_word_erases_what_lies_in_its_place_and_nothing_else() {
    let Some(lab) = std::env::var_os("KDT_LAB_SECRETS").map(PathBuf::from) else {
        println!("SKIP secrets: KDT_LAB_SECRETS names no folder with the lab's dump of them");
        return;
    };
    let names = fs::read_dir(&lab).unwrap().map(|entry| entry.unwrap().path());
    let source = names.into_iter().find(|path| path.extension() == Some("kdump".as_ref())).unwrap();
    let console = String::from_utf8_lossy(&fs::read(source.with_extension("console")).unwrap()).into_owned();
    let mark = console.split_once(MARK).unwrap().1.split_whitespace().next().unwrap().to_owned();
    let places = [
        ("pipe", "pipes"),
        ("unix", "net"),
        ("gone", "net"),
        ("udp", "net"),
        ("tcp", "net"),
        ("key", "keys"),
        ("logon", "keys"),
        ("tty", "tty"),
        ("arg", "args"),
        ("env", "args"),
        ("heap", "user"),
        ("file", "user"),
        ("name", "names"),
    ];
    let canaries = places.map(|(place, _)| format!("hush-{place}-{mark}"));
    for (place, count) in places.iter().zip(hits(&source, &canaries)) {
        assert!(count > 0, "{place:?} is not in the dump: the lab did not hide it");
    }
    let dir = scratch();
    let target = dir.path().join("clean");
    for word in ["pipes", "net", "keys", "tty", "args", "user", "names", "all"] {
        let ran = kdt("filter", &source, &target, &["-f", "-l", "-d", "1", "--scrub", word]);
        assert_eq!(ran.code, 0, "{word}: {}", ran.stderr);
        assert_eq!(account(&target)["whole"], true, "{word}");
        for ((place, of), count) in places.iter().zip(hits(&target, &canaries)) {
            // With the memory of processes go their arguments; freed objects of the slab caches are anybody's.
            let erased =
                *of == word || (word == "all" && *of != "names") || (word == "user" && *of == "args");
            let may = *place == "gone" && ["keys", "tty"].contains(&word);
            assert!(may || erased == (count == 0), "{word}: {place} is there {count} times");
        }
    }
}
