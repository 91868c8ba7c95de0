//! The signature of a crash: the same for the same crash on another day, another host, and another build of nearly the same kernel.
//!
//! It is made from the report alone, so that a report of an earlier day gets one too. `docs/signature.md` has the rules for a person;
//! whoever changes them here raises [`SIGNATURE_VERSION`].

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::report::{Confidence, Frame, FrameTrust, PanicKind, Report, SIGNATURE_VERSION, Signature};
use crate::unwind::is_crash_code;

/// Functions that count. Those further out tell how the kernel was entered, and differ where the innermost agree.
const FRAMES: usize = 8;
/// Bytes of the hash, each two digits.
const BYTES: usize = 16;
/// From this on, two stacks of the same kind and module are alike.
pub const NEAR: f64 = 0.5;
/// Percent of the memory from which what holds it is named.
const SHARE: u64 = 25;

/// Where the kernel was entered, or work was handed to a thread: what lies further out is the same for all, or chance.
const ENTRY: &[&str] = &[
    "do_syscall_64",
    "x64_sys_call",
    "do_syscall_x64",
    "do_int80_syscall_32",
    "do_fast_syscall_32",
    "entry_SYSCALL_64_after_hwframe",
    "entry_SYSCALL_64",
    "kthread",
    "ret_from_fork",
    "ret_from_fork_asm",
    "process_one_work",
    "process_scheduled_works",
    "worker_thread",
    "smpboot_thread_fn",
    "__do_softirq",
    "handle_softirqs",
    "common_interrupt",
    "do_IRQ",
    "do_idle",
    "cpu_startup_entry",
    "start_secondary",
    "start_kernel",
];
/// Beginnings of the same: system calls, interrupts.
const ENTRY_BEGINS: &[&str] = &[
    "__x64_sys_",
    "__ia32_sys_",
    "__se_sys_",
    "__do_sys_",
    "asm_common_",
    "asm_sysvec_",
    "__sysvec_",
    "sysvec_",
];

/// Code that reports trouble, or that an exception runs through, besides what [`is_crash_code`] knows.
const REPORTS: &[&str] = &[
    "sysrq_handle_crash",
    "__handle_sysrq",
    "handle_sysrq",
    "write_sysrq_trigger",
    "out_of_memory",
    "check_hung_uninterruptible_tasks",
    "watchdog",
    "warn_slowpath_fmt",
    "warn_slowpath_null",
    "handle_bug",
    "fixup_bug",
    "refcount_warn_saturate",
    "fortify_panic",
    "__fortify_panic",
    "__fortify_report",
    "__stack_chk_fail",
    "usercopy_abort",
    "error_entry",
    "page_fault",
    "async_page_fault",
    "general_protection",
    "invalid_op",
    "do_invalid_op",
    "divide_error",
    "do_divide_error",
    "math_error",
    "dump_stack",
    "dump_stack_lvl",
    "show_stack",
    "show_regs",
    "printk",
    "_printk",
    "vprintk_emit",
];
/// Beginnings of the same.
const REPORT_BEGINS: &[&str] =
    &["asm_exc_", "exc_", "__list_add_valid", "__list_del_entry_valid", "kasan_report", "__ubsan_"];

/// How a task waits or spins: the same for all who do, and a matter of the build.
const WAITS: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_preempt_disabled",
    "preempt_schedule_common",
    "schedule_timeout",
    "schedule_timeout_uninterruptible",
    "io_schedule",
    "io_schedule_timeout",
    "mutex_lock",
    "__mutex_lock",
    "__mutex_lock_slowpath",
    "__wait_for_common",
    "do_wait_for_common",
    "wait_for_common",
    "wait_for_completion",
    "wait_for_completion_state",
    "rwsem_down_read_slowpath",
    "rwsem_down_write_slowpath",
    "down_read",
    "down_write",
    "__down_read",
    "__down_write",
    "percpu_rwsem_wait",
    "__percpu_down_read",
    "native_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "do_raw_spin_lock",
    "_raw_spin_lock",
    "_raw_spin_lock_irq",
    "_raw_spin_lock_irqsave",
    "_raw_spin_lock_bh",
    "delay_tsc",
    "delay_halt",
    "delay_halt_tpause",
    "__delay",
    "__const_udelay",
    "__udelay",
    "msleep",
];

/// A function's name without what the compiler appends (`.cold`, `.isra.0`, `.constprop.0`, `.part.0`, `.llvm.123`) and without an
/// offset. No name in C has a dot.
#[must_use]
pub fn normal(name: &str) -> &str {
    let name = name.split('+').next().unwrap_or(name);
    match name.split_once('.') {
        Some((base, _)) if !base.is_empty() => base,
        _ => name,
    }
}

fn is_entry(name: &str) -> bool {
    ENTRY.contains(&name) || ENTRY_BEGINS.iter().any(|begin| name.starts_with(begin))
}

fn is_machinery(name: &str) -> bool {
    is_crash_code(name)
        || REPORTS.contains(&name)
        || WAITS.contains(&name)
        || REPORT_BEGINS.iter().any(|begin| name.starts_with(begin))
}

