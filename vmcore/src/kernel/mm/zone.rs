//! The nodes' zones: free pages, watermarks, and the buddy allocator's free blocks.

use crate::addr::KVirtAddr;
use crate::kernel::Gap;
use crate::kernel::reader::Reader;
use crate::kernel::value::read_text;

/// Nodes at most (`MAX_NUMNODES` is 1024 at most).
const NODES: u64 = 1024;
/// Zones of a node at most; kernels have up to 6.
const ZONES: u32 = 16;
/// Orders at most; kernels have 11.
const ORDERS: u32 = 64;

/// A zone; sizes in bytes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Zone {
    /// Its node.
    pub node: u64,
    /// `DMA`, `DMA32`, `Normal`, `Movable`.
    pub name: Option<String>,
    /// Free.
    pub free: Option<u64>,
    /// The watermark below which only who must may allocate.
    pub min: Option<u64>,
    /// The watermark below which `kswapd` wakes, with its boost.
    pub low: Option<u64>,
    /// The watermark at which `kswapd` rests, with its boost.
    pub high: Option<u64>,
    /// What the buddy allocator manages.
    pub managed: Option<u64>,
    /// RAM in it.
    pub present: Option<u64>,
    /// Free blocks of 2^n pages.
    pub free_blocks: Option<Vec<u64>>,
}

/// All zones that have memory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Zones {
    /// By node, lowest first.
    pub zones: Vec<Zone>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// The `struct pglist_data` of each node, with its number.
pub(crate) fn nodes(source: &Reader<'_, '_>) -> Result<Vec<(u64, KVirtAddr)>, String> {
    let Some(table) = source.symbols.symbol("node_data") else {
        let only = source.variables().address("contig_page_data").map_err(|why| why.to_string())?;
        return Ok(vec![(0, only)]);
    };
    let count = table.size.map_or(1, |bytes| bytes / 8).min(NODES);
    let mut found = Vec::new();
    for number in 0..count {
        let at = KVirtAddr(source.long(table.address, number)?.cast_unsigned());
        if !at.is_null() {
            found.push((number, at));
        }
    }
    Ok(found)
}

/// Reads them.
#[must_use]
pub fn read(source: &Reader<'_, '_>) -> Zones {
    let mut all = Zones::default();
    let gap = |what: String, why: String| Gap { what, why };
    let nodes = match nodes(source) {
        Ok(nodes) => nodes,
        Err(why) => {
            all.gaps.push(gap("zones".into(), why));
            return all;
        }
    };
    for (number, node) in nodes {
        for place in 0..ZONES {
            let member = format!("node_zones[{place}]");
            let found = source.types.structure("pglist_data").and_then(|s| s.member(&member));
            let Ok(slot) = found else {
                if place == 0 {
                    all.gaps.push(gap("zones".into(), "pglist_data has no node_zones".into()));
                }
                break;
            };
            let Some(at) = node.checked_add(slot.offset()) else { break };
            match zone(source, number, at) {
                Ok(Some(zone)) => all.zones.push(zone),
                Ok(None) => {}
                Err(why) => all.gaps.push(gap(format!("zone {place} of node {number}"), why)),
            }
        }
    }
    all
}

fn zone(source: &Reader<'_, '_>, node: u64, at: KVirtAddr) -> Result<Option<Zone>, String> {
    let pages = |paths: &[&str]| source.member(at, "zone", paths).map(|n| source.bytes(n));
    let present = pages(&["present_pages"])?;
    if present == 0 {
        return Ok(None);
    }
    let boost = source.slot("zone", &["watermark_boost"]).ok().map_or(Ok(0), |slot| source.number(at, &slot));
    let boost = boost.map(|n| source.bytes(n));
    let mark = |name: &str| {
        let index = source.index("zone_watermarks", &[name]).ok_or("no zone_watermarks")?;
        let (new, old) = (format!("_watermark[{index}]"), format!("watermark[{index}]"));
        let plain = pages(&[&new, &old])?;
        Ok::<u64, String>(plain.saturating_add(boost.clone()?))
    };
    let free = source.index("zone_stat_item", &["NR_FREE_PAGES"]);
    let free = free.and_then(|index| pages(&[&format!("vm_stat[{index}]")]).ok());
    let name = source.member(at, "zone", &["name"]).ok();
    let name = name.and_then(|name| read_text(source.memory, KVirtAddr(name), 32).ok());
    let mut free_blocks = Some(Vec::new());
    for order in 0..ORDERS {
        let Ok(slot) = source.slot("zone", &[&format!("free_area[{order}].nr_free")]) else { break };
        match (source.number(at, &slot), &mut free_blocks) {
            (Ok(count), Some(list)) => list.push(count),
            _ => free_blocks = None,
        }
    }
    Ok(Some(Zone {
        node,
        name,
        free,
        min: mark("WMARK_MIN").ok(),
        low: mark("WMARK_LOW").ok(),
        high: mark("WMARK_HIGH").ok(),
        managed: pages(&["managed_pages"]).ok(),
        present: Some(present),
        free_blocks: free_blocks.filter(|list| !list.is_empty()),
    }))
}
