//! The devices of device-mapper: their tables, whether they are suspended, and the I/O that they hold back.
//!
//! A mapped device is found by its disk and believed where it names that disk. Its structures are those of the module `dm_mod`, or of
//! the kernel itself. Facts: `drivers/md/dm-core.h`, `drivers/md/dm-table.h`, `drivers/md/dm-ioctl.c`, `drivers/md/dm-linear.c`.

use super::bio::{self, Bio};
use super::block::{self, Device};
use super::block_device::{BlockDevice, BlockDevices};
use super::describe::Description;
use super::list;
use super::multipath::{self, Multipath};
use super::path;
use super::percpu::PerCpu;
use super::value::{Layout, Place, view};
use super::walk::Walk;
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// Targets of one table, and devices under it.
const TARGETS: u32 = 65_536;
const DEVICES: usize = 65_536;
/// Requests that wait to be sent again.
const REQUESTS: usize = 65_536;
/// By the bit of `flags` (`DMF_…`, the same since 2.6.37): I/O is held back, for the first reason of these.
const BLOCKED_FOR_SUSPEND: u64 = 1;
const SUSPENDED: u64 = 1 << 1;
const SUSPENDED_INTERNALLY: u64 = 1 << 7;

view! {
    /// `struct mapped_device`.
    struct Mapped of "mapped_device" {
        disk: KVirtAddr = ["disk"],
        table: KVirtAddr = ["map"],
        flags: u64 = ["flags"],
        kind: Option<u32> = ["type"],
        cell: Option<KVirtAddr> = ["interface_ptr"],
        // Per CPU; older kernels count in the disk's statistics alone.
        in_flight: Option<KVirtAddr> = ["pending_io"],
        deferred: Place = ["deferred"],
        opened: Option<u32> = ["open_count"],
    }
}
view! {
    /// `struct hash_cell`, where dm-ioctl keeps the names.
    struct Cell of "hash_cell" {
        name: KVirtAddr = ["name"],
        uuid: KVirtAddr = ["uuid"],
        device: KVirtAddr = ["md"],
    }
}
view! {
    /// `struct dm_table`.
    struct Table of "dm_table" {
        count: u32 = ["num_targets"],
        targets: KVirtAddr = ["targets"],
        devices: Place = ["devices"],
    }
}
view! {
    /// `struct dm_target`.
    struct TargetView of "dm_target" {
        kind: KVirtAddr = ["type"],
        start: u64 = ["begin"],
        sectors: u64 = ["len"],
        private: KVirtAddr = ["private"],
    }
}
view! {
    /// `struct target_type`.
    struct TargetType of "target_type" {
        name: KVirtAddr = ["name"],
    }
}
view! {
    /// `struct dm_dev_internal`.
    struct Under of "dm_dev_internal" {
        device: KVirtAddr = ["dm_dev"],
    }
}
view! {
    /// `struct dm_dev`.
    pub(super) struct DmDev of "dm_dev" {
        pub(super) device: KVirtAddr = ["bdev"],
    }
}
view! {
    /// `struct linear_c`.
    struct Linear of "linear_c" {
        device: KVirtAddr = ["dev"],
        start: u64 = ["start"],
    }
}

/// How far a mapped device is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suspension {
    /// Not at all.
    Active,
    /// New I/O is held back, and what was sent before is waited for.
    Suspending,
    /// New I/O is held back until it is resumed.
    Suspended,
}

/// A device of device-mapper.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MappedDevice {
    /// Its `struct mapped_device`.
    pub kaddr: KVirtAddr,
    /// Its disk.
    pub disk: Device,
    /// Its name, as `dmsetup` shows it.
    pub name: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// How it takes I/O, in the kernel's word without `DM_TYPE_`: `bio based`, `request based`.
    pub kind: Option<String>,
    /// How far it is suspended.
    pub suspension: Suspension,
    /// I/O that was sent to the devices below and has not come back; `None` where the kernel counts otherwise.
    pub in_flight: Option<u64>,
    /// I/O that is held back.
    pub deferred: Option<Walk<Bio>>,
    /// Requests that wait to be sent again, for a device that takes requests.
    pub requeued: Option<u64>,
    /// How often it is open.
    pub opened: Option<u32>,
    /// Its table; empty where it has none.
    pub targets: Vec<Target>,
    /// The devices below.
    pub devices: Vec<BlockDevice>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

