//! Who waits for whom, and the run queues: a few lines for an overview, all of it for who asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vmcore::report::{BlockedGroup, Report, RunQueue, WaitEdge};

use super::super::escape::escape;
use super::super::human;
use super::{Page, cut};

/// Lines that an overview shows.
const LINES: usize = 4;
/// Pids that a line names.
const NAMED: usize = 6;
/// Callers of a task that holds others up.
const CALLERS: usize = 6;

/// Names of tasks, by pid.
fn names(report: &Report) -> BTreeMap<i64, &str> {
    let listed = report.tasks.iter().filter_map(|task| Some((task.pid, task.comm.as_deref()?)));
    let blocked = report.blocked.iter().flat_map(|blocked| &blocked.blockers);
    blocked.filter_map(|one| Some((one.pid, one.comm.as_deref()?))).chain(listed).collect()
}

fn task(names: &BTreeMap<i64, &str>, pid: i64) -> String {
    match names.get(&pid) {
        Some(comm) => format!("{} (pid {pid})", escape(comm)),
        None => format!("pid {pid}"),
    }
}

/// `mutex lab_mutex_a [lab_fail]`.
fn lock(edge: &WaitEdge) -> String {
    let kind = escape(&edge.lock.kind);
    match (&edge.lock.name, edge.lock.kaddr) {
        (Some(name), _) => format!("{kind} {}", escape(name)),
        (None, Some(at)) => format!("{kind} at {at}"),
        (None, None) => kind.into_owned(),
    }
}

fn pids(pids: &[i64], count: u64) -> String {
    let shown: Vec<String> = pids.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if u64::try_from(shown.len()).is_ok_and(|n| n < count) { ", …" } else { "" };
    format!("pid {}{more}", shown.join(", "))
}

/// A circle as a line: each waits for what the next one holds.
fn circle(report: &Report, names: &BTreeMap<i64, &str>, members: &[i64]) -> String {
    let step = |pid: &i64| {
        let edge = report.blocked.iter().flat_map(|b| &b.edges).find(|edge| edge.waiter == *pid);
        let held = edge.map(|edge| format!(" -> {} ->", lock(edge))).unwrap_or_default();
        format!("{}{held}", task(names, *pid))
    };
    let all: Vec<String> = members.iter().map(step).collect();
    let first = members.first().map(|pid| task(names, *pid)).unwrap_or_default();
    format!("{} {first}", all.join(" "))
}

fn blocker(report: &Report, names: &BTreeMap<i64, &str>, one: &vmcore::report::Blocker) -> String {
    let edges = report.blocked.iter().flat_map(|b| &b.edges);
    let held: Vec<&WaitEdge> = edges.filter(|edge| edge.owner == Some(one.pid)).collect();
    // Neither a grace period nor a CPU is held: this task is in its way.
    let what = |edge: &&WaitEdge| match edge.lock.kind.as_str() {
        "rcu" => "up the RCU grace period".to_owned(),
        "cpu" => format!("up its CPU, which is to call {}", escape(edge.lock.name.as_deref().unwrap_or("?"))),
        _ => lock(edge),
    };
    let what = held.first().map(what).unwrap_or_default();
    let behind = one.all.saturating_sub(one.direct);
    let more = if behind > 0 { format!(" ({behind} more behind them)") } else { String::new() };
    let waits = if one.direct == 1 { "waits" } else { "wait" };
    // With PREEMPT_RT others wait behind a writer that does not have the lock either.
    let mut own = report.blocked.iter().flat_map(|b| &b.edges).filter(|edge| edge.waiter == one.pid);
    let is_next = own.any(|own| held.iter().any(|edge| own.lock.kaddr.is_some() && own.lock == edge.lock));
    let (hint, whom) = match (is_next, held.iter().any(|edge| edge.sure)) {
        (true, _) => ("is the first that waits for", "behind it"),
        (false, true) => ("holds", "for it"),
        (false, false) => ("held, or still holds,", "for it"),
    };
    format!(
        "{} {hint} {what}; {} {waits} {whom}{more}; it is in state {}{}",
        task(names, one.pid),
        one.direct,
        escape(one.state.as_deref().unwrap_or("?")),
        calls(&one.symbols)
    )
}

fn calls(symbols: &[String]) -> String {
    if symbols.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = symbols.iter().take(CALLERS).map(|name| escape(name)).collect();
    let more = if symbols.len() > CALLERS { " < …" } else { "" };
    format!(", in {}{more}", shown.join(" < "))
}

