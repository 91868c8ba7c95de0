//! Free objects that no slab's list has: SLUB keeps them in sheaves, arrays of pointers that a CPU or a node has ready, or that
//! wait for RCU. Some caches have them since 6.18, all since 7.0.
//!
//! Facts: `mm/slub.c` (`struct slub_percpu_sheaves`, `struct slab_sheaf`, `struct node_barn`). A sheaf that a task has borrowed
//! (`kmem_cache_prefill_sheaf`) is that task's, and its objects are in use.

use std::collections::BTreeSet;

use super::mm::zone;
use super::reader::Reader;
use super::slab::cache_node;
use crate::addr::KVirtAddr;

/// What RCU calls for a sheaf whose objects may be used again.
const CALLBACKS: [&str; 2] = ["rcu_free_sheaf", "rcu_free_sheaf_nobarn"];

/// The sheaves that wait for RCU, of all caches: no cache's own lists have them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Waiting {
    sheaves: Vec<KVirtAddr>,
    /// Why some may be missing.
    pub lost: Option<String>,
}

/// The objects that the sheaves of one cache have.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Idle {
    /// The objects: free, or waiting for RCU to be.
    pub objects: BTreeSet<KVirtAddr>,
    /// Why some of the cache's own may be missing.
    pub lost: Option<String>,
}

impl Waiting {
    /// Looks through so many callbacks of each CPU at most. Kernels without sheaves have none.
    #[must_use]
    pub fn read(source: &Reader<'_, '_>, most: usize) -> Self {
        let mut waiting = Self::default();
        if has_sheaves(source) {
            waiting.lost = waiting.callbacks(source, most).err();
        }
        waiting
    }

    fn callbacks(&mut self, source: &Reader<'_, '_>, most: usize) -> Result<(), String> {
        let wanted: Vec<u64> =
            CALLBACKS.iter().filter_map(|name| source.symbols.address(name)).map(|at| at.0).collect();
        if wanted.is_empty() {
            return Err(format!("no symbol {} is known", CALLBACKS.join(" or ")));
        }
        let slot = |member| source.slot("callback_head", &[member]);
        let (next, func) = (slot("next")?, slot("func")?);
        // The source's `rcu_head` is a macro, for the member's name too.
        let inside = source.slot("slab_sheaf", &["callback_head.next", "rcu_head.next"])?.offset();
        let cpus = source.per_cpu.variable(source.symbols, "rcu_data").map_err(|why| why.to_string())?;
        for (cpu, data) in cpus {
            // Where callbacks are left to other CPUs, some have not come to the main list yet.
            let bypass = source.member(data, "rcu_data", &["nocb_bypass.head"]).unwrap_or(0);
            for head in [source.member(data, "rcu_data", &["cblist.head"])?, bypass] {
                let mut at = KVirtAddr(head);
                let mut steps = 0_usize;
                while !at.is_null() {
                    if steps >= most {
                        return Err(format!("CPU {cpu} has more than {most} callbacks"));
                    }
                    if wanted.contains(&source.number(at, &func)?) {
                        self.sheaves.push(at.checked_sub(inside).ok_or("a sheaf begins below 0")?);
                    }
                    at = KVirtAddr(source.number(at, &next)?);
                    steps = steps.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// The objects that the sheaves of `cache` have.
    #[must_use]
    pub fn idle(&self, source: &Reader<'_, '_>, cache: KVirtAddr) -> Idle {
        let mut idle = Idle::default();
        if has_sheaves(source) {
            idle.lost = self.fill(source, cache, &mut idle.objects).err();
        }
        idle
    }

    fn fill(
        &self,
        source: &Reader<'_, '_>,
        cache: KVirtAddr,
        found: &mut BTreeSet<KVirtAddr>,
    ) -> Result<(), String> {
        let most = source.member(cache, "kmem_cache", &["sheaf_capacity"])?;
        let cpus = KVirtAddr(source.member(cache, "kmem_cache", &["cpu_sheaves"])?);
        // Caches that are debugged have none.
        if most == 0 || cpus.is_null() {
            return Ok(());
        }
        // A sheaf that can't be read costs its own objects only.
        let mut lost = None;
        let mut take = |sheaf: KVirtAddr| {
            if let Err(why) = add(source, sheaf, cache, most, found) {
                lost = Some(format!("the sheaf at {sheaf}: {why}"));
            }
        };
        for cpu in source.per_cpu.possible() {
            let at = source.per_cpu.address(cpus, *cpu).map_err(|why| why.to_string())?;
            for name in ["main", "spare", "rcu_free"] {
                take(KVirtAddr(source.member(at, "slub_percpu_sheaves", &[name])?));
            }
        }
        for sheaf in &self.sheaves {
            if source.member(*sheaf, "slab_sheaf", &["cache"])? == cache.0 {
                take(*sheaf);
            }
        }
        let (full, inside) =
            (source.offset("node_barn", "sheaves_full")?, source.offset("slab_sheaf", "barn_list")?);
        for (node, _) in zone::nodes(source)? {
            let Some(barn) = barn(source, cache, node)? else { continue };
            let head = barn.checked_add(full).ok_or("a barn ends past 2^64")?;
            let walk = source.list(head, inside, source.limits.walk_items);
            walk.items.into_iter().for_each(&mut take);
            if !walk.end.is_complete() {
                return Err(format!("the full sheaves of node {node}: {}", walk.end));
            }
        }
        lost.map_or(Ok(()), Err)
    }
}

fn has_sheaves(source: &Reader<'_, '_>) -> bool {
    source.types.structure("slub_percpu_sheaves").is_ok()
}

/// Where a node keeps sheaves for its CPUs: beside its other pointer since 7.x, in its `kmem_cache_node` before.
fn barn(source: &Reader<'_, '_>, cache: KVirtAddr, node: u64) -> Result<Option<KVirtAddr>, String> {
    let barn = match source.slot("kmem_cache", &[&format!("per_node[{node}].barn")]) {
        Ok(slot) => source.number(cache, &slot)?,
        Err(_) => match cache_node(source, cache, node)? {
            at if at.is_null() => 0,
            at => source.member(at, "kmem_cache_node", &["barn"])?,
        },
    };
    Ok(Some(KVirtAddr(barn)).filter(|barn| !barn.is_null()))
}

/// The objects of one sheaf.
fn add(
    source: &Reader<'_, '_>,
    sheaf: KVirtAddr,
    cache: KVirtAddr,
    most: u64,
    found: &mut BTreeSet<KVirtAddr>,
) -> Result<(), String> {
    if sheaf.is_null() {
        return Ok(());
    }
    let count = source.member(sheaf, "slab_sheaf", &["size"])?;
    // The empty one that CPUs begin with is of no cache.
    if count == 0 {
        return Ok(());
    }
    let of = source.member(sheaf, "slab_sheaf", &["cache"])?;
    if of != cache.0 || count > most {
        return Err(format!("{count} objects of the cache at {of:#x}, where {most} of {cache} have room"));
    }
    let first = sheaf.checked_add(source.offset("slab_sheaf", "objects")?).ok_or("it ends past 2^64")?;
    for number in 0..count {
        found.insert(KVirtAddr(source.long(first, number)?.cast_unsigned()));
    }
    Ok(())
}
