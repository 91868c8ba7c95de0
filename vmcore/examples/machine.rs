//! What a dumped kernel knows of its machine, and its modules, without debuginfo.
//!
//! `machine DUMP` prints it as lines of `name value`, which the checks in `fixtures/foreign` compare with drgn's answers.

use std::error::Error;
use std::io::{BufWriter, Write, stdout};
use std::time::Instant;

use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::machine::{self, Machine};
use vmcore::kernel::module::{self, Module, Modules};
use vmcore::kernel::params::ParamValue;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::time::Time;
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::{Dump, OpenOptions};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let path = std::env::args().nth(1).ok_or("usage: machine DUMP")?;
    let dump = Dump::open(&path, &OpenOptions::default())?;
    let segment = |s: &vmcore::format::elf::LoadSegment| (KVirtAddr(s.vaddr), PhysAddr(s.paddr), s.mem_size);
    let hints = Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        control: dump.qemu_cpus().iter().map(|cpu| Control { cr3: cpu.cr3, cr4: cpu.cr4 }).collect(),
        phys_base: dump.facts().phys_base,
        segments: dump.segments().iter().filter(|s| s.vaddr != 0).map(segment).collect(),
    };
    let kernel = Kernel::open(&dump, &hints, Options::default());
    let (memory, limits) = (kernel.memory(), Limits::default());
    let description = Description::load(memory, kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(memory, &description.symbols, &limits).ok();
    let start = Instant::now();
    let machine = machine::read(memory, kernel.vmcoreinfo(), &description, cpus.as_ref(), &limits);
    let read_machine = start.elapsed();
    let modules = module::read(memory, &description, &limits);
    let read_all = start.elapsed();
    let mut out = BufWriter::new(stdout().lock());
    if let Some(two) = kernel.two_kernels() {
        let release = two.capture.info.release();
        writeln!(out, "capture kernel {release:?} told at {}: CPUs {:?}", two.elf_header, two.cpus)?;
        if let Some(told) = &two.handed_over {
            writeln!(
                out,
                "crashed kernel {} CPUs, memory {:x?}, moved {:x?}",
                told.registers.len(),
                told.memory,
                told.moved
            )?;
        }
    }
    for gap in kernel.gaps() {
        writeln!(out, "gap {}: {}", gap.what, gap.why)?;
    }
    show(&mut out, &machine)?;
    show_modules(&mut out, &modules)?;
    for gap in machine.gaps.iter().chain(&modules.gaps) {
        writeln!(out, "gap {}: {}", gap.what, gap.why)?;
    }
    writeln!(out, "took {read_machine:?}, with modules {read_all:?}")?;
    out.flush()?;

    Ok(())
}

fn show(out: &mut impl Write, machine: &Machine) -> Done {
    if let Some(uts) = &machine.uts {
        writeln!(out, "uts {} {} {}", uts.nodename, uts.release, uts.version)?;
    }
    if let Some(cpus) = &machine.cpus {
        writeln!(
            out,
            "cpus possible {:?} present {:?} online {:?}",
            cpus.possible, cpus.present, cpus.online
        )?;
    }
    writeln!(out, "cpu {:?} {:?} microcode {:?}", machine.cpu_vendor, machine.cpu_model, machine.microcode)?;
    writeln!(out, "hypervisor {:?}", machine.hypervisor)?;
    writeln!(out, "memory_bytes {:?}", machine.memory_bytes)?;
    writeln!(out, "ram {:x?}", machine.ram)?;
    writeln!(out, "crash_memory {:x?}", machine.crash_memory)?;
    if let Some(time) = &machine.time {
        show_time(out, time)?;
    }
    writeln!(out, "load {:?}", machine.load)?;
    writeln!(out, "threads {:?}", machine.threads)?;
    writeln!(out, "cmdline {:?}", machine.cmdline)?;
    writeln!(out, "taint {:?}", machine.taint)?;
    writeln!(out, "crash_kernel_loaded {:?}", machine.crash_kernel_loaded)?;
    writeln!(out, "panic_cpu {:?} crashing_cpu {:?}", machine.panic_cpu, machine.crashing_cpu)?;
    writeln!(out, "oopses {:?} warnings {:?}", machine.oops_count, machine.warn_count)?;
    for setting in &machine.settings {
        writeln!(out, "setting {} {}", setting.name, setting.value)?;
    }
    Ok(())
}

fn show_time(out: &mut impl Write, time: &Time) -> Done {
    writeln!(out, "now {:?}", time.now)?;
    writeln!(out, "uptime {:?} suspended {:?}", time.uptime, time.suspended)?;
    writeln!(out, "booted {:?} crashed {:?}", time.booted, time.crashed)?;
    writeln!(out, "jiffies {:?} hz {:?} uptime {:?}", time.jiffies, time.hz, time.uptime_by_jiffies)?;
    writeln!(out, "clock {:?} {:?}", time.clock_source, time.disagreements)?;
    Ok(())
}

fn show_modules(out: &mut impl Write, modules: &Modules) -> Done {
    writeln!(out, "modules {} {} lost {}", modules.modules.len(), modules.end, modules.lost)?;
    writeln!(out, "last_unloaded {:?} tainted {:?}", modules.last_unloaded, modules.unloaded_tainted)?;
    for module in &modules.modules {
        show_module(out, module)?;
    }
    Ok(())
}

fn show_module(out: &mut impl Write, m: &Module) -> Done {
    let (base, size) = (m.base.unwrap_or_default().0, m.size.unwrap_or_default());
    let used_by = m.used_by.join(",");
    let references = m.references.unwrap_or_default();
    writeln!(out, "module {} {:#x} {} {base:#x} {size} {references} {used_by}", m.name, m.kaddr.0, m.state)?;
    let letters = m.taint.as_ref().map_or("", |t| t.letters.as_str());
    writeln!(out, "  taint {letters:?} version {:?} {:?}", m.version, m.source_version)?;
    writeln!(out, "  build {:?} args {:?}", m.build_id, m.arguments)?;
    for p in &m.parameters {
        let ops = p.ops.as_deref().unwrap_or("?");
        match &p.value {
            ParamValue::Shown(text) => writeln!(out, "  param {} {ops} {text}", p.name)?,
            other => writeln!(out, "  param {} {ops} {other:?}", p.name)?,
        }
    }
    Ok(())
}
