//! `struct llist_head`: the kernel's lock-free stack, newest first.

use std::collections::HashSet;

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::xlat::KernelMemory;

/// The nodes of the list whose head is at `head`. A node is one pointer, so nothing but the circle can be checked.
#[must_use]
pub fn walk(memory: &KernelMemory<'_>, head: KVirtAddr, limit: usize) -> Walk<KVirtAddr> {
    let mut walk = Walk::default();
    let mut seen = HashSet::new();
    let mut link = head;
    loop {
        let next = match memory.read_ptr(link) {
            Ok(next) => next,
            Err(why) => {
                walk.lose(WalkEnd::unreadable(link, &why));
                return walk;
            }
        };
        if next.is_null() {
            return walk;
        }
        if !seen.insert(next) {
            walk.lose(WalkEnd::Cycle(next));
            return walk;
        }
        // A node that can't be read is none: what led there is wrong, and the next round says so.
        if memory.read_ptr(next).is_ok() && !walk.push(next, limit) {
            return walk;
        }
        link = next;
    }
}
