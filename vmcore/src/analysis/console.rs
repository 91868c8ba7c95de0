//! The consoles in the words of the report, who has their lock and who waits for it.

use std::time::Duration;

use super::parts::{Clock, Context, Part};
use super::tasks as words;
use crate::addr::KVirtAddr;
use crate::kernel::console::{self, Consoles};
use crate::kernel::printk::Generation;
use crate::kernel::task::Task;
use crate::report::{self, Address, Confidence, Finding, Frame, Severity};

/// Who waits for less may wait for a slow line: 14 KiB take a second at 115200 baud.
const NEWS_S: f64 = 2.0;
/// Lines of evidence of one kind.
const LINES: usize = 8;
/// Functions that run with the lock held, whoever called them.
const HOLDERS: &[&str] = &[
    "console_unlock",
    "console_flush_all",
    "console_emit_next_record",
    "call_console_driver",
    "console_callback",
    "do_con_write",
    "register_console",
];
/// A CPU in one of these spins until the owner hands the lock over.
const SPINS: &[&str] = &["console_trylock_spinning", "console_lock_spinning"];

/// The analysis.
pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let found = read(context);
    let holder = holder(context, &found);
    let finding = finding(context, &found, holder);
    let gaps = found.gaps.clone();
    let section = section(context, &found, holder);
    let mut part = Part::new(move |report| report.console = Some(section));
    part.findings.extend(finding);
    part.gaps("console", &gaps);
    part
}

pub(super) fn read(context: &Context<'_>) -> Consoles {
    console::read(context.reader())
}

/// Who has the lock, and whether the kernel says so itself.
pub(super) fn holder<'a>(context: &Context<'a>, found: &Consoles) -> Option<(&'a Task, bool)> {
    if let Some(task) = found.owner.and_then(|at| context.tasks.at(at)) {
        return Some((task, true));
    }
    if found.held != Some(true) {
        return None;
    }
    let holds = |frames: &[Frame]| {
        frames
            .iter()
            .filter(|frame| frame.sure)
            .any(|frame| frame.symbol.as_deref().is_some_and(|name| HOLDERS.contains(&bare(name))))
    };
    let on_cpus = context.report.cpus.iter().filter(|cpu| holds(&cpu.backtrace));
    let mut all: Vec<u64> = on_cpus.filter_map(|cpu| Some(cpu.task.as_ref()?.kaddr?.0)).collect();
    let tasks = context.report.tasks.iter().filter(|task| holds(&task.backtrace));
    all.extend(tasks.filter_map(|task| Some(task.kaddr?.0)));
    all.sort_unstable();
    all.dedup();
    all.retain(|at| !found.waiters.contains(&KVirtAddr(*at)));
    // Of several, nothing tells which one it is.
    match all.as_slice() {
        [one] => Some((context.tasks.at(KVirtAddr(*one))?, false)),
        _ => None,
    }
}

