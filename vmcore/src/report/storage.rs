//! Block devices that stand on others: device-mapper and md.

use serde::{Deserialize, Serialize};

use super::Address;

/// A device of device-mapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedDevice {
    /// Its disk: `dm-0`.
    pub device: String,
    /// Its name, as `dmsetup` shows it.
    pub name: Option<String>,
    /// Its UUID; `null` where it has none.
    pub uuid: Option<String>,
    /// Major and minor number: `253:0`.
    pub number: Option<String>,
    /// `active`, `suspending` or `suspended`.
    pub state: String,
    /// How it takes I/O: `bio based`, `request based`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// I/O that was sent to the devices below and has not come back; `null` where it is counted in the disk's queue.
    pub in_flight: Option<u64>,
    /// I/O that is held back.
    pub deferred: Option<u64>,
    /// The first of it.
    #[serde(default)]
    pub deferred_io: Vec<HeldIo>,
    /// Requests that wait to be sent again, of a device that takes requests.
    pub requeued: Option<u64>,
    /// How often it is open.
    pub open_count: Option<u32>,
    /// Its table.
    #[serde(default)]
    pub targets: Vec<DmTarget>,
    /// The devices below.
    #[serde(default)]
    pub devices: Vec<UnderlyingDevice>,
    /// Its `struct mapped_device`.
    pub kaddr: Option<Address>,
}

/// I/O that a device holds back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldIo {
    /// Its `struct bio`.
    pub kaddr: Option<Address>,
    /// What it does: `read`, `write`.
    pub op: Option<String>,
    /// Where on the device, in sectors of 512 bytes.
    pub sector: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A device that another one stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderlyingDevice {
    /// Its name: `sda1`.
    pub name: String,
    /// Major and minor number: `8:1`.
    pub number: String,
}

/// A line of a table of device-mapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmTarget {
    /// Its type: `linear`, `crypt`, `multipath`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it begins on the device, in sectors of 512 bytes.
    pub start: u64,
    /// How many sectors it has.
    pub sectors: u64,
    /// For `linear`: the device below.
    pub device: Option<UnderlyingDevice>,
    /// For `linear`: the sector of that device that it begins with.
    pub device_sector: Option<u64>,
    /// For `multipath`: its paths.
    pub multipath: Option<Multipath>,
}

/// The paths of a multipath target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multipath {
    /// Its `struct multipath`.
    pub kaddr: Option<Address>,
    /// I/O waits where there is no path, instead of failing.
    pub queue_if_no_path: bool,
    /// Paths that the kernel counts as usable.
    pub usable_paths: u32,
    /// I/O that waits for a path; of a device that takes requests, it is in `requeued`.
    pub queued: Option<u64>,
    /// Its paths, group by group.
    pub paths: Vec<MultipathPath>,
}

/// A path of a multipath target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipathPath {
    /// The device.
    pub device: UnderlyingDevice,
    /// Its group, counted from 1.
    pub group: u32,
    /// `active` or `failed`.
    pub state: String,
    /// The group is left out.
    pub bypassed: bool,
    /// I/O goes this way.
    pub current: bool,
    /// How often it failed.
    pub failures: u32,
}

/// An array of md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdArray {
    /// Its disk: `md0`.
    pub device: String,
    /// Major and minor number: `9:0`.
    pub number: Option<String>,
    /// What makes it: `raid1`; `null` where it does not run.
    pub personality: Option<String>,
    /// Its level as a number.
    pub level: i32,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// How many members it should have.
    pub raid_disks: i32,
    /// How many of them it lacks.
    pub degraded: i32,
    /// How often it is suspended; I/O to it waits where that is not 0.
    pub suspended: Option<i32>,
    /// `read-write`, `read-only`, or `auto-read-only` until it is written to.
    pub access: Option<String>,
    /// All writes have reached the members.
    pub clean: Option<bool>,
    /// What is recovered, in the kernel's words: `running`, `sync`, `recover`, `check`, `reshape`, `frozen`, …
    pub recovery: Vec<String>,
    /// How far it is recovered, in sectors of a member.
    pub recovered_sectors: Option<u64>,
    /// Of how many.
    pub sectors_to_recover: Option<u64>,
    /// What its superblocks wait for: `change_pending` holds writes back.
    pub superblock: Vec<String>,
    /// Its state, in the kernel's words: `broken`, …
    pub flags: Vec<String>,
    /// Its members.
    pub members: Vec<MdMember>,
    /// Its `struct mddev`.
    pub kaddr: Option<Address>,
}

/// A member of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdMember {
    /// The device.
    pub device: UnderlyingDevice,
    /// Its place; `null` for a spare and for one that was taken out.
    pub slot: Option<u32>,
    /// Its state in the kernel's words: `in_sync`, `faulty`, `blocked`, `writemostly`, …
    pub state: Vec<String>,
    /// I/O that it has.
    pub pending: Option<u32>,
    /// Errors that were met when it was read.
    pub read_errors: Option<u32>,
    /// Its `struct md_rdev`.
    pub kaddr: Option<Address>,
}
