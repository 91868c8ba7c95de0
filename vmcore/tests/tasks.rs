//! The tasks of a real crash of Debian's 6.1, whole and with pages and bits missing. `tasks/panic-6.1.tsv` is what drgn 0.3.0
//! says of the same dump with debuginfo.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::path::Path;

use fixtures::shuffle::Seed;
use vmcore::addr::{KVirtAddr, Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::Hints;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::task::{self, Cmdline, Kind, Source, State, Task, Tasks};
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::mem::PageState;
use vmcore::xlat::KernelMemory;
use vmcore::{Dump, OpenOptions, PhysicalMemory};

/// A dump of which pages are left out and bits are flipped.
struct Damaged<'d> {
    dump: &'d Dump,
    without: BTreeSet<u64>,
    flips: Vec<(u64, u8)>,
}

impl PhysicalMemory for Damaged<'_> {
    fn page_size(&self) -> u64 {
        self.dump.page_size()
    }
    fn end_pfn(&self) -> Pfn {
        self.dump.end_pfn()
    }
    fn state(&self, pfn: Pfn) -> PageState {
        self.dump.state(pfn)
    }
    fn next_frame(&self, pfn: Pfn) -> Option<Pfn> {
        self.dump.next_frame(pfn)
    }
    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        self.dump.next_present(pfn)
    }
    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let end = paddr.0 + buf.len().max(1) as u64 - 1;
        for pfn in paddr.0 / 4096..=end / 4096 {
            if self.without.contains(&pfn) {
                return Err(PageError::Excluded { pfn: Pfn(pfn), level: 31 });
            }
        }
        self.dump.read(paddr, buf)?;
        for (at, bit) in &self.flips {
            if (paddr.0..=end).contains(at) {
                buf[usize::try_from(at - paddr.0).unwrap()] ^= 1 << bit;
            }
        }
        Ok(())
    }
}

struct World {
    dump: Dump,
}

impl World {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump");
        Self { dump: Dump::open(path, &OpenOptions::default()).unwrap() }
    }

    fn kernel(&self) -> Kernel<'_> {
        let hints = Hints {
            machine: Some("x86_64".into()),
            vmcoreinfo: self.dump.vmcoreinfo_raw(),
            phys_base: self.dump.facts().phys_base,
            ..Hints::default()
        };
        Kernel::open(&self.dump, &hints, Options::default().without_scan())
    }
}

/// The kernel, its description and its CPUs.
fn known(kernel: &Kernel<'_>) -> (Description, PerCpu) {
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let percpu = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    (description, percpu)
}

fn read(kernel: &Kernel<'_>, known: &(Description, PerCpu)) -> Tasks {
    task::read(kernel.memory(), &known.0, &known.1, &Limits::default())
}

/// The tasks as they are read where pages are missing and bits are flipped. Symbols and types are those of the whole dump.
fn damaged(
    world: &World,
    kernel: &Kernel<'_>,
    known: &(Description, PerCpu),
    pages: &[PhysAddr],
    flips: Vec<(u64, u8)>,
) -> Tasks {
    let without = pages.iter().map(|at| at.0 / 4096).collect();
    let mem = Damaged { dump: &world.dump, without, flips };
    let memory = KernelMemory::new(&mem, kernel.memory().translation().clone());
    task::read(&memory, &known.0, &known.1, &Limits::default())
}

fn paddr(kernel: &Kernel<'_>, at: KVirtAddr) -> PhysAddr {
    kernel.memory().translate(at).unwrap().paddr
}

fn pids(tasks: &Tasks) -> BTreeSet<u32> {
    tasks.tasks.iter().map(|task| task.pid).collect()
}

/// The first node of the table of process ids.
fn table_root(kernel: &Kernel<'_>, description: &Description) -> KVirtAddr {
    let inside = description.types.structure("pid_namespace").unwrap().member("idr.idr_rt.xa_head").unwrap();
    let at = description.symbols.address("init_pid_ns").unwrap().checked_add(inside.offset()).unwrap();
    KVirtAddr(kernel.memory().read_u64(at).unwrap() & !3)
}

