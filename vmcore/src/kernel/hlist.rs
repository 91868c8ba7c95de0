//! `struct hlist_head` and its kin: the chains of the kernel's hash tables.
//!
//! A node's `pprev` is the address of the pointer that leads to it; a node whose `pprev` is something else is not of this chain,
//! and the walk ends there. That also makes a circle impossible.

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::xlat::{KernelMemory, le};

/// What the lowest bit of a pointer of the chain means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// `hlist_head`: nothing, the chain ends with a null pointer.
    Plain,
    /// `hlist_nulls_head`: it is the end, and the rest is the number of the chain (sockets).
    Nulls,
    /// `hlist_bl_head`: in the head it is a lock (dentries).
    BitLocked,
}

/// The nodes of the chain whose head is at `head`, in order.
#[must_use]
pub fn walk(memory: &KernelMemory<'_>, head: KVirtAddr, flavour: Flavour, limit: usize) -> Walk<KVirtAddr> {
    let mut walk = Walk::default();
    let (mut link, mut lowest) = (head, flavour == Flavour::BitLocked);
    let mut next = match memory.read_u64(head) {
        Ok(first) => first,
        Err(why) => {
            walk.lose(WalkEnd::unreadable(head, &why));
            return walk;
        }
    };
    loop {
        if std::mem::take(&mut lowest) {
            next &= !1;
        }
        if next == 0 || (flavour == Flavour::Nulls && next & 1 == 1) {
            return walk;
        }
        let at = KVirtAddr(next);
        let mut bytes = [0_u8; 16];
        if let Err(why) = memory.read(at, &mut bytes) {
            walk.lose(WalkEnd::unreadable(at, &why));
            return walk;
        }
        let pprev = le::u64_at(&bytes, 8).map(KVirtAddr).unwrap_or_default();
        if pprev != link {
            walk.lose(WalkEnd::Inconsistent(
                at,
                format!("the chain comes from {link}, but the node says {pprev}"),
            ));
            return walk;
        }
        if !walk.push(at, limit) {
            return walk;
        }
        link = at;
        next = le::u64_at(&bytes, 0).unwrap_or_default();
    }
}
