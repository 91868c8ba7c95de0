//! The counters that `/proc/meminfo` shows, in bytes (`HugePages_…`: in pages of that size), computed as the kernel computes them.
//!
//! Facts: `fs/proc/meminfo.c`, `mm/show_mem.c` (`si_mem_available`), `include/linux/mmzone.h`.

use std::collections::BTreeMap;

use super::zone::Zones;
use crate::addr::KVirtAddr;
use crate::kernel::Gap;
use crate::kernel::list;
use crate::kernel::reader::{PerCpuCounter, Reader};

/// Sizes of huge pages at most (`HUGE_MAX_HSTATE` is 2 on `x86_64`).
const HUGE_SIZES: u32 = 16;

/// What was counted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// By the names of `/proc/meminfo`.
    pub values: BTreeMap<String, u64>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// The line of `/proc/meminfo` and the counters that it is, of a zone or (since 4.8) of a node.
const PLAIN: &[(&str, &[&str])] = &[
    ("MemFree", &["NR_FREE_PAGES"]),
    ("Active(anon)", &["NR_ACTIVE_ANON"]),
    ("Inactive(anon)", &["NR_INACTIVE_ANON"]),
    ("Active(file)", &["NR_ACTIVE_FILE"]),
    ("Inactive(file)", &["NR_INACTIVE_FILE"]),
    ("Unevictable", &["NR_UNEVICTABLE"]),
    ("Mlocked", &["NR_MLOCK"]),
    ("Dirty", &["NR_FILE_DIRTY"]),
    ("Writeback", &["NR_WRITEBACK"]),
    ("AnonPages", &["NR_ANON_MAPPED"]),
    ("Mapped", &["NR_FILE_MAPPED"]),
    ("Shmem", &["NR_SHMEM"]),
    // Counted in bytes for control groups since 5.9; the counters of nodes stay in pages.
    ("SReclaimable", &["NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE"]),
    ("SUnreclaim", &["NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE"]),
    ("PageTables", &["NR_PAGETABLE"]),
];

impl Counters {
    /// A counter in bytes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }

    fn keep(&mut self, name: &str, value: Result<u64, String>) {
        match value {
            Ok(value) => drop(self.values.insert(name.into(), value)),
            Err(why) => self.gaps.push(Gap { what: name.into(), why }),
        }
    }
}

impl Reader<'_, '_> {
    /// The global counter of that name, in its own unit; what is below zero for a moment counts as zero, as the kernel shows it.
    fn global(&self, names: &[&str]) -> Result<u64, String> {
        for (of, array) in [("node_stat_item", "vm_node_stat"), ("zone_stat_item", "vm_zone_stat")] {
            if let Some(index) = self.index(of, names) {
                let at = self.variables().address(array).map_err(|why| why.to_string())?;
                return self.long(at, index).map(|n| u64::try_from(n).unwrap_or(0));
            }
        }
        Err(format!("this kernel has no counter {}", names.join(" or ")))
    }

    fn pages_of(&self, name: &'static str) -> Result<u64, String> {
        self.variables().u64(name).map_err(|why| why.to_string())
    }

    /// Pages of the page caches of block devices: what `Buffers` is.
    fn buffers(&self) -> Result<u64, String> {
        let block = KVirtAddr(self.pages_of("blockdev_superblock")?);
        let head = self.slot("super_block", &["s_inodes"])?;
        let node = self.slot("inode", &["i_sb_list"])?;
        let mapping = self.slot("inode", &["i_mapping"])?;
        let pages = self.slot("address_space", &["nrpages"])?;
        let head = block.checked_add(head.offset()).ok_or("the place is past 2^64")?;
        let walk = list::walk(self.memory, head, self.limits.walk_items);
        if !walk.end.is_complete() {
            return Err(format!("the list of block devices is not whole: {}", walk.end));
        }
        let mut sum = 0_u64;
        for at in walk.items {
            let inode = at.checked_sub(node.offset()).ok_or("a block device's place is below zero")?;
            let mapping = KVirtAddr(self.number(inode, &mapping)?);
            sum = sum.saturating_add(self.number(mapping, &pages)?);
        }
        Ok(sum)
    }

