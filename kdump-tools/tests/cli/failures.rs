//! One real dump of each failure that the lab can make (`drills/lab/fixtures.sh`), distilled: what triage must see in it, and in a
//! healthy guest's nothing that is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{run, schema};

/// What one dump must show.
struct Failure {
    name: &'static str,
    /// `panic.kind`; `None` where the kernel has not panicked.
    kind: Option<&'static str>,
    /// Task, module and function that it came from; empty where they are not told.
    culprit: [&'static str; 3],
    /// Codes that must be among the findings.
    codes: &'static [&'static str],
    /// All codes of findings that are errors or worse.
    worst: &'static [&'static str],
}

const FAILURES: &[Failure] = &[
    Failure {
        name: "sysrq",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-PANIC-SYSRQ"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "null-deref",
        kind: Some("null-deref"),
        culprit: ["sh", "lab_fail", "null_deref"],
        codes: &["KD-PANIC-NULL-DEREF"],
        worst: &["KD-PANIC-NULL-DEREF"],
    },
    Failure {
        name: "bug",
        kind: Some("bug"),
        culprit: ["sh", "lab_fail", "bug"],
        codes: &["KD-PANIC-BUG"],
        worst: &["KD-PANIC-BUG"],
    },
    Failure {
        name: "warn",
        kind: Some("warn"),
        culprit: ["sh", "lab_fail", "warn"],
        codes: &["KD-PANIC-WARN"],
        worst: &["KD-PANIC-WARN"],
    },
    Failure {
        name: "divide",
        kind: Some("divide-error"),
        culprit: ["sh", "lab_fail", "divide"],
        codes: &["KD-PANIC-DIVIDE-ERROR"],
        worst: &["KD-PANIC-DIVIDE-ERROR"],
    },
    Failure {
        name: "general-protection",
        kind: Some("general-protection"),
        culprit: ["sh", "lab_fail", "general_protection"],
        codes: &["KD-PANIC-GENERAL-PROTECTION"],
        worst: &["KD-PANIC-GENERAL-PROTECTION"],
    },
    Failure {
        name: "soft-lockup",
        kind: Some("soft-lockup"),
        culprit: ["sh", "lab_fail", "spin"],
        codes: &["KD-PANIC-SOFT-LOCKUP", "KD-LOCKUP-SOFT"],
        worst: &["KD-LOCKUP-SOFT", "KD-PANIC-SOFT-LOCKUP"],
    },
    Failure {
        // TCG has no performance counters, so that no watchdog fires: the host's NMI ends it.
        name: "hard-lockup",
        kind: Some("nmi"),
        culprit: ["init", "lab_fail", "spin"],
        codes: &["KD-PANIC-NMI", "KD-LOCKUP-IRQS-OFF"],
        worst: &["KD-PANIC-NMI"],
    },
    Failure {
        name: "rcu-stall",
        kind: Some("rcu-stall"),
        culprit: ["sh", "lab_fail", "spin"],
        codes: &["KD-PANIC-RCU-STALL", "KD-RCU-STALL-BLOCKER"],
        worst: &["KD-PANIC-RCU-STALL", "KD-RCU-STALL-BLOCKER"],
    },
    Failure {
        name: "mutex-abba",
        kind: Some("hung-task"),
        culprit: ["lab_a_then_b", "lab_fail", "lock_a_then_b"],
        codes: &["KD-PANIC-HUNG-TASK", "KD-HANG-DEADLOCK", "KD-HANG-TASKS"],
        worst: &["KD-HANG-DEADLOCK", "KD-HANG-TASKS", "KD-PANIC-HUNG-TASK"],
    },
    Failure {
        name: "mutex-held",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-PANIC-SYSRQ", "KD-HANG-BLOCKED-BY"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "kdump-oom",
        kind: Some("oom"),
        culprit: ["dd", "", ""],
        codes: &["KD-PANIC-OOM", "KD-MEM-OOM-GLOBAL", "KD-MEM-SHMEM"],
        worst: &["KD-PANIC-OOM"],
    },
    Failure {
        name: "stack-overflow",
        kind: Some("stack-overflow"),
        culprit: ["sh", "lab_fail", "deeper"],
        codes: &["KD-PANIC-STACK-OVERFLOW"],
        worst: &["KD-PANIC-STACK-OVERFLOW"],
    },
    Failure {
        name: "slab-leak",
        kind: Some("oom"),
        culprit: ["sh", "", ""],
        codes: &["KD-PANIC-OOM", "KD-MEM-SLAB-LEAK"],
        worst: &["KD-PANIC-OOM"],
    },
    Failure {
        name: "frozen",
        kind: Some("hung-task"),
        culprit: ["dd", "", "mnt_want_write"],
        codes: &["KD-PANIC-HUNG-TASK", "KD-FS-FROZEN", "KD-HANG-TASKS"],
        worst: &["KD-FS-FROZEN", "KD-HANG-TASKS", "KD-PANIC-HUNG-TASK"],
    },
    Failure {
        name: "host-hung",
        kind: None,
        culprit: ["", "", ""],
        codes: &["KD-HANG-DEADLOCK", "KD-HANG-TASKS", "KD-EVENT-HUNG-TASK", "KD-NO-PANIC"],
        worst: &["KD-HANG-DEADLOCK", "KD-HANG-TASKS"],
    },
    Failure {
        name: "dm-suspended",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-DM-SUSPENDED"],
        worst: &["KD-DM-SUSPENDED", "KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "multipath",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-MULTIPATH-NO-PATH"],
        worst: &["KD-MULTIPATH-NO-PATH", "KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "md-degraded",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-MD-DEGRADED"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "host-io-stuck",
        kind: None,
        culprit: ["", "", ""],
        codes: &["KD-IO-STUCK", "KD-VIRTIO-HOST-SILENT", "KD-NO-PANIC"],
        worst: &["KD-IO-STUCK", "KD-VIRTIO-HOST-SILENT"],
    },
    Failure {
        name: "waits",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-PANIC-SYSRQ", "KD-HANG-BLOCKED-BY", "KD-CONSOLE-WAIT", "KD-EVENT-WARN"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "ipi",
        kind: Some("nmi"),
        culprit: ["init", "lab_fail", "spin"],
        codes: &["KD-PANIC-NMI", "KD-LOCKUP-IRQS-OFF", "KD-LOCKUP-IPI"],
        worst: &["KD-PANIC-NMI"],
    },
    Failure {
        name: "earlier",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &[
            "KD-PANIC-SYSRQ",
            "KD-EVENT-OOPS",
            "KD-EVENT-WARN",
            "KD-EVENT-IO-ERROR",
            "KD-MEM-OOM-GLOBAL",
            "KD-SETTINGS-OOPS-GOES-ON",
        ],
        worst: &["KD-EVENT-OOPS", "KD-PANIC-SYSRQ"],
    },
    Failure {
        // Debian's 6.1 for clouds is built without machine checks.
        name: "6.12-mce",
        kind: Some("mce"),
        culprit: ["", "", ""],
        codes: &["KD-PANIC-MCE"],
        worst: &["KD-PANIC-MCE"],
    },
    Failure {
        name: "null-call",
        kind: Some("null-deref"),
        culprit: ["sh", "lab_fail", "null_call"],
        codes: &["KD-PANIC-NULL-DEREF"],
        worst: &["KD-PANIC-NULL-DEREF"],
    },
    Failure {
        // Its caller ends with the lock, so that the compiler leaves no frame of it.
        name: "lock-twice",
        kind: Some("soft-lockup"),
        culprit: ["sh", "lab_fail", "lab_write.cold"],
        codes: &["KD-PANIC-SOFT-LOCKUP", "KD-LOCKUP-SOFT"],
        worst: &["KD-LOCKUP-SOFT", "KD-PANIC-SOFT-LOCKUP"],
    },
    Failure {
        name: "module-exit",
        kind: Some("null-deref"),
        culprit: ["rmmod", "lab_fail", "null_deref"],
        codes: &["KD-PANIC-NULL-DEREF"],
        worst: &["KD-PANIC-NULL-DEREF"],
    },
    Failure {
        name: "cgroup-oom",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-MEM-OOM-CGROUP"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "net",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-NET-ACCEPT-QUEUE-FULL", "KD-UNIX-BACKLOG-FULL"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        // PREEMPT_RT.
        name: "rt-waits",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-PANIC-SYSRQ", "KD-HANG-BLOCKED-BY", "KD-CONSOLE-WAIT", "KD-EVENT-WARN"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure {
        name: "7.2-waits",
        kind: Some("sysrq"),
        culprit: ["init", "", "sysrq_handle_crash"],
        codes: &["KD-PANIC-SYSRQ", "KD-HANG-BLOCKED-BY", "KD-CONSOLE-WAIT", "KD-EVENT-WARN"],
        worst: &["KD-PANIC-SYSRQ"],
    },
    Failure { name: "healthy", kind: None, culprit: ["", "", ""], codes: &["KD-NO-PANIC"], worst: &[] },
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/failures")
}

fn dump(name: &str) -> PathBuf {
    let kernel = if name.starts_with(|first: char| first.is_ascii_digit()) { "" } else { "6.1-" };
    folder().join(format!("{kernel}{name}.kdump"))
}

fn text<'v>(value: &'v Value, at: &str) -> &'v str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Says all that is wrong with one dump at once.
fn look_at(failure: &Failure) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, got: String, expected: String| {
        if got != expected {
            wrong.push(format!("{}: {what} is {got}, not {expected}", failure.name));
        }
    };
    let path = dump(failure.name);
    let ran = run(["triage".as_ref(), path.as_os_str(), "--format=json".as_ref()]);
    check("the exit code", ran.code.to_string(), "0".into());
    let document = ran.json();
    schema::fits("triage-1", &document);
    let made = text(&document, "/dump/made").starts_with("distilled by kdt ");
    check("made by distill", made.to_string(), "true".into());
    check("the kind", text(&document, "/panic/kind").into(), failure.kind.unwrap_or_default().into());
    let at =
        ["task/comm", "module", "function"].map(|part| text(&document, &format!("/panic/culprit/{part}")));
    check("the culprit", format!("{at:?}"), format!("{:?}", failure.culprit));
    let findings = document["findings"].as_array().unwrap();
    let codes: BTreeSet<_> = findings.iter().map(|finding| text(finding, "/code")).collect();
    for code in failure.codes {
        check(code, codes.contains(code).to_string(), "true".into());
    }
    let bad = |finding: &&Value| ["error", "critical"].contains(&text(finding, "/severity"));
    let worst: BTreeSet<_> = findings.iter().filter(bad).map(|finding| text(finding, "/code")).collect();
    check("what is an error", format!("{worst:?}"), format!("{:?}", BTreeSet::from_iter(failure.worst)));
    // Each task has a stack, but for those that run in user space.
    let tasks = document["tasks"].as_array().unwrap();
    check("more than 50 tasks", (tasks.len() > 50).to_string(), "true".into());
    wrong
}

