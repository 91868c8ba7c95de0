//! A real crash of Debian's 6.1 (`fixtures/data/panic-6.1.kdump`): what the kernel says of itself in its memory agrees with what it
//! printed and with what it wrote into VMCOREINFO.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::Hints;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::value::{Layout, read_number};
use vmcore::kernel::walk::WalkEnd;
use vmcore::kernel::{Kernel, Options, idr, list, maple};
use vmcore::limits::Limits;
use vmcore::source::ReadAt;
use vmcore::sym::kallsyms::{self, Kallsyms};
use vmcore::{Dump, OpenOptions, PhysicalMemory};

vmcore::view! {
    /// What these tests compare of a task.
    struct Task of "task_struct" {
        pid: i32 = ["pid"],
        comm: String = ["comm"],
        mm: KVirtAddr = ["mm"],
    }
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data").join(name).display().to_string()
}

fn dump() -> Dump {
    Dump::open(data("panic-6.1.kdump"), &OpenOptions::default()).unwrap()
}

fn kernel(dump: &Dump) -> Kernel<'_> {
    let hints = Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        phys_base: dump.facts().phys_base,
        ..Hints::default()
    };
    Kernel::open(dump, &hints, Options::default().without_scan())
}

fn describe(kernel: &Kernel<'_>) -> Description {
    Description::load(kernel.memory(), kernel.vmcoreinfo(), &Limits::default())
}

#[test]
fn symbols_have_the_places_and_sizes_that_the_kernel_printed() {
    let dump = dump();
    let kernel = kernel(&dump);
    let description = describe(&kernel);
    assert_eq!(description.gaps, []);
    let symbols = &description.symbols;
    assert_eq!(symbols.kernel().map(Kallsyms::len), Some(87_347));
    let log = std::fs::read_to_string(data("panic-6.1.dmesg")).unwrap();
    // «sysrq_handle_crash+0x16/0x20» in a backtrace: the symbol's name, and its size by the kernel's own reckoning.
    let words = log.split(|c: char| c.is_whitespace() || c == ':' || c == '(' || c == ')');
    let printed: BTreeSet<(&str, u64)> = words
        .filter_map(|word| {
            let (name, rest) = word.split_once("+0x")?;
            let (_, size) = rest.split_once("/0x")?;
            Some((name, u64::from_str_radix(size, 16).ok()?))
        })
        .collect();
    assert!(printed.len() >= 15, "{printed:?}");
    for (name, size) in printed {
        let sizes: Vec<_> = symbols.all(name).into_iter().map(|s| s.size).collect();
        assert!(
            sizes.contains(&Some(size)),
            "{name} has the sizes {sizes:x?}, and the kernel printed {size:#x}"
        );
    }
    for (name, address) in
        ["_stext", "init_top_pgt", "init_uts_ns", "prb"].map(|n| (n, kernel.vmcoreinfo().symbol(n)))
    {
        assert_eq!(symbols.kernel().unwrap().symbol(name).map(|s| s.address), address, "{name}");
    }
}

#[test]
fn the_search_finds_the_table_that_vmcoreinfo_names() {
    let dump = dump();
    let kernel = kernel(&dump);
    let limits = Limits::default();
    let named = kallsyms::load(kernel.memory(), kernel.vmcoreinfo(), &limits).unwrap();
    let found = kallsyms::scan(kernel.memory(), None, &limits).unwrap();
    assert_eq!((found.encoding(), found.length_form()), (named.encoding(), named.length_form()));
    assert!(named.iter().eq(found.iter()));
}

#[test]
fn types_have_the_offsets_and_sizes_that_vmcoreinfo_tells() {
    let dump = dump();
    let kernel = kernel(&dump);
    let description = describe(&kernel);
    let mut compared = 0;
    for entry in kernel.vmcoreinfo().entries() {
        let inside = |prefix| entry.key.strip_prefix(prefix).and_then(|k: &str| k.strip_suffix(')'));
        if let Some((of, member)) = inside("OFFSET(").and_then(|k| k.split_once('.')) {
            // The key for the list of a structure that no longer has a name of its own in BTF is skipped.
            let Ok(of) = description.types.structure(of) else { continue };
            let place = of.member(member).map(|m| m.offset().to_string());
            assert_eq!(place.as_deref(), Ok(entry.value.as_str()), "{}", entry.key);
            compared += 1;
        } else if let Some(of) = inside("SIZE(")
            && let Ok(of) = description.types.structure(of)
        {
            assert_eq!(of.size().to_string(), entry.value, "{}", entry.key);
            compared += 1;
        }
    }
    assert!(compared > 50, "only {compared} keys could be compared");
}

