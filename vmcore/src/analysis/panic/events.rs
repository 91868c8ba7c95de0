//! What the log told of before the last incident: oopses and warnings that the kernel survived, failing hardware and disks, stalls.
//!
//! Sources: `drivers/md`, `block/blk-core.c`, `fs/{ext4,xfs,btrfs}`, `drivers/{nvme,scsi,ata}`, `drivers/edac`, `drivers/firmware/efi/cper.c`,
//! `mm/{oom_kill,page_alloc}.c`, `arch/x86/mm/fault.c`, and what [`super::words`] reads.

use super::words::Word;
use super::{Line, SIGN_NS, from_log, kernel_lines, lines};
use crate::analysis::parts::{Clock, Context, Part};
use crate::kernel::printk::KernelLog;
use crate::report::{Confidence, Event, Finding, PanicKind, Severity};

/// Functions that an event names.
const FUNCTIONS: usize = 8;
/// How many lines after «events logged» the first record is looked for.
const ANNOUNCED: usize = 3;
/// How many lines after an oops its function is looked for.
const FUNCTION_LINES: usize = 24;

/// The kinds, with the words that tell them. A line counts where it has all words of one of the lists; the first kind that fits counts.
const KINDS: &[(&str, &[&[&str]])] = &[
    (
        "fs-error",
        &[
            &["EXT4-fs error"],
            &["EXT3-fs error"],
            &["Aborting journal on device"],
            &["Remounting filesystem read-only"],
            &["XFS (", "orruption"],
            &["XFS (", "metadata I/O error"],
            &["XFS (", "log I/O error"],
            &["XFS (", "has been shut down"],
            &["XFS (", "Shutting down filesystem"],
            &["BTRFS error"],
            &["BTRFS critical"],
            &["BTRFS: error"],
        ],
    ),
    (
        "io-error",
        &[
            &["I/O error, dev "],
            &["Buffer I/O error on dev"],
            &["critical medium error, dev "],
            &["critical target error, dev "],
            &["blk_update_request: ", " error, dev "],
            &["lost page write due to I/O error"],
            &["lost async page write"],
        ],
    ),
    (
        "storage-reset",
        &[
            &["nvme", " timeout, "],
            &["nvme", "controller is down; will reset"],
            &["nvme", "Removing after probe failure"],
            &["nvme", "Device not ready"],
            &[": hard resetting link"],
            &["ata", "exception Emask", "frozen"],
            &["rejecting I/O to offline device"],
            &["attempting task abort"],
            &["scsi", "host reset"],
            &["sd ", "timing out command"],
        ],
    ),
    // The kernel goes on after these (`kernel/sched/core.c`, `mm/{page_alloc,slub}.c`, `mm/{kasan,kfence}/report.c`, `kernel/workqueue.c`).
    (
        "bug",
        &[
            &["BUG: scheduling while atomic"],
            &["BUG: sleeping function called from invalid context"],
            &["BUG: workqueue lockup"],
            &["BUG: Bad page"],
            &["BUG: Bad rss-counter"],
            &["BUG: KASAN: "],
            &["BUG: KFENCE: "],
        ],
    ),
    ("oom-kill", &[&["ut of memory: Kill"]]),
    ("allocation-failure", &[&["page allocation failure: order:"], &["page allocation stalls for"]]),
    (
        "segfault",
        &[&[": segfault at "], &["traps: ", " general protection"], &["traps: ", "trap invalid opcode"]],
    ),
];

