//! The slab objects of a real crash of Debian's 6.1: each task is an allocated object of its cache, and what lies free beside it is told as free.

use vmcore::addr::KVirtAddr;
use vmcore::kernel::describe::Description;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::reader::Reader;
use vmcore::kernel::{slab, task};
use vmcore::limits::Limits;
use vmcore::unwind::{StackKind, Unwinder};

use super::real::{dump, kernel};

#[test]
fn tasks_are_objects_of_their_cache_and_free_ones_are_told() {
    let dump = dump();
    let kernel = kernel(&dump);
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let per_cpu = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    let tasks = task::read(kernel.memory(), &description, &per_cpu, &limits);
    let memory = kernel.memory();
    let source = Reader::new(memory, &description, &per_cpu, &limits, 4096);
    let init_task = description.symbols.address("init_task").unwrap();
    assert!(slab::identify(&source, init_task).unwrap().is_none(), "it is part of the kernel's image");

    let (mut seen, mut free) = (0, 0);
    for task in tasks.tasks.iter().filter(|task| task.kaddr != init_task) {
        let inside = KVirtAddr(task.kaddr.0 + 0x18);
        let object = slab::identify(&source, inside).unwrap().unwrap();
        assert_eq!((object.cache.as_str(), object.start, object.offset), ("task_struct", task.kaddr, 0x18));
        assert_eq!(object.allocated, Some(true), "{} (pid {})", task.comm, task.pid);
        seen += 1;
        // Its neighbours: another task, a free object, or another slab.
        let size = description.types.structure("task_struct").unwrap().size().next_multiple_of(64);
        for at in [task.kaddr.0 - size, task.kaddr.0 + size] {
            let Ok(Some(beside)) = slab::identify(&source, KVirtAddr(at)) else { continue };
            if beside.cache == "task_struct" && beside.allocated == Some(false) {
                assert!(tasks.at(beside.start).is_none(), "a task is told as free");
                free += 1;
            }
        }
    }
    assert!(seen > 40 && free > 0, "{seen} tasks, {free} free neighbours");

    let unwinder = Unwinder::new(memory, &description, &per_cpu, &limits);
    let stack = tasks.tasks.iter().find_map(|task| task.stack).unwrap();
    assert!(unwinder.stack_bytes() == 16 << 10);
    let own = unwinder.cpu_stacks(0);
    assert!(own.iter().all(|(_, range)| !range.contains(&stack)), "a task's stack is no CPU's own");
    let hot = per_cpu.address(description.symbols.address("hardirq_stack_ptr").unwrap(), 0).unwrap();
    let top = memory.read_ptr(hot).unwrap();
    let (kind, _) = own.iter().find(|(_, range)| range.contains(&KVirtAddr(top.0 - 8))).unwrap();
    assert_eq!(*kind, StackKind::Irq);

    let variable = description.symbols.kernel().unwrap().symbol("hardirq_stack_ptr").unwrap();
    let at = KVirtAddr(variable.address.0 + 3);
    assert_eq!(description.symbols.kernel().unwrap().per_cpu_at(at).unwrap().name, "hardirq_stack_ptr");
}
