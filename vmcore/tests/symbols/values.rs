//! Typed reads: names that changed, members that are missing, pages that are not there, CPUs.

use std::sync::Arc;

use fixtures::btf::Btf as Builder;
use vmcore::addr::KVirtAddr;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::value::{Layout, Maybe, Place, Slot, read_number};
use vmcore::limits::Limits;
use vmcore::sym::Symbols;
use vmcore::sym::btf::{Btf, Types};
use vmcore::sym::globals::{self, Shape};

use crate::ram::{DIRECT, Ram};

const TASK: u64 = DIRECT + 0x2f00;

vmcore::view! {
    /// A task as these tests know it.
    struct Task of "task_struct" {
        pid: i32 = ["pid"],
        state: u64 = ["__state", "state"],
        usage: u32 = ["usage"],
        comm: String = ["comm"],
        parent: KVirtAddr = ["real_parent", "parent"],
        on_cpu: bool = ["on_cpu"],
        policy: u8 = ["policy"],
        delta: i32 = ["delta"],
        cpu: Option<u32> = ["recent_cpu", "cpu"],
        absent: Option<u64> = ["no_such_member"],
        maybe: Maybe<u64> = ["no_such_member"],
        stack: Maybe<u64> = ["stack"],
        tasks: Place = ["tasks"],
        times: Vec<u64> = ["times"],
    }
}

vmcore::view! {
    /// Asks for more than there is.
    struct Wrong of "task_struct" {
        comm: u64 = ["comm"],
    }
}

vmcore::view! {
    /// Asks for a member that no kernel has.
    struct Unknown of "task_struct" {
        _x: u64 = ["newest", "older"],
    }
}

fn types() -> Types {
    let mut b = Builder::default();
    let int = b.int("int", 4, true);
    let uint = b.int("unsigned int", 4, false);
    let char_ = b.int("char", 1, true);
    let pointer = b.pointer(0);
    let comm = b.array(char_, 16);
    let counter = b.structure("", 4, &[("counter", int, 0, 0)]);
    let atomic = b.typedef("atomic_t", counter);
    let refcount = b.structure("refcount_struct", 4, &[("refs", atomic, 0, 0)]);
    let list = b.structure("list_head", 16, &[("next", pointer, 0, 0), ("prev", pointer, 64, 0)]);
    let times = b.array(uint, 3);
    b.structure(
        "task_struct",
        0x300,
        &[
            ("pid", int, 0, 0),
            ("state", uint, 32, 0),
            ("usage", refcount, 64, 0),
            ("comm", comm, 96, 0),
            ("parent", pointer, 256, 0),
            ("on_cpu", uint, 320, 1),
            ("policy", uint, 323, 7),
            ("delta", int, 330, 6),
            ("cpu", uint, 352, 0),
            ("tasks", list, 384, 0),
            ("times", times, 512, 0),
            ("stack", pointer, 0x200 * 8, 0),
        ],
    );
    Types::new(Arc::new(Btf::parse(b.finish(None)).unwrap()))
}

fn ram() -> Ram {
    let mut ram = Ram::default();
    ram.put(TASK, &[0; 0x300]);
    ram.put(TASK, &(-7_i32).to_le_bytes());
    ram.put(TASK + 4, &0x402_u32.to_le_bytes());
    ram.put(TASK + 8, &3_u32.to_le_bytes());
    ram.put(TASK + 12, b"kworker/0:1\0junk");
    ram.put_u64(TASK + 32, 0xffff_8880_1234_5678);
    // Bit 0 on_cpu, bits 3..10 policy, bits 10..16 delta (-5).
    let bits: u32 = 1 | 0x55 << 3 | (0x3b << 10);
    ram.put(TASK + 40, &bits.to_le_bytes());
    ram.put(TASK + 44, &9_u32.to_le_bytes());
    ram.put(TASK + 64, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    ram.put_u64(TASK + 0x200, 0x1122_3344_5566_7788);
    ram
}

#[test]
fn a_view_reads_all_its_members_under_the_names_that_the_kernel_has() {
    let ram = ram();
    let task = Layout::<Task>::new(&types()).unwrap().read(&ram.memory(), KVirtAddr(TASK)).unwrap();
    assert_eq!((task.pid, task.state, task.usage, task.comm.as_str()), (-7, 0x402, 3, "kworker/0:1"));
    assert_eq!(task.parent, KVirtAddr(0xffff_8880_1234_5678));
    assert_eq!((task.on_cpu, task.policy, task.delta), (true, 0x55, -5));
    assert_eq!((task.cpu, task.absent, task.maybe), (Some(9), None, Maybe::Absent));
    assert_eq!((task.tasks, task.times), (Place(KVirtAddr(TASK + 48)), vec![1, 2, 3]));
    assert_eq!(task.stack.value(), Some(0x1122_3344_5566_7788));
}

#[test]
fn a_page_that_is_missing_costs_only_the_members_on_it() {
    let mut ram = ram();
    ram.lose(TASK + 0x200);
    let layout = Layout::<Task>::new(&types()).unwrap();
    let task = layout.read(&ram.memory(), KVirtAddr(TASK)).unwrap();
    assert_eq!((task.pid, task.cpu), (-7, Some(9)));
    assert!(matches!(&task.stack, Maybe::Unreadable(why) if why.contains("left out")), "{:?}", task.stack);
    ram.lose(TASK);
    let error = layout.read(&ram.memory(), KVirtAddr(TASK)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("pid of the task_struct at kaddr {TASK:#x} can't be read: ")),
        "{error}"
    );
    assert!(layout.read(&ram.memory(), KVirtAddr(u64::MAX - 4)).is_err());
}

