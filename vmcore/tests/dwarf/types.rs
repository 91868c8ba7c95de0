//! Types of a vmlinux in the form of BTF.

use std::process::Command;

use vmcore::sym::btf::{Btf, Kind};
use vmcore::sym::dwarf;

use super::build;

/// What the kernel's source says, whatever form the debuginfo has.
fn is_right(types: &Btf) {
    let task = types.structure("task").unwrap();
    let place = |path: &str| task.member(path).unwrap().offset();
    assert_eq!((place("name"), place("a"), place("b[2]"), place("whole")), (0, 16, 28, 16));
    assert_eq!((place("count"), place("count.counter"), place("unknown_here")), (32, 32, 40));
    assert_eq!((place("all.prev"), place("state"), place("tail")), (56, 64, task.size()));
    let bits = |name: &str| {
        let member = task.member(name).unwrap();
        (member.bit_offset(), member.bits())
    };
    assert_eq!((bits("flags"), bits("mode")), ((64, Some(3)), (69, Some(7))));
    assert_eq!(task.member("grid").unwrap().count(), Some(24), "all dimensions as one, as pahole has it");
    assert_eq!(task.member("grid").unwrap().size().unwrap(), 24);
    assert_eq!(task.member("tail").unwrap().count(), Some(0));
    assert_eq!(task.member("done").unwrap().size().unwrap(), 1);
    assert_eq!(task.member("load").unwrap().ty().kind(), Kind::Float);
    let next = task.member("all.next").unwrap().ty().pointee().unwrap();
    assert_eq!(next.name(), "list");
    let later = task.member("unknown_here").unwrap().ty().pointee().unwrap();
    assert_eq!(later.member("there").unwrap().offset(), 8, "declared in one file, defined in the other");
    let call = task.member("call").unwrap().ty().target().unwrap().unwrap();
    assert_eq!(call.kind(), Kind::Prototype);
    assert_eq!(types.structure("atomic_t").unwrap().size(), 4);
    let state = types.enumeration("state").unwrap();
    assert_eq!((state.value("SLEEPING").unwrap(), state.value("GONE").unwrap()), (7, -3));
    assert_eq!(types.enumeration("wide").unwrap().value("LARGE").unwrap(), 0x1234_5678_9abc);
    assert_eq!(types.data_type("u32").unwrap().size().unwrap(), 4);
    assert!(!types.data_type("u32").unwrap().is_signed());
    assert_eq!(types.damage(), None);
}

#[test]
fn every_form_of_debuginfo_tells_the_same_types() {
    let dir = tempfile::tempdir().unwrap();
    let forms: &[&[&str]] = &[
        &["-gdwarf-5"],
        &["-gdwarf-4"],
        &["-gdwarf-3", "-gstrict-dwarf"],
        &["-gdwarf-5", "-gz=zlib"],
        &["-gdwarf-5", "-gz=zstd"],
        &["-gdwarf-4", "-gz=zlib-gnu"],
    ];
    for form in forms {
        if let Some(path) = build::kernel(dir.path(), "vmlinux", form) {
            let file = build::open(&path);
            assert!(file.build_id().is_some() && !file.is_relocatable());
            println!("{form:?}");
            is_right(&dwarf::types::load(&file).unwrap());
        }
    }
}

#[test]
fn a_file_of_debuginfo_alone_tells_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build::kernel(dir.path(), "vmlinux", &[]) else { return };
    let debug = dir.path().join("vmlinux.debug");
    let made = Command::new("objcopy").arg("--only-keep-debug").arg(&path).arg(&debug).status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(build::open(&debug).build_id(), build::open(&path).build_id());
        is_right(&dwarf::types::load(&build::open(&debug)).unwrap());
    }
}

#[test]
fn what_two_files_call_alike_stays_two_types() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build::kernel(dir.path(), "vmlinux", &[]) else { return };
    let types = dwarf::types::load(&build::open(&path)).unwrap();
    let sizes: Vec<u64> = types.structures("twin").map(vmcore::sym::btf::Struct::size).collect();
    assert_eq!(sizes, [4, 48]);
    let of = |name: &str| types.variable(name).unwrap().pointee().unwrap().size();
    assert_eq!((of("twin_of_one"), of("twin_of_two")), (4, 48), "each pointer keeps its own file's");
    assert_eq!(types.variable("init_task").unwrap().name(), "task");
    assert!(types.variable("hidden").is_err(), "two variables of that name, of two types");
}