fn bare(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn section(context: &Context<'_>, found: &Consoles, holder: Option<(&Task, bool)>) -> report::Consoles {
    let next = next_record(context);
    let pid = |at: &KVirtAddr| context.tasks.at(*at).map(|task| i64::from(task.pid));
    let one = |console: &console::Console| report::Console {
        name: name(console),
        kaddr: Some(Address(console.kaddr.0)),
        enabled: console.enabled(),
        nbcon: console.nbcon(),
        seq: console.seq,
        behind: next.zip(console.seq).and_then(|(next, seq)| next.checked_sub(seq)),
        dropped: console.dropped,
        owner_cpu: console.owner_cpu,
    };
    report::Consoles {
        lock: found.lock.map(|at| Address(at.0)),
        held: found.held,
        locked: found.locked,
        may_schedule: found.may_schedule,
        owner: holder.map(|(task, _)| words::name(task)),
        owner_sure: holder.is_some_and(|(_, sure)| sure),
        spinning: found.spinning,
        waiters: found.waiters.iter().filter_map(pid).collect(),
        consoles: found.consoles.iter().map(one).collect(),
    }
}

fn name(console: &console::Console) -> String {
    let index = console.index.filter(|index| *index >= 0).map(|index| index.to_string());
    format!("{}{}", console.name, index.unwrap_or_default())
}

/// The number of the record that the kernel writes next. Only the ring numbers its records since boot.
fn next_record(context: &Context<'_>) -> Option<u64> {
    let log = context.log.filter(|log| log.generation == Generation::Ring)?;
    log.records.last()?.seq.checked_add(1)
}

/// Tasks or CPUs that wait for the lock.
fn finding(context: &Context<'_>, found: &Consoles, holder: Option<(&Task, bool)>) -> Option<Finding> {
    let seconds = |task: &Task| Duration::from_nanos(task.not_run_ns.unwrap_or_default()).as_secs_f64();
    let waiters: Vec<&Task> = found.waiters.iter().filter_map(|at| context.tasks.at(*at)).collect();
    let oldest = waiters.iter().map(|task| seconds(task)).fold(0.0, f64::max);
    let spins = |frames: &[Frame]| {
        frames.iter().any(|frame| frame.symbol.as_deref().is_some_and(|name| SPINS.contains(&bare(name))))
    };
    let spinning: Vec<u32> =
        context.report.cpus.iter().filter(|cpu| spins(&cpu.backtrace)).map(|cpu| cpu.cpu).collect();
    if oldest < NEWS_S && spinning.is_empty() {
        return None;
    }
    let named = |task: &Task| format!("{} (pid {})", task.comm, task.pid);
    let who = match (waiters.as_slice(), spinning.as_slice()) {
        ([], [cpu]) => format!("CPU {cpu} spins for the console's lock"),
        ([], cpus) => format!("{} CPUs spin for the console's lock", cpus.len()),
        ([one], _) => format!("{} has waited for the console's lock for {oldest:.0} s", named(one)),
        (all, _) => {
            format!("{} tasks wait for the console's lock, the longest for {oldest:.0} s", all.len())
        }
    };
    let has = match holder {
        Some((task, true)) => format!("{} has it and prints", named(task)),
        Some((task, false)) => format!("{} seems to have it", named(task)),
        None => "the kernel does not record who has it".to_owned(),
    };
    let title = format!("{who}; {has}.");
    let confidence = if found.held == Some(true) { Confidence::Certain } else { Confidence::Likely };
    let mut finding = Finding::new("KD-CONSOLE-WAIT", Severity::Warning, confidence, title);
    let number =
        |flag: Option<bool>| flag.map_or_else(|| "not known".to_owned(), |set| u8::from(set).to_string());
    if let Some(at) = found.lock {
        finding = finding.because(format!(
            "console_sem at {at}: {}, with {} in its list of waiters",
            if found.held == Some(true) { "taken" } else { "free or not readable" },
            found.waiters.len()
        ));
    }
    finding = finding.because(format!(
        "console_locked is {}, console_may_schedule {}, console_waiter {}",
        number(found.locked),
        number(found.may_schedule),
        number(found.spinning)
    ));
    for task in waiters.iter().take(LINES) {
        finding = finding.because(format!("{} waits in its list, for {:.0} s", named(task), seconds(task)));
    }
    for cpu in spinning.iter().take(LINES) {
        finding = finding.because(format!("CPU {cpu} is in console_trylock_spinning"));
    }
    let next = next_record(context);
    for console in found.consoles.iter().take(LINES) {
        if let Some(behind) = next.zip(console.seq).and_then(|(next, seq)| next.checked_sub(seq)) {
            finding =
                finding.because(format!("{} has {behind} records of the log yet to print", name(console)));
        }
    }
    let finding = match holder {
        Some((task, _)) => finding
            .next(format!("Look at the call trace of {}: a slow or flow-controlled line?", named(task)))
            .by_hand_crash(format!("bt {}", task.pid)),
        None if found.may_schedule == Some(true) => finding.next(
            "Look for a task that sleeps between console_lock() and console_unlock(): drivers of screens and terminals do that.",
        ),
        None => finding.next("Look for a CPU that prints: kdt triage --only cpus."),
    };
    Some(
        finding
            .by_hand_crash("struct semaphore console_sem")
            .by_hand_crash("p console_locked")
            .by_hand_drgn("prog[\"console_sem\"]"),
    )
}
