//! Files that are no dumps, or that can't be read: one sentence, one hint, the right exit code, and never a wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ran, copy_of_kdt, kdt, ran, run, scratch};

const COMMANDS: [&str; 3] = ["info", "log", "triage"];

/// Runs a command that must not wait: a FIFO has no writer, and `/dev/zero` has no end.
fn run_soon(command: &str, path: &Path) -> Ran {
    let started = Instant::now();
    let mut child =
        kdt().arg(command).arg(path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("kdt {command} {} waits for ever", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ran(&child.wait_with_output().unwrap())
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn each_command_refuses_each_kind_of_file_in_words() {
    let dir = scratch();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let gzip = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        gzip.finish().unwrap()
    };
    let cases = [
        (file(dir.path(), "empty", b""), "is an empty file"),
        (file(dir.path(), "text", b"[    0.000000] Linux version 6.1.0\n"), "not a memory dump"),
        (file(dir.path(), "gz", &gzip), "is a gzip-compressed file"),
        (file(dir.path(), "zeros", &[0; 8192]), "not a memory dump"),
        (file(dir.path(), "cut-elf", b"\x7fELF\x02\x01\x01"), "ELF"),
        (file(dir.path(), "cut-kdump", b"KDUMP   \x06\0\0\0"), "kdump-compressed"),
        (file(dir.path(), "lime", b"EMiL\x01\0\0\0"), "LiME"),
        (PathBuf::from("/dev/null"), "is a character device"),
        (PathBuf::from("/dev/zero"), "is a character device"),
        (fifo, "is a pipe"),
        (dir.path().join("absent"), "can't be read: No such file or directory"),
    ];
    for (path, words) in cases {
        for command in COMMANDS {
            run_soon(command, &path).fails(3, words);
        }
    }
}

#[test]
fn a_directory_is_refused_where_a_file_is_meant_and_searched_where_not() {
    let dir = scratch();
    run_soon("info", dir.path()).fails(3, "is a directory, not a dump file");
    run_soon("log", dir.path()).fails(3, "is a directory, not a dump file");
    run_soon("triage", dir.path()).fails(3, "there is no dump in");
}

#[test]
fn info_names_a_file_that_it_can_t_use() {
    let dir = scratch();
    let path = file(dir.path(), "notes.txt", b"nothing to see here\n");
    let ran = run(["info".as_ref(), path.as_os_str()]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.contains("what:    a text file") || ran.stdout.contains("text"), "{ran:?}");
    assert!(ran.stdout.contains("usable:  no"), "{ran:?}");
}

#[test]
fn a_file_that_only_root_may_read_is_not_permitted() {
    let dir = scratch();
    let path = file(dir.path(), "vmcore", b"\x7fELF");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Root reads everything, so another user has to ask. kdt itself must be where that user may go.
    let copy = PathBuf::from("/tmp").join(format!("kdt-test-{}", std::process::id()));
    let copy = copy_of_kdt(&copy);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        command
    } else {
        Command::new(&copy)
    };
    let output = command.arg("info").arg(&path).output();
    fs::remove_file(&copy).unwrap();
    match output {
        Ok(output) => ran(&output).fails(7, "can't be read: Permission denied"),
        Err(error) => eprintln!("skipped: setpriv, with which another user is asked, is not here ({error})"),
    }
}

#[test]
fn a_name_that_would_move_the_cursor_is_escaped() {
    let dir = scratch();
    let path = file(dir.path(), "\x1b[2Jevil\nname\u{202e}", b"");
    for command in COMMANDS {
        let ran = run([command.as_ref(), path.as_os_str()]);
        assert_eq!(ran.code, 3);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains('\x1b') && !said.contains('\u{202e}'), "{said:?}");
        assert!(ran.stderr.contains("\\x1b[2Jevil\\x0aname\\u{202e} is an empty file"), "{said:?}");
    }
}
