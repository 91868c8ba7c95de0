//! What crash and drgn read before they answer anything, found by watching them (`crash -d8` names each read).

use super::super::Level;
use super::Closure;
use crate::addr::KVirtAddr;
use crate::kernel::percpu::PerCpu;
use crate::kernel::xarray::{self, Entry};
use crate::kernel::{block, list};
use crate::mem::PhysicalMemory;

/// Nodes of memory that a kernel can have (`MAX_NUMNODES` with the largest `CONFIG_NODES_SHIFT`).
const NODES: u64 = 1024;
/// Pages of the table of memory sections: 2^(52 - 27) sections of 128 MiB, 128 of them a page, 8 bytes a page.
const ROOTS: u64 = 1 << 21;
/// Memory blocks that are looked at: each is 128 MiB or more.
const BLOCKS: usize = 1 << 15;
/// An array of `struct page` that is kept whole at the standard level: that of 4 GiB of memory.
const SMALL_ARRAY: u64 = 64 << 20;
/// Stacks that the interrupt stack table can name.
const STACKS: u64 = 7;
/// States that have a word (`task_state_array`, `fs/proc/array.c`): nine in 6.1.
const STATES: u64 = 12;
/// Flags that a page can have.
const FLAGS: u64 = 64;
/// `EXCEPTION_STKSZ` with KASAN.
const EXCEPTION_STACK: u64 = 32 << 10;

