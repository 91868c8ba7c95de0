//! `kdt similar` for a person: the answer first, then where it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vmcore::analysis::signature::may_be_hardware;
use vmcore::report::Signature;

use super::color::{Painter, Style};
use super::escape::escape;
use super::human;
use super::table::wrap;
use crate::similar::{Crash, Group, History, Match, Similar, Subject, tells};

/// Crashes of a group that are shown; the document has all.
const CRASHES: usize = 12;
/// Names of hosts or kernels in one line.
const NAMES: usize = 8;

/// The page.
#[must_use]
pub fn text(answer: &Similar, width: usize, painter: Painter) -> String {
    let mut out = String::new();
    for subject in &answer.subjects {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, subject, width, painter);
    }
    let searched = &answer.searched;
    let _ = writeln!(
        out,
        "\nlooked through: {}, {} of them without a signature",
        human::plural(searched.reports, "report"),
        searched.without_signature
    );
    if !searched.unreadable.is_empty() {
        let _ = writeln!(
            out,
            "not readable: {}, so there may be more",
            human::plural(searched.unreadable.len(), "file")
        );
    }
    out
}

fn one(out: &mut String, subject: &Subject, width: usize, painter: Painter) {
    let mut line = |text: &str| {
        let _ = writeln!(out, "{}", wrap(text, width.max(20)).join("\n  "));
    };
    line(&painter.paint(Style::Strong, &verdict(subject)));
    if let Some(signature) = &subject.signature {
        line(&format!("  {}", shape(signature)));
        line(&format!("  signature {} ({})", signature.hash, signature.confidence.word()));
    }
    if let Some(history) = subject.history.as_ref().filter(|history| history.count > 1) {
        let kind = subject.signature.as_ref().map_or("", |signature| &signature.kind);
        when_and_where(out, kind, history, width);
    }
    for group in &subject.groups {
        let _ = writeln!(out, "\n{}", painter.paint(Style::Strong, &head(group)));
        if group.kind == Match::Near {
            let _ = writeln!(
                out,
                "  {}",
                wrap(&shape(&group.signature), width.saturating_sub(4).max(20)).join("\n    ")
            );
        }
        for crash in group.crashes.iter().take(CRASHES) {
            let _ = writeln!(out, "  {}", row(crash));
        }
        if let Some(more) = group.crashes.len().checked_sub(CRASHES).filter(|n| *n > 0) {
            let _ = writeln!(out, "  and {more} more (--format json has them all)");
        }
    }
}

fn verdict(subject: &Subject) -> String {
    let Some(signature) = &subject.signature else {
        return "Not comparable: the report has no panic and no hang.".into();
    };
    if !tells(signature) {
        return format!("Not comparable: no stack tells this {} from others.", signature.kind);
    }
    let exact: usize =
        subject.groups.iter().filter(|g| g.kind == Match::Exact).map(|g| g.history.count).sum();
    let near: usize = subject.groups.iter().filter(|g| g.kind == Match::Near).map(|g| g.history.count).sum();
    let times = |n: usize| if n == 1 { "once".to_owned() } else { format!("{n} times") };
    match (exact, near) {
        (0, 0) => "Not seen before.".into(),
        (0, near) => format!("Not seen before; something like it was, {}.", times(near)),
        (exact, 0) => format!("Seen before, {}.", times(exact)),
        (exact, near) => format!("Seen before, {}; and something like it, {}.", times(exact), times(near)),
    }
}

/// `null-deref in lab_fail: null_deref < lab_write`.
fn shape(signature: &Signature) -> String {
    let module = signature.module.as_deref().map(|name| format!(" in {}", escape(name))).unwrap_or_default();
    let about = signature.about.as_deref().map(|about| format!(", {}", escape(about))).unwrap_or_default();
    let frames: Vec<String> = signature.frames.iter().map(|name| escape(name).into_owned()).collect();
    let frames = if frames.is_empty() { String::new() } else { format!(": {}", frames.join(" < ")) };
    format!("{}{module}{about}{frames}", escape(&signature.kind))
}

fn when_and_where(out: &mut String, kind: &str, history: &History, width: usize) {
    let time = |at: Option<f64>| at.and_then(human::utc).unwrap_or_else(|| "not known".into());
    let mut lines = vec![
        format!("first seen  {}", time(history.first_seen)),
        format!("last seen   {}", time(history.last_seen)),
        format!("hosts       {}", names(&history.hosts)),
        format!("kernels     {}", names(&history.kernels)),
    ];
    if let Some(host) = history.only_host() {
        let look = if may_be_hardware(kind) {
            "look at its hardware too (memory, machine checks, BMC), and at what only it runs"
        } else {
            "look at what only it runs, and how it is set up"
        };
        lines.push(format!("It is {} each time: {look}.", escape(host)));
    } else if history.hosts.len() > 1 && may_be_hardware(kind) {
        lines.push("It is more than one host: hardware is not the likely cause.".into());
    }
    for line in lines {
        let _ = writeln!(out, "  {}", wrap(&line, width.saturating_sub(4).max(20)).join("\n    "));
    }
}

fn names(all: &BTreeMap<String, usize>) -> String {
    let shown: Vec<String> =
        all.iter().take(NAMES).map(|(name, count)| format!("{} ({count})", escape(name))).collect();
    let more = all.len().saturating_sub(shown.len());
    match (shown.is_empty(), more) {
        (true, _) => "not known".into(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn head(group: &Group) -> String {
    let count = group.history.count;
    match group.kind {
        Match::Exact => format!("The same crash ({count})"),
        Match::Near => format!(
            "Nearly the same ({count}), alike by {:.2}, signature {}",
            group.similarity, group.signature.hash
        ),
        Match::KindOnly => format!("The same kind, and nothing tells whether it is the same crash ({count})"),
    }
}

fn row(crash: &Crash) -> String {
    let time = crash.crash_time.and_then(human::utc).unwrap_or_else(|| "time not known".into());
    let host = crash.host.as_deref().map_or_else(|| "host not known".into(), escape);
    let release = crash.release.as_deref().map_or_else(|| "kernel not known".into(), escape);
    let report = crash.reports.first().map(|path| escape(path).into_owned()).unwrap_or_default();
    format!("{time}  {host}  {release}  {report}")
}
