use super::*;
use crate::report::{Address, Blocked, BlockedGroup, Blocker, Finding, Memory, Panic, Severity, SlabCache};

fn frame(name: &str, module: Option<&str>) -> Frame {
    Frame {
        pc: Some(Address(0xffff_ffff_8100_0010)),
        symbol: Some(name.into()),
        offset: Some(0x10),
        module: module.map(str::to_owned),
        trust: FrameTrust::Orc,
        sure: true,
        sp: None,
        file: None,
        line: None,
        inlined: false,
        stack: None,
        interrupted: false,
    }
}

fn report(kind: PanicKind, frames: Vec<Frame>) -> Report {
    let mut report = Report::empty("kdt", "0", "vmcore");
    report.symbols.unwinder = Some("orc".into());
    report.panic = Some(Panic {
        kind,
        message: "x".into(),
        cpu: Some(0),
        task: None,
        backtrace: frames,
        fault_address: None,
        instruction: None,
        registers: Vec::new(),
        culprit: None,
        first_bad_line: None,
    });
    report
}

fn signature(kind: PanicKind, names: &[&str]) -> Signature {
    of(&report(kind, names.iter().map(|name| frame(name, None)).collect())).unwrap()
}

#[test]
fn the_compiler_s_suffixes_and_offsets_are_no_part_of_a_name() {
    for name in
        ["f", "f.cold", "f.isra.0", "f.constprop.0.isra.1", "f.part.3", "f.llvm.123456", "f+0x12/0x40"]
    {
        assert_eq!(normal(name), "f", "{name}");
    }
    assert_eq!(normal(".L1"), ".L1");
}

#[test]
fn the_way_into_the_kernel_and_the_crash_code_do_not_count() {
    let old = [
        "null_deref",
        "lab_write.cold",
        "vfs_write",
        "ksys_write",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ];
    let new = [
        "panic",
        "oops_end.part.0",
        "page_fault_oops",
        "asm_exc_page_fault",
        "null_deref",
        "lab_write",
        "vfs_write",
        "ksys_write",
        "__x64_sys_write",
        "x64_sys_call",
        "do_syscall_64",
    ];
    let (old, new) = (signature(PanicKind::NullDeref, &old), signature(PanicKind::NullDeref, &new));
    assert_eq!(old.frames, ["null_deref", "lab_write", "vfs_write", "ksys_write"]);
    assert_eq!(old, new);
    assert_eq!(old.confidence, Confidence::Certain);
}

#[test]
fn a_hash_is_the_same_for_ever() {
    let found = signature(PanicKind::Bug, &["a", "b"]);
    assert_eq!(found.hash, "78e1e9353cc845ad281151f49741bd4a");
}

#[test]
fn what_an_interrupt_hit_is_chance() {
    let in_irq = [
        "hit",
        "tasklet_action_common",
        "handle_softirqs",
        "irq_exit_rcu",
        "asm_sysvec_apic_timer_interrupt",
        "chance",
    ];
    assert_eq!(signature(PanicKind::PageFault, &in_irq).frames, ["hit", "tasklet_action_common"]);
    // On top it is how the trouble was found.
    let found = ["watchdog_timer_fn", "asm_sysvec_apic_timer_interrupt", "loops", "caller"];
    assert_eq!(signature(PanicKind::SoftLockup, &found).frames, ["loops", "caller"]);
}

#[test]
fn debuginfo_and_guesses_do_not_change_it() {
    let plain = vec![frame("a", Some("m")), frame("b", None)];
    let mut more = plain.clone();
    more.insert(0, Frame { inlined: true, ..frame("inl", Some("m")) });
    more.insert(2, Frame { trust: FrameTrust::Scan, sure: false, ..frame("guess", None) });
    for frame in &mut more {
        frame.file = Some("a.c".into());
    }
    let (plain, more) = (report(PanicKind::Bug, plain), report(PanicKind::Bug, more));
    assert_eq!(of(&plain), of(&more));
    assert_eq!(of(&plain).unwrap().module.as_deref(), Some("m"));
}

#[test]
fn without_an_unwinder_it_is_weaker_and_without_a_stack_weakest() {
    let mut printed = report(PanicKind::Bug, vec![frame("a", None)]);
    printed.symbols.unwinder = None;
    assert_eq!(of(&printed).unwrap().confidence, Confidence::Likely);
    assert_eq!(signature(PanicKind::Bug, &["do_syscall_64"]).confidence, Confidence::Hint);
    assert_eq!(signature(PanicKind::Mce, &["by", "chance"]).frames, [""; 0]);
    assert_eq!(of(&Report::empty("kdt", "0", "vmcore")), None);
}