fn row(task: &Task) -> String {
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    [
        format!("{:#x}", task.kaddr.0),
        task.pid.to_string(),
        task.tgid.to_string(),
        number(task.ppid.map(|v| v.to_string())),
        task.comm.clone(),
        task.letter().to_string(),
        number(task.cpu.map(|v| v.to_string())),
        number(task.running_on.map(|v| v.to_string())),
        number(task.credentials.map(|v| v.uid.to_string())),
        number(task.since_arrival_ns.map(|v| v.to_string())),
    ]
    .join("\t")
}

#[test]
fn every_task_is_as_drgn_says() {
    let world = World::new();
    let kernel = world.kernel();
    let tasks = read(&kernel, &known(&kernel));
    assert_eq!(tasks.gaps, []);
    assert_eq!(tasks.lost, []);
    let ours: Vec<String> = tasks.tasks.iter().map(row).collect();
    let theirs: Vec<&str> = include_str!("tasks/panic-6.1.tsv").lines().collect();
    assert_eq!(ours, theirs);
    let threads = tasks.tasks.iter().filter(|task| task.kind != Kind::Idle).count();
    assert_eq!(tasks.counted.map(|counted| counted as usize), Some(threads));
}

#[test]
fn the_task_that_crashed_the_machine_runs_and_its_memory_was_left_out() {
    let world = World::new();
    let kernel = world.kernel();
    let tasks = read(&kernel, &known(&kernel));
    let init = tasks.by_pid(116).unwrap();
    assert_eq!((init.comm.as_str(), init.letter(), init.kind), ("init", 'R', Kind::User));
    assert_eq!(init.not_run_ns, Some(0));
    assert_eq!(tasks.current(init.running_on.unwrap()).map(|task| task.pid), Some(116));
    assert!(matches!(&init.cmdline, Cmdline::Missing(why) if why.contains("left out")), "{:?}", init.cmdline);
    assert!(
        [Source::List, Source::Pids, Source::Threads, Source::RunQueue].iter().all(|at| init.found.has(*at))
    );
    let kthreadd = tasks.by_pid(2).unwrap();
    assert_eq!((kthreadd.kind, &kthreadd.cmdline, kthreadd.mm), (Kind::Kernel, &Cmdline::None, None));
    assert!(kthreadd.not_run_ns <= kthreadd.since_arrival_ns.map(i64::cast_unsigned));
}

#[test]
fn without_the_table_of_process_ids_the_lists_have_all_tasks() {
    let world = World::new();
    let kernel = world.kernel();
    let known = known(&kernel);
    let whole = read(&kernel, &known);
    let root = paddr(&kernel, table_root(&kernel, &known.0));
    let tasks = damaged(&world, &kernel, &known, &[root], Vec::new());
    assert!(tasks.gaps.iter().any(|gap| gap.what == "the table of process ids"), "{:?}", tasks.gaps);
    assert_eq!(pids(&tasks), pids(&whole));
    assert!(tasks.tasks.iter().all(|task| !task.found.has(Source::Pids)));
}

#[test]
fn a_page_of_tasks_costs_these_tasks_and_says_which() {
    let world = World::new();
    let kernel = world.kernel();
    let known = known(&kernel);
    let whole = read(&kernel, &known);
    let pid_at = known.0.types.structure("task_struct").unwrap().member("pid").unwrap().offset();
    let middle = &whole.tasks[whole.tasks.len() / 2];
    let page = paddr(&kernel, middle.kaddr.checked_add(pid_at).unwrap());
    let tasks = damaged(&world, &kernel, &known, &[page], Vec::new());
    assert!(!pids(&tasks).contains(&middle.pid));
    let lost: BTreeSet<u32> = tasks.lost.iter().filter_map(|lost| lost.pid?.try_into().ok()).collect();
    let missing: BTreeSet<u32> = pids(&whole).difference(&pids(&tasks)).copied().collect();
    assert_eq!(lost, missing);
    let told = tasks.lost.iter().find(|lost| lost.pid == Some(middle.pid.into())).unwrap().to_string();
    assert!(told.starts_with(&format!("pid {} is in the table of process ids, but ", middle.pid)), "{told}");
    assert!(told.contains("left out"), "{told}");
}

