//! Drills as a user runs them: the built `kdt-drill`, the built `kdt`, and once a `kdt` that lies.

#![cfg(test)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `kdt-drill` with reports of its own.
fn drill(reports: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdt-drill"));
    command.env("XDG_STATE_HOME", reports);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A scenario with these steps, and a program that is called as `kdt`.
fn scenario(dir: &Path, steps: &str, kdt: &str) -> (PathBuf, PathBuf) {
    let file = dir.join("own.toml");
    let head = "id = \"own\"\nversion = 1\ntitle = \"a drill of the test\"\nstory = \"\"\nseed = 1\nmax_minutes = 1\n";
    fs::write(&file, format!("{head}{steps}")).unwrap();
    let program = dir.join("fake-kdt");
    fs::write(&program, format!("#!/bin/sh\n{kdt}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (file, program)
}

fn run_own(steps: &str, kdt: &str) -> (Option<i32>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let (file, program) = scenario(dir.path(), steps, kdt);
    let output =
        drill(dir.path()).args(["run", "--format", "json", "--kdt"]).arg(program).arg(file).output().unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output))),
    )
}

const VERIFY: &str = "[[step]]\nname = \"it verifies\"\nrole = \"support\"\npoints = 100\n\
                      run = { kdt = [\"verify\", \"{work}\"] }\nexpect = { exit = [0], says = [\"right\"] }\n\
                      [[step]]\nname = \"afterwards\"\nrole = \"support\"\nrun = { kdt = [\"log\", \"x\"] }\n";

/// The real thing, a guest included. Needs what the lab needs.
#[test]
fn panic_kdump_passes_with_all_points() {
    let kdt = Path::new(env!("CARGO_BIN_EXE_kdt-drill")).with_file_name("kdt");
    let required = std::env::var_os("KDT_REQUIRE_LAB").is_some();
    if !kdt.is_file() {
        assert!(!required, "{} is not built: cargo test --workspace builds it", kdt.display());
        println!("SKIP drill panic-kdump: {} is not built", kdt.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = drill(dir.path()).args(["run", "panic-kdump", "--kdt"]).arg(&kdt).output().unwrap();
    let said = text(&output);
    if output.status.code() == Some(3) && !required {
        println!("SKIP drill panic-kdump: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("drill panic-kdump passed: 100 of 100 points"), "{said}");
    let again = drill(dir.path()).args(["report", "panic-kdump"]).output().unwrap();
    assert_eq!(again.stdout, output.stdout);
}

#[test]
fn a_wrong_exit_code_fails_the_drill_and_ends_it() {
    let (code, verdict) = run_own(VERIFY, "echo all is right; exit 5");
    assert_eq!(code, Some(5));
    assert_eq!(verdict["status"], "failed");
    assert_eq!(verdict["score"], 0);
    assert!(
        verdict["steps"][0]["saw"].as_str().unwrap().starts_with("exit code 5, expected [0]"),
        "{verdict}"
    );
    assert_eq!(verdict["steps"][1]["outcome"], "not-reached");
}

#[test]
fn the_right_exit_code_without_the_words_fails_too() {
    let (code, verdict) = run_own(VERIFY, "echo nothing to see");
    assert_eq!(code, Some(5));
    assert!(verdict["steps"][0]["saw"].as_str().unwrap().contains("it does not say «right»"), "{verdict}");
}

#[test]
fn what_must_be_seen_is_seen() {
    let (code, verdict) = run_own(VERIFY, "echo all is right");
    assert_eq!((code, &verdict["status"], &verdict["score"]), (Some(0), &"passed".into(), &100.into()));
}

#[test]
fn a_program_that_ends_by_a_signal_is_no_success() {
    let (_, verdict) = run_own(VERIFY, "echo right; kill -9 $$");
    assert!(verdict["steps"][0]["saw"].as_str().unwrap().contains("ended by signal 9"), "{verdict}");
}

#[test]
fn a_program_that_never_ends_is_ended_with_the_drill() {
    let dir = tempfile::tempdir().unwrap();
    let (file, program) = scenario(dir.path(), VERIFY, "exec sleep 600");
    let shorter = fs::read_to_string(&file).unwrap().replace("max_minutes = 1", "max_minutes = 0");
    fs::write(&file, shorter).unwrap();
    let output = drill(dir.path()).args(["run", "--kdt"]).arg(program).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("the drill's time is up"), "{}", text(&output));
}

#[test]
fn a_plan_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran");
    let (file, program) = scenario(dir.path(), VERIFY, &format!("touch {}", marker.display()));
    let output =
        drill(dir.path()).args(["run", "--dry-run", "--kdt"]).arg(program).arg(file).output().unwrap();
    assert!(text(&output).contains("kdt verify {work}"), "{}", text(&output));
    assert!(!marker.exists() && !dir.path().join("kdt").exists());
}

#[test]
fn a_drill_that_is_not_there_and_a_file_that_is_none_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let output = drill(dir.path()).args(["show", "no-such-drill"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("hint: kdt drill list names them"));
    let file = dir.path().join("x.toml");
    fs::write(&file, "id = 1").unwrap();
    let output = drill(dir.path()).arg("show").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("is not a scenario"), "{}", text(&output));
}
