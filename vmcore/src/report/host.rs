//! What the kernel managed when it died: modules, devices, queues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Address;

/// A loaded module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelModule {
    /// Its name.
    pub name: String,
    /// Where its code begins.
    pub kaddr: Option<Address>,
    /// Bytes it takes.
    pub size: Option<u64>,
    /// The taint letters it brings.
    pub taint: Option<String>,
    /// How many users it has.
    pub refcount: Option<i64>,
    /// `live`, `coming`, `going`, `unformed`.
    pub state: Option<String>,
    /// The modules that use it.
    pub used_by: Vec<String>,
    /// What it says of its version.
    pub version: Option<String>,
    /// Its build ID, in hexadecimal.
    pub build_id: Option<String>,
    /// Its parameters with their values, as under `/sys/module/NAME/parameters`.
    pub parameters: BTreeMap<String, String>,
}

/// A mounted filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub device: Option<String>,
    /// Where.
    pub path: Option<String>,
    /// The filesystem.
    pub fstype: Option<String>,
    /// Its options.
    pub options: Option<String>,
    /// What it is besides.
    #[serde(flatten)]
    pub more: super::MountDetail,
}

/// A block device's queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockQueue {
    /// The device.
    pub device: String,
    /// Requests in flight.
    pub in_flight: Option<u64>,
    /// How long the oldest of them has been in flight.
    pub oldest_s: Option<f64>,
    /// What it is besides.
    #[serde(flatten)]
    pub more: super::BlockDetail,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// Its name.
    pub name: String,
    /// Up or down.
    pub up: Option<bool>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// What it is besides.
    #[serde(flatten)]
    pub more: super::NetDetail,
}
