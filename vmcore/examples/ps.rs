//! The tasks of a dump, without debuginfo: `ps DUMP` prints them for people, `ps DUMP tsv` for a comparison with another reader.

use std::error::Error;
use std::io::{BufWriter, Write, stdout};
use std::time::Instant;

use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::task::{self, Cmdline, Kind, Task, Tasks};
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::{Dump, OpenOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), what) = (args.next(), args.next()) else { return Err("usage: ps DUMP [tsv]".into()) };
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
    let percpu = PerCpu::read(memory, &description.symbols, &limits)?;
    let start = Instant::now();
    let tasks = task::read(memory, &description, &percpu, &limits);
    let took = start.elapsed();
    let mut out = BufWriter::new(stdout().lock());
    if what.as_deref() == Some("tsv") {
        for task in &tasks.tasks {
            row(&mut out, task)?;
        }
        return Ok(());
    }
    people(&mut out, &tasks)?;
    writeln!(out, "{} tasks in {took:?}", tasks.tasks.len())?;
    Ok(())
}

fn or_dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn row(out: &mut impl Write, task: &Task) -> std::io::Result<()> {
    let who = task.credentials;
    writeln!(
        out,
        "{:#x}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:?}",
        task.kaddr.0,
        task.pid,
        task.tgid,
        or_dash(task.ppid),
        task.comm.escape_default(),
        task.letter(),
        or_dash(task.cpu),
        or_dash(task.running_on),
        u8::from(task.kind != Kind::User),
        or_dash(who.map(|who| who.uid)),
        or_dash(who.map(|who| who.gid)),
        or_dash(task.cgroup.as_ref().map(|group| &group.path)),
        or_dash(task.since_arrival_ns),
        or_dash(task.start_ns),
        or_dash(task.utime_ns.zip(task.stime_ns).map(|(user, system)| user.saturating_add(system))),
        or_dash(task.schedule.prio),
        or_dash(task.namespace_pid.map(|own| own.pid)),
        or_dash(task.sp.map(|sp| format!("{:#x}", sp.0))),
        task.cmdline,
    )
}

fn people(out: &mut impl Write, tasks: &Tasks) -> std::io::Result<()> {
    for cpu in &tasks.cpus.cpus {
        let name = tasks.current(cpu.number).map_or("?", |task| &task.comm);
        writeln!(
            out,
            "cpu {}: online {:?}, {} running, now {} ns: {name}",
            cpu.number,
            cpu.online,
            or_dash(cpu.nr_running),
            or_dash(cpu.clock_ns)
        )?;
    }
    for gap in &tasks.gaps {
        writeln!(out, "gap: {}: {}", gap.what, gap.why)?;
    }
    for lost in tasks.lost.iter().take(20) {
        writeln!(out, "lost: {lost}")?;
    }
    writeln!(out, "lost in all: {}", tasks.lost_count)?;
    for task in &tasks.tasks {
        let command = match &task.cmdline {
            Cmdline::Arguments { list, .. } if !list.is_empty() => list.join(" "),
            Cmdline::Missing(why) => format!("{} ({why})", task.comm),
            _ => format!("[{}]", task.comm),
        };
        writeln!(
            out,
            "{:>7} {:>7} {} cpu {:>3} not run {:>12} ns  {} {}",
            task.pid,
            or_dash(task.ppid),
            task.letter(),
            or_dash(task.cpu),
            or_dash(task.not_run_ns),
            task.cgroup.as_ref().map_or("", |group| &group.path),
            command.escape_default(),
        )?;
    }
    Ok(())
}
