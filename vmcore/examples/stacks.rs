//! The stacks of all CPUs and tasks of a dump.
//!
//! `stacks DUMP` prints them as `crash`'s `foreach bt` does; `stacks DUMP raw` prints one line per frame, `pid pc symbol+offset`, for
//! comparison with another reader.

use std::error::Error;
use std::io::{BufWriter, Write, stdout};
use std::time::Instant;

use rayon::prelude::*;
use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::value::Layout;
use vmcore::kernel::{Kernel, Options, list};
use vmcore::limits::Limits;
use vmcore::unwind::{Stack, StackEnd, Unwinder};
use vmcore::{Dump, OpenOptions};

type Done = Result<(), Box<dyn Error>>;

vmcore::view! {
    /// What is needed of a task.
    struct Task of "task_struct" {
        pid: i32 = ["pid"],
        comm: String = ["comm"],
        stack: KVirtAddr = ["stack"],
        sp: KVirtAddr = ["thread.sp"],
        on_cpu: Option<u32> = ["on_cpu"],
    }
}

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let (Some(path), raw) = (args.next(), args.next().is_some()) else {
        return Err("usage: stacks DUMP [raw]".into());
    };
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
    let limits = Limits::default();
    let memory = kernel.memory();
    let description = Description::load(memory, kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(memory, &description.symbols, &limits)?;
    let mut out = BufWriter::new(stdout().lock());

    let start = Instant::now();
    let unwinder = Unwinder::new(memory, &description, &cpus, &limits);
    let settled = start.elapsed();
    let tasks = tasks(memory, &description)?;
    let start = Instant::now();
    let stacks: Vec<Stack> =
        tasks.par_iter().map(|task| unwinder.unwind_sleeping(task.stack, task.sp)).collect();
    let unwound = start.elapsed();
    let shown = |out: &mut dyn Write, who: String, stack: &Stack| -> Done {
        if !raw {
            writeln!(out, "{who}")?;
        }
        for frame in &stack.frames {
            let symbol = unwinder.symbol(frame);
            if raw {
                let symbol = symbol.map(|s| format!("{}+{:#x}", s.symbol.name, s.offset));
                writeln!(out, "{who} {:x} {}", frame.pc.0, symbol.unwrap_or_else(|| "?".into()))?;
            } else {
                let symbol = symbol.map_or_else(|| format!("{:#x}", frame.pc.0), |s| s.to_string());
                let doubt = if frame.sure { "" } else { " (unsure)" };
                writeln!(out, "  {:016x} {symbol}  {:?} {}{doubt}", frame.sp.0, frame.trust, frame.stack)?;
            }
        }
        if !raw {
            stack.doubts.iter().try_for_each(|d| writeln!(out, "  doubt at frame {}: {}", d.frame, d.why))?;
            if let Some(trouble) = unwinder.trouble(stack) {
                writeln!(out, "  trouble at frame {}: {:?}", trouble.frame, trouble.kind)?;
            }
            writeln!(out, "  end: {}", stack.end)?;
        }
        Ok(())
    };
    for status in dump.prstatus() {
        let stack = unwinder.unwind_registers(&status.registers, status.cpu);
        shown(
            &mut out,
            if raw { format!("cpu{}", status.cpu) } else { format!("cpu {}", status.cpu) },
            &stack,
        )?;
    }
    for (task, stack) in tasks.iter().zip(&stacks).filter(|(task, _)| task.on_cpu.unwrap_or_default() == 0) {
        let who = if raw { task.pid.to_string() } else { format!("task {} {}", task.pid, task.comm) };
        shown(&mut out, who, stack)?;
    }
    if !raw {
        let sleeping = || tasks.iter().zip(&stacks).filter(|(task, _)| task.on_cpu.unwrap_or_default() == 0);
        let complete = sleeping().filter(|(_, stack)| stack.is_complete()).count();
        let user = sleeping().filter(|(_, s)| matches!(s.end, StackEnd::User { .. })).count();
        let frames: usize = sleeping().map(|(_, stack)| stack.frames.len()).sum();
        writeln!(out, "{}: {}", unwinder.method(), unwinder.how_sure())?;
        unwinder.gaps().iter().try_for_each(|gap| writeln!(out, "gap: {}: {}", gap.what, gap.why))?;
        let all = sleeping().count();
        writeln!(
            out,
            "{complete} of {all} sleeping tasks complete ({user} from user space), {frames} frames"
        )?;
        writeln!(out, "settled in {settled:?}, unwound in {unwound:?}")?;
    }
    Ok(())
}

fn tasks(
    memory: &vmcore::xlat::KernelMemory<'_>,
    description: &Description,
) -> Result<Vec<Task>, Box<dyn Error>> {
    let limits = Limits::default();
    let layout = Layout::<Task>::new(&description.types)?;
    let of = description.types.structure("task_struct")?;
    let (tasks, thread) = (of.member("tasks")?.offset(), of.member("thread_node")?.offset());
    let signal = of.member("signal")?.offset();
    let threads = description.types.structure("signal_struct")?.member("thread_head")?.offset();
    let init = description.symbols.address("init_task").ok_or("no symbol init_task")?;
    let walk = list::walk(memory, KVirtAddr(init.0.wrapping_add(tasks)), limits.walk_items);
    let mut found = Vec::new();
    for leader in walk.items {
        let leader = KVirtAddr(leader.0.wrapping_sub(tasks));
        let Ok(signal) = memory.read_ptr(KVirtAddr(leader.0.wrapping_add(signal))) else { continue };
        let walk = list::walk(memory, KVirtAddr(signal.0.wrapping_add(threads)), limits.walk_items);
        for node in walk.items {
            found.extend(layout.read(memory, KVirtAddr(node.0.wrapping_sub(thread))));
        }
    }
    Ok(found)
}
