//! Damage costs what it hits, and is told; it never costs the reader.

use fixtures::shuffle::Seed;
use vmcore::addr::KVirtAddr;
use vmcore::kernel::machine;
use vmcore::kernel::module::{self, ModuleState};
use vmcore::limits::Limits;

use crate::ram::{Damaged, Opened, dump, open};

fn address(opened: &Opened<'_>, name: &str) -> KVirtAddr {
    opened.description.symbols.address(name).unwrap()
}

fn inside(opened: &Opened<'_>, kaddr: KVirtAddr, member: &str) -> KVirtAddr {
    let module = opened.description.types.structure("module").unwrap();
    KVirtAddr(kaddr.0 + module.member(member).unwrap().offset())
}

#[test]
fn a_module_that_is_not_in_the_dump_is_counted_and_the_others_are_there() {
    let dump = dump();
    let opened = open(&dump);
    let whole = module::read(opened.kernel.memory(), &opened.description, &Limits::default());
    let middle = &whole.modules[4];
    let mut damaged = Damaged::new(&dump);
    damaged.lose(&opened, middle.kaddr);
    let found = module::read(&damaged.memory(&opened), &opened.description, &Limits::default());
    // What is behind the hole is fetched from the other end of the list.
    assert_eq!(found.modules.len(), 8);
    assert!(found.lost > 0 && !found.end.is_complete());
    assert!(found.modules.iter().all(|m| m.name != middle.name));
    assert!(found.gaps.iter().any(|g| g.what == "the list of modules"), "{:?}", found.gaps);
}

#[test]
fn a_time_that_cannot_be_is_not_told() {
    let dump = dump();
    let opened = open(&dump);
    let keeper = opened.description.types.structure("timekeeper").unwrap();
    // The clock stands 8 bytes behind the start of tk_core there.
    let seconds = keeper.member("xtime_sec").unwrap().offset() + 8;
    let mut damaged = Damaged::new(&dump);
    damaged.change(&opened, KVirtAddr(address(&opened, "tk_core").0 + seconds + 6), 0x7f);
    let memory = damaged.memory(&opened);
    let info = opened.kernel.vmcoreinfo();
    let found = machine::read(&memory, info, &opened.description, Some(&opened.cpus), &Limits::default());
    assert_eq!(found.time, None);
    let gap = found.gaps.iter().find(|g| g.what == "time").unwrap();
    assert!(gap.why.contains("is no time"), "{}", gap.why);
}

#[test]
fn a_clock_that_contradicts_the_crash_is_said() {
    let dump = dump();
    let opened = open(&dump);
    let keeper = opened.description.types.structure("timekeeper").unwrap();
    let seconds = keeper.member("xtime_sec").unwrap().offset() + 8;
    let at = KVirtAddr(address(&opened, "tk_core").0 + seconds + 1);
    let now = opened.kernel.memory().read_u8(at).unwrap();
    let mut damaged = Damaged::new(&dump);
    damaged.change(&opened, at, now.wrapping_add(1));
    let memory = damaged.memory(&opened);
    let info = opened.kernel.vmcoreinfo();
    let found = machine::read(&memory, info, &opened.description, Some(&opened.cpus), &Limits::default());
    let said = found.time.unwrap().disagreements;
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("CRASHTIME is 1795330811, and the clock stands at 1795331067"),
        "{}",
        said[0]
    );
    assert!(said[1].starts_with("by its jiffies the machine is up for 61 s"), "{}", said[1]);
}

#[test]
fn taint_and_state_of_a_module_are_read_as_they_are() {
    let dump = dump();
    let opened = open(&dump);
    let whole = module::read(opened.kernel.memory(), &opened.description, &Limits::default());
    let (first, second) = (whole.modules[0].kaddr, whole.modules[1].kaddr);
    let mut damaged = Damaged::new(&dump);
    // Bits 12 and 13: O and E. Bit 7 (D) is the kernel's alone and no module's.
    damaged.change(&opened, KVirtAddr(inside(&opened, first, "taints").0 + 1), 0x30);
    damaged.change(&opened, inside(&opened, first, "taints"), 0x80);
    damaged.change(&opened, inside(&opened, first, "state"), 2);
    damaged.change(&opened, inside(&opened, second, "state"), 9);
    damaged.change(&opened, address(&opened, "tainted_mask"), 0x81);
    let memory = damaged.memory(&opened);
    let found = module::read(&memory, &opened.description, &Limits::default());
    let taint = found.modules[0].taint.clone().unwrap();
    assert_eq!((taint.mask, taint.letters.as_str()), (0x3080, "OE"));
    assert_eq!(found.modules[0].state, ModuleState::Going);
    assert_eq!(found.modules[1].state, ModuleState::Unknown(9));
    let info = opened.kernel.vmcoreinfo();
    let machine = machine::read(&memory, info, &opened.description, Some(&opened.cpus), &Limits::default());
    assert_eq!(machine.taint.map(|t| (t.mask, t.letters)), Some((0x81, "PD".into())));
}

#[test]
fn what_is_not_in_the_dump_is_a_gap_with_its_reason() {
    let dump = dump();
    let opened = open(&dump);
    let mut damaged = Damaged::new(&dump);
    damaged.lose(&opened, address(&opened, "avenrun"));
    let memory = damaged.memory(&opened);
    let info = opened.kernel.vmcoreinfo();
    let found = machine::read(&memory, info, &opened.description, Some(&opened.cpus), &Limits::default());
    assert_eq!(found.load, None);
    let gap = found.gaps.iter().find(|g| g.what == "load").unwrap();
    assert!(gap.why.contains("was left out when the dump was made"), "{}", gap.why);
    assert!(found.time.is_some() && found.cmdline.is_some());
}

#[test]
fn changed_bytes_never_stop_the_reader() {
    let dump = dump();
    let opened = open(&dump);
    let whole = module::read(opened.kernel.memory(), &opened.description, &Limits::default());
    let mut places: Vec<(KVirtAddr, u64)> = whole.modules.iter().map(|m| (m.kaddr, 896)).collect();
    for name in ["tk_core", "iomem_resource", "modules", "taint_flags", "boot_cpu_data", "avenrun"] {
        places.push((address(&opened, name), 256));
    }
    places.push((opened.kernel.memory().read_ptr(address(&opened, "saved_command_line")).unwrap(), 64));
    let limits = Limits::default();
    let mut seed = Seed(0x6d61_6368);
    let mut different = 0;
    for _ in 0..300 {
        let mut damaged = Damaged::new(&dump);
        for _ in 0..=seed.below(24) {
            let (start, len) = places[usize::try_from(seed.below(places.len() as u64)).unwrap()];
            let value = u8::try_from(seed.below(256)).unwrap();
            damaged.change(&opened, KVirtAddr(start.0 + seed.below(len)), value);
        }
        let memory = damaged.memory(&opened);
        let info = opened.kernel.vmcoreinfo();
        let found = module::read(&memory, &opened.description, &limits);
        let machine = machine::read(&memory, info, &opened.description, Some(&opened.cpus), &limits);
        let complete = found.gaps.is_empty() && found.lost == 0;
        // A list that is said to be whole has all nine.
        assert!(!complete || found.modules.len() == 9, "{:?}", found.end);
        assert!(found.modules.len() <= 9 + found.lost);
        different += usize::from(!complete || !machine.gaps.is_empty());
    }
    assert!(different > 50, "the damage hardly ever hits: {different}");
}
