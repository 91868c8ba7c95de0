//! The virtio devices of a guest and their queues: what the guest has given to its host, and what has come back.
//!
//! A queue's ring is memory that guest and host share. The guest counts what it offers (`avail_idx_shadow`) and what it has taken back
//! (`last_used_idx`), and the host counts in the ring what it has answered (`used->idx`): the differences tell who waits for whom.
//! The device's status bits are registers of the host, which no dump of the guest has.
//! Facts: `drivers/virtio/virtio_ring.c`, `include/linux/virtio.h`, `include/uapi/linux/virtio_ring.h`, the virtio specification.

use super::bus;
use super::describe::Description;
use super::list;
use super::path;
use super::value::{Layout, Maybe, Place, Slot, read_number, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// Queues of one device; the specification allows no more.
const QUEUES: usize = 65_536;
/// Descriptors of one ring: of a split ring at most `2^15`, of a packed one too.
const DESCRIPTORS: u32 = 1 << 15;
/// Device numbers of the virtio specification.
const KINDS: &[(u32, &str)] = &[
    (1, "network"),
    (2, "block"),
    (3, "console"),
    (4, "entropy"),
    (5, "balloon"),
    (8, "scsi"),
    (9, "9p"),
    (16, "gpu"),
    (18, "input"),
    (19, "vsock"),
    (20, "crypto"),
    (23, "iommu"),
    (24, "memory"),
    (25, "sound"),
    (26, "file system"),
    (27, "pmem"),
];

view! {
    /// `struct virtio_device`.
    struct View of "virtio_device" {
        kind: u32 = ["id.device"],
        failed: Maybe<bool> = ["failed"],
        queues: Place = ["vqs"],
    }
}
view! {
    /// `struct vring_virtqueue`.
    struct Ring of "vring_virtqueue" {
        name: KVirtAddr = ["vq.name"],
        device: KVirtAddr = ["vq.vdev"],
        index: u32 = ["vq.index"],
        free: u32 = ["vq.num_free"],
        packed: Option<bool> = ["packed_ring"],
        broken: Maybe<bool> = ["broken"],
        taken: u16 = ["last_used_idx"],
        // In a part of its own since 5.0.
        offered: u16 = ["split.avail_idx_shadow", "avail_idx_shadow"],
        size: u32 = ["split.vring.num", "vring.num"],
        used: KVirtAddr = ["split.vring.used", "vring.used"],
        packed_size: Option<u32> = ["packed.vring.num"],
    }
}

/// A virtio device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VirtioDevice {
    /// Its `struct virtio_device`.
    pub kaddr: KVirtAddr,
    /// Its name on the bus: `virtio0`.
    pub name: Option<String>,
    /// Its driver: `virtio_blk`; `None` without one.
    pub driver: Option<String>,
    /// What it is, in the specification's words: `block`.
    pub kind: Option<&'static str>,
    /// What it is, as a number.
    pub number: u32,
    /// The device that it is part of: its PCI address.
    pub parent: Option<String>,
    /// It had failed before the guest was put to sleep.
    pub failed: Option<bool>,
    /// Its queues, by number.
    pub queues: Vec<Queue>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Its `struct vring_virtqueue`.
    pub kaddr: KVirtAddr,
    /// Its name: `req.0`, `input.0`.
    pub name: Option<String>,
    /// Its number.
    pub index: u32,
    /// Descriptors that its ring has.
    pub size: u32,
    /// Descriptors that are free; the others are with the host, or have come back and are not yet taken.
    pub free: u32,
    /// What the host has not answered; `None` where the ring is packed or can't be read.
    pub with_host: Option<u32>,
    /// What the host has answered and the guest has not taken.
    pub unseen: Option<u32>,
    /// The guest's own count of what it has taken, which the ring's index is compared with.
    pub last_used: u16,
    /// The ring is packed.
    pub packed: bool,
    /// The driver has given it up.
    pub broken: Option<bool>,
}

struct Layouts {
    devices: Layout<View>,
    /// Where in a `virtio_device` the `device` is.
    inside: u64,
    rings: Layout<Ring>,
    /// Where in a `vring_virtqueue` the list's node is.
    node: u64,
    /// `vring_used.idx`.
    used: Slot,
}

/// The virtio devices. The second part says what of the modules' types is missing.
///
/// # Errors
/// Why they can't be read; where there are none, that is no error.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    limits: &Limits,
) -> Result<(Walk<VirtioDevice>, Vec<String>), String> {
    let found = bus::devices(memory, description, "virtio", limits.walk_items)?;
    let mut walk = Walk { items: Vec::new(), end: found.end, lost: found.lost };
    if found.items.is_empty() {
        return Ok((walk, Vec::new()));
    }
    let (types, gaps) = description.types_of(memory, &["virtio", "virtio_ring"], limits);
    let settle = || -> Result<Layouts, crate::sym::btf::TypeError> {
        let offset = |of: &str, path: &str| types.structure(of)?.member(path).map(Member::offset);
        Ok(Layouts {
            devices: Layout::new(&types)?,
            inside: offset("virtio_device", "dev")?,
            rings: Layout::new(&types)?,
            node: offset("vring_virtqueue", "vq.list")?,
            used: Slot::new(types.structure("vring_used")?.member("idx")?)?,
        })
    };
    let layouts = match settle() {
        Ok(layouts) => layouts,
        Err(why) => return Err(gaps.into_iter().next().unwrap_or_else(|| why.to_string())),
    };
    for device in found.items {
        let kaddr = device.kaddr;
        match layouts.device(memory, device) {
            Ok(device) => walk.items.push(device),
            Err(why) => walk.lose(WalkEnd::Inconsistent(kaddr, why)),
        }
    }
    Ok((walk, gaps))
}

