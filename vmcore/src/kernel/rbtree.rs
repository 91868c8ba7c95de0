//! `struct rb_root`: the kernel's balanced binary tree.
//!
//! A node is believed only where it names the node above as its parent, so no stray pointer and no circle is followed. Of a broken
//! tree only the branches behind the break are lost, and they are counted.

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::xlat::{KernelMemory, le};

/// A red-black tree of 2^64 nodes is not deeper than twice 64.
const DEPTH: usize = 128;

/// `struct rb_node`: parent and colour at 0, right at 8, left at 16, in every kernel.
struct Node {
    parent: KVirtAddr,
    right: KVirtAddr,
    left: KVirtAddr,
}

/// The nodes of the tree whose `struct rb_root` (or `rb_root_cached`, which begins with one) is at `root`, in order.
#[must_use]
pub fn walk(memory: &KernelMemory<'_>, root: KVirtAddr, limit: usize) -> Walk<KVirtAddr> {
    let mut walk = Walk::default();
    let top = match memory.read_ptr(root) {
        Ok(top) => top,
        Err(why) => {
            walk.lose(WalkEnd::unreadable(root, &why));
            return walk;
        }
    };
    // Nodes whose left side is done or under way, with their right side.
    let mut open: Vec<(KVirtAddr, KVirtAddr)> = Vec::new();
    let mut descend = Some((top, KVirtAddr(0)));
    loop {
        while let Some((at, parent)) = descend.take().filter(|(at, _)| !at.is_null()) {
            match node(memory, at, parent) {
                Ok(node) if open.len() < DEPTH => {
                    open.push((at, node.right));
                    descend = Some((node.left, at));
                }
                Ok(_) => walk.lose(WalkEnd::Inconsistent(at, format!("the tree is deeper than {DEPTH}"))),
                Err(why) => walk.lose(why),
            }
        }
        let Some((at, right)) = open.pop() else { return walk };
        if !walk.push(at, limit) {
            return walk;
        }
        descend = Some((right, at));
    }
}

fn node(memory: &KernelMemory<'_>, at: KVirtAddr, parent: KVirtAddr) -> Result<Node, WalkEnd> {
    let mut bytes = [0_u8; 24];
    memory.read(at, &mut bytes).map_err(|e| WalkEnd::unreadable(at, &e))?;
    let pointer = |place| le::u64_at(&bytes, place).map(KVirtAddr).unwrap_or_default();
    let node = Node { parent: KVirtAddr(pointer(0).0 & !3), right: pointer(8), left: pointer(16) };
    if node.left == node.right && !node.left.is_null() {
        return Err(WalkEnd::Inconsistent(at, format!("both sides of the node are {}", node.left)));
    }
    if node.parent != parent {
        return Err(WalkEnd::Inconsistent(
            at,
            format!("the node is below {parent}, but names {} as its parent", node.parent),
        ));
    }
    Ok(node)
}
