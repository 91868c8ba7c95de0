//! What a dumped kernel says of itself, without debuginfo: symbols, types, modules, and a few containers that are always there.
//!
//! `describe DUMP` prints a summary with the time that the loading took; `describe DUMP symbols` prints all symbols as `nm` does,
//! and `describe DUMP members` all members of all structs (struct, member, bit offset, bits, bytes). The checks against
//! `nm` and `bpftool` in `fixtures/foreign` read these.

use std::error::Error;
use std::io::{BufWriter, Write, stdout};
use std::time::Instant;

use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::value::{Layout, Maybe};
use vmcore::kernel::{Kernel, Options, hlist, idr, list, maple, rbtree};
use vmcore::limits::Limits;
use vmcore::sym::btf::Kind;
use vmcore::sym::globals;
use vmcore::sym::kallsyms::{Kallsyms, scan};
use vmcore::sym::modules::ModuleSymbols;
use vmcore::xlat::KernelMemory;
use vmcore::{Dump, OpenOptions};

type Done = Result<(), Box<dyn Error>>;

vmcore::view! {
    /// What this example shows of a task.
    struct Task of "task_struct" {
        pid: i32 = ["pid"],
        state: Maybe<u64> = ["__state", "state"],
        comm: String = ["comm"],
        mm: KVirtAddr = ["mm"],
    }
}

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let (Some(path), what) = (args.next(), args.next()) else {
        return Err("usage: describe DUMP [symbols|scan|members]".into());
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
    let (memory, info) = (kernel.memory(), kernel.vmcoreinfo());
    let mut out = BufWriter::new(stdout().lock());
    match what.as_deref() {
        Some("symbols") => symbols(&mut out, memory, info),
        // The same table, found by its shape alone.
        Some("scan") => kernel_symbols(&mut out, &scan(memory, None, &Limits::default())?),
        Some("members") => members(&mut out, memory, info),
        _ => summary(&mut out, memory, info),
    }
}

fn kernel_symbols(out: &mut impl Write, table: &Kallsyms) -> Done {
    for symbol in table.iter() {
        writeln!(out, "{:016x} {} {}", symbol.address.0, symbol.letter, symbol.name)?;
    }
    Ok(())
}

fn symbols(out: &mut impl Write, memory: &KernelMemory<'_>, info: &Vmcoreinfo) -> Done {
    let description = Description::load(memory, info, &Limits::default());
    if let Some(table) = description.symbols.kernel() {
        kernel_symbols(out, table)?;
    }
    for symbol in description.symbols.modules().iter().flat_map(ModuleSymbols::iter) {
        writeln!(out, "{:016x} {} {symbol}", symbol.address.0, symbol.letter)?;
    }
    Ok(())
}

fn members(out: &mut impl Write, memory: &KernelMemory<'_>, info: &Vmcoreinfo) -> Done {
    let description = Description::load(memory, info, &Limits::default());
    let types = description.types.kernel().ok_or("the dump has no types")?;
    let all = types.ids().filter_map(|id| types.by_id(id).ok());
    for ty in all.filter(|t| matches!(t.kind(), Kind::Struct | Kind::Union)) {
        for member in ty.members() {
            let bits = member.bits().map_or("-".into(), |b| b.to_string());
            let name = if member.name().is_empty() { "(anon)" } else { member.name() };
            let of = if ty.name().is_empty() { "(anon)" } else { ty.name() };
            writeln!(out, "{of} {name} {} {bits} {}", member.bit_offset(), member.size()?)?;
        }
    }
    Ok(())
}

fn summary(out: &mut impl Write, memory: &KernelMemory<'_>, info: &Vmcoreinfo) -> Done {
    let limits = Limits::default();
    let start = Instant::now();
    let description = Description::load(memory, info, &limits);
    writeln!(out, "loaded in {:?}", start.elapsed())?;
    let (symbols, types) = (&description.symbols, &description.types);
    writeln!(out, "{:?}", symbols.kernel())?;
    writeln!(out, "{:?} from {:?}", types.kernel(), description.types_from)?;
    for gap in &description.gaps {
        writeln!(out, "gap: {}: {}", gap.what, gap.why)?;
    }
    for module in symbols.modules() {
        writeln!(out, "module {} at {}: {} symbols", module.name(), module.kaddr(), module.len())?;
    }
    writeln!(out, "modules: {:?}; {} have types", description.modules_end, description.module_types.len())?;
    let cpus = PerCpu::read(memory, symbols, &limits)?;
    writeln!(out, "cpus: possible {:?}, online {:?}", cpus.possible(), cpus.online())?;
    let tasks = tasks(out, memory, &description)?;
    containers(out, memory, &description)?;
    areas(out, memory, &description, &tasks)?;
    for name in ["init_task", "prb", "node_data", "runqueues", "tainted_mask", "no_such_variable"] {
        match globals::type_of(types, symbols, name) {
            Ok(global) => writeln!(out, "{name} is {:?} of {}", global.shape, global.ty.name())?,
            Err(why) => writeln!(out, "{name}: {why}")?,
        }
    }
    let kept = types.kernel().map_or(0, |t| t.footprint());
    writeln!(
        out,
        "kept: {} bytes of symbols, {kept} of types",
        symbols.kernel().map_or(0, Kallsyms::footprint)
    )?;
    Ok(())
}

