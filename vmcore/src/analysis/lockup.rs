//! CPUs that do not go on: run queues in the words of the report, lockups, and what RCU waits for.

use std::time::Duration;

use super::cpus::Registers;
use super::panic::Pointers;
use super::parts::{Clock, Context, Part};
use super::ticks::Ticks;
use super::{stacks, tasks as words};
use crate::addr::KVirtAddr;
use crate::format::prstatus::Registers as PrRegisters;
use crate::kernel::cpu::Cpu;
use crate::kernel::rcu::{self, Rcu};
use crate::kernel::runqueue;
use crate::kernel::task::{Kind, Task};
use crate::kernel::variable::Variables;
use crate::kernel::{Gap, time, timer};
use crate::report::{Confidence, Finding, RunQueue, Severity};
use crate::unwind::{FrameKind, TroubleKind};

/// `RFLAGS.IF`: interrupts are taken.
const INTERRUPTS: u64 = 1 << 9;
/// Bits of the code segment that tell user space.
const USER: u64 = 3;
/// Seconds until RCU complains, where that can't be read (`CONFIG_RCU_CPU_STALL_TIMEOUT`).
const STALL: f64 = 21.0;
/// A CPU whose tick is this late has its interrupts off, or its host does not run it.
const TICKS_LATE_NS: u64 = 2_000_000_000;
/// Functions that spin for a lock, whose address stays in `rdi`, where their callers put it (`kernel/locking/qspinlock.c`, `qrwlock.c`).
const SPINS: &[&str] =
    &["native_queued_spin_lock_slowpath", "queued_read_lock_slowpath", "queued_write_lock_slowpath"];
/// Functions that evidence names.
const CALLS: usize = 6;

/// The analysis.
pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let cpus = &context.tasks.cpus;
    if cpus.cpus.is_empty() {
        let mut part = Part::default();
        part.skip("runqueues", "which CPUs there are is not known");
        return part;
    }
    let handed_over = context.kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
    let notes = handed_over.map_or(context.subject.cpus.as_slice(), |crashed| &crashed.registers);
    let registers = Registers::assign(notes, Some(context.tasks));
    let found = runqueue::read(context.memory, context.description, context.per_cpu, context.tasks);
    let rcu = rcu::read(context.memory, context.description, context.limits);
    let mut gaps = found.gaps.clone();
    let waits = rcu.as_ref().ok();
    if let Err(why) = &rcu {
        gaps.push(Gap { what: "RCU".into(), why: why.clone() });
    }
    let there = |cpu: &&Cpu| {
        registers.of(cpu.number).is_some() || cpu.present != Some(false) && cpu.online != Some(false)
    };
    let look = Look { context, registers: &registers, found: &found, rcu: waits };
    let mut queues = Vec::new();
    let mut findings = Vec::new();
    for cpu in cpus.cpus.iter().filter(there) {
        let queue = look.queue(cpu);
        findings.extend(look.lockup(cpu, &queue).or_else(|| look.short_lockup(cpu, &queue)));
        findings.extend(throttled(&queue));
        queues.push(queue);
    }
    findings.extend(super::ipi::findings(context, &queues, |cpu| look.calls(cpu), &mut gaps));
    findings.extend(waits.and_then(|rcu| look.stall(rcu, &mut gaps)));
    let mut part = Part::new(move |report| report.runqueues = queues);
    part.findings = findings;
    part.gaps("runqueues", &gaps);
    part
}

/// The functions that a CPU was in, from where the trouble is: `a < b < c`.
pub(super) fn calls(context: &Context<'_>, registers: &Registers, cpu: usize) -> Option<String> {
    let registers = registers.of(cpu)?;
    let stack = context.unwinder.unwind_registers(registers, cpu);
    let from = context.unwinder.trouble(&stack).map_or(0, |trouble| trouble.frame);
    let frames = stacks::frames(context.unwinder, &stack, from);
    let names: Vec<String> = frames
        .iter()
        .filter(|frame| frame.sure)
        .filter_map(|frame| frame.symbol.clone())
        .take(CALLS)
        .collect();
    (!names.is_empty()).then(|| names.join(" < "))
}