#[test]
fn each_failure_is_told_for_what_it_is() {
    let wrong: Vec<_> = FAILURES.iter().flat_map(look_at).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_deadlock_names_both_tasks_whether_the_kernel_panics_or_the_host_dumps() {
    for name in ["mutex-abba", "host-hung"] {
        let path = dump(name);
        let document = run(["triage".as_ref(), path.as_os_str(), "--format=json".as_ref()]).json();
        let cycles = document["blocked"]["cycles"].as_array().unwrap();
        assert_eq!(cycles.len(), 1, "{name}");
        let tasks = document["tasks"].as_array().unwrap();
        let comm = |pid: &Value| tasks.iter().find(|t| t["pid"] == *pid).map(|t| text(t, "/comm"));
        let names: BTreeSet<_> = cycles[0].as_array().unwrap().iter().filter_map(comm).collect();
        assert_eq!(names, BTreeSet::from(["lab_a_then_b", "lab_b_then_a"]), "{name}");
    }
}

/// The document of one dump.
fn document(name: &str) -> Value {
    run(["triage".as_ref(), dump(name).as_os_str(), "--format=json".as_ref()]).json()
}

#[test]
fn a_suspended_device_shows_its_table_and_the_writes_that_it_holds_back() {
    let document = document("dm-suspended");
    let device = &document["device_mapper"][0];
    assert_eq!(
        (text(device, "/name"), text(device, "/state"), text(device, "/number")),
        ("lab-linear", "suspended", "253:0")
    );
    // Two processes wrote 64 KiB each, 128 KiB apart, and each in one piece.
    let held: BTreeSet<_> = device["deferred_io"]
        .as_array()
        .unwrap()
        .iter()
        .map(|io| (text(io, "/op"), io["sector"].as_u64(), io["bytes"].as_u64()))
        .collect();
    assert_eq!(held, BTreeSet::from([("write", Some(0), Some(65536)), ("write", Some(256), Some(65536))]));
    let target = &device["targets"][0];
    assert_eq!((text(target, "/type"), text(target, "/device/number")), ("linear", "7:0"));
    assert_eq!(
        (target["start"].as_u64(), target["sectors"].as_u64(), target["device_sector"].as_u64()),
        (Some(0), Some(16384), Some(0))
    );
}

#[test]
fn a_multipath_without_a_path_shows_each_of_them_and_what_waits() {
    let document = document("multipath");
    let device = &document["device_mapper"][0];
    assert_eq!((text(device, "/name"), text(device, "/type")), ("lab-paths", "request based"));
    assert_eq!(device["requeued"], 2);
    let multipath = &device["targets"][0]["multipath"];
    assert_eq!((&multipath["queue_if_no_path"], &multipath["usable_paths"]), (&true.into(), &0.into()));
    let paths: Vec<_> = multipath["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| (text(path, "/device/number"), text(path, "/state"), path["failures"].as_u64()))
        .collect();
    assert_eq!(paths, [("7:0", "failed", Some(1)), ("7:1", "failed", Some(1))]);
}

#[test]
fn a_degraded_array_shows_which_member_is_faulty() {
    let document = document("md-degraded");
    let array = &document["md"][0];
    assert_eq!((text(array, "/device"), text(array, "/personality")), ("md0", "raid1"));
    assert_eq!((&array["raid_disks"], &array["degraded"]), (&2.into(), &1.into()));
    let faulty = |member: &&Value| member["state"].as_array().unwrap().contains(&"faulty".into());
    let members = array["members"].as_array().unwrap();
    let names: Vec<_> = members.iter().filter(faulty).map(|member| text(member, "/device/name")).collect();
    assert_eq!((members.len(), names), (2, vec!["loop1"]));
}

#[test]
fn a_host_that_does_not_answer_has_what_the_disk_has_in_flight() {
    let document = document("host-io-stuck");
    let device =
        document["virtio"].as_array().unwrap().iter().find(|device| device["disk"] == "vdb").unwrap();
    let sum = |what: &str| {
        let queues = device["queues"].as_array().unwrap().iter();
        queues.map(|queue| queue[what].as_u64().unwrap()).sum::<u64>()
    };
    let disk = document["block_io"].as_array().unwrap().iter().find(|disk| disk["device"] == "vdb").unwrap();
    // Four wrote, and the host took the first.
    assert_eq!((disk["in_flight"].as_u64(), sum("with_host"), sum("unseen")), (Some(3), 3, 0));
}

#[test]
fn no_dump_is_larger_than_four_megabytes_and_all_are_looked_at() {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".kdump") else { continue };
        let name = name.strip_prefix("6.1-").unwrap_or(name);
        // Of 7.2 more is read, since it has more types: 3.8 MB as it is stored, of 6.1 2.7 MB.
        let most = if name.starts_with("7.") { 5 << 20 } else { 4 << 20 };
        assert!(entry.metadata().unwrap().len() <= most, "{name}");
        names.insert(name.to_owned());
    }
    assert_eq!(names, FAILURES.iter().map(|failure| failure.name.to_owned()).collect());
}

