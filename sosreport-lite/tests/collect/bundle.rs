//! The bundle's file: its order, its names, a full disk, a killed run.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sosreport_lite::{CollectError, ItemStatus, Limits, Options};

use crate::common::{
    BINARY, Record, SmallFs, collect, first_bytes, manifest, names, options, records, spec, text,
};

const TWO: &str = "[[plugin.command]]\nrun = \"echo one\"\ntags = [\"tag1\"]\nlink = \"one\"\n\
                   [[plugin.file]]\npaths = [\"/proc/cmdline\"]\ntags = [\"tag2\"]\n";

#[test]
fn version_manifest_and_logs_come_first_under_one_top_directory() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = collect(&options(dir.path()), &spec(TWO)).unwrap();
    let paths: Vec<String> =
        records(&outcome.path).into_iter().map(|(p, _)| String::from_utf8(p).unwrap()).collect();
    let files: Vec<&str> =
        paths.iter().map(String::as_str).filter(|p| !p.is_empty() && !p.ends_with('/')).collect();
    assert_eq!(
        files[..6],
        [
            "version.txt",
            "sos_reports/manifest.json",
            "sos_reports/sos.json",
            "sos_reports/sos.txt",
            "sos_logs/sos.log",
            "sos_logs/ui.log"
        ]
    );
    assert_eq!(outcome.entries, paths.len() as u64);
    let listed = Command::new("tar").arg("-tzf").arg(&outcome.path).output().unwrap();
    assert!(
        listed.status.success() && listed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let top = outcome.path.file_name().unwrap().to_string_lossy().replace(".tar.gz", "");
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().all(|line| line.starts_with(&format!("{top}/"))), "{listed}");
    assert_eq!(listed.lines().count(), paths.len());
}

#[test]
fn the_digest_is_what_sha256sum_reads_and_the_bundle_is_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = collect(&options(dir.path()), &spec(TWO)).unwrap();
    let checked =
        Command::new("sha256sum").arg("-c").arg(&outcome.digest_path).current_dir(dir.path()).output();
    assert!(checked.unwrap().status.success());
    assert!(fs::read_to_string(&outcome.digest_path).unwrap().starts_with(&outcome.sha256));
    assert_eq!(fs::metadata(&outcome.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()).len(), 2, "{:?}", names(dir.path()));
}

#[test]
fn the_manifest_has_the_keys_that_readers_of_sos_look_for() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = collect(&Options { case: Some("0351".into()), ..options(dir.path()) }, &spec(TWO)).unwrap();
    let manifest = manifest(&outcome.path);
    for key in [
        "version",
        "cmdline",
        "start_time",
        "end_time",
        "run_time",
        "compression",
        "tmpdir",
        "tmpdir_fs_type",
        "policy",
    ] {
        assert!(manifest.get(key).is_some(), "{key}");
    }
    let report = &manifest["components"]["report"];
    for key in [
        "sysroot",
        "preset",
        "profiles",
        "priority",
        "devices",
        "enabled_plugins",
        "disabled_plugins",
        "plugins",
        "tag_summary",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
    let plugin = &report["plugins"]["t"];
    for key in [
        "start_time",
        "end_time",
        "run_time",
        "timeout",
        "timeout_hit",
        "command_timeout",
        "commands",
        "files",
        "strings",
        "containers",
        "collections",
    ] {
        assert!(plugin.get(key).is_some(), "{key}");
    }
    let command = &plugin["commands"][0];
    assert_eq!(command["filepath"], "sos_commands/t/echo_one");
    assert_eq!((command["command"].as_str(), command["exec"].as_str()), (Some("echo"), Some("echo one")));
    for key in
        ["parameters", "truncated", "return_code", "priority", "start_time", "end_time", "run_time", "tags"]
    {
        assert!(command.get(key).is_some(), "{key}");
    }
    assert_eq!(plugin["files"][0]["specification"], "/proc/cmdline");
    assert_eq!(plugin["files"][0]["files_copied"][0], "proc/cmdline");
    assert_eq!(report["tag_summary"]["tag1"][0], "sos_commands/t/echo_one");
    assert_eq!(report["tag_summary"]["tag2"][0], "proc/cmdline");
    let sos_json: serde_json::Value =
        serde_json::from_str(&text(&outcome.path, "sos_reports/sos.json")).unwrap();
    assert_eq!(sos_json[0][0], "t");
    assert!(outcome.path.to_string_lossy().contains("-0351-"));
}

#[test]
fn what_exceeds_the_greatest_size_is_left_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 100_000, ..Limits::default() };
    let tables = "[[plugin.command]]\nrun = \"head -c 200000 /dev/zero\"\norder = 1\n[[plugin.command]]\nrun = \"echo small\"\n";
    let outcome = collect(&Options { limits, ..options(dir.path()) }, &spec(tables)).unwrap();
    assert!(matches!(&outcome.items[0].status, ItemStatus::NotReached(why) if why.contains("greatest size")));
    assert_eq!(outcome.items[1].status, ItemStatus::Taken);
    assert!(outcome.is_partial());
}

