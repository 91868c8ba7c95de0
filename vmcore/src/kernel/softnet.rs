//! What each CPU did with the packets that it received: `/proc/net/softnet_stat`.
//!
//! Facts: `include/linux/netdevice.h` (`struct softnet_data`), `net/core/dev.c`.

use super::describe::Description;
use super::percpu::PerCpu;
use super::value::{Layout, Maybe, view};
use super::walk::{Walk, WalkEnd};
use crate::xlat::KernelMemory;

view! {
    /// `struct softnet_data`.
    struct View of "softnet_data" {
        processed: u32 = ["processed"],
        dropped: Maybe<u32> = ["dropped"],
        first_drops: Maybe<u32> = ["drop_counters.drops0.counter"],
        second_drops: Maybe<u32> = ["drop_counters.drops1.counter"],
        squeezed: u32 = ["time_squeeze"],
        backlog: Maybe<u32> = ["input_pkt_queue.qlen"],
        processing: Maybe<u32> = ["process_queue.qlen"],
    }
}

/// The receive side of one CPU. Counts are 32 bits and run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Softnet {
    /// The CPU.
    pub cpu: usize,
    /// Packets that went through it.
    pub processed: u32,
    /// Packets that it dropped because its backlog was full.
    pub dropped: u32,
    /// How often its time or budget was up with packets left.
    pub squeezed: u32,
    /// Packets in its backlog.
    pub backlog: Option<u32>,
}

/// The CPUs that can exist.
///
/// # Errors
/// Why none can be read.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    per_cpu: &PerCpu,
) -> Result<Walk<Softnet>, String> {
    let layout = Layout::<View>::new(&description.types).map_err(|why| why.to_string())?;
    let places = per_cpu.variable(&description.symbols, "softnet_data").map_err(|why| why.to_string())?;
    let mut walk = Walk::default();
    for (cpu, at) in places {
        match layout.read(memory, at) {
            Ok(view) => {
                // Two counts, so that nodes do not share one (seen in 7.2); one before.
                let two = view.first_drops.as_ref().zip(view.second_drops.as_ref());
                let dropped = view.dropped.as_ref().copied().or(two.map(|(a, b)| a.wrapping_add(*b)));
                let Some(dropped) = dropped else {
                    return Err("the types tell of no count of drops in softnet_data".into());
                };
                let queued = view.backlog.as_ref().zip(view.processing.as_ref());
                walk.items.push(Softnet {
                    cpu,
                    processed: view.processed,
                    dropped,
                    squeezed: view.squeezed,
                    backlog: queued.map(|(a, b)| a.saturating_add(*b)),
                });
            }
            Err(why) => walk.lose(WalkEnd::Inconsistent(at, why.to_string())),
        }
    }
    Ok(walk)
}
