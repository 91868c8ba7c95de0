//! `struct maple_tree`: ranges and what they stand for (since 6.1: a process's memory areas, interrupt numbers, …).
//!
//! Facts: `include/linux/maple_tree.h`, `lib/maple_tree.c`. A node is 256 bytes and aligned so; the low byte of a pointer to it
//! tells its type. A node is believed only where it names the node above as its parent.

use std::collections::HashSet;

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Struct, TypeError, Types};
use crate::xlat::{KernelMemory, le};

/// Deeper than 2^64 ranges need.
const DEPTH: usize = 32;
/// `MAPLE_NODE_MASK`.
const NODE_MASK: u64 = 0xff;
/// `MAPLE_RESERVED_RANGE`: smaller internal numbers are no nodes.
const RESERVED: u64 = 4096;

/// One sort of node: where its numbers and pointers are.
#[derive(Clone, Copy, Debug)]
struct Sort {
    number: u64,
    leaf: bool,
    pivots: (usize, usize),
    slots: (usize, usize),
}

/// Where in its structures things are.
#[derive(Clone, Debug)]
pub struct Layout {
    root: u64,
    node_bytes: usize,
    sorts: Vec<Sort>,
}

/// A range of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first index.
    pub first: u64,
    /// Its last index, included.
    pub last: u64,
    /// What it stands for.
    pub entry: KVirtAddr,
}

impl Layout {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When it has no maple trees (before 6.1), or its types don't tell.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        let numbers = types.enumeration("maple_type")?;
        let node = types.structure("maple_node")?;
        let range = types.structure("maple_range_64")?;
        let arange = types.structure("maple_arange_64")?;
        let number = |name: &str| numbers.value(name).map(i64::cast_unsigned);
        let mut sorts = vec![
            Sort::new(number("maple_leaf_64")?, true, range)?,
            Sort::new(number("maple_range_64")?, false, range)?,
            Sort::new(number("maple_arange_64")?, false, arange)?,
        ];
        // Leaves of single indexes, with no pivots. No kernel makes them so far, all define them.
        if let (Ok(number), Ok(slots)) = (number("maple_dense"), node.member("slot")) {
            sorts.push(Sort { number, leaf: true, pivots: (0, 0), slots: array(slots) });
        }
        Ok(Self {
            root: types.structure("maple_tree")?.member("ma_root")?.offset(),
            node_bytes: usize::try_from(node.size()).unwrap_or_default().min(4096),
            sorts,
        })
    }

    /// The ranges of the tree that is at `tree`, ascending, without those that stand for nothing.
    #[must_use]
    pub fn entries(&self, memory: &KernelMemory<'_>, tree: KVirtAddr, limit: usize) -> Walk<Range> {
        let mut walk = Walk::default();
        let root = match tree.checked_add(self.root).map(|at| memory.read_u64(at)) {
            Some(Ok(root)) => root,
            Some(Err(why)) => {
                walk.lose(WalkEnd::unreadable(tree, &why));
                return walk;
            }
            None => {
                walk.lose(WalkEnd::Inconsistent(tree, "it is at the end of the address space".into()));
                return walk;
            }
        };
        if root & 3 != 2 || root <= RESERVED {
            // Not a node: one entry for index 0, or nothing.
            if is_pointer(root) {
                walk.push(Range { first: 0, last: 0, entry: KVirtAddr(root) }, limit);
            }
            return walk;
        }
        // One node in two places has no end: a few of them below each other make a tree of any size.
        let mut seen = HashSet::new();
        let mut open = Vec::new();
        match self.open(memory, root, None, 0, u64::MAX) {
            Ok(node) => open.push(node),
            Err(why) => walk.lose(why),
        }
        while let Some(node) = open.last_mut() {
            let Some((raw, first, last)) = node.step() else {
                if let Some(why) = node.broken.take() {
                    walk.lose(why);
                }
                open.pop();
                continue;
            };
            if node.sort.leaf {
                // Odd and internal entries are reserved places.
                if is_pointer(raw) && !walk.push(Range { first, last, entry: KVirtAddr(raw) }, limit) {
                    return walk;
                }
                continue;
            }
            if raw == 0 {
                continue;
            }
            let parent = node.at;
            let depth = open.len();
            let child_at = KVirtAddr(raw & !NODE_MASK);
            if !seen.insert(child_at) {
                walk.lose(WalkEnd::Cycle(child_at));
                continue;
            }
            match self.open(memory, raw, Some(parent), first, last) {
                Ok(child) if depth < DEPTH => open.push(child),
                Ok(child) => {
                    walk.lose(WalkEnd::Inconsistent(child.at, format!("the tree is deeper than {DEPTH}")));
                }
                Err(why) => walk.lose(why),
            }
        }
        walk
    }

    fn open(
        &self,
        memory: &KernelMemory<'_>,
        raw: u64,
        parent: Option<KVirtAddr>,
        first: u64,
        last: u64,
    ) -> Result<Open, WalkEnd> {
        let at = KVirtAddr(raw & !NODE_MASK);
        let number = raw >> 3 & 0xf;
        let unknown = || WalkEnd::Inconsistent(at, format!("a node of sort {number} is not known"));
        let sort = *self.sorts.iter().find(|s| s.number == number).ok_or_else(unknown)?;
        let mut bytes = vec![0_u8; self.node_bytes];
        memory.read(at, &mut bytes).map_err(|e| WalkEnd::unreadable(at, &e))?;
        let named = le::u64_at(&bytes, 0).unwrap_or_default();
        let agrees = match parent {
            // The root's lowest bit is set; the rest is the tree.
            None => named & 1 == 1,
            Some(parent) => named & !NODE_MASK == parent.0,
        };
        if !agrees {
            return Err(WalkEnd::Inconsistent(
                at,
                format!("the node does not name the one above as its parent, but {named:#x}"),
            ));
        }
        Ok(Open { at, bytes, sort, next: 0, first: Some(first), last, broken: None })
    }
}