#[test]
fn a_full_disk_costs_the_big_item_and_not_the_bundle() {
    let Some(small) = SmallFs::new(3072) else { return };
    let tables = "[[plugin.command]]\nrun = \"echo one\"\norder = 1\n\
                  [[plugin.command]]\nrun = \"head -c 4000000 /dev/urandom\"\norder = 2\ncap = \"16MiB\"\n\
                  [[plugin.command]]\nrun = \"head -c 900000 /dev/urandom\"\norder = 3\ncap = \"16MiB\"\n\
                  [[plugin.command]]\nrun = \"head -c 900001 /dev/urandom\"\norder = 4\ncap = \"16MiB\"\n\
                  [[plugin.command]]\nrun = \"echo last\"\norder = 5\n";
    let limits = Limits { workers: 1, ..Limits::default() };
    let outcome = collect(&Options { limits, ..options(&small.0) }, &spec(tables)).unwrap();
    assert!(outcome.is_partial());
    assert_eq!(outcome.items[1].status, ItemStatus::NoSpace, "{:?}", outcome.items);
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_one"), "one\n");
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_last"), "last\n");
    let plugin = &manifest(&outcome.path)["components"]["report"]["plugins"]["t"];
    assert!(plugin["commands"][1]["filepath"].is_null());
    assert_eq!(names(&small.0).len(), 2, "{:?}", names(&small.0));
    assert!(
        Command::new("tar").arg("-tzf").arg(&outcome.path).stdout(Stdio::null()).status().unwrap().success()
    );
    assert!(text(&outcome.path, "sos_logs/ui.log").contains("There was no space for head -c 4000000"));
}

#[test]
fn without_any_space_there_is_an_error_and_no_file() {
    let Some(small) = SmallFs::new(256) else { return };
    let err = collect(&options(&small.0), &spec(TWO)).unwrap_err();
    assert!(matches!(err, CollectError::NoSpace { .. }), "{err}");
    assert!(err.to_string().starts_with("there is no space for the bundle in /"), "{err}");
    assert!(names(&small.0).is_empty(), "{:?}", names(&small.0));
    let output = Command::new(BINARY).arg("--out").arg(&small.0).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
}

#[test]
fn a_killed_run_leaves_a_file_that_tar_reads_and_no_final_name() {
    let dir = tempfile::tempdir().unwrap();
    // The hang profile reads its counters twice, five seconds apart: it is surely still at work.
    let mut child =
        Command::new(BINARY).args(["--profile", "hang", "--quiet", "--out"]).arg(dir.path()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let big =
        || dir.path().read_dir().unwrap().any(|e| e.unwrap().metadata().is_ok_and(|m| m.len() > 20_000));
    while Instant::now() < until && !big() {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = names(dir.path());
    assert!(left.len() == 1 && left[0].ends_with(".tar.gz.partial"), "{left:?}");
    let partial = dir.path().join(&left[0]);
    assert_eq!(first_bytes(&partial, 0, 2), [0x1f, 0x8b]);
    let at = tempfile::tempdir().unwrap();
    let _ =
        Command::new("tar").arg("-xzf").arg(&partial).arg("-C").arg(at.path()).stderr(Stdio::null()).status();
    let top = at.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let uname = fs::read_to_string(top.join("sos_commands/kernel/uname_-a")).unwrap();
    assert!(uname.starts_with("Linux "), "{uname}");
}

#[test]
fn dry_run_prints_the_plan_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY).args(["--dry-run", "--out"]).arg(dir.path()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(stdout.contains("uname -a -> sos_commands/kernel/uname_-a  (5 s, 4 MiB)"), "{stdout}");
    assert!(stdout.contains("/etc/kdump.conf -> etc/kdump.conf"), "{stdout}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn wrong_use_is_one_sentence_one_hint_and_exit_2() {
    for (args, words) in [
        (vec!["--out", "/no/such/dir/x.tar.gz"], "its directory is not there"),
        (vec!["--out", "/etc/passwd"], "does not end in .tar.gz"),
        (vec!["--root", "/etc/passwd"], "can't be used as the root of a host"),
        (vec!["--root", "/no/such/root"], "can't be used as the root of a host"),
    ] {
        let output = Command::new(BINARY).args(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(words) && stderr.contains("\nhint: "),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
    }
    for args in [vec!["--max-time", "0"], vec!["--max-size", "much"], vec!["--profile", "x"]] {
        assert_eq!(Command::new(BINARY).args(&args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    for dry in [true, false] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(BINARY);
        command
            .arg("--root")
            .arg(root.path())
            .arg("--out")
            .arg(dir.path())
            .stdout(full)
            .stderr(Stdio::null());
        if dry {
            command.arg("--dry-run");
        }
        assert_eq!(command.status().unwrap().code(), Some(0));
    }
}

#[test]
fn a_bundle_is_never_written_over_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mine.tar.gz");
    let outcome = collect(&Options { out: out.clone(), ..options(dir.path()) }, &spec(TWO)).unwrap();
    assert_eq!(outcome.path, out);
    let err = collect(&Options { out: out.clone(), ..options(dir.path()) }, &spec(TWO)).unwrap_err();
    assert!(err.to_string().contains("is there already"), "{err}");
    assert!(records(&out).iter().any(|(_, r)| matches!(r, Record::Link(_))));
}
