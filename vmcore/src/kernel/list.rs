//! `struct list_head`: the kernel's doubly linked ring.
//!
//! Each step is believed only where the next node points back. That makes a circle that misses the head impossible, and ends the
//! walk where a stray pointer would lead into another list. Where the way forward is broken, the rest is fetched backwards from
//! the head: one bad page in the middle of the list of tasks costs the tasks on that page and no more.

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::xlat::{KernelMemory, le};

/// `struct list_head`: `next` at 0, `prev` at 8, in every kernel.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) next: KVirtAddr,
    pub(crate) prev: KVirtAddr,
}

/// The nodes of a list, in order, without the head. The object that a node is in begins the member's offset before it.
#[must_use]
pub fn walk(memory: &KernelMemory<'_>, head: KVirtAddr, limit: usize) -> Walk<KVirtAddr> {
    walk_with(&|at| read(memory, at), head, limit)
}

/// As [`walk`], with the nodes from `read`: for objects that were read before.
pub(crate) fn walk_with(
    read: &impl Fn(KVirtAddr) -> Result<Node, MemError>,
    head: KVirtAddr,
    limit: usize,
) -> Walk<KVirtAddr> {
    let mut walk = Walk::default();
    let ends = match read(head) {
        Ok(node) => node,
        Err(why) => {
            walk.lose(WalkEnd::unreadable(head, &why));
            return walk;
        }
    };
    // A head of zeros was never initialised: there is no list yet.
    if ends.next.is_null() && ends.prev.is_null() {
        return walk;
    }
    let Err(why) = follow(read, head, ends.next, limit, &mut walk, |n| (n.next, n.prev), head) else {
        return walk;
    };
    walk.lose(why);
    let stop = walk.items.last().copied().unwrap_or(head);
    if matches!(walk.end, WalkEnd::Limit(_)) || ends.prev == stop {
        return walk;
    }
    let mut back = Walk::default();
    let left = limit.saturating_sub(walk.items.len());
    if let Err(why) = follow(read, head, ends.prev, left, &mut back, |n| (n.prev, n.next), stop) {
        walk.lose(why);
    }
    back.items.reverse();
    walk.items.append(&mut back.items);
    walk
}

/// Follows one direction until `stop`. `way` gives the pointer on and the pointer back.
fn follow(
    read: &impl Fn(KVirtAddr) -> Result<Node, MemError>,
    head: KVirtAddr,
    first: KVirtAddr,
    limit: usize,
    walk: &mut Walk<KVirtAddr>,
    way: impl Fn(&Node) -> (KVirtAddr, KVirtAddr),
    stop: KVirtAddr,
) -> Result<(), WalkEnd> {
    let (mut from, mut at) = (head, first);
    while at != stop {
        if at == head {
            // Around once without meeting where the other direction ended: all is seen.
            return Ok(());
        }
        let node = read(at).map_err(|why| WalkEnd::unreadable(at, &why))?;
        let (on, back) = way(&node);
        if back != from {
            return Err(WalkEnd::Inconsistent(
                at,
                format!("the list comes from {from}, but the node points back to {back}"),
            ));
        }
        if !walk.push(at, limit) {
            return Err(walk.end.clone());
        }
        (from, at) = (at, on);
    }
    Ok(())
}

/// The node at `at`.
pub(crate) fn read(memory: &KernelMemory<'_>, at: KVirtAddr) -> Result<Node, MemError> {
    let mut bytes = [0_u8; 16];
    memory.read(at, &mut bytes)?;
    let pointer = |place| le::u64_at(&bytes, place).map(KVirtAddr).unwrap_or_default();
    Ok(Node { next: pointer(0), prev: pointer(8) })
}
