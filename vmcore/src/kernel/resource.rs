//! The tree of resources: what `/proc/iomem` shows. It tells where RAM is, and which of it belongs to the capture kernel.
//!
//! Facts: `struct resource` in `include/linux/ioport.h`, the names in `arch/x86/kernel/e820.c` and `kernel/crash_core.c`.

use std::collections::HashSet;
use std::ops::Range;

use super::value::{Layout, read_text, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// Bytes of a name.
const NAME: usize = 256;

view! {
    /// `struct resource`.
    struct Node of "resource" {
        start: u64 = ["start"],
        end: u64 = ["end"],
        name: KVirtAddr = ["name"],
        sibling: KVirtAddr = ["sibling"],
        child: KVirtAddr = ["child"],
    }
}

/// One line of `/proc/iomem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The physical addresses; one past the last where that is below 2^64.
    pub range: Range<u64>,
    /// `System RAM`, `Crash kernel`, `Kernel code`, …; empty where it can't be read.
    pub name: String,
    /// How many others it lies in.
    pub depth: usize,
}

/// The resources below the root at `root` (`iomem_resource`), as `/proc/iomem` lists them.
///
/// # Errors
/// Where the types do not know `struct resource`.
pub fn walk(
    memory: &KernelMemory<'_>,
    types: &Types,
    root: KVirtAddr,
    limit: usize,
) -> Result<Walk<Resource>, TypeError> {
    let layout = Layout::<Node>::new(types)?;
    let mut walk = Walk::default();
    let mut seen = HashSet::new();
    let first = match layout.read(memory, root) {
        Ok(node) => node.child,
        Err(why) => {
            walk.lose(WalkEnd::Unreadable(root, why.to_string()));
            return Ok(walk);
        }
    };
    let mut next = vec![(first, 0_usize)];
    while let Some((at, depth)) = next.pop() {
        if at.is_null() {
            continue;
        }
        if !seen.insert(at) {
            walk.lose(WalkEnd::Cycle(at));
            continue;
        }
        let node = match layout.read(memory, at) {
            Ok(node) => node,
            Err(why) => {
                walk.lose(WalkEnd::Unreadable(at, why.to_string()));
                continue;
            }
        };
        if node.start > node.end {
            walk.lose(WalkEnd::Inconsistent(at, "the resource ends before it begins".into()));
            continue;
        }
        let name = read_text(memory, node.name, NAME).unwrap_or_default();
        let range = node.start..node.end.saturating_add(1);
        if !walk.push(Resource { range, name, depth }, limit) {
            break;
        }
        next.push((node.sibling, depth));
        next.push((node.child, depth.saturating_add(1)));
    }
    Ok(walk)
}