struct Look<'c, 'a> {
    context: &'c Context<'a>,
    registers: &'c Registers,
    found: &'c runqueue::RunQueues,
    rcu: Option<&'c Rcu>,
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn named(task: &Task) -> String {
    format!("{} (pid {})", task.comm, task.pid)
}

impl Look<'_, '_> {
    fn queue(&self, cpu: &Cpu) -> RunQueue {
        let now = self.context.tasks.cpus.now_ns();
        let current = self.context.tasks.current(cpu.number);
        let own = self.found.queues.iter().find(|queue| queue.cpu == cpu.number);
        let busy = current.filter(|task| task.kind != Kind::Idle);
        let since = busy.and_then(|task| {
            let arrived = task.schedule.last_arrival_ns.filter(|ns| *ns > 0);
            now?.checked_sub(arrived?)
        });
        let silent = own.and_then(|queue| queue.watchdog_touched).and_then(|at| {
            let now = now? >> 30;
            now.saturating_sub(at).checked_mul(1 << 30)
        });
        let pid = |at: &KVirtAddr| self.context.tasks.at(*at).map(|task| i64::from(task.pid));
        RunQueue {
            cpu: u32::try_from(cpu.number).unwrap_or(u32::MAX),
            nr_running: cpu.nr_running.map(u64::from),
            current: current.map(|task| i64::from(task.pid)),
            curr_comm: current.map(|task| task.comm.clone()),
            clock_s: cpu.clock_ns.map(seconds),
            behind_s: now.zip(cpu.clock_ns).map(|(now, clock)| seconds(now.saturating_sub(clock))),
            running_for_s: since.map(seconds),
            rt_throttled: own.and_then(|queue| queue.rt_throttled),
            rt_time_s: own.and_then(|queue| queue.rt_time_ns).map(seconds),
            irqs_off: self.registers.of(cpu.number).map(|regs| regs.rflags & INTERRUPTS == 0),
            watchdog_silent_s: silent.filter(|_| self.found.watchdog_thresh_s.is_some()).map(seconds),
            holds_up_rcu: self.rcu.map(|rcu| rcu.under_way && rcu.cpus.contains(&cpu.number)),
            queued: own.map(|queue| queue.queued.iter().filter_map(pid).collect()).unwrap_or_default(),
        }
    }

    fn calls(&self, cpu: usize) -> Option<String> {
        calls(self.context, self.registers, cpu)
    }

    /// The lock that a CPU spins for, where what ended the kernel came upon it there.
    fn spins_for(&self, cpu: usize) -> Option<String> {
        let context = self.context;
        let stack = context.unwinder.unwind_registers(self.registers.of(cpu)?, cpu);
        let at = stack.frames.iter().find_map(|frame| match &frame.kind {
            FrameKind::Interrupted { registers: Some(registers), .. } => {
                let found = context.description.symbols.at(KVirtAddr(registers.rip))?;
                SPINS.contains(&found.symbol.name.as_str()).then_some(registers.rdi)
            }
            _ => None,
        })?;
        // Who spins is pending, or in the lock's queue: its word can't be 0.
        context.memory.read_u32(KVirtAddr(at)).ok().filter(|word| *word != 0)?;
        let what = Pointers::new(context, Some(cpu)).address(at).map(|what| format!(": {what}"));
        Some(format!("it spins for the lock at {at:#x}{}", what.unwrap_or_default()))
    }

