//! What of the waits is worth a person's attention.

use std::fmt::Write as _;

use super::{CROWD, CROWD_NEWS, Context, NEWS, Waiting, Waits, has_owner, what};
use crate::addr::KVirtAddr;
use crate::kernel::task::State;
use crate::report::{Address, Blocked, Confidence, Finding, Severity};

/// Lines of evidence of one kind.
const LINES: usize = 12;
/// Blockers that have a finding of their own.
const BLOCKERS: usize = 5;

pub(super) fn all(context: &Context<'_>, waits: &Waits<'_>, blocked: &Blocked) -> Vec<Finding> {
    let mut found = Vec::new();
    for circle in waits.graph.cycles().iter().take(BLOCKERS) {
        found.push(deadlock(waits, circle));
    }
    found.extend(waits.graph.roots().iter().take(BLOCKERS).filter_map(|root| blocker(context, waits, root)));
    found.extend(hung(context, waits, blocked));
    found.extend(io(context, waits));
    found
}

fn named(task: &crate::kernel::task::Task) -> String {
    format!("{} (pid {})", task.comm, task.pid)
}

fn seconds(s: f64) -> String {
    format!("{s:.0} s")
}

/// How the same is seen by hand.
fn by_hand(finding: Finding, waiting: &Waiting<'_>) -> Finding {
    let pid = waiting.task.pid;
    if let Some(flushed) = &waiting.flushed {
        let (of, at) = (flushed.structure, Address(flushed.at.0));
        return finding
            .by_hand_crash(format!("bt {pid}"))
            .by_hand_crash(format!("struct {of} {at}"))
            .by_hand_drgn(format!("prog.stack_trace({pid})"))
            .by_hand_drgn(format!("Object(prog, \"struct {of}\", address={at})"));
    }
    if let Some(behind) = &waiting.behind {
        return finding
            .by_hand_crash(format!("bt {pid}"))
            .by_hand_crash(behind.crash.clone())
            .by_hand_drgn(format!("prog.stack_trace({pid})"));
    }
    let (Some(wait), Some(whole)) = (&waiting.wait, waiting.whole) else {
        return finding
            .by_hand_crash(format!("bt -FF {pid}"))
            .by_hand_drgn(format!("prog.stack_trace({pid})"));
    };
    let of = whole.structure;
    let lock = Address(whole.at.0);
    let object = format!("Object(prog, \"struct {of}\", address={lock})");
    // The owner's `task_struct`, with flags in its lowest bits.
    let object =
        if has_owner(wait.kind) { format!("hex({object}.owner.counter.value_() % 2**64)") } else { object };
    finding
        .by_hand_crash(format!("bt {pid}"))
        .by_hand_crash(format!("struct {of} {lock}"))
        .by_hand_drgn(format!("prog.stack_trace({pid})"))
        .by_hand_drgn(object)
}

/// What one edge was concluded from.
fn edge(waiting: &Waiting<'_>) -> String {
    let mut text = format!("{} waits for {}", named(waiting.task), waiting.lock_words());
    if let Some(flushed) = &waiting.flushed {
        let _ = write!(text, "; {}", flushed.proof);
    } else if let Some(behind) = &waiting.behind {
        let _ = write!(text, "; {}", behind.proof);
    } else if let Some(wait) = &waiting.wait {
        let _ = write!(text, "; its waiter at {} is one of {} in the list", wait.waiter, wait.waiters);
        if let (Some(word), Some(owner)) = (wait.owner_word, waiting.owner) {
            let _ = write!(text, ", and the owner's word {word:#x} is {} at {}", named(owner), owner.kaddr);
        }
    }
    text
}