/// A line of a table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// Its type: `linear`, `crypt`, `multipath`.
    pub kind: String,
    /// Where it begins on the device, in sectors.
    pub start: u64,
    /// How many sectors it has.
    pub sectors: u64,
    /// For `linear`: the device below, and the sector of it that it begins with.
    pub linear: Option<(BlockDevice, u64)>,
    /// For `multipath`: its paths.
    pub multipath: Option<Multipath>,
}

struct Reader<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    types: &'a Types,
    per_cpu: &'a PerCpu,
    mapped: Layout<Mapped>,
    cells: Option<Layout<Cell>>,
    tables: Layout<Table>,
    targets: Layout<TargetView>,
    kinds: Layout<TargetType>,
    under: Layout<Under>,
    devices: Layout<DmDev>,
    linear: Option<Layout<Linear>>,
    blocks: BlockDevices,
}

/// The mapped devices among the disks. The second part says what of the modules' types is missing.
///
/// # Errors
/// Why they can't be read; where there are none, that is no error.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    per_cpu: &PerCpu,
    limits: &Limits,
) -> Result<(Walk<MappedDevice>, Vec<String>), String> {
    let disks = block::list(memory, description, limits.walk_items)?;
    let mut walk = Walk { items: Vec::new(), end: disks.end, lost: disks.lost };
    let disks: Vec<Device> = disks.items.into_iter().filter(|disk| is_mapped(&disk.name)).collect();
    if disks.is_empty() {
        return Ok((walk, Vec::new()));
    }
    let (types, gaps) = description.types_of(memory, &["dm_mod", "dm_multipath"], limits);
    let reader = match Reader::new(memory, &types, per_cpu) {
        Ok(reader) => reader,
        // Why a module's types are missing says more than which of them.
        Err(why) => return Err(gaps.into_iter().next().unwrap_or(why)),
    };
    for disk in disks {
        let (name, kaddr) = (disk.name.clone(), disk.kaddr);
        match reader.device(disk) {
            Ok(device) => walk.items.push(device),
            Err(why) => walk.lose(super::walk::WalkEnd::Inconsistent(kaddr, format!("{name}: {why}"))),
        }
    }
    Ok((walk, gaps))
}