/// A stack as far as it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stack {
    module: Option<String>,
    frames: Vec<String>,
}

/// One function of a stack: its name and module.
type Step<'a> = (&'a str, Option<&'a str>);

fn reduce<'a>(steps: impl Iterator<Item = Step<'a>>) -> Stack {
    let mut stack = Stack::default();
    for (name, module) in steps {
        let name = normal(name);
        if is_entry(name) {
            // An interrupt on top is how the trouble was found; below what counts, it hit there by chance.
            if stack.frames.is_empty() {
                continue;
            }
            break;
        }
        if is_machinery(name) {
            continue;
        }
        if stack.frames.is_empty() {
            stack.module = module.map(str::to_owned);
        }
        // A recursion counts once, however deep it was.
        if stack.frames.last().map(String::as_str) != Some(name) {
            stack.frames.push(name.to_owned());
        }
        if stack.frames.len() >= FRAMES {
            break;
        }
    }
    stack
}

/// Guesses do not count, and neither do inlined functions: these are known only with debuginfo.
fn of_frames(frames: &[Frame]) -> Stack {
    reduce(
        frames
            .iter()
            .filter(|frame| frame.sure && frame.trust != FrameTrust::Scan && !frame.inlined)
            .filter_map(|frame| Some((frame.symbol.as_deref()?, frame.module.as_deref()))),
    )
}

/// The signature of a report; `None` where nothing happened that could happen again, or where nothing tells what.
#[must_use]
pub fn of(report: &Report) -> Option<Signature> {
    let panic = report.panic.as_ref();
    let asked = |kind| matches!(kind, PanicKind::Sysrq | PanicKind::HungTask | PanicKind::Nmi);
    if panic.is_none_or(|panic| asked(panic.kind))
        && let Some(stack) = hang(report)
    {
        let confidence = confidence(report, &stack);
        return Some(make("hang", stack, None, confidence));
    }
    let panic = panic?;
    if panic.kind == PanicKind::Oom {
        // Who asked last when nothing was left is chance; what held the memory is not.
        let about = holder(report);
        let confidence = if about.is_some() { Confidence::Likely } else { Confidence::Hint };
        return Some(make(panic.kind.word(), Stack::default(), about, confidence));
    }
    // Where the hardware or a person ended it, and where a watcher panicked, the stack is not that of the trouble.
    let elsewhere = asked(panic.kind) || panic.kind == PanicKind::Mce;
    let stack = match panic.kind {
        _ if elsewhere => Stack::default(),
        PanicKind::RcuStall => stalled(report).unwrap_or_else(|| of_frames(&panic.backtrace)),
        _ => of_frames(&panic.backtrace),
    };
    let confidence = confidence(report, &stack);
    Some(make(panic.kind.word(), stack, None, confidence))
}

fn confidence(report: &Report, stack: &Stack) -> Confidence {
    if stack.frames.is_empty() {
        Confidence::Hint
    } else if matches!(report.symbols.unwinder.as_deref(), Some("orc" | "cfi")) {
        Confidence::Certain
    } else {
        Confidence::Likely
    }
}

