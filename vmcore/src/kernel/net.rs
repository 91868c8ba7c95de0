//! The network devices of all namespaces.
//!
//! Facts: `include/linux/netdevice.h`, `include/net/net_namespace.h`, `include/linux/inetdevice.h`, `include/net/if_inet6.h`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::describe::Description;
use super::list;
use super::path;
use super::value::{Layout, Maybe, Place, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// Addresses of one device.
const ADDRESSES: usize = 65_536;
/// `IFF_UP`, and `__LINK_STATE_NOCARRIER`.
const UP: u32 = 1;
const NO_CARRIER: u64 = 1 << 2;
/// `MAX_ADDR_LEN`.
const MAC: u8 = 32;

view! {
    /// `struct net`.
    pub(super) struct Namespace of "net" {
        pub(super) number: Option<u32> = ["ns.inum"],
        devices: Place = ["dev_base_head"],
    }
}
view! {
    /// `struct net_device`.
    struct DeviceView of "net_device" {
        name: String = ["name"],
        index: u32 = ["ifindex"],
        flags: u32 = ["flags"],
        state: Option<u64> = ["state"],
        mtu: Option<u32> = ["mtu"],
        mac: Option<KVirtAddr> = ["dev_addr"],
        mac_len: Option<u8> = ["addr_len"],
        v4: Option<KVirtAddr> = ["ip_ptr"],
        v6: Option<KVirtAddr> = ["ip6_ptr"],
        parent: Option<KVirtAddr> = ["dev.parent"],
        rx: Maybe<u64> = ["stats.rx_packets"],
        tx: Maybe<u64> = ["stats.tx_packets"],
        rx_dropped: Maybe<u64> = ["stats.rx_dropped"],
        tx_dropped: Maybe<u64> = ["stats.tx_dropped"],
    }
}
view! {
    /// `struct in_device`.
    struct InDevice of "in_device" {
        first: KVirtAddr = ["ifa_list"],
    }
}
view! {
    /// `struct in_ifaddr`.
    struct InAddress of "in_ifaddr" {
        next: KVirtAddr = ["ifa_next"],
        local: u32 = ["ifa_local"],
        prefix: u8 = ["ifa_prefixlen"],
    }
}
view! {
    /// `struct inet6_dev`.
    struct In6Device of "inet6_dev" {
        addresses: Place = ["addr_list"],
    }
}
view! {
    /// `struct inet6_ifaddr`.
    struct In6Address of "inet6_ifaddr" {
        address: Vec<u8> = ["addr"],
        prefix: u32 = ["prefix_len"],
    }
}
view! {
    /// `struct device`.
    struct Parent of "device" {
        driver: KVirtAddr = ["driver"],
    }
}
view! {
    /// `struct device_driver`.
    struct Driver of "device_driver" {
        name: KVirtAddr = ["name"],
    }
}

/// What passed through a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets received.
    pub rx: u64,
    /// Packets sent.
    pub tx: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
}

/// A network device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Device {
    /// Its `net_device`.
    pub kaddr: KVirtAddr,
    /// Its namespace: the inode number that `/proc/PID/ns/net` shows.
    pub namespace: Option<u32>,
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Whether it was brought up.
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: Option<bool>,
    /// Bytes of one packet.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Vec<u8>>,
    /// Its addresses, with the length of their prefix.
    pub addresses: Vec<String>,
    /// The driver of the device below it.
    pub driver: Option<String>,
    /// The counters in the device itself. Drivers that count elsewhere leave them all 0, and they are `None` then.
    pub counters: Option<Counters>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

struct Layouts {
    devices: Layout<DeviceView>,
    v4: Option<(Layout<InDevice>, Layout<InAddress>)>,
    v6: Option<(Layout<In6Device>, Layout<In6Address>, u64)>,
    drivers: Option<(Layout<Parent>, Layout<Driver>)>,
}

impl Layouts {
    fn new(types: &Types) -> Result<Self, String> {
        let v4 = || Some((Layout::new(types).ok()?, Layout::new(types).ok()?));
        let v6 = || {
            let node = types.structure("inet6_ifaddr").ok()?.member("if_list").ok()?.offset();
            Some((Layout::new(types).ok()?, Layout::new(types).ok()?, node))
        };
        let drivers = || Some((Layout::new(types).ok()?, Layout::new(types).ok()?));
        Ok(Self {
            devices: Layout::new(types).map_err(|e| e.to_string())?,
            v4: v4(),
            v6: v6(),
            drivers: drivers(),
        })
    }
}

