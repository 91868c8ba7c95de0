//! The standard tools read a package without kdt.

use std::process::{Command, Output};

use super::*;

/// Runs a line of shell in a folder, or names the tool that is not there and gives `None`.
fn shell(folder: &Path, needs: &[&str], line: &str) -> Option<Output> {
    for tool in needs {
        let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        if !there.status.success() {
            eprintln!("skipped: {tool} is not installed (apt-get install {tool})");
            return None;
        }
    }
    Some(Command::new("sh").current_dir(folder).args(["-c", line]).output().unwrap())
}

fn desk() -> Desk {
    let desk = Desk::new();
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
    let files = [
        desk.file("vmcore", &noise(1, 3 * MIB)),
        desk.file("report.json", b"{\"panic\":true}"),
        desk.file("empty", b""),
    ];
    desk.file(&format!("tree/{long}"), b"long name");
    desk.file("tree/with space", b"space");
    let sources = [&files[..], &[desk.path("in/tree")]].concat();
    desk.pack(&sources);
    desk
}

#[test]
fn sha256sum_accepts_the_digests() {
    let desk = desk();
    let Some(done) = shell(&desk.package(), &["sha256sum"], "sha256sum --strict -c SHA256SUMS") else {
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said.lines().count(), names(&desk.package()).len() - 1);
    assert!(said.lines().all(|line| line.ends_with(": OK")), "{said}");
}

#[test]
fn zstd_and_tar_give_every_file_back() {
    let desk = desk();
    fs::create_dir(desk.path("out")).unwrap();
    let line = format!(
        "cat {}/*.part-* | zstd -dc | tar xf - && diff -r . {} -x tree && diff -r tree {}",
        desk.package().display(),
        desk.path("in").display(),
        desk.path("in/tree").display()
    );
    let Some(done) = shell(&desk.path("out"), &["zstd", "tar"], &line) else { return };
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_first_part_alone_gives_the_report() {
    let desk = desk();
    let line = "zstd -dc *.part-0001-of-* | tar xOf - report.json";
    let Some(done) = shell(&desk.package(), &["zstd", "tar"], line) else { return };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.stdout, b"{\"panic\":true}");
}

#[test]
fn every_part_alone_is_a_whole_zstd_file() {
    let desk = desk();
    let Some(done) = shell(&desk.package(), &["zstd"], "zstd -t *.part-*") else { return };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn python_reads_the_headers_as_they_are_meant() {
    let desk = desk();
    let line = "cat *.part-* | zstd -dc > ../all.tar && python3 -c \"import tarfile; print([(m.name, m.size, oct(m.mode)) for m in tarfile.open('../all.tar')])\"";
    let Some(done) = shell(&desk.package(), &["zstd", "python3"], line) else { return };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.starts_with(
            "[('report.json', 14, '0o644'), ('vmcore', 3145728, '0o644'), ('empty', 0, '0o644'), "
        ),
        "{said}"
    );
    assert!(said.contains(&format!("('tree/{}/{}', 9, ", "d".repeat(120), "n".repeat(120))), "{said}");
}