#[test]
fn without_table_and_with_a_broken_list_relatives_lead_to_the_rest() {
    let world = World::new();
    let kernel = world.kernel();
    let known = known(&kernel);
    let whole = read(&kernel, &known);
    let root = paddr(&kernel, table_root(&kernel, &known.0));
    let inside = known.0.types.structure("task_struct").unwrap().member("tasks").unwrap().offset();
    // The nodes of two tasks point nowhere: what stands between them is on neither end of the list.
    let user: Vec<&Task> = whole.tasks.iter().filter(|task| task.pid > 2).collect();
    let broken = [user[5], user[25]];
    let flips = broken.iter().flat_map(|task| {
        let at = paddr(&kernel, task.kaddr.checked_add(inside).unwrap()).0;
        [(at + 1, 3), (at + 9, 3)]
    });
    let tasks = damaged(&world, &kernel, &known, &[root], flips.collect());
    assert!(tasks.gaps.iter().any(|gap| gap.what == "the list of tasks"), "{:?}", tasks.gaps);
    assert_eq!(pids(&tasks), pids(&whole), "{:?}", tasks.gaps);
    assert!(
        tasks.tasks.iter().any(|task| task.found.has(Source::Relatives) && !task.found.has(Source::List))
    );
}

#[test]
fn a_limit_is_kept_and_told() {
    let world = World::new();
    let kernel = world.kernel();
    let known = known(&kernel);
    let mut limits = Limits::default();
    limits.tasks = 10;
    let tasks = task::read(kernel.memory(), &known.0, &known.1, &limits);
    assert_eq!(tasks.tasks.len(), 10);
    assert!(!tasks.gaps.is_empty());
}

#[test]
fn flipped_bits_in_tasks_neither_hang_nor_go_beyond_what_is_there() {
    let world = World::new();
    let kernel = world.kernel();
    let known = known(&kernel);
    let whole = read(&kernel, &known);
    let size = known.0.types.structure("task_struct").unwrap().size();
    let signal = known.0.types.structure("task_struct").unwrap().member("signal").unwrap().offset();
    let mut seed = Seed(0x7a5c);
    for _ in 0..60 {
        let flips = (0..40).map(|_| {
            let task = &whole.tasks[usize::try_from(seed.below(whole.tasks.len() as u64)).unwrap()];
            // Mostly the task itself, sometimes what its threads share.
            let at = if seed.below(4) == 0 {
                let shared = kernel.memory().read_ptr(task.kaddr.checked_add(signal).unwrap()).unwrap();
                shared.checked_add(seed.draw() % 64).unwrap()
            } else {
                task.kaddr.checked_add(seed.draw() % size).unwrap()
            };
            (paddr(&kernel, at).0, (seed.draw() % 8) as u8)
        });
        let flips = flips.collect();
        let tasks = damaged(&world, &kernel, &known, &[], flips);
        assert!(tasks.tasks.len() <= whole.tasks.len() + 40, "{}", tasks.tasks.len());
        assert!(tasks.tasks.len() + tasks.lost_count + 1 >= whole.tasks.len(), "{:?}", tasks.gaps);
    }
}

#[test]
fn letters_are_those_of_ps() {
    // raw state, exit state, letter: fs/proc/array.c and include/linux/sched.h.
    let cases = [
        (0, 0, 'R'),
        (0x1, 0, 'S'),
        (0x2, 0, 'D'),
        (0x102, 0, 'D'),
        (0x104, 0, 'T'),
        (0x8, 0, 't'),
        (0x40, 0, 'P'),
        (0x80, 0x20, 'Z'),
        (0x80, 0x10, 'X'),
        (0x80, 0, 'R'),
        (0x402, 0, 'I'),
        (0x2402, 0, 'I'),
        (0x1000, 0, 'D'),
        (0x8000, 0, 'D'),
        (0x2001, 0, 'S'),
        (0x800, 0, 'R'),
    ];
    for (raw, exit, letter) in cases {
        assert_eq!(State { raw, exit }.letter(), letter, "{raw:#x} {exit:#x}");
    }
    assert!(State { raw: 0x2, exit: 0 }.is_unkillable());
    assert!(!State { raw: 0x102, exit: 0 }.is_unkillable());
    assert!(!State { raw: 0x402, exit: 0 }.is_unkillable());
}
