//! Tasks, stacks, CPUs and modules.

use std::collections::BTreeMap;

use maud::{Markup, html};
use vmcore::report::{Frame, Task};

use super::text::show;
use super::{View, generic, verdict};
use crate::output::human;

/// Tasks and groups of stacks that are shown.
const TASKS: usize = 10_000;
const GROUPS: usize = 2000;
/// Tasks that a group names.
const NAMED: usize = 200;
/// CPUs that are shown.
const CPUS: usize = 1024;

pub(super) fn frames(frames: &[Frame], end: Option<&str>) -> Markup {
    html! {
        @if frames.is_empty() { p.none { "Its callers are not known." } }
        @else { ol.trace start="0" { @for frame in frames { li.guess[!frame.sure] {
            @if !frame.sure { "? " }
            @match (&frame.symbol, frame.pc) {
                (Some(symbol), _) => { (show(symbol)) @if let Some(offset) = frame.offset.filter(|_| !frame.inlined) { span.off { (format!("+{offset:#x}")) } } }
                (None, Some(pc)) => (pc.to_string()),
                (None, None) => "?",
            }
            @if let Some(module) = &frame.module { " [" (show(module)) "]" }
            @if frame.inlined { " (inlined)" }
            @if let Some(file) = &frame.file { span.src { " " (show(file)) @if let Some(line) = frame.line { ":" (line) } } }
            @if let Some(stack) = frame.stack.as_deref().filter(|stack| *stack != "task") { span.off { " on the " (show(stack)) " stack" } }
            @if frame.interrupted { b { " ← interrupted here" } }
        } } } }
        @if let Some(end) = end { p.cap { "It ends here: " (show(end)) } }
    }
}

pub(super) fn panic(view: &View<'_>) -> Option<Markup> {
    let panic = view.report.panic.as_ref().filter(|panic| !panic.backtrace.is_empty())?;
    Some(frames(&panic.backtrace, None))
}

fn name(task: &Task) -> String {
    format!("{} ({})", task.comm.as_deref().unwrap_or("?"), task.pid)
}

/// Those that wait without an end first, then those that run.
fn rank(task: &Task) -> usize {
    ["D", "R", "t", "T", "Z", "X", "S", "P", "I"]
        .iter()
        .position(|s| task.state.as_deref() == Some(*s))
        .unwrap_or(9)
}

type Key<'r> = (Option<&'r str>, Vec<(Option<&'r str>, Option<u64>)>);

pub(super) fn stacks(view: &View<'_>) -> Option<Markup> {
    let mut groups: BTreeMap<Key<'_>, Vec<&Task>> = BTreeMap::new();
    for task in view.report.tasks.iter().filter(|task| !task.backtrace.is_empty()) {
        let callers = task.backtrace.iter().map(|f| (f.symbol.as_deref(), f.offset)).collect();
        groups.entry((task.state.as_deref(), callers)).or_default().push(task);
    }
    let mut groups: Vec<Vec<&Task>> = groups.into_values().collect();
    let longest = |group: &[&Task]| group.iter().filter_map(|task| task.blocked_for_s).fold(0.0, f64::max);
    groups.sort_by(|a, b| {
        let by = |group: &[&Task]| group.first().map_or(9, |task| rank(task));
        by(a).cmp(&by(b)).then(longest(b).total_cmp(&longest(a))).then(b.len().cmp(&a.len()))
    });
    if groups.is_empty() {
        return None;
    }
    Some(html! {
        @for group in groups.iter().take(GROUPS) { @if let Some(first) = group.first() {
            @let blocked = first.state.as_deref() == Some("D");
            details.stack.blocked[blocked] open[blocked && groups.len() < 60] data-f {
                summary {
                    span.state { (generic::maybe(first.state.as_deref())) } " "
                    @if group.len() > 1 { b { (group.len()) " tasks" } ": " }
                    (show(&group.iter().take(4).map(|task| name(task)).collect::<Vec<_>>().join(", ")))
                    @if group.len() > 4 { ", …" }
                    @if longest(group) > 0.0 { span.off { " blocked for " (human::duration(longest(group))) } }
                    span.off { " " (generic::maybe(first.backtrace.iter().filter_map(|f| f.symbol.as_deref()).find(|s| !s.contains("schedule")))) }
                }
                @if group.len() > 4 {
                    p { (show(&group.iter().take(NAMED).map(|task| name(task)).collect::<Vec<_>>().join(", "))) @if group.len() > NAMED { " and " (group.len() - NAMED) " more" } }
                }
                (frames(&first.backtrace, first.backtrace_end.as_deref()))
            }
        } }
        @if groups.len() > GROUPS { p.cap { (groups.len() - GROUPS) " more places are not shown: kdt triage --only stacks shows them" } }
    })
}

pub(super) fn table(view: &View<'_>) -> Option<Markup> {
    let all = &view.report.tasks;
    if all.is_empty() {
        return None;
    }
    let mut tasks: Vec<&Task> = all.iter().collect();
    tasks.sort_by_key(|task| (rank(task), task.pid));
    Some(html! {
        div.wide.tall tabindex="0" { table.tasks {
            thead { tr { @for head in ["PID", "Parent", "State", "CPU", "User", "Not run for", "Command"] { th scope="col" { (head) } } } }
            tbody { @for task in tasks.iter().take(TASKS) {
                tr data-f class=(task.state.as_deref().filter(|s| *s == "D").map_or("", |_| "blocked")) {
                    td.n { (task.pid) }
                    td.n { (generic::maybe(task.ppid.map(|n| n.to_string()).as_deref())) }
                    td { (generic::maybe(task.state.as_deref())) }
                    td.n { (generic::maybe(task.cpu.map(|n| n.to_string()).as_deref())) }
                    td.n { (generic::maybe(task.uid.map(|n| n.to_string()).as_deref())) }
                    td.n { (generic::maybe(task.not_run_s.map(human::duration).as_deref())) }
                    td { @if task.kernel_thread == Some(true) { "[" (show(task.comm.as_deref().unwrap_or("?"))) "]" }
                        @else { (generic::maybe(task.comm.as_deref())) @if let Some(line) = &task.cmdline { span.off { " " (show(line)) } } } }
                }
            } }
        } }
        @if all.len() > TASKS { p.cap { (all.len() - TASKS) " more tasks are not shown: kdt triage --only tasks shows them" } }
    })
}

pub(super) fn cpus(view: &View<'_>) -> Option<Markup> {
    let cpus = &view.report.cpus;
    let panicked = view.report.panic.as_ref().and_then(|panic| panic.cpu);
    (!cpus.is_empty()).then(|| html! {
        @for cpu in cpus.iter().take(CPUS) {
            details data-f open[Some(cpu.cpu) == panicked] {
                summary { b { "CPU " (cpu.cpu) } @if let Some(task) = &cpu.task { " " (show(&verdict::task_words(task))) } @if Some(cpu.cpu) == panicked { b.alarm { " panicked" } } }
                @if !cpu.registers.is_empty() {
                    dl.regs { @for (name, value) in &cpu.registers { div { dt { (show(name)) } dd { (format!("{:#018x}", value.0)) } } } }
                }
                (frames(&cpu.backtrace, cpu.backtrace_end.as_deref()))
            }
        }
        @if cpus.len() > CPUS { p.cap { (cpus.len() - CPUS) " more CPUs are not shown" } }
    })
}

pub(super) fn modules(view: &View<'_>) -> Option<Markup> {
    let modules = view.get("/modules");
    (!generic::is_empty(modules)).then(|| generic::folded(modules))
}
