//! Whose code a panic came from: the task, and the first function that is not the kernel's own reporting.

use super::LoggedPanic;
use super::lines;
use crate::analysis::blocked;
use crate::analysis::parts::Context;
use crate::report::{Confidence, Culprit, Frame, FrameTrust, Panic, PanicKind, TaskRef};

/// Functions in which the kernel only finds and reports what their caller did wrong (`lib/list_debug.c`, `lib/refcount.c`,
/// `mm/usercopy.c`, `lib/string_helpers.c`, `lib/debugobjects.c`, `lib/dump_stack.c`, `kernel/panic.c`, `kernel/sched/core.c`).
const REPORTING: &[&str] = &[
    "__list_add_valid",
    "__list_add_valid_or_report",
    "__list_del_entry_valid",
    "__list_del_entry_valid_or_report",
    "refcount_warn_saturate",
    "usercopy_abort",
    "__check_object_size",
    "check_heap_object",
    "fortify_panic",
    "__fortify_panic",
    "__fortify_report",
    "__stack_chk_fail",
    "debug_print_object",
    "debug_object_init",
    "debug_object_activate",
    "dump_stack",
    "dump_stack_lvl",
    "panic",
    "__warn_printk",
    // What they are given to free was freed before, or is none of theirs (`mm/slub.c`).
    "kfree",
    "kmem_cache_free",
    "__kmem_cache_free",
    "__slab_free",
    "__schedule_bug",
    "schedule_debug",
    "__might_sleep",
    "__might_resched",
];

/// Functions in which a CPU waits for another one, for a lock or for time to pass: it is their caller that does not get on
/// (`kernel/locking`, `arch/x86/lib/delay.c`).
const SPINNING: &[&str] = &[
    "native_queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "virt_spin_lock",
    "osq_lock",
    "_raw_spin_lock",
    "_raw_spin_lock_bh",
    "_raw_spin_lock_irq",
    "_raw_spin_lock_irqsave",
    "_raw_read_lock",
    "_raw_read_lock_bh",
    "_raw_read_lock_irq",
    "_raw_read_lock_irqsave",
    "_raw_write_lock",
    "_raw_write_lock_bh",
    "_raw_write_lock_irq",
    "_raw_write_lock_irqsave",
    "delay_tsc",
    "delay_loop",
    "__delay",
    "__const_udelay",
    "__udelay",
    "__ndelay",
    "smp_call_function_many_cond",
    "smp_call_function_single",
];

/// Where a panic came from, as far as it can be told. The report has its CPUs and tasks already.
pub(super) fn culprit(context: &Context<'_>, panic: &Panic, logged: &LoggedPanic) -> Option<Culprit> {
    match panic.kind {
        PanicKind::HungTask => hung(context, logged),
        PanicKind::RcuStall => stalled(context, panic, logged, "RCU waited for"),
        PanicKind::HardLockup if !logged.stalled.is_empty() => {
            stalled(context, panic, logged, "the watchdog saw no interrupts on")
        }
        // Who asked for memory is known; where, does not matter: the memory report tells who had it.
        PanicKind::Oom => panic.task.clone().map(|task| Culprit {
            task: Some(task),
            module: None,
            function: None,
            confidence: Confidence::Hint,
            because: "it asked for memory; the memory report tells who has it".into(),
        }),
        PanicKind::SoftLockup | PanicKind::HardLockup | PanicKind::Nmi => {
            let why = "the CPU was interrupted there";
            // Whoever was interrupted in user space has no function of the kernel to name.
            let of_kernel =
                panic.backtrace.first().is_none_or(|frame| frame.interrupted || frame.pc.is_none());
            let frames = if of_kernel { panic.backtrace.as_slice() } else { &[] };
            from_frames(panic.task.clone(), frames, &[REPORTING, SPINNING], why, logged)
        }
        PanicKind::Mce => None,
        _ => {
            let why = if panic.backtrace.first().is_some_and(|frame| frame.interrupted) {
                "the exception's registers name it"
            } else {
                "it is the first function that does not belong to the panic itself"
            };
            from_frames(panic.task.clone(), &panic.backtrace, &[REPORTING], why, logged)
        }
    }
}

