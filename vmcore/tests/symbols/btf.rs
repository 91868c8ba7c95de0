//! Types: every kind, members wherever they hide, and tables that lie.

use std::sync::Arc;

use fixtures::btf::Btf as Builder;
use proptest::prelude::*;
use vmcore::sym::btf::{Btf, BtfError, Kind, TypeError, TypeId, Types};

/// A small kernel.
fn kernel() -> (Builder, Btf) {
    let mut b = Builder::default();
    let int = b.int("int", 4, true);
    let long = b.int("long unsigned int", 8, false);
    let char_ = b.int("char", 1, true);
    let comm = b.array(char_, 16);
    let list = b.next_id();
    let list_pointer = b.pointer(list);
    let list = b.structure("list_head", 16, &[("next", list_pointer, 0, 0), ("prev", list_pointer, 64, 0)]);
    assert_eq!(list_pointer + 1, list);
    let counter = b.structure("", 4, &[("counter", int, 0, 0)]);
    let atomic = b.typedef("atomic_t", counter);
    let inner = b.union("", 8, &[("rcu_users", atomic, 0, 0), ("rcu", long, 0, 0)]);
    let outer = b.structure("", 16, &[("before", long, 0, 0), ("", inner, 64, 0)]);
    let bits = b.raw("", 10, false, 0, int, &[]); // const int
    let grid = b.array(list, 3);
    b.structure(
        "task_struct",
        160,
        &[
            ("__state", int, 0, 0),
            ("", outer, 64, 0),
            ("comm", comm, 192, 0),
            ("sched_reset_on_fork", bits, 320, 1),
            ("in_execve", bits, 323, 2),
            ("lists", grid, 384, 0),
            ("tasks", list, 768, 0),
        ],
    );
    b.enumeration("pid_type", &[("PIDTYPE_PID", 0), ("PIDTYPE_TGID", 1), ("PIDTYPE_MAX", 4)]);
    b.enumeration("sign", &[("MINUS", -1), ("PLUS", 1)]);
    let low = [b.string("BIG"), 1, 0x8000_0000];
    b.raw("wide", 19, false, 1, 8, &low);
    let variable = b.raw("runqueues", 14, false, 0, list, &[1]);
    b.raw(".data..percpu", 15, false, 1, 64, &[variable, 32, 16]);
    b.raw("float", 16, false, 0, 4, &[]);
    b.raw("user", 18, false, 0, int, &[]);
    b.raw("tag", 17, false, 0, int, &[u32::MAX]);
    let proto = b.raw("", 13, false, 1, int, &[0, int]);
    b.raw("schedule", 12, false, 1, proto, &[]);
    b.raw("opaque", 7, false, 0, 0, &[]);
    let table = Btf::parse(b.finish(None)).unwrap();
    (b, table)
}

#[test]
fn members_are_found_through_unnamed_structs_and_unions() {
    let (_, types) = kernel();
    let task = types.structure("task_struct").unwrap();
    assert_eq!(task.size(), 160);
    let place = |name| task.member(name).map(|m| (m.offset(), m.size().unwrap()));
    assert_eq!(place("__state"), Ok((0, 4)));
    assert_eq!(place("before"), Ok((8, 8)));
    assert_eq!(place("rcu_users"), Ok((16, 4)));
    assert_eq!(place("rcu_users.counter"), Ok((16, 4)));
    assert_eq!(place("comm"), Ok((24, 16)));
    assert_eq!(task.member("comm").unwrap().count(), Some(16));
    assert_eq!(place("lists[2].prev"), Ok((48 + 40, 8)));
    assert_eq!(
        task.member("lists[3]").unwrap_err().to_string(),
        "task_struct of this kernel has no lists[3]"
    );
    assert_eq!(task.member("tasks").unwrap().member("prev").unwrap().offset(), 104);
    assert!(task.has("tasks.next") && !task.has("tasks.nothing") && !task.has("comm.x") && !task.has(""));
}

