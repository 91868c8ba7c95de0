//! The log as a picture: how many records came when, how bad they were, and where the trouble begins.

use maud::{Markup, html};
use vmcore::report::LogLine;

use super::text::show;
use super::{View, log};
use crate::output::human;

const BARS: usize = 120;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 90.0;
/// The second picture shows so many seconds before the end.
const LAST: f64 = 120.0;

/// Words that the kernel itself writes where things go wrong.
const OOPS: [&str; 6] =
    ["Oops", "BUG:", "general protection fault", "Internal error", "kernel BUG at", "Unable to handle"];

pub(super) struct Mark {
    ts: f64,
    what: &'static str,
    text: String,
}

pub(super) fn part(view: &View<'_>) -> Option<Markup> {
    let timed: Vec<(f64, &LogLine)> = view
        .report
        .log
        .lines
        .iter()
        .filter_map(|line| Some((line.ts.filter(|ts| ts.is_finite() && *ts >= 0.0)?, line)))
        .collect();
    let start = timed.iter().map(|(ts, _)| *ts).reduce(f64::min)?;
    let end = timed.iter().map(|(ts, _)| *ts).reduce(f64::max)?;
    let marks = marks(&timed);
    let zoom = (end - start > LAST * 1.5).then_some(end - LAST);
    Some(html! {
        (picture("From the first record to the last", &timed, &marks, start, end))
        @if let Some(from) = zoom { (picture("The last two minutes", &timed, &marks, from, end)) }
        p.legend { span.key.err { } " errors " span.key.warn { } " warnings " span.key.info { } " other records" }
        @if !marks.is_empty() {
            ul.marks { @for mark in &marks { li data-f { b { (mark.what) } " at " (human::duration(mark.ts)) ": " (show(&mark.text)) } } }
        }
    })
}

/// The first bad line, the first oops, the panic.
fn marks(timed: &[(f64, &LogLine)]) -> Vec<Mark> {
    let first = |what, wanted: &dyn Fn(&LogLine) -> bool| {
        let (ts, line) = timed.iter().find(|(_, line)| wanted(line))?;
        Some(Mark { ts: *ts, what, text: line.text.lines().next().unwrap_or_default().to_owned() })
    };
    let bad = first("First error", &|line| line.level.is_some_and(|level| level <= 3));
    let oops = first("Oops", &|line| OOPS.iter().any(|word| line.text.contains(word)));
    let panic = first("Panic", &|line| line.text.contains("Kernel panic - not syncing"));
    bad.into_iter().chain(oops).chain(panic).collect()
}

/// Records by badness in each bar.
fn bars(timed: &[(f64, &LogLine)], from: f64, to: f64) -> Vec<[u32; 3]> {
    let mut bars = vec![[0_u32; 3]; BARS];
    let span = (to - from).max(1e-6);
    for (ts, line) in timed.iter().filter(|(ts, _)| *ts >= from) {
        let place = bar(((ts - from) / span).clamp(0.0, 1.0));
        let kind = match log::class(line) {
            "err" => 0,
            "warn" => 1,
            _ => 2,
        };
        if let Some(count) = bars.get_mut(place).and_then(|bar| bar.get_mut(kind)) {
            *count = count.saturating_add(1);
        }
    }
    bars
}

/// Which bar a share of the width falls in.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 0 to 1 times 120"
)]
fn bar(share: f64) -> usize {
    ((share * BARS as f64) as usize).min(BARS - 1)
}

fn picture(title: &str, timed: &[(f64, &LogLine)], marks: &[Mark], from: f64, to: f64) -> Markup {
    let bars = bars(timed, from, to);
    let most = bars.iter().map(|bar| bar.iter().sum::<u32>()).max().unwrap_or(1).max(1);
    let errors: u32 = bars.iter().map(|bar| bar.first().copied().unwrap_or(0)).sum();
    let span = (to - from).max(1e-6);
    // A root, so that one error beside a thousand records can be seen.
    let tall = |count: u32| (f64::from(count) / f64::from(most)).sqrt() * HEIGHT;
    let mut at = 0.0;
    let step = WIDTH / 120.0;
    let alt = format!(
        "{title}: at most {most} records in {}, {errors} errors in all",
        human::duration(span / 120.0)
    );
    html! {
        figure {
            figcaption { (title) " (" (human::duration(from)) " to " (human::duration(to)) ")" }
            svg viewBox=(format!("0 0 {WIDTH} 122")) role="img" aria-label=(alt) {
                line x1="0" y1="106" x2=(WIDTH) y2="106" class="axis" {}
                @for [err, warn, info] in &bars {
                    @let all = tall(err + warn + info);
                    @let (e, w) = (all * share(*err, err + warn + info), all * share(*warn, err + warn + info));
                    @let x = format!("{at:.1}");
                    @if *info > 0 { rect class="info" x=(x) y=(format!("{:.1}", 106.0 - all)) width=(format!("{:.1}", step - 1.0)) height=(format!("{:.1}", all - e - w)) {} }
                    @if *warn > 0 { rect class="warn" x=(x) y=(format!("{:.1}", 106.0 - e - w)) width=(format!("{:.1}", step - 1.0)) height=(format!("{w:.1}")) {} }
                    @if *err > 0 { rect class="err" x=(x) y=(format!("{:.1}", 106.0 - e)) width=(format!("{:.1}", step - 1.0)) height=(format!("{:.1}", e.max(2.0))) {} }
                    @let () = { at += step; };
                }
                @for (row, mark) in (0_u8..).zip(marks.iter().filter(|mark| mark.ts >= from)) {
                    @let x = ((mark.ts - from) / span).clamp(0.0, 1.0) * WIDTH;
                    @let y = 12.0 + f64::from(row) * 14.0;
                    @let left = x > WIDTH / 2.0;
                    line class="mark" x1=(format!("{x:.1}")) x2=(format!("{x:.1}")) y1=(format!("{:.1}", y - 8.0)) y2="106" {}
                    text x=(format!("{:.1}", if left { x - 5.0 } else { x + 5.0 })) y=(format!("{y:.1}")) text-anchor=(if left { "end" } else { "start" }) { (mark.what) }
                }
                text class="tick" x="0" y="119" { (human::duration(from)) }
                text class="tick" x=(WIDTH) y="119" text-anchor="end" { (human::duration(to)) }
            }
        }
    }
}

fn share(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}
