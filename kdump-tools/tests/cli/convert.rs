//! The small real dump, in every container and back; sets that are joined; and `kdt` called as makedumpfile.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, ran, run, scratch};

fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump")
}

/// What all pages of a dump hold.
#[track_caller]
fn digest(dump: &Path) -> String {
    let told = run(["check".as_ref(), "--digest".as_ref(), "--format=json".as_ref(), dump.as_os_str()]);
    told.json()["digest"].to_string()
}

fn convert(to: &Path, words: &[&str]) -> Ran {
    let paths = [source().into_os_string(), to.into()];
    run(["convert".into()].into_iter().chain(paths).chain(words.iter().map(Into::into)))
}

#[test]
fn every_container_keeps_every_page() {
    let dir = scratch();
    let expected = digest(&source());
    let forms: [&[&str]; 8] = [
        &["--to", "kdump"],
        &["--to", "kdump", "-c"],
        &["--to", "kdump", "-l"],
        &["--to", "kdump", "-p"],
        &["--to", "kdump", "--raw"],
        &["--to", "elf"],
        &["--to", "flattened"],
        &["--to", "flattened", "-l", "--no-verify"],
    ];
    for (number, words) in forms.into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        let ran = convert(&path, words);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(digest(&path), expected, "{words:?}");
    }
    // And back from ELF, which has no codecs.
    let back = dir.path().join("back");
    let elf = dir.path().join("5");
    assert_eq!(run(["convert".as_ref(), elf.as_os_str(), back.as_os_str(), "--to=kdump".as_ref()]).code, 0);
    assert_eq!(digest(&back), expected);
}

#[test]
fn an_image_has_no_silent_zeros() {
    let dir = scratch();
    let path = dir.path().join("image");
    convert(&path, &["--to", "raw"]).fails(3, "an image of memory can't say so");
    assert!(!path.exists());
    let ran = convert(&path, &["--to", "raw", "--zero-missing"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("they are zeros in"), "{ran:?}");
    let dump = vmcore::Dump::open(source(), &vmcore::OpenOptions::default()).unwrap();
    let image = fs::read(&path).unwrap();
    let mut page = [0; 4096];
    let first = vmcore::PhysicalMemory::next_present(&dump, vmcore::addr::Pfn(0)).unwrap();
    for pfn in (first.0..).step_by(97).take(300) {
        if dump.read_frame(vmcore::addr::Pfn(pfn), &mut page).is_ok() {
            let at = usize::try_from(pfn).unwrap() * 4096;
            assert!(image[at..at + 4096] == page, "pfn {pfn:#x}");
        }
    }
}

#[test]
fn what_was_cut_off_is_marked_as_missing() {
    let dir = scratch();
    let (cut, copy) = (dir.path().join("cut"), dir.path().join("copy"));
    let bytes = fs::read(source()).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    for command in ["convert", "filter"] {
        let words: &[&str] = if command == "convert" { &["--to=kdump", "-f"] } else { &["-d0", "-f"] };
        let ran = run([command.as_ref(), cut.as_os_str(), copy.as_os_str()]
            .into_iter()
            .chain(words.iter().map(AsRef::as_ref)));
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stderr.contains("says that they are missing"), "{ran:?}");
        let open = |path: &Path| vmcore::Dump::open(path, &vmcore::OpenOptions::default()).unwrap();
        let (cut, copy) = (open(&cut).completeness().clone(), open(&copy).completeness().clone());
        assert!(cut.lost_pages > 0 && copy.incomplete_flag);
        assert_eq!(
            (copy.present_pages, copy.excluded_pages, copy.lost_pages),
            (cut.present_pages, cut.excluded_pages, cut.lost_pages),
            "{command}"
        );
    }
}

