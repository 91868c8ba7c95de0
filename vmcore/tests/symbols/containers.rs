//! Lists, chains, trees: whole, broken, and made to go round for ever.

use std::sync::Arc;

use fixtures::btf::Btf as Builder;
use vmcore::addr::KVirtAddr;
use vmcore::kernel::walk::{Walk, WalkEnd};
use vmcore::kernel::xarray::{Entry, Flavour};
use vmcore::kernel::{hlist, idr, list, llist, maple, rbtree, xarray};
use vmcore::sym::btf::{Btf, Types};

use crate::ram::{DIRECT, Ram};

const ALL: usize = 1 << 20;
const HEAD: u64 = DIRECT + 0x1000;

/// The node `i`, each on a page of its own.
fn node(i: u64) -> u64 {
    HEAD + 0x1000 * i
}

fn numbers(walk: &Walk<KVirtAddr>) -> Vec<u64> {
    walk.items.iter().map(|at| (at.0 - HEAD) >> 12).collect()
}

/// A ring of `count` nodes.
fn ring(count: u64) -> Ram {
    let mut ram = Ram::default();
    for i in 0..=count {
        ram.put_u64(node(i), node((i + 1) % (count + 1)));
        ram.put_u64(node(i) + 8, node((i + count) % (count + 1)));
    }
    ram
}

fn list(ram: &Ram) -> Walk<KVirtAddr> {
    list::walk(&ram.memory(), KVirtAddr(HEAD), ALL)
}

#[test]
fn a_list_is_walked_in_order() {
    let walk = list(&ring(5));
    assert_eq!((numbers(&walk), walk.end), (vec![1, 2, 3, 4, 5], WalkEnd::Complete));
    assert_eq!(list(&ring(0)).items, []);
    let mut zeros = Ram::default();
    zeros.put(HEAD, &[0; 16]);
    assert_eq!(list(&zeros), Walk::default());
}

#[test]
fn a_page_that_is_missing_costs_one_node_of_a_list() {
    let mut ram = ring(9);
    ram.lose(node(4));
    let walk = list(&ram);
    assert_eq!(numbers(&walk), [1, 2, 3, 5, 6, 7, 8, 9]);
    assert!(
        matches!(&walk.end, WalkEnd::Unreadable(at, why) if at.0 == node(4) && why.contains("left out")),
        "{:?}",
        walk.end
    );
}

#[test]
fn a_list_caught_in_the_middle_of_an_insertion_is_whole() {
    // list_add: the new node and the one before it are linked, the one behind it still points back past the new one.
    let mut ram = ring(4);
    ram.put_u64(node(3) + 8, node(1));
    let walk = list(&ram);
    assert_eq!(numbers(&walk), [1, 2, 3, 4]);
    assert!(matches!(walk.end, WalkEnd::Inconsistent(at, _) if at.0 == node(3)));
}

#[test]
fn a_stray_pointer_does_not_lead_into_another_list_nor_round_and_round() {
    let mut ram = ring(6);
    ram.put_u64(node(5), node(2));
    let walk = list(&ram);
    assert_eq!(numbers(&walk), [1, 2, 3, 4, 5, 6]);
    assert!(matches!(walk.end, WalkEnd::Inconsistent(..)));
    let mut poison = ring(3);
    poison.put_u64(node(2), 0xdead_0000_0000_0100);
    assert_eq!(numbers(&list(&poison)), [1, 2, 3]);
    let few = list::walk(&ring(9).memory(), KVirtAddr(HEAD), 4);
    assert_eq!((few.items.len(), few.end), (4, WalkEnd::Limit(4)));
}

/// A chain of three nodes behind a head.
fn chain(end: u64) -> Ram {
    let mut ram = Ram::default();
    for i in 0..4 {
        ram.put_u64(node(i), if i == 3 { end } else { node(i + 1) });
        ram.put_u64(node(i) + 8, if i == 0 { 0 } else { node(i - 1) });
    }
    ram
}

#[test]
fn chains_of_hash_tables_end_as_their_flavour_says() {
    let walk = |ram: &Ram, flavour| hlist::walk(&ram.memory(), KVirtAddr(HEAD), flavour, ALL);
    assert_eq!(numbers(&walk(&chain(0), hlist::Flavour::Plain)), [1, 2, 3]);
    let nulls = walk(&chain(0x1f), hlist::Flavour::Nulls);
    assert_eq!((numbers(&nulls), nulls.end), (vec![1, 2, 3], WalkEnd::Complete));
    let mut locked = chain(0);
    locked.put_u64(HEAD, node(1) | 1);
    assert_eq!(numbers(&walk(&locked, hlist::Flavour::BitLocked)), [1, 2, 3]);
    let round = walk(&chain(node(1)), hlist::Flavour::Plain);
    assert_eq!(numbers(&round), [1, 2, 3]);
    assert!(matches!(round.end, WalkEnd::Inconsistent(at, _) if at.0 == node(1)), "{:?}", round.end);
}