    /// The watchdog has a thread that runs on each CPU every few seconds, also on idle ones. Where it has not for twice
    /// `watchdog_thresh`, nothing else could run there either.
    fn lockup(&self, cpu: &Cpu, queue: &RunQueue) -> Option<Finding> {
        let limit = Duration::from_secs(self.found.watchdog_thresh_s?.saturating_mul(2)).as_secs_f64();
        let number = cpu.number;
        let registers = self.registers.of(number);
        let user = registers.is_some_and(|regs| regs.cs & USER == USER);
        // A CPU whose own clock stands still gets no ticks: its interrupts are off. The kernel calls that hard after
        // `watchdog_thresh`; an idle CPU's clock stands still by design.
        let busy = queue.running_for_s.is_some();
        let stands = queue.behind_s.filter(|behind| *behind >= limit / 2.0);
        let hard = stands.filter(|_| queue.irqs_off != Some(false) && !user && busy);
        let silent = queue.watchdog_silent_s.filter(|silent| *silent > limit);
        let still = stands.is_some();
        let (hard, silent) = match (hard, silent) {
            (Some(behind), silent) if queue.irqs_off == Some(true) => (true, silent.unwrap_or(behind)),
            (hard, Some(silent)) => (hard.is_some(), silent),
            _ => return None,
        };
        let task =
            self.context.tasks.current(number).map_or_else(|| "a task that is not known".into(), named);
        let (code, title) = if hard {
            (
                "KD-LOCKUP-HARD",
                format!("CPU {number} has taken no interrupts for about {silent:.0} s; it runs {task}."),
            )
        } else {
            (
                "KD-LOCKUP-SOFT",
                format!("CPU {number} has not switched tasks for about {silent:.0} s; it runs {task}."),
            )
        };
        let agree = if hard { queue.irqs_off == Some(true) } else { !still && !user };
        let confidence = if agree { Confidence::Likely } else { Confidence::Hint };
        let severity = if agree { Severity::Error } else { Severity::Warning };
        let mut finding = Finding::new(code, severity, confidence, title)
            .because(match queue.watchdog_silent_s {
            Some(s) => format!("its watchdog's thread last ran {s:.0} s before the end; twice watchdog_thresh is {limit:.0} s"),
            None => "its watchdog does not tell when its thread last ran".into(),
        });
        if let Some(behind) = queue.behind_s {
            finding = finding.because(format!(
                "the clock of its run queue is {behind:.1} s behind that of the latest CPU"
            ));
        }
        if let Some(regs) = registers {
            let words = if regs.rflags & INTERRUPTS == 0 { "off" } else { "on" };
            finding = finding.because(format!("its RFLAGS are {:#x}: interrupts were {words}", regs.rflags));
        }
        if let Some(running) = queue.running_for_s {
            finding = finding.because(format!("its task got the CPU {running:.1} s before the end"));
        }
        if let Some(calls) = self.calls(number) {
            finding = finding.because(format!("it is in {calls}"));
        }
        if let Some(lock) = self.spins_for(number) {
            finding = finding.because(lock);
        }
        Some(
            finding
                .next("Look in its call trace for a loop, or for a lock that it spins on: kdt triage --only cpus.")
                .by_hand_crash(format!("bt -c {number}"))
                .by_hand_crash(format!("runq -c {number}"))
                .by_hand_drgn(format!("prog.stack_trace(cpu_curr({number}))")),
        )
    }

