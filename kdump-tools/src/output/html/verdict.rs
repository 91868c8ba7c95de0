//! The top of the page: what happened, where and to whom; what was found; and what is missing, beside it.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;
use vmcore::report::{CodeLine, Finding, Panic, Report, TaskRef};

use super::text::show;
use super::{View, generic};
use crate::output::report::{is_untold, operand_words, ran_by};

/// What happened, in one line.
pub(super) fn headline(report: &Report) -> String {
    match (&report.error, &report.panic) {
        (Some(error), _) => format!("not usable: {}", error.message),
        (None, Some(panic)) => format!("{}: {}", panic.kind.word(), panic.message),
        (None, None) if is_untold(report) => "crashed, and its log does not tell of what".into(),
        (None, None) if report.log.records.is_some() => "no panic".into(),
        (None, None) => "no verdict".into(),
    }
}

/// `init (pid 1)`.
pub(super) fn task_words(task: &TaskRef) -> String {
    let comm = task.comm.as_deref().unwrap_or("?");
    task.pid.map_or_else(|| comm.to_owned(), |pid| format!("{comm} (pid {pid})"))
}

/// The verdict, the findings, and what is missing.
pub(super) fn part(view: &View<'_>) -> Markup {
    let report = view.report;
    let calm = report.error.is_none() && report.panic.is_none() && !is_untold(report);
    html! {
        div.verdict.calm[calm] {
            p.path { (show(&report.dump.path)) }
            @if let Some(error) = &report.error {
                h1 { span.kind { "not usable" } " " (show(&error.message)) }
                p { b { "Next: " } (show(&error.hint)) }
            } @else if let Some(panic) = &report.panic {
                h1 { span.kind { (panic.kind.word()) } " " (show(&panic.message)) }
                (who(view))
                (generic::members(view.get("/panic"), &["kind", "message", "cpu", "task", "backtrace", "instruction", "registers", "culprit"]))
                (scene(panic))
            } @else if is_untold(report) {
                h1 { span.kind { "crashed" } " The log does not tell of what" }
            } @else if report.log.records.is_some() {
                h1 { span.kind { "no panic" } " The log shows no panic" }
                p { "This is a dump of a running or a hung machine." }
            } @else {
                h1 { span.kind { "no verdict" } " The kernel log could not be read" }
                p { "What happened is not known." }
            }
            @if let Some(finding) = report.findings.first() {
                @if let Some(next) = finding.next.first() { p.next { b { "Next: " } (show(next)) } }
            }
        }
        div.pair {
            section id=(view.id("findings")) {
                h2 { "Findings" }
                @if report.findings.is_empty() { p.none { "Nothing was found in what was looked at." } }
                @for (at, one) in report.findings.iter().enumerate() { (finding(one, view.get(&format!("/findings/{at}")))) }
            }
            section id=(view.id("missing")) { h2 { "Not looked at" } (missing(report)) }
        }
    }
}

/// Where, who.
fn who(view: &View<'_>) -> Markup {
    let Some(panic) = &view.report.panic else { return html! {} };
    let place = panic.backtrace.iter().find(|frame| frame.interrupted).or(panic.backtrace.first());
    html! {
        dl.who {
            @if let Some(frame) = place {
                @if let Some(symbol) = &frame.symbol {
                    dt { "Where" }
                    dd { code { (show(symbol)) @if let Some(offset) = frame.offset { (format!("+{offset:#x}")) } }
                        @if let Some(module) = &frame.module { " in module " code { (show(module)) } }
                        @if !frame.sure { " (a guess)" } }
                }
            }
            @if let Some(task) = &panic.task { dt { "Who" } dd { (show(&task_words(task))) } }
            @if let Some(cpu) = panic.cpu { dt { "CPU" } dd { (cpu) } }
            @if let Some(culprit) = &panic.culprit {
                dt { "From" }
                dd { @if let Some(function) = &culprit.function { code { (show(function)) } " " }
                    @if let Some(module) = &culprit.module { "in module " code { (show(module)) } " " }
                    @if let Some(task) = &culprit.task { (ran_by(panic, culprit)) " " (show(&task_words(task))) " " }
                    "(" (culprit.confidence.word()) ": " (show(&culprit.because)) ")" }
            }
        }
    }
}

