//! Who took memory with `vmalloc` and its kin, as `/proc/vmallocinfo` tells it.
//!
//! Facts: `mm/vmalloc.c`, `include/linux/vmalloc.h`. The areas in use are in one list; since 6.9 they are spread over several
//! (`vmap_nodes`), each with a list of its own.

use std::collections::BTreeMap;

use crate::addr::KVirtAddr;
use crate::kernel::Gap;
use crate::kernel::list;
use crate::kernel::reader::Reader;

/// Lists at most; kernels have one for each CPU, up to 128.
const NODES: u32 = 4096;
/// `VM_VM_AREA`: before 5.4 the list also held areas without a user, told by this flag.
const HAS_USER: u64 = 4;

/// What one caller took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Its function, with the module; a number where no symbol tells; `None` where the kernel keeps no caller.
    pub function: Option<String>,
    /// Areas.
    pub areas: u64,
    /// Bytes of address space, guard pages included.
    pub bytes: u64,
    /// Bytes of the pages that were allocated for them; the rest maps what belongs to others (`ioremap`, `vmap`).
    pub allocated: u64,
}

/// All callers.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Areas {
    /// The one with the most bytes first.
    pub callers: Vec<Caller>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads them.
#[must_use]
pub fn read(source: &Reader<'_, '_>) -> Areas {
    let mut found = Areas::default();
    if let Err(why) = fill(source, &mut found) {
        found.gaps.push(Gap { what: "vmalloc".into(), why });
    }
    found
}

fn heads(source: &Reader<'_, '_>) -> Result<Vec<KVirtAddr>, String> {
    let variables = source.variables();
    let Ok(nodes) = variables.u64("vmap_nodes") else {
        return Ok(vec![variables.address("vmap_area_list").map_err(|why| why.to_string())?]);
    };
    let count = variables.u32("nr_vmap_nodes").map_err(|why| why.to_string())?;
    if count > NODES {
        return Err(format!("nr_vmap_nodes holds {count}"));
    }
    let layout = source.types.structure("vmap_node").map_err(|why| why.to_string())?;
    let head = layout.member("busy.head").map_err(|why| why.to_string())?.offset();
    let place = |number: u32| {
        let skip = layout.size().checked_mul(u64::from(number))?;
        KVirtAddr(nodes).checked_add(skip)?.checked_add(head)
    };
    (0..count).map(|number| place(number).ok_or_else(|| "the place is past 2^64".to_owned())).collect()
}

fn fill(source: &Reader<'_, '_>, found: &mut Areas) -> Result<(), String> {
    let node = source.slot("vmap_area", &["list"])?.offset();
    let user = source.slot("vmap_area", &["vm"])?;
    let flags = source.slot("vmap_area", &["flags"]).ok();
    // Since 5.4 the flags are of other meaning, and what is in the list is in use.
    let told =
        flags.filter(|_| source.types.structure("vmap_area").is_ok_and(|s| !s.has("subtree_max_size")));
    let size = source.slot("vm_struct", &["size"])?;
    let pages = source.slot("vm_struct", &["nr_pages"])?;
    let mapped = source.slot("vm_struct", &["pages"])?;
    let caller = source.slot("vm_struct", &["caller"])?;
    let (start, own_start) = (source.slot("vmap_area", &["va_start"])?, source.slot("vm_struct", &["addr"])?);
    let mut by_caller: BTreeMap<Option<String>, Caller> = BTreeMap::new();
    let mut lost = 0_u64;
    let mut first = None;
    for head in heads(source)? {
        let walk = list::walk(source.memory, head, source.limits.walk_items);
        if !walk.end.is_complete() {
            found.gaps.push(Gap {
                what: "vmalloc".into(),
                why: format!("not all areas are counted: {}", walk.end),
            });
        }
        for at in walk.items {
            let read = || -> Result<Option<(u64, u64, u64)>, String> {
                let at = at.checked_sub(node).ok_or("an area's place is below zero")?;
                if let Some(flags) = &told
                    && source.number(at, flags)? & HAS_USER == 0
                {
                    return Ok(None);
                }
                let vm = KVirtAddr(source.number(at, &user)?);
                if vm.is_null() {
                    // Space for `vm_map_ram`, which keeps no caller.
                    return Ok(None);
                }
                if source.number(at, &start)? != source.number(vm, &own_start)? {
                    return Err(format!("the vm_struct at {vm} is that of another area"));
                }
                let has_pages = source.number(vm, &mapped)? != 0;
                let own = if has_pages { source.bytes(source.number(vm, &pages)?) } else { 0 };
                Ok(Some((source.number(vm, &caller)?, source.number(vm, &size)?, own)))
            };
            match read() {
                Ok(Some((caller, size, own))) => {
                    let name = function(source, KVirtAddr(caller));
                    let one = by_caller.entry(name.clone()).or_default();
                    one.function = name;
                    one.areas = one.areas.saturating_add(1);
                    one.bytes = one.bytes.saturating_add(size);
                    one.allocated = one.allocated.saturating_add(own);
                }
                Ok(None) => {}
                Err(why) => {
                    lost = lost.saturating_add(1);
                    first.get_or_insert(why);
                }
            }
        }
    }
    if let Some(why) = first {
        found.gaps.push(Gap {
            what: "vmalloc".into(),
            why: format!("{lost} areas can't be read; the first: {why}"),
        });
    }
    found.callers = by_caller.into_values().collect();
    found.callers.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.function.cmp(&b.function)));
    Ok(())
}

/// The function that a return address is in: several places of one function are one caller.
fn function(source: &Reader<'_, '_>, at: KVirtAddr) -> Option<String> {
    if at.is_null() {
        return None;
    }
    Some(source.symbols.at(at).map_or_else(|| at.to_string(), |found| found.symbol.to_string()))
}
