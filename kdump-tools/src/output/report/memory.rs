//! How the memory was used: in a line, and as tables of counters, zones, processes and slab caches.

use std::fmt::Write as _;

use vmcore::report::{Report, SlabCache};

use super::super::escape::escape;
use super::{Page, cut};

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