fn tasks(
    out: &mut impl Write,
    memory: &KernelMemory<'_>,
    description: &Description,
) -> Result<Vec<Task>, Box<dyn Error>> {
    let limits = Limits::default();
    let start = Instant::now();
    let layout = Layout::<Task>::new(&description.types)?;
    let inside = description.types.structure("task_struct")?.member("tasks")?.offset();
    let init_task = description.symbols.address("init_task").ok_or("no symbol init_task")?;
    let head = init_task.checked_add(inside).ok_or("init_task")?;
    let walk = list::walk(memory, head, limits.walk_items);
    let read = |node: &KVirtAddr| layout.read(memory, KVirtAddr(node.0.wrapping_sub(inside))).ok();
    let tasks: Vec<Task> = walk.items.iter().filter_map(read).collect();
    writeln!(
        out,
        "tasks: {} of {} read ({}) in {:?}",
        tasks.len(),
        walk.items.len(),
        walk.end,
        start.elapsed()
    )?;
    for task in tasks.iter().take(3) {
        writeln!(out, "  {} {} {:?} {}", task.pid, task.comm, task.state, task.mm)?;
    }
    let namespace = description.symbols.address("init_pid_ns").ok_or("no symbol init_pid_ns")?;
    let inside = description.types.structure("pid_namespace")?.member("idr")?.offset();
    let layout = idr::Layout::new(&description.types)?;
    let pids = layout.entries(memory, namespace.checked_add(inside).ok_or("init_pid_ns")?, limits.walk_items);
    writeln!(out, "pids: {} ({}, {} lost)", pids.items.len(), pids.end, pids.lost)?;
    Ok(tasks)
}

fn containers(out: &mut impl Write, memory: &KernelMemory<'_>, description: &Description) -> Done {
    let limit = Limits::default().walk_items;
    let symbols = &description.symbols;
    for name in ["slab_caches", "modules", "super_blocks", "net_namespace_list", "workqueues"] {
        if let Some(head) = symbols.address(name) {
            let walk = list::walk(memory, head, limit);
            writeln!(out, "{name}: {} ({})", walk.items.len(), walk.end)?;
        }
    }
    if let Some(root) = symbols.address("vmap_area_root") {
        let walk = rbtree::walk(memory, root, limit);
        writeln!(out, "vmap_area_root: {} ({})", walk.items.len(), walk.end)?;
    }
    if let (Some(table), Some(mask)) = (symbols.address("mount_hashtable"), symbols.address("m_hash_mask")) {
        let (table, mask) = (memory.read_ptr(table)?, memory.read_u32(mask)?.min(1 << 20));
        let mut mounts = 0_usize;
        for bucket in 0..=u64::from(mask) {
            let head = KVirtAddr(table.0.wrapping_add(bucket.wrapping_mul(8)));
            let walk = hlist::walk(memory, head, hlist::Flavour::Plain, limit);
            if !walk.end.is_complete() {
                writeln!(out, "mount_hashtable: bucket {bucket}: {}", walk.end)?;
            }
            mounts = mounts.saturating_add(walk.items.len());
        }
        writeln!(out, "mount_hashtable: {mounts}")?;
    }
    if let (Some(tree), Ok(layout)) = (symbols.address("sparse_irqs"), maple::Layout::new(&description.types))
    {
        let walk = layout.entries(memory, tree, limit);
        writeln!(out, "sparse_irqs: {} ({})", walk.items.len(), walk.end)?;
    }
    Ok(())
}

/// The memory areas of some processes: in a maple tree since 6.1, in a red-black tree before.
fn areas(out: &mut impl Write, memory: &KernelMemory<'_>, description: &Description, tasks: &[Task]) -> Done {
    let limit = Limits::default().walk_items;
    let mm = description.types.structure("mm_struct")?;
    for task in tasks.iter().filter(|t| !t.mm.is_null()).take(3) {
        let inside = mm.member_of(&["mm_mt", "mm_rb"])?.offset();
        let at = KVirtAddr(task.mm.0.wrapping_add(inside));
        let (found, end) = if mm.has("mm_mt") {
            let walk = maple::Layout::new(&description.types)?.entries(memory, at, limit);
            (walk.items.len(), walk.end)
        } else {
            let walk = rbtree::walk(memory, at, limit);
            (walk.items.len(), walk.end)
        };
        writeln!(out, "{}: {found} memory areas ({end})", task.comm)?;
    }
    Ok(())
}
