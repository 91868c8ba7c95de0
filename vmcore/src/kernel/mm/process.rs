//! What memory each process has.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::addr::KVirtAddr;
use crate::kernel::reader::{PerCpuCounter, Reader};
use crate::kernel::task::{Task, Tasks};
use crate::kernel::value::Slot;

/// A process's memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessMemory {
    /// The process's number.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of files.
    pub file: u64,
    /// Pages of tmpfs and shared memory.
    pub shmem: u64,
    /// What is in swap.
    pub swap: u64,
    /// Its address space.
    pub total_vm: Option<u64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i64>,
}

impl ProcessMemory {
    /// Resident bytes.
    #[must_use]
    pub fn rss(&self) -> u64 {
        self.anon.saturating_add(self.file).saturating_add(self.shmem)
    }
}

/// All processes with memory, largest first, and how many could not be read, with the first reason.
#[must_use]
pub fn read(source: &Reader<'_, '_>, tasks: &Tasks) -> (Vec<ProcessMemory>, usize, Option<String>) {
    let mut seen = BTreeSet::new();
    // Threads, and children of vfork(), share it; the lowest number is its owner.
    let owners: Vec<(&Task, KVirtAddr)> =
        tasks.tasks.iter().filter_map(|task| Some((task, task.mm.filter(|mm| seen.insert(*mm))?))).collect();
    let places = Places::new(source);
    let read: Vec<Result<ProcessMemory, String>> = owners
        .par_iter()
        .map(|(task, mm)| places.as_ref().map_err(Clone::clone)?.read(source, task, *mm))
        .collect();
    let (mut found, mut failed, mut why) = (Vec::new(), 0_usize, None);
    for process in read {
        match process {
            Ok(process) => found.push(process),
            Err(reason) => {
                failed = failed.saturating_add(1);
                why = why.or(Some(reason));
            }
        }
    }
    found.sort_by_key(|process| (std::cmp::Reverse(process.rss()), process.pid));
    (found, failed, why)
}

/// Where the numbers of a process are, looked up once for all of them.
struct Places {
    anon: Counter,
    file: Counter,
    shmem: Counter,
    swap: Counter,
    total_vm: Option<Slot>,
    oom_score_adj: Option<Slot>,
}

impl Places {
    fn new(source: &Reader<'_, '_>) -> Result<Self, String> {
        let slot = |of, member| source.slot(of, &[member]).ok();
        Ok(Self {
            anon: Counter::new(source, "MM_ANONPAGES")?,
            file: Counter::new(source, "MM_FILEPAGES")?,
            shmem: Counter::new(source, "MM_SHMEMPAGES")?,
            swap: Counter::new(source, "MM_SWAPENTS")?,
            total_vm: slot("mm_struct", "total_vm"),
            oom_score_adj: slot("signal_struct", "oom_score_adj"),
        })
    }

    fn read(&self, source: &Reader<'_, '_>, task: &Task, mm: KVirtAddr) -> Result<ProcessMemory, String> {
        let counter = |counter: &Counter| counter.read(source, mm).map(|n| source.bytes(n));
        let number = |at: KVirtAddr, slot: &Option<Slot>| source.number(at, slot.as_ref()?).ok();
        Ok(ProcessMemory {
            pid: task.tgid,
            comm: task.comm.clone(),
            anon: counter(&self.anon)?,
            file: counter(&self.file)?,
            shmem: counter(&self.shmem)?,
            swap: counter(&self.swap)?,
            total_vm: number(mm, &self.total_vm).map(|n| source.bytes(n)),
            oom_score_adj: task.signal.and_then(|at| number(at, &self.oom_score_adj)).map(u64::cast_signed),
        })
    }
}

/// Where one of the counters of an `mm_struct` is.
enum Counter {
    /// A per-CPU counter, so many bytes into it: since 6.2 (kernel commit f1a7941243c1).
    PerCpu(u64, PerCpuCounter),
    /// A plain number.
    Plain(Slot),
}

impl Counter {
    fn new(source: &Reader<'_, '_>, name: &str) -> Result<Self, String> {
        // An anonymous enum: looked up as a constant of the kernel.
        let types = source.types.kernel().ok_or("the kernel's types are not known")?;
        let index = types.constant(name).map_err(|why| why.to_string())?;
        let new = format!("rss_stat[{index}]");
        match source.types.structure("mm_struct").and_then(|of| of.member(&new)) {
            Ok(member) => Ok(Self::PerCpu(member.offset(), PerCpuCounter::new(source)?)),
            Err(_) => source.slot("mm_struct", &[&format!("rss_stat.count[{index}]")]).map(Self::Plain),
        }
    }

    fn read(&self, source: &Reader<'_, '_>, mm: KVirtAddr) -> Result<u64, String> {
        let count = match self {
            Self::PerCpu(inside, counter) => {
                counter.read(source, mm.checked_add(*inside).ok_or("past 2^64")?)?
            }
            Self::Plain(slot) => source.number(mm, slot)?.cast_signed(),
        };
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
