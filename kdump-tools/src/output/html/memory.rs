//! Memory as a bar of its uses, and the largest slab caches as bars.

use maud::{Markup, html};
use serde_json::Value;

use super::text::show;
use super::{View, generic};

/// Caches that are drawn.
const CACHES: usize = 12;
/// Uses that do not overlap, in the order of the bar: the names that the document or `/proc/meminfo` have for them.
const USES: [(&str, &[&str]); 7] = [
    ("anonymous", &["anon", "AnonPages"]),
    ("page cache", &["cached", "Cached"]),
    ("buffers", &["buffers", "Buffers"]),
    ("slab", &["slab", "Slab"]),
    ("kernel stacks", &["kernel_stack", "KernelStack"]),
    ("page tables", &["page_tables", "PageTables"]),
    ("free", &["free", "MemFree"]),
];

pub(super) fn part(view: &View<'_>) -> Option<Markup> {
    let (memory, slab) = (view.get("/memory"), view.get("/slab"));
    if generic::is_empty(memory) && generic::is_empty(slab) {
        return None;
    }
    Some(html! {
        (bar(memory))
        @if !generic::is_empty(memory) { details { summary { "All counters" } (counters(memory)) } }
        (caches(slab))
    })
}

/// The counters are bytes, whatever they are called.
fn counters(memory: &Value) -> Markup {
    html! {
        dl { @for (key, value) in memory.as_object().into_iter().flatten() {
            @if let Some(bytes) = value.as_u64() { dt { (show(&key.replace('_', " "))) } dd { (generic::bytes_cell(bytes)) } }
        } }
        (generic::members(memory, &memory.as_object().into_iter().flatten().filter(|(_, v)| v.is_u64()).map(|(k, _)| k.as_str()).collect::<Vec<_>>()))
    }
}

fn bar(memory: &Value) -> Markup {
    let value = |names: &[&str]| names.iter().find_map(|name| memory.get(*name)?.as_u64());
    let mut uses: Vec<(&str, u64)> =
        USES.iter().filter_map(|(name, keys)| Some((*name, value(keys)?))).filter(|(_, n)| *n > 0).collect();
    let known = uses.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let Some(total) = value(&["total", "MemTotal"]).map(|total| total.max(known)).filter(|total| *total > 0)
    else {
        return html! {};
    };
    let rest = total.saturating_sub(known);
    if rest > 0 {
        // Before the free part, which closes the bar.
        let at = uses.iter().position(|(name, _)| *name == "free").unwrap_or(uses.len());
        uses.insert(at, ("other", rest));
    }
    let mut x = 0.0;
    html! {
        figure {
            figcaption { "Of " (generic::size(total)) ":" }
            svg viewBox="0 0 960 40" role="img" aria-label="The uses of the memory; the list below says the same" preserveAspectRatio="none" height="40" {
                @for (name, bytes) in &uses {
                    @let wide = share(*bytes, total) * 960.0;
                    rect class=(class(name)) x=(format!("{x:.2}")) y="0" width=(format!("{wide:.2}")) height="40" { title { (name) ": " (generic::size(*bytes)) } }
                    @let () = { x += wide; };
                }
            }
            ul.keys { @for (name, bytes) in &uses {
                li { span.key.(class(name)) {} " " (name) " " b { (generic::size(*bytes)) } " " (format!("{:.1} %", share(*bytes, total) * 100.0)) }
            } }
        }
    }
}

fn class(name: &str) -> &'static str {
    match name {
        "anonymous" => "u1",
        "page cache" => "u2",
        "buffers" => "u3",
        "slab" => "u4",
        "kernel stacks" => "u5",
        "page tables" => "u6",
        "free" => "u0",
        _ => "u7",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more than three digits")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn caches(slab: &Value) -> Markup {
    let list = slab
        .as_array()
        .or_else(|| slab.get("caches").and_then(Value::as_array))
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut sized: Vec<(&str, u64)> = list
        .iter()
        .filter_map(|cache| Some((cache.get("name")?.as_str()?, cache.get("bytes")?.as_u64()?)))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    sized.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let most = sized.first().map_or(1, |(_, bytes)| *bytes);
    html! {
        @if !sized.is_empty() {
            h3 { "The largest slab caches" }
            table.bars { tbody { @for (name, bytes) in sized.iter().take(CACHES) {
                tr data-f {
                    th scope="row" { (show(name)) }
                    td.n { (generic::size(*bytes)) }
                    td { svg viewBox="0 0 300 12" width="300" height="12" aria-hidden="true" { rect class="u4" x="0" y="0" height="12" width=(format!("{:.1}", share(*bytes, most) * 300.0)) {} } }
                }
            } } }
        }
        @if !generic::is_empty(slab) { details { summary { "All slab caches" } (generic::folded(slab)) } }
    }
}