/// The `virtio_device` behind the private data of a disk of `virtio_blk`.
///
/// # Errors
/// Where the types do not tell, or it can't be read.
pub fn of_disk(memory: &KernelMemory<'_>, types: &Types, private: KVirtAddr) -> Result<KVirtAddr, String> {
    let member = types.structure("virtio_blk").and_then(|of| of.member("vdev")).map_err(|e| e.to_string())?;
    let at = private.checked_add(member.offset()).ok_or("it is at the end of the address space")?;
    memory.read_ptr(at).map_err(|why| why.to_string())
}

impl Layouts {
    fn device(&self, memory: &KernelMemory<'_>, found: bus::Device) -> Result<VirtioDevice, String> {
        let kaddr = found.kaddr.checked_sub(self.inside).ok_or("its place is below zero")?;
        let view = self.devices.read(memory, kaddr).map_err(|why| why.to_string())?;
        let mut device = VirtioDevice {
            kaddr,
            name: found.name,
            driver: found.driver,
            kind: KINDS.iter().find(|(number, _)| *number == view.kind).map(|(_, name)| *name),
            number: view.kind,
            parent: found.parent,
            failed: view.failed.as_ref().copied(),
            ..VirtioDevice::default()
        };
        let walk = list::walk(memory, view.queues.0, QUEUES);
        if !walk.end.is_complete() {
            device.gaps.push(format!("its queues are not all known: {}", walk.end));
        }
        for at in walk.items.iter().filter_map(|at| at.checked_sub(self.node)) {
            match self.queue(memory, kaddr, at, &mut device.gaps) {
                Ok(queue) => device.queues.push(queue),
                Err(why) => device.gaps.push(format!("a queue: {why}")),
            }
        }
        device.queues.sort_by_key(|queue| queue.index);
        Ok(device)
    }

    fn queue(
        &self,
        memory: &KernelMemory<'_>,
        device: KVirtAddr,
        kaddr: KVirtAddr,
        gaps: &mut Vec<String>,
    ) -> Result<Queue, String> {
        let ring = self.rings.read(memory, kaddr).map_err(|why| why.to_string())?;
        if ring.device != device {
            return Err(format!("the one at {kaddr} is of another device"));
        }
        let packed = ring.packed.unwrap_or(false);
        let size = if packed { ring.packed_size.unwrap_or_default() } else { ring.size };
        if size == 0 || size > DESCRIPTORS || ring.free > size {
            return Err(format!("the one at {kaddr} claims {size} descriptors, {} of them free", ring.free));
        }
        let name = path::text(memory, ring.name);
        let mut queue = Queue {
            kaddr,
            name,
            index: ring.index,
            size,
            free: ring.free,
            with_host: None,
            unseen: None,
            last_used: ring.taken,
            packed,
            broken: ring.broken.as_ref().copied(),
        };
        if packed {
            // The host marks the descriptors themselves; there is no index to compare.
            return Ok(queue);
        }
        match read_number(memory, ring.used, &self.used) {
            Ok(used) => {
                let used = u16::try_from(used & 0xffff).unwrap_or_default();
                match shares(ring.offered, used, ring.taken, size) {
                    Some((with_host, unseen)) => {
                        (queue.with_host, queue.unseen) = (Some(with_host), Some(unseen));
                    }
                    None => gaps.push(format!(
                        "queue {}: its counts disagree: {} offered, {used} answered, {} taken, {size} descriptors",
                        ring.index, ring.offered, ring.taken
                    )),
                }
            }
            Err(why) => gaps.push(format!("queue {}: the host's part of its ring: {why}", ring.index)),
        }
        Ok(queue)
    }
}

/// What is with the host, and what has come back and is not taken. Counts are 16 bits that run over; none is further from another
/// than the ring has descriptors.
fn shares(offered: u16, used: u16, taken: u16, size: u32) -> Option<(u32, u32)> {
    let with_host = u32::from(offered.wrapping_sub(used));
    let unseen = u32::from(used.wrapping_sub(taken));
    (with_host.checked_add(unseen)? <= size).then_some((with_host, unseen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_ran_over_are_still_differences() {
        assert_eq!(shares(3, 1, 0xffff, 128), Some((2, 2)));
        assert_eq!(shares(10, 10, 10, 128), Some((0, 0)));
    }

    #[test]
    fn counts_further_apart_than_the_ring_is_long_are_not_believed() {
        assert_eq!(shares(200, 0, 0, 128), None);
        assert_eq!(shares(0, 1, 0, 128), None);
    }
}
