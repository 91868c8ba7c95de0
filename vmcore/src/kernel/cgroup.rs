//! The control group that a task is in, as `/proc/PID/cgroup` shows it.
//!
//! A `css_set` stands for one combination of groups, one of each hierarchy; many tasks share it. Facts:
//! `include/linux/cgroup-defs.h`, `include/linux/kernfs.h`.

use super::list;
use super::value::{self, Layout, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// How deep groups nest: nothing that a machine runs comes near.
const DEPTH: usize = 256;
/// Bytes of one group's name: `NAME_MAX`.
const NAME: usize = 255;
/// Hierarchies of the first version: one for each controller, and named ones.
const HIERARCHIES: usize = 64;

view! {
    /// `struct css_set`.
    struct CssSet of "css_set" {
        unified: KVirtAddr = ["dfl_cgrp"],
    }
}

view! {
    /// `struct cgroup`.
    struct Cgroup of "cgroup" {
        node: KVirtAddr = ["kn"],
        root: KVirtAddr = ["root"],
    }
}

view! {
    /// `struct kernfs_node`; its parent became RCU's in 6.15 (commit 633488947ef6).
    struct Node of "kernfs_node" {
        parent: KVirtAddr = ["__parent", "parent"],
        name: KVirtAddr = ["name"],
    }
}

view! {
    /// `struct cgroup_root`.
    struct Root of "cgroup_root" {
        name: String = ["name"],
    }
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupPath {
    /// Its path from the root of its hierarchy.
    pub path: String,
    /// The name of that hierarchy where it is of the first version; `None` for the unified one.
    pub hierarchy: Option<String>,
}

/// Where in its structures things are.
pub(super) struct Paths {
    sets: Layout<CssSet>,
    groups: Layout<Cgroup>,
    nodes: Layout<Node>,
    /// The list of a set's groups, the member of it in a link, and the group that the link names.
    links: Option<(u64, u64, u64)>,
    roots: Option<Layout<Root>>,
}

impl Paths {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When it has no control groups, or its types don't tell.
    pub(super) fn new(types: &Types) -> Result<Self, TypeError> {
        let links = || {
            let link = types.structure("cgrp_cset_link").ok()?;
            let list = types.structure("css_set").ok()?.member("cgrp_links").ok()?.offset();
            Some((list, link.member("cgrp_link").ok()?.offset(), link.member("cgrp").ok()?.offset()))
        };
        Ok(Self {
            sets: Layout::new(types)?,
            groups: Layout::new(types)?,
            nodes: Layout::new(types)?,
            links: links(),
            roots: Layout::new(types).ok(),
        })
    }

    /// The path of a `css_set` in the unified hierarchy; where that is not in use, in the one that systemd names.
    ///
    /// # Errors
    /// Why it can't be had.
    pub(super) fn of(&self, memory: &KernelMemory<'_>, set: KVirtAddr) -> Result<CgroupPath, String> {
        let found = self.sets.read(memory, set).map_err(|e| e.to_string())?;
        let path = self.path(memory, found.unified)?;
        if path == "/"
            && let Some(first) = self.first_version(memory, set)
        {
            return Ok(first);
        }
        Ok(CgroupPath { path, hierarchy: None })
    }

    fn path(&self, memory: &KernelMemory<'_>, group: KVirtAddr) -> Result<String, String> {
        let group = self.groups.read(memory, group).map_err(|e| e.to_string())?;
        let mut names = Vec::new();
        let mut at = group.node;
        for _ in 0..DEPTH {
            let node = self.nodes.read(memory, at).map_err(|e| e.to_string())?;
            if node.parent.is_null() {
                names.reverse();
                return Ok(format!("/{}", names.join("/")));
            }
            names.push(value::read_text(memory, node.name, NAME).map_err(|e| e.to_string())?);
            at = node.parent;
        }
        Err(format!("the group at {at} has more than {DEPTH} parents"))
    }

    /// The group in the named hierarchy of the first version that `systemd` keeps.
    fn first_version(&self, memory: &KernelMemory<'_>, set: KVirtAddr) -> Option<CgroupPath> {
        let (head, inside, group) = self.links?;
        let roots = self.roots.as_ref()?;
        let walk = list::walk(memory, set.checked_add(head)?, HIERARCHIES);
        walk.items.iter().find_map(|node| {
            let link = node.checked_sub(inside)?;
            let at = memory.read_ptr(link.checked_add(group)?).ok()?;
            let root = self.groups.read(memory, at).ok()?.root;
            let name = roots.read(memory, root).ok().filter(|root| root.name == "systemd")?.name;
            let path = self.path(memory, at).ok()?;
            Some(CgroupPath { path, hierarchy: Some(name) })
        })
    }
}