fn from_frames(
    task: Option<TaskRef>,
    frames: &[Frame],
    skip: &[&[&str]],
    why: &str,
    logged: &LoggedPanic,
) -> Option<Culprit> {
    let skipped = |frame: &&Frame| {
        let name = bare(frame);
        skip.iter().any(|set| set.contains(&name.as_str()))
    };
    // Who called what is no code (a callback that was never set, a stale pointer) is to blame: that place itself has no name.
    let no_code =
        |frame: &Frame| frame.symbol.is_none() || frame.pc.is_some_and(|pc| logged.is_at_fault(pc.0));
    let nowhere = frames.first().filter(|frame| frame.interrupted && no_code(frame));
    let nowhere = nowhere.filter(|_| frames.get(1).is_some_and(|caller| caller.sure));
    let skips = match nowhere {
        Some(_) => 1,
        None => frames.iter().take_while(skipped).count(),
    };
    // Without a caller, what reports is at least the place.
    let frame = frames.get(skips).or(frames.first());
    let Some(frame) = frame.filter(|frame| frame.symbol.is_some()) else {
        return task.map(|task| Culprit {
            task: Some(task),
            module: None,
            function: None,
            confidence: Confidence::Hint,
            because: "it ran on that CPU; no function of the kernel is known to have been at work".into(),
        });
    };
    let same = |own: &Frame| own.symbol == frame.symbol && own.module == frame.module;
    let told = logged.instruction.as_ref().is_some_and(same);
    let exact = skips == 0 && frame.interrupted && frame.trust == FrameTrust::Regs;
    let confidence = match (frame.sure, exact && told) {
        (true, true) => Confidence::Certain,
        (true, false) => Confidence::Likely,
        (false, _) => Confidence::Hint,
    };
    let mut because = why.to_owned();
    if exact && told {
        because.push_str(", and the log names the same");
    }
    if let Some(first) = frames.first().filter(|_| skips > 0).and_then(|f| f.symbol.as_deref()) {
        because = format!("it is what called {first}, which only reports or waits");
    }
    if let Some(pc) = nowhere.and_then(|frame| frame.pc) {
        because = format!("it is what called {pc}, where no code is");
    }
    if frame.stack.as_deref().is_some_and(|stack| stack != "task" && stack != "unknown") {
        because
            .push_str("; it ran in an interrupt or exception, so that the task need not have to do with it");
    }
    Some(Culprit { task, module: frame.module.clone(), function: frame.symbol.clone(), confidence, because })
}

/// The function without what the compiler appends.
fn bare(frame: &Frame) -> String {
    let name = frame.symbol.as_deref().unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default();
    name.to_owned()
}

/// The task that the message names, not the detector's thread that panicked.
fn hung(context: &Context<'_>, logged: &LoggedPanic) -> Option<Culprit> {
    let (comm, pid) = lines::hung_task(&logged.message)?;
    let number = u32::try_from(pid).ok();
    let found = number.and_then(|pid| context.tasks.by_pid(pid)).filter(|task| task.comm == comm);
    let task = match found {
        Some(task) => crate::analysis::tasks::name(task),
        None => TaskRef { pid: Some(pid), comm: Some(comm), kaddr: None },
    };
    let frames = context.report.tasks.iter().find(|own| own.pid == pid).map(|own| own.backtrace.as_slice());
    let frames = frames.filter(|_| found.is_some()).unwrap_or_default();
    let frame = frames.iter().find(|frame| !frame.symbol.as_deref().is_some_and(blocked::is_sleeping));
    Some(Culprit {
        task: Some(task),
        module: frame.and_then(|frame| frame.module.clone()),
        function: frame.and_then(|frame| frame.symbol.clone()),
        confidence: if frame.is_some_and(|frame| frame.sure) { Confidence::Likely } else { Confidence::Hint },
        because: "the kernel named this task as the one that hung; whom it waits for may be to blame".into(),
    })
}

