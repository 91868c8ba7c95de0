//! A real crash of Debian's 6.1 (`fixtures/data/panic-6.1.kdump`): the stack of the panic is the one that the kernel printed.

use std::path::Path;

use vmcore::addr::KVirtAddr;
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::Hints;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::value::Layout;
use vmcore::kernel::{Kernel, Options, list};
use vmcore::limits::Limits;
use vmcore::unwind::orc::OrcVersion;
use vmcore::unwind::{Method, StackEnd, StackKind, TroubleKind, Trust, Unwinder};
use vmcore::{Dump, OpenOptions};

vmcore::view! {
    /// What is needed of a task.
    pub(crate) struct Task of "task_struct" {
        pub(crate) stack: KVirtAddr = ["stack"],
        pub(crate) sp: KVirtAddr = ["thread.sp"],
        pub(crate) on_cpu: u32 = ["on_cpu"],
    }
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data").join(name).display().to_string()
}

pub(crate) fn dump() -> Dump {
    Dump::open(data("panic-6.1.kdump"), &OpenOptions::default()).unwrap()
}

pub(crate) fn kernel(dump: &Dump) -> Kernel<'_> {
    let hints = Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        phys_base: dump.facts().phys_base,
        ..Hints::default()
    };
    Kernel::open(dump, &hints, Options::default().without_scan())
}

/// All tasks that lead a process.
pub(crate) fn tasks(kernel: &Kernel<'_>, description: &Description) -> Vec<Task> {
    let layout = Layout::<Task>::new(&description.types).unwrap();
    let inside = description.types.structure("task_struct").unwrap().member("tasks").unwrap().offset();
    let head = KVirtAddr(description.symbols.address("init_task").unwrap().0 + inside);
    let walk = list::walk(kernel.memory(), head, 10_000);
    walk.items.iter().map(|node| layout.read(kernel.memory(), KVirtAddr(node.0 - inside)).unwrap()).collect()
}

#[test]
fn every_sleeping_task_leads_to_its_end_without_a_guess() {
    let dump = dump();
    let kernel = kernel(&dump);
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    let unwinder = Unwinder::new(kernel.memory(), &description, &cpus, &limits);
    assert_eq!(unwinder.method(), Method::Orc(OrcVersion::V1), "{}", unwinder.how_sure());
    assert_eq!(unwinder.gaps(), []);
    let mut ends = [0, 0];
    for task in tasks(&kernel, &description).iter().filter(|t| t.on_cpu == 0) {
        let stack = unwinder.unwind_sleeping(task.stack, task.sp);
        assert!(stack.is_complete() && stack.doubts.is_empty(), "{:?}: {}", task, stack.end);
        let names: Vec<_> = stack.frames.iter().map(|f| unwinder.symbol(f).unwrap().symbol.name).collect();
        assert!(["__schedule", "ret_from_fork"].contains(&names[0].as_str()), "{names:?}");
        match stack.end {
            StackEnd::Outermost => {
                assert_eq!(names.last().unwrap(), "ret_from_fork");
                ends[0] += 1;
            }
            _ => ends[1] += 1,
        }
    }
    // As drgn has them with the debuginfo of this kernel.
    assert_eq!(ends, [52, 4]);
}

#[test]
fn the_panics_stack_is_the_one_that_the_kernel_printed() {
    let dump = dump();
    let kernel = kernel(&dump);
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    let unwinder = Unwinder::new(kernel.memory(), &description, &cpus, &limits);
    let status = dump.prstatus()[1];
    let stack = unwinder.unwind_registers(&status.registers, status.cpu);
    assert!(stack.is_complete(), "{:?}", stack.doubts);
    let shown: Vec<String> = stack.frames.iter().map(|f| unwinder.symbol(f).unwrap().to_string()).collect();
    let log = std::fs::read_to_string(data("panic-6.1.dmesg")).unwrap();
    let (_, trace) = log.rsplit_once("Call Trace:").unwrap();
    let printed: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.rsplit_once("] ").map(|(_, text)| text.trim()))
        .filter(|text| text.contains("+0x") && !text.starts_with('?') && !text.starts_with('R'))
        .collect();
    let from = printed.iter().position(|text| text.starts_with("panic+")).unwrap();
    // The kernel printed its stack some instructions before it saved its registers: what called `panic` is the same.
    let common = printed[from + 1..].to_vec();
    let at = shown.iter().position(|text| text.starts_with("panic+")).unwrap();
    assert_eq!(shown[at + 1..], common);
    assert!(common.len() >= 8, "{common:?}");
    // The function in which the registers were saved is in no ORC table; its own code tells its caller.
    assert_eq!((shown[0].starts_with("__crash_kexec+"), at, stack.frames[1].trust), (true, 1, Trust::Cfi));
    assert!(stack.frames.iter().all(|f| f.sure && f.stack == StackKind::Task));
    let trouble = unwinder.trouble(&stack).unwrap();
    assert_eq!((trouble.frame, trouble.kind), (2, TroubleKind::Called));
    assert!(shown[2].starts_with("sysrq_handle_crash+"));
}
