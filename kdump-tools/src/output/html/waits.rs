//! Who waits for whom, drawn in layers: those for whom others wait on the left, and circles marked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use maud::{Markup, html};
use serde_json::Value;

use super::text::show;
use super::{View, generic};

/// Waits that are drawn; more than that is no picture any more.
const DRAWN: usize = 80;
/// Waits that are listed.
const LISTED: usize = 2000;
const COLUMN: usize = 230;
const ROW: usize = 46;

/// One wait, read from the document so that new members do no harm.
pub(super) struct Wait {
    waiter: i64,
    owner: Option<i64>,
    what: String,
}

fn waits(blocked: &Value) -> Vec<Wait> {
    let edges = blocked.get("edges").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    edges
        .iter()
        .filter_map(|edge| {
            let text = |pointer| edge.pointer(pointer).and_then(Value::as_str);
            let kind = text("/lock/kind").unwrap_or("something");
            let name = text("/lock/name").or(text("/lock/kaddr")).unwrap_or_default();
            Some(Wait {
                waiter: edge.get("waiter")?.as_i64()?,
                owner: edge.get("owner").and_then(Value::as_i64),
                what: format!("{kind} {name}").trim().to_owned(),
            })
        })
        .collect()
}

/// The pairs of pids that follow each other in a circle.
fn in_circles(blocked: &Value) -> (Vec<Vec<i64>>, BTreeSet<i64>) {
    let list = blocked.get("cycles").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let cycles: Vec<Vec<i64>> = list
        .iter()
        .filter_map(Value::as_array)
        .map(|pids| pids.iter().filter_map(Value::as_i64).collect())
        .collect();
    let members = cycles.iter().flatten().copied().collect();
    (cycles, members)
}

/// A column for each pid: 0 for those who wait for nobody, else one more than whom they wait for. Each pid is placed
/// once, so circles end.
fn columns(waits: &[Wait], circles: &BTreeSet<i64>) -> BTreeMap<i64, usize> {
    let mut waiters: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for wait in waits {
        if let Some(owner) = wait.owner {
            waiters.entry(owner).or_default().push(wait.waiter);
        }
    }
    let waiting: BTreeSet<i64> =
        waits.iter().filter(|wait| wait.owner.is_some()).map(|wait| wait.waiter).collect();
    let pids: BTreeSet<i64> =
        waits.iter().flat_map(|wait| [Some(wait.waiter), wait.owner]).flatten().collect();
    let mut placed = BTreeMap::new();
    let sources = pids.iter().filter(|pid| !waiting.contains(pid));
    // What no root reaches hangs on a circle: each circle is entered at one pid.
    for start in sources.chain(circles.iter()).chain(pids.iter()) {
        if placed.contains_key(start) {
            continue;
        }
        placed.insert(*start, 0);
        let mut queue = VecDeque::from([(*start, 0_usize)]);
        while let Some((pid, column)) = queue.pop_front() {
            for waiter in waiters.get(&pid).into_iter().flatten() {
                if !placed.contains_key(waiter) {
                    let next = column.saturating_add(1);
                    placed.insert(*waiter, next);
                    queue.push_back((*waiter, next));
                }
            }
        }
    }
    placed
}

pub(super) fn part(view: &View<'_>) -> Option<Markup> {
    let blocked = view.get("/blocked");
    if generic::is_empty(blocked) {
        return None;
    }
    let waits = waits(blocked);
    let (cycles, members) = in_circles(blocked);
    let names: BTreeMap<i64, &str> =
        view.report.tasks.iter().filter_map(|task| Some((task.pid, task.comm.as_deref()?))).collect();
    let name =
        |pid: i64| names.get(&pid).map_or_else(|| format!("pid {pid}"), |comm| format!("{comm} ({pid})"));
    // Circles first: they are never cut off.
    let mut order: Vec<&Wait> = waits.iter().collect();
    order.sort_by_key(|wait| {
        !(members.contains(&wait.waiter) && wait.owner.is_some_and(|pid| members.contains(&pid)))
    });
    let drawn: Vec<Wait> = order
        .iter()
        .take(DRAWN)
        .map(|wait| Wait { waiter: wait.waiter, owner: wait.owner, what: wait.what.clone() })
        .collect();
    let cut = waits.len().saturating_sub(DRAWN);
    Some(html! {
        @for cycle in &cycles {
            p.alarm { "A circle: " (show(&cycle.iter().chain(cycle.first()).map(|pid| name(*pid)).collect::<Vec<_>>().join(" waits for "))) }
        }
        @if drawn.iter().any(|wait| wait.owner.is_some()) {
            (picture(&drawn, &members, &name))
            @if cut > 0 { p.cap { "The picture shows " (DRAWN) " of " (waits.len()) " waits; " (cut) " are left out of it." } }
        }
        @if !waits.is_empty() {
            details open[waits.len() <= 12] {
                summary { (waits.len()) " waits as a list" }
                ul.plain {
                    @for wait in waits.iter().take(LISTED) {
                        li data-f {
                            (show(&name(wait.waiter))) " waits for " code { (show(&wait.what)) }
                            @match wait.owner { Some(owner) => { ", held by " (show(&name(owner))) }, None => ", whose holder is not known" }
                        }
                    }
                    @if waits.len() > LISTED { li.cap { (waits.len() - LISTED) " more are not listed: see the JSON document" } }
                }
            }
        }
        (generic::members(blocked, &["edges", "cycles"]))
    })
}

