//! Where on a stack the trouble is: below the code that only handles it.

use super::{FrameKind, Stack, Unwinder};

/// What brought a CPU into the crash code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TroubleKind {
    /// An exception at exactly this instruction: a fault, a `BUG`, a bad pointer.
    Exception,
    /// Code that called `panic` (or the like) itself.
    Called,
    /// Code that a watchdog's interrupt found here.
    Interrupted,
}

/// Where the trouble on a stack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// The number of the innermost frame that is not part of the crash code.
    pub frame: usize,
    /// What brought it there.
    pub kind: TroubleKind,
}

/// Code that handles a crash, whoever called it (`kernel/panic.c`, `kernel/crash_core.c`, `kernel/kexec_core.c`).
const CRASH: &[&str] = &[
    "__crash_kexec",
    "crash_kexec",
    "crash_save_cpu",
    "crash_setup_regs",
    "machine_kexec",
    "native_machine_crash_shutdown",
    "machine_crash_shutdown",
    "panic",
    "vpanic",
    "nmi_panic",
    "check_panic_on_warn",
    "panic_smp_self_stop",
    "nmi_panic_self_stop",
];

/// Code that handles an exception which can't be mended (`arch/x86/kernel/dumpstack.c`, `traps.c`, `arch/x86/mm/fault.c`).
const OOPS: &[&str] = &[
    "oops_end",
    "oops_begin",
    "die",
    "__die",
    "__die_body",
    "die_addr",
    "die_nmi",
    "no_context",
    "bad_area_nosemaphore",
    "__bad_area_nosemaphore",
    "bad_area",
    "__bad_area",
    "bad_area_access_error",
    "page_fault_oops",
    "kernelmode_fixup_or_oops",
    "do_kern_addr_fault",
    "do_user_addr_fault",
    "do_trap",
    "do_error_trap",
    "handle_stack_overflow",
    "report_bug",
    "__warn",
    "__warn_printk",
];

/// Code that finds, in an interrupt, that the interrupted code is in trouble.
const WATCHDOG: &[&str] = &[
    "watchdog_timer_fn",
    "watchdog_overflow_callback",
    "watchdog_hardlockup_check",
    "watchdog_check_hardlockup",
    "rcu_sched_clock_irq",
    "check_cpu_stall",
    "panic_on_rcu_stall",
    "print_cpu_stall",
    "default_do_nmi",
    "unknown_nmi_error",
    "io_check_error",
    "pci_serr_error",
    "mce_panic",
    "do_machine_check",
];

/// Whether a function, without what the compiler appends to its name, handles trouble rather than being it.
#[must_use]
pub fn is_crash_code(name: &str) -> bool {
    [CRASH, OOPS, WATCHDOG].iter().any(|set| set.contains(&name))
}

impl Unwinder<'_> {
    /// Where the trouble on a stack begins; `None` where the stack has no crash code on it, so that all of it may be.
    ///
    /// The outermost frame of crash code decides. If it or what lies outside of it up to the next saved registers handles an
    /// exception, those registers are the trouble; so they are where a watchdog called `panic` from its interrupt. Else it is what
    /// called `panic`. (Of a crash by `SysRq` the handler is then the trouble, since it is what panics.)
    #[must_use]
    pub fn trouble(&self, stack: &Stack) -> Option<Trouble> {
        let names: Vec<String> = stack.frames.iter().map(|f| self.function(f)).collect();
        let of = |set: &[&str], name: &String| set.contains(&name.as_str());
        let last = names.iter().rposition(|name| of(CRASH, name) || of(OOPS, name))?;
        let outside = last.saturating_add(1);
        let registers = stack
            .frames
            .iter()
            .enumerate()
            .skip(outside)
            .find(|(_, frame)| matches!(frame.kind, FrameKind::Interrupted { .. }))
            .map(|(number, _)| number);
        let handler = |set: &[&str]| {
            let until = registers.unwrap_or(names.len());
            let within = names.get(..until).unwrap_or_default();
            within.iter().skip(last).any(|name| of(set, name))
        };
        if let Some(frame) = registers {
            if handler(OOPS) {
                return Some(Trouble { frame, kind: TroubleKind::Exception });
            }
            if handler(WATCHDOG) {
                return Some(Trouble { frame, kind: TroubleKind::Interrupted });
            }
        }
        let frame = outside.min(stack.frames.len().saturating_sub(1));
        Some(Trouble { frame, kind: TroubleKind::Called })
    }

    /// The function of a frame, without what the compiler appends to the names of a function's parts and copies.
    fn function(&self, frame: &super::Frame) -> String {
        let name = self.symbol(frame).map(|at| at.symbol.name).unwrap_or_default();
        name.split('.').next().unwrap_or_default().to_owned()
    }
}
