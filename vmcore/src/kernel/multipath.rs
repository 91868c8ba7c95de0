//! The paths of a multipath target.
//!
//! Facts: `drivers/md/dm-mpath.c`. Two modules have a `struct multipath`; this one is believed where it names its target.

use super::bio;
use super::block_device::BlockDevice;
use super::list;
use super::value::{Layout, Place, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// Groups of one target, and paths of one group.
const GROUPS: usize = 1024;
const PATHS: usize = 4096;
/// `MPATHF_QUEUE_IF_NO_PATH`, where the flags are a word (since 4.8, commit 518257b13276).
const QUEUE_IF_NO_PATH: u64 = 1 << 1;

view! {
    /// `struct multipath`.
    struct View of "multipath" {
        target: KVirtAddr = ["ti"],
        flags: u64 = ["flags"],
        usable: u32 = ["nr_valid_paths"],
        current: KVirtAddr = ["current_pgpath"],
        groups: Place = ["priority_groups"],
        queued: Place = ["queued_bios"],
    }
}
view! {
    /// `struct priority_group`.
    struct Group of "priority_group" {
        number: u32 = ["pg_num"],
        bypassed: bool = ["bypassed"],
        paths: Place = ["pgpaths"],
    }
}
view! {
    /// `struct pgpath`.
    struct PathView of "pgpath" {
        device: KVirtAddr = ["path.dev"],
        active: bool = ["is_active"],
        failures: u32 = ["fail_count"],
    }
}

/// A multipath target.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Multipath {
    /// Its `struct multipath`.
    pub kaddr: KVirtAddr,
    /// I/O waits where there is no path, instead of failing.
    pub queue_if_no_path: bool,
    /// Paths that the kernel counts as usable.
    pub usable: u32,
    /// I/O that waits for a path; of a device that takes requests, it waits in the device's queue instead.
    pub queued: Option<u64>,
    /// Its paths, group by group.
    pub paths: Vec<Path>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Path {
    /// The device.
    pub device: BlockDevice,
    /// Its group, counted from 1.
    pub group: u32,
    /// The group is left out.
    pub bypassed: bool,
    /// Whether it is used; else it has failed.
    pub active: bool,
    /// How often it failed.
    pub failures: u32,
    /// I/O goes this way.
    pub current: bool,
}

/// The target whose private data is at `kaddr`; `below` tells the device behind a `dm_dev`.
///
/// # Errors
/// Where the types do not tell how it is laid out, or it is not that target's.
pub(super) fn read(
    memory: &KernelMemory<'_>,
    types: &Types,
    kaddr: KVirtAddr,
    target: KVirtAddr,
    below: &dyn Fn(KVirtAddr) -> Result<BlockDevice, String>,
) -> Result<Multipath, String> {
    let text = |why: crate::sym::btf::TypeError| why.to_string();
    let layout = Layout::<View>::new(types).map_err(text)?;
    let groups = Layout::<Group>::new(types).map_err(text)?;
    let paths = Layout::<PathView>::new(types).map_err(text)?;
    let node =
        |of: &str| types.structure(of).and_then(|s| s.member("list")).map(Member::offset).map_err(text);
    let (in_group, in_path) = (node("priority_group")?, node("pgpath")?);
    let view = layout.read(memory, kaddr).map_err(|why| why.to_string())?;
    if view.target != target {
        return Err(format!("what should be its multipath at {kaddr} is of another target"));
    }
    let mut found = Multipath {
        kaddr,
        queue_if_no_path: view.flags & QUEUE_IF_NO_PATH != 0,
        usable: view.usable,
        ..Multipath::default()
    };
    match bio::walk(memory, types, view.queued.0) {
        Ok(walk) => {
            if !walk.end.is_complete() {
                found.gaps.push(format!("the I/O that waits for a path is not all known: {}", walk.end));
            }
            found.queued = u64::try_from(walk.items.len()).ok();
        }
        Err(why) => found.gaps.push(format!("the I/O that waits for a path: {why}")),
    }
    let walk = list::walk(memory, view.groups.0, GROUPS);
    if !walk.end.is_complete() {
        found.gaps.push(format!("the groups of paths are not all known: {}", walk.end));
    }
    for at in walk.items.iter().filter_map(|at| at.checked_sub(in_group)) {
        let group = match groups.read(memory, at) {
            Ok(group) => group,
            Err(why) => {
                found.gaps.push(format!("a group of paths: {why}"));
                continue;
            }
        };
        let walk = list::walk(memory, group.paths.0, PATHS);
        if !walk.end.is_complete() {
            found.gaps.push(format!("the paths of group {} are not all known: {}", group.number, walk.end));
        }
        for at in walk.items.iter().filter_map(|at| at.checked_sub(in_path)) {
            let one = || -> Result<Path, String> {
                let path = paths.read(memory, at).map_err(|why| why.to_string())?;
                Ok(Path {
                    device: below(path.device)?,
                    group: group.number,
                    bypassed: group.bypassed,
                    active: path.active,
                    failures: path.failures,
                    current: at == view.current,
                })
            };
            match one() {
                Ok(path) => found.paths.push(path),
                Err(why) => found.gaps.push(format!("a path of group {}: {why}", group.number)),
            }
        }
    }
    Ok(found)
}
