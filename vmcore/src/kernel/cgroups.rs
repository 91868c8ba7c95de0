//! The control groups of all hierarchies, and what they use of the memory.
//!
//! Facts: `include/linux/cgroup-defs.h`, `kernel/cgroup/cgroup.c`, `include/linux/page_counter.h`, `include/linux/memcontrol.h`.

use super::describe::Description;
use super::list;
use super::path;
use super::value::{Layout, Maybe, Place, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// Hierarchies, and how deep groups nest.
const HIERARCHIES: usize = 64;
const DEPTH: usize = 256;
/// `css_set`s that one group has.
const SETS: usize = 65_536;
/// `PAGE_COUNTER_MAX` is `LONG_MAX / PAGE_SIZE`; what is near it is no limit.
const NO_LIMIT: u64 = i64::MAX.cast_unsigned() >> 12;
const PAGE: u64 = 4096;

view! {
    /// `struct cgroup`.
    struct Group of "cgroup" {
        node: KVirtAddr = ["kn"],
        children: Place = ["self.children"],
        links: Place = ["cset_links"],
        subsystems: Place = ["subsys"],
    }
}
view! {
    /// `struct kernfs_node`.
    struct Node of "kernfs_node" {
        name: KVirtAddr = ["name"],
    }
}
view! {
    /// `struct css_set`.
    struct Set of "css_set" {
        tasks: u32 = ["nr_tasks"],
    }
}
view! {
    /// `struct mem_cgroup`.
    struct MemoryView of "mem_cgroup" {
        usage: i64 = ["memory.usage"],
        // Renamed in 4.18 (commit bbec2e15170a).
        max: u64 = ["memory.max", "memory.limit"],
        events: Maybe<Vec<u64>> = ["memory_events"],
    }
}

/// What a group uses of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes in use. The kernel counts in batches, so it can be a little too high.
    pub current: u64,
    /// Bytes that it may use; `None` without a limit.
    pub max: Option<u64>,
    /// How often it met its limit.
    pub max_events: Option<u64>,
    /// How many of its tasks were killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// A control group.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ControlGroup {
    /// Its `struct cgroup`.
    pub kaddr: KVirtAddr,
    /// Its path in its hierarchy.
    pub path: String,
    /// `unified`, or the name or the controllers of a hierarchy of the first version.
    pub hierarchy: String,
    /// Tasks in it, without those of groups in it.
    pub tasks: Option<u64>,
    /// Its memory; `None` where this hierarchy or group does not count it.
    pub memory: Option<Memory>,
    /// What of it is missing.
    pub gap: Option<String>,
}

struct Layouts {
    groups: Layout<Group>,
    nodes: Layout<Node>,
    sets: Layout<Set>,
    memory: Option<Layout<MemoryView>>,
    /// Of a `css`: the link to its siblings; of the `cgroup` in it: its own.
    sibling: u64,
    inside: u64,
    /// Of a `cgrp_cset_link`: the node in the group's list, and the set.
    link: u64,
    set: u64,
    /// Of a `mem_cgroup`: its `css`.
    css: u64,
    /// `memory_cgrp_id`, `MEMCG_MAX` and `MEMCG_OOM_KILL`.
    memory_id: Option<u64>,
    max: Option<usize>,
    oom_kill: Option<usize>,
}

impl Layouts {
    fn new(types: &Types) -> Result<Self, crate::sym::btf::TypeError> {
        let offset =
            |of: &str, path: &str| types.structure(of)?.member(path).map(crate::sym::btf::Member::offset);
        let number = |of: &str, name: &str| types.enumeration(of).ok()?.value(name).ok();
        let event = |name| number("memcg_memory_event", name).and_then(|n| usize::try_from(n).ok());
        Ok(Self {
            groups: Layout::new(types)?,
            nodes: Layout::new(types)?,
            sets: Layout::new(types)?,
            memory: Layout::new(types).ok(),
            sibling: offset("cgroup_subsys_state", "sibling")?,
            inside: offset("cgroup", "self")?,
            link: offset("cgrp_cset_link", "cset_link")?,
            set: offset("cgrp_cset_link", "cset")?,
            css: offset("mem_cgroup", "css").unwrap_or_default(),
            memory_id: number("cgroup_subsys_id", "memory_cgrp_id").and_then(|n| u64::try_from(n).ok()),
            max: event("MEMCG_MAX"),
            oom_kill: event("MEMCG_OOM_KILL"),
        })
    }
}

/// All groups of all hierarchies, each before those in it.
///
/// # Errors
/// Why there are none.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Walk<ControlGroup>, String> {
    let types = &description.types;
    let layouts = Layouts::new(types).map_err(|e| e.to_string())?;
    let mut walk = Walk::default();
    for (root, hierarchy) in roots(memory, description, &mut walk)? {
        let mut todo = vec![(root, String::from("/"), 0_usize)];
        while let Some((at, path, depth)) = todo.pop() {
            if stop() {
                walk.lose(WalkEnd::Cancelled);
                return Ok(walk);
            }
            let group = match layouts.groups.read(memory, at) {
                Ok(group) => group,
                Err(why) => {
                    walk.lose(WalkEnd::Inconsistent(at, why.to_string()));
                    continue;
                }
            };
            let name = layouts.nodes.read(memory, group.node).ok().and_then(|n| path::text(memory, n.name));
            let path = match (depth, name) {
                (0, _) => path,
                (_, Some(name)) => format!("{}/{name}", path.trim_end_matches('/')),
                (_, None) => format!("{}/(unknown)", path.trim_end_matches('/')),
            };
            let mut found =
                ControlGroup { kaddr: at, hierarchy: hierarchy.clone(), ..ControlGroup::default() };
            layouts.fill(memory, &group, &mut found);
            let children = list::walk(memory, group.children.0, limit);
            if !children.end.is_complete() {
                walk.lose(children.end.clone());
            }
            if depth < DEPTH {
                let child = |node: &KVirtAddr| node.checked_sub(layouts.sibling)?.checked_sub(layouts.inside);
                let below = children.items.iter().rev().filter_map(child);
                todo.extend(below.map(|at| (at, path.clone(), depth.saturating_add(1))));
            } else if !children.items.is_empty() {
                walk.lose(WalkEnd::Inconsistent(at, format!("groups nest deeper than {DEPTH}")));
            }
            found.path = path;
            if !walk.push(found, limit) {
                return Ok(walk);
            }
        }
    }
    Ok(walk)
}

