//! What foreign readers want of a kernel, beside what the analyses here read.

mod readers;
mod strings;
mod unwind_tables;

use std::collections::{BTreeMap, HashSet};

use super::{Level, Reason, runs_of};
use crate::addr::{KVirtAddr, Pfn};
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::value::{Slot, read_number};
use crate::kernel::variable::Variables;
use crate::kernel::{Kernel, task};
use crate::limits::Limits;
use crate::mem::{PageState, PhysicalMemory, Recorder};
use crate::progress::Cancel;
use crate::sym::btf::Struct;
use crate::xlat::KernelMemory;

/// Nothing that is kept as one piece of virtual memory is larger: the kernel's image is below 1 GiB.
const PIECE: u64 = 1 << 30;
/// Per-CPU units are never larger than this on `x86_64`.
const UNIT: u64 = 4 << 20;
/// What of a per-CPU unit follows the fixed part: `PERCPU_MODULE_RESERVE` and `PERCPU_DYNAMIC_RESERVE` with lockdep
/// (`include/linux/percpu.h`), and what is lost to rounding.
const DYNAMIC: u64 = 68 << 10;
/// `THREAD_SIZE` where the types do not tell.
const STACK: u64 = 16 << 10;
/// No stack is larger: `THREAD_SIZE` with KASAN is 64 KiB.
const LARGEST_STACK: u64 = 64 << 10;
/// Open files of one task that are looked at.
const FILES: u64 = 1 << 16;

/// The kernel's variables, which readers look into by name: from one symbol to another. What lies from
/// `__init_begin` to `__init_end` was given back after boot, and so was what [`GIVEN_BACK`] names.
const DATA: &[(&str, &str)] = &[
    ("_sdata", "_edata"),
    ("__start_ro_after_init", "__end_ro_after_init"),
    // The way into the unwind tables: where the unwinder here has found a frame, crash finds it too.
    ("orc_lookup", "orc_lookup_end"),
];

/// The kernel's variables that begin as zeros.
const BSS: (&str, &str) = ("__bss_start", "_end");
/// What within [`BSS`] was given back after boot, and is anybody's memory now (`mem_encrypt_free_decrypted_mem`,
/// `arch/x86/mm/mem_encrypt_amd.c`): most of 2 MiB.
const GIVEN_BACK: (&str, &str) = ("__start_bss_decrypted_unused", "__end_bss_decrypted");

/// Constants that readers take from the dump even where they have a vmlinux, and how much of them: crash compares `linux_banner` with
/// its vmlinux's before it believes either.
const PROOFS: &[(&str, u64)] = &[
    ("linux_banner", 512),
    ("mt_slots", 16),
    ("mt_pivots", 16),
    ("pageflag_names", 1024),
    // crash looks at how these functions begin, and disassembles this one to know how much of the stack it takes.
    ("sys_open", 32),
    ("__x64_sys_open", 32),
    ("sys_fork", 32),
    ("__x64_sys_fork", 32),
    ("sys_read", 32),
    ("__x64_sys_read", 32),
    ("vfs_read", 32),
    ("do_futex", 32),
    ("schedule", 512),
    ("__schedule", 16384),
];

/// What a vmlinux has as well: the analyses have read what they need of it, and of the other readers those that have a vmlinux want
/// the strings that something points at, and the code that stacks lead to.
const CONSTANTS: &[(&str, &str)] = &[
    ("__start_rodata", "__end_rodata"),
    ("_sdata", "__init_begin"),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
    ("__start_orc_unwind", "__stop_orc_unwind"),
    ("__start_BTF", "__stop_BTF"),
];

/// Where a tail page names its head, newest first.
const HEAD: &[&str] = &["compound_info", "compound_head"];