#[test]
fn a_set_is_joined_in_any_order_and_says_what_is_missing() {
    let dir = scratch();
    let name = |name: &str| dir.path().join(name).into_os_string();
    let split = ["filter", "-z", "-d0", "--split=3"].map(Into::into);
    assert_eq!(run(split.into_iter().chain([source().into(), name("set")])).code, 0);
    let ran = run(["join".into(), name("set.3"), name("set.1"), name("set.2"), name("whole")]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(digest(Path::new(&name("whole"))), digest(&source()));
    let ran = run(["join".into(), name("set.3"), name("set.1"), name("less")]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("no part was named that has the frames 0x"), "{ran:?}");

    let other = ["filter", "-l", "-d31", "--split=2"].map(Into::into);
    assert_eq!(run(other.into_iter().chain([source().into(), name("other")])).code, 0);
    let foreign = fs::read(name("other.1")).unwrap();
    let mut foreign_time = foreign.clone();
    foreign_time[408] ^= 1;
    fs::write(name("other.1"), foreign_time).unwrap();
    run(["join".into(), name("set.3"), name("other.1"), name("no")])
        .fails(3, "does not belong to the same split set");
    run(["join".into(), name("whole"), name("no")]).fails(2, "is a whole dump: there is nothing to join");
    run(["join".into(), name("set.1"), name("set.1")]).fails(2, "a source is never changed");
}

#[test]
fn a_stream_is_rearranged_and_one_that_was_cut_keeps_what_arrived() {
    let dir = scratch();
    let (flat, plain) = (dir.path().join("flat"), dir.path().join("plain"));
    assert_eq!(convert(&flat, &["--to", "flattened", "-l"]).code, 0);
    assert_eq!(convert(&plain, &["--to", "kdump", "-l"]).code, 0);
    let joined = dir.path().join("joined");
    assert_eq!(run(["join".as_ref(), flat.as_os_str(), joined.as_os_str()]).code, 0);
    assert!(
        fs::read(&joined).unwrap() == fs::read(&plain).unwrap(),
        "the same bytes as a file that was written at once"
    );
    let cut = dir.path().join("cut");
    let bytes = fs::read(&flat).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let ran = run(["join".as_ref(), cut.as_os_str(), joined.as_os_str(), "-f".as_ref()]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let dump = vmcore::Dump::open(&joined, &vmcore::OpenOptions::default()).unwrap();
    assert!(dump.completeness().present_pages > 100 && dump.completeness().lost_pages > 100);
}

fn makedumpfile(dir: &Path, line: &[&str]) -> Ran {
    let name = dir.join("makedumpfile");
    if !name.exists() {
        symlink(env!("CARGO_BIN_EXE_kdt"), &name).unwrap();
    }
    ran(&Command::new(name).args(line).current_dir(dir).output().unwrap())
}

#[test]
fn called_as_makedumpfile_it_takes_its_lines_and_ends_with_its_codes() {
    let dir = scratch();
    let there = |name: &str| dir.path().join(name);
    let source = source();
    let source = source.to_str().unwrap();
    let ran = makedumpfile(dir.path(), &["-l", "--message-level", "7", "-d", "31", source, "new"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.ends_with("makedumpfile Completed.\n"), "{ran:?}");
    assert!(
        !there("new.sha256").exists(),
        "kdump renames the dump, which a digest beside it does not follow"
    );
    let again = makedumpfile(dir.path(), &["-ld31", source, "new"]);
    assert!(again.code == 1 && again.stderr.contains("there already"), "{again:?}");

    assert_eq!(makedumpfile(dir.path(), &["--split", "-z", "-d", "31", source, "a", "b"]).code, 0);
    assert_eq!(makedumpfile(dir.path(), &["--reassemble", "b", "a", "ab"]).code, 0);
    assert_eq!(digest(&there("ab")), digest(&there("new")));

    let ran = makedumpfile(dir.path(), &["--dump-dmesg", source, "dmesg"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let kept = fs::read_to_string(Path::new(source).with_extension("dmesg")).unwrap();
    assert_eq!(fs::read_to_string(there("dmesg")).unwrap(), kept);

    let quiet =
        makedumpfile(dir.path(), &["--message-level", "0", "-zf", "-d1", "-L", "3000000", source, "short"]);
    assert_eq!(quiet.code, 1, "{quiet:?}");
    assert!(quiet.stderr.contains("leaves no room for") && !quiet.stderr.contains("note:"), "{quiet:?}");
    assert!(fs::metadata(there("short")).unwrap().len() <= 3_000_000);

    makedumpfile(dir.path(), &["--bogus", "a", "b"]).fails(1, "makedumpfile has no option --bogus");
    assert_eq!(makedumpfile(dir.path(), &["--check-params", "-l", "-d", "31", "vmcore", "dumpfile"]).code, 0);
    let version = makedumpfile(dir.path(), &["-v"]);
    assert!(version.code == 0 && version.stdout.starts_with("makedumpfile: version "), "{version:?}");
}

#[test]
fn a_stream_on_stdout_comes_back_through_a_pipe() {
    let dir = scratch();
    let source = source();
    // The line of kdump.conf, to which the file is added.
    let out = crate::support::kdt()
        .args(["filter", "-F", "-l", "--message-level", "7", "-d", "31"])
        .arg(&source)
        .stdout(fs::File::create(dir.path().join("flat")).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success());
    makedumpfile(dir.path(), &["-v"]);
    let out = Command::new(dir.path().join("makedumpfile"))
        .args(["-R", "plain"])
        .current_dir(dir.path())
        .stdin(fs::File::open(dir.path().join("flat")).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(digest(&dir.path().join("plain")), digest(&dir.path().join("flat")));
}