    fn hugetlb(&self, found: &mut Counters) -> Result<u64, String> {
        let variables = self.variables();
        if self.types.structure("hstate").is_err() {
            return Err("this kernel has no hugetlb pages".into());
        }
        let count = variables.u32("hugetlb_max_hstate").map_err(|why| why.to_string())?;
        if count > HUGE_SIZES {
            return Err(format!("hugetlb_max_hstate holds {count}"));
        }
        let first = variables.address("hstates").map_err(|why| why.to_string())?;
        let default = variables.u32("default_hstate_idx").ok();
        let each = self.types.structure("hstate").map_err(|why| why.to_string())?.size();
        let mut all = 0_u64;
        for number in 0..count {
            let skip = each.saturating_mul(u64::from(number));
            let at = first.checked_add(skip).ok_or("the place is past 2^64")?;
            let read = |name: &str| self.member(at, "hstate", &[name]);
            let order = u32::try_from(read("order")?).ok().filter(|order| *order < 40);
            let order = order.ok_or("the order of a hugetlb page can't be")?;
            let pages = read("nr_huge_pages")?;
            let size = self.page_size.checked_shl(order).unwrap_or_default();
            all = all.saturating_add(pages.saturating_mul(size));
            if default == Some(number) {
                found.keep("HugePages_Total", Ok(pages));
                found.keep("HugePages_Free", read("free_huge_pages"));
                found.keep("HugePages_Rsvd", read("resv_huge_pages"));
                found.keep("HugePages_Surp", read("surplus_huge_pages"));
                found.keep("Hugepagesize", Ok(size));
            }
        }
        Ok(all)
    }
}