    /// A CPU with its interrupts off takes no ticks: its tick's timer waits although its time has come, while another CPU keeps the time.
    /// That tells of it before any watchdog would.
    fn short_lockup(&self, cpu: &Cpu, queue: &RunQueue) -> Option<Finding> {
        queue.running_for_s?;
        let context = self.context;
        let registers = self.registers.of(cpu.number)?;
        let (rflags, cs, found_there) = self.before_the_end(registers, cpu.number);
        if rflags & INTERRUPTS != 0 || cs & USER == USER {
            return None;
        }
        // Who panics turns its interrupts off and prints, while the others go on: only what an interrupt came upon was so before.
        let panic = context.report.panic.as_ref();
        if panic.is_some_and(|panic| panic.cpu == Some(queue.cpu)) && !found_there {
            return None;
        }
        let now = Ticks::read(context).ok()?.monotonic_ns?;
        let reader = context.reader();
        let timers = timer::read(reader);
        let tick = context.description.symbols.all("tick_sched_timer").into_iter().chain(
            // Renamed in 6.9 (kernel commit 3aedb7fcd88a).
            context.description.symbols.all("tick_nohz_handler"),
        );
        let ticks: Vec<_> = tick.map(|symbol| symbol.address).collect();
        let late = |cpu: usize| {
            let own = timers.cpus.iter().find(|own| own.cpu == cpu)?;
            let timer = own.high.iter().find(|timer| ticks.contains(&timer.function))?;
            let expires = timer.expires_ns.checked_sub(timer.offset_ns)?;
            u64::try_from(now.checked_sub(expires)?).ok()
        };
        let own = late(cpu.number).filter(|late| *late >= TICKS_LATE_NS)?;
        // Where no CPU takes ticks, it is the machine that stood still.
        let goes_on = |other: &&Cpu| {
            other.number != cpu.number && late(other.number).is_none_or(|late| late < TICKS_LATE_NS / 4)
        };
        let other = context.tasks.cpus.cpus.iter().find(goes_on)?;
        let number = cpu.number;
        let task = context.tasks.current(number).map_or_else(|| "a task that is not known".into(), named);
        let title = format!(
            "CPU {number} had not taken its timer tick for about {:.1} s, with interrupts off; it runs {task}.",
            seconds(own)
        );
        let mut finding = Finding::new("KD-LOCKUP-IRQS-OFF", Severity::Warning, Confidence::Likely, title)
            .because(format!(
                "its tick was to come {:.3} s before the last time that the kernel kept",
                seconds(own)
            ))
            .because(format!("its RFLAGS are {rflags:#x}: interrupts were off"))
            .because(format!("CPU {} went on to take its ticks, or to sleep without", other.number));
        if let Some(calls) = self.calls(number) {
            finding = finding.because(format!("it is in {calls}"));
        }
        if let Some(lock) = self.spins_for(number) {
            finding = finding.because(lock);
        }
        Some(
            finding
                .next("Look in its call trace for a loop, or for a lock that it spins on: kdt triage --only panic,cpus.")
                .next("It is too short for the kernel's own watchdog (kernel.watchdog_thresh): ask whether the machine had hung for longer."),
        )
    }

    /// A CPU's flags and code segment where it was before what ended the kernel came upon it, and whether an interrupt did.
    fn before_the_end(&self, registers: &PrRegisters, cpu: usize) -> (u64, u64, bool) {
        let stack = self.context.unwinder.unwind_registers(registers, cpu);
        let trouble = self.context.unwinder.trouble(&stack);
        let frame = trouble.filter(|trouble| trouble.kind == TroubleKind::Interrupted);
        match frame.and_then(|trouble| stack.frames.get(trouble.frame)).map(|frame| &frame.kind) {
            Some(FrameKind::Interrupted { registers: Some(saved), .. }) => (saved.rflags, saved.cs, true),
            _ => (registers.rflags, registers.cs, false),
        }
    }

