//! The kernel's own words for what happened, from 2.6.32 to 7.x.
//!
//! Sources: `kernel/panic.c`, `arch/x86/mm/fault.c`, `arch/x86/kernel/{traps,dumpstack,nmi}.c`, `arch/arm64/mm/fault.c`,
//! `kernel/watchdog*.c`, `kernel/hung_task.c`, `kernel/rcu/tree_stall.h`, `mm/oom_kill.c`, `drivers/tty/sysrq.c`, `lib/bug.c`.
//! A phrase is matched by the part that never changed: most of them lost or gained a prefix (`watchdog: `, `rcu: `, `Oops: `) over time.

use crate::report::PanicKind;

/// With what the final line of a panic begins.
pub(super) const PANIC: &str = "Kernel panic - not syncing";

/// What `panic()` was called with, by kind. The first match counts.
const PANIC_MESSAGES: &[(&str, PanicKind)] = &[
    ("sysrq triggered crash", PanicKind::Sysrq),
    ("hung_task: blocked tasks", PanicKind::HungTask),
    ("softlockup: hung tasks", PanicKind::SoftLockup),
    ("Hard LOCKUP", PanicKind::HardLockup),
    ("hard LOCKUP", PanicKind::HardLockup),
    ("RCU Stall", PanicKind::RcuStall),
    ("panic_on_warn set", PanicKind::Warn),
    ("Out of memory", PanicKind::Oom),
    ("out of memory", PanicKind::Oom),
    ("System is deadlocked on memory", PanicKind::Oom),
    ("stack overflow", PanicKind::StackOverflow),
    ("corrupted stack end detected", PanicKind::StackOverflow),
    ("Machine check", PanicKind::Mce),
    ("machine check", PanicKind::Mce),
    ("MCE", PanicKind::Mce),
    ("Fatal hardware error", PanicKind::Mce),
    ("Timeout: Not all CPUs entered broadcast exception handler", PanicKind::Mce),
    ("NMI", PanicKind::Nmi),
    ("Non maskable interrupt", PanicKind::Nmi),
    ("BUG!", PanicKind::Bug),
];

/// Panics that only say that an oops before them was fatal.
const AFTER_AN_OOPS: &[&str] = &[
    "Fatal exception",
    "Attempted to kill",
    "Aiee, killing interrupt handler",
    "Oops",
    "Fatal error",
    "Unrecoverable",
];

/// What a line that an oops begins with says. The first match counts.
const OOPS: &[(&str, PanicKind)] = &[
    ("BUG: kernel NULL pointer dereference", PanicKind::NullDeref),
    ("nable to handle kernel NULL pointer dereference", PanicKind::NullDeref),
    ("stack guard page was hit", PanicKind::StackOverflow),
    ("kernel stack overflow", PanicKind::StackOverflow),
    ("nsufficient stack space to handle exception", PanicKind::StackOverflow),
    ("BUG: unable to handle page fault for address", PanicKind::PageFault),
    ("nable to handle kernel paging request", PanicKind::PageFault),
    ("nable to handle kernel read from unreadable memory", PanicKind::PageFault),
    ("nable to handle kernel write to read-only memory", PanicKind::PageFault),
    ("nable to handle kernel execut", PanicKind::PageFault),
    ("general protection fault", PanicKind::GeneralProtection),
    ("divide error:", PanicKind::DivideError),
];

/// What a sign that comes before a panic or a stall says.
const SIGNS: &[(&str, PanicKind)] = &[
    ("BUG: soft lockup", PanicKind::SoftLockup),
    ("atchdog detected hard LOCKUP", PanicKind::HardLockup),
    ("CPU has been hard locked", PanicKind::HardLockup),
    ("blocked for more than", PanicKind::HungTask),
    ("detected stall", PanicKind::RcuStall),
    ("detected expedited stall", PanicKind::RcuStall),
    ("self-detected stall", PanicKind::RcuStall),
    ("invoked oom-killer", PanicKind::Oom),
    ("Trigger a crash", PanicKind::Sysrq),
    ("[Hardware Error]", PanicKind::Mce),
    ("NMI received for unknown reason", PanicKind::Nmi),
    ("NMI: PCI system error", PanicKind::Nmi),
    ("NMI: IOCK error", PanicKind::Nmi),
    ("WARNING: ", PanicKind::Warn),
];

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `Kernel panic - not syncing: …`.
    Panic(PanicKind, AfterOops),
    /// The first line of an oops, or one that only its middle has (`Oops: 0002 [#1]`).
    Oops(PanicKind),
    /// A sign of something that becomes a panic only where a policy asks for it.
    Sign(PanicKind),
    /// `---[ end trace … ]---`: whatever it was, the kernel went on after it.
    EndTrace,
    /// Anything else.
    Nothing,
}