#[test]
fn a_stack_that_goes_round_ends() {
    let whole = llist::walk(&chain(0).memory(), KVirtAddr(HEAD), ALL);
    assert_eq!((numbers(&whole), whole.end), (vec![1, 2, 3], WalkEnd::Complete));
    let round = llist::walk(&chain(node(2)).memory(), KVirtAddr(HEAD), ALL);
    assert_eq!((numbers(&round), round.end), (vec![1, 2, 3], WalkEnd::Cycle(KVirtAddr(node(2)))));
    let mut gone = chain(0);
    gone.lose(node(2));
    let cut = llist::walk(&gone.memory(), KVirtAddr(HEAD), ALL);
    assert_eq!(numbers(&cut), [1]);
    assert!(matches!(cut.end, WalkEnd::Unreadable(..)));
}

/// The tree 4 (2 (1, 3), 6 (5, 7)).
fn tree() -> Ram {
    let mut ram = Ram::default();
    ram.put_u64(HEAD, node(4));
    let all =
        [(4, 0, 2, 6), (2, 4, 1, 3), (6, 4, 5, 7), (1, 2, 0, 0), (3, 2, 0, 0), (5, 6, 0, 0), (7, 6, 0, 0)];
    let at = |i: u64| if i == 0 { 0 } else { node(i) };
    for (i, parent, left, right) in all {
        ram.put_u64(node(i), at(parent) | (i & 1));
        ram.put_u64(node(i) + 8, at(right));
        ram.put_u64(node(i) + 16, at(left));
    }
    ram
}

#[test]
fn a_tree_is_walked_in_order_and_loses_only_what_is_below_a_break() {
    let walk = |ram: &Ram| rbtree::walk(&ram.memory(), KVirtAddr(HEAD), ALL);
    let whole = walk(&tree());
    assert_eq!((numbers(&whole), whole.end), (vec![1, 2, 3, 4, 5, 6, 7], WalkEnd::Complete));
    let mut gone = tree();
    gone.lose(node(2));
    let part = walk(&gone);
    assert_eq!((numbers(&part), part.lost), (vec![4, 5, 6, 7], 1));
    let mut both = tree();
    both.put_u64(node(2) + 8, node(1));
    assert_eq!((numbers(&walk(&both)), walk(&both).lost), (vec![4, 5, 6, 7], 1));
    let mut round = tree();
    round.put_u64(node(3) + 8, node(4));
    let part = walk(&round);
    assert_eq!((numbers(&part), part.lost), (vec![1, 2, 3, 4, 5, 6, 7], 1));
    assert!(matches!(part.end, WalkEnd::Inconsistent(at, _) if at.0 == node(4)));
}

/// The types of an xarray (or of the radix tree before it), with nodes of four slots, and of an idr on it.
fn tree_types(flavour: Flavour) -> Types {
    let mut b = Builder::default();
    let byte = b.int("unsigned char", 1, false);
    let int = b.int("unsigned int", 4, false);
    let pointer = b.pointer(0);
    let slots = b.array(pointer, 4);
    let (node, root, head) = match flavour {
        Flavour::XArray => ("xa_node", "xarray", "xa_head"),
        Flavour::RadixTree => ("radix_tree_node", "radix_tree_root", "rnode"),
    };
    b.structure(
        node,
        64,
        &[
            ("shift", byte, 0, 0),
            ("offset", byte, 8, 0),
            ("parent", pointer, 64, 0),
            ("slots", slots, 256, 0),
        ],
    );
    let root = b.structure(root, 16, &[(head, pointer, 64, 0)]);
    b.structure("idr", 24, &[("idr_rt", root, 0, 0), ("idr_base", int, 128, 0)]);
    Types::new(Arc::new(Btf::parse(b.finish(None)).unwrap()))
}

fn tree_node(ram: &mut Ram, i: u64, shift: u8, parent: u64, slots: [u64; 4]) {
    ram.put(node(i), &[0; 64]);
    ram.put(node(i), &[shift]);
    ram.put_u64(node(i) + 8, parent);
    for (slot, value) in (0..).zip(slots) {
        ram.put_u64(node(i) + 32 + 8 * slot, value);
    }
}