    fn stall(&self, rcu: &Rcu, gaps: &mut Vec<Gap>) -> Option<Finding> {
        let context = self.context;
        if let Some(why) = &rcu.gap {
            gaps.push(Gap { what: "RCU".into(), why: why.clone() });
        }
        if !rcu.under_way {
            return None;
        }
        let variables = Variables::new(context.memory, &context.description.symbols);
        let mut unused = Vec::new();
        let clock = time::read(context.memory, context.kernel.vmcoreinfo(), context.description, &mut unused);
        let ticks = clock.ok().and_then(|time| Some((time.jiffies?, time.hz?)));
        let Some((jiffies, hz)) = ticks else {
            gaps.push(Gap {
                what: "RCU".into(),
                why: "since when it waits can't be told without the clock".into(),
            });
            return None;
        };
        let age = Duration::from_millis(jiffies.wrapping_sub(rcu.start).checked_mul(1000)?.checked_div(hz)?);
        let limit = variables.i32("rcu_cpu_stall_timeout").ok().filter(|s| (1..=300).contains(s));
        let limit = limit.map_or(STALL, f64::from);
        // No machine has been up for as long as a start that is not yet, which wraps around.
        if age.as_secs_f64() < limit || age > Duration::from_hours(24 * 365) {
            return None;
        }
        let cpus: Vec<String> = rcu.cpus.iter().map(ToString::to_string).collect();
        let readers: Vec<&Task> = rcu.tasks.iter().filter_map(|at| context.tasks.at(*at)).collect();
        let mut who = Vec::new();
        if !cpus.is_empty() {
            who.push(format!("CPU {}", cpus.join(", ")));
        }
        who.extend(readers.iter().take(CALLS).map(|task| named(task)));
        let age_s = age.as_secs();
        let title = if who.is_empty() {
            format!(
                "An RCU grace period has been under way for {age_s} s, and nothing holds it up: its thread does not run."
            )
        } else {
            format!("An RCU grace period has waited for {} for {age_s} s.", who.join(" and for "))
        };
        let confidence = if who.is_empty() { Confidence::Hint } else { Confidence::Certain };
        let mut finding = Finding::new("KD-RCU-STALL-BLOCKER", Severity::Error, confidence, title).because(format!(
            "rcu_state at {}: grace period {:#x} began at jiffies {:#x}, and the last are {jiffies:#x} ({hz} a second); RCU complains after {limit:.0} s",
            rcu.state, rcu.sequence, rcu.start
        ));
        for cpu in rcu.cpus.iter().take(CALLS) {
            finding = finding.by_hand_crash(format!("bt -c {cpu}"));
            let task = context.tasks.current(*cpu).map_or_else(|| "a task that is not known".into(), named);
            let calls = self.calls(*cpu).map(|calls| format!(", in {calls}")).unwrap_or_default();
            finding = finding.because(format!("CPU {cpu} has its bit in qsmask; it runs {task}{calls}"));
        }
        for task in readers.iter().take(CALLS) {
            finding = finding.by_hand_crash(format!("bt {}", task.pid));
            let (frames, _) = words::backtrace(task, self.registers, context.unwinder);
            let names: Vec<String> =
                frames.iter().filter_map(|frame| frame.symbol.clone()).take(CALLS).collect();
            finding = finding.because(format!(
                "{} was preempted as a reader, in {}",
                named(task),
                names.join(" < ")
            ));
        }
        if let Some(thread) = rcu.kthread.and_then(|at| context.tasks.at(at)) {
            let not_run = thread.not_run_ns.map_or(0.0, seconds);
            finding = finding.because(format!(
                "{} drives it: state {}, last ran {not_run:.1} s before the end",
                named(thread),
                thread.letter()
            ));
        }
        Some(
            finding
                .next("Look at what that CPU or task does inside rcu_read_lock(), or with preemption off.")
                .by_hand_crash("p rcu_state.gp_seq")
                .by_hand_crash("p/x rcu_state.node[0].qsmask")
                .by_hand_drgn("prog[\"rcu_state\"].node[0].qsmask"),
        )
    }
}

/// Real-time tasks that are held back because they used up their share.
fn throttled(queue: &RunQueue) -> Option<Finding> {
    if queue.rt_throttled != Some(true) {
        return None;
    }
    let comm = queue.curr_comm.as_deref().unwrap_or("?");
    let title = format!(
        "CPU {} holds its real-time tasks back: they had used up their share of run time.",
        queue.cpu
    );
    Some(
        Finding::new("KD-RT-THROTTLED", Severity::Warning, Confidence::Certain, title)
            .because(format!(
                "rt.rt_throttled is set, rt.rt_time is {:.3} s",
                queue.rt_time_s.unwrap_or_default()
            ))
            .because(format!("it runs {comm}"))
            .next("Look which real-time task does not give way: kdt triage --only runqueues,tasks.")
            .by_hand_crash(format!("runq -c {}", queue.cpu))
            .by_hand_drgn(format!("per_cpu(prog[\"runqueues\"], {}).rt.rt_throttled", queue.cpu)),
    )
}
