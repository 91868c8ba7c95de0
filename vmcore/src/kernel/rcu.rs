//! RCU: whether a grace period is under way, since when, and which CPUs and tasks it waits for.
//!
//! A grace period ends when each CPU has been seen outside of any reader. The CPUs that have not are the bits of `qsmask` in the
//! leaves of a tree of `struct rcu_node`; readers that were preempted are in the leaf's list of blocked tasks, from `gp_tasks` on.
//! Facts: `kernel/rcu/tree.h`, `kernel/rcu/tree.c`.

use super::describe::Description;
use super::list;
use super::value::{Layout, Maybe, Place, view};
use super::variable::Variables;
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::xlat::KernelMemory;

/// The lower bits of a sequence number are not 0 while a grace period is under way (`RCU_SEQ_STATE_MASK`).
const UNDER_WAY: u64 = 3;
/// Kernels before 4.20 have a state for each flavour of RCU, of which the last is used where CPUs are not preempted.
const STATES: [&str; 3] = ["rcu_state", "rcu_preempt_state", "rcu_sched_state"];
/// Nodes of the tree: one for 16 CPUs or more, and those above them.
const NODES: u64 = 2048;

view! {
    /// `struct rcu_state`.
    struct State of "rcu_state" {
        nodes: Place = ["node"],
        sequence: u64 = ["gp_seq"],
        start: u64 = ["gp_start"],
        kthread: Maybe<KVirtAddr> = ["gp_kthread"],
    }
}

view! {
    /// `struct rcu_node`.
    struct RcuNode of "rcu_node" {
        mask: u64 = ["qsmask"],
        low: u32 = ["grplo"],
        high: u32 = ["grphi"],
        level: u8 = ["level"],
        blocked: Place = ["blkd_tasks"],
        blocked_from: Maybe<KVirtAddr> = ["gp_tasks"],
    }
}

/// What RCU waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rcu {
    /// Where its state is.
    pub state: KVirtAddr,
    /// The number of the grace period, with its two lower bits.
    pub sequence: u64,
    /// True where a grace period is under way.
    pub under_way: bool,
    /// When it began, in jiffies.
    pub start: u64,
    /// The thread that drives it.
    pub kthread: Option<KVirtAddr>,
    /// The CPUs that it waits for.
    pub cpus: Vec<usize>,
    /// The preempted readers that it waits for.
    pub tasks: Vec<KVirtAddr>,
    /// Why some of them may be missing.
    pub gap: Option<String>,
}

/// Reads it.
///
/// # Errors
/// The reason why nothing can be told.
pub fn read(memory: &KernelMemory<'_>, description: &Description, limits: &Limits) -> Result<Rcu, String> {
    let (types, symbols) = (&description.types, &description.symbols);
    let variables = Variables::new(memory, symbols);
    let text = |why: &dyn std::fmt::Display| why.to_string();
    let at = STATES.iter().find_map(|name| symbols.address(name)).ok_or("no symbol rcu_state is known")?;
    let state = Layout::<State>::new(types).map_err(|e| text(&e))?;
    let state = state.read(memory, at).map_err(|e| text(&e))?;
    let layout = Layout::<RcuNode>::new(types).map_err(|e| text(&e))?;
    let mut rcu = Rcu {
        state: at,
        sequence: state.sequence,
        under_way: state.sequence & UNDER_WAY != 0,
        start: state.start,
        kthread: state.kthread.value().filter(|at| !at.is_null()),
        ..Rcu::default()
    };
    if !rcu.under_way {
        return Ok(rcu);
    }
    let room = types
        .structure("rcu_state")
        .and_then(|of| of.member("node"))
        .ok()
        .and_then(crate::sym::btf::Member::count);
    let count = variables.u32("rcu_num_nodes").ok().or(room).map_or(1, u64::from);
    let count = count.min(NODES).min(room.map_or(NODES, u64::from));
    let inside = types.structure("task_struct").and_then(|of| of.member("rcu_node_entry"));
    let inside = inside.ok().map(crate::sym::btf::Member::offset);
    let mut nodes = Vec::new();
    for number in 0..count {
        let place = state.nodes.0.0.checked_add(number.saturating_mul(layout.size())).map(KVirtAddr);
        match place
            .ok_or_else(|| "the tree has no end".to_owned())
            .and_then(|at| layout.read(memory, at).map_err(|e| text(&e)))
        {
            Ok(node) => nodes.push(node),
            Err(why) => rcu.gap = Some(why),
        }
    }
    let leaves = nodes.iter().map(|node| node.level).max().unwrap_or_default();
    for node in nodes.iter().filter(|node| node.level == leaves) {
        for bit in 0..64_u32 {
            let cpu = node.low.saturating_add(bit);
            if node.mask.checked_shr(bit).unwrap_or_default() & 1 == 1 && cpu <= node.high {
                rcu.cpus.extend(usize::try_from(cpu));
            }
        }
        let from = node.blocked_from.as_ref().copied().filter(|at| !at.is_null());
        if let (Some(from), Some(inside)) = (from, inside) {
            let walk = list::walk(memory, node.blocked.0, limits.tasks);
            if !walk.end.is_complete() {
                rcu.gap = Some(format!("the list of preempted readers: {}", walk.end));
            }
            let these = walk.items.iter().skip_while(|at| **at != from);
            rcu.tasks.extend(these.map(|at| KVirtAddr(at.0.wrapping_sub(inside))));
        }
    }
    Ok(rcu)
}
