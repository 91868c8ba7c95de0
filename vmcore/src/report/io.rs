//! Files, block requests, sockets and control groups.

use serde::{Deserialize, Serialize};

use super::Address;

/// What is known of a mount besides its line in `/proc/mounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountDetail {
    /// Its `struct mount`.
    pub kaddr: Option<Address>,
    /// Its `super_block`.
    pub super_block: Option<Address>,
    /// The name of its block device, or what the file system has instead.
    pub super_id: Option<String>,
    /// How far it is frozen: `unfrozen`, `freezing writes`, `freezing page faults`, `freezing`, `frozen`.
    pub frozen: Option<String>,
    /// The pids of the tasks that wait until it is thawed.
    #[serde(default)]
    pub waiting_pids: Vec<u32>,
}

/// An open file of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// The task.
    pub pid: u32,
    /// The file's number in it.
    pub fd: u64,
    /// Its name as `/proc/PID/fd` shows it.
    pub path: Option<String>,
    /// `file`, `directory`, `socket`, `pipe`, `character device`, `block device`, `link`, `anonymous`.
    pub kind: Option<String>,
    /// How it was opened: `O_…` in octal.
    pub flags: Option<String>,
    /// Where in it the task is.
    pub position: Option<i64>,
    /// Its `struct file`.
    pub kaddr: Option<Address>,
}

/// What is known of a block device besides its queue's length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockDetail {
    /// Its `gendisk`.
    pub kaddr: Option<Address>,
    /// Its `request_queue`.
    pub queue: Option<Address>,
    /// Major and minor number: `253:0`.
    pub number: Option<String>,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// Whether its queue takes no new requests (`mq_freeze_depth`).
    pub frozen: Option<bool>,
    /// Whether its queue hands nothing to the driver (`quiesce_depth`).
    pub quiesced: Option<bool>,
    /// The requests that the driver has, oldest first.
    #[serde(default)]
    pub requests: Vec<BlockRequest>,
}

/// A request that a driver has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockRequest {
    /// Its `struct request`.
    pub kaddr: Option<Address>,
    /// What it does: `read`, `write`, `flush`.
    pub op: Option<String>,
    /// Where on the device, in sectors of 512 bytes; `null` for what has no place.
    pub sector: Option<u64>,
    /// How many bytes are left to do.
    pub bytes: Option<u64>,
    /// How old it is.
    pub age_s: Option<f64>,
    /// `in flight` or `complete`.
    pub state: Option<String>,
    /// The hardware context.
    pub hardware_queue: u32,
    /// Its tag there.
    pub tag: i64,
}

/// What is known of a network device besides its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDetail {
    /// Its `net_device`.
    pub kaddr: Option<Address>,
    /// The network namespace: its inode number.
    pub namespace: Option<u32>,
    /// Its number.
    pub ifindex: Option<u32>,
    /// Whether it has a carrier.
    pub carrier: Option<bool>,
    /// Bytes of one packet.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
    /// Packets received. `null` where the driver counts elsewhere than in the device.
    pub rx_packets: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Packets dropped on receipt.
    pub rx_dropped: Option<u64>,
    /// Packets dropped on sending.
    pub tx_dropped: Option<u64>,
}

/// A socket of TCP or UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its `struct sock`.
    pub kaddr: Option<Address>,
    /// `ESTABLISHED`, `LISTEN`, …
    pub state: String,
    /// Address and port on this side.
    pub local: String,
    /// Address and port on the other side.
    pub remote: String,
    /// Bytes received that nobody has read; of one that listens: connections that nobody has accepted.
    pub receive_queue: Option<u64>,
    /// Bytes sent that are not acknowledged; of one that listens: how many connections may wait.
    pub send_queue: Option<u64>,
    /// The network namespace: its inode number.
    pub namespace: Option<u32>,
}

/// A control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// Its path in its hierarchy.
    pub path: String,
    /// The hierarchy: `unified`, or the controllers of one of the first version.
    pub hierarchy: String,
    /// Its `struct cgroup`.
    pub kaddr: Option<Address>,
    /// How many tasks are in it, without those of groups in it.
    pub tasks: Option<u64>,
    /// Memory that it uses, in bytes.
    pub memory_current: Option<u64>,
    /// Memory that it may use, in bytes; `null` without a limit.
    pub memory_max: Option<u64>,
    /// How often it met its limit.
    pub memory_max_events: Option<u64>,
    /// How many of its tasks were killed for want of memory.
    pub oom_kills: Option<u64>,
}
