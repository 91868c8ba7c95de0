//! What the tests share: run a plan from spec text, and read the bundle back with a foreign eye.

pub(crate) mod dead_fs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sosreport_lite::{
    Cancel, CollectError, ItemStatus, Limits, Options, Outcome, Quiet, ReaderCommand, plan_from_text, run,
};

/// The collector's own binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_sosreport-lite");

/// Options as the binary has them, for a bundle in `out`.
pub(crate) fn options(out: &Path) -> Options {
    Options { out: out.into(), reader: Some(ReaderCommand::program(BINARY)), ..Options::default() }
}

/// One plugin `t` with these tables.
pub(crate) fn spec(tables: &str) -> String {
    format!("[[plugin]]\nname = \"t\"\n{tables}")
}

/// Runs spec text.
pub(crate) fn collect(options: &Options, text: &str) -> Result<Outcome, CollectError> {
    run(&plan_from_text(options, text)?, &Quiet, &Cancel::default())
}

/// Limits with short patience.
pub(crate) fn hasty() -> Limits {
    use std::time::Duration;
    Limits {
        file_time: Duration::from_secs(1),
        term_grace: Duration::from_millis(300),
        reap_grace: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// A record of the bundle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// The records of a bundle in order, without its top directory.
pub(crate) fn records(path: &Path) -> Vec<(Vec<u8>, Record)> {
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(File::open(path).unwrap()));
    let mut records = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let full = entry.path_bytes().into_owned();
        let path = full.splitn(2, |b| *b == b'/').nth(1).unwrap_or_default().to_vec();
        let record = match entry.header().entry_type() {
            tar::EntryType::Directory => Record::Dir,
            tar::EntryType::Symlink => Record::Link(entry.link_name_bytes().unwrap().into_owned()),
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Record::File(bytes)
            }
        };
        records.push((path, record));
    }
    records
}

/// The same by path.
pub(crate) fn bundle(path: &Path) -> BTreeMap<Vec<u8>, Record> {
    records(path).into_iter().collect()
}

/// The text of a file in the bundle.
pub(crate) fn text(path: &Path, name: &str) -> String {
    match bundle(path).remove(name.as_bytes()) {
        Some(Record::File(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        other => panic!("{name} is {other:?}"),
    }
}

/// The manifest of the bundle.
pub(crate) fn manifest(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path, "sos_reports/manifest.json")).unwrap()
}

/// The status of the only item.
pub(crate) fn only_status(outcome: &Outcome) -> &ItemStatus {
    assert_eq!(outcome.items.len(), 1, "{:?}", outcome.items);
    &outcome.items[0].status
}

/// The files of a directory, by name.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        dir.read_dir().unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// True if a process has this word in its command line.
fn is_running(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let digits = path.file_name().is_some_and(|n| n.as_bytes().iter().all(u8::is_ascii_digit));
        let own = path.ends_with(std::process::id().to_string());
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        digits && !own && String::from_utf8_lossy(&line).contains(word)
    })
}

/// Whether it comes to an end: one that was killed a moment ago can still be there on a busy machine.
pub(crate) fn ends(word: &str) -> bool {
    (0..100).any(|_| {
        let gone = !is_running(word);
        if !gone {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        gone
    })
}

/// A small filesystem that is unmounted at the end; `None`, with the reason told, where it can't be had.
pub(crate) struct SmallFs(pub(crate) PathBuf);

impl SmallFs {
    pub(crate) fn new(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap().keep();
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "small"])
            .arg(&dir)
            .output();
        match made {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!(
                    "SKIPPED: a small tmpfs can't be mounted: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(e) => {
                println!("SKIPPED: there is no mount program: {e}");
                None
            }
        }
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The first bytes of a file under its final name, to see what it is.
pub(crate) fn first_bytes(path: &Path, from: u64, count: usize) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    let mut bytes = vec![0; count];
    file.read_exact(&mut bytes).unwrap();
    bytes
}
