//! Numbers that mean something: frame numbers, physical and kernel virtual addresses.
//!
//! Headers are hostile, so arithmetic on them is checked and a plain `u64` never crosses a function border.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// A page frame number of the dumped machine (not of this one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

/// A physical address as the dumped kernel counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

/// A virtual address of the dumped kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KVirtAddr(pub u64);

/// A virtual address of a process of the dumped machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UVirtAddr(pub u64);

/// A map by frame numbers or addresses, for what each read of memory asks.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Hashes a number by one multiplication. A dump can choose numbers that collide: only for maps of a bounded length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The low bits of a product know of the number's low bits only, which are zeros in addresses of pages.
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Pfn {
    /// The frame's first byte, or `None` where a hostile header names a frame past 2^64.
    #[must_use]
    pub fn start(self, page_size: u64) -> Option<PhysAddr> {
        self.0.checked_mul(page_size).map(PhysAddr)
    }

    /// The frame `count` frames further, or `None` past 2^64.
    #[must_use]
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl PhysAddr {
    /// The frame that holds this byte; `None` for a page size of zero.
    #[must_use]
    pub fn pfn(self, page_size: u64) -> Option<Pfn> {
        self.0.checked_div(page_size).map(Pfn)
    }

    /// The byte's place inside its frame; `None` for a page size of zero.
    #[must_use]
    pub fn page_offset(self, page_size: u64) -> Option<u64> {
        self.0.checked_rem(page_size)
    }

    /// The address `bytes` further, or `None` past 2^64.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }
}

impl KVirtAddr {
    /// The address `bytes` further, or `None` past 2^64.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The address `bytes` before, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, bytes: u64) -> Option<Self> {
        self.0.checked_sub(bytes).map(Self)
    }

    /// True for the null pointer, with which most of the kernel's lists end.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paddr {:#x}", self.0)
    }
}

impl fmt::Display for KVirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kaddr {:#x}", self.0)
    }
}

impl fmt::Display for UVirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uvaddr {:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_past_the_address_space_has_no_start() {
        assert_eq!(Pfn(u64::MAX).start(4096), None);
        assert_eq!(Pfn(2).start(4096), Some(PhysAddr(8192)));
    }

    #[test]
    fn a_page_size_of_zero_is_refused_and_not_divided_by() {
        assert_eq!(PhysAddr(1).pfn(0), None);
        assert_eq!(PhysAddr(1).page_offset(0), None);
    }
}
