//! How the memory was used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Address;

/// How the memory was used, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All that the kernel manages.
    pub total: Option<u64>,
    /// Free.
    pub free: Option<u64>,
    /// What could be had without swapping.
    pub available: Option<u64>,
    /// Buffers of block devices.
    pub buffers: Option<u64>,
    /// The page cache.
    pub cached: Option<u64>,
    /// Anonymous pages.
    pub anon: Option<u64>,
    /// Slab pages.
    pub slab: Option<u64>,
    /// What no counter accounts for: pages that drivers took for themselves, mostly.
    #[serde(default)]
    pub unaccounted: Option<u64>,
    /// The zones, by node.
    #[serde(default)]
    pub zones: Vec<Zone>,
    /// The largest processes.
    #[serde(default)]
    pub processes: Vec<ProcessMemory>,
    /// The last time that memory ran out, by the log.
    #[serde(default)]
    pub oom: Option<Oom>,
    /// The nodes, with what their zones have together.
    #[serde(default)]
    pub nodes: Vec<MemoryNode>,
    /// Who took memory with `vmalloc` and its kin, the most first.
    #[serde(default)]
    pub vmalloc: Vec<VmallocCaller>,
    /// The swap devices and files.
    #[serde(default)]
    pub swaps: Vec<SwapDevice>,
    /// The pools of hugetlb pages, by size.
    #[serde(default)]
    pub hugetlb: Vec<HugePool>,
    /// Further counters, by the names that `/proc/meminfo` uses.
    #[serde(flatten)]
    pub more: BTreeMap<String, u64>,
}

/// A zone; sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its node.
    pub node: u64,
    /// `DMA`, `DMA32`, `Normal`, `Movable`.
    pub name: Option<String>,
    /// Free.
    pub free: Option<u64>,
    /// The lowest watermark.
    pub min: Option<u64>,
    /// The one at which `kswapd` wakes.
    pub low: Option<u64>,
    /// The one at which `kswapd` rests.
    pub high: Option<u64>,
    /// What the buddy allocator manages.
    pub managed: Option<u64>,
    /// RAM in it.
    pub present: Option<u64>,
    /// Whether less is free than the lowest watermark.
    pub below_min: Option<bool>,
    /// Free blocks of 2^n pages, by n.
    pub free_blocks: Option<Vec<u64>>,
}

/// A node's memory, in bytes: the sum of its zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNode {
    /// Its number.
    pub node: u64,
    /// What the buddy allocator manages; `null` where a zone's can't be read.
    pub managed: Option<u64>,
    /// Free.
    pub free: Option<u64>,
}

/// What one caller took with `vmalloc` and its kin, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmallocCaller {
    /// Its function, with the module; `null` where the kernel keeps no caller.
    pub function: Option<String>,
    /// Areas.
    pub areas: u64,
    /// Address space, guard pages included.
    pub bytes: u64,
    /// Pages that were allocated for them; the rest maps what belongs to others.
    pub allocated: u64,
}

/// A swap device or file; sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapDevice {
    /// Its `struct swap_info_struct`.
    pub kaddr: Option<Address>,
    /// The file.
    pub path: Option<String>,
    /// Room.
    pub bytes: Option<u64>,
    /// In use.
    pub used: Option<u64>,
    /// Its priority.
    pub priority: Option<i64>,
    /// False where nothing more may be written to it.
    pub writable: Option<bool>,
}

/// Hugetlb pages of one size; counts are in pages of that size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What one node has of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A process's memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Its number.
    pub pid: i64,
    /// Its name.
    pub comm: String,
    /// Resident: the three below together.
    pub rss: u64,
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of files.
    pub file: u64,
    /// Pages of tmpfs and shared memory.
    pub shmem: u64,
    /// In swap.
    pub swap: u64,
    /// Its address space.
    pub total_vm: Option<u64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i64>,
}

/// Memory that ran out, as the kernel logged it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oom {
    /// Who asked for the memory.
    pub invoked_by: Option<String>,
    /// With which flags.
    pub gfp_mask: Option<String>,
    /// For 2^n pages.
    pub order: Option<i64>,
    /// What limited it: `CONSTRAINT_NONE`, `CONSTRAINT_MEMCG`, …
    pub constraint: Option<String>,
    /// The control group whose limit it was, as a path.
    pub cgroup: Option<String>,
    /// Whom the kernel killed for it; `null` where it killed none.
    pub killed: Option<String>,
}

/// A slab cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlabCache {
    /// Its name.
    pub name: String,
    /// Bytes of one object.
    pub object_size: Option<u64>,
    /// Objects in use.
    pub objects: Option<u64>,
    /// Bytes of all its pages.
    pub bytes: Option<u64>,
    /// Bytes of one object with what the allocator adds.
    #[serde(default)]
    pub size: Option<u64>,
    /// Objects that there is room for.
    #[serde(default)]
    pub total_objects: Option<u64>,
    /// Slabs.
    #[serde(default)]
    pub slabs: Option<u64>,
    /// Pages of a slab are 2^this.
    #[serde(default)]
    pub order: Option<u32>,
    /// Its constructor, with the module that it is in.
    #[serde(default)]
    pub constructor: Option<String>,
}