fn picture(waits: &[Wait], circles: &BTreeSet<i64>, name: &dyn Fn(i64) -> String) -> Markup {
    let columns = columns(waits, circles);
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut places: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for (pid, column) in &columns {
        let row = rows.entry(*column).or_default();
        places.insert(
            *pid,
            (column.saturating_mul(COLUMN).saturating_add(8), row.saturating_mul(ROW).saturating_add(8)),
        );
        *row = row.saturating_add(1);
    }
    let width = columns.values().max().map_or(0, |n| n + 1) * COLUMN + 20;
    let height = rows.values().max().copied().unwrap_or(0) * ROW + 24;
    html! {
        div.wide tabindex="0" {
            svg.graph width=(width) height=(height) viewBox=(format!("0 0 {width} {height}")) role="img"
                aria-label="Who waits for whom; the list below says the same" {
                @for wait in waits {
                    @if let (Some((fx, fy)), Some((tx, ty))) = (places.get(&wait.waiter), wait.owner.and_then(|pid| places.get(&pid))) {
                        @let red = circles.contains(&wait.waiter) && wait.owner.is_some_and(|pid| circles.contains(&pid));
                        // From the waiter to the holder; one that leads to the right again goes below.
                        @let path = if fx > tx {
                            let (x, y, a, b) = (*fx, fy + 15, tx + 168, ty + 15);
                            format!("M{x} {y}C{} {y} {} {b} {a} {b}", x.saturating_sub(30), a + 30)
                        } else {
                            let (x, y, a, b) = (fx + 84, fy + 30, tx + 84, ty + 30);
                            format!("M{x} {y}C{x} {} {a} {} {a} {b}", y + 22, b + 22)
                        };
                        @let (ax, ay) = if fx > tx { (tx + 168, ty + 15) } else { (tx + 84, ty + 30) };
                        path.edge.red[red] d=(path) { title { (show(&format!("{} waits for {}", name(wait.waiter), wait.what))) } }
                        circle.tip.red[red] cx=(ax) cy=(ay) r="3.5" {}
                    }
                }
                @for (pid, (x, y)) in &places {
                    g.node.red[circles.contains(pid)] {
                        title { (show(&name(*pid))) }
                        rect x=(x) y=(y) width="168" height="30" rx="5" {}
                        text x=(x + 84) y=(y + 20) text-anchor="middle" { (show(&short(&name(*pid)))) }
                    }
                }
            }
        }
        p.legend { "Left: who is waited for. Each line leads from a task to the one that holds what it waits for (the end with the dot)." }
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= 22 { name.to_owned() } else { name.chars().take(21).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(waiter: i64, owner: i64) -> Wait {
        Wait { waiter, owner: Some(owner), what: "mutex".into() }
    }

    #[test]
    fn who_waits_stands_right_of_whom_it_waits_for_and_circles_end() {
        let chain = columns(&[wait(3, 2), wait(2, 1)], &BTreeSet::new());
        assert_eq!(chain.into_iter().collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 2)]);
        let circle = columns(&[wait(1, 2), wait(2, 1), wait(3, 1), wait(4, 4)], &BTreeSet::from([1, 2]));
        assert_eq!(circle.into_iter().collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 1), (4, 0)]);
        assert!(columns(&[], &BTreeSet::new()).is_empty());
    }
}
