//! The finding that a panic makes: what it means, and what to do next.

use super::known_words;
use super::panic::{LoggedPanic, fault};
use crate::report::{Confidence, Finding, Frame, PanicKind, Report, Severity};

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
    let mut finding = by_hand(finding.next(meaning.next), panic);
    match panic.kind {
        PanicKind::Other => known_words::explain(finding, &panic.message),
        PanicKind::Bug => known_words::explain_bug(finding, &panic.message),
        PanicKind::Warn => known_words::explain_warning(finding, &panic.message),
        PanicKind::PageFault => {
            let known = panic.printed.error_code.and_then(|code| fault::meaning(code, panic.fault_address()));
            if let Some((title, next)) = known {
                title.clone_into(&mut finding.title);
                finding.next = vec![next.to_owned()];
            }
            finding
        }
        _ => finding,
    }
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

/// Says of an NMI that ended the kernel what the CPU was at, where that is why somebody sent it: it took no interrupts for long.
pub(super) fn explain_nmi(report: &mut Report) {
    let Some(panic) = report.panic.as_ref().filter(|panic| panic.kind == PanicKind::Nmi) else { return };
    let Some(cpu) = panic.cpu else { return };
    let of_cpu = |finding: &&Finding| {
        ["KD-LOCKUP-HARD", "KD-LOCKUP-IRQS-OFF"].contains(&finding.code.as_str())
            && finding.title.starts_with(&format!("CPU {cpu} "))
    };
    let Some(lockup) = report.findings.iter().find(of_cpu) else { return };
    let (code, why) = (lockup.code.clone(), lockup.title.clone());
    let Some(finding) = report.findings.iter_mut().find(|finding| finding.code == "KD-PANIC-NMI") else {
        return;
    };
    "A non-maskable interrupt ended a kernel whose CPU took no interrupts: it hung before the NMI came."
        .clone_into(&mut finding.title);
    finding.evidence.push(format!("{code}: {why}"));
    finding
        .next
        .insert(0, format!("Look why CPU {cpu} had its interrupts off: kdt triage --only panic,cpus."));
}

/// Says of a fault whose instruction is in no code that something was called there: that is another mistake than to read or write there.
pub(super) fn explain_call(report: &mut Report) {
    let Some(panic) = &report.panic else { return };
    if !matches!(panic.kind, PanicKind::NullDeref | PanicKind::PageFault | PanicKind::GeneralProtection) {
        return;
    }
    let mut frames = panic.backtrace.iter();
    let at_fault = |frame: &Frame| frame.pc.is_some() && frame.pc == panic.fault_address;
    let place =
        frames.next().filter(|frame| frame.interrupted && (frame.symbol.is_none() || at_fault(frame)));
    let (Some(pc), Some(caller)) =
        (place.and_then(|frame| frame.pc), frames.next().filter(|caller| caller.sure))
    else {
        return;
    };
    let module = caller.module.as_ref().map(|module| format!(" [{module}]")).unwrap_or_default();
    let caller = format!("{}{module}", caller.symbol.as_deref().unwrap_or("a function without a name"));
    let code = meaning(panic.kind).code;
    let Some(finding) = report.findings.iter_mut().find(|finding| finding.code == code) else { return };
    finding.title = if pc.0 == 0 {
        "The kernel called a function through a NULL pointer.".to_owned()
    } else {
        format!("The kernel called a function through a bad pointer: at {pc} no code is.")
    };
    finding.evidence.push(format!("the instruction pointer was {pc}, and {caller} had called it"));
    finding.next = vec![format!(
        "Look in {caller} for the pointer that it called: a callback that was never set, or one of an object that was freed or overwritten."
    )];
}

/// Says that the module a panic came from was just being loaded or unloaded.
pub(super) fn explain_module(report: &mut Report) {
    let Some(panic) = &report.panic else { return };
    let Some(name) = panic.culprit.as_ref().and_then(|culprit| culprit.module.as_deref()) else { return };
    let module = report.modules.iter().find(|module| module.name == name);
    let what = match module.and_then(|module| module.state.as_deref()) {
        Some("coming") => "loaded",
        Some("going") => "unloaded",
        _ => return,
    };
    let line = format!("the module {name} was being {what}");
    let code = meaning(panic.kind).code;
    let own = report.findings.iter_mut().find(|finding| finding.code == code);
    if let Some(finding) = own {
        finding.evidence.push(line);
    }
}

/// Functions below which softirqs run (`handle_softirqs` since 6.10).
const SOFTIRQ: &[&str] = &["handle_softirqs", "__do_softirq", "do_softirq"];
/// With what the entries of hard interrupts begin, before and since 5.8.
const HARDIRQ: &[&str] =
    &["asm_sysvec_", "asm_common_interrupt", "common_interrupt", "ret_from_intr", "do_IRQ"];

