//! The whole dump: each value is what drgn says with the kernel's debuginfo (`fixtures/foreign/machine_modules.py`), or what the
//! machine itself printed.

use std::time::Duration;

use vmcore::kernel::machine::{self, Noted};
use vmcore::kernel::module::{self, ModuleState};
use vmcore::kernel::params::ParamValue;
use vmcore::limits::Limits;

use crate::ram::{dump, open};

#[test]
fn the_machine_is_as_it_said_on_its_console() {
    let dump = dump();
    let opened = open(&dump);
    let (memory, info) = (opened.kernel.memory(), opened.kernel.vmcoreinfo());
    let found = machine::read(memory, info, &opened.description, Some(&opened.cpus), &Limits::default());
    assert_eq!(found.gaps, []);
    assert_eq!(found.uts.unwrap().nodename, "lab-guest");
    let cpus = found.cpus.unwrap();
    assert_eq!((cpus.possible.len(), cpus.present.unwrap().len(), cpus.online.unwrap().len()), (2, 2, 2));
    assert_eq!(found.cpu_model.as_deref(), Some("QEMU TCG CPU version 2.5+"));
    assert_eq!(found.hypervisor.as_deref(), Some("NATIVE"));
    // «Memory: …K/360016K available»: what the kernel reserved is not managed.
    assert_eq!(found.memory_bytes, Some(208_408_576));
    assert_eq!(found.ram.unwrap(), [0x1000..0x9_fc00, 0x10_0000..0x15fd_7000]);
    assert_eq!(found.crash_memory.unwrap().first(), Some(&(0xe00_0000..0x1500_0000)), "crashkernel=112M");
    assert!(found.cmdline.unwrap().starts_with("console=ttyS0 init_on_free=1 lab.mark="));
    assert_eq!(found.taint.map(|t| (t.mask, t.letters)), Some((0, String::new())));
    assert_eq!(found.crash_kernel_loaded, Some(true));
    assert_eq!((found.panic_cpu, found.crashing_cpu), (Some(Noted::Cpu(1)), Some(Noted::Cpu(1))));
    assert_eq!((found.oops_count, found.warn_count, found.threads), (Some(0), Some(0), Some(58)));
    assert_eq!(found.load, Some([1.425_781_25, 0.398_925_781_25, 0.137_695_312_5]));
    let panic = found.settings.iter().find(|s| s.name == "kernel.panic").unwrap();
    assert_eq!(panic.value, -1, "panic=-1 on the command line");
}

#[test]
fn the_clocks_agree() {
    let dump = dump();
    let opened = open(&dump);
    let (memory, info) = (opened.kernel.memory(), opened.kernel.vmcoreinfo());
    let found = machine::read(memory, info, &opened.description, None, &Limits::default());
    assert_eq!(found.gaps.iter().map(|g| g.what.as_str()).collect::<Vec<_>>(), ["CPUs"]);
    let time = found.time.unwrap();
    assert_eq!(time.now, Duration::new(1_795_330_811, 692_000_000));
    assert_eq!(time.crashed, Some(time.now.as_secs()), "the clock stands still in a crash");
    assert_eq!(time.booted + time.uptime, time.now);
    assert_eq!((time.hz, time.uptime_by_jiffies), (Some(250), Some(Duration::from_secs(61))));
    assert_eq!(time.uptime.as_secs(), 61);
    assert_eq!((time.suspended, time.clock_source.as_deref()), (Duration::ZERO, Some("hpet")));
    assert_eq!(time.disagreements, [""; 0]);
}

#[test]
fn modules_are_as_lsmod_lists_them() {
    let dump = dump();
    let opened = open(&dump);
    let found = module::read(opened.kernel.memory(), &opened.description, &Limits::default());
    assert_eq!((found.gaps.as_slice(), found.lost, found.end.is_complete()), (&[][..], 0, true));
    assert_eq!(found.last_unloaded, None);
    let rows: Vec<_> = found
        .modules
        .iter()
        .map(|m| (m.name.as_str(), m.size.unwrap(), m.references.unwrap(), m.used_by.join(",")))
        .collect();
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[0], ("pvpanic_mmio", 16384, 0, String::new()));
    assert_eq!(rows[5], ("virtio", 20480, 2, "virtio_blk,virtio_pci".into()));
    assert_eq!(rows[8], ("virtio_ring", 49152, 3, "virtio_blk,virtio_pci,virtio".into()));
    assert!(
        found.modules.iter().all(|m| m.state == ModuleState::Live && m.taint.as_ref().unwrap().mask == 0)
    );
    let pci = found.modules.iter().find(|m| m.name == "virtio_pci").unwrap();
    assert_eq!(pci.source_version.as_deref(), Some("2526A0E335FCA2331138131"));
    assert_eq!((pci.version.as_deref(), pci.arguments.as_deref()), (Some("1"), Some("")));
    let legacy = &pci.parameters[0];
    assert_eq!((legacy.name.as_str(), legacy.ops.as_deref()), ("force_legacy", Some("param_ops_bool")));
    assert_eq!(legacy.value, ParamValue::Shown("N".into()));
}
