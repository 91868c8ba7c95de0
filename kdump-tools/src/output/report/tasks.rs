//! The tasks: counted in a line, the blocked ones in an overview, all of them in a table as `ps` has it, and their stacks
//! with those that are alike shown once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vmcore::report::{Report, Task};

use super::super::escape::escape;
use super::super::human;
use super::{Page, cut, frames};

/// Groups of blocked tasks that an overview shows.
const GROUPS: usize = 4;
/// Tasks that are named in a group of an overview.
const NAMED: usize = 3;
/// Callers that an overview shows.
const CALLERS: usize = 8;

/// What a letter of `ps` means.
fn state_words(letter: &str) -> &str {
    match letter {
        "R" => "running or ready",
        "S" => "sleeping",
        "D" => "blocked (D)",
        "T" => "stopped",
        "t" => "traced",
        "X" => "dead",
        "Z" => "zombies",
        "P" => "parked",
        "I" => "idle kernel threads",
        _ => "in an unknown state",
    }
}

/// `80: 2 running or ready, 3 blocked (D), 75 sleeping`; nothing where no task is known.
pub(super) fn count(report: &Report) -> Option<String> {
    if report.tasks.is_empty() {
        return None;
    }
    let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
    for task in &report.tasks {
        let count = by_state.entry(task.state.as_deref().unwrap_or("?")).or_default();
        *count = count.saturating_add(1);
    }
    let mut words = Vec::new();
    // The interesting ones first, the many last.
    for letter in ["R", "D", "Z", "T", "t", "X", "P", "?", "S", "I"] {
        if let Some(count) = by_state.get(letter) {
            words.push(format!("{} {}", human::count(*count), state_words(letter)));
        }
    }
    let all = u64::try_from(report.tasks.len()).unwrap_or(u64::MAX);
    Some(format!("{}: {}", human::count(all), words.join(", ")))
}

/// What makes two stacks alike: the functions and the places in them.
type Callers<'r> = Vec<(Option<&'r str>, Option<u64>)>;

/// Tasks with the same callers, in the order of the first of each.
fn alike<'r>(tasks: impl Iterator<Item = &'r Task>) -> Vec<Vec<&'r Task>> {
    let mut groups: Vec<Vec<&Task>> = Vec::new();
    let mut places: BTreeMap<Callers<'_>, usize> = BTreeMap::new();
    for task in tasks {
        let key = task.backtrace.iter().map(|f| (f.symbol.as_deref(), f.offset)).collect();
        match places.get(&key).and_then(|place| groups.get_mut(*place)) {
            // Without a stack there is nothing that could be alike.
            Some(group) if !task.backtrace.is_empty() => group.push(task),
            _ => {
                places.insert(key, groups.len());
                groups.push(vec![task]);
            }
        }
    }
    groups
}

/// What a task waits for, in words.
fn waits_for<'r>(report: &'r Report, task: &Task) -> Option<&'r str> {
    let edges = &report.blocked.as_ref()?.edges;
    edges.iter().find(|edge| edge.waiter == task.pid)?.what.as_deref()
}

fn name(task: &Task) -> String {
    let comm = task.comm.as_deref().map_or("?".into(), escape);
    format!("{comm} (pid {})", task.pid)
}

impl Page {
    /// The tasks in D state, those that wait at the same place together, the longest wait first.
    pub(super) fn blocked_tasks(&self, report: &Report) -> String {
        let mut groups = alike(report.tasks.iter().filter(|task| task.state.as_deref() == Some("D")));
        if groups.is_empty() {
            return String::new();
        }
        let age = |group: &[&Task]| group.iter().filter_map(|task| task.blocked_for_s).fold(0.0, f64::max);
        groups.sort_by(|a, b| age(b).total_cmp(&age(a)));
        let mut out = self.heading("Blocked tasks");
        for group in groups.iter().take(GROUPS) {
            let names: Vec<String> = group.iter().take(NAMED).map(|task| name(task)).collect();
            let more = group.len().checked_sub(NAMED).filter(|n| *n > 0);
            let more = more.map(|n| format!(" and {n} more")).unwrap_or_default();
            let longest = match age(group) {
                age if age > 0.0 => format!(", for {}", human::duration(age)),
                _ => String::new(),
            };
            self.wrapped(&mut out, "  ", &format!("{}{more}{longest}", names.join(", ")));
            let trace = group.first().and_then(|task| frames::chain(&task.backtrace, CALLERS));
            self.wrapped(&mut out, "    ", &trace.unwrap_or_else(|| "its stack is not known".into()));
            if let Some(what) = group.first().and_then(|task| waits_for(report, task)) {
                self.wrapped(&mut out, "    ", &format!("waits for {}", escape(what)));
            }
        }
        if let Some(more) = groups.len().checked_sub(GROUPS).filter(|n| *n > 0) {
            let _ = writeln!(out, "  and tasks at {more} more places (--only stacks shows them)");
        }
        out
    }

    /// All tasks, one a line.
    pub(super) fn task_table(&self, report: &Report) -> String {
        if report.tasks.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Tasks");
        let head = "    PID    PPID  S  CPU      UID    NOT RUN  COMMAND";
        let _ = writeln!(out, "{head}");
        let number = |n: Option<i64>| n.map_or_else(|| "?".into(), |n| n.to_string());
        for task in &report.tasks {
            let comm = task.comm.as_deref().map_or("?".into(), escape);
            let command = match &task.cmdline {
                Some(line) => format!("{comm}: {}", escape(line)),
                None if task.kernel_thread == Some(true) => format!("[{comm}]"),
                None => comm.into_owned(),
            };
            let age = task.not_run_s.map_or_else(|| "-".into(), human::duration);
            let line = format!(
                "{:>7} {:>7}  {}  {:>3} {:>8} {age:>10}  {command}",
                task.pid,
                number(task.ppid),
                task.state.as_deref().unwrap_or("?"),
                task.cpu.map_or_else(|| "?".into(), |cpu| cpu.to_string()),
                task.uid.map_or_else(|| "?".into(), |uid| uid.to_string()),
            );
            let _ = writeln!(out, "{}", cut(&line, self.width.max(head.len())));
        }
        out
    }

    /// The stacks of all tasks. Those that are alike are shown once, with all who are there.
    pub(super) fn stacks(&self, report: &Report) -> String {
        let groups = alike(report.tasks.iter());
        let mut out = String::new();
        for group in groups {
            let Some(first) = group.first() else { continue };
            let names: Vec<String> = group
                .iter()
                .map(|task| format!("{} {}", name(task), task.state.as_deref().unwrap_or("?")))
                .collect();
            out.push('\n');
            self.wrapped(&mut out, "", &names.join(", "));
            out.push_str(&frames::lines(&first.backtrace, first.backtrace_end.as_deref()));
        }
        if out.is_empty() { out } else { format!("{}{out}", self.heading("Stacks, innermost first")) }
    }
}
