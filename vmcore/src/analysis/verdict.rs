//! The finding that a panic makes: what it means, and what to do next.

use super::panic::LoggedPanic;
use crate::report::{Confidence, Finding, PanicKind, Severity};

/// The code, what it means, and the next steps of a kind of panic.
struct Meaning {
    code: &'static str,
    title: &'static str,
    next: &'static str,
}

/// The finding for what the log tells. The kernel's own panic line makes it certain; an oops that is the last thing
/// in the log makes it likely.
#[must_use]
pub fn finding(panic: &LoggedPanic) -> Finding {
    let meaning = meaning(panic.kind);
    let confidence = if panic.panic_line.is_some() { Confidence::Certain } else { Confidence::Likely };
    let mut finding = Finding::new(meaning.code, Severity::Critical, confidence, meaning.title);
    finding.evidence = panic.evidence.iter().map(|line| line.text.clone()).collect();
    by_hand(finding.next(meaning.next), panic)
}

/// The call trace of the CPU that panicked; of a trouble of tasks or of memory, these.
fn by_hand(finding: Finding, panic: &LoggedPanic) -> Finding {
    let finding = match panic.cpu {
        Some(cpu) => finding.by_hand_crash(format!("bt -c {cpu}")),
        None => finding.by_hand_crash("bt -p"),
    };
    let finding = match panic.kind {
        PanicKind::HungTask => finding.by_hand_crash("foreach UN bt"),
        PanicKind::Oom => finding.by_hand_crash("kmem -i"),
        PanicKind::SoftLockup | PanicKind::HardLockup | PanicKind::RcuStall => finding.by_hand_crash("bt -a"),
        _ => finding.by_hand_crash("log"),
    };
    finding.by_hand_drgn("prog.crashed_thread().stack_trace()")
}

fn meaning(kind: PanicKind) -> Meaning {
    let (code, title, next) = match kind {
        PanicKind::Sysrq => (
            "KD-PANIC-SYSRQ",
            "Somebody asked for the crash, through SysRq.",
            "Ask who wrote to /proc/sysrq-trigger or pressed SysRq-C, and why: as a test, or because the machine hung.",
        ),
        PanicKind::NullDeref => (
            "KD-PANIC-NULL-DEREF",
            "The kernel followed a NULL pointer.",
            "The function at RIP and its module name the suspect: look for a fix in newer kernels of the vendor.",
        ),
        PanicKind::PageFault => (
            "KD-PANIC-PAGE-FAULT",
            "The kernel followed a bad address: a stale or overwritten pointer.",
            "Look at the function at RIP and its module; an address one bit away from a good one points to the memory hardware.",
        ),
        PanicKind::GeneralProtection => (
            "KD-PANIC-GENERAL-PROTECTION",
            "A general protection fault: mostly a pointer that was overwritten or freed.",
            "Look in the registers for 6b6b6b6b and dead…, and at the function at RIP and its module.",
        ),
        PanicKind::Bug => (
            "KD-PANIC-BUG",
            "The kernel found itself in a state that must not be (BUG).",
            "Look up the file and line of the message in the source of that release.",
        ),
        PanicKind::Warn => (
            "KD-PANIC-WARN",
            "A warning ended the kernel, because panic_on_warn is set.",
            "Look up the file and line of the warning; kernel.panic_on_warn=0 keeps such a machine up.",
        ),
        PanicKind::DivideError => (
            "KD-PANIC-DIVIDE-ERROR",
            "The kernel divided by zero, or the quotient did not fit.",
            "The function at RIP and its module name the suspect.",
        ),
        PanicKind::SoftLockup => (
            "KD-PANIC-SOFT-LOCKUP",
            "A CPU ran kernel code for too long without giving way.",
            "Look at that CPU's call trace in the log; of a guest, ask first whether its host was overcommitted.",
        ),
        PanicKind::HardLockup => (
            "KD-PANIC-HARD-LOCKUP",
            "A CPU took no interrupts for too long.",
            "Look at that CPU's call trace in the log: it ran with interrupts off, often for a spinlock.",
        ),
        PanicKind::HungTask => (
            "KD-PANIC-HUNG-TASK",
            "A task slept uninterruptibly for too long.",
            "Look at the blocked tasks' call traces in the log: mostly storage behind them does not answer.",
        ),
        PanicKind::Oom => (
            "KD-PANIC-OOM",
            "The machine ran out of memory.",
            "The memory report and task list in the log, before the panic, name who had the memory.",
        ),
        PanicKind::RcuStall => (
            "KD-PANIC-RCU-STALL",
            "RCU waited for a CPU or a task for too long.",
            "Look at the stalled CPUs' call traces in the log.",
        ),
        PanicKind::StackOverflow => (
            "KD-PANIC-STACK-OVERFLOW",
            "A kernel stack was used up.",
            "Look at the call trace for a recursion, or for drivers stacked upon each other.",
        ),
        PanicKind::Mce => (
            "KD-PANIC-MCE",
            "The hardware reported an error that it could not correct.",
            "Look at the machine-check lines of the log, at rasdaemon of that host (ras-mc-ctl --errors), and at the BMC's event log (ipmitool sel elist).",
        ),
        PanicKind::Nmi => (
            "KD-PANIC-NMI",
            "A non-maskable interrupt ended the kernel.",
            "Ask whether somebody pressed the BMC's NMI button; otherwise look at the BMC's event log (ipmitool sel elist).",
        ),
        PanicKind::Other => (
            "KD-PANIC-OTHER",
            "The kernel panicked.",
            "Search for the message in the vendor's knowledge base and in the source of that release.",
        ),
    };
    Meaning { code, title, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_code_and_the_page_of_findings_has_each_code() {
        let page = include_str!("../../../docs/findings.md");
        for kind in PanicKind::ALL {
            let code = meaning(kind).code;
            assert_eq!(code, format!("KD-PANIC-{}", kind.word().to_uppercase()));
            assert!(page.contains(&format!("### {code}\n")), "docs/findings.md has no {code}");
        }
    }

    #[test]
    fn each_code_that_an_analysis_can_give_is_on_the_page_of_findings() {
        let page = include_str!("../../../docs/findings.md");
        let sources = [
            include_str!("completeness.rs"),
            include_str!("identity.rs"),
            include_str!("inside.rs"),
            include_str!("lockup.rs"),
            include_str!("log.rs"),
            include_str!("several.rs"),
            include_str!("tasks.rs"),
            include_str!("triage.rs"),
        ];
        let words = sources.iter().flat_map(|source| source.split('"'));
        let codes: Vec<&str> = words.filter(|word| word.starts_with("KD-")).collect();
        assert!(codes.len() >= 11, "{codes:?}");
        for code in codes {
            assert!(page.contains(&format!("### {code}\n")), "docs/findings.md has no {code}");
        }
    }

    #[test]
    fn only_the_kernel_s_own_panic_line_makes_it_certain() {
        let mut panic = LoggedPanic {
            kind: PanicKind::NullDeref,
            message: "BUG: kernel NULL pointer dereference, address: 0000000000000000".into(),
            panic_line: None,
            cpu: None,
            pid: None,
            comm: None,
            instruction: None,
            trace: Vec::new(),
            evidence: Vec::new(),
            first_seq: 0,
            printed: crate::analysis::panic::Printed::default(),
            stalled: Vec::new(),
        };
        assert_eq!(finding(&panic).confidence, Confidence::Likely);
        panic.panic_line = Some("Kernel panic - not syncing: Fatal exception".into());
        assert_eq!(finding(&panic).confidence, Confidence::Certain);
    }
}