/// Pointers at 1 and 14, a number at 2, and places that mean nothing.
fn xarray_ram(flavour: Flavour) -> Ram {
    let mut ram = Ram::default();
    let (mark, number) = if flavour == Flavour::XArray { (2, 77 << 1 | 1) } else { (1, 77 << 2 | 2) };
    let retry = if flavour == Flavour::XArray { 256 << 2 | 2 } else { 1 };
    let sibling = if flavour == Flavour::XArray { 1 << 2 | 2 } else { (node(2) + 32 + 8) | 1 };
    ram.put_u64(HEAD, 0);
    ram.put_u64(HEAD + 8, node(1) | mark);
    ram.put_u64(HEAD + 16, 5);
    tree_node(&mut ram, 1, 2, 0, [node(2) | mark, 0, retry, node(3) | mark]);
    tree_node(&mut ram, 2, 0, node(1), [0, 0xffff_8880_0000_1000, number, sibling]);
    tree_node(&mut ram, 3, 0, node(1), [0, 0, 0xffff_8880_0000_2000, 0]);
    ram
}

#[test]
fn both_trees_of_indexes_are_read() {
    for flavour in [Flavour::XArray, Flavour::RadixTree] {
        let types = tree_types(flavour);
        let layout = xarray::Layout::new(&types).unwrap();
        assert_eq!(layout.flavour(), flavour);
        let ram = xarray_ram(flavour);
        let walk = layout.entries(&ram.memory(), KVirtAddr(HEAD), ALL);
        let one = Entry::Pointer(KVirtAddr(0xffff_8880_0000_1000));
        let two = Entry::Pointer(KVirtAddr(0xffff_8880_0000_2000));
        assert_eq!(walk.items, [(1, one), (2, Entry::Value(77)), (14, two)], "{flavour:?}");
        assert_eq!(walk.end, WalkEnd::Complete);
        let pids = idr::Layout::new(&types).unwrap().entries(&ram.memory(), KVirtAddr(HEAD), ALL);
        assert_eq!(pids.items.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [6, 19], "idr_base is added");
        let mut gone = ram.clone();
        gone.lose(node(2));
        let part = layout.entries(&gone.memory(), KVirtAddr(HEAD), ALL);
        assert_eq!((part.items, part.lost), (vec![(14, two)], 1));
    }
}

#[test]
fn a_tree_of_indexes_that_lies_is_not_followed() {
    let layout = xarray::Layout::new(&tree_types(Flavour::XArray)).unwrap();
    let mut round = xarray_ram(Flavour::XArray);
    round.put_u64(node(2) + 32, node(1) | 2);
    let walk = layout.entries(&round.memory(), KVirtAddr(HEAD), ALL);
    assert_eq!((walk.items.len(), walk.lost), (3, 1));
    assert!(walk.end.to_string().contains("a node with shift 2 is not of this tree"), "{}", walk.end);
    let mut foreign = xarray_ram(Flavour::XArray);
    foreign.put_u64(node(3) + 8, node(2));
    let walk = layout.entries(&foreign.memory(), KVirtAddr(HEAD), ALL);
    assert_eq!((walk.items.len(), walk.lost), (2, 1));
    // Ten nodes, each four times in the one above: a million leaves that are one.
    let mut many = Ram::default();
    many.put_u64(HEAD, 0);
    many.put_u64(HEAD + 8, node(1) | 2);
    for i in 1..=10 {
        let child = if i == 10 { 0xffff_8880_0000_1000 } else { node(i + 1) | 2 };
        tree_node(
            &mut many,
            i,
            u8::try_from(20 - 2 * i).unwrap(),
            if i == 1 { 0 } else { node(i - 1) },
            [child; 4],
        );
    }
    let walk = layout.entries(&many.memory(), KVirtAddr(HEAD), ALL);
    assert_eq!((walk.items.len(), walk.lost, walk.end), (4, 27, WalkEnd::Cycle(KVirtAddr(node(10)))));
    let mut single = Ram::default();
    single.put_u64(HEAD, 0);
    single.put_u64(HEAD + 8, 0xffff_8880_0000_3000);
    let walk = layout.entries(&single.memory(), KVirtAddr(HEAD), ALL);
    assert_eq!(walk.items, [(0, Entry::Pointer(KVirtAddr(0xffff_8880_0000_3000)))]);
}

