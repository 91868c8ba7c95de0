//! Time limits of programs that really end, and what stays of their output.

use std::time::{Duration, Instant};

use sosreport_lite::{
    Cancel, CollectError, ItemStatus, Limits, Options, Profile, Quiet, plan_from_text, run,
};

use crate::common::dead_fs::DeadFs;
use crate::common::{
    Record, bundle, collect, ends, hasty, manifest, names, only_status, options, spec, text,
};

fn command(line: &str, more: &str) -> String {
    spec(&format!("[[plugin.command]]\nrun = \"{}\"\n{more}\n", line.replace('"', "\\\"")))
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_and_its_words_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { limits: hasty(), ..options(dir.path()) };
    let line = "sh -c 'trap : TERM; echo said before; while :; do sleep 61.0001; done'";
    let began = Instant::now();
    let outcome = collect(&options, &command(line, "as = \"deaf\"\nlimit_s = 1")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(*only_status(&outcome), ItemStatus::TimedOut("it was ended after its 1 s".into()));
    assert!(outcome.is_partial());
    // The shell adds what became of its child.
    assert!(text(&outcome.path, "sos_commands/t/deaf").starts_with("said before\n"));
    assert!(ends("61.0001"), "its child is still there");
    let report = &manifest(&outcome.path)["components"]["report"]["plugins"]["t"];
    assert_eq!(report["timeout_hit"], true);
    assert_eq!(report["commands"][0]["return_code"], 124);
    assert!(text(&outcome.path, "sos_logs/ui.log").contains("Plugin t timed out"));
}

#[test]
fn what_a_program_says_when_it_is_asked_to_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let line = "sh -c 'trap \\\"echo last words; exit 3\\\" TERM; sleep 62.0001 & wait'";
    let text_spec = spec(&format!("[[plugin.command]]\nrun = \"{line}\"\nas = \"polite\"\nlimit_s = 1\n"));
    let outcome = collect(&options(dir.path()), &text_spec).unwrap();
    assert!(matches!(only_status(&outcome), ItemStatus::TimedOut(_)));
    assert_eq!(text(&outcome.path, "sos_commands/t/polite"), "last words\n");
    assert!(ends("62.0001"));
}

#[test]
fn a_daemon_that_keeps_the_pipe_open_does_not_keep_the_collector() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let outcome =
        collect(&options(dir.path()), &command("sh -c 'sleep 63.0001 & echo done'", "as = \"parent\""))
            .unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(*only_status(&outcome), ItemStatus::Taken);
    assert_eq!(text(&outcome.path, "sos_commands/t/parent"), "done\n");
    assert!(ends("63.0001"), "the daemon is still there");
}

#[test]
fn a_daemon_that_left_the_group_does_not_keep_the_collector_either() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let line = "sh -c 'setsid sleep 12.0001 & sleep 0.2; echo done'";
    let outcome = collect(&options(dir.path()), &command(line, "as = \"parent\"")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(text(&outcome.path, "sos_commands/t/parent"), "done\n");
}

