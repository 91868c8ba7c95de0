//! `struct xarray`, and the radix tree that kernels before 4.20 have in its place (RHEL 8).
//!
//! Which of both a kernel has, its types tell: `struct xa_node` or a `struct radix_tree_node` of its own. Facts: `include/linux/xarray.h`
//! and, for 4.18, `include/linux/radix-tree.h`.

use std::collections::HashSet;

use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::{KernelMemory, le};

/// An index has 64 bits, and a node takes 4 or 6 of them.
const DEPTH: usize = 17;

/// Which tree it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// `struct xarray`: nodes have bit 1 set, values bit 0.
    XArray,
    /// `struct radix_tree_root` before 4.20: nodes have bit 0 set, values (exceptional entries) bit 1.
    RadixTree,
}

/// Where in its structures things are.
#[derive(Clone, Debug)]
pub struct Layout {
    flavour: Flavour,
    head: u64,
    node_bytes: usize,
    shift: usize,
    parent: usize,
    slots: usize,
    slot_count: u64,
}

/// What stands at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A pointer.
    Pointer(KVirtAddr),
    /// A number that was stored in place of a pointer (in the page cache: where a page was swapped to).
    Value(u64),
}

/// What a pointer in the tree means.
enum Slot {
    Nothing,
    Node(KVirtAddr),
    Item(Entry),
}

