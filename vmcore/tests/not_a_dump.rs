//! Things that a tired person names in place of a dump.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod support;

use std::path::Path;

use fixtures::shuffle::Seed;
use support::assert_readable;
use vmcore::{Dump, OpenOptions};

fn refusal(path: &Path) -> String {
    let why = Dump::open(path, &OpenOptions::default()).expect_err("it opened");
    assert_readable(&why.hint());
    why.kind.to_string()
}

#[test]
fn what_is_no_dump_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "empty"),
        ("a text", b"Kernel panic - not syncing: this is only a console log\n", "text"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03 and so on", "gzip"),
        ("xz", b"\xfd7zXZ\0\0\x04 and so on", "xz"),
        ("zstd", b"\x28\xb5\x2f\xfd and so on", "zstd"),
        ("script", b"#!/bin/sh\necho dump\n", ""),
        ("one byte", b"K", ""),
        ("half a signature", b"KDUM", ""),
        ("half an elf", b"\x7fEL", ""),
        ("zeros", &[0; 8192], ""),
    ];
    for (name, bytes, words) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = refusal(&path);
        assert_readable(&text);
        assert!(text.contains(words), "{name}: {text}");
    }
    let path = folder.path().join("noise");
    std::fs::write(&path, Seed(1).bytes(100_000)).unwrap();
    assert_readable(&refusal(&path));
}

#[test]
fn what_is_no_file_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("a directory"));
    assert_readable(&refusal(Path::new("/dev/null")));
    assert_readable(&refusal(&folder.path().join("nothing")));
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    // It must not wait for a writer.
    assert_readable(&refusal(&fifo));
}
