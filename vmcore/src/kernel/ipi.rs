//! Function calls that CPUs were asked for and have not answered.
//!
//! Who has another CPU call a function queues a `call_single_data` there and, mostly, spins until that CPU has let go of it. What is in the
//! queue was not even begun. Facts: `kernel/smp.c`, `include/linux/smp_types.h`.

use super::llist;
use super::reader::Reader;
use super::walk::WalkEnd;
use crate::addr::KVirtAddr;

/// `CSD_FLAG_LOCK`: not done yet.
const LOCK: u64 = 1;
/// `CSD_FLAG_TYPE_MASK` without the bit that only says whether somebody waits (5.8 and later): what is left tells wake-ups and the like.
const NO_CALL: u64 = 0x20;

/// A call that a CPU has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The CPU that was asked.
    pub cpu: usize,
    /// Its `call_single_data`.
    pub kaddr: KVirtAddr,
    /// The function.
    pub function: KVirtAddr,
    /// The CPU whose own set of calls (`cfd_data`) it is from; `None` for a call that its caller keeps elsewhere.
    pub from: Option<usize>,
}

/// All such calls, and why a CPU's could not be read.
///
/// # Errors
/// What of the kernel's symbols or types is missing.
pub fn read(source: &Reader<'_, '_>) -> Result<(Vec<Call>, Vec<String>), String> {
    let symbols = source.symbols;
    let queues = source.per_cpu.variable(symbols, "call_single_queue").map_err(|why| why.to_string())?;
    // Split in 5.8; `call_single_data_t` is a typedef of it.
    let of = if source.types.structure("__call_single_data").is_ok() {
        "__call_single_data"
    } else {
        "call_single_data"
    };
    let flags = source.slot(of, &["node.u_flags", "flags"])?;
    let function = source.slot(of, &["func"])?;
    let link = source.offset(of, "node.llist").ok().or_else(|| source.offset(of, "llist").ok());
    let link = link.ok_or_else(|| format!("{of} has no llist"))?;
    let own = sets(source);
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for (cpu, head) in queues {
        let walk = llist::walk(source.memory, head, source.limits.walk_items);
        if !matches!(walk.end, WalkEnd::Complete) {
            lost.push(format!("the calls that CPU {cpu} was asked for are not all known: {}", walk.end));
        }
        for node in walk.items {
            let Some(at) = node.checked_sub(link) else { continue };
            let read = source.number(at, &flags).and_then(|bits| Ok((bits, source.number(at, &function)?)));
            match read {
                Ok((bits, function)) if bits & LOCK != 0 && bits & NO_CALL == 0 => {
                    let is_own =
                        |set: &KVirtAddr| source.per_cpu.address(*set, cpu).is_ok_and(|own| own == at);
                    let from = own.iter().find(|(_, set)| is_own(set)).map(|(from, _)| *from);
                    found.push(Call { cpu, kaddr: at, function: KVirtAddr(function), from });
                }
                Ok(_) => {}
                Err(why) => lost.push(format!("a call that CPU {cpu} was asked for: {why}")),
            }
        }
    }
    Ok((found, lost))
}

/// Each CPU's own per-CPU set of calls, for calls to several.
fn sets(source: &Reader<'_, '_>) -> Vec<(usize, KVirtAddr)> {
    let all = source.per_cpu.variable(source.symbols, "cfd_data").unwrap_or_default();
    let set = |(cpu, at): (usize, KVirtAddr)| {
        // `csd` before 5.12.
        let set = source.member(at, "call_function_data", &["pcpu", "csd"]).ok()?;
        Some((cpu, KVirtAddr(set)))
    };
    all.into_iter().filter_map(set).collect()
}
