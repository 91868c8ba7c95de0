//! The arrays of md (software RAID), their members, and what they are doing.
//!
//! An array is found by its disk and believed where it names that disk. Its structures are those of the module `md_mod`, or of the
//! kernel itself. Facts: `drivers/md/md.h`, `drivers/md/md.c`.

use super::block::{self, Device};
use super::block_device::{BlockDevice, BlockDevices};
use super::describe::Description;
use super::list;
use super::path;
use super::value::{Layout, Maybe, Place, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// Members of one array.
const MEMBERS: usize = 4096;
/// By bit, where the kernel has no enum of them (6.1).
const RECOVERY: [&str; 12] = [
    "running",
    "sync",
    "recover",
    "intr",
    "done",
    "needed",
    "requested",
    "check",
    "reshape",
    "frozen",
    "error",
    "wait",
];

view! {
    /// `struct mddev`.
    struct View of "mddev" {
        disk: KVirtAddr = ["gendisk"],
        personality: KVirtAddr = ["pers"],
        level: i32 = ["level"],
        disks: i32 = ["raid_disks"],
        degraded: i32 = ["degraded"],
        suspended: Maybe<i32> = ["suspended"],
        read_only: Maybe<i32> = ["ro"],
        in_sync: Maybe<i32> = ["in_sync"],
        recovery: u64 = ["recovery"],
        superblock: Maybe<u64> = ["sb_flags"],
        flags: Maybe<u64> = ["flags"],
        sectors: Maybe<u64> = ["array_sectors"],
        synced: Maybe<u64> = ["curr_resync_completed"],
        to_sync: Maybe<u64> = ["resync_max_sectors"],
        members: Place = ["disks"],
    }
}
view! {
    /// `struct md_personality`.
    struct Personality of "md_personality" {
        // In a head of its own since 6.15.
        name: KVirtAddr = ["head.name", "name"],
    }
}
view! {
    /// `struct md_rdev`.
    struct MemberView of "md_rdev" {
        array: KVirtAddr = ["mddev"],
        device: KVirtAddr = ["bdev"],
        flags: u64 = ["flags"],
        slot: i32 = ["raid_disk"],
        number: i32 = ["desc_nr"],
        pending: Maybe<u32> = ["nr_pending"],
        errors: Maybe<u32> = ["read_errors"],
    }
}

/// An array.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Array {
    /// Its `struct mddev`.
    pub kaddr: KVirtAddr,
    /// Its disk.
    pub disk: Device,
    /// The name of its personality: `raid1`; `None` where it does not run.
    pub personality: Option<String>,
    /// Its level as a number; negative for those that are no RAID.
    pub level: i32,
    /// How many members it should have.
    pub raid_disks: i32,
    /// How many of them it lacks.
    pub degraded: i32,
    /// How often it is suspended: I/O to it waits.
    pub suspended: Option<i32>,
    /// 0 writable, 1 read-only, 2 read-only until it is written to.
    pub read_only: Option<i32>,
    /// True where all writes have reached the members.
    pub clean: Option<bool>,
    /// What it recovers, in the kernel's words without `MD_RECOVERY_`.
    pub recovery: Vec<String>,
    /// What its superblocks wait for, without `MD_SB_`.
    pub superblock: Vec<String>,
    /// Its state, without `MD_`.
    pub flags: Vec<String>,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// How far it is recovered, in sectors, and of how many.
    pub progress: Option<(u64, u64)>,
    /// Its members, by slot and number.
    pub members: Vec<RaidMember>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

/// A member of an array.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RaidMember {
    /// Its `struct md_rdev`.
    pub kaddr: KVirtAddr,
    /// The device.
    pub device: BlockDevice,
    /// Its place in the array; `None` for a spare and for one that was taken out.
    pub slot: Option<u32>,
    /// Its number.
    pub number: i32,
    /// Its state in the kernel's words: `in_sync`, `faulty`, `blocked`, …
    pub state: Vec<String>,
    /// I/O that it has.
    pub pending: Option<u32>,
    /// Errors that were met when it was read.
    pub read_errors: Option<u32>,
}

struct Layouts {
    arrays: Layout<View>,
    personalities: Layout<Personality>,
    members: Layout<MemberView>,
    node: u64,
    devices: BlockDevices,
}

