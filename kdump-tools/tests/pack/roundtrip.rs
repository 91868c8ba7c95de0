//! What goes in comes out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use kdump_tools::pack::Kind;
use proptest::prelude::*;

use super::*;

#[test]
fn files_of_all_lengths_around_a_part_come_back() {
    let desk = Desk::new();
    let lengths = [0, 1, 511, 512, 513, MIB - 1, MIB, MIB + 1, 3 * MIB + 7];
    let files: Vec<PathBuf> =
        lengths.iter().map(|length| desk.file(&format!("f{length}"), &noise(*length, *length))).collect();
    let packed = desk.pack(&files);
    assert!(packed.manifest.parts.len() > 6);
    assert!(packed.manifest.parts.iter().all(|part| part.size <= MIB));
    assert_eq!(desk.verify().problems, []);
    assert_eq!(desk.verify().artifacts_right, Some(lengths.len()));
    let done = desk.unpack().unwrap();
    assert_eq!(done.written.len(), lengths.len());
    for length in lengths {
        assert_eq!(desk.unpacked(&format!("f{length}")), noise(length, length), "{length}");
    }
}

#[test]
fn the_report_travels_first_in_a_part_of_its_own() {
    let desk = Desk::new();
    let dump = desk.file("vmcore", &noise(1, 3 * MIB));
    let report = desk.file("report.json", b"{}");
    let text = desk.file("report.txt", b"it crashed");
    let packed = desk.pack(&[dump, report, text]);
    let artifacts: Vec<_> = packed.manifest.artifacts.iter().map(|a| (a.name.as_str(), a.kind)).collect();
    assert_eq!(
        artifacts,
        [("report.json", Kind::Report), ("report.txt", Kind::Report), ("vmcore", Kind::Vmcore)]
    );
    let first = &packed.manifest.parts[0];
    assert_eq!(first.holds.iter().map(|hold| hold.artifact).collect::<Vec<_>>(), [0, 1]);
    assert!(first.size < 1024, "{}", first.size);
    assert!(packed.manifest.parts[1..].iter().all(|part| part.holds.iter().all(|hold| hold.artifact == 2)));
}

#[test]
fn odd_names_and_folders_come_back() {
    let desk = Desk::new();
    let long = "n".repeat(250);
    let names: [&[u8]; 6] =
        [b"with space", b"line\nbreak", b"\xff\xfe not text", b"-rf", b"sub/dir/deep", long.as_bytes()];
    for (seed, name) in (1..).zip(names) {
        let path = desk.path("in").join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(seed, 1000 * seed)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", desk.path("in").join("link")).unwrap();
    fs::create_dir(desk.path("in").join("empty")).unwrap();
    let packed = desk.pack(&[desk.path("in")]);
    let left_out: Vec<&str> = packed.manifest.left_out.iter().map(|left| left.why.as_str()).collect();
    assert_eq!(left_out, ["the folder is empty", "it is a symbolic link"]);
    assert_eq!(desk.verify().problems, []);
    assert_eq!(desk.unpack().unwrap().written.len(), 6);
    for (seed, name) in (1..).zip(names) {
        let path = desk.path("out/in").join(OsStr::from_bytes(name));
        assert_eq!(fs::read(&path).unwrap(), noise(seed, 1000 * seed), "{}", path.display());
    }
    assert!(!desk.path("out/in/link").exists());
}

#[test]
fn dumps_of_the_same_name_are_told_apart_by_their_folders() {
    let desk = Desk::new();
    let one = desk.file("127.0.0.1-2026-11-22-06:07:36/vmcore", b"one");
    let two = desk.file("127.0.0.1-2026-11-22-07:00:00/vmcore", b"two");
    let again = one.clone();
    let packed = desk.pack(&[one, two, again]);
    let names: Vec<&str> = packed.manifest.artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1-2026-11-22-06:07:36/vmcore", "127.0.0.1-2026-11-22-07:00:00/vmcore"]);
    desk.unpack().unwrap();
    assert_eq!(desk.unpacked("127.0.0.1-2026-11-22-07:00:00/vmcore"), b"two");
}

#[test]
fn holes_stay_holes() {
    let desk = Desk::new();
    let path = desk.path("in/sparse");
    let file = File::create(&path).unwrap();
    file.set_len(256 * MIB).unwrap();
    file.write_all_at(b"end", 200 * MIB).unwrap();
    let packed = desk.pack(&[path]);
    assert!(packed.packed_bytes() < MIB, "{}", packed.packed_bytes());
    desk.unpack().unwrap();
    let meta = fs::metadata(desk.path("out/sparse")).unwrap();
    assert_eq!(meta.len(), 256 * MIB);
    assert!(meta.blocks() * 512 < MIB, "{} bytes are used", meta.blocks() * 512);
    let mut end = [0; 4];
    File::open(desk.path("out/sparse")).unwrap().read_exact_at(&mut end, 200 * MIB).unwrap();
    assert_eq!(&end, b"end\0");
}

#[test]
fn packages_are_for_the_owner_alone_and_times_are_kept() {
    let desk = Desk::new();
    let file = desk.file("vmcore", b"memory");
    let script = desk.file("script", b"#!/bin/sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o4777)).unwrap();
    let packed = desk.pack(&[file.clone(), script]);
    for name in names(&packed.dir) {
        let mode = fs::metadata(packed.dir.join(&name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    desk.unpack().unwrap();
    let (was, is) = (fs::metadata(file).unwrap(), fs::metadata(desk.path("out/vmcore")).unwrap());
    assert_eq!(was.mtime(), is.mtime());
    assert_eq!(fs::metadata(desk.path("out/script")).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_second_unpack_writes_nothing_and_another_file_is_not_overwritten() {
    let desk = Desk::new();
    let (a, b) = (desk.file("a", &noise(1, 5000)), desk.file("b", b""));
    desk.pack(&[a, b]);
    assert_eq!(desk.unpack().unwrap().written.len(), 2);
    let again = desk.unpack().unwrap();
    assert_eq!((again.written.len(), again.already.len()), (0, 2));
    fs::write(desk.path("out/a"), "mine").unwrap();
    let error = desk.unpack().unwrap_err();
    assert!(
        error.to_string().ends_with("out/a is there already, and is not what the package has"),
        "{error}"
    );
    assert_eq!(error.exit().code(), 2);
    assert_eq!(desk.unpacked("a"), b"mine");
}

#[test]
fn nothing_is_written_through_a_link() {
    let desk = Desk::new();
    desk.file("d/f", b"bytes");
    desk.pack(&[desk.path("in/d")]);
    fs::create_dir(desk.path("out")).unwrap();
    fs::create_dir(desk.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(desk.path("elsewhere"), desk.path("out/d")).unwrap();
    let error = desk.unpack().unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!(names(&desk.path("elsewhere")), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_set_of_files_comes_back(
        files in prop::collection::vec((0_u64..3_000_000, any::<u64>(), any::<bool>()), 1..12),
    ) {
        let desk = Desk::new();
        let mut sources = Vec::new();
        for (index, (length, seed, compresses)) in files.iter().enumerate() {
            let bytes = if *compresses { vec![b'x'; usize::try_from(*length).unwrap()] } else { noise(*seed, *length) };
            sources.push(desk.file(&format!("f{index}"), &bytes));
        }
        desk.pack(&sources);
        prop_assert_eq!(desk.verify().problems, []);
        desk.unpack().unwrap();
        for source in sources {
            let name = source.file_name().unwrap().to_str().unwrap().to_owned();
            prop_assert!(desk.unpacked(&name) == fs::read(source).unwrap(), "{} differs", name);
        }
    }
}