/// Touches what is wanted, and counts it.
pub(super) struct Closure<'a> {
    recorder: &'a Recorder<'a>,
    memory: &'a KernelMemory<'a>,
    kernel: &'a Kernel<'a>,
    description: Description,
    limits: &'a Limits,
    cancel: &'a Cancel,
    /// What was touched before the last reason.
    noted: Recorder<'a>,
    pub(super) why: BTreeMap<Reason, Vec<(Pfn, u64)>>,
    pub(super) gaps: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl<'a> Closure<'a> {
    pub(super) fn new(
        recorder: &'a Recorder<'a>,
        kernel: &'a Kernel<'a>,
        limits: &'a Limits,
        cancel: &'a Cancel,
    ) -> Self {
        let memory = kernel.memory();
        let description = Description::load(memory, kernel.vmcoreinfo(), limits);
        let (why, gaps, notes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self {
            recorder,
            memory,
            kernel,
            description,
            limits,
            cancel,
            noted: Recorder::new(recorder.beneath()),
            why,
            gaps,
            notes,
        }
    }

    /// Notes which frames of the dump were touched since the last reason.
    pub(super) fn note(&mut self, reason: Reason) {
        let runs = self.recorder.touched();
        let frames = runs.flat_map(|(first, count)| first.0..first.0.saturating_add(count)).map(Pfn);
        let new = runs_of(
            frames.filter(|pfn| !self.noted.has(*pfn) && self.recorder.state(*pfn) == PageState::Present),
        );
        for pfn in new.iter().flat_map(|(first, count)| first.0..first.0.saturating_add(*count)) {
            self.noted.touch(Pfn(pfn));
        }
        self.why.insert(reason, new);
    }

    pub(super) fn find(&mut self, level: Level) {
        for (from, to) in DATA {
            self.between(from, to);
        }
        self.bss();
        for (name, bytes) in PROOFS {
            if let Some(at) = self.description.symbols.address(name) {
                self.touch(at, *bytes);
            }
        }
        self.note(Reason::KernelData);
        if level >= Level::Generous {
            for (from, to) in CONSTANTS {
                self.between(from, to);
            }
            self.note(Reason::KernelConstants);
            self.between("_stext", "_etext");
            self.note(Reason::KernelText);
        }
        let per_cpu = self.per_cpu();
        self.note(Reason::PerCpu);
        let tasks = task::read(self.memory, &self.description, &per_cpu, self.limits);
        self.tasks(&tasks.tasks);
        self.note(Reason::Tasks);
        let code = self.addresses_of_code(&self.stacks(&tasks.tasks, &per_cpu));
        self.unwind_tables(&code);
        self.note(Reason::UnwindTables);
        if level >= Level::Standard {
            self.code(&code);
            self.note(Reason::CodeOnStacks);
        }
        self.what_readers_begin_with(&per_cpu);
        self.note(Reason::Readers);
        self.modules();
        self.note(Reason::Modules);
        if level >= Level::Standard {
            if let Err(why) = self.files(&tasks.tasks) {
                self.gaps.push(format!("open files are not looked for: {why}"));
            }
            self.note(Reason::Files);
        }
        if level == Level::Standard {
            self.strings();
            self.note(Reason::Strings);
        }
        if level >= Level::Generous {
            if let Err(why) = self.slab() {
                self.gaps.push(format!("slab pages are not looked for: {why}"));
            }
            self.note(Reason::Slab);
        }
        if level >= Level::Standard {
            self.page_array_whole(level);
            self.block_inodes();
            self.tags_of_disks();
        }
        self.page_structs();
        self.note(Reason::PageStructs);
        self.page_tables();
        self.note(Reason::PageTables);
        if self.cancel.is_cancelled() {
            self.gaps.push("it was interrupted".into());
        }
    }

    /// Touches each page of a piece of virtual memory, and the tables that lead there. Gives how much of it is mapped.
    fn touch(&self, from: KVirtAddr, bytes: u64) -> u64 {
        let page = self.recorder.page_size();
        let end = from.0.saturating_add(bytes.min(PIECE));
        let (mut at, mut mapped) = (from.0, 0u64);
        while at < end && !self.cancel.is_cancelled() {
            let left = end.saturating_sub(at);
            let to_next_page = page.saturating_sub(at.checked_rem(page).unwrap_or(0)).max(1);
            let step = match self.memory.translate(KVirtAddr(at)) {
                Ok(mapping) => {
                    let run = mapping.run.min(left).max(1);
                    self.recorder.touch_bytes(mapping.paddr, run);
                    mapped = mapped.saturating_add(run);
                    run
                }
                Err(_) => to_next_page,
            };
            at = at.saturating_add(step);
        }
        mapped
    }

    /// The variables that begin as zeros, without what was given back.
    fn bss(&self) {
        let symbols = &self.description.symbols;
        let bounds = |(from, to): (&str, &str)| symbols.address(from).zip(symbols.address(to));
        let Some((start, end)) = bounds(BSS) else { return };
        // Up to whole pages, as it is given back.
        let page = self.recorder.page_size();
        let hole = bounds(GIVEN_BACK).and_then(|(from, to)| {
            let (from, to) =
                (from.0.checked_next_multiple_of(page)?, to.0.checked_div(page)?.checked_mul(page)?);
            (start.0 <= from && from < to && to <= end.0).then_some((from, to))
        });
        let (until, on) = hole.unwrap_or((end.0, end.0));
        self.touch(start, until.saturating_sub(start.0));
        self.touch(KVirtAddr(on), end.0.saturating_sub(on));
    }

    fn between(&self, from: &str, to: &str) {
        let symbols = &self.description.symbols;
        if let Some((from, to)) = symbols.address(from).zip(symbols.address(to)) {
            self.touch(from, to.0.saturating_sub(from.0));
        }
    }

    fn per_cpu(&mut self) -> PerCpu {
        let symbols = &self.description.symbols;
        let per_cpu = match PerCpu::read(self.memory, symbols, self.limits) {
            Ok(per_cpu) => per_cpu,
            Err(why) => {
                self.gaps.push(format!("per-CPU variables are not looked for: {why}"));
                return PerCpu::default();
            }
        };
        let ends = symbols.address("__per_cpu_start").zip(symbols.address("__per_cpu_end"));
        let fixed = ends.map_or(0, |(start, end)| end.0.saturating_sub(start.0));
        let unit = Variables::new(self.memory, symbols).u32("pcpu_unit_size").map_or(0, u64::from);
        // The rest of a unit was given back, and is anybody's memory.
        let bytes = fixed.saturating_add(DYNAMIC).min(fixed.max(unit)).min(UNIT);
        let Some((start, _)) = ends else { return per_cpu };
        for cpu in per_cpu.possible() {
            if let Ok(at) = per_cpu.address(start, *cpu) {
                self.touch(at, bytes);
            }
        }
        per_cpu
    }

    fn tasks(&self, tasks: &[task::Task]) {
        let types = &self.description.types;
        let size = |name: &str| types.structure(name).ok().map(Struct::size);
        let task = size("task_struct").unwrap_or(STACK);
        let stack = self.stack_size();
        let credentials = size("cred").unwrap_or(0);
        let mm = size("mm_struct").unwrap_or(0);
        for one in tasks {
            self.touch(one.kaddr, task);
            if let Some(at) = one.stack {
                self.touch(at, stack);
            }
            if let Some(at) = one.mm {
                self.touch(at, mm);
            }
            for (member, bytes) in [("cred", credentials), ("signal", size("signal_struct").unwrap_or(0))] {
                if let Some(at) = self.pointer("task_struct", one.kaddr, member) {
                    self.touch(at, bytes);
                }
            }
        }
    }

    fn modules(&self) {
        let size = self.size("module");
        for module in self.description.symbols.modules() {
            self.touch(module.kaddr(), size);
            for range in module.ranges() {
                self.touch(KVirtAddr(range.start), range.end.saturating_sub(range.start));
            }
        }
    }

    /// Bytes of a structure; 0 where the types do not know it.
    fn size(&self, of: &str) -> u64 {
        self.description.types.structure(of).map_or(0, Struct::size)
    }

    /// Where a member is in a structure.
    fn offset(&self, of: &str, member: &str) -> Option<u64> {
        self.description.types.structure(of).ok()?.member(member).ok().map(crate::sym::btf::Member::offset)
    }

    /// A pointer that is a member of an object.
    fn pointer(&self, of: &str, object: KVirtAddr, member: &str) -> Option<KVirtAddr> {
        let structure = self.description.types.structure(of).ok()?;
        let slot = Slot::new(structure.member(member).ok()?).ok()?;
        let pointer = read_number(self.memory, object, &slot).ok()?;
        (pointer != 0).then_some(KVirtAddr(pointer))
    }

    /// Touches what a pointer of an object points at.
    fn follow(&self, of: &str, object: KVirtAddr, member: &str, target: &str) -> Option<KVirtAddr> {
        let at = self.pointer(of, object, member)?;
        let bytes = self.size(target);
        self.touch(at, bytes);
        Some(at)
    }

    /// Each task's table of files, and the files, names and inodes in it.
    fn files(&self, tasks: &[task::Task]) -> Result<(), String> {
        let types = &self.description.types;
        let table = types.structure("fdtable").map_err(|why| why.to_string())?;
        let most = table.member("max_fds").and_then(Slot::new).map_err(|why| why.to_string())?;
        let mut seen = HashSet::new();
        for one in tasks {
            if self.cancel.is_cancelled() {
                break;
            }
            let fs = self.follow("task_struct", one.kaddr, "fs", "fs_struct");
            for path in ["root.dentry", "pwd.dentry"] {
                fs.and_then(|fs| self.follow("fs_struct", fs, path, "dentry"));
            }
            for path in ["root.mnt", "pwd.mnt"] {
                fs.and_then(|fs| self.mount("fs_struct", fs, path));
            }
            let files = self.follow("task_struct", one.kaddr, "files", "files_struct");
            let table = files.and_then(|files| self.follow("files_struct", files, "fdt", "fdtable"));
            let Some(table) = table.filter(|table| seen.insert(*table)) else { continue };
            let Some(array) = self.pointer("fdtable", table, "fd") else { continue };
            let count = read_number(self.memory, table, &most).unwrap_or(0).min(FILES);
            self.touch(array, count.saturating_mul(8));
            for number in 0..count {
                let slot = KVirtAddr(array.0.saturating_add(number.saturating_mul(8)));
                let Ok(file) = self.memory.read_ptr(slot) else { continue };
                if file.0 != 0 && seen.insert(file) {
                    self.file(file);
                }
            }
        }
        Ok(())
    }

    /// Touches the mount that a pointer to its `struct vfsmount` is part of.
    fn mount(&self, of: &str, object: KVirtAddr, member: &str) -> Option<()> {
        let at = self.follow(of, object, member, "vfsmount")?;
        let inside = self.offset("mount", "mnt")?;
        self.touch(KVirtAddr(at.0.saturating_sub(inside)), self.size("mount"));
        Some(())
    }

    fn file(&self, file: KVirtAddr) {
        let bytes = self.size("file");
        self.touch(file, bytes);
        self.follow("file", file, "f_inode", "inode");
        self.mount("file", file, "f_path.mnt");
        // The names up to the root of the filesystem, with a bound against cycles.
        let mut dentry = self.follow("file", file, "f_path.dentry", "dentry");
        for _ in 0..64 {
            let Some(at) = dentry else { break };
            self.follow("dentry", at, "d_inode", "inode");
            if let Some(name) = self.pointer("dentry", at, "d_name.name") {
                self.touch(name, 256);
            }
            self.follow("dentry", at, "d_sb", "super_block");
            dentry = self.follow("dentry", at, "d_parent", "dentry").filter(|parent| *parent != at);
        }
    }

    /// The address of the `struct page`s, and the size of each.
    fn page_array(&self) -> Option<(KVirtAddr, u64)> {
        let variables = Variables::new(self.memory, &self.description.symbols);
        let base = variables.u64("vmemmap_base").ok().filter(|base| *base != 0)?;
        let told = self.kernel.vmcoreinfo().size("page");
        let size = told.or_else(|| self.description.types.structure("page").ok().map(Struct::size))?;
        (size > 0 && size < 4096).then_some((KVirtAddr(base), size))
    }

    /// Where `struct page` has a member: VMCOREINFO tells, and the types do where it does not.
    fn in_page(&self, told: &str, names: &[&str]) -> Option<u64> {
        let by_types = || {
            let page = self.description.types.structure("page").ok()?;
            page.member_of(names).ok().map(crate::sym::btf::Member::offset)
        };
        self.kernel.vmcoreinfo().offset(told).or_else(by_types)
    }

    /// Touches the `struct page` of each frame that is kept, and that of its head where it is a tail.
    fn page_structs(&mut self) {
        let Some((base, size)) = self.page_array() else {
            self.gaps.push("the array of struct page is not found".into());
            return;
        };
        let head = self.in_page("page.compound_head", HEAD);
        let runs: Vec<(Pfn, u64)> = self.recorder.touched().collect();
        for (first, count) in runs {
            let Some(at) = first.0.checked_mul(size).and_then(|offset| base.checked_add(offset)) else {
                continue;
            };
            self.touch(at, count.saturating_mul(size));
            let Some(head) = head else { continue };
            for number in 0..count {
                let place = at.0.saturating_add(number.saturating_mul(size)).saturating_add(head);
                if let Ok(head) = self.memory.read_u64(KVirtAddr(place))
                    && head & 1 == 1
                {
                    self.touch(KVirtAddr(head & !1), size);
                }
            }
        }
    }

    /// Touches the tables that map each kept frame in the direct map: the frames are reached by those addresses.
    fn page_tables(&self) {
        let page = self.recorder.page_size();
        // Tables are frames too, and are reached in the same way: twice is enough, since tables lie close together.
        for _ in 0..2 {
            let runs: Vec<(Pfn, u64)> = self.recorder.touched().collect();
            for (first, count) in runs {
                for pfn in first.0..first.0.saturating_add(count) {
                    let kaddr = Pfn(pfn).start(page).and_then(|paddr| self.memory.direct_map(paddr));
                    // The walk itself touches the tables.
                    let _ = kaddr.map(|kaddr| self.memory.translate(kaddr));
                }
            }
        }
        if let Some(tables) = self.memory.translation().tables {
            self.recorder.touch_bytes(tables.root, page);
        }
    }

    /// Touches all pages of the slab allocator, as the flags of `struct page` tell them.
    fn slab(&self) -> Result<(), String> {
        let info = self.kernel.vmcoreinfo();
        let (base, size) = self.page_array().ok_or("the array of struct page is not found")?;
        let flags_at = self.in_page("page.flags", &["flags"]).ok_or("no type tells where the flags are")?;
        let head_at = self.in_page("page.compound_head", HEAD).ok_or("no type tells where the head is")?;
        // Until 6.9 a flag of the page, after that a type of it in the upper bits of `_mapcount`.
        let flag = info.number_u64("PG_slab").and_then(|bit| 1u64.checked_shl(u32::try_from(bit).ok()?));
        let kind =
            info.number("PAGE_SLAB_MAPCOUNT_VALUE").zip(self.in_page("page._mapcount", &["_mapcount"]));
        if flag.is_none() && kind.is_none() {
            return Err("VMCOREINFO does not tell how they are marked".into());
        }
        let is_slab = |page: KVirtAddr| {
            let number = |at: u64| page.checked_add(at).and_then(|at| self.memory.read_u64(at).ok());
            match (kind, flag) {
                (Some((value, at)), _) => {
                    let kind = page.checked_add(at).and_then(|at| self.memory.read_u32(at).ok());
                    // Compared as the kernel's dump tools do: 32 bits, the lower ones may count.
                    kind.is_some_and(|kind| {
                        i64::from(kind.cast_signed()) == value
                            || kind >> 24 == u32::try_from(value & 0xffff_ffff).unwrap_or(0) >> 24
                    })
                }
                (None, Some(flag)) => number(flags_at).is_some_and(|flags| flags & flag != 0),
                (None, None) => false,
            }
        };
        let mut next = self.recorder.next_present(Pfn(0));
        while let Some(pfn) = next {
            if self.cancel.is_cancelled() {
                break;
            }
            if let Some(page) = pfn.0.checked_mul(size).and_then(|offset| base.checked_add(offset)) {
                let head = page.checked_add(head_at).and_then(|at| self.memory.read_u64(at).ok());
                let owner = match head {
                    Some(head) if head & 1 == 1 => KVirtAddr(head & !1),
                    _ => page,
                };
                if is_slab(owner) {
                    self.recorder.touch(pfn);
                }
            }
            next = pfn.checked_add(1).and_then(|pfn| self.recorder.next_present(pfn));
        }
        Ok(())
    }
}
