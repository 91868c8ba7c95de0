//! The pools of hugetlb pages, by size and node, as `/sys/kernel/mm/hugepages` and the nodes' own tell them.
//!
//! Facts: `mm/hugetlb.c`, `include/linux/hugetlb.h`.

use super::zone;
use crate::kernel::Gap;
use crate::kernel::reader::Reader;

/// Sizes of huge pages at most (`HUGE_MAX_HSTATE` is 2 on `x86_64`).
const SIZES: u32 = 16;
/// No huge page is of 2^this pages.
const ORDER: u64 = 40;

/// What one node has of one size, in pages of that size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugeNode {
    /// The node.
    pub node: u64,
    /// Pages.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Beyond those that were asked for.
    pub surplus: u64,
}

/// Pages of one size; counts are in pages of that size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePool {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Of the free ones, promised.
    pub reserved: u64,
    /// Beyond those that were asked for.
    pub surplus: u64,
    /// By node.
    pub nodes: Vec<HugeNode>,
}

/// Reads them, in the kernel's order.
#[must_use]
pub fn read(source: &Reader<'_, '_>) -> (Vec<HugePool>, Vec<Gap>) {
    let mut found = Vec::new();
    // A kernel without hugetlb has no such type: the counters say so.
    if source.types.structure("hstate").is_err() {
        return (found, Vec::new());
    }
    match fill(source, &mut found) {
        Ok(()) => (found, Vec::new()),
        Err(why) => (found, vec![Gap { what: "hugetlb".into(), why }]),
    }
}

fn fill(source: &Reader<'_, '_>, found: &mut Vec<HugePool>) -> Result<(), String> {
    let variables = source.variables();
    let count = variables.u32("hugetlb_max_hstate").map_err(|why| why.to_string())?;
    if count > SIZES {
        return Err(format!("hugetlb_max_hstate holds {count}"));
    }
    let first = variables.address("hstates").map_err(|why| why.to_string())?;
    let each = source.types.structure("hstate").map_err(|why| why.to_string())?.size();
    let nodes = zone::nodes(source)?;
    for number in 0..u64::from(count) {
        let skip = each.saturating_mul(number);
        let at = first.checked_add(skip).ok_or("the place is past 2^64")?;
        let read = |name: &str| source.member(at, "hstate", &[name]);
        let order = Some(read("order")?).filter(|order| *order < ORDER);
        let order = order.and_then(|order| u32::try_from(order).ok());
        let order = order.ok_or("the order of a hugetlb page can't be")?;
        let of = |node: u64| -> Result<HugeNode, String> {
            Ok(HugeNode {
                node,
                total: read(&format!("nr_huge_pages_node[{node}]"))?,
                free: read(&format!("free_huge_pages_node[{node}]"))?,
                surplus: read(&format!("surplus_huge_pages_node[{node}]"))?,
            })
        };
        found.push(HugePool {
            page_bytes: source.page_size.checked_shl(order).unwrap_or_default(),
            total: read("nr_huge_pages")?,
            free: read("free_huge_pages")?,
            reserved: read("resv_huge_pages")?,
            surplus: read("surplus_huge_pages")?,
            nodes: nodes.iter().map(|(node, _)| of(*node)).collect::<Result<_, _>>()?,
        });
    }
    Ok(())
}