/// The root groups of the hierarchies, with their names: the unified one first.
fn roots(
    memory: &KernelMemory<'_>,
    description: &Description,
    walk: &mut Walk<ControlGroup>,
) -> Result<Vec<(KVirtAddr, String)>, String> {
    let types = &description.types;
    let variables = Variables::new(memory, &description.symbols);
    let unified = variables.address("cgrp_dfl_root").map_err(|e| e.to_string())?;
    let structure = types.structure("cgroup_root").map_err(|e| e.to_string())?;
    let group = structure.member("cgrp").map_err(|e| e.to_string())?.offset();
    let place =
        |root: KVirtAddr| root.checked_add(group).ok_or("a hierarchy is at the end of the address space");
    let mut found = vec![(place(unified)?, "unified".to_owned())];
    let (Ok(head), Ok(link)) = (variables.address("cgroup_roots"), structure.member("root_list")) else {
        return Ok(found);
    };
    let roots = list::walk(memory, head, HIERARCHIES);
    if !roots.end.is_complete() {
        walk.lose(roots.end.clone());
    }
    for root in roots.items.iter().filter_map(|node| node.checked_sub(link.offset())) {
        if root == unified {
            continue;
        }
        let name = first_version(memory, description, structure, root);
        found.push((place(root)?, name));
    }
    Ok(found)
}

/// What a hierarchy of the first version is called: its name, or the controllers in it.
fn first_version(
    memory: &KernelMemory<'_>,
    description: &Description,
    structure: crate::sym::btf::Struct<'_>,
    root: KVirtAddr,
) -> String {
    let text = |path: &str| {
        let by = structure.member(path).ok()?.offset();
        path::text(memory, root.checked_add(by)?).filter(|name| !name.is_empty())
    };
    let mask = || {
        let by = structure.member("subsys_mask").ok()?.offset();
        memory.read_u32(root.checked_add(by)?).ok()
    };
    let mut names: Vec<String> = Vec::new();
    if let (Some(mask), Ok(ids)) = (mask(), description.types.enumeration("cgroup_subsys_id")) {
        let has =
            |id: i64| u32::try_from(id).ok().and_then(|id| mask.checked_shr(id)).is_some_and(|m| m & 1 == 1);
        let own = ids.values().filter(|(_, id)| has(*id));
        names.extend(own.filter_map(|(name, _)| name.strip_suffix("_cgrp_id")).map(str::to_owned));
    }
    match text("name") {
        Some(name) => format!("name={name}"),
        None if names.is_empty() => "of the first version".into(),
        None => names.join(","),
    }
}

impl Layouts {
    fn fill(&self, memory: &KernelMemory<'_>, group: &Group, found: &mut ControlGroup) {
        match self.tasks(memory, group) {
            Ok(tasks) => found.tasks = Some(tasks),
            Err(why) => found.gap = Some(why),
        }
        match self.memory(memory, group) {
            Ok(used) => found.memory = used,
            Err(why) => found.gap = Some(why),
        }
    }

    fn tasks(&self, memory: &KernelMemory<'_>, group: &Group) -> Result<u64, String> {
        let links = list::walk(memory, group.links.0, SETS);
        if !links.end.is_complete() {
            return Err(format!("its tasks can't be counted: {}", links.end));
        }
        let mut sum = 0_u64;
        for node in links.items {
            let at = node.checked_sub(self.link).and_then(|link| link.checked_add(self.set));
            let set = memory.read_ptr(at.unwrap_or_default()).map_err(|e| e.to_string())?;
            let tasks = self.sets.read(memory, set).map_err(|e| e.to_string())?.tasks;
            sum = sum.saturating_add(u64::from(tasks));
        }
        Ok(sum)
    }

    fn memory(&self, memory: &KernelMemory<'_>, group: &Group) -> Result<Option<Memory>, String> {
        let (Some(layout), Some(id)) = (&self.memory, self.memory_id) else { return Ok(None) };
        let slot = id.checked_mul(8).and_then(|by| group.subsystems.0.checked_add(by)).unwrap_or_default();
        let css = memory.read_ptr(slot).map_err(|e| e.to_string())?;
        if css.is_null() {
            return Ok(None);
        }
        let at = css.checked_sub(self.css).unwrap_or_default();
        let view = layout.read(memory, at).map_err(|e| e.to_string())?;
        let pages = u64::try_from(view.usage).unwrap_or_default();
        let event = |which: Option<usize>| view.events.as_ref().and_then(|all| all.get(which?).copied());
        Ok(Some(Memory {
            current: pages.saturating_mul(PAGE),
            max: (view.max < NO_LIMIT.saturating_sub(1)).then(|| view.max.saturating_mul(PAGE)),
            max_events: event(self.max),
            oom_kills: event(self.oom_kill),
        }))
    }
}
