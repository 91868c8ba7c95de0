//! Where a guest meets its host, and where tasks and packets meet each other inside.

use serde::{Deserialize, Serialize};

use super::Address;

/// A virtio device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioDevice {
    /// Its name: `virtio0`.
    pub name: Option<String>,
    /// Its driver: `virtio_blk`; `null` without one.
    pub driver: Option<String>,
    /// What it is: `block`, `network`; `null` for a number that is not known here.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The same as the specification's number.
    pub number: u32,
    /// The PCI address, or the name of what else it is part of.
    pub address: Option<String>,
    /// The disk, of a block device.
    pub disk: Option<String>,
    /// It had failed before the guest was last put to sleep. The device's own status bits are in no dump of a guest.
    pub failed: Option<bool>,
    /// Its queues.
    pub queues: Vec<VirtioQueue>,
    /// Its `struct virtio_device`.
    pub kaddr: Option<Address>,
}

/// A queue of a virtio device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioQueue {
    /// Its name: `req.0`.
    pub name: Option<String>,
    /// Its number.
    pub index: u32,
    /// Descriptors that its ring has.
    pub size: u32,
    /// Descriptors that are free.
    pub free: u32,
    /// Descriptors that are not.
    pub in_use: u32,
    /// Buffers that the host has not answered; `null` where the ring is packed or can't be read.
    pub with_host: Option<u32>,
    /// Buffers that the host has answered and the guest has not taken back.
    pub unseen: Option<u32>,
    /// What the guest has taken back so far, counted in 16 bits.
    pub last_used_idx: u16,
    /// The ring is packed.
    pub packed: bool,
    /// The driver has given it up.
    pub broken: Option<bool>,
    /// Its `struct vring_virtqueue`.
    pub kaddr: Option<Address>,
}

/// A socket of `AF_UNIX`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixSocket {
    /// `stream`, `dgram`, `seqpacket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `LISTEN`, `ESTABLISHED`, `UNCONN`.
    pub state: String,
    /// The path that it is bound to, or its abstract name after a `@`.
    pub path: Option<String>,
    /// Its inode: the number in `socket:[…]` of an open file; `null` for one that nobody has accepted.
    pub inode: Option<u64>,
    /// Messages that nobody has read; of one that listens: connections that nobody has accepted.
    pub receive_queue: u32,
    /// How many of them may wait before the next sender or caller has to.
    pub backlog: u32,
    /// The network namespace: its inode number.
    pub namespace: Option<u32>,
    /// The `struct sock` at the other end.
    pub peer: Option<Address>,
    /// Its `struct sock`.
    pub kaddr: Option<Address>,
}

/// What a CPU did with the packets that it received: a line of `/proc/net/softnet_stat`. Counts run over at 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softnet {
    /// The CPU.
    pub cpu: u32,
    /// Packets that went through it.
    pub processed: u32,
    /// Packets that it dropped because its backlog was full.
    pub dropped: u32,
    /// How often its time or budget was up with packets left.
    pub time_squeeze: u32,
    /// Packets in its backlog.
    pub backlog: Option<u32>,
}