/// Reads them. The zones' watermarks are needed for `MemAvailable`.
#[must_use]
pub fn read(source: &Reader<'_, '_>, zones: &Zones) -> Counters {
    let mut found = Counters::default();
    let bytes = |pages: Result<u64, String>| pages.map(|n| source.bytes(n));
    let total = source.pages_of("_totalram_pages").or_else(|_| source.pages_of("totalram_pages"));
    found.keep("MemTotal", bytes(total.clone()));
    for (name, counters) in PLAIN {
        found.keep(name, bytes(source.global(counters)));
    }
    found.keep("KernelStack", source.global(&["NR_KERNEL_STACK_KB"]).map(|kib| kib.saturating_mul(1024)));
    let misc = source.global(&["NR_KERNEL_MISC_RECLAIMABLE"]).or_else(|_| {
        // Counted in bytes in 4.17 to 4.19 (kernel commits eb59254608bc, b29940c1abd7).
        let bytes = source.global(&["NR_INDIRECTLY_RECLAIMABLE_BYTES"]);
        bytes.map(|n| source.pages(n))
    });
    let swap_total = source.pages_of("total_swap_pages");
    found.keep("SwapTotal", bytes(swap_total.clone()));
    found.keep("SwapFree", bytes(source.pages_of("nr_swap_pages")));
    // Since 5.12 there is a counter; where there is no swap there is nothing in its cache.
    let cached_swap = source.global(&["NR_SWAPCACHE"]).or_else(|why| match swap_total {
        Ok(0) => Ok(0),
        _ => Err(why),
    });
    found.keep("SwapCached", bytes(cached_swap.clone()));
    let buffers = source.buffers();
    found.keep("Buffers", bytes(buffers.clone()));
    let cached = || -> Result<u64, String> {
        Ok(source.global(&["NR_FILE_PAGES"])?.saturating_sub(cached_swap?).saturating_sub(buffers?))
    };
    found.keep("Cached", bytes(cached()));
    for (name, parts) in [
        ("Active", ["Active(anon)", "Active(file)"]),
        ("Inactive", ["Inactive(anon)", "Inactive(file)"]),
        ("Slab", ["SReclaimable", "SUnreclaim"]),
    ] {
        let sum = parts.iter().try_fold(0_u64, |sum, part| Some(sum.saturating_add(found.get(part)?)));
        found.keep(name, sum.ok_or_else(|| format!("one of {} can't be read", parts.join(" and "))));
    }
    let reclaimable = || -> Result<u64, String> {
        let slab = found.get("SReclaimable").ok_or("SReclaimable can't be read")?;
        Ok(slab.saturating_add(source.bytes(misc?)))
    };
    let reclaimable = reclaimable();
    found.keep("KReclaimable", reclaimable.clone());
    // Counted in huge pages before 5.12 (kernel commit 69473e5de873), in which NR_SWAPCACHE came too.
    let unit = if source.index("node_stat_item", &["NR_SWAPCACHE"]).is_some() { 1 } else { 512 };
    found.keep("AnonHugePages", bytes(source.global(&["NR_ANON_THPS"])).map(|n| n.saturating_mul(unit)));
    let vmalloc = source.global(&["NR_VMALLOC"]).or_else(|_| source.pages_of("nr_vmalloc_pages"));
    found.keep("VmallocUsed", bytes(vmalloc));
    let percpu = || -> Result<u64, String> {
        let units = source.variables().u32("pcpu_nr_units").map_err(|why| why.to_string())?;
        Ok(source.pages_of("pcpu_nr_populated")?.saturating_mul(u64::from(units)))
    };
    found.keep("Percpu", bytes(percpu()));
    let committed = || -> Result<u64, String> {
        let at = source.variables().address("vm_committed_as").map_err(|why| why.to_string())?;
        PerCpuCounter::new(source)?.read(source, at).map(|n| u64::try_from(n).unwrap_or(0))
    };
    found.keep("Committed_AS", bytes(committed()));
    let hugetlb = source.hugetlb(&mut found);
    found.keep("Hugetlb", hugetlb.clone());
    let limit = || -> Result<u64, String> {
        let kib = source.pages_of("sysctl_overcommit_kbytes")?;
        let allowed = if kib > 0 {
            kib.saturating_mul(1024)
        } else {
            let ratio = source.variables().u32("sysctl_overcommit_ratio").map_err(|why| why.to_string())?;
            let usable = source.pages(source.bytes(total?).saturating_sub(hugetlb?));
            source.bytes(usable.saturating_mul(u64::from(ratio)) / 100)
        };
        Ok(allowed.saturating_add(source.bytes(swap_total?)))
    };
    found.keep("CommitLimit", limit());
    let available = available(source, zones, &found, reclaimable);
    found.keep("MemAvailable", available);
    found
}

/// As `si_mem_available` does.
fn available(
    source: &Reader<'_, '_>,
    zones: &Zones,
    found: &Counters,
    reclaimable: Result<u64, String>,
) -> Result<u64, String> {
    if !zones.gaps.is_empty() {
        return Err("not all zones can be read".into());
    }
    let low = zones.zones.iter().try_fold(0_u64, |sum, zone| Some(sum.saturating_add(zone.low?)));
    let low = low.ok_or("a zone's watermark can't be read")?;
    let get = |name: &str| found.get(name).ok_or_else(|| format!("{name} can't be read"));
    let reserve = source.bytes(source.pages_of("totalreserve_pages")?);
    let cache = get("Active(file)")?.saturating_add(get("Inactive(file)")?);
    // Half, in whole pages, as the kernel halves.
    let half = |n: u64| source.bytes(source.pages(n) / 2);
    let part = |n: u64| n.saturating_sub(half(n).min(low));
    let free = get("MemFree")?;
    let all = free.saturating_add(part(cache)).saturating_add(part(reclaimable?));
    Ok(all.saturating_sub(reserve))
}