fn deadlock(waits: &Waits<'_>, circle: &[KVirtAddr]) -> Finding {
    let of = |at: &KVirtAddr| waits.waiting.iter().find(|waiting| waiting.task.kaddr == *at);
    let edges: Vec<&Waiting<'_>> = circle.iter().filter_map(of).collect();
    let sure = edges.len() == circle.len() && edges.iter().all(|waiting| waiting.sure);
    let names: Vec<String> = edges.iter().map(|waiting| named(waiting.task)).collect();
    let title = match names.as_slice() {
        [one] => format!("{one} waits for a lock that it holds itself."),
        [a, b] => format!("{a} and {b} wait for each other, and neither can ever go on."),
        all => format!(
            "{} tasks wait for each other in a circle, and none can ever go on: {}.",
            all.len(),
            all.iter().take(LINES).cloned().collect::<Vec<_>>().join(", ")
        ),
    };
    let confidence = if sure { Confidence::Certain } else { Confidence::Likely };
    let mut finding = Finding::new("KD-HANG-DEADLOCK", Severity::Error, confidence, title);
    finding.evidence.extend(edges.iter().take(LINES).map(|waiting| edge(waiting)));
    let behind = waits
        .waiting
        .iter()
        .filter(|one| {
            !circle.contains(&one.task.kaddr) && one.owner.is_some_and(|owner| circle.contains(&owner.kaddr))
        })
        .count();
    if behind > 0 {
        finding = finding.because(format!("{behind} more tasks wait for what these hold"));
    }
    let finding = finding
        .next("Compare the order in which the code takes these locks: the call traces of both show where each took its second one.");
    edges.iter().take(2).fold(finding, |finding, waiting| by_hand(finding, waiting))
}

fn blocker(context: &Context<'_>, waits: &Waits<'_>, root: &super::graph::Root) -> Option<Finding> {
    let task = context.tasks.at(root.task)?;
    let direct: Vec<&Waiting<'_>> =
        waits.waiting.iter().filter(|one| one.owner.is_some_and(|owner| owner.kaddr == root.task)).collect();
    let oldest = direct.iter().map(|one| one.seconds()).fold(0.0, f64::max);
    let early = oldest < NEWS;
    if early && (root.all < CROWD || oldest < CROWD_NEWS) {
        return None;
    }
    let first = direct.first()?;
    let severity = if oldest >= waits.hung_s { Severity::Error } else { Severity::Warning };
    let sure = direct.iter().any(|one| one.sure);
    let confidence = match (sure, early) {
        (false, _) => Confidence::Hint,
        (true, true) => Confidence::Likely,
        (true, false) => Confidence::Certain,
    };
    let behind = root.all.saturating_sub(root.direct);
    let more = if behind > 0 { format!(", and {behind} more wait for these") } else { String::new() };
    let waiters =
        if root.direct == 1 { "1 task waits".to_owned() } else { format!("{} tasks wait", root.direct) };
    let own = waits.waiting.iter().find(|one| one.task.kaddr == root.task);
    let is_next = own.is_some_and(|own| direct.iter().any(|one| own.is_next_for_what(one)));
    let place = if is_next {
        format!("behind {}, which waits for the same lock", named(task))
    } else {
        format!("for what {} holds", named(task))
    };
    let title = format!("{waiters} {place}{more}, the longest for {}.", seconds(oldest));
    let mut finding = Finding::new("KD-HANG-BLOCKED-BY", severity, confidence, title);
    finding.evidence.extend(direct.iter().take(LINES).map(|waiting| edge(waiting)));
    let does = match (task.running_on, own) {
        (Some(cpu), _) => format!("{} runs on CPU {cpu}", named(task)),
        (None, Some(own)) => {
            format!("{} is in state {} and waits for {}", named(task), task.letter(), own.lock_words())
        }
        (None, None) => {
            let symbols =
                super::symbols_of(context, task, &waits.registers, &std::collections::HashMap::new());
            let calls: Vec<String> =
                symbols.into_iter().filter(|name| !what::is_scheduler(name)).take(6).collect();
            format!("{} is in state {}, in {}", named(task), task.letter(), calls.join(" < "))
        }
    };
    finding = finding.because(does);
    if early {
        finding = finding.because(format!(
            "so many behind one for so long are seldom mere traffic; the kernel itself calls a task hung after {}",
            seconds(waits.hung_s)
        ));
    }
    if !sure {
        finding = finding.because(
            "the owner of a rw-semaphore that readers hold is the one that took it last, and may have let go",
        );
    }
    let next = match own {
        Some(own) => format!(
            "Find out why {} does not get what it waits for itself: {}.",
            named(task),
            own.lock_words()
        ),
        None => format!("Find out why {} does not let go: look at its call trace.", named(task)),
    };
    let finding = finding.next(next).by_hand_crash(format!("bt {}", task.pid));
    Some(by_hand(finding, first))
}

