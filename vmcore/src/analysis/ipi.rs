//! CPUs that spin until another CPU has called a function for them, and that one does not.

use super::parts::Context;
use crate::kernel::Gap;
use crate::kernel::ipi::{self, Call};
use crate::kernel::task::Task;
use crate::report::{Address, Confidence, Finding, RunQueue, Severity};

/// A CPU whose clock is as far behind, in seconds, does not merely answer late.
const LATE: f64 = 2.0;
/// Functions in which a CPU waits for another's answer.
const WAITS: &[&str] = &["smp_call_function", "csd_lock_wait", "__csd_lock_wait"];

/// A CPU that spins until another one has called a function.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The call; the CPU that was asked has not begun it.
    pub(super) call: Call,
    /// The CPU that waits.
    pub(super) from: usize,
    /// The functions that it is in.
    pub(super) at: String,
}

/// All such CPUs. `calls` tells the functions that a CPU is in, `a < b < c`.
pub(super) fn waiting(
    context: &Context<'_>,
    calls: impl Fn(usize) -> Option<String>,
    gaps: &mut Vec<Gap>,
) -> Vec<Waiting> {
    let source = context.reader();
    let mut gap = |why: String| gaps.push(Gap { what: "calls to other CPUs".into(), why });
    let all = match ipi::read(&source) {
        Ok((all, lost)) => {
            lost.into_iter().for_each(&mut gap);
            all
        }
        Err(why) => {
            gap(why);
            return Vec::new();
        }
    };
    let waits = |call: Call| {
        let from = call.from.or_else(|| on_stack(context, &call))?;
        let at = calls(from).filter(|at| is_wait(at))?;
        Some(Waiting { call, from, at })
    };
    all.into_iter().filter_map(waits).collect()
}

/// One finding for each CPU that does not answer. `calls` tells the functions that a CPU is in, `a < b < c`.
pub(super) fn findings(
    context: &Context<'_>,
    queues: &[RunQueue],
    calls: impl Fn(usize) -> Option<String>,
    gaps: &mut Vec<Gap>,
) -> Vec<Finding> {
    let all = waiting(context, &calls, gaps);
    let reader = context.reader();
    let mut found = Vec::new();
    for queue in queues.iter().filter(|queue| queue.behind_s.is_some_and(|behind| behind >= LATE)) {
        let Ok(cpu) = usize::try_from(queue.cpu) else { continue };
        let waiting: Vec<&Waiting> = all.iter().filter(|waiting| waiting.call.cpu == cpu).collect();
        let Some(Waiting { call: first, from, .. }) = waiting.first() else { continue };
        let behind = queue.behind_s.unwrap_or_default();
        let title = format!(
            "CPU {from} waits for CPU {cpu} to call {}, and CPU {cpu} does not.",
            reader.function(first.function)
        );
        let mut finding = Finding::new("KD-LOCKUP-IPI", Severity::Warning, Confidence::Likely, title)
            .because(format!("the clock of CPU {cpu} is {behind:.1} s behind that of the latest CPU"));
        for Waiting { call, from, at } in waiting {
            finding = finding.because(format!(
                "the call at {} is in the queue of CPU {cpu}, and CPU {from} is in {at}",
                call.kaddr
            ));
        }
        if let Some(at) = calls(cpu) {
            finding = finding.because(format!("CPU {cpu} is in {at}"));
        }
        found.push(
            finding
                .next(format!("Find out why CPU {cpu} takes no interrupts: kdt triage --only cpus."))
                .by_hand_crash(format!("bt -c {cpu}"))
                .by_hand_crash(format!("struct __call_single_data {}", Address(first.kaddr.0)))
                .by_hand_drgn(format!("prog.stack_trace(cpu_curr({cpu}))")),
        );
    }
    found
}

/// The CPU on whose task's stack a call is.
fn on_stack(context: &Context<'_>, call: &Call) -> Option<usize> {
    let bytes = context.unwinder.stack_bytes();
    let holds = |task: &Task| {
        let inside = call.kaddr.0.checked_sub(task.stack?.0)?;
        (inside < bytes).then_some(())
    };
    let running = |cpu: &usize| context.tasks.current(*cpu).is_some_and(|task| holds(task).is_some());
    context.per_cpu.possible().iter().copied().find(|cpu| running(cpu))
}

fn is_wait(calls: &str) -> bool {
    calls.split(" < ").any(|name| WAITS.iter().any(|wait| name.starts_with(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_an_answer_is_told_by_its_functions() {
        assert!(is_wait("smp_call_function_many_cond < on_each_cpu_cond_mask < flush_tlb_mm_range"));
        assert!(is_wait("csd_lock_wait.isra.0 < smp_call_function_single"));
        assert!(!is_wait("do_idle < cpu_startup_entry"));
        assert!(!is_wait("flush_smp_call_function_queue < do_idle"));
    }
}
