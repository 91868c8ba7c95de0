//! Dumps of a tiny machine that panicked, in the formats of the field, whole and damaged.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fixtures::codec::Codec;
use fixtures::elf::Elf;
use fixtures::flattened::Flattened;
use fixtures::kdump::Kdump;
use fixtures::machine::{Built, Machine, log};
use serde_json::Value;

use crate::support::{kdt, ran, run, schema, scratch};

fn kdump(machine: &Built) -> Kdump {
    Kdump {
        notes: machine.notes.clone(),
        dump_level: 31,
        phys_base: machine.phys_base,
        ..Kdump::of(Codec::Zstd)
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A whole kdump-compressed dump in a directory of its own.
fn one_dump() -> (tempfile::TempDir, PathBuf, Built) {
    let dir = scratch();
    let machine = Machine::default().build();
    let path = write(dir.path(), "vmcore", &kdump(&machine).build(&machine.memory).bytes());
    (dir, path, machine)
}

fn words<'a>(command: &'a str, rest: &[&'a OsStr]) -> Vec<&'a OsStr> {
    std::iter::once(OsStr::new(command)).chain(rest.iter().copied()).collect()
}

#[test]
fn info_tells_format_kernel_and_completeness() {
    let (_dir, path, _) = one_dump();
    let ran = run(words("info", &[path.as_os_str()]));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "kdump-compressed, zstd pages, x86_64",
        "31 (leaves out zero pages, clean cache, private cache, user data,",
        "yes: all that it announces is there",
        "6.1.0-fixture on fixture (x86_64, 2 CPUs",
        "crashed 2023-11-14 22:13:20 UTC",
        "2 × CORE (kind 0x1), 672 bytes",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {}", ran.stdout);
    }
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 80 || line.contains('/')),
        "{}",
        ran.stdout
    );
}

#[test]
fn info_as_json_fits_its_schema() {
    let (dir, path, _) = one_dump();
    let text = write(dir.path(), "text", b"no dump at all\n");
    let one = run(words("info", &[path.as_os_str(), OsStr::new("--format=json")]));
    assert_eq!(one.code, 0);
    schema::fits("info-1", &one.json());
    assert_eq!(one.json()["dump"]["completeness"]["lost_pages"], 0);
    let two = run(words("info", &[path.as_os_str(), text.as_os_str(), OsStr::new("--format=json")]));
    assert_eq!(two.code, 4, "one of two is usable");
    let documents = two.json();
    assert_eq!(documents.as_array().unwrap().len(), 2);
    for document in documents.as_array().unwrap() {
        schema::fits("info-1", document);
    }
    assert_eq!((&documents[0]["usable"], &documents[1]["usable"]), (&Value::Bool(true), &Value::Bool(false)));
}

#[test]
fn the_log_is_that_of_dmesg_from_every_container() {
    let dir = scratch();
    let machine = Machine::default().build();
    let expected = log::dmesg(&machine.lines);
    let dump = kdump(&machine).build(&machine.memory);
    let elf = Elf { notes: machine.notes.clone(), page_offset: machine.page_offset, ..Elf::default() };
    let elf = elf.build(&machine.memory);
    let flat = Flattened::default().build(&dump);
    for (name, bytes) in [("kdump", dump.bytes()), ("elf", elf.bytes()), ("flat", flat.bytes())] {
        let path = write(dir.path(), name, &bytes);
        let ran = run(words("log", &[path.as_os_str()]));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{name}");
        assert_eq!(ran.stdout, expected, "{name}");
    }
}

#[test]
fn the_log_can_be_chosen_from() {
    let (_dir, path, machine) = one_dump();
    let log = |rest: &[&str]| {
        let rest: Vec<&OsStr> =
            std::iter::once(path.as_os_str()).chain(rest.iter().map(OsStr::new)).collect();
        run(words("log", &rest))
    };
    let tail = log(&["--tail", "1"]);
    assert_eq!(tail.stdout, log::dmesg(&machine.lines[machine.lines.len() - 1..]));
    let count = |level: u8| machine.lines.iter().filter(|line| line.level <= level).count();
    let document = log(&["--level", "warn+", "--format", "json"]).json();
    schema::fits("log-1", &document);
    assert_eq!(document["lines"].as_array().unwrap().len(), count(4));
    assert_eq!(document["records"], machine.lines.len());
    let iso = log(&["--time", "iso"]).stdout;
    assert!(iso.starts_with("2023-11-14T22:1"), "{iso}");
    let ctime = log(&["--time", "ctime"]).stdout;
    assert!(ctime.starts_with("[Tue Nov 14 22:1") && ctime.contains(" 2023] "), "{ctime}");
    log(&["--level", "loud"]).fails(2, "the levels are emerg, alert");
}

