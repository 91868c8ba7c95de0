//! A small cache of page-table pages, and of where walks over them have led, shared by threads.

use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use crate::addr::{KVirtAddr, NumberMap, PhysAddr};
use crate::error::PageError;
use crate::mem::PhysicalMemory;

/// Bytes of one x86 table.
pub(crate) const TABLE_BYTES: usize = 4096;

/// Tables kept: 2 MiB, which map 1 GiB even of 4 KiB pages.
const KEPT: usize = 512;
/// Regions kept: 32 GiB of addresses.
const KEPT_REGIONS: usize = 16 << 10;
/// Addresses that one table of the last level maps: 2 MiB.
const REGION_BITS: u32 = 21;

/// Where the upper levels lead for all addresses of 2 MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Region {
    /// To this table of the last level.
    Table(PhysAddr),
    /// To a huge page: its address in the entry, and how many bytes it spans.
    Mapped(u64, u64),
}

/// Page-table pages that were read before, and regions that were walked to, of one set of tables. It forgets all of them
/// when it is full: a walk needs five.
#[derive(Debug, Default)]
pub(crate) struct TableCache {
    tables: RwLock<NumberMap<PhysAddr, Arc<[u8; TABLE_BYTES]>>>,
    regions: RwLock<NumberMap<u64, Region>>,
}

fn keep<K: Hash + Eq, V>(map: &RwLock<NumberMap<K, V>>, most: usize, key: K, value: V) {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= most {
        map.clear();
    }
    map.insert(key, value);
}

impl TableCache {
    /// The table at `paddr`, which must be 4096-byte aligned.
    pub(crate) fn get(
        &self,
        mem: &dyn PhysicalMemory,
        paddr: PhysAddr,
    ) -> Result<Arc<[u8; TABLE_BYTES]>, PageError> {
        if let Some(table) = self.tables.read().unwrap_or_else(PoisonError::into_inner).get(&paddr) {
            return Ok(Arc::clone(table));
        }
        let mut bytes = Box::new([0; TABLE_BYTES]);
        mem.read(paddr, bytes.as_mut_slice())?;
        let table: Arc<[u8; TABLE_BYTES]> = Arc::from(bytes);
        keep(&self.tables, KEPT, paddr, Arc::clone(&table));
        Ok(table)
    }

    /// Where the upper levels lead, where that was found before.
    pub(crate) fn region(&self, kaddr: KVirtAddr) -> Option<Region> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions.get(&(kaddr.0 >> REGION_BITS)).copied()
    }

    /// Notes where they lead.
    pub(crate) fn keep_region(&self, kaddr: KVirtAddr, region: Region) {
        keep(&self.regions, KEPT_REGIONS, kaddr.0 >> REGION_BITS, region);
    }
}
