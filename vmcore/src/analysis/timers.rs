//! The timers in the words of the report, and CPUs that did not serve theirs.

use super::parts::{Clock, Context, Part};
use super::ticks::Ticks;
use crate::addr::KVirtAddr;
use crate::kernel::reader::Reader;
use crate::kernel::timer::{self, HighTimer, Timer};
use crate::report::{Confidence, CpuTimers, Finding, PendingTimer, Severity};

/// A timer that is late by more seconds than this was not served.
const OVERDUE: f64 = 5.0;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let reader = context.reader();
    let found = timer::read(reader);
    let ticks = Ticks::read(context);
    let delayed = Delayed::new(reader);
    let known = ticks.as_ref().ok();
    let mut all = Vec::new();
    let mut stopped = false;
    for cpu in &found.cpus {
        if clock.is_spent() {
            stopped = true;
            break;
        }
        let served = |timer: &&Timer| !timer.deferrable;
        let late = cpu.timers.iter().filter(served).filter_map(|timer| Some(known?.late_s(timer.expires)));
        all.push(CpuTimers {
            cpu: u32::try_from(cpu.cpu).unwrap_or(u32::MAX),
            overdue_s: late.filter(|late| *late > 0.0).reduce(f64::max),
            wheel: cpu.timers.iter().map(|timer| wheel(reader, timer, known, delayed.as_ref())).collect(),
            hrtimers: cpu.high.iter().map(|timer| high(reader, timer, known)).collect(),
        });
    }
    let finding = known.and_then(|ticks| overdue(&all, ticks.after_panic_s));
    let mut part = Part::new(move |report| report.timers = all);
    part.gaps("timers", &found.gaps);
    if let Err(why) = ticks {
        part.skip("timers.in_s", why);
    }
    if stopped {
        part.stopped("timers");
    }
    part.findings.extend(finding);
    part
}

fn wheel(
    reader: Reader<'_, '_>,
    timer: &Timer,
    ticks: Option<&Ticks>,
    delayed: Option<&Delayed<'_, '_>>,
) -> PendingTimer {
    let function = reader.function(timer.function);
    PendingTimer {
        work: delayed.filter(|_| function == "delayed_work_timer_fn").and_then(|d| d.function(timer.kaddr)),
        function,
        kaddr: timer.kaddr.into(),
        expires: timer.expires.cast_signed(),
        in_s: ticks.map(|ticks| -ticks.late_s(timer.expires)),
        clock: "jiffies".into(),
        deferrable: timer.deferrable,
    }
}

fn high(reader: Reader<'_, '_>, timer: &HighTimer, ticks: Option<&Ticks>) -> PendingTimer {
    let now = ticks.and_then(|ticks| ticks.monotonic_ns).map(|now| now.saturating_add(timer.offset_ns));
    let clock = match timer.clock {
        0 => "realtime".into(),
        1 => "monotonic".into(),
        7 => "boottime".into(),
        11 => "tai".into(),
        other => format!("clock {other}"),
    };
    let seconds = |ns: i64| {
        let (whole, rest) = (ns.unsigned_abs().checked_div(SECOND), ns.unsigned_abs().checked_rem(SECOND));
        let rest = u32::try_from(rest.unwrap_or_default()).unwrap_or_default();
        let time = std::time::Duration::new(whole.unwrap_or_default(), rest).as_secs_f64();
        if ns < 0 { -time } else { time }
    };
    PendingTimer {
        function: reader.function(timer.function),
        kaddr: timer.kaddr.into(),
        expires: timer.expires_ns,
        in_s: now.map(|now| seconds(timer.expires_ns.saturating_sub(now))),
        clock,
        deferrable: false,
        work: None,
    }
}

/// The work that a delayed work's timer will start.
struct Delayed<'a, 'm> {
    reader: Reader<'a, 'm>,
    timer: u64,
    function: u64,
}

impl<'a, 'm> Delayed<'a, 'm> {
    fn new(reader: Reader<'a, 'm>) -> Option<Self> {
        let timer = reader.offset("delayed_work", "timer").ok()?;
        Some(Self { reader, timer, function: reader.offset("delayed_work", "work.func").ok()? })
    }

    fn function(&self, timer: KVirtAddr) -> Option<String> {
        let at = timer.checked_sub(self.timer)?.checked_add(self.function)?;
        Some(self.reader.function(self.reader.memory.read_ptr(at).ok()?))
    }
}

/// CPUs whose timers are late. What passed since a panic does not count: the CPUs were stopped then.
fn overdue(cpus: &[CpuTimers], after_panic_s: Option<f64>) -> Option<Finding> {
    let after = after_panic_s?;
    let late = |cpu: &CpuTimers| {
        let by = cpu.overdue_s? - after;
        (by > OVERDUE).then_some((cpu.cpu, by))
    };
    let all: Vec<(u32, f64)> = cpus.iter().filter_map(late).collect();
    let names: Vec<String> = all.iter().map(|(cpu, _)| cpu.to_string()).collect();
    let whose = match all.len() {
        0 => return None,
        1 => format!("CPU {} ran none of its timers", names.concat()),
        _ => format!("CPUs {} ran none of their timers", names.join(", ")),
    };
    // Interrupts can have been handled all the time: timers run in softirqs, with PREEMPT_RT in a thread.
    let title = format!("{whose} for more than {OVERDUE:.0} s.");
    let mut finding = Finding::new("KD-TIMER-OVERDUE", Severity::Warning, Confidence::Hint, title);
    for (cpu, by) in all {
        finding = finding.by_hand_crash(format!("timer -C {cpu}"));
        finding = finding.by_hand_crash(format!("timer -r -C {cpu}"));
        finding = finding.by_hand_drgn(format!("per_cpu(prog[\"timer_bases\"], {cpu})[0].clk"));
        finding = finding.because(format!("the next timer of CPU {cpu} should have come {by:.1} s earlier"));
    }
    Some(
        finding.next("Look at what that CPU is at, with interrupts or softirqs off or (PREEMPT_RT) at a higher priority: kdt triage --only cpus."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu: u32, overdue_s: Option<f64>) -> CpuTimers {
        CpuTimers { cpu, overdue_s, wheel: Vec::new(), hrtimers: Vec::new() }
    }

    #[test]
    fn only_a_cpu_that_is_late_before_the_panic_is_told_of() {
        let cpus = [cpu(0, None), cpu(1, Some(12.0)), cpu(2, Some(0.1))];
        let finding = overdue(&cpus, Some(0.5)).unwrap();
        assert_eq!(finding.code, "KD-TIMER-OVERDUE");
        assert_eq!(finding.evidence, ["the next timer of CPU 1 should have come 11.5 s earlier"]);
        assert_eq!(overdue(&cpus, Some(10.0)), None);
        assert_eq!(overdue(&cpus, None), None);
    }
}