/// The types of a maple tree as in 6.1 and later.
fn maple_types() -> Types {
    let mut b = Builder::default();
    let long = b.int("long unsigned int", 8, false);
    let pointer = b.pointer(0);
    let (p15, s16, p9, s10, s31) = (
        b.array(long, 15),
        b.array(pointer, 16),
        b.array(long, 9),
        b.array(pointer, 10),
        b.array(pointer, 31),
    );
    let range = b.structure(
        "maple_range_64",
        256,
        &[("parent", pointer, 0, 0), ("pivot", p15, 64, 0), ("slot", s16, 1024, 0)],
    );
    let arange = b.structure(
        "maple_arange_64",
        240,
        &[("parent", pointer, 0, 0), ("pivot", p9, 64, 0), ("slot", s10, 640, 0)],
    );
    let dense = b.structure("", 256, &[("parent", pointer, 0, 0), ("slot", s31, 64, 0)]);
    b.union("maple_node", 256, &[("", dense, 0, 0), ("mr64", range, 0, 0), ("ma64", arange, 0, 0)]);
    b.structure("maple_tree", 16, &[("ma_root", pointer, 64, 0)]);
    b.enumeration(
        "maple_type",
        &[("maple_dense", 0), ("maple_leaf_64", 1), ("maple_range_64", 2), ("maple_arange_64", 3)],
    );
    Types::new(Arc::new(Btf::parse(b.finish(None)).unwrap()))
}

/// A root (arange) with two leaves: 0x1000-0x1fff and 0x3000-0x3fff; 0x8000-0xffff.
fn maple_ram() -> Ram {
    let mut ram = Ram::default();
    (1..4).for_each(|i| ram.put(node(i), &[0; 256]));
    ram.put_u64(HEAD, 0);
    ram.put_u64(HEAD + 8, node(1) | 3 << 3 | 2);
    ram.put_u64(node(1), HEAD | 1);
    ram.put_u64(node(1) + 8, 0x6fff);
    ram.put_u64(node(1) + 80, node(2) | 1 << 3 | 4);
    ram.put_u64(node(1) + 88, node(3) | 1 << 3 | 4);
    let pivots = [[0xfff, 0x1fff, 0x2fff, 0x3fff, 0x6fff], [0x7fff, 0xffff, u64::MAX, 0, 0]];
    for (leaf, pivots) in (2..).zip(pivots) {
        ram.put_u64(node(leaf), node(1) | 6);
        for (i, pivot) in (0..).zip(pivots) {
            ram.put_u64(node(leaf) + 8 + 8 * i, pivot);
        }
    }
    ram.put_u64(node(2) + 128 + 8, 0xffff_8880_0000_1000);
    ram.put_u64(node(2) + 128 + 24, 0xffff_8880_0000_2000);
    ram.put_u64(node(3) + 128 + 8, 0xffff_8880_0000_3000);
    ram
}

#[test]
fn a_maple_tree_is_read_and_loses_only_what_is_below_a_break() {
    let layout = maple::Layout::new(&maple_types()).unwrap();
    let ranges = |ram: &Ram| {
        let walk = layout.entries(&ram.memory(), KVirtAddr(HEAD), ALL);
        (walk.items.iter().map(|r| (r.first, r.last)).collect::<Vec<_>>(), walk.end, walk.lost)
    };
    let all = vec![(0x1000, 0x1fff), (0x3000, 0x3fff), (0x8000, 0xffff)];
    assert_eq!(ranges(&maple_ram()), (all, WalkEnd::Complete, 0));
    let mut gone = maple_ram();
    gone.lose(node(2));
    assert_eq!((ranges(&gone).0, ranges(&gone).2), (vec![(0x8000, 0xffff)], 1));
    let mut round = maple_ram();
    round.put_u64(node(1) + 80, node(1) | 3 << 3 | 4);
    assert_eq!((ranges(&round).0, ranges(&round).2), (vec![(0x8000, 0xffff)], 1));
    let mut descending = maple_ram();
    descending.put_u64(node(2) + 16, 0x10);
    let (found, end, _) = ranges(&descending);
    assert_eq!(found, [(0x8000, 0xffff)]);
    assert!(end.to_string().contains("pivot 1 is 0x10"), "{end}");
    let mut twice = maple_ram();
    twice.put_u64(node(1) + 88, node(2) | 1 << 3 | 4);
    assert_eq!(ranges(&twice).1, WalkEnd::Cycle(KVirtAddr(node(2))));
    let old = maple::Layout::new(&tree_types(Flavour::RadixTree)).unwrap_err();
    assert_eq!(old.to_string(), "this kernel has no enum maple_type");
}