fn triage(name: &str) -> Value {
    let path = dump(name);
    run(["triage".as_ref(), path.as_os_str(), "--format=json".as_ref()]).json()
}

fn finding<'d>(document: &'d Value, code: &str) -> &'d Value {
    document["findings"].as_array().unwrap().iter().find(|one| text(one, "/code") == code).unwrap()
}

#[test]
fn each_wait_names_what_it_is_for_and_who_is_in_its_way() {
    each_wait_is_told("waits");
}

#[test]
fn where_locks_have_no_list_of_waiters_each_wait_is_told_as_well() {
    each_wait_is_told("7.2-waits");
}

#[test]
fn with_preempt_rt_each_wait_is_told_as_without() {
    each_wait_is_told("rt-waits");
}

fn each_wait_is_told(name: &str) {
    let document = triage(name);
    let tasks = document["tasks"].as_array().unwrap();
    let comm = |pid: &Value| tasks.iter().find(|task| task["pid"] == *pid).map(|task| text(task, "/comm"));
    let edges = document["blocked"]["edges"].as_array().unwrap();
    let edge = |waiter: &str| {
        edges
            .iter()
            .find(|edge| comm(&edge["waiter"]) == Some(waiter))
            .unwrap_or_else(|| panic!("{waiter} does not wait"))
    };
    for (waiter, kind, name, owner, what) in [
        (
            "lab_flush_1",
            "work",
            "work_wants_mutex [lab_fail]",
            "kworker",
            "workqueue lab_works, which kworker",
        ),
        ("lab_flush_2", "work", "work_wants_mutex [lab_fail]", "kworker", "is done with other work of it"),
        ("lab_flush_wq", "work", "lab_works", "kworker", "to be empty, of which kworker"),
        ("cat", "mutex", "lab_mutex_a [lab_fail]", "lab_owner", "a mutex"),
        ("lab_rt_mutex", "rt_mutex", "lab_rt_mutex [lab_fail]", "lab_owner", "a rt-mutex"),
        ("lab_semaphore", "semaphore", "lab_semaphore [lab_fail]", "", "a semaphore"),
        ("lab_completion", "completion", "lab_never [lab_fail]", "", "a completion"),
        ("lab_event", "wait_queue", "lab_queue [lab_fail]", "", "a wake-up from a wait queue"),
        ("lab_page", "wait_queue", "folio_wait_table", "", "to lose PG_locked"),
        (
            "insmod",
            "wait_queue",
            "folio_wait_table",
            "",
            "page 0 of the disk nullb0 to lose PG_locked; the driver of nullb0 has",
        ),
        ("lab_rcu_sync", "rcu", "rcu_state", "lab_rcu_reader", "to end its RCU reader"),
        ("lab_console_2", "semaphore", "console_sem", "", "the console's lock"),
    ] {
        let edge = edge(waiter);
        assert_eq!(text(edge, "/lock/kind"), kind, "{edge}");
        assert!(text(edge, "/lock/name").starts_with(name), "{edge}");
        let found = comm(&edge["owner"]).unwrap_or_default();
        assert!(
            if owner.is_empty() { found.is_empty() } else { found.starts_with(owner) },
            "{edge}: {found}"
        );
        assert!(text(edge, "/what").replace(", to", " to").contains(what), "{edge}");
    }
}