impl Layout {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When it has neither tree, or one that we don't know.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        let (flavour, head, node) = match types.structure("xa_node") {
            Ok(node) => (Flavour::XArray, types.structure("xarray")?.member("xa_head")?, node),
            Err(_) => (
                Flavour::RadixTree,
                types.structure("radix_tree_root")?.member("rnode")?,
                types.structure("radix_tree_node")?,
            ),
        };
        let slots = node.member("slots")?;
        let slot_count = u64::from(slots.count().unwrap_or_default());
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        if !slot_count.is_power_of_two() || slot_count < 2 {
            return Err(TypeError::Unfit {
                of: node.name().to_owned(),
                member: "slots".into(),
                found: format!("{slot_count} elements"),
                wanted: "an array of a power of two",
            });
        }
        Ok(Self {
            flavour,
            head: head.offset(),
            // What follows the slots (the marks) is not needed.
            node_bytes: place(slots.offset().saturating_add(slot_count.saturating_mul(8))).min(1 << 16),
            shift: place(node.member("shift")?.offset()),
            parent: place(node.member("parent")?.offset()),
            slots: place(slots.offset()),
            slot_count,
        })
    }

    /// Which tree this kernel has.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// How many bits of the index one node takes.
    fn bits(&self) -> u32 {
        self.slot_count.trailing_zeros()
    }

    fn slot(&self, raw: u64, siblings: Option<KVirtAddr>) -> Slot {
        match self.flavour {
            _ if raw == 0 => Slot::Nothing,
            Flavour::XArray => match raw & 3 {
                1 | 3 => Slot::Item(Entry::Value(raw >> 1)),
                // Internal numbers up to 4096 are siblings of a larger entry, retries and reserved places.
                2 if raw <= 4096 => Slot::Nothing,
                2 => Slot::Node(KVirtAddr(raw & !3)),
                _ => Slot::Item(Entry::Pointer(KVirtAddr(raw))),
            },
            Flavour::RadixTree => match raw & 3 {
                1 if raw == 1 => Slot::Nothing,
                1 => {
                    let at = KVirtAddr(raw & !3);
                    let end = siblings.and_then(|s| s.checked_add(self.slot_count.saturating_mul(8)));
                    // A sibling entry points at a slot of its own node.
                    let sibling = siblings.zip(end).is_some_and(|(start, end)| start <= at && at < end);
                    if sibling { Slot::Nothing } else { Slot::Node(at) }
                }
                2 | 3 => Slot::Item(Entry::Value(raw >> 2)),
                _ => Slot::Item(Entry::Pointer(KVirtAddr(raw))),
            },
        }
    }

    /// All entries of the tree whose root structure is at `root`, by ascending index. Of a broken tree only what is below the
    /// break is lost.
    #[must_use]
    pub fn entries(&self, memory: &KernelMemory<'_>, root: KVirtAddr, limit: usize) -> Walk<(u64, Entry)> {
        let mut walk = Walk::default();
        let head = match root.checked_add(self.head).map(|at| memory.read_u64(at)) {
            Some(Ok(head)) => head,
            Some(Err(why)) => {
                walk.lose(WalkEnd::unreadable(root, &why));
                return walk;
            }
            None => {
                walk.lose(WalkEnd::Inconsistent(root, "it is at the end of the address space".into()));
                return walk;
            }
        };
        let top = match self.slot(head, None) {
            Slot::Nothing => return walk,
            Slot::Item(entry) => {
                walk.push((0, entry), limit);
                return walk;
            }
            Slot::Node(at) => at,
        };
        // One node in two places has no end: a few of them below each other make a tree of any size.
        let mut seen = HashSet::new();
        let mut open: Vec<Open> = Vec::new();
        match self.open(memory, top, KVirtAddr(0), None, 0) {
            Ok(node) => open.push(node),
            Err(why) => walk.lose(why),
        }
        while let Some(node) = open.last_mut() {
            let slot = node.next;
            if slot >= self.slot_count {
                open.pop();
                continue;
            }
            node.next = slot.saturating_add(1);
            let at = usize::try_from(slot.saturating_mul(8)).unwrap_or(usize::MAX).saturating_add(self.slots);
            let raw = le::u64_at(&node.bytes, at).unwrap_or_default();
            let index = node.base.saturating_add(slot.checked_shl(node.shift).unwrap_or_default());
            let siblings = node.at.checked_add(u64::try_from(self.slots).unwrap_or_default());
            match self.slot(raw, siblings) {
                Slot::Nothing => {}
                Slot::Item(entry) => {
                    if !walk.push((index, entry), limit) {
                        return walk;
                    }
                }
                Slot::Node(child) => {
                    let (parent, shift) = (node.at, node.shift);
                    let depth = open.len();
                    if !seen.insert(child) {
                        walk.lose(WalkEnd::Cycle(child));
                        continue;
                    }
                    match self.open(memory, child, parent, Some(shift), index) {
                        Ok(node) if depth < DEPTH => open.push(node),
                        Ok(_) => walk
                            .lose(WalkEnd::Inconsistent(child, format!("the tree is deeper than {DEPTH}"))),
                        Err(why) => walk.lose(why),
                    }
                }
            }
        }
        walk
    }

    fn open(
        &self,
        memory: &KernelMemory<'_>,
        at: KVirtAddr,
        parent: KVirtAddr,
        above: Option<u32>,
        base: u64,
    ) -> Result<Open, WalkEnd> {
        let mut bytes = vec![0_u8; self.node_bytes];
        memory.read(at, &mut bytes).map_err(|e| WalkEnd::unreadable(at, &e))?;
        let shift = u32::from(bytes.get(self.shift).copied().unwrap_or_default());
        let named = le::u64_at(&bytes, self.parent).map(KVirtAddr).unwrap_or_default();
        let fits = match above {
            Some(above) => shift.checked_add(self.bits()) == Some(above),
            None => shift < 64 && shift.checked_rem(self.bits()) == Some(0),
        };
        if !fits {
            return Err(WalkEnd::Inconsistent(at, format!("a node with shift {shift} is not of this tree")));
        }
        if named != parent {
            return Err(WalkEnd::Inconsistent(
                at,
                format!("the node is below {parent}, but names {named} as its parent"),
            ));
        }
        Ok(Open { at, bytes, shift, base, next: 0 })
    }
}

/// A node on the way down.
struct Open {
    at: KVirtAddr,
    bytes: Vec<u8>,
    shift: u32,
    base: u64,
    next: u64,
}