#[test]
fn a_program_in_d_state_is_left_behind() {
    let (dir, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(dead) = DeadFs::mount(at.path()) else { return };
    let line = format!("cat {}/file", at.path().display());
    let two = command(&line, "as = \"stuck\"\nlimit_s = 1") + "[[plugin.command]]\nrun = \"echo well\"\n";
    let began = Instant::now();
    let outcome = collect(&Options { limits: hasty(), ..options(dir.path()) }, &two).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let ItemStatus::TimedOut(why) = &outcome.items[0].status else { panic!("{:?}", outcome.items) };
    assert!(why.contains("D state"), "{why}");
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_well"), "well\n");
    drop(dead);
}

#[test]
fn a_program_that_hangs_before_it_even_starts_costs_one_worker_and_not_the_run() {
    let (dir, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(dead) = DeadFs::mount(at.path()) else { return };
    let two = command(&format!("{}/program", at.path().display()), "order = 1\nlimit_s = 1")
        + "[[plugin.command]]\nrun = \"echo well\"\n";
    let limits = Limits { workers: 1, ..hasty() };
    let began = Instant::now();
    let outcome = collect(&Options { limits, ..options(dir.path()) }, &two).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(outcome.items[0].status, ItemStatus::TimedOut(_)), "{:?}", outcome.items[0]);
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_well"), "well\n");
    assert_eq!(outcome.notes, ["1 worker hung on the host and was left behind"]);
    drop(dead);
}

#[test]
fn a_blocked_task_is_found_and_described() {
    let (dir, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(dead) = DeadFs::mount(at.path()) else { return };
    let mut blocked = std::process::Command::new("cat").arg(at.path().join("file")).spawn().unwrap();
    let stat = format!("/proc/{0}/task/{0}/stat", blocked.id());
    let until = Instant::now() + Duration::from_mins(1);
    while Instant::now() < until && !dead.has_seen_a_read() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // FUSE waits so that a signal wakes it; the signal that should end the task makes it a blocked one.
    assert!(std::process::Command::new("kill").arg(blocked.id().to_string()).status().unwrap().success());
    while Instant::now() < until && !std::fs::read_to_string(&stat).unwrap().contains(") D ") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let tables = spec("[[plugin.tasks]]\nstates = \"D\"\nfiles = [\"wchan\", \"status\", \"stack\"]\n");
    let outcome = collect(&options(dir.path()), &tables).unwrap();
    let status = text(&outcome.path, &format!("proc/{0}/task/{0}/status", blocked.id()));
    assert!(status.contains("State:\tD (disk sleep)"), "{status}");
    drop(dead);
    blocked.wait().unwrap();
}

#[test]
fn a_flood_is_cut_at_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let outcome = collect(&options(dir.path()), &command("yes", "cap = \"64KiB\"\nlimit_s = 20")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(*only_status(&outcome), ItemStatus::Taken);
    let tailed = text(&outcome.path, "sos_strings/t/yes.tailed");
    assert_eq!(tailed, "y\n".repeat(32 << 10));
    let link = bundle(&outcome.path).remove(b"sos_commands/t/yes".as_slice());
    assert_eq!(link, Some(Record::Link(b"../../sos_strings/t/yes.tailed".to_vec())));
    assert_eq!(
        manifest(&outcome.path)["components"]["report"]["plugins"]["t"]["commands"][0]["truncated"],
        true
    );
}

#[test]
fn of_a_long_log_the_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let more = "cap = \"64KiB\"\nkeep = \"tail\"\nlimit_s = 60";
    let outcome = collect(&options(dir.path()), &command("seq 1 400000", more)).unwrap();
    let tailed = text(&outcome.path, "sos_strings/t/seq_1_400000.tailed");
    assert!(tailed.ends_with("\n399999\n400000\n") && tailed.len() <= 64 << 10);
    let first: u64 = tailed.lines().next().unwrap().parse().unwrap();
    assert_eq!(tailed.lines().count() as u64, 400_000 - first + 1);
}

#[test]
fn programs_get_no_input_a_plain_environment_and_the_root_directory() {
    let dir = tempfile::tempdir().unwrap();
    let tables =
        command("cat", "") + "[[plugin.command]]\nrun = \"env\"\n[[plugin.command]]\nrun = \"pwd\"\n";
    let outcome = collect(&options(dir.path()), &tables).unwrap();
    assert_eq!(text(&outcome.path, "sos_commands/t/cat"), "");
    let env = text(&outcome.path, "sos_commands/t/env");
    assert!(env.contains("LC_ALL=C\n") && !env.contains("CARGO"), "{env}");
    assert_eq!(text(&outcome.path, "sos_commands/t/pwd"), "/\n");
}

#[test]
fn a_return_code_and_stderr_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let outcome =
        collect(&options(dir.path()), &command("sh -c 'echo no >&2; exit 3'", "as = \"bad\"")).unwrap();
    assert_eq!(*only_status(&outcome), ItemStatus::Taken);
    assert!(!outcome.is_partial());
    assert_eq!(text(&outcome.path, "sos_commands/t/bad"), "no\n");
    assert_eq!(
        manifest(&outcome.path)["components"]["report"]["plugins"]["t"]["commands"][0]["return_code"],
        3
    );
}