fn hung(kind: Option<PanicKind>, blocked: Blocked, code: &str) -> Report {
    let mut report =
        report(kind.unwrap_or(PanicKind::Sysrq), vec![frame("watchdog", None), frame("kthread", None)]);
    if kind.is_none() {
        report.panic = None;
    }
    report.blocked = Some(blocked);
    report.findings.push(Finding::new(code, Severity::Error, Confidence::Certain, "x"));
    report
}

fn group(pid: i64, count: u64, names: &[&str]) -> BlockedGroup {
    let symbols = names.iter().map(|name| (*name).to_owned()).collect();
    BlockedGroup { pids: vec![pid], count, oldest_s: Some(100.0), symbols, ..BlockedGroup::default() }
}

#[test]
fn a_hang_is_the_same_however_its_dump_was_taken() {
    let groups = vec![
        group(1, 1, &["schedule", "few"]),
        group(2, 9, &["__schedule", "schedule", "io_schedule", "many"]),
    ];
    let blocked = Blocked { groups, ..Blocked::default() };
    let all: Vec<Signature> = [Some(PanicKind::HungTask), Some(PanicKind::Sysrq), None]
        .into_iter()
        .map(|kind| of(&hung(kind, blocked.clone(), "KD-HANG-TASKS")).unwrap())
        .collect();
    assert_eq!((all[0].kind.as_str(), all[0].frames.as_slice()), ("hang", ["many".to_owned()].as_slice()));
    assert!(all.iter().all(|one| *one == all[0]));
}

#[test]
fn of_a_deadlock_it_does_not_matter_who_is_found_first() {
    let groups = vec![group(1, 1, &["__mutex_lock.constprop.0", "zz"]), group(2, 1, &["__mutex_lock", "aa"])];
    let with = |cycle: Vec<i64>| {
        let blocked = Blocked { groups: groups.clone(), cycles: vec![cycle], ..Blocked::default() };
        of(&hung(None, blocked, "KD-HANG-DEADLOCK")).unwrap()
    };
    assert_eq!(with(vec![1, 2]).frames, ["aa"]);
    assert_eq!(with(vec![1, 2]), with(vec![2, 1]));
}

#[test]
fn who_holds_the_others_up_names_the_hang() {
    let holder =
        Blocker { pid: 7, symbols: vec!["msleep".into(), "holds".into()], all: 9, ..Blocker::default() };
    let blocked =
        Blocked { groups: vec![group(1, 9, &["waits"])], blockers: vec![holder], ..Blocked::default() };
    assert_eq!(of(&hung(None, blocked.clone(), "KD-HANG-BLOCKED-BY")).unwrap().frames, ["holds"]);
    assert_eq!(of(&hung(None, blocked, "KD-HANG-TASKS")).unwrap().frames, ["waits"]);
}

#[test]
fn memory_that_ran_out_is_known_by_what_held_it() {
    let mut first = report(PanicKind::Oom, vec![frame("chance", None)]);
    first.memory = Some(Memory { total: Some(100), ..Memory::default() });
    assert_eq!(of(&first).unwrap().confidence, Confidence::Hint);
    first.slab = vec![SlabCache { name: "leaky".into(), bytes: Some(60), ..SlabCache::default() }];
    let mut second = first.clone();
    second.panic.as_mut().unwrap().backtrace = vec![frame("another", None)];
    assert_eq!(of(&first).unwrap().about.as_deref(), Some("slab leaky"));
    assert_eq!(of(&first), of(&second));
}

#[test]
fn likeness_needs_the_same_kind_and_module_and_most_of_the_stack() {
    let one = signature(PanicKind::Bug, &["a", "b", "c", "d"]);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(close(similarity(&one, &one), 1.0));
    // Three of four from the top, three of five in all.
    assert!(close(
        similarity(&one, &signature(PanicKind::Bug, &["a", "b", "c", "e"])),
        f64::midpoint(0.75, 0.6)
    ));
    assert!(similarity(&one, &signature(PanicKind::Bug, &["x", "b", "y", "z"])) < NEAR);
    assert!(close(similarity(&one, &signature(PanicKind::NullDeref, &["a", "b", "c", "d"])), 0.0));
    let elsewhere = Signature { module: Some("m".into()), hash: String::new(), ..one.clone() };
    assert!(close(similarity(&one, &elsewhere), 0.0));
    let later = Signature { version: 2, ..one.clone() };
    assert!(close(similarity(&one, &later), 0.0));
}