#[test]
fn modules_and_their_types_are_those_that_were_loaded() {
    let dump = dump();
    let kernel = kernel(&dump);
    let mut description = describe(&kernel);
    // What `drills/lab/init` loads for a disk, a panic device and the firmware's configuration, with what these need.
    let loaded = BTreeSet::from([
        "pvpanic",
        "pvpanic_mmio",
        "qemu_fw_cfg",
        "virtio",
        "virtio_blk",
        "virtio_pci",
        "virtio_pci_legacy_dev",
        "virtio_pci_modern_dev",
        "virtio_ring",
    ]);
    let ours: Vec<Arc<str>> = description.symbols.modules().iter().map(|m| Arc::clone(m.name())).collect();
    assert_eq!(ours.iter().map(|m| &**m).collect::<BTreeSet<_>>(), loaded);
    assert_eq!(description.modules_end, Some(WalkEnd::Complete));
    let symbol = description.symbols.symbol("virtqueue_get_buf").unwrap();
    assert_eq!(symbol.module.as_deref(), Some("virtio_ring"));
    let inside = symbol.address.checked_add(1).unwrap();
    let size = symbol.size.unwrap();
    assert_eq!(
        description.symbols.at(inside).unwrap().to_string(),
        format!("virtqueue_get_buf+0x1/{size:#x} [virtio_ring]")
    );
    // A structure that only the module knows, with a member of a type that the kernel knows.
    assert!(description.types.structure("vring_virtqueue").is_err());
    description.load_module_types(kernel.memory(), "virtio_ring", &Limits::default()).unwrap();
    let queue = description.types.structure("vring_virtqueue").unwrap();
    assert_eq!(queue.member("vq").unwrap().ty().name(), "virtqueue");
    assert!(queue.has("vq.vdev") && queue.has("split.vring.num"));
    let none =
        description.load_module_types(kernel.memory(), "no_such_module", &Limits::default()).unwrap_err();
    assert_eq!(none.to_string(), "the BTF can't be read: the module has none");
}

/// Offsets as `pahole --btf_base vmlinux` shows them of the modules' files of 6.1.0-56-cloud-amd64.
#[test]
fn members_of_modules_structures_are_where_pahole_says() {
    let file = data("failures/6.1-multipath.kdump");
    let dump = Dump::open(file, &OpenOptions::default()).unwrap();
    let kernel = kernel(&dump);
    let description = describe(&kernel);
    let limits = Limits::default();
    let (types, gaps) = description.types_of(
        kernel.memory(),
        &["dm_mod", "dm_multipath", "virtio_ring", "virtio_blk", "no_such_module"],
        &limits,
    );
    assert_eq!(gaps, Vec::<String>::new());
    for (of, member, offset) in [
        ("mapped_device", "map", 80),
        ("mapped_device", "disk", 184),
        ("mapped_device", "pending_io", 224),
        ("mapped_device", "deferred", 296),
        ("dm_table", "num_targets", 208),
        ("dm_table", "devices", 248),
        ("dm_target", "private", 56),
        ("hash_cell", "name", 56),
        ("multipath", "nr_valid_paths", 40),
        ("multipath", "queued_bios", 224),
        ("pgpath", "path.dev", 32),
        ("pgpath", "is_active", 136),
        ("priority_group", "pgpaths", 48),
        ("vring_virtqueue", "vq.num_free", 44),
        ("vring_virtqueue", "last_used_idx", 88),
        ("vring_virtqueue", "split.vring.used", 120),
        ("virtio_blk", "vdev", 32),
    ] {
        let found = types.structure(of).unwrap().member(member).unwrap().offset();
        assert_eq!(found, offset, "{of}.{member}");
    }
    // The description itself stays as it was: what a walk needs is its own.
    assert!(description.types.structure("dm_table").is_err());
}

