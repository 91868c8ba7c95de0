//! A small cache of page-table pages, shared by threads.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::addr::PhysAddr;
use crate::error::PageError;
use crate::mem::PhysicalMemory;

/// Bytes of one x86 table.
pub(crate) const TABLE_BYTES: usize = 4096;

/// Tables kept: 2 MiB, which map 1 GiB even of 4 KiB pages.
const KEPT: usize = 512;

/// Page-table pages that were read before. It forgets all of them when it is full: a walk needs five.
#[derive(Debug, Default)]
pub(crate) struct TableCache {
    tables: RwLock<HashMap<PhysAddr, Arc<[u8; TABLE_BYTES]>>>,
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
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if tables.len() >= KEPT {
            tables.clear();
        }
        tables.insert(paddr, Arc::clone(&table));
        Ok(table)
    }
}