/// The network namespaces (`struct net`).
///
/// # Errors
/// Why they can't be found.
pub fn namespaces(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<KVirtAddr>, String> {
    let variables = Variables::new(memory, &description.symbols);
    let head = variables.address("net_namespace_list").map_err(|e| e.to_string())?;
    let net = description.types.structure("net").map_err(|e| e.to_string())?;
    let node = net.member("list").map_err(|e| e.to_string())?.offset();
    let walk = list::walk(memory, head, limit);
    Ok(walk.map(|at| at.checked_sub(node).unwrap_or_default()))
}

/// The devices of these namespaces.
///
/// # Errors
/// Why none can be read.
pub fn devices(
    memory: &KernelMemory<'_>,
    description: &Description,
    namespaces: &[KVirtAddr],
    limit: usize,
) -> Result<Walk<Device>, String> {
    let types = &description.types;
    let layouts = Layouts::new(types)?;
    let spaces = Layout::<Namespace>::new(types).map_err(|e| e.to_string())?;
    let device = types.structure("net_device").and_then(|s| s.member("dev_list"));
    let node = device.map_err(|e| e.to_string())?.offset();
    let mut walk = Walk::default();
    for at in namespaces {
        let space = match spaces.read(memory, *at) {
            Ok(space) => space,
            Err(why) => {
                walk.lose(WalkEnd::Inconsistent(*at, why.to_string()));
                continue;
            }
        };
        let found = list::walk(memory, space.devices.0, limit);
        if !found.end.is_complete() {
            walk.lose(found.end.clone());
        }
        for kaddr in found.items.iter().filter_map(|at| at.checked_sub(node)) {
            match layouts.devices.read(memory, kaddr) {
                Ok(view) => {
                    if !walk.push(layouts.device(memory, kaddr, space.number, view), limit) {
                        return Ok(walk);
                    }
                }
                Err(why) => walk.lose(WalkEnd::Inconsistent(kaddr, why.to_string())),
            }
        }
    }
    Ok(walk)
}

impl Layouts {
    fn device(
        &self,
        memory: &KernelMemory<'_>,
        kaddr: KVirtAddr,
        namespace: Option<u32>,
        view: DeviceView,
    ) -> Device {
        let mut gaps = Vec::new();
        let mut addresses = self.v4(memory, view.v4.unwrap_or_default(), &mut gaps);
        addresses.extend(self.v6(memory, view.v6.unwrap_or_default(), &mut gaps));
        let mac = || {
            let (at, len) = (view.mac?, view.mac_len?);
            let mut bytes = vec![0_u8; usize::from(len.min(MAC))];
            memory.read(at, &mut bytes).ok()?;
            (!bytes.is_empty()).then_some(bytes)
        };
        let driver = || {
            let (parents, drivers) = self.drivers.as_ref()?;
            let parent = view.parent.filter(|at| !at.is_null())?;
            let driver = parents.read(memory, parent).ok()?.driver;
            path::text(memory, drivers.read(memory, driver).ok()?.name)
        };
        let counters = || {
            let of = |value: &Maybe<u64>| value.as_ref().copied();
            Some(Counters {
                rx: of(&view.rx)?,
                tx: of(&view.tx)?,
                rx_dropped: of(&view.rx_dropped)?,
                tx_dropped: of(&view.tx_dropped)?,
            })
        };
        Device {
            kaddr,
            namespace,
            index: view.index,
            up: view.flags & UP != 0,
            carrier: view.state.map(|state| state & NO_CARRIER == 0),
            mtu: view.mtu,
            mac: mac(),
            addresses,
            driver: driver(),
            counters: counters().filter(|found| *found != Counters::default()),
            gaps,
            name: view.name,
        }
    }

    fn v4(&self, memory: &KernelMemory<'_>, at: KVirtAddr, gaps: &mut Vec<String>) -> Vec<String> {
        let mut found = Vec::new();
        let Some((devices, addresses)) = self.v4.as_ref().filter(|_| !at.is_null()) else { return found };
        let mut next = match devices.read(memory, at) {
            Ok(device) => device.first,
            Err(why) => {
                gaps.push(why.to_string());
                return found;
            }
        };
        while !next.is_null() {
            if found.len() >= ADDRESSES {
                gaps.push(format!("it has more than {ADDRESSES} addresses, or they go in a circle"));
                break;
            }
            match addresses.read(memory, next) {
                Ok(address) => {
                    let ip = Ipv4Addr::from(address.local.to_le_bytes());
                    found.push(format!("{ip}/{}", address.prefix));
                    next = address.next;
                }
                Err(why) => {
                    gaps.push(why.to_string());
                    break;
                }
            }
        }
        found
    }

    fn v6(&self, memory: &KernelMemory<'_>, at: KVirtAddr, gaps: &mut Vec<String>) -> Vec<String> {
        if at.is_null() {
            return Vec::new();
        }
        let Some((devices, addresses, node)) = &self.v6 else {
            gaps.push("the kernel's types don't tell how IPv6 addresses are kept".into());
            return Vec::new();
        };
        let device = match devices.read(memory, at) {
            Ok(device) => device,
            Err(why) => {
                gaps.push(why.to_string());
                return Vec::new();
            }
        };
        let walk = list::walk(memory, device.addresses.0, ADDRESSES);
        if !walk.end.is_complete() {
            gaps.push(format!("its IPv6 addresses are not all known: {}", walk.end));
        }
        let one = |at: &KVirtAddr| -> Result<String, String> {
            let start = at.checked_sub(*node).ok_or("its place is below zero")?;
            let address = addresses.read(memory, start).map_err(|why| why.to_string())?;
            let bytes = address.address.first_chunk::<16>().ok_or("it is shorter than 16 bytes")?;
            Ok(format!("{}/{}", Ipv6Addr::from(*bytes), address.prefix))
        };
        let mut found = Vec::new();
        for at in &walk.items {
            match one(at) {
                Ok(address) => found.push(address),
                Err(why) => gaps.push(format!("an IPv6 address can't be read: {why}")),
            }
        }
        found
    }
}

/// The inode number of a namespace.
#[must_use]
pub fn number(memory: &KernelMemory<'_>, description: &Description, net: KVirtAddr) -> Option<u32> {
    Layout::<Namespace>::new(&description.types).ok()?.read(memory, net).ok()?.number
}