#[test]
fn a_view_that_does_not_fit_the_kernel_says_which_member() {
    let error = Layout::<Wrong>::new(&types()).unwrap_err().to_string();
    assert_eq!(error, "comm of task_struct has 16 bytes (Array), which can't be read as a number of 8 bytes");
    let error = Layout::<Unknown>::new(&types()).unwrap_err().to_string();
    assert_eq!(error, "task_struct of this kernel has no newest or older");
}

#[test]
fn one_number_can_be_read_without_a_view() {
    let types = types();
    let slot = |path| Slot::new(types.structure("task_struct").unwrap().member(path).unwrap()).unwrap();
    let ram = ram();
    let read = |path| read_number(&ram.memory(), KVirtAddr(TASK), &slot(path)).unwrap();
    assert_eq!(read("policy"), 0x55);
    assert_eq!(read("pid").cast_signed(), -7);
    assert_eq!(read("tasks.prev"), 0);
}

#[test]
fn each_cpu_has_its_own_copy() {
    let form = fixtures::kallsyms::Form {
        addresses: fixtures::kallsyms::Addresses::BaseRelative,
        long_lengths: true,
        wide_markers: false,
        addresses_last: true,
        sequences: false,
        tight: false,
    };
    let base = 0xffff_ffff_8100_0000;
    let at = base + 0x10_0000;
    let mut all: Vec<fixtures::kallsyms::Symbol> = vec![(base, b'T', "_stext".into())];
    all.extend((1..600).map(|i| (base + 0x10 * i, b'T', format!("f{i}"))));
    for (i, name) in (0..).zip([
        "__cpu_possible_mask",
        "__cpu_online_mask",
        "__per_cpu_offset",
        "panic_cpu",
        "tainted_mask",
        "_end",
    ]) {
        all.push((base + 0x20_0000 + 0x40 * i, b'D', name.into()));
    }
    let table = fixtures::kallsyms::Table::new(at, &all, base, form);
    let mut ram = ram();
    ram.put(at, &table.bytes);
    ram.put(base + 0x20_0000, &[0; 0x180]);
    ram.put(base + 0x20_0000, &[0b1011]);
    ram.put(base + 0x20_0040, &[0b0001]);
    for cpu in 0..8 {
        ram.put_u64(base + 0x20_0080 + 8 * cpu, DIRECT + 0x1000 * cpu);
    }
    let info = Vmcoreinfo::parse(table.vmcoreinfo(at, form).as_bytes());
    let limits = Limits::default();
    let memory = ram.memory();
    let symbols = Symbols::new(&info, Some(vmcore::sym::kallsyms::load(&memory, &info, &limits).unwrap()));
    let cpus = PerCpu::read(&memory, &symbols, &limits).unwrap();
    assert_eq!((cpus.possible(), cpus.online(), cpus.present()), (&[0, 1, 3][..], Some(&[0][..]), None));
    assert_eq!(cpus.address(KVirtAddr(0x40), 3), Ok(KVirtAddr(DIRECT + 0x3040)));
    assert_eq!(
        cpus.address(KVirtAddr(0x40), 4).unwrap_err().to_string(),
        "cpu 4 does not exist: the kernel has room for 4"
    );
    // The table's claim about a variable is believed only where the kernel has the type and the room.
    let types = types();
    let known = globals::type_of(&types, &symbols, "panic_cpu").unwrap();
    assert_eq!((known.ty.name(), known.shape), ("", Shape::Value));
    assert!(globals::type_of(&types, &symbols, "tainted_mask").is_err(), "this kernel has no such integer");
    let unknown = globals::type_of(&types, &symbols, "no_such_variable").unwrap_err();
    assert_eq!(unknown.to_string(), "this kernel has no type for the variable no_such_variable");
}