#[test]
fn the_console_tells_its_waiters_and_how_far_it_is_behind() {
    let document = triage("waits");
    let console = &document["console"];
    let flags = ["held", "locked", "may_schedule", "spinning"].map(|name| console[name].as_bool());
    assert_eq!(flags, [Some(true), Some(true), Some(true), Some(false)], "{console}");
    // It was taken with console_lock(), of which the kernel keeps no record.
    assert!(console["owner"].is_null(), "{console}");
    assert_eq!(console["waiters"].as_array().unwrap().len(), 1, "{console}");
    let serial = &console["consoles"][0];
    assert_eq!((text(serial, "/name"), serial["enabled"].as_bool()), ("ttyS0", Some(true)));
    assert!(serial["behind"].as_u64().unwrap() > 1, "{serial}");
    let finding = finding(&document, "KD-CONSOLE-WAIT");
    assert!(text(finding, "/title").starts_with("lab_console_2 "), "{finding}");
    assert!(text(finding, "/title").contains("does not record who has it"), "{finding}");
    // Who prints when the end comes is named by the kernel itself.
    let printing = triage("rcu-stall");
    let console = &printing["console"];
    assert_eq!(
        (text(console, "/owner/comm"), &console["owner_sure"]),
        ("sh", &Value::Bool(true)),
        "{console}"
    );
    // Nobody waits for the console of a healthy guest.
    let healthy = triage("healthy");
    assert_eq!(healthy["console"]["waiters"], serde_json::json!([]));
    assert_eq!(healthy["console"]["consoles"][0]["behind"], 0);
}