/// Tasks that nothing wakes, for long.
fn hung(context: &Context<'_>, waits: &Waits<'_>, blocked: &Blocked) -> Option<Finding> {
    // What the kernel itself is to call hung is news in any case.
    let news = NEWS.min(waits.hung_s);
    let long: Vec<&Waiting<'_>> = waits
        .waiting
        .iter()
        .filter(|one| one.task.letter() == 'D' && one.seconds() >= news && !one.why.is_sleep())
        .collect();
    let first = long.first()?;
    let dead = |one: &&&Waiting<'_>| {
        one.seconds() >= waits.hung_s && one.task.state.is_some_and(State::is_unkillable)
    };
    let hung = long.iter().filter(dead).count();
    let severity = if hung > 0 { Severity::Error } else { Severity::Warning };
    let tasks = counted(context, long.len(), ["task is", "tasks are"]);
    let title = format!(
        "{tasks} blocked for {} or longer; {} has been for {}.",
        seconds(news),
        named(first.task),
        seconds(first.seconds())
    );
    let mut finding = Finding::new("KD-HANG-TASKS", severity, Confidence::Certain, title)
        .because(format!("{hung} of them are past kernel.hung_task_timeout_secs, {}", seconds(waits.hung_s)));
    for group in blocked.groups.iter().filter(|group| group.oldest_s.is_some_and(|s| s >= NEWS)).take(LINES) {
        let pids: Vec<String> = group.pids.iter().take(6).map(ToString::to_string).collect();
        let more = if group.count > 6 { ", …" } else { "" };
        let calls: Vec<&str> = group
            .symbols
            .iter()
            .map(String::as_str)
            .filter(|name| !what::is_scheduler(name))
            .take(6)
            .collect();
        finding = finding.because(format!(
            "{} in {} (pid {}{more}), the longest for {}{}",
            group.count,
            calls.join(" < "),
            pids.join(", "),
            seconds(group.oldest_s.unwrap_or_default()),
            group.what.as_ref().map(|what| format!(", waiting for {what}")).unwrap_or_default()
        ));
    }
    let finding = finding.next("See who waits for whom: kdt triage --only blocked.");
    Some(by_hand(finding, first))
}

/// `2 tasks are`, or «At least 2 tasks are» where there can be others: tasks that can't be shown, or whose state can't be read.
fn counted(context: &Context<'_>, count: usize, words: [&str; 2]) -> String {
    let tasks = context.tasks;
    let whole = tasks.lost_count == 0 && tasks.tasks.iter().all(|task| task.state.is_some());
    let [one, many] = words;
    let at_least = if whole { "" } else { "At least " };
    format!("{at_least}{count} {}", if count == 1 { one } else { many })
}

/// Tasks that wait for a device, or for what stands behind it.
fn io(context: &Context<'_>, waits: &Waits<'_>) -> Option<Finding> {
    let long: Vec<&Waiting<'_>> = waits
        .waiting
        .iter()
        .filter(|one| {
            one.why.is_io() && one.owner.is_none() && one.task.letter() == 'D' && one.seconds() >= NEWS
        })
        .collect();
    let first = long.first()?;
    let severity = if first.seconds() >= waits.hung_s { Severity::Error } else { Severity::Warning };
    let tasks = counted(context, long.len(), ["task has", "tasks have"]);
    let title =
        format!("{tasks} waited for storage, or a server behind it, for {} or longer.", seconds(NEWS));
    let mut finding = Finding::new("KD-HANG-IO", severity, Confidence::Likely, title);
    finding.evidence.extend(long.iter().take(LINES).map(|one| {
        let text = one.what().unwrap_or_default();
        format!("{} has waited for {text} for {}", named(one.task), seconds(one.seconds()))
    }));
    let finding = finding
        .next("Look whether the device has requests in flight: kdt triage --only block_io.")
        .next("Look in the log for errors and timeouts of that device or server.");
    Some(by_hand(finding, first))
}