impl Sort {
    fn new(number: u64, leaf: bool, of: Struct<'_>) -> Result<Self, TypeError> {
        Ok(Self { number, leaf, pivots: array(of.member("pivot")?), slots: array(of.member("slot")?) })
    }
}

/// True for an entry that is a pointer: numbers are odd, and internal entries have bit 1 set.
fn is_pointer(raw: u64) -> bool {
    raw != 0 && raw.trailing_zeros() >= 2
}

/// Where an array is and how many elements it has.
fn array(member: crate::sym::btf::Member<'_>) -> (usize, usize) {
    let place = usize::try_from(member.offset()).unwrap_or(usize::MAX);
    (place, member.count().and_then(|c| usize::try_from(c).ok()).unwrap_or_default())
}

/// A node on the way down.
struct Open {
    at: KVirtAddr,
    bytes: Vec<u8>,
    sort: Sort,
    next: usize,
    /// Where the next slot's range begins; `None` behind the last.
    first: Option<u64>,
    last: u64,
    broken: Option<WalkEnd>,
}

impl Open {
    /// The next slot, with the range that it stands for.
    fn step(&mut self) -> Option<(u64, u64, u64)> {
        let first = self.first?;
        let (slots, count) = self.sort.slots;
        if self.next >= count {
            return None;
        }
        let number = |base: usize, i: usize| le::u64_at(&self.bytes, i.checked_mul(8)?.checked_add(base)?);
        let raw = number(slots, self.next)?;
        let (pivots, pivot_count) = self.sort.pivots;
        let end = if pivot_count == 0 {
            first
        } else if self.next < pivot_count {
            // A pivot of 0 behind the first is unused: the range goes on to the node's end.
            number(pivots, self.next).filter(|p| *p != 0 || self.next == 0).unwrap_or(self.last)
        } else {
            self.last
        };
        if end < first || end > self.last {
            self.broken = Some(WalkEnd::Inconsistent(
                self.at,
                format!("pivot {} is {end:#x}, outside of its range", self.next),
            ));
            self.first = None;
            return None;
        }
        self.next = self.next.saturating_add(1);
        self.first = end.checked_add(1).filter(|next| *next <= self.last);
        Some((raw, first, end))
    }
}