impl Page {
    /// Circles, and who holds others up; nothing where nobody waits for a lock.
    pub(super) fn waits(&self, report: &Report) -> String {
        let Some(blocked) = report.blocked.as_ref() else { return String::new() };
        if blocked.cycles.is_empty() && blocked.blockers.is_empty() {
            return String::new();
        }
        let names = names(report);
        let circles = blocked.cycles.iter().map(|c| format!("a deadlock: {}", circle(report, &names, c)));
        let blockers = blocked.blockers.iter().map(|one| blocker(report, &names, one));
        let mut out = self.heading("Who waits for whom");
        for line in circles.chain(blockers).take(LINES) {
            self.wrapped(&mut out, "  ", &line);
        }
        let all = blocked.cycles.len().saturating_add(blocked.blockers.len());
        if let Some(more) = all.checked_sub(LINES).filter(|n| *n > 0) {
            let _ = writeln!(out, "  and {more} more (--only blocked shows them)");
        }
        out
    }

    /// All that is known of who waits.
    pub(super) fn whole_blocked(&self, report: &Report) -> String {
        let Some(blocked) = report.blocked.as_ref() else { return String::new() };
        let names = names(report);
        let mut out = String::new();
        if !blocked.cycles.is_empty() || !blocked.blockers.is_empty() {
            out.push_str(&self.heading("Who waits for whom"));
        }
        for members in &blocked.cycles {
            self.wrapped(&mut out, "  ", &format!("a deadlock: {}", circle(report, &names, members)));
        }
        for one in &blocked.blockers {
            self.wrapped(&mut out, "  ", &blocker(report, &names, one));
        }
        out.push_str(&self.heading("Blocked tasks"));
        if blocked.groups.is_empty() {
            out.push_str("  none\n");
        }
        for group in &blocked.groups {
            self.wrapped(&mut out, "  ", &group_words(group));
            self.wrapped(&mut out, "    ", calls(&group.symbols).trim_start_matches(", "));
        }
        if !blocked.edges.is_empty() {
            out.push_str(&self.heading("Each wait"));
        }
        for edge in &blocked.edges {
            let sure = if edge.sure || edge.owner.is_none() { "" } else { " (a hint)" };
            let owner = edge.owner.map(|pid| format!(", held by {}{sure}", task(&names, pid)));
            let at = edge.lock.kaddr.filter(|_| edge.lock.name.is_some()).map(|at| format!(" at {at}"));
            let line = format!(
                "{} waits for {}{}{}",
                task(&names, edge.waiter),
                lock(edge),
                at.unwrap_or_default(),
                owner.unwrap_or_default()
            );
            self.wrapped(&mut out, "  ", &line);
        }
        out
    }

    /// The run queues, one CPU a line.
    pub(super) fn run_queues(&self, report: &Report) -> String {
        if report.runqueues.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Run queues");
        let head = "  CPU  READY        CLOCK     BEHIND    RUNNING  IRQS  RCU    CURRENT";
        let _ = writeln!(out, "{head}");
        let names = names(report);
        for queue in &report.runqueues {
            let _ = writeln!(out, "{}", cut(&queue_line(queue), self.width.max(head.len())));
            let waiting: Vec<String> = queue.queued.iter().map(|pid| task(&names, *pid)).collect();
            if !waiting.is_empty() {
                self.wrapped(&mut out, "       ", &format!("waiting: {}", waiting.join(", ")));
            }
            if queue.rt_throttled == Some(true) {
                let _ = writeln!(out, "       real-time tasks are held back");
            }
        }
        out
    }
}

/// `3 tasks, up to 42 s, wait for a mutex (pid 1, 2, 3)`.
fn group_words(group: &BlockedGroup) -> String {
    let tasks =
        if group.count == 1 { "1 task".to_owned() } else { format!("{} tasks", human::count(group.count)) };
    let age = group.oldest_s.map(|s| format!(", for up to {}", human::duration(s))).unwrap_or_default();
    let waits = if group.count == 1 { "waits" } else { "wait" };
    let what = group.what.as_ref().map(|what| format!(", {waits} for {}", escape(what))).unwrap_or_default();
    let killable = if group.killable { ", killable" } else { "" };
    format!("{tasks} in {}{killable} ({}){age}{what}", escape(&group.state), pids(&group.pids, group.count))
}

fn queue_line(queue: &RunQueue) -> String {
    let time = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), human::duration);
    let clock = queue.clock_s.map_or_else(|| "?".to_owned(), |s| format!("{s:.3}"));
    let irqs = queue.irqs_off.map_or("?", |off| if off { "off" } else { "on" });
    let rcu = queue.holds_up_rcu.map_or("?", |holds| if holds { "waits" } else { "-" });
    let comm = queue.curr_comm.as_deref().map_or("?".into(), escape);
    format!(
        "  {:>3}  {:>5} {clock:>12} {:>10} {:>10}  {irqs:<4}  {rcu:<5}  {comm} (pid {})",
        queue.cpu,
        queue.nr_running.map_or_else(|| "?".to_owned(), |n| n.to_string()),
        time(queue.behind_s),
        time(queue.running_for_s),
        queue.current.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
    )
}
