//! What of a host's files goes into the bundle, and what never does.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sosreport_lite::{ItemStatus, Options, Outcome};

use crate::common::dead_fs::DeadFs;
use crate::common::{BINARY, Record, bundle, collect, hasty, manifest, only_status, options, spec, text};

/// A host of `etc/`, and where its bundle goes.
struct Host {
    root: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap(), out: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("etc")).unwrap();
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn collect(&self, paths: &[&str], more: &str) -> Outcome {
        let options = Options { root: self.root.path().into(), limits: hasty(), ..options(self.out.path()) };
        collect(&options, &spec(&format!("[[plugin.file]]\npaths = {paths:?}\n{more}\n"))).unwrap()
    }
}

fn has(outcome: &Outcome, path: &str) -> bool {
    bundle(&outcome.path).contains_key(path.as_bytes())
}

#[test]
fn files_keep_path_mode_and_time() {
    let host = Host::new();
    fs::write(host.path("etc/kdump.conf"), "path /var/crash\n").unwrap();
    fs::set_permissions(host.path("etc/kdump.conf"), PermissionsExt::from_mode(0o640)).unwrap();
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    fs::File::options().write(true).open(host.path("etc/kdump.conf")).unwrap().set_modified(then).unwrap();
    let outcome = host.collect(&["/etc/kdump.conf"], "");
    assert_eq!(text(&outcome.path, "etc/kdump.conf"), "path /var/crash\n");
    let listed =
        Command::new("tar").args(["--utc", "--full-time", "-tvzf"]).arg(&outcome.path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|l| l.ends_with("/etc/kdump.conf")).unwrap();
    assert!(line.starts_with("-rw-r-----") && line.contains("2020-09-13 12:26:40"), "{line}");
}

#[test]
fn links_never_lead_out_of_the_root() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let steps = "../".repeat(20);
    symlink(outside.path().join("secret"), host.path("etc/absolute")).unwrap();
    symlink(format!("{steps}{}", outside.path().join("secret").display()), host.path("etc/relative"))
        .unwrap();
    symlink(outside.path(), host.path("etc/dir")).unwrap();
    symlink("loop", host.path("etc/loop")).unwrap();
    let outcome = host.collect(&["/etc/*", "/etc/dir/secret", "/etc/dir/*"], "");
    for (path, record) in bundle(&outcome.path) {
        if let Record::File(bytes) = &record {
            assert!(!bytes.starts_with(b"outside"), "{}", String::from_utf8_lossy(&path));
        }
        if let Record::Link(target) = record {
            assert!(!target.starts_with(b"/"), "{}", String::from_utf8_lossy(&target));
        }
    }
    // Unpacked with the system's tar, each link stays inside.
    let at = tempfile::tempdir().unwrap();
    assert!(
        Command::new("tar")
            .arg("-xzf")
            .arg(&outcome.path)
            .arg("-C")
            .arg(at.path())
            .status()
            .unwrap()
            .success()
    );
    let top = fs::read_dir(at.path()).unwrap().next().unwrap().unwrap().path();
    for name in ["absolute", "relative"] {
        let target = fs::read_link(top.join("etc").join(name)).unwrap();
        assert!(!target.is_absolute() && !top.join("etc").join(&target).exists(), "{}", target.display());
    }
}

#[test]
fn a_link_inside_the_root_keeps_link_and_target() {
    let host = Host::new();
    fs::create_dir_all(host.path("usr/lib")).unwrap();
    fs::write(host.path("usr/lib/os-release"), "NAME=x\n").unwrap();
    symlink("/usr/lib/os-release", host.path("etc/os-release")).unwrap();
    let outcome = host.collect(&["/etc/os-release"], "");
    let link = bundle(&outcome.path).remove(b"etc/os-release".as_slice());
    assert_eq!(link, Some(Record::Link(b"../usr/lib/os-release".to_vec())));
    assert_eq!(text(&outcome.path, "usr/lib/os-release"), "NAME=x\n");
}

#[test]
fn a_link_to_a_secret_is_not_followed() {
    let host = Host::new();
    fs::write(host.path("etc/shadow"), "root:$6$hash").unwrap();
    symlink("shadow", host.path("etc/innocent.conf")).unwrap();
    let outcome = host.collect(&["/etc/innocent.conf", "/etc/shadow"], "");
    assert!(!has(&outcome, "etc/shadow"));
    let ItemStatus::Failed(why) = &outcome.items[1].status else { panic!("{outcome:?}") };
    assert_eq!(why, "/etc/shadow: it holds password hashes");
}

