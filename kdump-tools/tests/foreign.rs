//! Real dumps, read by `kdt` and by its peers: the same log line by line, the same bytes frame by frame.
//!
//! The dump in `fixtures/data` is always looked at; `KDT_FOREIGN_DUMPS` names a directory of more, such as the one that
//! `kdt-drill lab make` fills. A peer that is not there is named in one line, `SKIP foreign: …`; with
//! `KDT_REQUIRE_FOREIGN=1` that is a failure. crash needs the kernel's vmlinux, which is large: it is asked only where
//! `KDT_FOREIGN_CRASH` names one, and for the dumps that it can open with it. `KDT_FOREIGN_PYTHON` names the
//! interpreter that has drgn, `KDT_FOREIGN_CRASH_COMMAND` and `KDT_FOREIGN_MAKEDUMPFILE_COMMAND` the command lines of newer peers.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "foreign/subsystems.rs"]
mod subsystems;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vmcore::addr::Pfn;
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

fn skip(what: &str) {
    assert!(std::env::var_os("KDT_REQUIRE_FOREIGN").is_none(), "{what}, and KDT_REQUIRE_FOREIGN is set");
    eprintln!("SKIP foreign: {what}");
}

fn have(program: &str, arguments: &[&str]) -> bool {
    let mut run = Command::new(program);
    run.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run.status().is_ok_and(|status| status.success())
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

/// The real dumps: files that `kdt info` knows as dumps, whatever lies beside them.
fn dumps() -> Vec<PathBuf> {
    let mut found = vec![fixture()];
    if let Some(folder) = std::env::var_os("KDT_FOREIGN_DUMPS") {
        let entries = std::fs::read_dir(&folder).unwrap();
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        found.extend(files.filter(|path| Dump::open(path, &OpenOptions::default()).is_ok()));
    }
    found.sort();
    found
}

fn kdt_log(dump: &Path, caller: bool) -> Vec<u8> {
    let mut run = Command::new(env!("CARGO_BIN_EXE_kdt"));
    run.arg("log").arg(dump);
    if caller {
        run.arg("--caller");
    }
    let out = run.output().unwrap();
    assert!(out.status.success(), "{}: {}", dump.display(), String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// makedumpfile writes a byte above 0x7f sign-extended, `\xffffffc3`; kdt writes `\xc3`.
fn plain_escapes(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace("\\xffffff", "\\x")
}

#[track_caller]
fn assert_same_lines(dump: &Path, peer: &str, ours: &str, theirs: &str) {
    for (number, (ours, theirs)) in (1..).zip(ours.lines().zip(theirs.lines())) {
        assert_eq!(ours, theirs, "{}, line {number}: kdt (left), {peer} (right)", dump.display());
    }
    assert_eq!(ours.lines().count(), theirs.lines().count(), "{}: number of lines, {peer}", dump.display());
}

#[test]
fn the_log_is_that_of_makedumpfile() {
    if !have("makedumpfile", &["-v"]) {
        skip("makedumpfile is not installed (apt-get install makedumpfile)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    // One that every build of makedumpfile reads: Debian 12's, 1.7.2, knows no zstd.
    let machine = fixtures::machine::Machine::default().build();
    let notes = machine.notes.clone();
    let kdump =
        fixtures::kdump::Kdump { notes, phys_base: machine.phys_base, ..fixtures::kdump::Kdump::default() };
    let built = folder.path().join("built");
    kdump.build(&machine.memory).write_sparse(&built).unwrap();
    for dump in dumps().into_iter().chain([built]) {
        let out = folder.path().join("dmesg");
        let _ = std::fs::remove_file(&out);
        let run = Command::new("makedumpfile").arg("--dump-dmesg").arg(&dump).arg(&out).output().unwrap();
        if !run.status.success() {
            // It reads no flattened stream, no part of a split set, and not the ELF files of QEMU 7.2 and later.
            let why = String::from_utf8_lossy(&run.stderr)
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("it fails")
                .to_owned();
            eprintln!("SKIP foreign: this makedumpfile does not read {}: {why}", dump.display());
            continue;
        }
        let theirs = plain_escapes(&std::fs::read(&out).unwrap());
        // 1.7.3 and later show the caller, where the kernel recorded it.
        let shows_caller = theirs.lines().next().is_some_and(|line| line.contains("] [ "));
        assert_same_lines(&dump, "makedumpfile", &plain_escapes(&kdt_log(&dump, shows_caller)), &theirs);
        compared += 1;
    }
    assert!(compared > 0, "makedumpfile reads none of the dumps, not even the one that was built for it");
}

#[test]
fn the_log_of_the_fixture_is_the_one_that_was_kept_beside_it() {
    let kept = std::fs::read(fixture().with_extension("dmesg")).unwrap();
    let kept = plain_escapes(&kept);
    let shows_caller = kept.lines().next().is_some_and(|line| line.contains("] [ "));
    assert_same_lines(&fixture(), "makedumpfile", &plain_escapes(&kdt_log(&fixture(), shows_caller)), &kept);
}

#[test]
fn the_log_is_that_of_crash() {
    let Some(vmlinux) = std::env::var_os("KDT_FOREIGN_CRASH") else {
        skip("KDT_FOREIGN_CRASH names no vmlinux, which crash needs");
        return;
    };
    if !have("crash", &["-v"]) {
        skip("crash is not installed (apt-get install crash)");
        return;
    }
    let mut compared = 0;
    for dump in dumps() {
        let mut run = Command::new("crash")
            .args(["--no_crashrc", "--no_scroll", "-s"])
            .arg(&vmlinux)
            .arg(&dump)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        run.stdin.take().unwrap().write_all(b"log\nquit\n").unwrap();
        let out = run.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // Its own warnings come first.
        let Some(start) = text.find("[    0.000000]") else {
            eprintln!("SKIP foreign: crash does not read {} with this vmlinux", dump.display());
            continue;
        };
        let ours = String::from_utf8_lossy(&kdt_log(&dump, false)).into_owned();
        let trim =
            |text: &str| text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        assert_same_lines(&dump, "crash", &trim(&ours), trim(&text[start..]).trim_end());
        compared += 1;
    }
    assert!(compared > 0, "crash reads none of the dumps with {}", vmlinux.display());
}

#[test]
fn the_frames_are_those_of_drgn() {
    let named = std::env::var("KDT_FOREIGN_PYTHON").ok();
    let python =
        named.into_iter().chain(["python3".to_owned()]).find(|python| have(python, &["-c", "import drgn"]));
    let Some(python) = python else {
        skip("no python3 here has drgn (pip install drgn)");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/foreign/pages-drgn.py");
    for path in dumps() {
        let dump = Dump::open(&path, &OpenOptions::default()).unwrap();
        if dump.facts().containers.contains(&"split") {
            eprintln!("SKIP foreign: {} is one part of a split set", path.display());
            continue;
        }
        // A few hundred frames, from everywhere.
        let stride = (dump.completeness().present_pages / 400).max(1);
        let stride = usize::try_from(stride).unwrap();
        let all = std::iter::successors(dump.next_present(Pfn(0)), |pfn| dump.next_present(Pfn(pfn.0 + 1)));
        let frames: Vec<Pfn> =
            all.filter(|pfn| dump.state(*pfn) == PageState::Present).step_by(stride).collect();
        let mut run = Command::new(&python)
            .args([&script, &path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let asked = frames.iter().map(|pfn| pfn.0.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        let mut stdin = run.stdin.take().unwrap();
        let asking = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
        let out = run.wait_with_output().unwrap();
        let _ = asking.join().unwrap();
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("it fails").to_owned();
            assert!(path != fixture(), "drgn does not read the dump in fixtures/data: {why}");
            eprintln!("SKIP foreign: drgn does not read {}: {why}", path.display());
            continue;
        }
        let mut page = [0; 4096];
        let mut same = 0;
        for (pfn, theirs) in frames.iter().zip(out.stdout.chunks(4097)) {
            let whole =
                dump.read_frame(*pfn, &mut page).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            // RAM that ends inside a frame is not whole for drgn.
            if whole == 4096 {
                assert_eq!(theirs[0], 1, "{}: drgn does not read {pfn}", path.display());
                assert!(theirs[1..] == page, "{}: {pfn} differs", path.display());
                same += 1;
            }
        }
        assert!(same + 2 > frames.len(), "{}: {same} of {} frames", path.display(), frames.len());
    }
}

/// The vmlinux of a dump's kernel below `KDT_FOREIGN_DEBUG`, as Debian's -dbg packages unpack.
fn vmlinux_of(root: &Path, dump: &Path) -> Option<PathBuf> {
    let out = Command::new(env!("CARGO_BIN_EXE_kdt"))
        .args(["info", "--format", "json"])
        .arg(dump)
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let release = told.pointer("/kernel/release").or_else(|| told.pointer("/0/kernel/release"))?.as_str()?;
    let file = root.join(format!("usr/lib/debug/boot/vmlinux-{release}"));
    file.is_file().then_some(file)
}

/// Compares each dump whose kernel's debuginfo is there, by a script that counts, prints each difference, and fails where there is one.
/// What it prints before it can compare is `first`; `crash` where it asks crash too.
fn compare_with_drgn(script: &str, first: &str, crash: bool) {
    let Some(root) = std::env::var_os("KDT_FOREIGN_DEBUG").map(PathBuf::from) else {
        skip("KDT_FOREIGN_DEBUG names no folder with unpacked -dbg packages");
        return;
    };
    let python = std::env::var("KDT_FOREIGN_PYTHON").unwrap_or_else(|_| "python3".into());
    if !have(&python, &["-c", "import drgn"]) {
        skip("no python3 here has drgn (pip install drgn)");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut compared = 0;
    for dump in dumps() {
        let Some(vmlinux) = vmlinux_of(&root, &dump) else {
            eprintln!("SKIP foreign: there is no vmlinux for {}", dump.display());
            continue;
        };
        let mut run = Command::new(&python);
        run.arg(top.join(script)).arg(env!("CARGO_BIN_EXE_kdt")).arg(&dump).arg(vmlinux);
        if let Some(crash) = std::env::var_os("KDT_FOREIGN_CRASH_COMMAND").filter(|_| crash) {
            run.arg("--crash").arg(crash);
        }
        let out = run.current_dir(&top).output().unwrap();
        let (told, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if why.contains("Traceback") && !told.contains(first) {
            let last = why.lines().last().unwrap_or_default();
            eprintln!("SKIP foreign: drgn does not read {}: {last}", dump.display());
            continue;
        }
        eprintln!("{}:\n{told}", dump.display());
        assert!(out.status.success(), "{}: {told}{why}", dump.display());
        compared += 1;
    }
    assert!(compared > 0, "no dump was compared");
}

/// All tasks, and of the frames at least 99 of 100: the script counts, prints the rates and each difference, and fails below that.
#[test]
fn tasks_stacks_and_modules_are_those_of_drgn_and_crash_with_debuginfo() {
    compare_with_drgn("fixtures/foreign/tasks_stacks.py", "tasks:", true);
}

/// Device-mapper, multipath, md, virtio queues, unix sockets and the packets of each CPU: what kdt reads with the modules' BTF, drgn reads
/// with their DWARF.
#[test]
fn the_devices_are_those_of_drgn_with_debuginfo() {
    compare_with_drgn("fixtures/foreign/devices-drgn.py", "differs:", false);
}

/// A command line that an environment variable names, or the program itself, in the folder of the source.
fn peer(variable: &str, program: &str) -> Command {
    let line = std::env::var(variable).unwrap_or_else(|_| program.into());
    let mut words = line.split_whitespace();
    let mut run = Command::new(words.next().unwrap_or(program));
    run.args(words).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    run
}

/// What makedumpfile finds of the log, or why it does not.
fn makedumpfile_log(dump: &Path, folder: &Path) -> Result<Vec<u8>, String> {
    let out = folder.join("peer.dmesg");
    let _ = std::fs::remove_file(&out);
    let mut run = peer("KDT_FOREIGN_MAKEDUMPFILE_COMMAND", "makedumpfile");
    let run = run.arg("--dump-dmesg").arg(dump).arg(&out).output().unwrap();
    let why = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.success() { Ok(std::fs::read(out).unwrap()) } else { Err(why) }
}

/// What crash is asked: the questions of a first look.
const CRASH_COMMANDS: &[u8] =
    b"sys\nlog\nbt -a\nforeach bt\nps\nmod\nmount\ndev -d\nfiles\nkmem -i\nrunq\nquit\n";

/// What crash answers, from what follows the names of the files on.
fn crash_says(vmlinux: &Path, dumps: &[PathBuf], more: &[&str]) -> Option<String> {
    let mut run = peer("KDT_FOREIGN_CRASH_COMMAND", "crash")
        .args(["--no_crashrc", "--no_scroll", "-s"])
        .args(more)
        .arg(vmlinux)
        .args(dumps)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    run.stdin.take().unwrap().write_all(CRASH_COMMANDS).unwrap();
    let out = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.find("CPUS:").map(|at| text[at..].to_owned())
}

fn drgn_says(python: &str, vmlinux: &Path, dump: &Path) -> String {
    let script = "\
import sys, drgn
from drgn.helpers.linux.pid import for_each_task
prog = drgn.Program()
prog.set_core_dump(sys.argv[2])
prog.load_debug_info([sys.argv[1]])
print(prog['init_uts_ns'].name.release.string_().decode())
print(sorted((t.pid.value_(), t.comm.string_().decode(errors='replace')) for t in for_each_task(prog)))
";
    let run = Command::new(python).args(["-c", script]).arg(vmlinux).arg(dump).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{}: {}", dump.display(), String::from_utf8_lossy(&run.stderr));
    text
}

#[track_caller]
fn kdt(arguments: &[&std::ffi::OsStr]) {
    let out = Command::new(env!("CARGO_BIN_EXE_kdt")).args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The forms in which kdt writes a dump: a name, and the files that others take.
fn written(source: &Path, folder: &Path) -> Vec<(&'static str, Vec<PathBuf>)> {
    let mut forms = Vec::new();
    let convert = |name: &str, options: &[&str]| {
        let path = folder.join(name);
        let mut words = vec!["convert".as_ref(), source.as_os_str(), path.as_os_str()];
        words.extend(options.iter().map(std::ffi::OsStr::new));
        kdt(&words);
        path
    };
    for (name, letter) in
        [("zlib", "-c"), ("lzo", "-l"), ("snappy", "-p"), ("zstd", "-z"), ("plain", "--raw")]
    {
        forms.push((name, vec![convert(name, &["--to", "kdump", letter])]));
    }
    forms.push(("elf", vec![convert("elf", &["--to", "elf"])]));
    let flat = convert("flat", &["--to", "flattened", "-l"]);
    let joined = folder.join("flat-joined");
    kdt(&["join".as_ref(), flat.as_os_str(), joined.as_os_str()]);
    let mut run = peer("KDT_FOREIGN_MAKEDUMPFILE_COMMAND", "makedumpfile");
    let rearranged = folder.join("rearranged");
    run.arg("-R").arg(&rearranged).stdin(std::fs::File::open(&flat).unwrap());
    assert!(run.output().unwrap().status.success(), "makedumpfile -R");
    assert!(
        std::fs::read(&joined).unwrap() == std::fs::read(&rearranged).unwrap(),
        "kdt join and makedumpfile -R give the same file"
    );
    forms.push(("flattened, rearranged by makedumpfile", vec![rearranged]));

    let set = folder.join("set");
    kdt(&["filter", "-z", "-d", "0", "--split", "3"]
        .map(std::ffi::OsStr::new)
        .into_iter()
        .chain([source.as_os_str(), set.as_os_str()])
        .collect::<Vec<_>>());
    let parts: Vec<PathBuf> = (1..=3).map(|n| folder.join(format!("set.{n}"))).collect();
    let whole = folder.join("reassembled");
    let mut run = peer("KDT_FOREIGN_MAKEDUMPFILE_COMMAND", "makedumpfile");
    let run = run.arg("--reassemble").args(&parts).arg(&whole).output().unwrap();
    assert!(run.status.success(), "makedumpfile --reassemble: {}", String::from_utf8_lossy(&run.stderr));
    let joined = folder.join("joined");
    let mut words = vec!["join".as_ref()];
    words.extend(parts.iter().rev().map(|part| part.as_os_str()));
    words.push(joined.as_os_str());
    kdt(&words);
    forms.push(("split", parts));
    forms.push(("split, reassembled by makedumpfile", vec![whole]));
    forms.push(("split, joined by kdt", vec![joined]));

    forms.push(("distilled", vec![distilled(source, folder)]));
    forms
}

/// True where some of the memory that the dump speaks of was left out.
fn leaves_out(dump: &Dump) -> bool {
    (0..dump.end_pfn().0).any(|pfn| dump.state(Pfn(pfn)) == PageState::Excluded)
}

fn distilled(source: &Path, folder: &Path) -> PathBuf {
    let distilled = folder.join("distilled");
    kdt(&["distill".as_ref(), source.as_os_str(), distilled.as_os_str()]);
    distilled
}

/// One dump of each kernel is written in every form, those that were not filtered or not crashed by hand are distilled, and each form is to its peers what
/// the source is.
#[test]
fn what_kdt_writes_is_to_crash_makedumpfile_and_drgn_what_the_source_is() {
    let Some(root) = std::env::var_os("KDT_FOREIGN_DEBUG").map(PathBuf::from) else {
        skip("KDT_FOREIGN_DEBUG names no folder with unpacked -dbg packages");
        return;
    };
    let version = peer("KDT_FOREIGN_MAKEDUMPFILE_COMMAND", "makedumpfile").arg("-v").output();
    if !version.is_ok_and(|out| out.status.success()) {
        skip("makedumpfile is not installed (apt-get install makedumpfile)");
        return;
    }
    let has_crash = peer("KDT_FOREIGN_CRASH_COMMAND", "crash").arg("--version").output();
    let has_crash = has_crash.is_ok_and(|out| out.status.success());
    let python = std::env::var("KDT_FOREIGN_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_drgn = have(&python, &["-c", "import drgn"]);
    for (there, name) in [(has_crash, "crash"), (has_drgn, "drgn")] {
        if !there {
            skip(&format!("{name} is not installed"));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for source in dumps() {
        let Some(vmlinux) = vmlinux_of(&root, &source) else { continue };
        let opened = Dump::open(&source, &OpenOptions::default()).unwrap();
        let containers = &opened.facts().containers[..];
        let info = opened.vmcoreinfo_raw().map(String::from_utf8_lossy);
        let crashed = info.is_some_and(|info| info.contains("CRASHTIME="));
        let every_form = containers == ["kdump"] && seen.insert(vmlinux.clone());
        // Of the filtered ones, those whose crash was not asked for: each has other stacks.
        let asked_for =
            || String::from_utf8_lossy(&kdt_log(&source, false)).contains("sysrq: Trigger a crash");
        let only_distilled = crashed && (containers == ["elf"] || containers == ["kdump"] && !asked_for());
        if !every_form && !only_distilled {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let log = makedumpfile_log(&source, folder.path()).unwrap();
        // What an ELF leaves out crash takes for zeros, but not what a kdump leaves out, which the distilled one is.
        let zeros = if containers == ["elf"] && leaves_out(&opened) { &["--zero_excluded"][..] } else { &[] };
        let crash = has_crash.then(|| crash_says(&vmlinux, std::slice::from_ref(&source), zeros).unwrap());
        let drgn = has_drgn.then(|| drgn_says(&python, &vmlinux, &source));
        let forms = if every_form {
            written(&source, folder.path())
        } else {
            vec![("distilled", vec![distilled(&source, folder.path())])]
        };
        for (name, files) in forms {
            let mut told = Vec::new();
            if let Some(crash) = &crash {
                let theirs = crash_says(&vmlinux, &files, zeros)
                    .unwrap_or_else(|| panic!("crash does not read {name}"));
                assert_same_lines(&files[0], name, crash, &theirs);
                told.push("crash");
            }
            if let [file] = &files[..] {
                match makedumpfile_log(file, folder.path()) {
                    Ok(theirs) => {
                        assert!(theirs == log, "{name}: makedumpfile finds another log");
                        told.push("makedumpfile");
                    }
                    // Debian's has no snappy.
                    Err(why) if name == "snappy" => {
                        eprintln!("SKIP foreign: makedumpfile, snappy: {}", why.trim());
                    }
                    Err(why) => panic!("{name}: {why}"),
                }
                if let Some(drgn) = &drgn {
                    assert_eq!(&drgn_says(&python, &vmlinux, file), drgn, "{name}");
                    told.push("drgn");
                }
            }
            eprintln!("{}, {name}: as the source for {}", source.display(), told.join(", "));
        }
    }
    assert!(!seen.is_empty(), "no dump was written");
}