/// True for `dm-0`: device-mapper names its disks itself.
fn is_mapped(disk: &str) -> bool {
    disk.strip_prefix("dm-").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

impl<'a, 'm> Reader<'a, 'm> {
    fn new(memory: &'a KernelMemory<'m>, types: &'a Types, per_cpu: &'a PerCpu) -> Result<Self, String> {
        let settle = || -> Result<Self, crate::sym::btf::TypeError> {
            Ok(Self {
                memory,
                types,
                per_cpu,
                mapped: Layout::new(types)?,
                cells: Layout::new(types).ok(),
                tables: Layout::new(types)?,
                targets: Layout::new(types)?,
                kinds: Layout::new(types)?,
                under: Layout::new(types)?,
                devices: Layout::new(types)?,
                linear: Layout::new(types).ok(),
                blocks: BlockDevices::new(types)?,
            })
        };
        settle().map_err(|why| why.to_string())
    }

    fn device(&self, disk: Device) -> Result<MappedDevice, String> {
        let kaddr = disk.private;
        let mapped = self.mapped.read(self.memory, kaddr).map_err(|why| why.to_string())?;
        if mapped.disk != disk.kaddr {
            return Err(format!("what should be its mapped_device at {kaddr} is of another disk"));
        }
        let mut gaps = Vec::new();
        let (name, uuid) = self.names(kaddr, mapped.cell, &mut gaps);
        let deferred = bio::walk(self.memory, self.types, mapped.deferred.0);
        let deferred = deferred.map_err(|why| gaps.push(format!("the I/O that it holds back: {why}"))).ok();
        if let Some(walk) = deferred.as_ref().filter(|walk| !walk.end.is_complete()) {
            gaps.push(format!("the I/O that it holds back is not all known: {}", walk.end));
        }
        let kinds = self.types.enumeration("dm_queue_mode").ok();
        let kind = mapped.kind.and_then(|kind| kinds?.name_of(i64::from(kind)));
        let kind = kind.map(|name| name.trim_start_matches("DM_TYPE_").to_lowercase().replace('_', " "));
        let by_request = kind.as_deref() == Some("request based");
        let requeued = if by_request { self.requeued(disk.queue, &mut gaps) } else { None };
        // A device that takes requests counts them elsewhere: they are its queue's own.
        let in_flight = mapped.in_flight.filter(|_| !by_request);
        let in_flight = in_flight.and_then(|counters| self.sum(counters, &mut gaps));
        let (mut targets, mut devices) = (Vec::new(), Vec::new());
        if !mapped.table.is_null() {
            match self.table(mapped.table, &mut gaps) {
                Ok(found) => (targets, devices) = found,
                Err(why) => gaps.push(format!("its table can't be read: {why}")),
            }
        }
        Ok(MappedDevice {
            kaddr,
            disk,
            name,
            uuid,
            kind,
            suspension: suspension(mapped.flags),
            in_flight,
            deferred,
            requeued,
            opened: mapped.opened,
            targets,
            devices,
            gaps,
        })
    }

    fn names(
        &self,
        device: KVirtAddr,
        cell: Option<KVirtAddr>,
        gaps: &mut Vec<String>,
    ) -> (Option<String>, Option<String>) {
        let found = || -> Result<Cell, String> {
            let (at, layout) =
                cell.zip(self.cells.as_ref()).ok_or("the types don't tell where it is kept")?;
            let cell = layout.read(self.memory, at).map_err(|why| why.to_string())?;
            if cell.device == device { Ok(cell) } else { Err("it is another device's".into()) }
        };
        match found() {
            Ok(cell) => (path::text(self.memory, cell.name), path::text(self.memory, cell.uuid)),
            Err(why) => {
                gaps.push(format!("its name is not known: {why}"));
                (None, None)
            }
        }
    }

    /// The sum of a counter of which each CPU has a copy. Copies are differences: one alone may be «negative».
    fn sum(&self, counters: KVirtAddr, gaps: &mut Vec<String>) -> Option<u64> {
        let mut sum = 0_u64;
        for cpu in self.per_cpu.possible() {
            let at = self.per_cpu.address(counters, *cpu).map_err(|why| why.to_string());
            match at.and_then(|at| self.memory.read_u64(at).map_err(|why| why.to_string())) {
                Ok(count) => sum = sum.wrapping_add(count),
                Err(why) => {
                    gaps.push(format!("the I/O in flight is not known: {why}"));
                    return None;
                }
            }
        }
        // I/O that is counted while it is summed up can leave a little less than nothing.
        Some(if sum.cast_signed() < 0 { 0 } else { sum })
    }

    fn requeued(&self, queue: KVirtAddr, gaps: &mut Vec<String>) -> Option<u64> {
        let member = self.types.structure("request_queue").and_then(|of| of.member("requeue_list"));
        let head = queue.checked_add(member.ok()?.offset())?;
        let walk = list::walk(self.memory, head, REQUESTS);
        if !walk.end.is_complete() {
            gaps.push(format!("the requests that wait to be sent again are not all known: {}", walk.end));
        }
        u64::try_from(walk.items.len()).ok()
    }

    fn table(
        &self,
        at: KVirtAddr,
        gaps: &mut Vec<String>,
    ) -> Result<(Vec<Target>, Vec<BlockDevice>), String> {
        let table = self.tables.read(self.memory, at).map_err(|why| why.to_string())?;
        if table.count > TARGETS {
            return Err(format!("it claims {} targets", table.count));
        }
        let mut targets = Vec::new();
        for number in 0..table.count {
            let by = u64::from(number).checked_mul(self.targets.size());
            let place = by.and_then(|by| table.targets.checked_add(by));
            let mut one = || self.target(place.ok_or("it is at the end of the address space")?, gaps);
            match one() {
                Ok(target) => targets.push(target),
                Err(why) => gaps.push(format!("target {number}: {why}")),
            }
        }
        let node =
            self.types.structure("dm_dev_internal").and_then(|of| of.member("list")).map(Member::offset);
        let node = node.map_err(|why| why.to_string())?;
        let walk = list::walk(self.memory, table.devices.0, DEVICES);
        if !walk.end.is_complete() {
            gaps.push(format!("the devices below it are not all known: {}", walk.end));
        }
        let mut devices = Vec::new();
        for at in walk.items.iter().filter_map(|at| at.checked_sub(node)) {
            let under = self.under.read(self.memory, at).map_err(|why| why.to_string());
            match under.and_then(|under| self.below(under.device)) {
                Ok(device) => devices.push(device),
                Err(why) => gaps.push(format!("a device below it: {why}")),
            }
        }
        devices.sort_by(|a, b| a.number.cmp(&b.number));
        Ok((targets, devices))
    }

    /// The device that a `struct dm_dev` stands for.
    fn below(&self, at: KVirtAddr) -> Result<BlockDevice, String> {
        let device = self.devices.read(self.memory, at).map_err(|why| why.to_string())?;
        self.blocks.read(self.memory, device.device)
    }

    fn target(&self, at: KVirtAddr, gaps: &mut Vec<String>) -> Result<Target, String> {
        let target = self.targets.read(self.memory, at).map_err(|why| why.to_string())?;
        let kind = self.kinds.read(self.memory, target.kind).map_err(|why| why.to_string())?;
        let kind = path::text(self.memory, kind.name).ok_or("the name of its type can't be read")?;
        let mut found =
            Target { start: target.start, sectors: target.sectors, linear: None, multipath: None, kind };
        match found.kind.as_str() {
            "linear" => {
                let linear = || -> Result<(BlockDevice, u64), String> {
                    let layout = self.linear.as_ref().ok_or("the types don't tell how it is laid out")?;
                    let linear = layout.read(self.memory, target.private).map_err(|why| why.to_string())?;
                    Ok((self.below(linear.device)?, linear.start))
                };
                found.linear = linear().map_err(|why| gaps.push(format!("a linear target: {why}"))).ok();
            }
            "multipath" => {
                let below = |at| self.below(at);
                let paths = multipath::read(self.memory, self.types, target.private, at, &below);
                found.multipath = paths.map_err(|why| gaps.push(format!("its paths: {why}"))).ok();
                if let Some(paths) = &found.multipath {
                    gaps.extend(paths.gaps.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(found)
    }
}

fn suspension(flags: u64) -> Suspension {
    if flags & (SUSPENDED | SUSPENDED_INTERNALLY) != 0 {
        Suspension::Suspended
    } else if flags & BLOCKED_FOR_SUSPEND != 0 {
        Suspension::Suspending
    } else {
        Suspension::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_device_mapper_are_told_by_the_name_that_it_gives() {
        assert!(is_mapped("dm-12"));
        assert!(!is_mapped("dm-x") && !is_mapped("sda"));
    }

    #[test]
    fn a_device_that_waits_for_its_io_is_not_yet_suspended() {
        assert_eq!(suspension(0), Suspension::Active);
        assert_eq!(suspension(BLOCKED_FOR_SUSPEND), Suspension::Suspending);
        assert_eq!(suspension(BLOCKED_FOR_SUSPEND | SUSPENDED), Suspension::Suspended);
        assert_eq!(suspension(SUSPENDED_INTERNALLY), Suspension::Suspended);
    }
}