#[test]
fn the_list_of_tasks_and_the_table_of_their_numbers_agree() {
    let dump = dump();
    let kernel = kernel(&dump);
    let description = describe(&kernel);
    let (memory, symbols, types) = (kernel.memory(), &description.symbols, &description.types);
    let limit = Limits::default().walk_items;
    let inside = types.structure("task_struct").unwrap().member("tasks").unwrap().offset();
    let head = symbols.address("init_task").unwrap().checked_add(inside).unwrap();
    let walk = list::walk(memory, head, limit);
    assert_eq!(walk.end, WalkEnd::Complete);
    let layout = Layout::<Task>::new(types).unwrap();
    let read = |node: &KVirtAddr| layout.read(memory, node.checked_sub(inside).unwrap()).unwrap();
    let tasks: Vec<Task> = walk.items.iter().map(read).collect();
    assert_eq!((tasks[0].pid, tasks[0].comm.as_str(), tasks[1].comm.as_str()), (1, "init", "kthreadd"));
    let namespace = types.structure("pid_namespace").unwrap().member("idr").unwrap().offset();
    let place = symbols.address("init_pid_ns").unwrap().checked_add(namespace).unwrap();
    let pids = idr::Layout::new(types).unwrap().entries(memory, place, limit);
    assert_eq!(pids.end, WalkEnd::Complete);
    let numbers: BTreeSet<u64> = pids.items.iter().map(|(n, _)| *n).collect();
    let listed: BTreeSet<u64> = tasks.iter().map(|t| u64::try_from(t.pid).unwrap()).collect();
    assert!(
        listed.is_subset(&numbers),
        "in the list, but without a number: {:?}",
        listed.difference(&numbers)
    );
    // Each memory area that init's maple tree has, its `map_count` counts.
    let mm = types.structure("mm_struct").unwrap();
    let areas = maple::Layout::new(types).unwrap();
    let tree = tasks[0].mm.checked_add(mm.member("mm_mt").unwrap().offset()).unwrap();
    let areas = areas.entries(memory, tree, limit);
    let slot = vmcore::kernel::value::Slot::new(mm.member("map_count").unwrap()).unwrap();
    assert_eq!(
        (areas.items.len() as u64, areas.end),
        (read_number(memory, tasks[0].mm, &slot).unwrap(), WalkEnd::Complete)
    );
    let cpus = PerCpu::read(memory, symbols, &Limits::default()).unwrap();
    assert_eq!(cpus.possible(), [0, 1]);
    // Each CPU's `this_cpu_off` holds its own offset.
    for (cpu, at) in cpus.variable(symbols, "this_cpu_off").unwrap() {
        assert_eq!(memory.read_u64(at).unwrap(), cpus.offset(cpu).unwrap());
    }
}

/// The dump's file with some of its bits flipped.
struct Flipped {
    bytes: Arc<Vec<u8>>,
    flips: Vec<(u64, u8)>,
}

impl ReadAt for Flipped {
    fn len(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let all: &[u8] = &self.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        let count = buf.len().min(all.len() - start);
        buf[..count].copy_from_slice(&all[start..start + count]);
        for (at, bit) in &self.flips {
            if let Some(byte) =
                at.checked_sub(offset).and_then(|i| buf[..count].get_mut(usize::try_from(i).ok()?))
            {
                *byte ^= bit;
            }
        }
        Ok(count)
    }
}

#[test]
fn a_damaged_dump_loses_what_is_damaged_and_says_so() {
    let bytes = Arc::new(std::fs::read(data("panic-6.1.kdump")).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for seed in 0..12 {
        // Behind the headers, whose damage other tests have: 400 flips hit some 400 of 6,000 pages.
        let flips = (0..400)
            .map(|_| (0x4_0000 + random() % (bytes.as_slice().len() as u64 - 0x4_0000), 1 << (random() & 7)))
            .collect();
        let source = Flipped { bytes: Arc::clone(&bytes), flips };
        let Ok(dump) = Dump::from_source(Arc::new(source), "flipped", &OpenOptions::default()) else {
            continue;
        };
        let kernel = kernel(&dump);
        let description = describe(&kernel);
        let found = description.symbols.kernel().map_or(0, Kallsyms::len);
        assert!(
            found == 87_347 || !description.gaps.is_empty(),
            "seed {seed}: {found} symbols, and no word of why"
        );
        assert!(dump.read(PhysAddr(0), &mut []).is_ok());
        if let Some(head) = description.symbols.address("slab_caches") {
            let _ = list::walk(kernel.memory(), head, 1 << 16);
        }
    }
}
