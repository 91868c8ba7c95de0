//! How the memory was used: in a line, and as tables of counters, zones, processes and slab caches.

use std::fmt::Write as _;

use vmcore::report::{Memory, Report, SlabCache};

use super::super::escape::escape;
use super::{Page, cut};

/// Callers of `vmalloc` that a person is shown.
const VMALLOC: usize = 12;

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn kib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".into(), |n| (n >> 10).to_string())
}

fn number(n: Option<u64>) -> String {
    n.map_or_else(|| "?".into(), |n| n.to_string())
}

/// `335 MiB, 12 MiB free, slab 180 MiB (kmalloc-512: 160 MiB)`; nothing where it was not read.
pub(super) fn in_short(report: &Report) -> Option<String> {
    let memory = report.memory.as_ref()?;
    let mut words = vec![mib(memory.total?)];
    words.extend(memory.free.map(|n| format!("{} free", mib(n))));
    let largest = |cache: &SlabCache| Some(format!(" ({}: {})", escape(&cache.name), mib(cache.bytes?)));
    let largest = report.slab.first().and_then(largest).unwrap_or_default();
    words.extend(memory.slab.map(|n| format!("slab {}{largest}", mib(n))));
    Some(words.join(", "))
}

impl Page {
    /// The counters as `/proc/meminfo` has them, then zones and processes.
    pub(super) fn memory(&self, report: &Report) -> String {
        let Some(memory) = &report.memory else { return String::new() };
        let mut out = self.heading("Memory");
        let own = [
            ("MemTotal", memory.total),
            ("MemFree", memory.free),
            ("MemAvailable", memory.available),
            ("Buffers", memory.buffers),
            ("Cached", memory.cached),
            ("AnonPages", memory.anon),
            ("Slab", memory.slab),
            ("in no counter", memory.unaccounted),
        ];
        for (name, bytes) in own {
            let _ = writeln!(out, "  {name:<18} {:>12} KiB", kib(bytes));
        }
        for (name, value) in &memory.more {
            // These are counts of huge pages.
            let line = if name.starts_with("HugePages_") {
                format!("{value:>12}")
            } else {
                format!("{:>12} KiB", value >> 10)
            };
            let _ = writeln!(out, "  {:<18} {line}", escape(name));
        }
        if !memory.zones.is_empty() {
            out.push_str(&self.heading("Zones, in KiB"));
            out.push_str("  NODE NAME            FREE        MIN        LOW       HIGH    MANAGED  FREE BLOCKS BY ORDER\n");
        }
        for zone in &memory.zones {
            let blocks = zone.free_blocks.iter().flatten().map(u64::to_string).collect::<Vec<_>>().join(" ");
            let below = if zone.below_min == Some(true) { "  BELOW MIN" } else { "" };
            let line = format!(
                "  {:>4} {:<9} {:>10} {:>10} {:>10} {:>10} {:>10}  {blocks}{below}",
                zone.node,
                escape(zone.name.as_deref().unwrap_or("?")),
                kib(zone.free),
                kib(zone.min),
                kib(zone.low),
                kib(zone.high),
                kib(zone.managed),
            );
            let _ = writeln!(out, "{line}");
        }
        self.further_memory(memory, &mut out);
        if !memory.processes.is_empty() {
            out.push_str(&self.heading("Largest processes, in KiB"));
            out.push_str("      PID        RSS       ANON       FILE      SHMEM       SWAP   ADJ  NAME\n");
        }
        for process in &memory.processes {
            let adj = process.oom_score_adj.map_or_else(|| "?".into(), |n| n.to_string());
            let line = format!(
                "  {:>7} {:>10} {:>10} {:>10} {:>10} {:>10} {adj:>5}  {}",
                process.pid,
                process.rss >> 10,
                process.anon >> 10,
                process.file >> 10,
                process.shmem >> 10,
                process.swap >> 10,
                escape(&process.comm),
            );
            let _ = writeln!(out, "{}", cut(&line, self.width.max(80)));
        }
        out
    }

    /// Nodes where there are several, swap, hugetlb and `vmalloc`.
    fn further_memory(&self, memory: &Memory, out: &mut String) {
        if memory.nodes.len() > 1 {
            out.push_str(&self.heading("Nodes, in KiB"));
            out.push_str("  NODE    MANAGED       FREE\n");
            for node in &memory.nodes {
                let _ = writeln!(out, "  {:>4} {:>10} {:>10}", node.node, kib(node.managed), kib(node.free));
            }
        }
        if !memory.swaps.is_empty() {
            out.push_str(&self.heading("Swap, in KiB"));
            out.push_str("        SIZE       USED  PRIO  FILE\n");
        }
        for swap in &memory.swaps {
            let priority = swap.priority.map_or_else(|| "?".into(), |n| n.to_string());
            let closed = if swap.writable == Some(false) { "  (not written to)" } else { "" };
            let path = escape(swap.path.as_deref().unwrap_or("?"));
            let line =
                format!("  {:>10} {:>10} {priority:>5}  {path}{closed}", kib(swap.bytes), kib(swap.used));
            let _ = writeln!(out, "{}", cut(&line, self.width.max(80)));
        }
        if memory.hugetlb.iter().any(|pool| pool.total > 0) {
            out.push_str(&self.heading("Hugetlb pages"));
            out.push_str("         KIB  NODE      TOTAL       FREE   RESERVED    SURPLUS\n");
        }
        for pool in memory.hugetlb.iter().filter(|pool| pool.total > 0) {
            let size = pool.page_bytes >> 10;
            let (total, free) = (pool.total, pool.free);
            let (reserved, surplus) = (pool.reserved, pool.surplus);
            let _ = writeln!(out, "  {size:>10}   all {total:>10} {free:>10} {reserved:>10} {surplus:>10}");
            for node in &pool.nodes {
                let (total, free, surplus) = (node.total, node.free, node.surplus);
                let _ = writeln!(
                    out,
                    "  {size:>10} {:>5} {total:>10} {free:>10} {:>10} {surplus:>10}",
                    node.node, ""
                );
            }
        }
        if !memory.vmalloc.is_empty() {
            out.push_str(&self.heading("vmalloc by caller, in KiB"));
            out.push_str("     AREAS  ADDRESSES  ALLOCATED  CALLER\n");
        }
        for caller in memory.vmalloc.iter().take(VMALLOC) {
            let name = caller.function.as_deref().map_or_else(|| "?".into(), escape);
            let (bytes, own) = (caller.bytes >> 10, caller.allocated >> 10);
            let _ = writeln!(out, "  {:>8} {bytes:>10} {own:>10}  {name}", caller.areas);
        }
        if let Some(more) = memory.vmalloc.len().checked_sub(VMALLOC).filter(|more| *more > 0) {
            let _ = writeln!(out, "  and {more} smaller ones, which --format json has");
        }
    }

    /// All slab caches, largest first.
    pub(super) fn slab(&self, report: &Report) -> String {
        if report.slab.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Slab caches");
        out.push_str("         KIB     IN USE      TOTAL    SIZE     SLABS  NAME\n");
        for cache in &report.slab {
            let line = format!(
                "  {:>10} {:>10} {:>10} {:>7} {:>9}  {}",
                kib(cache.bytes),
                number(cache.objects),
                number(cache.total_objects),
                number(cache.object_size),
                number(cache.slabs),
                escape(&cache.name),
            );
            let _ = writeln!(out, "{}", cut(&line, self.width.max(80)));
        }
        out
    }
}