#[test]
fn the_newest_name_that_is_there_counts() {
    let (_, types) = kernel();
    let task = types.structure("task_struct").unwrap();
    assert_eq!(task.member_of(&["__state", "state"]).unwrap().offset(), 0);
    assert_eq!(task.member_of(&["nothing", "tasks"]).unwrap().offset(), 96);
    let error = task.member_of(&["a", "b"]).unwrap_err();
    assert_eq!(error.to_string(), "task_struct of this kernel has no a or b");
}

#[test]
fn bitfields_have_bits_in_both_styles() {
    let (_, types) = kernel();
    let task = types.structure("task_struct").unwrap();
    let flag = task.member("in_execve").unwrap();
    assert_eq!((flag.offset(), flag.bit_offset(), flag.bits()), (40, 323, Some(2)));
    assert_eq!(task.member("__state").unwrap().bits(), None);
    // Before pahole 1.13 the integer itself said how many bits it has.
    let mut b = Builder::default();
    let three = b.raw("int", 1, false, 0, 4, &[3]);
    b.structure("old", 4, &[("bits", three, 5, 0)]);
    let old = Btf::parse(b.finish(None)).unwrap();
    let member = old.structure("old").unwrap().member("bits").unwrap();
    assert_eq!((member.bit_offset(), member.bits()), (5, Some(3)));
}

#[test]
fn enums_have_names_and_values_of_any_sign_and_width() {
    let (_, types) = kernel();
    let pids = types.enumeration("pid_type").unwrap();
    assert_eq!(pids.value("PIDTYPE_MAX"), Ok(4));
    assert_eq!(pids.name_of(1), Some("PIDTYPE_TGID"));
    assert_eq!(pids.name_of(9), None);
    assert_eq!(types.enumeration("sign").unwrap().value("MINUS"), Ok(-1));
    assert_eq!(types.enumeration("wide").unwrap().value("BIG"), Ok(0x8000_0000_0000_0001_u64.cast_signed()));
    assert_eq!(types.constant("PIDTYPE_TGID"), Ok(1));
    assert_eq!(
        types.enumeration("task_struct").unwrap_err().to_string(),
        "this kernel has no enum task_struct"
    );
}

#[test]
fn typedefs_variables_and_sections_are_read() {
    let (_, types) = kernel();
    assert_eq!(types.structure("atomic_t").unwrap().member("counter").unwrap().offset(), 0);
    assert_eq!(types.variable("runqueues").unwrap().name(), "list_head");
    let all: Vec<_> =
        types.per_cpu_variables().map(|(name, ty, offset, size)| (name, ty.name(), offset, size)).collect();
    assert_eq!(all, [("runqueues", "list_head", 32, 16)]);
    assert_eq!(types.structure("opaque").unwrap_err().to_string(), "this kernel has no struct opaque");
    assert_eq!(types.data_type("float").unwrap().size(), Ok(4));
    assert_eq!(types.data_type("float").unwrap().kind(), Kind::Float);
}

#[test]
fn a_module_counts_on_from_the_kernel() {
    let (mut b, types) = kernel();
    b.string("not in the base");
    let (base, types) = (kernel().0, Arc::new(types));
    let mut module = Builder::split(&base);
    let list = types.structure("list_head").unwrap().ty().id().0;
    module.structure("driver", 24, &[("node", list, 64, 0)]);
    let module = Btf::parse_split(module.finish(None), Arc::clone(&types)).unwrap();
    let driver = module.structure("driver").unwrap();
    assert_eq!(driver.member("node.prev").unwrap().offset(), 16);
    assert_eq!(driver.member("node").unwrap().ty().name(), "list_head");
    let mut all = Types::new(types);
    assert!(all.structure("driver").is_err());
    all.add_module("driver".into(), Arc::new(module));
    assert!(all.structure("driver").is_ok() && all.structure("task_struct").is_ok());
}