/// Says that a panic happened in an interrupt, which the task of that CPU need not have to do with. Watchdogs and errors of the hardware
/// come so by their nature.
pub(super) fn in_interrupt(report: &Report) -> Option<Finding> {
    let panic = report.panic.as_ref()?;
    let by_nature = matches!(
        panic.kind,
        PanicKind::SoftLockup | PanicKind::HardLockup | PanicKind::Nmi | PanicKind::RcuStall | PanicKind::Mce
    );
    if by_nature {
        return None;
    }
    let mut names =
        panic.backtrace.iter().filter(|frame| frame.sure).filter_map(|frame| frame.symbol.as_deref());
    let (what, function) = names.find_map(|name| {
        let bare = name.split('.').next().unwrap_or(name);
        if SOFTIRQ.contains(&bare) {
            Some(("a softirq", bare))
        } else {
            HARDIRQ.iter().any(|start| bare.starts_with(start)).then_some(("a hard interrupt", bare))
        }
    })?;
    let task =
        panic.task.as_ref().and_then(|task| Some(format!("{} (pid {})", task.comm.as_ref()?, task.pid?)));
    let task = task.unwrap_or_else(|| "the task of that CPU".into());
    let place = panic.cpu.map(|cpu| format!(" on CPU {cpu}")).unwrap_or_default();
    let title = format!(
        "It happened in {what}{place}, in the middle of {task}, which need not have anything to do with it."
    );
    Some(
        Finding::new("KD-IN-INTERRUPT", Severity::Info, Confidence::Certain, title)
            .because(format!("{function} is among the callers"))
            .next("Look at the functions before that one in the call trace, and at whose timer, interrupt or packet it was."),
    )
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
            "Look up the file and line of the BUG in the source of that release.",
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
            include_str!("console.rs"),
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
    fn an_nmi_that_came_upon_a_hung_cpu_says_so_and_another_does_not() {
        let report = |of: &str| {
            let mut report = Report::empty("kdt", "0", "a");
            let panic =
                serde_json::json!({"kind": "nmi", "message": "x", "cpu": 0, "task": null, "backtrace": []});
            report.panic = Some(serde_json::from_value(panic).unwrap());
            let nmi = meaning(PanicKind::Nmi);
            report.findings.push(Finding::new(nmi.code, Severity::Critical, Confidence::Certain, nmi.title));
            let lockup = format!("{of} had not taken its timer tick for about 10.8 s, with interrupts off.");
            let lockup = Finding::new("KD-LOCKUP-IRQS-OFF", Severity::Warning, Confidence::Likely, lockup);
            report.findings.push(lockup);
            explain_nmi(&mut report);
            report
        };
        let hung = report("CPU 0");
        assert!(hung.findings[0].title.contains("took no interrupts"), "{}", hung.findings[0].title);
        assert!(hung.findings[0].evidence[0].contains("10.8 s"));
        assert_eq!(report("CPU 1").findings[0].title, meaning(PanicKind::Nmi).title);
    }

    #[test]
    fn a_panic_in_an_interrupt_says_so_and_a_watchdog_s_does_not() {
        let told = |kind: &str, names: &[&str]| {
            let mut report = Report::empty("kdt", "0", "a");
            let frame = |name: &&str| {
                serde_json::json!({"pc": null, "symbol": name, "offset": 1, "module": null, "trust": "orc", "sure": true,
                    "sp": null, "file": null, "line": null, "inlined": false, "stack": null, "interrupted": false})
            };
            let frames: Vec<_> = names.iter().map(frame).collect();
            let panic = serde_json::json!({"kind": kind, "message": "x", "cpu": 0, "task": null, "backtrace": frames});
            report.panic = Some(serde_json::from_value(panic).unwrap());
            in_interrupt(&report).map(|finding| finding.title)
        };
        let soft =
            ["timer_ends", "call_timer_fn", "__do_softirq", "asm_sysvec_apic_timer_interrupt", "do_idle"];
        assert!(told("other", &soft).unwrap().contains("a softirq on CPU 0"));
        let hard = ["irq_work_runs", "__sysvec_irq_work", "asm_sysvec_irq_work", "lab_write"];
        assert!(told("null-deref", &hard).unwrap().contains("a hard interrupt"));
        assert_eq!(told("soft-lockup", &hard), None);
        assert_eq!(told("null-deref", &["lab_write", "vfs_write", "entry_SYSCALL_64"]), None);
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
