use proptest::prelude::*;

use super::*;
use crate::kernel::printk::{Generation, LogRecord, LostRecords};
use crate::kernel::walk::WalkEnd;

/// A log of lines as dmesg prints them: `[    1.000000] text`. One without a time has that of the line before it.
pub(super) fn log_of(text: &str) -> KernelLog {
    let mut records: Vec<LogRecord> = Vec::new();
    for (seq, line) in (0_u64..).zip(text.lines().filter(|l| !l.is_empty())) {
        let stamped = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let stamp = stamped.and_then(|(stamp, text)| Some((nanoseconds(stamp)?, text)));
        let before = records.last().and_then(|r| r.ts_ns).unwrap_or(100_000_000_000);
        let (ts, text) = stamp.unwrap_or((before, line));
        let text = text.as_bytes().to_vec();
        records.push(LogRecord { seq, ts_ns: Some(ts), facility: Some(0), text, ..LogRecord::default() });
    }
    KernelLog {
        generation: Generation::Ring,
        records,
        dropped: Some(0),
        unfinished: 0,
        lost: LostRecords::default(),
        end: WalkEnd::Complete,
    }
}

fn nanoseconds(stamp: &str) -> Option<u64> {
    let (seconds, micros) = stamp.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

fn told(text: &str) -> LoggedPanic {
    from_log(&log_of(text), true).expect("a panic")
}

/// What 6.12 prints for `echo c > /proc/sysrq-trigger` (Debian 6.12.117, QEMU).
const SYSRQ: &str = "
[   12.601622] sysrq: Trigger a crash
[   12.602955] Kernel panic - not syncing: sysrq triggered crash
[   12.603936] CPU: 0 UID: 0 PID: 1 Comm: init Kdump: loaded Not tainted 6.12.117+deb12-cloud-amd64 #1  Debian 6.12.117-1~deb12u1
[   12.604604] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-debian-1.16.2-1 04/01/2014
[   12.605248] Call Trace:
[   12.611024]  <TASK>
[   12.612379]  panic+0x344/0x3a0
[   12.613300]  ? _printk+0x64/0x80
[   12.613568]  sysrq_handle_crash+0x1a/0x20
[   12.613866]  __handle_sysrq+0xa7/0x1a0
[   12.618846] RIP: 0033:0x47b7a0
[   12.624096]  </TASK>
";

#[test]
fn a_requested_crash_is_a_sysrq_with_the_panics_own_sentence() {
    let panic = told(SYSRQ);
    assert_eq!(panic.kind, PanicKind::Sysrq);
    assert_eq!(panic.message, "Kernel panic - not syncing: sysrq triggered crash");
    assert_eq!((panic.cpu, panic.pid, panic.comm.as_deref()), (Some(0), Some(1), Some("init")));
    let symbols: Vec<_> = panic.trace.iter().filter_map(|f| f.symbol.as_deref()).collect();
    assert_eq!(symbols, ["panic", "_printk", "sysrq_handle_crash", "__handle_sysrq"]);
    assert_eq!(panic.instruction, None);
    assert_eq!(panic.evidence.first().map(|e| e.text.as_str()), Some("sysrq: Trigger a crash"));
    let report = panic.to_report();
    assert_eq!(report.task.and_then(|t| t.comm).as_deref(), Some("init"));
}

#[test]
fn sysrq_of_old_kernels_is_not_taken_for_a_null_pointer() {
    let panic = told(
        "
SysRq : Trigger a crash
BUG: unable to handle kernel NULL pointer dereference at           (null)
IP: [<ffffffff8140d9f6>] sysrq_handle_crash+0x16/0x20
PGD 7a5b9067 PUD 79c53067 PMD 0
Oops: 0002 [#1] SMP
CPU: 1 PID: 2034 Comm: bash Not tainted 3.10.0-1160.el7.x86_64 #1
RIP: 0010:[<ffffffff8140d9f6>]  [<ffffffff8140d9f6>] sysrq_handle_crash+0x16/0x20
Call Trace:
 [<ffffffff8140e1f7>] __handle_sysrq+0x107/0x170
 [<ffffffff81203a5f>] vfs_write+0xbf/0x1e0
Code: eb 9b 45
",
    );
    assert_eq!(panic.kind, PanicKind::Sysrq);
    assert_eq!(panic.instruction.and_then(|f| f.symbol).as_deref(), Some("sysrq_handle_crash"));
    assert_eq!(panic.trace.len(), 2);
    assert_eq!((panic.cpu, panic.pid), (Some(1), Some(2034)));
}

/// An oops that kdump takes over from: no `end trace`, no `Kernel panic`.
const NULL: &str = "
[   50.000000] lkdtm: loading out-of-tree module taints kernel.
[   60.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010
[   60.000001] #PF: supervisor read access in kernel mode
[   60.000002] #PF: error_code(0x0000) - not-present page
[   60.000003] PGD 0 P4D 0
[   60.000004] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   60.000005] CPU: 1 PID: 77 Comm: insmod Kdump: loaded Tainted: G           OE      6.1.0-56-cloud-amd64 #1
[   60.000006] RIP: 0010:boom+0x5/0x10 [crasher]
[   60.000007] Code: 00 00 48
[   60.000008] Call Trace:
[   60.000009]  <TASK>
[   60.000010]  ? __die_body.cold+0x1a/0x1f
[   60.000011]  do_one_initcall+0x56/0x230
[   60.000012]  </TASK>
[   60.000013] Modules linked in: crasher(OE+)
[   60.000014] CR2: 0000000000000010
";

#[test]
fn an_oops_that_kdump_takes_over_from_is_the_panic() {
    let panic = told(NULL);
    assert_eq!(panic.kind, PanicKind::NullDeref);
    assert_eq!(panic.message, "BUG: kernel NULL pointer dereference, address: 0000000000000010");
    assert_eq!((panic.cpu, panic.pid, panic.comm.as_deref()), (Some(1), Some(77), Some("insmod")));
    let at = panic.instruction.unwrap();
    assert_eq!((at.symbol.as_deref(), at.module.as_deref()), (Some("boom"), Some("crasher")));
    assert_eq!(panic.panic_line, None);
}

#[test]
fn the_oops_wins_over_the_fatal_exception_that_ends_it() {
    let text = format!(
        "{NULL}---[ end trace 0000000000000000 ]---\n[   60.100000] Kernel panic - not syncing: Fatal exception\n"
    );
    let panic = told(&text);
    assert_eq!(panic.kind, PanicKind::NullDeref);
    assert_eq!(panic.panic_line.as_deref(), Some("Kernel panic - not syncing: Fatal exception"));
    assert_eq!(
        panic.evidence.last().map(|e| e.text.as_str()),
        Some("Kernel panic - not syncing: Fatal exception")
    );
}

#[test]
fn a_kernel_that_went_on_after_an_oops_has_not_panicked() {
    let text = format!("{NULL}---[ end trace 0000000000000000 ]---\n[ 9000.000000] eth0: link up\n");
    assert_eq!(from_log(&log_of(&text), false), None);
    // Nor has one whose end of the trace was pushed out or lost, if hours of log follow.
    let text = format!("{NULL}[ 9000.000000] eth0: link up\n");
    assert_eq!(from_log(&log_of(&text), false), None);
}

#[test]
fn an_old_oops_is_not_the_cause_of_a_later_panic() {
    let text = format!(
        "{NULL}---[ end trace 0000000000000000 ]---\n[ 9000.000000] sysrq: Trigger a crash\n[ 9000.000100] Kernel panic - not syncing: sysrq triggered crash\n"
    );
    assert_eq!(told(&text).kind, PanicKind::Sysrq);
    let text = format!(
        "{NULL}---[ end trace 0000000000000000 ]---\n[ 9000.000000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
    );
    let panic = told(&text);
    assert_eq!(panic.kind, PanicKind::Other);
    assert_eq!(panic.message, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100");
}

#[test]
fn a_warning_alone_is_no_panic() {
    let text = "
------------[ cut here ]------------
WARNING: CPU: 0 PID: 9 at kernel/x.c:1 f+0x1/0x2
CPU: 0 PID: 9 Comm: x Not tainted 6.1.0 #1
---[ end trace 0000000000000000 ]---
";
    assert_eq!(from_log(&log_of(text), false), None);
    let text =
        text.replace("---[ end", "Kernel panic - not syncing: kernel: panic_on_warn set ...\n---[ end");
    let panic = told(&text);
    assert_eq!(panic.kind, PanicKind::Warn);
    assert_eq!(panic.message, "WARNING: CPU: 0 PID: 9 at kernel/x.c:1 f+0x1/0x2");
    assert_eq!(panic.comm.as_deref(), Some("x"));
}

#[test]
fn a_bug_is_named_by_its_place_and_what_led_to_it() {
    let panic = told(
        "
list_del corruption. prev->next should be ffff888003f7d008, but was dead000000000100
------------[ cut here ]------------
kernel BUG at lib/list_debug.c:53!
invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: 11 Comm: kworker/0:1 Not tainted 6.1.0 #1
RIP: 0010:__list_del_entry_valid.cold+0x31/0x47
",
    );
    assert_eq!(panic.kind, PanicKind::Bug);
    assert!(panic.message.starts_with("list_del corruption. prev->next"), "{}", panic.message);
    let evidence: Vec<&str> = panic.evidence.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(evidence, [panic.message.as_str(), "kernel BUG at lib/list_debug.c:53!"]);
}

/// The words are those of `lib/refcount.c` of 6.1 and `lib/string_helpers.c` of 6.12.
#[test]
fn what_a_warning_says_is_its_headline_and_that_of_the_bug_it_leads_to() {
    let refcount = "
------------[ cut here ]------------
refcount_t: underflow; use-after-free.
WARNING: CPU: 0 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
CPU: 0 PID: 9 Comm: x Not tainted 6.1.0 #1
Kernel panic - not syncing: kernel: panic_on_warn set ...
";
    let panic = told(refcount);
    assert_eq!(
        (panic.kind, panic.message.as_str()),
        (PanicKind::Warn, "refcount_t: underflow; use-after-free.")
    );
    assert!(panic.evidence.iter().any(|line| line.text.starts_with("WARNING: ")), "{:?}", panic.evidence);
    let fortify = "
------------[ cut here ]------------
memcpy: detected buffer overflow: 32 byte write of buffer size 16
WARNING: CPU: 0 PID: 9 at lib/string_helpers.c:1034 __fortify_report+0x45/0x60
CPU: 0 UID: 0 PID: 9 Comm: x Not tainted 6.12.0 #1
---[ end trace 0000000000000000 ]---
------------[ cut here ]------------
kernel BUG at lib/string_helpers.c:1042!
Oops: invalid opcode: 0000 [#1] PREEMPT SMP
CPU: 0 UID: 0 PID: 9 Comm: x Not tainted 6.12.0 #1
";
    let panic = told(fortify);
    assert_eq!(panic.kind, PanicKind::Bug);
    assert_eq!(panic.message, "memcpy: detected buffer overflow: 32 byte write of buffer size 16");
}

/// The words are those of `mm/kasan/report.c` and `lib/ubsan.c` of 6.12.
#[test]
fn a_report_that_panic_on_warn_made_a_panic_is_its_headline() {
    for (report, origin) in [
        ("BUG: KASAN: slab-use-after-free in late+0x1b/0x30 [x]", "KASAN"),
        ("BUG: scheduling while atomic: x/9/0x00000002", "scheduling while atomic"),
        ("UBSAN: array-index-out-of-bounds in x.c:9:2", "UBSAN"),
    ] {
        let text = format!(
            "WARNING: CPU: 0 PID: 8 at y.c:1 y+0x1/0x2\n---[ end trace 0000000000000000 ]---\n{report}\n\
             CPU: 0 UID: 0 PID: 9 Comm: x Not tainted 6.12.0 #1\nCall Trace:\n late+0x1b/0x30 [x]\n\
             Kernel panic - not syncing: {origin}: panic_on_warn set ...\n"
        );
        let panic = told(&text);
        assert_eq!((panic.kind, panic.message.as_str(), panic.pid), (PanicKind::Warn, report, Some(9)));
    }
}

#[test]
fn what_only_happens_to_stand_before_a_bug_is_not_its_headline() {
    let text = "
[    3.689680] x: loading out-of-tree module taints kernel.
[    3.689700] ------------[ cut here ]------------
[    3.689710] kernel BUG at /build/x.c:9!
[    3.689720] CPU: 0 PID: 9 Comm: insmod Not tainted 6.1.0 #1
";
    let message = |level: u8, caller: u32| {
        let mut log = log_of(text);
        for record in &mut log.records {
            record.caller = Some(Caller::Task(9));
        }
        log.records[0].level = Some(level);
        log.records[0].caller = Some(Caller::Task(caller));
        from_log(&log, true).unwrap().message
    };
    assert_eq!(message(4, 9), "kernel BUG at /build/x.c:9!");
    assert_eq!(message(3, 8), "kernel BUG at /build/x.c:9!");
    assert_eq!(message(3, 9), "x: loading out-of-tree module taints kernel.");
}

#[test]
fn trouble_that_can_be_survived_is_not_what_a_kernel_died_of_whose_last_words_are_lost() {
    for line in [
        "sh invoked oom-killer: gfp_mask=0x140cca, order=0, oom_score_adj=0",
        "INFO: task dd:80 blocked for more than 20 seconds.",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
    ] {
        let log = log_of(&format!("Linux version 6.1\n{line}\neth0: link up\n"));
        assert_eq!(from_log(&log, true), None, "{line}");
        assert_eq!(last_trouble(&log).as_deref(), Some(line));
    }
    let asked = log_of("sh invoked oom-killer: gfp_mask=0x1\nsysrq: Trigger a crash\n");
    assert_eq!(from_log(&asked, true).map(|panic| panic.kind), Some(PanicKind::Sysrq));
}

#[test]
fn an_invalid_opcode_before_its_bug_line_is_the_bug() {
    let panic = told(
        "Oops: invalid opcode: 0000 [#1] SMP\nkernel BUG at fs/x.c:1!\nCPU: 0 PID: 1 Comm: a Not tainted 6.12 #1\n",
    );
    assert_eq!(panic.kind, PanicKind::Bug);
}

#[test]
fn each_detector_is_named_and_its_sentence_kept() {
    let cases = [
        (
            "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [insmod:77]\nCPU: 1 PID: 77 Comm: insmod Tainted: G  6.1 #1\nRIP: 0010:spin+0x1/0x2 [x]\n\
             Kernel panic - not syncing: softlockup: hung tasks\nCPU: 1 PID: 77 Comm: insmod Tainted: G 6.1\n",
            PanicKind::SoftLockup,
            "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [insmod:77]",
            Some(77),
        ),
        (
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1\nCPU: 1 PID: 77 Comm: insmod Tainted: G  6.1 #1\nKernel panic - not syncing: Hard LOCKUP\n",
            PanicKind::HardLockup,
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1",
            Some(77),
        ),
        (
            "INFO: task dd:80 blocked for more than 20 seconds.\ntask:dd state:D stack:0 pid:80\nINFO: task cp:81 blocked for more than 20 seconds.\n\
             Kernel panic - not syncing: hung_task: blocked tasks\nCPU: 0 PID: 30 Comm: khungtaskd Not tainted 6.1 #1\n",
            PanicKind::HungTask,
            "INFO: task dd:80 blocked for more than 20 seconds.",
            Some(30),
        ),
        (
            "sh invoked oom-killer: gfp_mask=0x140cca, order=0, oom_score_adj=0\nCPU: 0 PID: 90 Comm: sh Not tainted 6.1 #1\nMem-Info:\n\
             Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled\nCPU: 0 PID: 90 Comm: sh Not tainted 6.1 #1\n",
            PanicKind::Oom,
            "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
            Some(90),
        ),
        (
            "rcu: INFO: rcu_preempt self-detected stall on CPU\nrcu: \t1-....: (5250 ticks this GP)\nKernel panic - not syncing: RCU Stall\nCPU: 1 PID: 77 Comm: insmod Not tainted 6.1\n",
            PanicKind::RcuStall,
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            Some(77),
        ),
        (
            "BUG: TASK stack guard page was hit at 00000000d2b1b8f5 (stack is 1..2)\nstack guard page: 0000 [#1] PREEMPT SMP\nCPU: 0 PID: 5 Comm: a Not tainted 6.1\n",
            PanicKind::StackOverflow,
            "BUG: TASK stack guard page was hit at 00000000d2b1b8f5 (stack is 1..2)",
            Some(5),
        ),
        (
            "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 0: be00\nmce: [Hardware Error]: TSC 1\nKernel panic - not syncing: Fatal machine check\n",
            PanicKind::Mce,
            "Kernel panic - not syncing: Fatal machine check",
            None,
        ),
        (
            "Uhhuh. NMI received for unknown reason 30 on CPU 0.\nKernel panic - not syncing: NMI: Not continuing\nCPU: 0 PID: 0 Comm: swapper/0 Not tainted 6.1\n",
            PanicKind::Nmi,
            "Kernel panic - not syncing: NMI: Not continuing",
            Some(0),
        ),
    ];
    for (text, kind, message, pid) in cases {
        let panic = told(text);
        assert_eq!((panic.kind, panic.message.as_str(), panic.pid), (kind, message, pid), "{text}");
    }
}

/// The words are those of `kernel/watchdog_hld.c` of 6.1 and `kernel/watchdog.c` of 6.12.
#[test]
fn a_hard_lockup_is_one_whichever_detector_saw_it() {
    let perf_6_1 = "
[   40.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 1
[   40.000100] Modules linked in: lab_fail(OE)
[   40.000200] CPU: 1 PID: 77 Comm: insmod Kdump: loaded Tainted: G           OE      6.1.0 #1
[   40.000300] RIP: 0010:spin+0x2/0x10 [lab_fail]
[   40.000400] Kernel panic - not syncing: Hard LOCKUP
";
    let perf_6_12 = "
[   40.000000] watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1
[   40.000100] Modules linked in: lab_fail(OE)
[   40.000200] CPU: 1 UID: 0 PID: 77 Comm: insmod Kdump: loaded Tainted: G           OE      6.12.0 #1
[   40.000300] RIP: 0010:spin+0x2/0x10 [lab_fail]
[   40.000400] Kernel panic - not syncing: Hard LOCKUP
";
    for text in [perf_6_1, perf_6_12] {
        let panic = told(text);
        assert_eq!((panic.kind, panic.cpu, panic.pid), (PanicKind::HardLockup, Some(1), Some(77)), "{text}");
        assert_eq!(panic.stalled, [0_u32; 0], "{text}");
        assert!(panic.message.contains("hard LOCKUP on cpu 1"), "{}", panic.message);
    }
    // With the buddy detector the CPU that panics is not the one that is locked up, which prints in between.
    let buddy = "
[   40.000000] watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1
[   40.000100] Modules linked in: lab_fail(OE)
[   40.000200] Sending NMI from CPU 0 to CPUs 1:
[   40.000300] NMI backtrace for cpu 1
[   40.000400] CPU: 1 UID: 0 PID: 77 Comm: insmod Kdump: loaded Tainted: G           OE      6.12.0 #1
[   40.000500] RIP: 0010:spin+0x2/0x10 [lab_fail]
[   40.000600] Kernel panic - not syncing: Hard LOCKUP
[   40.000700] CPU: 0 UID: 0 PID: 0 Comm: swapper/0 Kdump: loaded Tainted: G           OE      6.12.0 #1
";
    let panic = told(buddy);
    assert_eq!((panic.kind, panic.cpu, panic.pid), (PanicKind::HardLockup, Some(0), None));
    assert_eq!(panic.stalled, [1]);
}

#[test]
fn what_user_space_writes_into_the_log_is_not_believed() {
    let mut log = log_of("Kernel panic - not syncing: made up\n");
    log.records[0].facility = Some(1);
    assert_eq!(from_log(&log, true), None);
}

#[test]
fn lines_of_another_cpu_in_between_are_passed_over() {
    let mut log = log_of(NULL);
    for record in &mut log.records {
        record.caller = Some(Caller::Task(77));
    }
    let mut other =
        log_of("CPU: 0 PID: 1 Comm: other Not tainted 6.1\nRIP: 0010:elsewhere+0x1/0x2\n").records;
    for record in &mut other {
        record.caller = Some(Caller::Task(1));
        record.ts_ns = Some(60_000_000_000);
    }
    let at = 3;
    log.records.splice(at..at, other);
    let panic = from_log(&log, true).unwrap();
    assert_eq!(panic.comm.as_deref(), Some("insmod"));
    assert_eq!(panic.instruction.and_then(|f| f.symbol).as_deref(), Some("boom"));
}

#[test]
fn a_panic_without_a_report_is_named_after_the_caller_of_its_record() {
    let mut log = log_of("sysrq: Trigger a crash\nKernel panic - not syncing: sysrq triggered crash\n");
    for record in &mut log.records {
        record.caller = Some(Caller::Task(412));
    }
    assert_eq!(from_log(&log, false).and_then(|p| p.pid), Some(412));
    for record in &mut log.records {
        record.caller = Some(Caller::Cpu(3));
    }
    assert_eq!(from_log(&log, false).map(|p| (p.cpu, p.pid)), Some((Some(3), None)));
}

#[test]
fn a_healthy_log_has_no_panic() {
    assert_eq!(from_log(&log_of("Linux version 6.1\nrandom: crng init done\n"), false), None);
    assert_eq!(from_log(&log_of(""), true), None);
}

proptest! {
    #[test]
    fn any_lines_are_survived(texts in proptest::collection::vec("(Kernel panic - not syncing|Oops: 0|kernel BUG at |---\\[ end trace|CPU: 1|RIP: |Call Trace:|INFO: task )?.{0,40}", 0..40), crashed: bool) {
        let _ = from_log(&log_of(&texts.join("\n")), crashed);
    }
}
