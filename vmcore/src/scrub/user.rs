//! Memory of processes, page cache and free pages: what held them is not written at all. Free pages held something before.
//!
//! Free pages that CPUs keep for themselves (`per_cpu_pages`) carry no mark: they are found by their lists and erased.

use super::eraser::Eraser;
use crate::addr::KVirtAddr;
use crate::filter::{Class, Classes, Level, classify};
use crate::kernel::Kernel;
use crate::kernel::list;
use crate::kernel::mm::zone;
use crate::kernel::reader::Reader;
use crate::mem::Dump;
use crate::progress::{Cancel, Progress};

/// What could not be told, and how many frames are not written.
pub(super) struct LeftOut {
    frames: u64,
    troubles: Vec<String>,
}

/// Takes the frames of processes, page cache and the free ones out of those that are written.
pub(super) fn leave_out(
    dump: &Dump,
    kernel: &Kernel<'_>,
    source: &Reader<'_, '_>,
    classes: &mut Classes,
    watch: (&Cancel, &dyn Progress),
) -> LeftOut {
    let mut left = LeftOut { frames: 0, troubles: Vec::new() };
    let types = Some(source.types);
    let found = classify(dump, kernel.memory(), kernel.vmcoreinfo(), types, Level::MAX, source.limits, watch);
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            left.troubles.push(why.to_string());
            return left;
        }
    };
    left.troubles.extend(found.notes);
    let runs: Vec<_> = classes.kept.runs(0..u64::MAX).collect();
    for pfn in runs.into_iter().flatten() {
        if !found.kept.contains(pfn) {
            classes.kept.remove(pfn);
            left.frames = left.frames.saturating_add(1);
        }
    }
    let unknown = found.counts.get(Class::Unknown);
    if unknown > 0 && left.troubles.is_empty() {
        left.troubles.push(format!("what {unknown} pages were used for can't be told"));
    }
    left
}

pub(super) fn account(eraser: &mut Eraser<'_, '_>, left: LeftOut) {
    eraser.note(|account| account.left_out = left.frames);
    for why in left.troubles {
        eraser.trouble("pages of processes", &why);
    }
    if let Err(why) = cpus(eraser) {
        eraser.trouble("free pages that CPUs keep", &why);
    }
}

/// The free pages on the CPUs' own lists.
fn cpus(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    let source = eraser.source;
    let zones = source.slot("pglist_data", &["node_zones[0]"])?;
    let each = source.types.structure("zone").map_err(|why| why.to_string())?.size();
    let count = source
        .types
        .structure("pglist_data")
        .and_then(|node| node.member("node_zones"))
        .map_err(|why| why.to_string())?
        .count()
        .map_or(1, u64::from);
    // One list for each type and order since 5.13, with an order of its own for huge pages at the end; one for each type before.
    let types = source.index("migratetype", &["MIGRATE_PCPTYPES"]).unwrap_or(3).max(1);
    for (_, node) in zone::nodes(&source)? {
        for number in 0..count.min(16) {
            let at =
                number.checked_mul(each).and_then(|by| node.checked_add(by)?.checked_add(zones.offset()));
            let Some(zone) = at else { continue };
            if eraser.member(zone, "zone", &["present_pages"])? == 0 {
                continue;
            }
            let (sets, of, lists) = match eraser.member(zone, "zone", &["per_cpu_pageset"]) {
                Ok(sets) => (sets, "per_cpu_pages", "lists"),
                // Before 5.14.
                Err(_) => (eraser.member(zone, "zone", &["pageset"])?, "per_cpu_pageset", "pcp.lists"),
            };
            let heads =
                source.types.structure(of).and_then(|of| of.member(lists)).map_err(|why| why.to_string())?;
            let many = heads.count().map_or(0, u64::from).min(256);
            for cpu in source.per_cpu.possible() {
                let set = source.per_cpu.address(KVirtAddr(sets), *cpu).map_err(|why| why.to_string())?;
                for list in 0..many {
                    let head =
                        list.checked_mul(16).and_then(|by| set.checked_add(heads.offset())?.checked_add(by));
                    let Some(head) = head else { continue };
                    let order = list.checked_div(types).unwrap_or(0);
                    // PAGE_ALLOC_COSTLY_ORDER is 3; what lies behind it are huge pages of 2 MiB.
                    pages(eraser, head, if order > 3 { 9 } else { order })?;
                }
            }
        }
    }
    Ok(())
}

fn pages(eraser: &mut Eraser<'_, '_>, head: KVirtAddr, order: u64) -> Result<(), String> {
    let source = eraser.source;
    let node = source.slot("page", &["pcp_list", "lru"])?.offset();
    let walk = list::walk(source.memory, head, source.limits.walk_items);
    if !walk.end.is_complete() {
        eraser.trouble("free pages that CPUs keep", &walk.end.to_string());
    }
    let bytes = source.page_size.checked_shl(u32::try_from(order).unwrap_or(0)).unwrap_or(source.page_size);
    for page in walk.items.into_iter().filter_map(|at| at.checked_sub(node)) {
        eraser.object();
        eraser.in_page(page, 0, bytes);
    }
    Ok(())
}