#[test]
fn who_waits_for_a_cpu_without_interrupts_is_led_to_it() {
    let document = triage("ipi");
    let edges = document["blocked"]["edges"].as_array().unwrap();
    let of = |kind: &str| edges.iter().find(|edge| text(edge, "/lock/kind") == kind).unwrap();
    let current = &document["runqueues"][0]["current"];
    let call = of("cpu");
    assert_eq!((text(call, "/lock/name"), &call["owner"]), ("answer [lab_fail]", current), "{call}");
    assert!(text(call, "/what").starts_with("CPU 0, which is in spin < spin_without_interrupts"), "{call}");
    let grace = of("rcu");
    assert_eq!(&grace["owner"], current, "{grace}");
    assert!(text(grace, "/what").contains("CPU 0, which runs "), "{grace}");
    let nmi = finding(&document, "KD-PANIC-NMI");
    assert!(text(nmi, "/title").contains("took no interrupts"), "{nmi}");
}

#[test]
fn what_was_before_the_end_is_told_and_the_trace_is_the_guest_s_own() {
    let document = triage("earlier");
    let events = document["events"].as_array().unwrap();
    let kinds: Vec<_> = events.iter().map(|event| text(event, "/kind")).collect();
    assert_eq!(kinds, ["oops", "warning", "io-error", "oom-kill"]);
    assert_eq!(events[0]["functions"], serde_json::json!(["null_deref"]));
    let memory = &document["memory"];
    let swap = &memory["swaps"][0];
    assert!(text(swap, "/path").starts_with("/dev/vd"), "{swap}");
    assert!(swap["used"].as_u64().unwrap() > 1 << 20, "{swap}");
    let huge = memory["hugetlb"].as_array().unwrap().iter().find(|one| one["page_bytes"] == 2 << 20).unwrap();
    assert_eq!((&huge["total"], &huge["free"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(document["bpf"]["programs"][0]["name"], "lab_filter");
    // A ring that has gone around.
    let trace = &document["trace"];
    assert!(trace["total"].as_u64().unwrap() > 200, "{}", trace["total"]);
    assert!(trace["overwritten"].as_u64().unwrap() > 100, "{}", trace["overwritten"]);
    let events = trace["events"].as_array().unwrap();
    let times: Vec<f64> = events.iter().map(|event| event["ts"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // The last lines of the guest's own `trace` file, which it printed before its end.
    let printed = fs::read_to_string(folder().join("6.1-earlier.trace")).unwrap();
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(printed.len(), 12);
    for (line, event) in printed.iter().rev().zip(events.iter().rev()) {
        // `comm-pid [cpu] flags seconds: event: fields`
        let mut parts = line.splitn(3, ": ");
        let (head, name, fields) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let words: Vec<&str> = head.split_whitespace().collect();
        let [.., cpu, _, ts] = words.as_slice() else { panic!("{line}") };
        assert_eq!(format!("{:.6}", event["ts"].as_f64().unwrap()), *ts, "{line}: {event}");
        assert_eq!(format!("[{:03}]", event["cpu"].as_u64().unwrap()), *cpu, "{line}: {event}");
        assert_eq!(event["name"], name, "{line}: {event}");
        let fields = fields.split_whitespace().filter_map(|field| field.split_once('='));
        // The state is a letter there, and the kernel's number in the event; `==>` is no field.
        for (name, value) in fields.filter(|(name, _)| !["prev_state", ""].contains(name)) {
            assert_eq!(event["fields"][name], value, "{name} of {line}: {event}");
        }
    }
}

#[test]
fn a_call_through_a_null_pointer_says_so_and_names_the_caller() {
    let document = triage("null-call");
    let finding = finding(&document, "KD-PANIC-NULL-DEREF");
    assert!(text(finding, "/title").contains("called a function through a NULL pointer"), "{finding}");
    assert!(text(finding, "/next/0").contains("null_call [lab_fail]"), "{finding}");
}

#[test]
fn a_module_that_was_being_unloaded_is_said_to_be() {
    let document = triage("module-exit");
    let finding = finding(&document, "KD-PANIC-NULL-DEREF");
    let told = finding["evidence"].as_array().unwrap();
    assert!(told.contains(&"the module lab_fail was being unloaded".into()), "{finding}");
}

#[test]
fn a_cpu_that_spins_for_a_lock_names_it() {
    let document = triage("lock-twice");
    let finding = finding(&document, "KD-LOCKUP-SOFT");
    let told = finding["evidence"].as_array().unwrap().iter().filter_map(Value::as_str);
    let lock: Vec<_> = told.filter(|line| line.starts_with("it spins for the lock at ")).collect();
    assert!(lock.len() == 1 && lock[0].contains("lab_spinlock"), "{finding}");
}

#[test]
fn a_group_that_ran_out_of_memory_is_named() {
    let document = triage("cgroup-oom");
    assert_eq!(text(&document, "/memory/oom/cgroup"), "/small");
    let finding = finding(&document, "KD-MEM-OOM-CGROUP");
    assert!(text(finding, "/title").starts_with("The control group /small "), "{finding}");
    assert!(text(finding, "/next/0").contains("/small"), "{finding}");
}

/// As the guest's own `ip addr` and `netstat` had it.
#[test]
fn devices_have_their_addresses_and_sockets_their_queues() {
    let document = triage("net");
    let device = |name: &str| document["net"].as_array().unwrap().iter().find(|one| one["name"] == name);
    let addresses: Vec<_> =
        device("lab0").unwrap()["addresses"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(addresses[..3], ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"]);
    let state = |name: &str| ["up", "carrier"].map(|what| device(name).unwrap()[what].as_bool().unwrap());
    assert_eq!((state("lab0"), state("down0")), ([true, true], [false, true]));
    let sockets = document["sockets"].as_array().unwrap();
    let queues = |local: &str, state: &str| {
        let found = sockets.iter().find(|one| one["local"] == local && one["state"] == state).unwrap();
        ["receive_queue", "send_queue"].map(|queue| found[queue].as_u64().unwrap())
    };
    assert_eq!(queues("192.0.2.7:7002", "LISTEN"), [3, 2]);
    assert_eq!(queues("[::1]:7004", "LISTEN"), [0, 4]);
    // Nobody reads it.
    assert!(queues("127.0.0.1:7001", "ESTABLISHED")[0] > 1000);
    let full = finding(&document, "KD-NET-ACCEPT-QUEUE-FULL");
    assert!(text(full, "/title").contains("192.0.2.7:7002"), "{full}");
}

#[test]
fn a_setting_that_cost_no_dump_is_no_finding() {
    for name in ["sysrq", "mutex-held", "healthy"] {
        let document = triage(name);
        let findings = document["findings"].as_array().unwrap();
        assert!(findings.iter().all(|one| text(one, "/code") != "KD-SETTINGS-OOPS-GOES-ON"), "{name}");
    }
}