impl Closure<'_> {
    pub(super) fn what_readers_begin_with(&mut self, per_cpu: &PerCpu) {
        self.sections();
        self.nodes();
        self.memory_blocks();
        self.exception_stacks(per_cpu);
        self.words_for_states();
        self.words_for_page_flags();
    }

    /// The words for the flags of pages, each behind its mask: without one of them crash complains before its prompt.
    fn words_for_page_flags(&self) {
        let Some(array) = self.description.symbols.address("pageflag_names") else { return };
        for number in 0..FLAGS {
            let slot = KVirtAddr(array.0.saturating_add(number.saturating_mul(16)).saturating_add(8));
            match self.memory.read_ptr(slot) {
                Ok(text) if text.0 != 0 => self.touch(text, 32),
                _ => break,
            };
        }
    }

    /// The words for the states of tasks: without them crash takes idle kernel threads for stuck ones.
    fn words_for_states(&self) {
        let Some(array) = self.description.symbols.address("task_state_array") else { return };
        self.touch(array, STATES.saturating_mul(8));
        for number in 0..STATES {
            let slot = KVirtAddr(array.0.saturating_add(number.saturating_mul(8)));
            if let Ok(text) = self.memory.read_ptr(slot) {
                self.touch(text, 32);
            }
        }
    }

    /// The table of memory sections: crash reads it whole, to know which memory there is.
    fn sections(&mut self) {
        let symbols = &self.description.symbols;
        let Some(table) = symbols.address("mem_section") else { return };
        let info = self.kernel.vmcoreinfo();
        let count = info.length("mem_section").unwrap_or(0).min(ROOTS);
        // Since 4.15 a pointer to the roots, before that the roots themselves, which are data of the kernel.
        let Ok(first) = self.memory.read_ptr(table) else { return };
        let sizes = info.size("mem_section").unwrap_or(0);
        if first.0 == 0 || count == 0 || sizes == 0 {
            return;
        }
        let words = count.saturating_mul(8);
        let rows = self.touch(first, words);
        if rows < words {
            return;
        }
        let page = self.recorder.page_size();
        for number in 0..count {
            let slot = KVirtAddr(first.0.saturating_add(number.saturating_mul(8)));
            match self.memory.read_ptr(slot) {
                Ok(root) if root.0 != 0 => {
                    self.touch(root, page);
                }
                _ => {}
            }
        }
    }

    /// All of the array of `struct page`, which crash's `kmem -i` goes through: at the standard level where it is small.
    pub(super) fn page_array_whole(&mut self, level: Level) {
        let Some((base, size)) = self.page_array() else { return };
        let bytes = self.recorder.end_pfn().0.saturating_mul(size);
        if level < Level::Generous && bytes > SMALL_ARRAY {
            self.notes.push(format!(
                "{} MiB of struct page are left out, so that crash's kmem -i counts too few pages as shared, buffers and cached; \
                 --level generous keeps them",
                bytes >> 20
            ));
            return;
        }
        // Piece by piece, since a piece is bounded.
        let (mut at, end) = (0, bytes);
        while at < end {
            let Some(from) = base.checked_add(at) else { break };
            self.touch(from, SMALL_ARRAY.min(end.saturating_sub(at)));
            at = at.saturating_add(SMALL_ARRAY);
        }
    }

    /// The nodes' `pglist_data`, which has their zones.
    fn nodes(&self) {
        let Some(table) = self.description.symbols.address("node_data") else { return };
        let bytes = self.size("pglist_data");
        for number in 0..NODES {
            let slot = KVirtAddr(table.0.saturating_add(number.saturating_mul(8)));
            let Ok(node) = self.memory.read_ptr(slot) else { break };
            // The nodes that can be are numbered without gaps, and what stands behind the table is not a node.
            if node.0 == 0 || self.touch(node, bytes) == 0 {
                break;
            }
        }
    }

    /// The devices of the memory blocks, which crash lists when it starts.
    fn memory_blocks(&self) {
        let (types, symbols) = (&self.description.types, &self.description.symbols);
        let Some(blocks) = symbols.address("memory_blocks") else { return };
        let Ok(tree) = xarray::Layout::new(types) else { return };
        let (block, private) = (self.size("memory_block"), self.size("device_private"));
        for (_, entry) in tree.entries(self.memory, blocks, BLOCKS).items {
            let Entry::Pointer(at) = entry else { continue };
            self.touch(at, block);
            let Some(device) = self.pointer("memory_block", at, "dev.p") else { continue };
            self.touch(device, private);
            // The list of the bus is in its `subsys_private`.
            if let Some(list) = self.pointer("device_private", device, "knode_bus.n_klist") {
                self.touch(KVirtAddr(list.0 & !1), self.size("subsys_private"));
            }
        }
    }

    /// The inodes of block devices: crash's `kmem -i` counts buffers by them.
    pub(super) fn block_inodes(&self) {
        let symbols = &self.description.symbols;
        let Some(Ok(sb)) = symbols.address("blockdev_superblock").map(|at| self.memory.read_ptr(at)) else {
            return;
        };
        let (Some(head), Some(inside)) =
            (self.offset("super_block", "s_inodes"), self.offset("inode", "i_sb_list"))
        else {
            return;
        };
        let Some(head) = sb.checked_add(head) else { return };
        let bytes = self.size("inode");
        for node in list::walk(self.memory, head, self.limits.walk_items).items {
            self.touch(KVirtAddr(node.0.saturating_sub(inside)), bytes);
        }
    }

    /// The bitmaps of the tags of the disks: crash's `dev -d` counts by them, where the analyses look at the requests.
    pub(super) fn tags_of_disks(&self) {
        let Ok(disks) = block::list(self.memory, &self.description, self.limits.walk_items) else { return };
        for disk in disks.items {
            for (words, bytes) in block::tag_bitmaps(self.memory, &self.description, &disk) {
                self.touch(words, bytes);
            }
        }
    }

    /// The stacks of exceptions: crash tries each before it believes that it is one.
    fn exception_stacks(&self, per_cpu: &PerCpu) {
        let (types, symbols) = (&self.description.types, &self.description.symbols);
        let table = ["tss_struct", "x86_hw_tss"].into_iter().find_map(|of| {
            let path = if of == "tss_struct" { "x86_tss.ist" } else { "ist" };
            types.structure(of).ok()?.member(path).ok().map(crate::sym::btf::Member::offset)
        });
        let Some((table, tss)) = table.zip(symbols.address("cpu_tss_rw")) else { return };
        for cpu in per_cpu.possible() {
            let Ok(tss) = per_cpu.address(tss, *cpu) else { continue };
            for number in 0..STACKS {
                let slot = table.saturating_add(number.saturating_mul(8));
                let Some(Ok(top)) = tss.checked_add(slot).map(|at| self.memory.read_ptr(at)) else {
                    continue;
                };
                if top.0 != 0 {
                    self.touch(KVirtAddr(top.0.saturating_sub(EXCEPTION_STACK)), EXCEPTION_STACK);
                }
            }
        }
    }
}
