//! A `struct block_device` by its name and numbers: what a device that stands on others points at.
//!
//! Facts: `include/linux/blk_types.h`, `block/genhd.c` (`disk_name`), `include/linux/kdev_t.h`.

use super::value::{Layout, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// `MINORBITS`.
const MINOR_BITS: u32 = 20;

view! {
    /// `struct block_device`.
    struct View of "block_device" {
        number: u32 = ["bd_dev"],
        disk: KVirtAddr = ["bd_disk"],
        // The lowest byte of the flags since 6.10.
        flags: Option<u32> = ["__bd_flags"],
        partition: Option<u8> = ["bd_partno"],
    }
}
view! {
    /// `struct gendisk`.
    struct Disk of "gendisk" {
        name: String = ["disk_name"],
    }
}

/// A disk or a partition of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockDevice {
    /// Its name: `sda`, `sda1`, `nvme0n1p1`.
    pub name: String,
    /// Its numbers: `8:1`.
    pub number: String,
}

/// Reads `block_device`s.
pub(super) struct BlockDevices {
    devices: Layout<View>,
    disks: Layout<Disk>,
}

impl BlockDevices {
    /// # Errors
    /// Where the types do not tell how they are laid out.
    pub(super) fn new(types: &Types) -> Result<Self, TypeError> {
        Ok(Self { devices: Layout::new(types)?, disks: Layout::new(types)? })
    }

    /// # Errors
    /// Where it or its disk can't be read.
    pub(super) fn read(&self, memory: &KernelMemory<'_>, kaddr: KVirtAddr) -> Result<BlockDevice, String> {
        let view = self.devices.read(memory, kaddr).map_err(|why| why.to_string())?;
        let mut name = self.disks.read(memory, view.disk).map_err(|why| why.to_string())?.name;
        let partition = view.flags.map(|flags| flags & 0xff).or(view.partition.map(u32::from)).unwrap_or(0);
        if partition != 0 {
            let joint = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
            name = format!("{name}{joint}{partition}");
        }
        Ok(BlockDevice { name, number: number(view.number) })
    }
}

/// A `dev_t` as `major:minor`.
fn number(device: u32) -> String {
    let minor = device & ((1 << MINOR_BITS) - 1);
    format!("{}:{minor}", device >> MINOR_BITS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_split_as_the_kernel_does() {
        assert_eq!(super::number(0x0080_0001), "8:1");
        assert_eq!(super::number(0x0fdf_ffff), "253:1048575");
    }
}