fn make(kind: &str, stack: Stack, about: Option<String>, confidence: Confidence) -> Signature {
    let mut hasher = Sha256::new();
    // Each word with its length, so that no two lists of words make the same bytes.
    let mut add = |word: &str| {
        hasher.update(word.len().to_string());
        hasher.update(":");
        hasher.update(word);
    };
    add(&format!("kdt/signature/{SIGNATURE_VERSION}"));
    add(kind);
    add(stack.module.as_deref().unwrap_or_default());
    add(about.as_deref().unwrap_or_default());
    for frame in &stack.frames {
        add(frame);
    }
    let digest = hasher.finalize();
    let mut hash = String::new();
    for byte in digest.iter().take(BYTES) {
        // Writing to a `String` can't fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let Stack { module, frames } = stack;
    Signature { version: SIGNATURE_VERSION, kind: kind.into(), module, frames, about, hash, confidence }
}

/// The stack that a hang is known by: of a deadlock, the one of its tasks that comes first by name; else who holds the others up; else
/// what most wait in.
fn hang(report: &Report) -> Option<Stack> {
    let found = |code: &str| report.findings.iter().any(|finding| finding.code == code);
    // The kernel's own patience may be shorter than ours.
    let hung = report.panic.as_ref().is_some_and(|panic| panic.kind == PanicKind::HungTask);
    if !hung && !report.findings.iter().any(|finding| finding.code.starts_with("KD-HANG-")) {
        return None;
    }
    let blocked = report.blocked.as_ref()?;
    let task =
        |pid: i64| report.tasks.iter().find(|task| task.pid == pid).map(|task| of_frames(&task.backtrace));
    let of_names = |names: &[String]| reduce(names.iter().map(|name| (name.as_str(), None)));
    let of = |pid: i64, names: &[String]| {
        task(pid).filter(|stack| !stack.frames.is_empty()).unwrap_or_else(|| of_names(names))
    };
    let group_of = |pid: i64| {
        let group = blocked.groups.iter().find(|group| group.pids.contains(&pid));
        of(pid, group.map(|group| group.symbols.as_slice()).unwrap_or_default())
    };
    let told = |stack: &Stack| !stack.frames.is_empty();
    let circles = blocked.cycles.iter().flatten().map(|pid| group_of(*pid)).filter(told);
    if let Some(first) = circles.min_by(|a, b| a.frames.cmp(&b.frames)) {
        return Some(first);
    }
    let blockers = blocked.blockers.iter().filter(|_| found("KD-HANG-BLOCKED-BY"));
    if let Some(first) = blockers.map(|blocker| of(blocker.pid, &blocker.symbols)).find(told) {
        return Some(first);
    }
    let long = blocked.groups.iter().filter(|group| hung || group.oldest_s.is_some_and(|s| s >= 10.0));
    let stacks =
        long.map(|group| (group.count, of(group.pids.first().copied().unwrap_or(-1), &group.symbols)));
    let most = stacks
        .filter(|(_, stack)| told(stack))
        .min_by(|(a_count, a), (b_count, b)| b_count.cmp(a_count).then_with(|| a.frames.cmp(&b.frames)));
    most.map(|(_, stack)| stack)
}

/// What the CPU was at that RCU waited for, where that is not the one that noticed.
fn stalled(report: &Report) -> Option<Stack> {
    let noticed = report.panic.as_ref().and_then(|panic| panic.cpu);
    let guilty = report
        .runqueues
        .iter()
        .find(|queue| queue.holds_up_rcu == Some(true) && Some(queue.cpu) != noticed)?;
    if report.runqueues.iter().any(|queue| queue.holds_up_rcu == Some(true) && Some(queue.cpu) == noticed) {
        return None;
    }
    let cpu = report.cpus.iter().find(|cpu| cpu.cpu == guilty.cpu)?;
    // It was stopped by an NMI, perhaps in a timer interrupt that complained too: what it was at all the time lies below all of these.
    let from = cpu.backtrace.iter().rposition(|frame| frame.interrupted).unwrap_or(0);
    let stack = of_frames(cpu.backtrace.get(from..).unwrap_or_default());
    (!stack.frames.is_empty()).then_some(stack)
}

/// What held the memory when it ran out.
fn holder(report: &Report) -> Option<String> {
    let memory = report.memory.as_ref()?;
    let total = memory.total.filter(|total| *total > 0)?;
    let large = |bytes: Option<u64>| {
        bytes.filter(|n| n.saturating_mul(100).checked_div(total).is_some_and(|p| p >= SHARE))
    };
    let cache =
        report.slab.first().and_then(|cache| Some((large(cache.bytes)?, format!("slab {}", cache.name))));
    let process = memory
        .processes
        .first()
        .and_then(|one| Some((large(Some(one.anon))?, format!("process {}", one.comm))));
    let counter = |name: &str| memory.more.get(name).copied();
    let others = [
        (large(counter("Shmem")), "tmpfs and shared memory"),
        (large(counter("Hugetlb")), "huge pages"),
        (large(memory.unaccounted), "pages in no counter"),
    ];
    let others = others.into_iter().filter_map(|(bytes, name)| Some((bytes?, name.to_owned())));
    let all = cache.into_iter().chain(process).chain(others);
    all.max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1))).map(|(_, name)| name)
}

/// True for kinds of crashes that broken hardware of one host can cause again and again; a deadlock or a hang it does not.
#[must_use]
pub fn may_be_hardware(kind: &str) -> bool {
    [PanicKind::Mce, PanicKind::GeneralProtection, PanicKind::PageFault, PanicKind::Nmi]
        .iter()
        .any(|one| one.word() == kind)
}

/// How alike two crashes are, from 0 to 1: 1 for the same hash; else, for the same kind, module and `about`, the mean of the length of
/// the common beginning by that of the longer stack, and of the functions that both have by those that either has.
#[must_use]
pub fn similarity(a: &Signature, b: &Signature) -> f64 {
    if a.version != b.version {
        return 0.0;
    }
    if a.hash == b.hash {
        return 1.0;
    }
    if a.kind != b.kind
        || a.module != b.module
        || a.about != b.about
        || a.frames.is_empty()
        || b.frames.is_empty()
    {
        return 0.0;
    }
    let ratio = |part: usize, of: usize| {
        // At most 16 frames: nothing is lost.
        f64::from(u32::try_from(part).unwrap_or(0)) / f64::from(u32::try_from(of.max(1)).unwrap_or(u32::MAX))
    };
    let prefix = a.frames.iter().zip(&b.frames).take_while(|(a, b)| a == b).count();
    let longer = a.frames.len().max(b.frames.len());
    let set = |frames: &[String]| frames.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    let (in_a, in_b) = (set(&a.frames), set(&b.frames));
    let jaccard = ratio(in_a.intersection(&in_b).count(), in_a.union(&in_b).count());
    f64::midpoint(ratio(prefix, longer), jaccard)
}

#[cfg(test)]
mod tests;
