//! Files that are something else, or damaged: a sentence, and no panic.

use std::path::Path;
use std::process::Command;

use vmcore::addr::KVirtAddr;
use vmcore::limits::Limits;
use vmcore::sym::dwarf::{self, Debuginfo, Lines, LinkedSymbols};

use super::build;

fn refused(path: &Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).unwrap();
    let error = Debuginfo::open(path, &Limits::default()).unwrap_err();
    assert!(error.hint().len() > 10);
    error.kind.to_string()
}

#[test]
fn what_is_no_vmlinux_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(refused(&path, b"hello\nworld\n"), "is a text file, not a vmlinux with debuginfo");
    assert_eq!(refused(&path, b""), "is an empty file, not a vmlinux with debuginfo");
    assert_eq!(refused(&path, b"\xed\xab\xee\xdb0000"), "is an RPM package, not a vmlinux with debuginfo");
    assert_eq!(refused(&path, b"\x7fELF"), "is the first bytes of an ELF file, not a vmlinux with debuginfo");
    assert!(refused(&path, b"KDUMP   \0\0\0\0").contains("a memory dump"));
    let mut core = b"\x7fELF\x02\x01\x01".to_vec();
    core.resize(64, 0);
    core[16] = 4;
    assert!(refused(&path, &core).contains("an ELF core file"));
    let error = Debuginfo::open(&dir.path().join("none"), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("none can't be read: No such file"), "{error}");
}

#[test]
fn a_cut_or_stripped_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build::kernel(dir.path(), "vmlinux", &[]) else { return };
    let whole = std::fs::read(&path).unwrap();
    let cut = refused(&dir.path().join("cut"), &whole[..whole.len() - 100]);
    let len = whole.len() - 100;
    assert!(cut.starts_with("is cut off: the table of sections should end at file offset"), "{cut}");
    assert!(cut.ends_with(&format!("but the file ends at {len:#x}")), "{cut}");
    let stripped = dir.path().join("stripped");
    for (option, why) in [("-g", "it has no section .debug_info"), ("-s", "it is stripped")] {
        if Command::new("strip")
            .arg(option)
            .arg(&path)
            .arg("-o")
            .arg(&stripped)
            .status()
            .is_ok_and(|s| s.success())
        {
            let text = Debuginfo::open(&stripped, &Limits::default()).unwrap_err().kind.to_string();
            assert!(text.starts_with("has no debuginfo: ") && text.contains(why), "{text}");
        }
    }
}

#[test]
fn no_flipped_byte_makes_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    for form in [&["-gdwarf-5"][..], &["-gdwarf-4", "-gz=zlib"]] {
        let Some(path) = build::kernel(dir.path(), "vmlinux", form) else { return };
        let whole = std::fs::read(&path).unwrap();
        // The text and data are of no interest: most flips go to where sections with debuginfo are.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed >> 8).unwrap()
        };
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..=random() % 8 {
                let at = random() % bytes.len();
                bytes[at] = u8::try_from(random() & 0xff).unwrap();
            }
            let Ok(file) = Debuginfo::of_vec(Path::new("flipped"), bytes, &Limits::default()) else {
                continue;
            };
            let _ = dwarf::types::load(&file);
            let _ = LinkedSymbols::load(&file, 0);
            let mut lines = Lines::new();
            if lines.add_kernel(&file, 0).is_ok() {
                for at in (0..0x4000).step_by(61) {
                    let _ = lines.frames(KVirtAddr(0xffff_ffff_8100_0000 + at));
                }
            }
        }
    }
}
