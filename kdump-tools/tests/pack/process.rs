//! The program itself: killed, out of space, bounded in memory.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn kdt(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdt"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until there is a file, or the child has ended.
fn wait_for(path: &Path, child: &mut Child) {
    let start = Instant::now();
    while !path.exists() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_mins(2), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_in_the_middle_it_goes_on_where_it_stopped() {
    let desk = Desk::new();
    let dump = desk.file("vmcore", &noise(1, 48 * MIB));
    let package = desk.package();
    let words = [
        "pack",
        text(&dump),
        "-o",
        text(&package),
        "--case",
        "02345678",
        "--part-size",
        "4MiB",
        "--level",
        "19",
    ];
    for part in ["part-0002", "part-0005", "part-0009"] {
        let mut child = kdt(&words).spawn().unwrap();
        wait_for(&package.join(".kdt-pack").join(part), &mut child);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it was done before {part} was there");
        assert_eq!(names(&package), [".kdt-pack"]);
    }
    let done = kdt(&words).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains("of them by an earlier run"), "{said}");
    assert_eq!(desk.verify().problems, []);
    assert_eq!(names(&package).len(), desk.verify().package.manifest.parts.len() + 2);
}

#[test]
fn a_ctrl_c_ends_with_130_and_leaves_nothing_under_a_final_name() {
    let desk = Desk::new();
    let dump = desk.file("vmcore", &noise(1, 48 * MIB));
    let package = desk.package();
    let mut child = kdt(&["pack", text(&dump), "-o", text(&package), "--part-size", "4MiB", "--level", "19"])
        .spawn()
        .unwrap();
    wait_for(&package.join(".kdt-pack/part-0003"), &mut child);
    let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(names(&package), [".kdt-pack"]);
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let desk = Desk::new();
    let peak = |length: u64| {
        let path = desk.path("in/vmcore");
        let _ = fs::remove_file(&path);
        // Noise at the start, that the frames are not all alike, and a hole of the length asked for.
        fs::write(&path, noise(1, 8 * MIB)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let package = desk.path(&format!("package-{length}"));
        let mut child = kdt(&["pack", "-j", "2", text(&path), "-o", text(&package)]).spawn().unwrap();
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0) << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(child.wait().unwrap().success());
        peak
    };
    let small = peak(128 * MIB);
    let large = peak(1024 * MIB);
    assert!(large < 128 * MIB, "{} MiB", large / MIB);
    assert!(large < small + 16 * MIB, "{} MiB for 128 MiB, {} MiB for 1 GiB", small / MIB, large / MIB);
}

#[test]
fn a_full_disk_is_named_and_more_space_is_enough_to_go_on() {
    let desk = Desk::new();
    let dump = desk.file("vmcore", &noise(1, 12 * MIB));
    let mount = desk.path("disk");
    fs::create_dir(&mount).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "kdt-test", text(&mount)]).output();
    if !mounted.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: mounting a tmpfs is not permitted (run the tests as root)");
        return;
    }
    let unmount = Unmount(mount.clone());
    let package = mount.join("package");
    let words = ["pack", text(&dump), "-o", text(&package), "--case", "02345678", "--part-size", "2MiB"];
    let refused = kdt(&words).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(8), "{said}");
    assert!(said.contains("package has ") && said.contains(" free, and up to 12 MiB are needed"), "{said}");
    assert_eq!(names(&package), [""; 0]);
    let full = kdt(&[&words[..], &["--no-space-check"]].concat()).output().unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(8), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("hint: free some space and run the same command again"), "{said}");
    assert_eq!(names(&package), [".kdt-pack"]);
    let grown = Command::new("mount").args(["-o", "remount,size=32m", text(&mount)]).status().unwrap();
    assert!(grown.success());
    let done = kdt(&words).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let verified = verify(&package, Depth::Artifacts, &Quiet, &Cancel::default()).unwrap();
    assert_eq!(verified.problems, []);
    // Unpacking on a disk that is too small says so before it writes.
    let small = Command::new("mount").args(["-o", "remount,size=16m", text(&mount)]).status().unwrap();
    assert!(small.success());
    let out = mount.join("out");
    let refused = kdt(&["unpack", text(&package), "-o", text(&out)]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(8), "{said}");
    assert!(said.contains("free, and up to 12 MiB are needed") && !out.exists(), "{said}");
    // A disk that takes no write at all.
    let fixed = Command::new("mount").args(["-o", "remount,ro", text(&mount)]).status().unwrap();
    assert!(fixed.success());
    let other = mount.join("other");
    let refused = kdt(&["pack", text(&dump), "-o", text(&other)]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    drop(unmount);
}

/// Unmounts when the test ends, however it ends.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_package_goes_to_a_folder_and_what_was_damaged_there_is_sent_again() {
    let desk = Desk::new();
    let dump = desk.file("vmcore", &noise(1, 5 * MIB));
    desk.pack(&[dump]);
    let (from, to) = (desk.package(), desk.path("to"));
    let url = format!("file://{}", to.display());
    let done = kdt(&["send", text(&from), &url, "--format", "json"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let receipt: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(from.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(receipt["root_digest"], manifest["root_digest"]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&fs::read(to.join("receipt.json")).unwrap()).unwrap(),
        receipt
    );
    let part = to.join(desk.part(2).file_name().unwrap());
    change(&part, |bytes| bytes[100] ^= 1);
    let said = |words: &[&str]| {
        let done = kdt(words).output().unwrap();
        (
            done.status.code().unwrap(),
            String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap(),
        )
    };
    let (code, text_said) = said(&["verify", text(&to)]);
    assert_eq!(code, 5);
    assert!(text_said.contains("02345678.part-0002-of-0006 is damaged"), "{text_said}");
    let (code, text_said) = said(&["send", text(&from), text(&to)]);
    assert_eq!(code, 0, "{text_said}");
    assert!(text_said.contains("5 of them had been there"), "{text_said}");
    assert_eq!(said(&["verify", text(&to)]).0, 0);
    // A damaged package is not sent on.
    change(&desk.part(3), |bytes| bytes[100] ^= 1);
    let (code, text_said) = said(&["send", text(&from), text(&desk.path("elsewhere"))]);
    assert_eq!(code, 5);
    assert!(
        text_said.contains("02345678.part-0003-of-0006 is damaged, so the package is not sent on"),
        "{text_said}"
    );
    assert!(!desk.path("elsewhere/manifest.json").exists());
    // Neither is a folder that holds another package written to.
    let other = Desk::new();
    other.pack(&[other.file("x", b"x")]);
    let (code, text_said) = said(&["send", text(&other.package()), text(&to)]);
    assert_eq!(code, 2, "{text_said}");
    assert!(text_said.contains("holds another package, of case 02345678"), "{text_said}");
}