/// Whether a panic only repeats that an oops was fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterOops {
    Yes,
    No,
}

/// Says what a line of the kernel is. The caller has taken care that it is the kernel's.
pub(super) fn word(line: &str) -> Word {
    if line.starts_with("---[ end trace") {
        return Word::EndTrace;
    }
    if let Some(message) = line.strip_prefix(PANIC) {
        let kind = first(PANIC_MESSAGES, message).unwrap_or(PanicKind::Other);
        let after =
            AFTER_AN_OOPS.iter().any(|phrase| message.trim_start_matches([':', ' ']).starts_with(phrase));
        return Word::Panic(
            kind,
            if after && kind == PanicKind::Other { AfterOops::Yes } else { AfterOops::No },
        );
    }
    if let Some(kind) = oops(line) {
        return Word::Oops(kind);
    }
    sign(line).map_or(Word::Nothing, Word::Sign)
}

/// True for a report after which the kernel goes on as after a warning, and which `panic_on_warn` makes a panic all the same:
/// `BUG: KASAN: …`, `BUG: scheduling while atomic: …`, `UBSAN: …` (`check_panic_on_warn` in `kernel/panic.c`).
pub(super) fn is_report(line: &str, word: Word) -> bool {
    word == Word::Nothing && (line.starts_with("BUG: ") || line.starts_with("UBSAN: "))
}

fn first(table: &[(&str, PanicKind)], line: &str) -> Option<PanicKind> {
    table.iter().find(|(phrase, _)| line.contains(phrase)).map(|(_, kind)| *kind)
}

/// The oops that a line begins, if it begins one.
fn oops(line: &str) -> Option<PanicKind> {
    if line.starts_with("kernel BUG at ") || line.starts_with("Kernel BUG at ") {
        return Some(PanicKind::Bug);
    }
    // The phrases of user space («traps: bash[1] general protection fault ip:…») name the process first and have no die counter.
    let begins = [
        "BUG: ",
        "Unable to handle ",
        "Oops: ",
        "Internal error: ",
        "Insufficient stack",
        "general protection",
        "divide error:",
        "kernel stack ",
    ]
    .iter()
    .any(|start| line.starts_with(start));
    if begins {
        let kind = first(OOPS, line);
        // `BUG: soft lockup`, `BUG: scheduling while atomic`, `BUG: KASAN: …` are no oopses: the kernel goes on after them.
        if kind.is_some() || !line.starts_with("BUG: ") {
            return kind.or_else(|| has_die_counter(line).then_some(PanicKind::Other));
        }
        return None;
    }
    has_die_counter(line).then(|| first(OOPS, line).unwrap_or(PanicKind::Other))
}

/// `invalid opcode: 0000 [#1] SMP`: what `die()` prints, with the error code and the count of oopses since boot.
fn has_die_counter(line: &str) -> bool {
    let Some((before, after)) = line.split_once(" [#") else { return false };
    let counter = after.split(']').next().unwrap_or_default();
    let code = before.rsplit(' ').next().unwrap_or_default();
    let is_number =
        |text: &str, radix: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(radix);
    is_number(counter, u8::is_ascii_digit) && is_number(code, u8::is_ascii_hexdigit)
}