#[test]
fn a_script_without_its_interpreter_is_told_and_leaves_no_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let outcome = collect(&options(dir.path()), &command(&script.display().to_string(), "")).unwrap();
    let ItemStatus::Failed(why) = only_status(&outcome) else { panic!("{outcome:?}") };
    assert!(why.contains("can't be started"), "{why}");
    let command = &manifest(&outcome.path)["components"]["report"]["plugins"]["t"]["commands"][0];
    assert_eq!((command["return_code"].as_i64(), command["filepath"].is_null()), (Some(127), true));
}

#[test]
fn a_command_runs_once_for_each_match_and_its_link_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let more = "each = \"/proc/sys/kernel/os*\"\nlink = \"top\"";
    let outcome = collect(&options(dir.path()), &command("echo is {}", more)).unwrap();
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_is_ostype"), "is ostype\n");
    assert_eq!(text(&outcome.path, "sos_commands/t/echo_is_osrelease"), "is osrelease\n");
    assert!(matches!(bundle(&outcome.path).get(b"top".as_slice()), Some(Record::Link(_))));
}

#[test]
fn the_whole_run_ends_in_its_time_and_says_what_it_did_not_reach() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_time: Duration::from_secs(2), workers: 2, ..hasty() };
    let tables: Vec<String> =
        (0..6).map(|n| format!("[[plugin.command]]\nrun = \"sleep 64.000{n}\"\n")).collect();
    let tables = tables.concat();
    let began = Instant::now();
    let outcome = collect(&Options { limits, ..options(dir.path()) }, &spec(&tables)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((outcome.timed_out(), outcome.left_out()), (2, 4), "{:?}", outcome.items);
    assert!(outcome.is_partial() && ends("64.000"));
}

#[test]
fn an_interrupted_run_leaves_what_it_had_and_nothing_under_the_final_name() {
    let dir = tempfile::tempdir().unwrap();
    let tables =
        command("echo first", "order = 1") + "[[plugin.command]]\nrun = \"sleep 65.0001\"\nlimit_s = 60\n";
    let plan = plan_from_text(&Options { limits: hasty(), ..options(dir.path()) }, &tables).unwrap();
    let cancel = Cancel::default();
    let from_outside = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        from_outside.cancel();
    });
    let began = Instant::now();
    let err = run(&plan, &Quiet, &cancel).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8));
    let CollectError::Cancelled { partial } = &err else { panic!("{err}") };
    assert_eq!(names(dir.path()), [partial.file_name().unwrap().to_string_lossy()]);
    assert_eq!(text(partial, "sos_commands/t/echo_first"), "first\n");
    assert!(ends("65.0001"));
}

#[test]
fn two_readings_are_some_time_apart() {
    let dir = tempfile::tempdir().unwrap();
    let tables = spec("[[plugin.sample]]\npaths = [\"/proc/uptime\"]\ninterval_s = 1\n");
    let options = Options { profile: Profile::Hang, ..options(dir.path()) };
    let outcome = collect(&options, &tables).unwrap();
    let uptime = |round: u8| -> f64 {
        let text = text(&outcome.path, &format!("sos_strings/t/samples/{round}/proc/uptime"));
        text.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(uptime(2) - uptime(1) >= 0.9, "{} {}", uptime(1), uptime(2));
    assert_eq!(text(&outcome.path, "sos_strings/t/samples/times.txt").lines().count(), 3);
}