/// The arrays among the disks. The second part says what of the module's types is missing.
///
/// # Errors
/// Why they can't be read; where there are none, that is no error.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    limits: &Limits,
) -> Result<(Walk<Array>, Vec<String>), String> {
    let disks = block::list(memory, description, limits.walk_items)?;
    let mut walk = Walk { items: Vec::new(), end: disks.end, lost: disks.lost };
    // `md0`, `md127`, `md_home`, `md_d0`.
    let is_array = |disk: &Device| {
        let rest = disk.name.strip_prefix("md");
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit() || first == '_'))
    };
    let disks: Vec<Device> = disks.items.into_iter().filter(is_array).collect();
    if disks.is_empty() {
        return Ok((walk, Vec::new()));
    }
    let (types, gaps) = description.types_of(memory, &["md_mod"], limits);
    let settle = || -> Result<Layouts, crate::sym::btf::TypeError> {
        Ok(Layouts {
            arrays: Layout::new(&types)?,
            personalities: Layout::new(&types)?,
            members: Layout::new(&types)?,
            node: types.structure("md_rdev")?.member("same_set").map(Member::offset)?,
            devices: BlockDevices::new(&types)?,
        })
    };
    let layouts = match settle() {
        Ok(layouts) => layouts,
        Err(why) => return Err(gaps.into_iter().next().unwrap_or_else(|| why.to_string())),
    };
    for disk in disks {
        let (name, kaddr) = (disk.name.clone(), disk.kaddr);
        match layouts.array(memory, &types, disk) {
            Ok(array) => walk.items.push(array),
            Err(why) => walk.lose(WalkEnd::Inconsistent(kaddr, format!("{name}: {why}"))),
        }
    }
    Ok((walk, gaps))
}

impl Layouts {
    fn array(&self, memory: &KernelMemory<'_>, types: &Types, disk: Device) -> Result<Array, String> {
        let kaddr = disk.private;
        let view = self.arrays.read(memory, kaddr).map_err(|why| why.to_string())?;
        if view.disk != disk.kaddr {
            return Err(format!("what should be its mddev at {kaddr} is of another disk"));
        }
        let mut gaps = Vec::new();
        let personality = if view.personality.is_null() {
            None
        } else {
            let read = self.personalities.read(memory, view.personality).map_err(|why| why.to_string());
            match read.map(|personality| path::text(memory, personality.name)) {
                Ok(name) => name,
                Err(why) => {
                    gaps.push(format!("its personality: {why}"));
                    None
                }
            }
        };
        let walk = list::walk(memory, view.members.0, MEMBERS);
        if !walk.end.is_complete() {
            gaps.push(format!("its members are not all known: {}", walk.end));
        }
        let mut members = Vec::new();
        for at in walk.items.iter().filter_map(|at| at.checked_sub(self.node)) {
            match self.member(memory, types, kaddr, at) {
                Ok(member) => members.push(member),
                Err(why) => gaps.push(format!("a member: {why}")),
            }
        }
        members.sort_by_key(|member| (member.slot.unwrap_or(u32::MAX), member.number));
        let of = |value: &Maybe<u64>| value.as_ref().copied();
        let recovery = match types.enumeration("recovery_flags") {
            Ok(_) => bits(types, "recovery_flags", "MD_RECOVERY_", view.recovery),
            Err(_) => (0_u32..)
                .zip(RECOVERY)
                .filter(|(bit, _)| view.recovery >> bit & 1 == 1)
                .map(|(_, name)| name.to_owned())
                .collect(),
        };
        Ok(Array {
            kaddr,
            personality,
            level: view.level,
            raid_disks: view.disks,
            degraded: view.degraded,
            suspended: view.suspended.as_ref().copied(),
            read_only: view.read_only.as_ref().copied(),
            clean: view.in_sync.as_ref().map(|in_sync| *in_sync != 0),
            recovery,
            superblock: bits(types, "mddev_sb_flags", "MD_SB_", of(&view.superblock).unwrap_or_default()),
            flags: bits(types, "mddev_flags", "MD_", of(&view.flags).unwrap_or_default()),
            size_bytes: of(&view.sectors).and_then(|sectors| sectors.checked_mul(512)),
            progress: of(&view.synced).zip(of(&view.to_sync)),
            members,
            gaps,
            disk,
        })
    }

    fn member(
        &self,
        memory: &KernelMemory<'_>,
        types: &Types,
        array: KVirtAddr,
        kaddr: KVirtAddr,
    ) -> Result<RaidMember, String> {
        let view = self.members.read(memory, kaddr).map_err(|why| why.to_string())?;
        if view.array != array {
            return Err(format!("the one at {kaddr} is of another array"));
        }
        Ok(RaidMember {
            kaddr,
            device: self.devices.read(memory, view.device)?,
            slot: u32::try_from(view.slot).ok(),
            number: view.number,
            state: bits(types, "flag_bits", "", view.flags),
            pending: view.pending.as_ref().copied(),
            read_errors: view.errors.as_ref().copied(),
        })
    }
}

/// The names of the bits that are set, by an enum of their numbers; a bit without a name is shown as its number.
fn bits(types: &Types, of: &str, prefix: &str, value: u64) -> Vec<String> {
    let names = types.enumeration(of).ok();
    (0_u32..64)
        .filter(|bit| value >> bit & 1 == 1)
        .map(|bit| match names.and_then(|names| names.name_of(i64::from(bit))) {
            Some(name) => name.strip_prefix(prefix).unwrap_or(name).to_lowercase(),
            None => format!("bit {bit}"),
        })
        .collect()
}
