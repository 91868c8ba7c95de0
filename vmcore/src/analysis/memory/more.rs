//! The nodes' sums, `vmalloc` by caller, swap and hugetlb, in the words of the report.

use crate::kernel::Gap;
use crate::kernel::mm::{huge, swap, vmalloc, zone};
use crate::kernel::reader::Reader;
use crate::report;

/// Callers that are shown.
const CALLERS: usize = 64;

/// Fills them in; what could not be had comes back.
pub(super) fn fill(source: &Reader<'_, '_>, zones: &zone::Zones, found: &mut report::Memory) -> Vec<Gap> {
    found.nodes = nodes(&zones.zones);
    let areas = vmalloc::read(source);
    found.vmalloc = areas.callers.iter().take(CALLERS).map(caller).collect();
    let mut gaps = areas.gaps;
    if let Some(more) = areas.callers.len().checked_sub(CALLERS).filter(|more| *more > 0) {
        gaps.push(Gap { what: "vmalloc".into(), why: format!("{more} smaller callers are not shown") });
    }
    let (swaps, lost) = swap::read(source);
    found.swaps = swaps.into_iter().map(device).collect();
    gaps.extend(lost);
    let (pools, lost) = huge::read(source);
    found.hugetlb = pools.into_iter().map(pool).collect();
    gaps.extend(lost);
    gaps
}

/// A node of which one zone can't be read has no sum.
fn nodes(zones: &[zone::Zone]) -> Vec<report::MemoryNode> {
    let mut found: Vec<report::MemoryNode> = Vec::new();
    let add = |sum: Option<u64>, more: Option<u64>| sum?.checked_add(more?);
    for zone in zones {
        match found.last_mut().filter(|last| last.node == zone.node) {
            Some(last) => {
                last.managed = add(last.managed, zone.managed);
                last.free = add(last.free, zone.free);
            }
            None => {
                found.push(report::MemoryNode { node: zone.node, managed: zone.managed, free: zone.free });
            }
        }
    }
    found
}

fn caller(caller: &vmalloc::Caller) -> report::VmallocCaller {
    report::VmallocCaller {
        function: caller.function.clone(),
        areas: caller.areas,
        bytes: caller.bytes,
        allocated: caller.allocated,
    }
}

fn device(device: swap::SwapDevice) -> report::SwapDevice {
    report::SwapDevice {
        kaddr: Some(device.kaddr.into()),
        path: device.path,
        bytes: device.bytes,
        used: device.used,
        priority: device.priority,
        writable: Some(device.writable),
    }
}

fn pool(pool: huge::HugePool) -> report::HugePool {
    let node = |node: huge::HugeNode| report::HugeNode {
        node: node.node,
        total: node.total,
        free: node.free,
        surplus: node.surplus,
    };
    report::HugePool {
        page_bytes: pool.page_bytes,
        total: pool.total,
        free: pool.free,
        reserved: pool.reserved,
        surplus: pool.surplus,
        nodes: pool.nodes.into_iter().map(node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(node: u64, managed: Option<u64>, free: Option<u64>) -> zone::Zone {
        zone::Zone { node, free, managed, ..zone::Zone::default() }
    }

    #[test]
    fn a_node_is_the_sum_of_its_zones_and_none_where_one_is_not_known() {
        let zones = [zone(0, Some(4), Some(1)), zone(0, Some(8), Some(2)), zone(1, Some(3), None)];
        let found = nodes(&zones);
        let one = |node, managed, free| report::MemoryNode { node, managed, free };
        assert_eq!(found, [one(0, Some(12), Some(3)), one(1, Some(3), None)]);
        assert_eq!(nodes(&[zone(0, Some(4), None), zone(0, Some(4), Some(1))]), [one(0, Some(8), None)]);
    }
}