/// What an event means, where it is worth a finding: the code, how bad, the words before the count's reasons, and what to do next.
const FINDINGS: &[(&str, &str, Severity, &str, &str)] = &[
    (
        "oops",
        "KD-EVENT-OOPS",
        Severity::Error,
        "The kernel had oopsed before, and ran on damaged",
        "Look at the first oops: what came later may follow from it. kernel.panic_on_oops=1 ends the kernel at the first.",
    ),
    (
        "warning",
        "KD-EVENT-WARN",
        Severity::Warning,
        "The kernel had warned before",
        "Look up the file and line of the first warning in the source of that release.",
    ),
    (
        "bug",
        "KD-EVENT-BUG",
        Severity::Error,
        "The kernel had found a mistake in itself or in a driver before",
        "Look at the first of these lines and the call trace below it: who sleeps with a spinlock, or damages memory, brings others down later.",
    ),
    (
        "hardware-error",
        "KD-EVENT-HARDWARE",
        Severity::Error,
        "The hardware had reported errors before",
        "Look at rasdaemon of that host (ras-mc-ctl --errors) or mcelog, and at the BMC's event log (ipmitool sel elist).",
    ),
    (
        "fs-error",
        "KD-EVENT-FS-ERROR",
        Severity::Error,
        "A filesystem had reported errors before",
        "Check that filesystem when it is not mounted, after the device below it.",
    ),
    (
        "io-error",
        "KD-EVENT-IO-ERROR",
        Severity::Warning,
        "Devices had failed to read or write before",
        "Look at that device's own error log (smartctl -x, nvme error-log), and at the path to it (multipath -ll).",
    ),
    (
        "storage-reset",
        "KD-EVENT-STORAGE-RESET",
        Severity::Warning,
        "Storage had not answered in time, or was reset",
        "Look at that device, its controller and the path to it; of a guest, at its host's storage.",
    ),
    (
        "hung-task",
        "KD-EVENT-HUNG-TASK",
        Severity::Warning,
        "Tasks had hung before",
        "Look at the first of them: kdt triage --only events,blocked.",
    ),
    (
        "lockup",
        "KD-EVENT-LOCKUP",
        Severity::Warning,
        "CPUs had been locked up before",
        "Look at the call trace of the first lockup; of a guest, ask first whether its host was overcommitted.",
    ),
    (
        "rcu-stall",
        "KD-EVENT-RCU-STALL",
        Severity::Warning,
        "RCU had stalled before",
        "Look at the stalled CPU's call trace in the log.",
    ),
    (
        "allocation-failure",
        "KD-EVENT-ALLOCATION",
        Severity::Info,
        "Memory could not be had for some requests before",
        "Look at the order and the flags of the first: a high order points to fragmentation, order 0 to too little memory.",
    ),
];

/// The analysis.
pub(in crate::analysis) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let Some(log) = context.log else {
        let mut part = Part::default();
        part.skip("events", "they are read from the kernel log, which can't be read");
        return part;
    };
    let crashed = context.kernel.facts().crash_time.is_some();
    let events = before_the_end(log, crashed);
    let findings = events.iter().filter_map(finding).collect();
    let mut part = Part::new(move |report| report.events = events);
    part.findings = findings;
    part
}

/// All events before the last incident, each kind once, in order of their first time.
fn before_the_end(log: &KernelLog, crashed: bool) -> Vec<Event> {
    let end = from_log(log, crashed).map(|panic| panic.first_seq);
    let all = kernel_lines(log);
    let until = end.and_then(|end| all.iter().position(|line| line.seq >= end)).unwrap_or(all.len());
    let all = all.get(..until).unwrap_or_default();
    let mut found: Vec<Event> = Vec::new();
    let mut oops: Option<u64> = None;
    for (at, line) in all.iter().enumerate() {
        if line.word == Word::EndTrace {
            oops = None;
            continue;
        }
        if matches!(line.word, Word::Oops(_)) {
            // An oops has several telling lines.
            let ts = line.ts_ns.unwrap_or_default();
            let same = oops.is_some_and(|first| ts.saturating_sub(first) <= SIGN_NS);
            if same {
                continue;
            }
            oops = Some(ts);
        }
        let Some(kind) = kind(line) else { continue };
        // Seen with 6.12: the records that it speaks of can stand right behind, and they are what counts.
        let announces = kind == "hardware-error" && line.text.contains("Machine check events logged");
        if announces && all.iter().skip(at.saturating_add(1)).take(ANNOUNCED).any(|l| is_hardware(&l.text)) {
            continue;
        }
        let function = match kind {
            "oops" => {
                all.iter().skip(at).take(FUNCTION_LINES).find_map(|line| lines::instruction(&line.text))
            }
            "warning" => lines::trace_frame(&line.text),
            _ => None,
        };
        note(&mut found, kind, line, function.and_then(|frame| frame.symbol));
    }
    found
}