#[test]
fn a_log_without_a_crash_time_has_no_wall_clock_and_says_so() {
    let dir = scratch();
    let machine = Machine { crash_time: 0, ..Machine::default() }.build();
    let path = write(dir.path(), "vmcore", &kdump(&machine).build(&machine.memory).bytes());
    let ran = run(words("log", &[path.as_os_str(), OsStr::new("--time=iso")]));
    ran.fails(3, "the dump does not tell when it crashed");
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_reader_of_the_log_that_goes_away_is_no_error() {
    let dir = scratch();
    let lines = (0..20_000).map(|n| log::Line::new(n * 1_000_000, &format!("line {n} of many"))).collect();
    let ring = fixtures::machine::log_ring::RingShape::default();
    let machine = Machine { lines: Some(lines), ring, ..Machine::default() }.build();
    let path = write(dir.path(), "vmcore", &kdump(&machine).build(&machine.memory).bytes());
    let mut child =
        kdt().arg("log").arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn triage_says_what_happened_first_and_what_it_did_not_look_at_last() {
    let (_dir, path, _) = one_dump();
    let ran = run(words("triage", &[path.as_os_str()]));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.starts_with("PANIC (sysrq): "), "{}", ran.stdout);
    let place =
        |words: &str| ran.stdout.find(words).unwrap_or_else(|| panic!("{words:?} is not in {}", ran.stdout));
    let order = [
        "What it means, and what to do\n",
        "kernel: ",
        "dump: ",
        "CPUs\n",
        "Log, around the panic\n",
        "Not looked at\n",
    ]
    .map(place);
    assert!(order.is_sorted(), "{}", ran.stdout);
    assert!(ran.stdout.contains("critical  KD-PANIC-SYSRQ (certain)"), "{}", ran.stdout);
}

#[test]
fn triage_as_json_fits_its_schema_and_is_null_where_it_does_not_know() {
    let (_dir, path, machine) = one_dump();
    let document = run(words("triage", &[path.as_os_str(), OsStr::new("--format=json")])).json();
    schema::fits("triage-1", &document);
    assert_eq!(document["panic"]["kind"], "sysrq");
    assert_eq!(document["kernel"]["nodename"], "fixture");
    assert_eq!(document["kernel"]["crash_time"], 1_700_000_000.0);
    assert_eq!(document["log"]["lines"].as_array().unwrap().len(), machine.lines.len());
    let rip = format!("{:#x}", machine.symbols["_stext"] + 0x100);
    assert_eq!(document["cpus"][0]["registers"]["rip"], rip);
    for name in ["memory", "blocked"] {
        assert!(document[name].is_null());
        let why = document["not_looked_at"].as_array().unwrap().iter().find(|entry| entry["what"] == name);
        assert!(why.is_some(), "nothing says why {name} is null");
    }
    let times = document["timings"]["steps"].as_array().unwrap();
    assert!(times.iter().all(|step| step["s"].as_f64().unwrap() >= 0.0) && times.len() >= 4);
}

#[test]
fn many_dumps_are_an_array_in_the_order_of_the_input_and_a_bad_one_stops_none() {
    let (dir, good, machine) = one_dump();
    let empty = write(dir.path(), "empty", b"");
    let cut = kdump(&machine).build(&machine.memory).bytes();
    let cut = write(dir.path(), "cut", &cut[..cut.len() / 2]);
    let paths = [empty.as_os_str(), cut.as_os_str(), good.as_os_str(), OsStr::new("--format=json")];
    let ran = run(words("triage", &paths));
    assert_eq!(ran.code, 4);
    let documents = ran.json();
    let documents = documents.as_array().unwrap();
    let names: Vec<&str> = documents.iter().map(|d| d["dump"]["path"].as_str().unwrap()).collect();
    assert_eq!(names, [&empty, &cut, &good].map(|path| path.to_str().unwrap()));
    for document in documents {
        schema::fits("triage-1", document);
    }
    assert!(documents[0]["error"]["message"].as_str().unwrap().ends_with("is an empty file"));
    assert!(documents[1]["error"].is_null());
    assert!(documents[1]["dump"]["completeness"]["truncated_at"].is_u64());
    let codes: Vec<&str> =
        documents[1]["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"KD-DUMP-TRUNCATED"), "{codes:?}");
    assert!(documents[2]["error"].is_null());
    assert_eq!(
        ran.stderr.lines().count(),
        2,
        "one sentence and one hint about the empty one: {}",
        ran.stderr
    );
}

#[test]
fn a_directory_means_the_dumps_below_it_and_parts_belong_together() {
    let dir = scratch();
    let machine = Machine::default().build();
    let host = dir.path().join("127.0.0.1-2026-11-22");
    fs::create_dir(&host).unwrap();
    write(&host, "vmcore", &kdump(&machine).build(&machine.memory).bytes());
    write(&host, "vmcore-dmesg.txt", b"[    0.000000] Linux version 6.1.0\n");
    // Parts under names that tell nothing, and in another order than their frames.
    let other = Machine { release: "6.1.0-other".into(), ..Machine::default() }.build();
    let base = Kdump { utsname: names("other"), ..kdump(&other) };
    for (image, name) in base.split(&other.memory, 3).iter().zip(["c", "a", "b"]) {
        write(dir.path(), name, &image.bytes());
    }
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    let ran = run(words("triage", &[dir.path().as_os_str(), OsStr::new("--format=json")]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let documents = ran.json();
    let documents = documents.as_array().unwrap();
    assert_eq!(documents.len(), 2, "three parts are one dump");
    assert!(documents[0]["dump"]["path"].as_str().unwrap().ends_with("2026-11-22/vmcore"));
    assert_eq!(documents[1]["dump"]["container"], serde_json::json!(["split", "kdump"]));
    assert_eq!(documents[1]["dump"]["completeness"]["lost_pages"], 0);
    assert!(ran.stderr.contains("2 files passed over"), "{}", ran.stderr);
    let quiet =
        run(words("triage", &[dir.path().as_os_str(), OsStr::new("-q"), OsStr::new("--format=json")]));
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
}

fn names(release: &str) -> [String; 6] {
    ["Linux", "fixture", release, "#1 SMP", "x86_64", "(none)"].map(str::to_owned)
}

#[test]
fn a_missing_part_is_lost_memory_and_is_told() {
    let dir = scratch();
    let machine = Machine::default().build();
    let parts = kdump(&machine).split(&machine.memory, 2);
    let path = write(dir.path(), "part", &parts[0].bytes());
    let ran = run(words("info", &[path.as_os_str()]));
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("NOT GIVEN: pfn"), "{}", ran.stdout);
    assert!(ran.stdout.contains("complete:    NO: "), "{}", ran.stdout);
}

#[test]
fn a_finding_that_bad_ends_with_ten() {
    let (_dir, path, _) = one_dump();
    let fail_on = |severity: &'static str| {
        run(words("triage", &[path.as_os_str(), OsStr::new("--fail-on"), OsStr::new(severity)])).code
    };
    assert_eq!(fail_on("critical"), 10);
    assert_eq!(fail_on("info"), 10);
    run(words("triage", &[path.as_os_str(), OsStr::new("--fail-on=bad")]))
        .fails(2, "the severities are info");
}

#[test]
fn what_is_left_out_by_only_is_told() {
    let (_dir, path, _) = one_dump();
    let ran =
        run(words("triage", &[path.as_os_str(), OsStr::new("--only=panic"), OsStr::new("--format=json")]));
    let document = ran.json();
    schema::fits("triage-1", &document);
    assert_eq!(document["panic"]["kind"], "sysrq");
    assert!(
        document["kernel"]["release"].is_null() && document["log"]["lines"].as_array().unwrap().is_empty()
    );
    let left_out: Vec<&str> = document["not_looked_at"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["why"] == "--only left it out")
        .map(|entry| entry["what"].as_str().unwrap())
        .collect();
    assert_eq!(&left_out[..5], ["log", "kernel", "modules", "tasks", "cpus"]);
    for name in [
        "blocked",
        "runqueues",
        "memory",
        "slab",
        "mounts",
        "block_io",
        "net",
        "irqs",
        "workqueues",
        "settings",
    ] {
        assert!(left_out.contains(&name), "{name} is not told of: {left_out:?}");
    }
    run(words("triage", &[path.as_os_str(), OsStr::new("--only=all")])).fails(2, "the parts are kernel, log");
}

#[test]
fn a_report_goes_to_a_file_and_never_over_a_dump() {
    let (dir, path, _) = one_dump();
    let before = fs::read(&path).unwrap();
    let out = dir.path().join("report.json");
    let ran = run(words(
        "triage",
        &[path.as_os_str(), OsStr::new("--format=json"), OsStr::new("-o"), out.as_os_str()],
    ));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(document["panic"]["kind"], "sysrq");
    run(words("triage", &[path.as_os_str(), OsStr::new("-o"), path.as_os_str()]))
        .fails(2, "a source is never changed");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_dump_cut_anywhere_is_answered_with_three_or_four_or_is_whole() {
    let dir = scratch();
    let machine = Machine::default().build();
    let image = kdump(&machine).build(&machine.memory);
    let bytes = image.bytes();
    // Each run is a process: of the many lengths that matter, every so many-th.
    let cuts = image.cuts();
    for len in cuts.iter().step_by(cuts.len() / 40 + 1) {
        let path = write(dir.path(), "cut", &bytes[..usize::try_from(*len).unwrap()]);
        for command in ["info", "triage", "log"] {
            let ran = run(words(command, &[path.as_os_str()]));
            let expected: &[i32] = match (command, *len == image.len()) {
                (_, true) => &[0],
                // The log's own pages can be whole in a dump that is not.
                ("log", false) => &[0, 3, 4],
                (_, false) => &[3, 4],
            };
            assert!(expected.contains(&ran.code), "{command} of a dump cut at {len:#x}: {ran:?}");
            assert!(!ran.stderr.contains("bug"), "{ran:?}");
        }
    }
}

#[test]
fn orders_to_the_terminal_in_a_log_are_not_obeyed() {
    let dir = scratch();
    let evil = "\x1b]0;owned\x07\u{202e}text\r";
    let lines =
        vec![log::Line::new(1_000, evil), log::Line::new(2_000, "Kernel panic - not syncing: \x1b[2J")];
    let machine = Machine { lines: Some(lines), ..Machine::default() }.build();
    let path = write(dir.path(), "vmcore", &kdump(&machine).build(&machine.memory).bytes());
    for rest in [&["log"][..], &["triage"], &["triage", "--format=json"], &["log", "--format=json"]] {
        let ran = run(rest.iter().map(OsStr::new).chain([path.as_os_str()]));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.stdout.contains('\x1b') && !ran.stdout.contains('\u{202e}'), "{:?}", ran.stdout);
    }
}

#[test]
fn ctrl_c_ends_the_search_of_a_large_memory_with_130() {
    use fixtures::elf::Segment;
    let dir = scratch();
    // 2 GiB of memory without VMCOREINFO: looking through all of it takes a while. The file is sparse.
    let elf = Elf { notes: Vec::new(), ..Elf::default() };
    let image = elf.of_segments(&[Segment {
        vaddr: 0,
        paddr: 0,
        memsz: 2 << 30,
        filesz: 2 << 30,
        data: vec![(0, vec![1]), ((2 << 30) - 1, vec![1])],
    }]);
    let path = dir.path().join("large");
    image.write_sparse(&path).unwrap();
    let child = kdt().arg("triage").arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = ran(&child.wait_with_output().unwrap());
    // On a machine where it was through before the signal came, the dump is simply one without a kernel.
    if ran.code != 4 {
        ran.fails(130, "it was interrupted");
    }
}