/// The CPU that stood still, not the one that found out. `why` is what somebody saw of it.
fn stalled(context: &Context<'_>, panic: &Panic, logged: &LoggedPanic, why: &str) -> Option<Culprit> {
    let number = logged.stalled.first().copied()?;
    if Some(number) == panic.cpu {
        let why = &format!("{why} its own CPU");
        let from = panic.backtrace.iter().position(|frame| frame.interrupted).unwrap_or_default();
        let frames = panic.backtrace.get(from..).unwrap_or_default();
        return from_frames(panic.task.clone(), frames, &[REPORTING, SPINNING], why, logged);
    }
    let cpu = context.report.cpus.iter().find(|cpu| cpu.cpu == number);
    let current = usize::try_from(number).ok().and_then(|cpu| context.tasks.current(cpu));
    let task = cpu.and_then(|cpu| cpu.task.clone()).or_else(|| current.map(crate::analysis::tasks::name));
    let frames = cpu.map(|cpu| cpu.backtrace.as_slice()).unwrap_or_default();
    // What asks the CPU for its own trace, and what stops it for the dump, came upon it in interrupts.
    let on_task = |frame: &Frame| frame.interrupted && frame.stack.as_deref() == Some("task");
    let from = frames.iter().rposition(on_task);
    let from = from.or_else(|| frames.iter().position(|frame| frame.interrupted)).unwrap_or_default();
    let why = format!("{why} CPU {number}, which was there");
    from_frames(task, frames.get(from..).unwrap_or_default(), &[REPORTING, SPINNING], &why, logged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::panic::from_log;
    use crate::analysis::panic::tests::log_of;

    fn frame(symbol: &str, interrupted: bool) -> Frame {
        let mut frame = lines::trace_frame(&format!(" {symbol}+0x1/0x10")).unwrap();
        if interrupted {
            (frame.interrupted, frame.trust) = (true, FrameTrust::Regs);
        }
        frame
    }

    fn oops(function: &str) -> LoggedPanic {
        let text = format!(
            "kernel BUG at a.c:1!\nCPU: 0 PID: 1 Comm: a Not tainted 6.1.0 #1\nRIP: 0010:{function}+0x1/0x10\n"
        );
        from_log(&log_of(&text), true).unwrap()
    }

    #[test]
    fn the_faulting_function_is_certain_where_registers_and_log_agree() {
        let frames = [frame("bad", true), frame("caller", false)];
        let found = from_frames(None, &frames, &[REPORTING], "why", &oops("bad")).unwrap();
        assert_eq!((found.function.as_deref(), found.confidence), (Some("bad"), Confidence::Certain));
        let found = from_frames(None, &frames, &[REPORTING], "why", &oops("other")).unwrap();
        assert_eq!(found.confidence, Confidence::Likely);
    }

    #[test]
    fn what_only_reports_is_passed_over_for_its_caller() {
        let frames = [frame("__list_del_entry_valid.cold", true), frame("drops_twice", false)];
        let found = from_frames(None, &frames, &[REPORTING], "why", &oops("x")).unwrap();
        assert_eq!((found.function.as_deref(), found.confidence), (Some("drops_twice"), Confidence::Likely));
        assert!(found.because.contains("what called __list_del_entry_valid.cold"), "{}", found.because);
    }

    #[test]
    fn what_is_freed_twice_is_the_mistake_of_who_frees_it() {
        let frames = [frame("__kmem_cache_free", true), frame("drops_twice", false)];
        let found = from_frames(None, &frames, &[REPORTING], "why", &oops("__kmem_cache_free")).unwrap();
        assert_eq!(found.function.as_deref(), Some("drops_twice"));
    }

    #[test]
    fn who_calls_what_is_no_code_is_to_blame() {
        let nowhere = Frame { symbol: None, pc: Some(crate::report::Address(0)), ..frame("x", true) };
        let frames = [nowhere, frame("calls", false)];
        let found = from_frames(None, &frames, &[REPORTING], "why", &oops("x")).unwrap();
        assert_eq!((found.function.as_deref(), found.confidence), (Some("calls"), Confidence::Likely));
        assert_eq!(found.because, "it is what called 0x0, where no code is");
    }

    #[test]
    fn who_calls_data_is_to_blame_though_data_has_a_name() {
        let at = 0xffff_ffff_c033_35a0;
        let log = format!("BUG: unable to handle page fault for address: {at:x}\nOops: 0011 [#1] SMP\n");
        let logged = from_log(&log_of(&log), true).unwrap();
        let data = Frame { pc: Some(crate::report::Address(at)), ..frame("data", true) };
        let found = from_frames(None, &[data, frame("calls", false)], &[REPORTING], "why", &logged).unwrap();
        assert_eq!(found.function.as_deref(), Some("calls"));
        assert_eq!(found.because, "it is what called 0xffffffffc03335a0, where no code is");
    }

    #[test]
    fn spinning_is_passed_over_for_lockups_only() {
        let frames = [frame("native_queued_spin_lock_slowpath", true), frame("holder", false)];
        let function =
            |sets: &[&[&str]]| from_frames(None, &frames, sets, "why", &oops("x")).unwrap().function;
        assert_eq!(function(&[REPORTING, SPINNING]).as_deref(), Some("holder"));
        assert_eq!(function(&[REPORTING]).as_deref(), Some("native_queued_spin_lock_slowpath"));
    }
}
