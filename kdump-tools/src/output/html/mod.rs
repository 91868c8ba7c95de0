//! A triage report as one HTML file, for a person with a browser and without a network.
//!
//! What came from a dump is text: `maud` escapes it by construction, [`text`](mod@text) makes characters visible that hide or reorder
//! others, and the page's Content-Security-Policy lets nothing run or load but the page's own script and style, by
//! their digests.
//!
//! - [`page`]: the file; [`csp`]: its policy.
//! - `verdict`, `timeline`, `waits`, `memory`, `tasks`, `log`: the parts that have a form of their own.
//! - `generic`: all other parts, whatever fields they have.

pub mod csp;
mod generic;
mod log;
mod memory;
mod tasks;
pub mod text;
mod timeline;
mod verdict;
mod waits;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use vmcore::report::Report;

use crate::output::human;
use text::show;

/// Parts of the document that have a form of their own, or are shown with another part.
const SHOWN: [&str; 16] = [
    "schema",
    "tool",
    "dump",
    "kernel",
    "symbols",
    "panic",
    "cpus",
    "tasks",
    "modules",
    "blocked",
    "memory",
    "slab",
    "log",
    "findings",
    "not_looked_at",
    "error",
];

/// One file with all reports, and an index on top where there are several.
#[must_use]
pub fn page(reports: &[&Report]) -> String {
    let title = match reports {
        [report] => format!("{}: {}", short_name(&report.dump.path), verdict::headline(report)),
        reports => human::plural(reports.len(), "dump"),
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(csp::policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (show(&title)) " – kdt triage" }
                style { (PreEscaped(csp::STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the report" }
                header.bar {
                    strong { "kdt triage" }
                    form.search role="search" hidden {
                        label for="q" { "Search" }
                        input id="q" type="search" autocomplete="off" spellcheck="false"
                            placeholder="task, pid, log text, finding…" aria-describedby="hits";
                        span id="hits" aria-live="polite" {}
                    }
                }
                main id="main" tabindex="-1" {
                    @if reports.len() > 1 { (index(reports)) }
                    @for (at, report) in reports.iter().enumerate() { (one(report, at.saturating_add(1))) }
                }
                footer { "Made by " (show(&made_by(reports))) ". This file loads nothing and sends nothing." }
                script { (PreEscaped(csp::SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

fn made_by(reports: &[&Report]) -> String {
    reports.first().map(|report| format!("{} {}", report.tool.name, report.tool.version)).unwrap_or_default()
}

fn short_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn index(reports: &[&Report]) -> Markup {
    let unusable = reports.iter().filter(|report| report.error.is_some()).count();
    html! {
        nav.index aria-label="Dumps" {
            h1 { (human::plural(reports.len(), "dump")) @if unusable > 0 { ", " (unusable) " of them not usable" } }
            table {
                thead { tr { th scope="col" { "Dump" } th scope="col" { "What happened" } th scope="col" { "Host" } th scope="col" { "Kernel" } } }
                tbody {
                    @for (at, report) in reports.iter().enumerate() {
                        tr {
                            td { a href=(format!("#d{}", at.saturating_add(1))) { (show(&report.dump.path)) } }
                            td { (show(&verdict::headline(report))) }
                            td { (generic::maybe(report.kernel.nodename.as_deref())) }
                            td { (generic::maybe(report.kernel.release.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}

/// What every part of a dump's page needs: the typed report, the same as values, and a prefix for its anchors.
pub(super) struct View<'a> {
    report: &'a Report,
    document: &'a Value,
    id: String,
}

impl View<'_> {
    fn id(&self, part: &str) -> String {
        format!("{}-{part}", self.id)
    }

    /// A member of the document, whatever type it has; `Null` where there is none.
    fn get(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }
}

type Part = (&'static str, &'static str, Markup);

fn one(report: &Report, number: usize) -> Markup {
    // A report that can't be written as values has no generic parts; the typed ones stand.
    let document = serde_json::to_value(report).unwrap_or(Value::Null);
    let view = View { report, document: &document, id: format!("d{number}") };
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |id, title, markup: Option<Markup>| {
        if let Some(markup) = markup {
            parts.push((id, title, markup));
        }
    };
    if report.error.is_none() {
        add("facts", "Dump and kernel", Some(verdict::facts(&view)));
        add("timeline", "Timeline of the log", timeline::part(&view));
        add("trace", "Call trace of the panic", tasks::panic(&view));
        add("waits", "Who waits for whom", waits::part(&view));
        add("memory", "Memory", memory::part(&view));
        add("stacks", "Stacks, alike ones together", tasks::stacks(&view));
        add("cpus", "CPUs", tasks::cpus(&view));
        add("tasks", "Tasks", tasks::table(&view));
        add("modules", "Modules", tasks::modules(&view));
    }
    let others = generic::others(&view, &SHOWN);
    let log = log::part(&view);
    html! {
        article.dump id=(view.id) {
            (verdict::part(&view))
            nav.toc aria-label="Parts of this report" {
                ul {
                    @for (id, title, _) in &parts { li { a href=(format!("#{}", view.id(id))) { (title) } } }
                    @for (key, title, _) in &others { li { a href=(format!("#{}", view.id(key))) { (title) } } }
                    @if log.is_some() { li { a href=(format!("#{}", view.id("log"))) { "Log" } } }
                }
            }
            @for (id, title, markup) in &parts { section id=(view.id(id)) { h2 { (title) } (markup) } }
            @for (key, title, markup) in &others { section id=(view.id(key)) { h2 { (title) } (markup) } }
            @if let Some(log) = &log { section id=(view.id("log")) { h2 { "Log" } (log) } }
        }
    }
}

#[cfg(test)]
mod tests;
