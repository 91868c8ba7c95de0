//! Free objects in sheaves, of CPUs, of nodes, and on their way through RCU.

use std::sync::Arc;

use fixtures::btf::Btf as Builder;
use vmcore::addr::KVirtAddr;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::kernel::describe::Description;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::reader::Reader;
use vmcore::kernel::sheaf::{Idle, Waiting};
use vmcore::limits::Limits;
use vmcore::sym::Symbols;
use vmcore::sym::btf::{Btf, Types};

use crate::ram::{DIRECT, Ram, TEXT};

/// Variables and code. Physical memory is mapped twice, and this is behind all else.
const IMAGE: u64 = TEXT + 0x200_0000;
const CACHE: u64 = DIRECT + 0x1000;
const OTHER: u64 = DIRECT + 0x1800;
const NODE: u64 = DIRECT + 0x2000;
const BARN: u64 = DIRECT + 0x3000;
const CPUS: u64 = DIRECT + 0x4000;
const SHEAVES: u64 = DIRECT + 0x10_000;
const CALLBACKS: u64 = DIRECT + 0x40_000;
const FREE_SHEAF: u64 = IMAGE + 0x5000;
const ROOM: u32 = 4;

/// Sheaf `n`, each on a page of its own.
fn sheaf(n: u64) -> u64 {
    SHEAVES + 0x1000 * n
}

fn object(n: u64) -> u64 {
    DIRECT + 0x80_0000 + 0x40 * n
}

/// Where a kernel keeps the pointer to a node's barn.
#[derive(Clone, Copy)]
enum Form {
    BesideTheNode,
    InTheNode,
}

fn types(form: Form) -> Types {
    let mut b = Builder::default();
    let (long, int) = (b.int("unsigned long", 8, false), b.int("unsigned int", 4, false));
    let pointer = b.pointer(0);
    let head = b.structure("callback_head", 16, &[("next", pointer, 0, 0), ("func", pointer, 64, 0)]);
    let list = b.structure("list_head", 16, &[("next", pointer, 0, 0), ("prev", pointer, 64, 0)]);
    let both = b.union("", 16, &[("callback_head", head, 0, 0), ("barn_list", list, 0, 0)]);
    let objects = b.array(pointer, 0);
    b.structure(
        "slab_sheaf",
        32,
        &[("", both, 0, 0), ("cache", pointer, 128, 0), ("size", int, 192, 0), ("objects", objects, 256, 0)],
    );
    b.structure(
        "slub_percpu_sheaves",
        32,
        &[("main", pointer, 64, 0), ("spare", pointer, 128, 0), ("rcu_free", pointer, 192, 0)],
    );
    b.structure("node_barn", 40, &[("sheaves_full", list, 64, 0)]);
    let segments = b.structure("rcu_segcblist", 8, &[("head", pointer, 0, 0)]);
    let plain = b.structure("rcu_cblist", 8, &[("head", pointer, 0, 0)]);
    b.structure("rcu_data", 64, &[("cblist", segments, 128, 0), ("nocb_bypass", plain, 256, 0)]);
    let (name, nodes) = match form {
        Form::BesideTheNode => {
            let one = [("barn", pointer, 0, 0), ("node", pointer, 64, 0)];
            ("per_node", b.structure("kmem_cache_per_node_ptrs", 16, &one))
        }
        Form::InTheNode => ("node", pointer),
    };
    b.structure("kmem_cache_node", 16, &[("barn", pointer, 64, 0)]);
    let nodes = b.array(nodes, 1);
    b.structure(
        "kmem_cache",
        64,
        &[("cpu_sheaves", pointer, 0, 0), ("sheaf_capacity", int, 64, 0), (name, nodes, 128, 0)],
    );
    b.structure("pglist_data", 8, &[("node_id", long, 0, 0)]);
    Types::new(Arc::new(Btf::parse(b.finish(None)).unwrap()))
}

/// Two CPUs. Of `CACHE`: what is left to each comes from `fill`.
fn ram(form: Form) -> Ram {
    let mut ram = Ram::default();
    ram.put_u64(IMAGE + 0x1000, 3);
    // Per-CPU memory: what a CPU has is at the address plus 0x1000 for each.
    ram.put_u64(IMAGE + 0x1100, 0x1000);
    ram.put_u64(IMAGE + 0x1108, 0x2000);
    for cache in [CACHE, OTHER] {
        ram.put_u64(cache, CPUS);
        ram.put(cache + 8, &ROOM.to_le_bytes());
    }
    match form {
        Form::BesideTheNode => ram.put_u64(CACHE + 16, BARN),
        Form::InTheNode => {
            ram.put_u64(CACHE + 16, NODE);
            ram.put_u64(NODE + 8, BARN);
        }
    }
    // CPU 0 has all three, CPU 1 begins: its sheaf has no cache and no object.
    let cpu = |n: u64| CPUS + 0x1000 * (n + 1);
    for (place, n) in [(8, 0), (16, 1), (24, 2)] {
        ram.put_u64(cpu(0) + place, sheaf(n));
    }
    fill(&mut ram, 0, CACHE, &[0, 1]);
    fill(&mut ram, 1, CACHE, &[2, 3, 4, 5]);
    fill(&mut ram, 2, CACHE, &[6]);
    for (place, at) in [(8, sheaf(3)), (16, 0), (24, 0)] {
        ram.put_u64(cpu(1) + place, at);
    }
    fill(&mut ram, 3, 0, &[]);
    // The node has two full ones.
    fill(&mut ram, 4, CACHE, &[7, 8]);
    fill(&mut ram, 5, CACHE, &[9]);
    for (at, next, prev) in
        [(BARN + 8, sheaf(4), sheaf(5)), (sheaf(4), sheaf(5), BARN + 8), (sheaf(5), BARN + 8, sheaf(4))]
    {
        ram.put_u64(at, next);
        ram.put_u64(at + 8, prev);
    }
    // RCU: on CPU 0 something else, a sheaf of this cache and one of the other; on CPU 1 one that has not come to the main list.
    fill(&mut ram, 6, CACHE, &[10]);
    fill(&mut ram, 7, OTHER, &[11]);
    fill(&mut ram, 8, CACHE, &[12]);
    let data = |n: u64| IMAGE + 0x6000 + 0x1000 * (n + 1);
    ram.put_u64(data(0) + 16, CALLBACKS);
    ram.put_u64(data(0) + 32, 0);
    ram.put_u64(data(1) + 16, 0);
    ram.put_u64(data(1) + 32, sheaf(8));
    for (at, next, func) in [
        (CALLBACKS, sheaf(6), IMAGE + 0x5500),
        (sheaf(6), sheaf(7), FREE_SHEAF),
        (sheaf(7), 0, FREE_SHEAF),
        (sheaf(8), 0, FREE_SHEAF),
    ] {
        ram.put_u64(at, next);
        ram.put_u64(at + 8, func);
    }
    ram
}

