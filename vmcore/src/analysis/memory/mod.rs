//! How the memory was used, in the words of the report.

mod more;
mod oom;
mod slabs;
mod verdict;

use super::parts::{Clock, Context, Part};
use crate::kernel::mm::{counters, process, zone};
use crate::report;

pub(super) use slabs::slab;

/// Processes that are shown.
const PROCESSES: usize = 32;

/// The counters, zones and largest processes, and whether memory ran out.
pub(super) fn memory(context: &Context<'_>, _: &Clock) -> Part {
    let source = context.reader();
    let zones = zone::read(&source);
    let counters = counters::read(&source, &zones);
    let (processes, lost, why) = process::read(&source, context.tasks);
    let get = |name: &str| counters.get(name);
    let mut found = report::Memory {
        total: get("MemTotal"),
        free: get("MemFree"),
        available: get("MemAvailable"),
        buffers: get("Buffers"),
        cached: get("Cached"),
        anon: get("AnonPages"),
        slab: get("Slab"),
        unaccounted: verdict::unaccounted(&counters),
        zones: zones.zones.iter().map(zone_words).collect(),
        processes: processes.iter().take(PROCESSES).map(process_words).collect(),
        oom: context.log.and_then(oom::from_log),
        more: counters.values.clone(),
        ..report::Memory::default()
    };
    let more_gaps = more::fill(&source, &zones, &mut found);
    for name in ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "AnonPages", "Slab"] {
        // They have fields of their own.
        found.more.remove(name);
    }
    let whole = counters.gaps.is_empty() && zones.gaps.is_empty() && lost == 0;
    let findings = verdict::findings(&found, whole);
    let nothing = counters.values.is_empty()
        && found.zones.is_empty()
        && found.processes.is_empty()
        && found.oom.is_none();
    let mut part = if nothing {
        let mut part = Part::default();
        part.skip("memory", "neither its counters nor its zones nor any process can be read");
        part
    } else {
        Part::new(move |report| report.memory = Some(found))
    };
    part.findings = findings;
    part.gaps("memory", &counters.gaps);
    part.gaps("memory.zones", &zones.gaps);
    part.gaps("memory", &more_gaps);
    if let Some(why) = why {
        part.skip(
            "memory.processes",
            format!("the memory of {lost} processes can't be read; of the first: {why}"),
        );
    }
    if context.log.is_none() {
        part.skip("memory.oom", "it is read from the kernel log, which can't be read");
    }
    part
}

fn zone_words(zone: &zone::Zone) -> report::Zone {
    report::Zone {
        node: zone.node,
        name: zone.name.clone(),
        free: zone.free,
        min: zone.min,
        low: zone.low,
        high: zone.high,
        managed: zone.managed,
        present: zone.present,
        below_min: zone.free.zip(zone.min).map(|(free, min)| free < min),
        free_blocks: zone.free_blocks.clone(),
    }
}

fn process_words(process: &process::ProcessMemory) -> report::ProcessMemory {
    report::ProcessMemory {
        pid: i64::from(process.pid),
        comm: process.comm.clone(),
        rss: process.rss(),
        anon: process.anon,
        file: process.file,
        shmem: process.shmem,
        swap: process.swap,
        total_vm: process.total_vm,
        oom_score_adj: process.oom_score_adj,
    }
}
