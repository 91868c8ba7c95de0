//! What memory each process has.

use std::collections::BTreeSet;

use super::Source;
use crate::addr::KVirtAddr;
use crate::kernel::task::Tasks;

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
pub fn read(source: &Source<'_, '_>, tasks: &Tasks) -> (Vec<ProcessMemory>, usize, Option<String>) {
    let (mut found, mut failed, mut why) = (Vec::new(), 0_usize, None);
    let mut seen = BTreeSet::new();
    for task in &tasks.tasks {
        let Some(mm) = task.mm else { continue };
        // Threads, and children of vfork(), share it; the lowest number is its owner.
        if mm.is_null() || !seen.insert(mm.0) {
            continue;
        }
        let one = || -> Result<ProcessMemory, String> {
            let counter = |name: &str| counter(source, mm, name).map(|n| source.bytes(n));
            let signal = source.member(task.kaddr, "task_struct", &["signal"]).ok();
            let adj =
                signal.and_then(|at| source.member(KVirtAddr(at), "signal_struct", &["oom_score_adj"]).ok());
            Ok(ProcessMemory {
                pid: task.tgid,
                comm: task.comm.clone(),
                anon: counter("MM_ANONPAGES")?,
                file: counter("MM_FILEPAGES")?,
                shmem: counter("MM_SHMEMPAGES")?,
                swap: counter("MM_SWAPENTS")?,
                total_vm: source.member(mm, "mm_struct", &["total_vm"]).ok().map(|n| source.bytes(n)),
                oom_score_adj: adj.map(u64::cast_signed),
            })
        };
        match one() {
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

fn counter(source: &Source<'_, '_>, mm: KVirtAddr, name: &str) -> Result<u64, String> {
    // An anonymous enum: looked up as a constant of the kernel.
    let types = source.types().kernel().ok_or("the kernel's types are not known")?;
    let index = types.constant(name).map_err(|why| why.to_string())?;
    // Per-CPU counters since 6.2 (kernel commit f1a7941243c1).
    let new = format!("rss_stat[{index}]");
    let stat = source.types().structure("mm_struct").and_then(|s| s.member(&new));
    let count = match stat {
        Ok(member) => source.percpu_counter(mm.checked_add(member.offset()).ok_or("past 2^64")?)?,
        Err(_) => source.member(mm, "mm_struct", &[&format!("rss_stat.count[{index}]")])?.cast_signed(),
    };
    Ok(u64::try_from(count).unwrap_or(0))
}
