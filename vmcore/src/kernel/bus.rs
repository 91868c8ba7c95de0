//! The devices of a bus, as `/sys/bus/NAME/devices` has them.
//!
//! Facts: `drivers/base/base.h`, `drivers/base/bus.c`, `include/linux/device.h`.

use super::describe::Description;
use super::list;
use super::path;
use super::value::{Layout, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// Buses of one kernel.
const BUSES: usize = 4096;

view! {
    /// `struct device`.
    struct DeviceView of "device" {
        name: KVirtAddr = ["kobj.name"],
        parent: KVirtAddr = ["parent"],
        driver: KVirtAddr = ["driver"],
    }
}
view! {
    /// `struct device_driver`.
    struct Driver of "device_driver" {
        name: KVirtAddr = ["name"],
    }
}

/// A device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Device {
    /// Its `struct device`.
    pub kaddr: KVirtAddr,
    /// Its name on the bus.
    pub name: Option<String>,
    /// The name of the device that it is part of: of a virtio device its PCI address.
    pub parent: Option<String>,
    /// The name of its driver; `None` without one.
    pub driver: Option<String>,
}

fn offset(types: &Types, of: &str, path: &str) -> Result<u64, String> {
    types.structure(of).and_then(|s| s.member(path)).map(Member::offset).map_err(|why| why.to_string())
}

/// The devices of the bus with this name. There are none where the kernel has no such bus.
///
/// # Errors
/// Why they can't be looked for.
pub fn devices(
    memory: &KernelMemory<'_>,
    description: &Description,
    bus: &str,
    limit: usize,
) -> Result<Walk<Device>, String> {
    let types = &description.types;
    let devices = Layout::<DeviceView>::new(types).map_err(|why| why.to_string())?;
    let drivers = Layout::<Driver>::new(types).map_err(|why| why.to_string())?;
    let head = offset(types, "subsys_private", "klist_devices.k_list")?;
    let node = offset(types, "klist_node", "n_node")?;
    // In the device itself before 5.1.
    let (in_private, knode) = match offset(types, "device_private", "knode_bus") {
        Ok(at) => (Some(offset(types, "device_private", "device")?), at),
        Err(_) => (None, offset(types, "device", "knode_bus")?),
    };
    let Some(private) = named(memory, description, bus)? else { return Ok(Walk::default()) };
    let head = private.checked_add(head).ok_or("the bus is at the end of the address space")?;
    let walk = list::walk(memory, head, limit);
    let mut found = Walk { items: Vec::new(), end: walk.end, lost: walk.lost };
    for at in walk.items {
        let one = || -> Result<Device, String> {
            let past = "it is at the end of the address space";
            let holder = at.checked_sub(node).and_then(|at| at.checked_sub(knode)).ok_or(past)?;
            let kaddr = match in_private {
                Some(by) => {
                    memory.read_ptr(holder.checked_add(by).ok_or(past)?).map_err(|why| why.to_string())?
                }
                None => holder,
            };
            let view = devices.read(memory, kaddr).map_err(|why| why.to_string())?;
            let parent = devices.read(memory, view.parent).ok();
            let driver = drivers.read(memory, view.driver).ok();
            Ok(Device {
                kaddr,
                name: path::text(memory, view.name),
                parent: parent.and_then(|parent| path::text(memory, parent.name)),
                driver: driver.and_then(|driver| path::text(memory, driver.name)),
            })
        };
        match one() {
            Ok(device) => found.items.push(device),
            Err(why) => found.lose(WalkEnd::Inconsistent(at, why)),
        }
    }
    Ok(found)
}

/// The `subsys_private` of a bus; `None` where there is no bus of that name.
fn named(
    memory: &KernelMemory<'_>,
    description: &Description,
    name: &str,
) -> Result<Option<KVirtAddr>, String> {
    let types = &description.types;
    let variables = Variables::new(memory, &description.symbols);
    let kset = variables.u64("bus_kset").map(KVirtAddr).map_err(|why| why.to_string())?;
    let head = kset.checked_add(offset(types, "kset", "list")?).ok_or("bus_kset is no address")?;
    let entry = offset(types, "subsys_private", "subsys.kobj.entry")?;
    let bus = offset(types, "subsys_private", "bus")?;
    let text = offset(types, "bus_type", "name")?;
    let walk = list::walk(memory, head, BUSES);
    let is_it = |private: &KVirtAddr| {
        let bus = private.checked_add(bus).and_then(|at| memory.read_ptr(at).ok());
        let at = bus.and_then(|bus| bus.checked_add(text)).and_then(|at| memory.read_ptr(at).ok());
        at.and_then(|at| path::text(memory, at)).as_deref() == Some(name)
    };
    let found = walk.items.iter().filter_map(|node| node.checked_sub(entry)).find(is_it);
    if found.is_none() && !walk.end.is_complete() {
        return Err(format!(
            "the list of buses is not whole, and the part of it that is has no {name}: {}",
            walk.end
        ));
    }
    Ok(found)
}
