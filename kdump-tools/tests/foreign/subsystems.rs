//! Disks, network, control groups, mounts, files, timers, interrupts, workqueues, settings, run queues and BPF, by drgn and crash.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{dumps, have, skip, vmlinux_of};

/// The script compares value by value, prints each difference, and fails where there is one.
#[test]
fn subsystems_are_those_of_drgn_and_crash_with_debuginfo() {
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
        run.arg(top.join("fixtures/foreign/subsystems.py"))
            .arg(env!("CARGO_BIN_EXE_kdt"))
            .arg(&dump)
            .arg(vmlinux);
        if let Some(crash) = std::env::var_os("KDT_FOREIGN_CRASH_COMMAND") {
            run.arg("--crash").arg(crash);
        }
        let out = run.current_dir(&top).output().unwrap();
        let (told, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        eprintln!("{}:\n{told}", dump.display());
        assert!(out.status.success(), "{}: {told}{why}", dump.display());
        compared += 1;
    }
    assert!(compared > 0, "no dump was compared");
}