/// True where the kernel had oopsed before what ended it.
pub(in crate::analysis) fn survived_an_oops(log: &KernelLog, crashed: bool) -> bool {
    before_the_end(log, crashed).iter().any(|event| event.kind == "oops")
}

fn note(found: &mut Vec<Event>, kind: &str, line: &Line<'_>, function: Option<String>) {
    let ts = line.ts_ns.map(|ns| std::time::Duration::from_nanos(ns).as_secs_f64());
    let known = found.iter().position(|event| event.kind == kind);
    let at = known.unwrap_or(found.len());
    if known.is_none() {
        found.push(Event {
            kind: kind.into(),
            count: 0,
            first_s: ts,
            last_s: ts,
            functions: Vec::new(),
            line: line.text.trim_end().to_owned(),
        });
    }
    let Some(event) = found.get_mut(at) else { return };
    event.count = event.count.saturating_add(1);
    event.last_s = ts.or(event.last_s);
    if let Some(function) = function.filter(|name| !event.functions.contains(name))
        && event.functions.len() < FUNCTIONS
    {
        event.functions.push(function);
    }
}

fn kind(line: &Line<'_>) -> Option<&'static str> {
    match line.word {
        Word::Oops(_) => return Some("oops"),
        Word::Sign(PanicKind::Warn) => return Some("warning"),
        Word::Sign(PanicKind::HungTask) => return Some("hung-task"),
        Word::Sign(PanicKind::SoftLockup | PanicKind::HardLockup) => return Some("lockup"),
        Word::Sign(PanicKind::RcuStall) => return Some("rcu-stall"),
        _ => {}
    }
    if is_hardware(&line.text) {
        return Some("hardware-error");
    }
    let all = |words: &&&[&str]| words.iter().all(|word| line.text.contains(word));
    KINDS.iter().find(|(_, lists)| lists.iter().any(|list| all(&list))).map(|(kind, _)| *kind)
}

/// The first line of a record of an error, so that each is counted once: `mce: [Hardware Error]: CPU 2: Machine Check: …`,
/// `{1}[Hardware Error]: event severity: …`, `EDAC MC0: 1 CE …`. What drivers say of themselves at boot is none.
fn is_hardware(line: &str) -> bool {
    if let Some(rest) = line.strip_prefix("EDAC ") {
        return rest.contains(" CE ") || rest.contains(" UE ");
    }
    let tail = match line.split_once("[Hardware Error]") {
        Some((before, tail)) if before.is_empty() || before == "mce: " || before.starts_with('{') => tail,
        _ => return false,
    };
    ["Machine Check: ", "Machine Check Exception", "Machine check events logged", "event severity: "]
        .iter()
        .any(|words| tail.contains(words))
}

fn finding(event: &Event) -> Option<Finding> {
    let (_, code, severity, words, next) = FINDINGS.iter().find(|(kind, ..)| *kind == event.kind)?;
    let times = match event.count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let title = format!("{words}: {times}.");
    let mut finding =
        Finding::new(code, *severity, Confidence::Certain, title).because(match event.first_s {
            Some(first) => format!("the first, {first:.6} s after boot: {}", event.line),
            None => format!("the first: {}", event.line),
        });
    if let Some(last) = event.last_s.filter(|_| event.count > 1) {
        finding = finding.because(format!("the last was {last:.6} s after boot"));
    }
    if !event.functions.is_empty() {
        finding = finding.because(format!("in {}", event.functions.join(", ")));
    }
    Some(finding.next(*next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::panic::tests::log_of;

    fn kinds(text: &str) -> Vec<(String, u64)> {
        before_the_end(&log_of(text), true).into_iter().map(|event| (event.kind, event.count)).collect()
    }

    #[test]
    fn each_kind_is_told_by_the_kernel_s_words() {
        for (line, kind) in [
            (
                "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading directory",
                "fs-error",
            ),
            ("XFS (dm-0): Metadata corruption detected at xfs_agf_verify+0x4e/0x60", "fs-error"),
            ("I/O error, dev sda, sector 12345 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0", "io-error"),
            ("blk_update_request: I/O error, dev sdb, sector 1", "io-error"),
            ("Buffer I/O error on dev sda1, logical block 0, async page read", "io-error"),
            ("nvme nvme0: I/O 12 QID 1 timeout, aborting", "storage-reset"),
            (
                "nvme nvme0: I/O tag 12 (100c) opcode 0x2 (Read) QID 1 timeout, aborting req_op:READ(0)",
                "storage-reset",
            ),
            ("ata1: hard resetting link", "storage-reset"),
            ("Memory cgroup out of memory: Killed process 12 (a) total-vm:1kB", "oom-kill"),
            ("Out of memory: Killed process 12 (a) total-vm:1kB", "oom-kill"),
            (
                "x: page allocation failure: order:4, mode:0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO)",
                "allocation-failure",
            ),
            ("bash[12]: segfault at 0 ip 0000 sp 0000 error 4 in bash[1000]", "segfault"),
            ("mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: be00000000800400", "hardware-error"),
            ("{1}[Hardware Error]: event severity: corrected", "hardware-error"),
            ("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0", "hardware-error"),
            ("INFO: task a:1 blocked for more than 120 seconds.", "hung-task"),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]", "lockup"),
            ("rcu: INFO: rcu_preempt self-detected stall on CPU", "rcu-stall"),
        ] {
            let text = format!(
                "[    1.000000] {line}\n[  900.000000] sysrq: Trigger a crash\n[  900.000100] Kernel panic - not syncing: sysrq triggered crash\n"
            );
            assert_eq!(kinds(&text), [(kind.to_owned(), 1)], "{line}");
        }
    }

    /// The lines are those of 6.12 with QEMU's `mce` command.
    #[test]
    fn a_machine_check_that_is_announced_and_printed_is_one() {
        let text = "
[   14.822106] mce: [Hardware Error]: Machine check events logged
[   14.822419] mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 4: 9c00000000000000
[   14.822568] mce: [Hardware Error]: TSC 0 ADDR 1234000
[  900.000000] sysrq: Trigger a crash
[  900.000100] Kernel panic - not syncing: sysrq triggered crash
";
        assert_eq!(kinds(text), [("hardware-error".to_owned(), 1)]);
    }

    #[test]
    fn what_drivers_say_at_boot_is_no_event() {
        let text = "
[    0.100000] mce: CPU0: Thermal monitoring enabled (TM1)
[    0.200000] EDAC MC: Ver: 3.0.0
[    0.300000] HEST: Table parsing has been initialized.
[    0.400000] EXT4-fs (vda1): mounted filesystem with ordered data mode. Errors: remount-ro
[    0.500000] nvme nvme0: 2/0/0 default/read/poll queues
";
        assert_eq!(kinds(text), []);
    }

    #[test]
    fn an_earlier_oops_is_counted_once_with_its_function_and_the_last_one_is_not() {
        let oops = |at: &str, function: &str| {
            format!(
                "[{at}.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n[{at}.000100] Oops: 0002 [#1] SMP\n[{at}.000200] CPU: 0 PID: 1 Comm: a Not tainted 6.1.0 #1\n[{at}.000300] RIP: 0010:{function}+0x1/0x2\n"
            )
        };
        let text =
            format!("{}[ 1.000400] ---[ end trace 0 ]---\n{}", oops("    1", "first"), oops(" 5000", "last"));
        let found = before_the_end(&log_of(&text), true);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind.as_str(), found[0].count, found[0].first_s), ("oops", 1, Some(1.0)));
        assert_eq!(found[0].functions, ["first"]);
        let finding = finding(&found[0]).unwrap();
        assert_eq!(finding.title, "The kernel had oopsed before, and ran on damaged: once.");
    }

    #[test]
    fn whoever_writes_to_kmsg_makes_no_events() {
        let mut log = log_of("I/O error, dev sda, sector 1\n");
        log.records[0].facility = Some(1);
        assert_eq!(before_the_end(&log, false), []);
    }

    #[test]
    fn each_finding_of_an_event_is_on_the_page_of_findings() {
        let page = include_str!("../../../../docs/findings.md");
        for (_, code, ..) in FINDINGS {
            assert!(page.contains(&format!("### {code}\n")), "docs/findings.md has no {code}");
        }
    }
}