#[test]
fn fifos_sockets_devices_and_directories_are_not_read() {
    let host = Host::new();
    assert!(Command::new("mkfifo").arg(host.path("etc/fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(host.path("etc/socket")).unwrap();
    fs::create_dir(host.path("etc/dir.d")).unwrap();
    let began = Instant::now();
    let outcome = host.collect(&["/etc/fifo", "/etc/socket", "/etc/dir.d"], "");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(outcome.items[0].status, ItemStatus::Failed("it is a fifo, which may never answer".into()));
    assert_eq!(outcome.items[1].status, ItemStatus::Failed("it is a socket".into()));
    assert!(matches!(outcome.items[2].status, ItemStatus::Absent(_)));
    assert!(!outcome.is_partial());
}

#[test]
fn a_file_that_never_answers_is_left_and_the_next_ones_are_taken() {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("etc/after"), "still here\n").unwrap();
    let Some(dead) = DeadFs::mount(&host.path("data")) else { return };
    let began = Instant::now();
    let outcome = host.collect(&["/data/file", "/etc/after"], "");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(matches!(outcome.items[0].status, ItemStatus::TimedOut(_)), "{:?}", outcome.items[0]);
    assert_eq!(outcome.items[0].notes, ["/data/file did not answer in its time"]);
    assert_eq!(text(&outcome.path, "etc/after"), "still here\n");
    drop(dead);
}

#[test]
fn the_program_itself_ends_while_its_reader_hangs() {
    let host = Host::new();
    fs::create_dir(host.path("etc/default")).unwrap();
    let Some(dead) = DeadFs::mount(&host.path("etc/default")) else { return };
    let began = Instant::now();
    let output = Command::new(BINARY)
        .args(["--max-time", "60", "--root"])
        .arg(host.root.path())
        .arg("--out")
        .arg(host.out.path())
        .output()
        .unwrap();
    let (took, stderr) = (began.elapsed(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(stderr.contains("timed out     /etc/default/grub"), "{stderr}");
    drop(dead);
}

#[test]
fn weird_names_come_through() {
    let host = Host::new();
    let names: Vec<Vec<u8>> = vec![
        b"a\nb".to_vec(),
        b"\xff\xfe".to_vec(),
        b"sp ace".to_vec(),
        "n".repeat(255).into_bytes(),
        b"-rf".to_vec(),
        b"*".to_vec(),
    ];
    for name in &names {
        fs::write(host.path("etc").join(OsStr::from_bytes(name)), name).unwrap();
    }
    let deep = format!("etc/{}", "d".repeat(200));
    fs::create_dir(host.path(&deep)).unwrap();
    fs::write(host.path(&format!("{deep}/{}", "f".repeat(200))), "deep").unwrap();
    let outcome = host.collect(&["/etc/*", "/etc/*/*"], "");
    let bundle = bundle(&outcome.path);
    for name in &names {
        let path = [b"etc/".as_slice(), name].concat();
        assert_eq!(bundle.get(&path), Some(&Record::File(name.clone())), "{}", String::from_utf8_lossy(name));
    }
    let deep = format!("{deep}/{}", "f".repeat(200));
    assert_eq!(bundle.get(deep.as_bytes()), Some(&Record::File(b"deep".to_vec())));
    manifest(&outcome.path);
}

#[test]
fn a_big_log_keeps_its_end_where_sos_readers_look() {
    let host = Host::new();
    fs::create_dir_all(host.path("var/log")).unwrap();
    let lines: Vec<String> = (0..100_000).map(|n| format!("line {n}\n")).collect();
    fs::write(host.path("var/log/messages"), lines.concat()).unwrap();
    fs::write(host.path("var/log/messages-20260101"), "old\n").unwrap();
    let outcome = host.collect(&["/var/log/messages*"], "keep = \"tail\"\ncap = \"64KiB\"");
    let link = bundle(&outcome.path).remove(b"var/log/messages".as_slice());
    assert_eq!(link, Some(Record::Link(b"../../sos_strings/t/var.log.messages.tailed".to_vec())));
    let tail = text(&outcome.path, "sos_strings/t/var.log.messages.tailed");
    assert!(tail.starts_with("line ") && tail.ends_with("\nline 99999\n") && tail.len() <= 64 << 10);
}

#[test]
fn of_a_crashed_host_s_disk_the_last_words_are_taken_and_the_dump_is_only_listed() {
    let host = Host::new();
    let crash = host.path("var/crash/127.0.0.1-2026-11-22-01:02:03");
    fs::create_dir_all(&crash).unwrap();
    fs::write(crash.join("vmcore"), vec![7; 100_000]).unwrap();
    fs::write(crash.join("vmcore-dmesg.txt"), "[    1.0] Kernel panic - not syncing\n").unwrap();
    fs::write(crash.join("kexec-dmesg.log"), "saved\n").unwrap();
    fs::write(host.path("etc/kdump.conf"), "path /var/crash\n").unwrap();
    let options = Options { root: host.root.path().into(), ..options(host.out.path()) };
    let outcome = sosreport_lite::run(
        &sosreport_lite::plan(&options).unwrap(),
        &sosreport_lite::Quiet,
        &sosreport_lite::Cancel::default(),
    )
    .unwrap();
    let at = "var/crash/127.0.0.1-2026-11-22-01:02:03";
    assert!(text(&outcome.path, &format!("{at}/vmcore-dmesg.txt")).contains("Kernel panic"));
    assert_eq!(text(&outcome.path, &format!("{at}/kexec-dmesg.log")), "saved\n");
    assert!(!has(&outcome, &format!("{at}/vmcore")));
    let listing = text(&outcome.path, "sos_commands/kdump/ls_-lanR_.var.crash");
    assert!(listing.contains(" 100000 ") && listing.contains(" vmcore\n"), "{listing}");
    assert!(!outcome.is_partial(), "{:?}", outcome.worth_telling().collect::<Vec<_>>());
}

#[test]
fn secrets_are_taken_out_of_configuration() {
    let host = Host::new();
    fs::write(host.path("etc/x.conf"), "proxy=http://u:pw@h/\npassword = hunter2\nuser = joe\n").unwrap();
    let outcome = host.collect(&["/etc/x.conf"], "");
    assert_eq!(
        text(&outcome.path, "etc/x.conf"),
        "proxy=http://u:********@h/\npassword = ********\nuser = joe\n"
    );
    assert_eq!(outcome.items[0].files[0].scrubbed, 2);
}

#[test]
fn what_a_plain_user_may_not_read_is_told_and_makes_the_bundle_partial() {
    let host = Host::new();
    fs::write(host.path("etc/kdump.conf"), "x\n").unwrap();
    fs::set_permissions(host.path("etc/kdump.conf"), PermissionsExt::from_mode(0o600)).unwrap();
    for dir in [host.root.path(), host.out.path()] {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    }
    // The target directory may lie where a plain user can't go.
    let binary = Path::new("/tmp").join(format!("sosreport-lite-{}", std::process::id()));
    fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
    let output = command.arg("--root").arg(host.root.path()).arg("--out").arg(host.out.path()).output();
    fs::remove_file(&binary).unwrap();
    let output = match output {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("setpriv:") => output,
        Ok(output) => {
            println!(
                "SKIPPED: setpriv can't become another user: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        Err(e) => {
            println!("SKIPPED: there is no setpriv: {e}");
            return;
        }
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("not permitted /etc/kdump.conf: Permission denied"), "{stderr}");
}

#[test]
fn threads_read_files_too_where_there_is_no_process_for_it() {
    let host = Host::new();
    fs::write(host.path("etc/a"), "x\n").unwrap();
    let options = Options { root: host.root.path().into(), reader: None, ..options(host.out.path()) };
    let outcome = collect(&options, &spec("[[plugin.file]]\npaths = [\"/etc/a\"]\n")).unwrap();
    assert_eq!(*only_status(&outcome), ItemStatus::Taken);
    assert!(outcome.notes.iter().any(|n| n.contains("in threads")), "{:?}", outcome.notes);
}

#[test]
fn a_program_that_is_no_reader_is_told() {
    let host = Host::new();
    fs::write(host.path("etc/a"), "x\n").unwrap();
    for program in ["/bin/echo", "/bin/true", "/no/such/program"] {
        let reader = Some(sosreport_lite::ReaderCommand::program(program));
        let options =
            Options { root: host.root.path().into(), reader, limits: hasty(), ..options(host.out.path()) };
        let outcome = collect(&options, &spec("[[plugin.file]]\npaths = [\"/etc/a\"]\n")).unwrap();
        assert!(matches!(only_status(&outcome), ItemStatus::Failed(_)), "{program}: {outcome:?}");
    }
}