#[test]
fn a_kind_of_the_future_is_stepped_over_where_the_table_tells_its_length() {
    let mut b = Builder::default();
    let int = b.int("int", 4, true);
    b.raw("future", 21, false, 2, 0, &[1, 2, 3]);
    b.structure("after", 4, &[("x", int, 0, 0)]);
    let mut layout = vec![0; 4 * 22];
    layout[84] = 4; // once
    layout[85] = 4; // for each element
    let table = Btf::parse(b.finish(Some(&layout))).unwrap();
    assert_eq!((table.len(), table.damage()), (3, None));
    assert!(table.structure("after").is_ok());
    let table = Btf::parse(b.finish(None)).unwrap();
    assert_eq!(table.len(), 1);
    assert_eq!(table.damage(), Some("BTF type 2 (at byte 0x10 of the types) is of unknown kind 21"));
}

#[test]
fn circles_end() {
    let mut b = Builder::default();
    b.typedef("a", 2);
    b.typedef("b", 1);
    b.raw("", 3, false, 0, 0, &[3, 0, 1]); // an array of itself
    b.structure("loop", 8, &[("", 4, 0, 0)]); // a struct with itself inside, unnamed
    let huge = b.array(7, u32::MAX);
    assert_eq!(huge, 5);
    b.array(5, u32::MAX);
    b.array(6, u32::MAX);
    let types = Btf::parse(b.finish(None)).unwrap();
    assert_eq!(types.data_type("a").unwrap().resolve().unwrap_err(), BtfError::Cycle { id: TypeId(1) });
    assert!(types.structure("a").is_err());
    assert_eq!(types.by_id(TypeId(3)).unwrap().size(), Err(BtfError::Cycle { id: TypeId(3) }));
    assert!(!types.structure("loop").unwrap().has("x"));
    assert_eq!(types.by_id(TypeId(5)).unwrap().size(), Err(BtfError::TooBig { id: TypeId(5) }));
}

#[test]
fn a_tree_of_unnamed_structs_is_not_searched_for_ever() {
    let mut b = Builder::default();
    // Each has two of the next: 2^30 places to look.
    for next in 2..=31 {
        b.structure(if next == 2 { "top" } else { "" }, 8, &[("", next, 0, 0), ("", next, 0, 0)]);
    }
    b.int("int", 4, true);
    let types = Btf::parse(b.finish(None)).unwrap();
    let error = types.structure("top").unwrap().member("x").unwrap_err();
    assert_eq!(error, TypeError::TooDeep { of: "top".into() }, "{error}");
}

#[test]
fn a_header_that_lies_is_refused_with_its_reason() {
    let bytes = kernel().0.finish(None);
    let refused = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Btf::parse(bytes).unwrap_err().to_string()
    };
    assert_eq!(refused(0, &[0, 0]), "the BTF begins with 0x0000 instead of 0xeb9f");
    assert_eq!(refused(2, &[9]), "the BTF is of version 9, and only version 1 is known");
    assert!(refused(4, &[0xff; 4]).contains("should be at"), "{}", refused(4, &[0xff; 4]));
    assert_eq!(Btf::parse(vec![0x9f]).unwrap_err().to_string(), "1 bytes are too short for a BTF header");
    let cut = Btf::parse(bytes[..bytes.len() - 20].to_vec()).unwrap();
    assert!(
        !cut.is_empty() && cut.damage().unwrap().contains("bytes of BTF are there, but its header announces"),
        "{cut:?}"
    );
    assert_eq!(cut.by_id(TypeId(9999)).unwrap_err().to_string(), "BTF type 9999 does not exist");
}

proptest! {
    #[test]
    fn damage_never_panics(flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = kernel().0.finish(None);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(types) = Btf::parse(bytes) {
            for ty in types.ids().filter_map(|id| types.by_id(id).ok()) {
                let _ = (ty.name(), ty.size(), ty.resolve().is_ok(), ty.members().count(), ty.enumerators().count());
                let _ = ty.as_struct().map(|s| s.member("prev").is_ok());
            }
            let _ = types.structure("task_struct").map(|t| t.member("rcu_users.counter").is_ok());
            let _ = types.per_cpu_variables().count();
        }
    }
}
