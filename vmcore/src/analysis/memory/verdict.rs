//! Whether memory ran out, and what had it.

use crate::kernel::mm::counters::Counters;
use crate::report::{Confidence, Finding, Memory, Severity};

/// What no counter accounts for; `None` where a counter that is needed is missing.
pub(super) fn unaccounted(counters: &Counters) -> Option<u64> {
    let known = [
        "MemFree",
        "Active",
        "Inactive",
        "Unevictable",
        "Slab",
        "KernelStack",
        "PageTables",
        "VmallocUsed",
        "Percpu",
        "Hugetlb",
    ];
    let sum = known.iter().try_fold(0_u64, |sum, name| Some(sum.saturating_add(counters.get(name)?)))?;
    Some(counters.get("MemTotal")?.saturating_sub(sum))
}

/// `percent` of all memory or more.
fn share(memory: &Memory, part: Option<u64>, percent: u64) -> Option<(u64, u64)> {
    let (part, total) = (part?, memory.total.filter(|total| *total > 0)?);
    let found = part.saturating_mul(100).checked_div(total)?;
    (found >= percent).then_some((part, found))
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Memory is called short where less than this can be had.
pub(super) fn is_short(memory: &Memory) -> bool {
    match (memory.available, memory.total) {
        (Some(available), Some(total)) => available.saturating_mul(20) < total,
        _ => false,
    }
}

/// What is worth a person's attention. `whole` where nothing of the counters is missing.
pub(super) fn findings(memory: &Memory, whole: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    let get = |name: &str| memory.more.get(name).copied();
    let short = is_short(memory);
    let oom = memory.oom.as_ref();
    if let Some(oom) = oom {
        let who = oom.invoked_by.as_deref().unwrap_or("a task whose line the log lost");
        let what = if oom.killed.is_some() {
            "and the kernel killed a process for it"
        } else {
            "and the log names no process that was killed for it"
        };
        let cgroup = oom.constraint.as_deref() == Some("CONSTRAINT_MEMCG");
        let group = oom.cgroup.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
        let (code, title) = if cgroup {
            (
                "KD-MEM-OOM-CGROUP",
                format!("The control group{group} ran out of memory when {who} asked for some, {what}."),
            )
        } else {
            ("KD-MEM-OOM-GLOBAL", format!("Memory ran out when {who} asked for some, {what}."))
        };
        let mut finding = Finding::new(code, Severity::Warning, Confidence::Certain, title);
        finding.evidence.push(format!(
            "the log: invoked by {who}, gfp_mask {}, order {}",
            oom.gfp_mask.as_deref().unwrap_or("unknown"),
            oom.order.map_or_else(|| "unknown".into(), |n| n.to_string()),
        ));
        finding.evidence.extend(oom.killed.as_ref().map(|who| format!("the log: killed process {who}")));
        // What all of the machine had does not tell who filled one group.
        let finding = if cgroup {
            finding.next(format!("Look at the limit of the control group{group} (memory.max, of its parents too), and at what runs in it: kdt triage --only cgroups."))
        } else {
            finding.evidence.extend(users(memory));
            finding.next("See what had the memory: kdt triage --only memory,slab.")
        };
        all.push(finding.by_hand_crash("kmem -i").by_hand_crash("ps -u").by_hand_drgn("totalram_pages()"));
    }
    if !short && oom.is_none() {
        return all;
    }
    let sure = if whole { Confidence::Likely } else { Confidence::Hint };
    // No file's pages: tmpfs and shared memory have no disk to be written to.
    if let Some((bytes, percent)) = share(memory, get("Shmem"), 30) {
        let title = format!(
            "tmpfs and shared memory hold {}, {percent} % of the memory, while memory is short.",
            mib(bytes)
        );
        all.push(
            Finding::new("KD-MEM-SHMEM", Severity::Warning, sure, title)
                .because(format!("Shmem is {}", mib(bytes)))
                .next("Look for large files in tmpfs (df -t tmpfs) and for shared memory segments (ipcs -m).")
                .by_hand_crash("kmem -i")
                .by_hand_crash("ipcs -M")
                .by_hand_drgn("global_node_page_state(prog.constant(\"NR_SHMEM\"))"),
        );
    }
    if let Some((bytes, percent)) = share(memory, get("Hugetlb"), 50) {
        let title = format!(
            "Reserved huge pages hold {}, {percent} % of the memory, while memory is short.",
            mib(bytes)
        );
        all.push(
            Finding::new("KD-MEM-HUGETLB", Severity::Warning, sure, title)
                .because(format!("Hugetlb is {}", mib(bytes)))
                .next("Reserve fewer huge pages (vm.nr_hugepages, hugepages= on the command line).")
                .by_hand_crash("kmem -h")
                .by_hand_drgn("[(h.name, h.nr_huge_pages, h.free_huge_pages) for h in for_each_hstate()]"),
        );
    }
    if let Some((bytes, percent)) = share(memory, memory.unaccounted, 30) {
        let title =
            format!("{} of the memory, {percent} %, are in no counter: a driver may leak pages.", mib(bytes));
        all.push(
            Finding::new("KD-MEM-UNACCOUNTED", Severity::Warning, Confidence::Hint, title)
                .because("MemTotal less what is free, on the LRU lists, in slabs, stacks, page tables, vmalloc, per-CPU and huge pages")
                .next("Look at drivers that take whole pages: GPU, network rings, balloon.")
                .by_hand_crash("kmem -i")
                .by_hand_drgn("totalram_pages(), nr_free_pages()"),
        );
    }
    if let (Some(total), Some(free)) = (get("SwapTotal").filter(|n| *n > 0), get("SwapFree"))
        && free.saturating_mul(20) < total
    {
        let title = format!("Swap is full: {} of {} are left.", mib(free), mib(total));
        all.push(
            Finding::new("KD-MEM-SWAP-FULL", Severity::Warning, sure, title)
                .because("SwapFree is below a twentieth of SwapTotal")
                .next("See which processes are in swap: kdt triage --only memory.")
                .by_hand_crash("swap")
                .by_hand_drgn("swap_total_usage()"),
        );
    }
    all
}

/// What had the memory, as evidence.
fn users(memory: &Memory) -> Vec<String> {
    let get = |name: &str| memory.more.get(name).copied();
    let mut parts: Vec<(&str, u64)> = [
        ("anonymous memory", memory.anon),
        ("tmpfs and shared memory", get("Shmem")),
        ("slabs that can't be reclaimed", get("SUnreclaim")),
        ("huge pages", get("Hugetlb")),
        ("pages in no counter", memory.unaccounted),
    ]
    .into_iter()
    .filter_map(|(name, bytes)| Some((name, bytes.filter(|n| *n > 0)?)))
    .collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut out: Vec<String> = parts.iter().map(|(name, bytes)| format!("{name}: {}", mib(*bytes))).collect();
    if let Some(first) = memory.processes.first() {
        out.push(format!("the largest process: {} (pid {}) with {}", first.comm, first.pid, mib(first.rss)));
    }
    out
}
