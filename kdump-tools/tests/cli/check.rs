//! `kdt check`: sound dumps are clean, and each damaged page is named.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use fixtures::codec::Codec;
use fixtures::elf::Elf;
use fixtures::flattened::Flattened;
use fixtures::kdump::Kdump;
use fixtures::machine::Machine;
use serde_json::Value;
use vmcore::addr::Pfn;
use vmcore::{Dump, OpenOptions, PhysicalMemory};

use crate::support::{Ran, run, schema, scratch};

fn check(paths: &[&Path], rest: &[&str]) -> Ran {
    let paths = paths.iter().map(|path| path.as_os_str());
    run(std::iter::once(OsStr::new("check")).chain(paths).chain(rest.iter().map(OsStr::new)))
}

fn json(path: &Path) -> (i32, Value) {
    let ran = check(&[path], &["--format=json", "--digest"]);
    let document = ran.json();
    schema::fits("check-1", &document);
    (ran.code, document)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

#[test]
fn the_committed_dump_is_clean() {
    let (code, document) = json(&committed());
    assert_eq!((code, document["verdict"].as_str()), (0, Some("clean")));
    assert_eq!(document["pages"]["decoded"], 17_030);
    assert_eq!(document["pages"]["excluded"], 44_271);
    assert_eq!(document["bad"]["runs"], 0);
    let human = check(&[&committed()], &[]);
    assert!(human.stdout.contains("clean: every page decodes"), "{}", human.stdout);
}

#[test]
fn a_container_and_a_codec_do_not_change_the_digest() {
    let dir = scratch();
    let machine = Machine::default().build();
    let mut digests = Vec::new();
    for codec in Codec::ALL {
        let dump = Kdump { notes: machine.notes.clone(), ..Kdump::of(codec) }.build(&machine.memory);
        digests.push((write(dir.path(), &format!("{codec:?}"), &dump.bytes()), 0));
        let flat = Flattened::default().build(&dump);
        digests.push((write(dir.path(), &format!("flat-{codec:?}"), &flat.bytes()), 0));
    }
    let mut seen: Vec<Value> = Vec::new();
    for (path, expected) in digests {
        let (code, document) = json(&path);
        assert_eq!(code, expected, "{}", path.display());
        seen.push(document["digest"].clone());
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    assert!(!seen[0].is_null());
}

#[test]
fn each_changed_byte_of_a_zlib_page_is_found_where_it_is() {
    let dir = scratch();
    let machine = Machine::default().build();
    let dump = Kdump { notes: machine.notes.clone(), ..Kdump::of(Codec::Zlib) }.build(&machine.memory);
    let bytes = dump.bytes();
    let path = write(dir.path(), "vmcore", &bytes);
    let opened = Dump::open(&path, &OpenOptions::default()).unwrap();
    // The pages lie at the end: from there on each changed byte is of a page.
    let mut found = 0;
    for back in [30, 200, 1000, 3000] {
        let mut bad = bytes.clone();
        let at = bad.len() - back;
        bad[at] ^= 0x10;
        let path = write(dir.path(), "bad", &bad);
        let damaged = Dump::open(&path, &OpenOptions::default()).unwrap();
        let expected: Vec<u64> = (0..opened.end_pfn().0)
            .filter(|pfn| {
                let mut page = [0; 4096];
                opened.read_frame(Pfn(*pfn), &mut page).is_ok()
                    && damaged.read_frame(Pfn(*pfn), &mut page).is_err()
            })
            .collect();
        let (code, document) = json(&path);
        if expected.is_empty() {
            // A byte that belongs to no page.
            assert_eq!(code, 0, "{document}");
            continue;
        }
        found += 1;
        assert_eq!((code, document["verdict"].as_str()), (5, Some("corrupt")), "{document}");
        let run = &document["bad"]["first"][0];
        assert_eq!(run["first_pfn"], expected[0]);
        assert_eq!((run["fault"].as_str(), run["codec"].as_str()), (Some("corrupt"), Some("zlib")));
        let offset = run["file_offset"].as_u64().unwrap();
        assert!(offset <= at as u64 && at as u64 - offset < 4096, "{offset:#x} for {at:#x}");
        assert_eq!(document["digest"], Value::Null);
        let human = check(&[&path], &[]);
        assert_eq!(human.code, 5);
        assert!(human.stdout.contains("CORRUPT") && human.stdout.contains("(zlib)"), "{}", human.stdout);
    }
    assert!(found > 0, "no byte was of a page");
}

#[test]
fn a_dump_that_was_cut_is_incomplete() {
    let dir = scratch();
    let machine = Machine::default().build();
    let kdump = Kdump { notes: machine.notes.clone(), ..Kdump::of(Codec::Zstd) }.build(&machine.memory);
    let elf = Elf { notes: machine.notes.clone(), page_offset: machine.page_offset, ..Elf::default() };
    let elf = elf.build(&machine.memory).bytes();
    let whole = write(dir.path(), "elf", &elf);
    assert_eq!(json(&whole).0, 0);
    for (name, bytes) in [("kdump", kdump.bytes()), ("elf", elf)] {
        let path = write(dir.path(), name, &bytes[..bytes.len() - 2000]);
        let (code, document) = json(&path);
        assert_eq!((code, document["verdict"].as_str()), (4, Some("incomplete")), "{document}");
        assert!(document["pages"]["lost"].as_u64().unwrap() > 0);
        assert_eq!(document["pages"]["corrupt"], 0);
        assert_eq!(document["bad"]["first"][0]["fault"], "lost");
        let told = check(&[&path], &["--canary", "what no page has"]).stdout;
        assert!(told.contains("not found, but not all pages can be read"), "{told}");
    }
}

#[test]
fn what_is_no_dump_is_not_usable() {
    let dir = scratch();
    let path = write(dir.path(), "text", b"no dump at all\n");
    check(&[&path], &[]).fails(3, "not a memory dump");
    assert_eq!(json(&path).1["verdict"], "unusable");
    check(&[&path, &committed()], &["--jobs=1"]).fails(4, "not a memory dump");
}