fn fill(ram: &mut Ram, n: u64, cache: u64, objects: &[u64]) {
    ram.put_u64(sheaf(n) + 16, cache);
    ram.put(sheaf(n) + 24, &u32::try_from(objects.len()).unwrap().to_le_bytes());
    for (place, number) in (0..).zip(objects) {
        ram.put_u64(sheaf(n) + 32 + 8 * place, object(*number));
    }
}

fn look(ram: &Ram, types: Types, callback: &str) -> (Waiting, Idle) {
    look_at(ram, types, callback, 3)
}

fn look_at(ram: &Ram, types: Types, callback: &str, most: usize) -> (Waiting, Idle) {
    let text = format!(
        "SYMBOL(__cpu_possible_mask)={:x}\nSYMBOL(__per_cpu_offset)={:x}\nSYMBOL(contig_page_data)={:x}\n\
         SYMBOL(rcu_data)={:x}\nSYMBOL({callback})={FREE_SHEAF:x}\n",
        IMAGE + 0x1000,
        IMAGE + 0x1100,
        IMAGE + 0x1200,
        IMAGE + 0x6000,
    );
    let mut description = Description::default();
    description.symbols = Symbols::new(&Vmcoreinfo::parse(text.as_bytes()), None);
    description.types = types;
    let (memory, limits) = (ram.memory(), Limits::default());
    let per_cpu = PerCpu::read(&memory, &description.symbols, &limits).unwrap();
    let source = Reader::new(&memory, &description, &per_cpu, &limits, 4096);
    let waiting = Waiting::read(&source, most);
    let idle = waiting.idle(&source, KVirtAddr(CACHE));
    (waiting, idle)
}

fn numbers(idle: &Idle) -> Vec<u64> {
    idle.objects.iter().map(|at| (at.0 - object(0)) / 0x40).collect()
}

#[test]
fn all_of_a_cache_s_idle_objects_are_found_and_no_other_cache_s() {
    for form in [Form::BesideTheNode, Form::InTheNode] {
        let (waiting, idle) = look(&ram(form), types(form), "rcu_free_sheaf");
        assert_eq!((waiting.lost, idle.lost.as_deref()), (None, None));
        assert_eq!(numbers(&idle), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]);
    }
}

#[test]
fn a_sheaf_that_is_none_costs_its_own_objects_and_is_told() {
    let form = Form::BesideTheNode;
    let mut stray = ram(form);
    fill(&mut stray, 1, OTHER, &[2, 3]);
    let (_, idle) = look(&stray, types(form), "rcu_free_sheaf");
    assert_eq!(numbers(&idle), [0, 1, 6, 7, 8, 9, 10, 12]);
    assert!(idle.lost.unwrap().contains("2 objects of the cache"));
    let mut large = ram(form);
    fill(&mut large, 4, CACHE, &[7, 8, 20, 21, 22]);
    let (_, idle) = look(&large, types(form), "rcu_free_sheaf");
    assert_eq!(numbers(&idle), [0, 1, 2, 3, 4, 5, 6, 9, 10, 12]);
    assert!(idle.lost.is_some());
    let mut gone = ram(form);
    gone.lose(sheaf(0));
    let (waiting, idle) = look(&gone, types(form), "rcu_free_sheaf");
    assert_eq!(numbers(&idle), [2, 3, 4, 5, 6, 7, 8, 9, 10, 12]);
    assert!(waiting.lost.is_none() && idle.lost.unwrap().contains("left out"));
}

#[test]
fn callbacks_that_can_t_be_told_are_told_as_missing() {
    let form = Form::BesideTheNode;
    let (waiting, idle) = look(&ram(form), types(form), "something_else");
    assert_eq!(numbers(&idle), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(waiting.lost.unwrap().contains("rcu_free_sheaf"));
    let (waiting, idle) = look_at(&ram(form), types(form), "rcu_free_sheaf", 2);
    assert_eq!(numbers(&idle), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(waiting.lost.unwrap(), "CPU 0 has more than 2 callbacks");
    let mut gone = ram(form);
    gone.lose(CALLBACKS);
    let (waiting, idle) = look(&gone, types(form), "rcu_free_sheaf_nobarn");
    assert_eq!(numbers(&idle), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(waiting.lost.unwrap().contains("left out"));
}

#[test]
fn kernels_without_sheaves_have_none() {
    let (waiting, idle) = look(&ram(Form::BesideTheNode), Types::default(), "rcu_free_sheaf");
    assert!(waiting.lost.is_none() && idle.lost.is_none() && idle.objects.is_empty());
}
