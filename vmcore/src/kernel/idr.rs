//! `struct idr`: numbers given to objects (process ids above all), kept in an xarray or radix tree.

use super::walk::{Walk, WalkEnd};
use super::xarray::{self, Entry};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Member, TypeError, Types};
use crate::xlat::KernelMemory;

/// Where in `struct idr` things are.
#[derive(Clone, Debug)]
pub struct Layout {
    tree: xarray::Layout,
    root: u64,
    /// Since 4.16 numbers need not begin with 0.
    base: Option<u64>,
}

impl Layout {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When its types don't tell.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        let idr = types.structure("idr")?;
        Ok(Self {
            tree: xarray::Layout::new(types)?,
            root: idr.member("idr_rt")?.offset(),
            base: idr.member("idr_base").ok().map(Member::offset),
        })
    }

    /// All numbers that are given out, with the objects that they stand for.
    #[must_use]
    pub fn entries(&self, memory: &KernelMemory<'_>, idr: KVirtAddr, limit: usize) -> Walk<(u64, KVirtAddr)> {
        let Some(root) = idr.checked_add(self.root) else {
            let mut walk = Walk::default();
            walk.lose(WalkEnd::Inconsistent(idr, "it is at the end of the address space".into()));
            return walk;
        };
        let base = self
            .base
            .and_then(|o| idr.checked_add(o))
            .and_then(|at| memory.read_u32(at).ok())
            .map_or(0, u64::from);
        let walk = self.tree.entries(memory, root, limit);
        let pointer = |(index, entry): (u64, Entry)| match entry {
            Entry::Pointer(at) => Some((index.wrapping_add(base), at)),
            Entry::Value(_) => None,
        };
        Walk { items: walk.items.into_iter().filter_map(pointer).collect(), end: walk.end, lost: walk.lost }
    }
}