/// The instruction with those around it, and the registers.
fn scene(panic: &Panic) -> Markup {
    html! {
        @if let Some(code) = &panic.instruction {
            h3 { "Instruction" @if code.source == "log" { " (by the log's Code: line)" } }
            pre {
                @for line in &code.before { (code_line("   ", line)) }
                (code_line("=> ", &CodeLine { pc: code.pc, bytes: code.bytes.clone(), text: code.text.clone() }))
                @for line in &code.after { (code_line("   ", line)) }
            }
            @for operand in &code.operands { p { (show(&operand_words(operand))) } }
            @if let Some(note) = &code.note { p { (show(note)) } }
        }
        @if !panic.registers.is_empty() {
            details { summary { "Registers" }
                table { tbody { @for register in &panic.registers {
                    tr { th scope="row" { (show(&register.name)) } td { code { (format!("{:#018x}", register.value.0)) } }
                        td { @if let Some(what) = &register.points_to { (show(what)) } } }
                } } }
            }
        }
    }
}

fn code_line(mark: &str, line: &CodeLine) -> Markup {
    let at = line.pc.map(|pc| format!("{:#x}  ", pc.0)).unwrap_or_default();
    html! { (mark) (at) (format!("{:<30}", line.bytes)) " " (show(&line.text)) "\n" }
}

fn finding(finding: &Finding, value: &Value) -> Markup {
    html! {
        div.finding.(finding.severity.word()) data-f {
            h3 { span.sev { (finding.severity.word()) } " " (show(&finding.title)) }
            p.code { code { (show(&finding.code)) } " · " (finding.confidence.word()) }
            @if !finding.evidence.is_empty() {
                p { "Because:" } ul { @for line in &finding.evidence { li { (show(line)) } } }
            }
            @if !finding.next.is_empty() { p { "Next:" } ol { @for step in &finding.next { li { (show(step)) } } } }
            @if !finding.by_hand.is_empty() {
                p { "By hand:" }
                ul { @for hand in &finding.by_hand { li { (hand.tool.word()) ": " code { (show(&hand.line)) } } } }
            }
            (generic::members(value, &["code", "severity", "title", "confidence", "evidence", "next", "by_hand"]))
        }
    }
}

/// What is not covered, the same reason said once.
fn missing(report: &Report) -> Markup {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for skipped in &report.not_looked_at {
        by_reason.entry(&skipped.why).or_default().push(&skipped.what);
    }
    html! {
        @if by_reason.is_empty() { p.none { "Nothing is missing." } }
        @else { dl.missing { @for (why, what) in by_reason { div data-f { dt { (show(&what.join(", "))) } dd { (show(why)) } } } } }
    }
}

/// The file and the kernel.
pub(super) fn facts(view: &View<'_>) -> Markup {
    let utc = |s: Option<f64>| s.and_then(crate::output::human::utc);
    let kernel = &view.report.kernel;
    let times = ["boot_time", "crash_time", "cmdline"];
    html! {
        div.pair {
            div { h3 { "Kernel" }
                dl {
                    @if let Some(time) = utc(kernel.crash_time) { dt { "crashed" } dd { (time) } }
                    @if let Some(time) = utc(kernel.boot_time) { dt { "booted" } dd { (time) } }
                }
                (generic::members(view.get("/kernel"), &times))
                @if let Some(line) = &kernel.cmdline { p { "Command line: " code { (show(line)) } } }
            }
            div { h3 { "Dump" } (generic::members(view.get("/dump"), &["path"])) h3 { "Symbols" } (generic::members(view.get("/symbols"), &[])) }
        }
    }
}
