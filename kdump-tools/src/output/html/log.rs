//! The kernel log, whole as far as a browser bears it.

use maud::{Markup, html};
use vmcore::report::LogLine;

use super::View;
use super::text::show;

/// Records that are shown, the last ones: the crash is at the end.
const RECORDS: usize = 20_000;

/// `err`, `warn` or nothing: how a line is coloured.
pub(super) fn class(line: &LogLine) -> &'static str {
    match line.level {
        Some(0..=3) => "err",
        Some(4) => "warn",
        Some(7) => "debug",
        _ => "info",
    }
}

pub(super) fn part(view: &View<'_>) -> Option<Markup> {
    let lines = &view.report.log.lines;
    if lines.is_empty() {
        return None;
    }
    let left_out = lines.len().saturating_sub(RECORDS);
    let lost = view.report.log.dropped.unwrap_or(0);
    Some(html! {
        @if left_out > 0 { p.cap { "The first " (left_out) " records are not shown: kdt log shows them all." } }
        @if lost > 0 { p.cap { (lost) " records are lost: the kernel had overwritten them, or they are not in the dump." } }
        ol.log tabindex="0" {
            @for line in lines.iter().skip(left_out) {
                li.(class(line)) data-f {
                    @if let Some(ts) = line.ts { span.ts { (stamp(ts)) } }
                    // A record of several lines has line breaks in it.
                    @for (at, text) in line.text.split('\n').enumerate() { @if at > 0 { br; } (show(text)) }
                }
            }
        }
    })
}

/// As `dmesg` writes it.
pub(super) fn stamp(ts: f64) -> String {
    let ts = std::time::Duration::try_from_secs_f64(ts).unwrap_or_default();
    format!("[{:5}.{:06}] ", ts.as_secs(), ts.subsec_micros())
}
