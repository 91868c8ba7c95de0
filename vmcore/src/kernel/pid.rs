//! The table of process ids: `init_pid_ns.idr`, and `struct pid`.
//!
//! Facts: `include/linux/pid.h`, `kernel/pid.c`. The table is an idr since 4.15 (commit 95846ecf9dac).

use rayon::prelude::*;

use super::describe::Description;
use super::idr;
use super::value::{Layout, Place, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// `MAX_PID_NS_LEVEL`.
const LEVELS: u32 = 32;

view! {
    /// `struct pid`. What the elements of `tasks` stand for changed, but the first one is `PIDTYPE_PID` in all kernels.
    struct PidView of "pid" {
        level: u32 = ["level"],
        head: Place = ["tasks[0]"],
        first: KVirtAddr = ["tasks[0].first"],
        number: u32 = ["numbers[0].nr"],
        numbers: Place = ["numbers"],
    }
}

/// A task's number in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NamespacePid {
    /// How deep the namespace is; at least 1.
    pub level: u32,
    /// The number there.
    pub pid: u32,
}

/// A `struct pid` that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pid {
    /// Where the pointer to its first task is.
    pub(super) head: KVirtAddr,
    /// The member of its task that the chain leads to; null where the number only stands for a group or session.
    pub(super) first: KVirtAddr,
    /// The number in a nested namespace.
    pub(super) nested: Option<NamespacePid>,
}

/// A number of the table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) kaddr: KVirtAddr,
    pub(super) pid: Result<Pid, String>,
}

/// Where in `struct pid` things are.
pub(super) struct Pids {
    layout: Layout<PidView>,
    upid: u64,
}

impl Pids {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When its types don't tell.
    pub(super) fn new(types: &Types) -> Result<Self, TypeError> {
        Ok(Self { layout: Layout::new(types)?, upid: types.structure("upid")?.size() })
    }

    /// The `struct pid` at `kaddr`, if it is that of `number`.
    pub(super) fn read(
        &self,
        memory: &KernelMemory<'_>,
        kaddr: KVirtAddr,
        number: u64,
    ) -> Result<Pid, String> {
        let pid = self.layout.read(memory, kaddr).map_err(|e| e.to_string())?;
        if u64::from(pid.number) != number || pid.level > LEVELS {
            return Err(format!("what is at {kaddr} is the struct pid of {} and not of it", pid.number));
        }
        let nested = (pid.level > 0).then(|| {
            let inside = self.upid.checked_mul(u64::from(pid.level))?;
            let number = memory.read_u32(pid.numbers.0.checked_add(inside)?).ok()?;
            Some(NamespacePid { level: pid.level, pid: number })
        });
        Ok(Pid { head: pid.head.0, first: pid.first, nested: nested.flatten() })
    }

    /// All numbers of the first namespace, and the `struct pid` of each.
    pub(super) fn table(
        &self,
        memory: &KernelMemory<'_>,
        description: &Description,
        limits: &Limits,
    ) -> Result<Walk<Entry>, String> {
        let types = &description.types;
        let at = description.symbols.address("init_pid_ns").ok_or("the kernel has no symbol init_pid_ns")?;
        let inside = types.structure("pid_namespace").and_then(|s| s.member("idr"));
        let inside = inside.map_err(|e| e.to_string())?.offset();
        let table = idr::Layout::new(types).map_err(|e| e.to_string())?;
        let at = at.checked_add(inside).ok_or("init_pid_ns is at the end of the address space")?;
        let walk = table.entries(memory, at, limits.tasks);
        let entry = |(number, kaddr): &(u64, KVirtAddr)| Entry {
            number: *number,
            kaddr: *kaddr,
            pid: self.read(memory, *kaddr, *number),
        };
        let items = walk.items.par_iter().map(entry).collect();
        Ok(Walk { items, end: walk.end, lost: walk.lost })
    }
}

/// True where nothing of the table is missing.
pub(super) fn is_whole(table: &Walk<Entry>) -> bool {
    table.end == WalkEnd::Complete && table.items.iter().all(|entry| entry.pid.is_ok())
}
