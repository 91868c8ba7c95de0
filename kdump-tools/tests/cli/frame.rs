//! The frame of the command line: wrong use, help, closed pipes, `kdt drill`, `kdt gen-docs`.

use std::fs;
use std::process::Stdio;

use crate::support::{copy_of_kdt, kdt, ran, run, scratch};

#[test]
fn no_command_shows_the_help_on_stderr_and_is_wrong_use() {
    let ran = run::<[&str; 0], _>([]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("Usage: kdt"));
}

#[test]
fn help_goes_to_stdout_and_lists_only_commands_that_answer_to_it() {
    let ran = run(["--help"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let commands = ran.stdout.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.contains(&"drill") && names.contains(&"gen-docs"), "{names:?}");
    for name in names.into_iter().filter(|name| !name.is_empty() && *name != "help" && *name != "drill") {
        let ran = run([name, "--help"]);
        assert_eq!(ran.code, 0, "kdt {name} --help: {ran:?}");
        assert!(ran.stdout.contains(&format!("Usage: kdt {name}")), "{ran:?}");
    }
}

#[test]
fn wrong_words_are_told_in_one_sentence() {
    run(["--bogus"]).fails(2, "unexpected argument '--bogus'");
    run(["trige"]).fails(2, "unrecognized subcommand 'trige'");
    run(["gen-docs", "man"]).fails(2, "-o <DIR>");
    run(["gen-docs", "pdf", "-o", "x"]).fails(2, "invalid value 'pdf'");
    run(["--color", "blue", "gen-docs", "man", "-o", "x"]).fails(2, "invalid value 'blue'");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = kdt().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_drill_that_is_not_installed_is_told() {
    let ran = ran(&kdt().args(["drill", "list"]).env("PATH", "/nonexistent").output().unwrap());
    if !std::path::Path::new(env!("CARGO_BIN_EXE_kdt")).with_file_name("kdt-drill").exists() {
        ran.fails(3, "kdt-drill is neither beside kdt nor in PATH");
    }
}

#[test]
fn a_drill_gets_all_words_and_gives_its_exit_code() {
    let dir = scratch();
    // A copy of kdt, so that the program beside it is the test's own: a shell, which shows the words it gets.
    let copy = copy_of_kdt(&dir.path().join("kdt"));
    std::os::unix::fs::symlink("/bin/sh", dir.path().join("kdt-drill")).unwrap();
    let script = "printf '[%s]' \"$0\" \"$@\"; exit 42";
    let words = ["drill", "-c", script, "run", "x y", "--help", "-v"];
    let ran = ran(&std::process::Command::new(&copy).args(words).output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (42, "[run][x y][--help][-v]"));
}

#[test]
fn documents_are_planned_and_then_written() {
    let dir = scratch();
    let out = dir.path().join("man");
    let plan =
        run(["gen-docs".as_ref(), "man".as_ref(), "--dry-run".as_ref(), "-o".as_ref(), out.as_os_str()]);
    assert_eq!(plan.code, 0);
    assert!(!out.exists(), "a plan writes nothing");
    let ran = run(["gen-docs".as_ref(), "man".as_ref(), "-o".as_ref(), out.as_os_str()]);
    assert_eq!((ran.code, &ran.stdout), (0, &plan.stdout));
    for name in ran.stdout.lines() {
        assert!(fs::read_to_string(name).unwrap().starts_with(".ie"), "{name} is no manual page");
    }
}

#[test]
fn colours_come_only_when_they_are_asked_for() {
    let plain = run(["drill"]).stderr;
    assert!(!plain.contains('\x1b'), "{plain}");
}

#[test]
fn a_collection_is_planned_without_touching_anything_and_then_made() {
    let (host, out) = (scratch(), scratch());
    fs::create_dir(host.path().join("etc")).unwrap();
    fs::write(host.path().join("etc/kdump.conf"), "path /var/crash\n").unwrap();
    let words = |extra: &[&str]| {
        let mut words = vec!["collect".into(), "--root".into(), host.path().as_os_str().to_owned()];
        words.extend(["-o".into(), out.path().as_os_str().to_owned()]);
        words.extend(extra.iter().map(Into::into));
        words
    };
    let plan = run(words(&["--dry-run"]));
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.stdout.contains("kdump.conf"), "{}", plan.stdout);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "a plan writes nothing");
    let made = run(words(&["--case", "0815"]));
    assert!(matches!(made.code, 0 | 4), "{made:?}");
    let bundle = std::path::Path::new(made.stdout.trim_end());
    assert!(bundle.starts_with(out.path()) && bundle.is_file(), "{made:?}");
    run(["collect", "--max-size", "much"]).fails(2, "is not a size");
    run(["collect", "-o", "/nonexistent/place"]).fails(2, "can't take the bundle");
}
