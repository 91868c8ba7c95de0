//! `--vmlinux`: what is of no use is refused before anything is analysed.

use std::process::Command;

use crate::support::{run, scratch};

fn dump() -> String {
    format!("{}/../fixtures/data/panic-6.1.kdump", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_vmlinux_that_is_none_is_named_for_what_it_is() {
    let dir = scratch();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "hello\n").unwrap();
    let ran = run(["triage", "-q", "--vmlinux", text.to_str().unwrap(), &dump()]);
    ran.fails(3, "notes.txt is a text file, not a vmlinux with debuginfo");
    let gone = dir.path().join("gone");
    run(["triage", "-q", "--vmlinux", gone.to_str().unwrap(), &dump()]).fails(3, "gone can't be read");
}

#[test]
fn the_vmlinux_of_another_build_is_refused_and_the_right_package_named() {
    let dir = scratch();
    let (source, path) = (dir.path().join("a.c"), dir.path().join("vmlinux"));
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let options = ["-g", "-Wl,--build-id=sha1", "-nostdlib", "-Wl,-e,main", "-static"];
    let built = Command::new("gcc").args(options).arg(&source).arg("-o").arg(&path).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no gcc");
        return;
    }
    let ran = run(["triage", "-q", "--vmlinux", path.to_str().unwrap(), &dump()]);
    ran.fails(3, "is of another kernel: its build id is ");
    assert!(ran.stderr.contains("hint: the right one is in the package linux-image-6.1.0-"), "{ran:?}");
}