fn sign(line: &str) -> Option<PanicKind> {
    let kind = first(SIGNS, line)?;
    let starts = |starts: &[&str]| starts.iter().any(|s| line.starts_with(s));
    let genuine = match kind {
        PanicKind::HungTask => starts(&["INFO: task ", "INFO: TASK "]),
        PanicKind::RcuStall => starts(&["rcu: ", "INFO: rcu", "INFO: "]),
        PanicKind::Warn => starts(&["WARNING: "]),
        PanicKind::Sysrq => line.to_ascii_lowercase().starts_with("sysrq"),
        PanicKind::SoftLockup => starts(&["watchdog: BUG", "BUG: soft", "NMI watchdog: BUG"]),
        PanicKind::HardLockup => starts(&["NMI watchdog: ", "watchdog: ", "Watchdog "]),
        PanicKind::Mce => {
            line.starts_with("mce: ") || line.starts_with("[Hardware Error]") || line.starts_with('{')
        }
        _ => true,
    };
    genuine.then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_old_and_new_kernels_mean_the_same() {
        use PanicKind as K;
        let oops = [
            ("BUG: unable to handle kernel NULL pointer dereference at           (null)", K::NullDeref),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000010", K::NullDeref),
            (
                "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
                K::NullDeref,
            ),
            ("BUG: unable to handle kernel paging request at ffffffffdeadbeef", K::PageFault),
            ("BUG: unable to handle page fault for address: ffffc90000123000", K::PageFault),
            ("general protection fault: 0000 [#1] SMP", K::GeneralProtection),
            (
                "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] PREEMPT SMP NOPTI",
                K::GeneralProtection,
            ),
            (
                "Oops: general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b6b: 0000 [#1] SMP",
                K::GeneralProtection,
            ),
            ("divide error: 0000 [#1] SMP NOPTI", K::DivideError),
            ("Oops: divide error: 0000 [#1] PREEMPT SMP", K::DivideError),
            ("kernel BUG at mm/slub.c:305!", K::Bug),
            (
                "BUG: stack guard page was hit at ffffc90000a27ff8 (stack is ffffc90000a28000..ffffc90000a2bfff)",
                K::StackOverflow,
            ),
            (
                "BUG: TASK stack guard page was hit at 00000000d2b1b8f5 (stack is 0000000012345678..000000009abcdef0)",
                K::StackOverflow,
            ),
            ("kernel stack overflow (double-fault): 0000 [#1] SMP", K::StackOverflow),
            ("invalid opcode: 0000 [#1] SMP", K::Other),
            ("Oops: 0002 [#1] PREEMPT SMP NOPTI", K::Other),
            ("Internal error: Oops: 96000004 [#1] SMP", K::Other),
        ];
        for (line, kind) in oops {
            assert_eq!(word(line), Word::Oops(kind), "{line}");
        }
        let signs = [
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [insmod:412]", K::SoftLockup),
            ("NMI watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [bash:1]", K::SoftLockup),
            ("BUG: soft lockup - CPU#0 stuck for 67s! [bash:1]", K::SoftLockup),
            ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 2", K::HardLockup),
            ("watchdog: Watchdog detected hard LOCKUP on cpu 2", K::HardLockup),
            ("watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3", K::HardLockup),
            ("INFO: task kworker/0:1:22 blocked for more than 120 seconds.", K::HungTask),
            ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", K::RcuStall),
            ("rcu: INFO: rcu_sched self-detected stall on CPU", K::RcuStall),
            ("INFO: rcu_sched self-detected stall on CPU { 1}", K::RcuStall),
            ("sh invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0", K::Oom),
            ("sysrq: Trigger a crash", K::Sysrq),
            ("SysRq : Trigger a crash", K::Sysrq),
            ("sysrq: SysRq : Trigger a crash", K::Sysrq),
            ("mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 0", K::Mce),
            ("Uhhuh. NMI received for unknown reason 3d on CPU 0.", K::Nmi),
            ("WARNING: CPU: 0 PID: 1 at kernel/panic.c:1 f+0x1/0x2", K::Warn),
        ];
        for (line, kind) in signs {
            assert_eq!(word(line), Word::Sign(kind), "{line}");
        }
        let panics = [
            ("sysrq triggered crash", K::Sysrq),
            ("hung_task: blocked tasks", K::HungTask),
            ("softlockup: hung tasks", K::SoftLockup),
            ("Hard LOCKUP", K::HardLockup),
            ("Watchdog detected hard LOCKUP on cpu 1", K::HardLockup),
            ("RCU Stall", K::RcuStall),
            ("kernel: panic_on_warn set ...", K::Warn),
            ("panic_on_warn set ...", K::Warn),
            ("Out of memory: compulsory panic_on_oom is enabled", K::Oom),
            ("out of memory. panic_on_oom is selected", K::Oom),
            ("Fatal machine check", K::Mce),
            ("NMI: Not continuing", K::Nmi),
            ("VFS: Unable to mount root fs on unknown-block(0,0)", K::Other),
        ];
        for (message, kind) in panics {
            assert_eq!(
                word(&format!("Kernel panic - not syncing: {message}")),
                Word::Panic(kind, AfterOops::No),
                "{message}"
            );
        }
        for message in
            ["Fatal exception", "Fatal exception in interrupt", "Attempted to kill init! exitcode=0x0000000b"]
        {
            assert_eq!(
                word(&format!("Kernel panic - not syncing: {message}")),
                Word::Panic(K::Other, AfterOops::Yes),
                "{message}"
            );
        }
    }

    #[test]
    fn what_only_resembles_an_oops_is_none() {
        for line in [
            "traps: bash[412] general protection fault ip:47b7a0 sp:7ffc error:0 in bash[400000+f0000]",
            "bash[412]: segfault at 0 ip 000000000047b7a0 sp 00007ffc error 4 in bash",
            "BUG: scheduling while atomic: swapper/0/0/0x00000002",
            "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2",
            "BUG: Bad page state in process sh  pfn:12345",
            "Command line: panic=1 sysrq",
            "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
            "systemd[1]: Watching a [#unit] that is no oops",
        ] {
            assert_eq!(word(line), Word::Nothing, "{line}");
        }
    }
}
