//! Parts of the document that have no form of their own: objects and lists as tables, whatever is in them.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::View;
use super::text::show;
use crate::output::human;

/// Rows of one table that are shown.
const ROWS: usize = 2000;
/// Columns of one table that are shown.
const COLUMNS: usize = 24;
/// How deep tables stand in tables.
const DEPTH: usize = 6;

/// A text, or a dash that says that it is not known.
pub(super) fn maybe(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) => (show(text)), None => span.none title="not known" { "–" } } }
}

/// `block_io` as a person writes it.
pub(super) fn title(key: &str) -> String {
    let words = match key {
        "block_io" => "Block devices",
        "device_mapper" => "Device-mapper",
        "md" => "Software RAID",
        "virtio" => "Virtio devices",
        "console" => "Consoles",
        "net" => "Network",
        "softnet" => "Received packets of each CPU",
        "irqs" => "Interrupts",
        "runqueues" => "Run queues",
        "mounts" => "Mounts",
        "timings" => "How long the analysis took",
        _ => "",
    };
    if !words.is_empty() {
        return words.to_owned();
    }
    let spaced = key.replace('_', " ");
    let mut chars = spaced.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// All parts of the document that are not in `shown` and that are there at all: key, title, table.
pub(super) fn others(view: &View<'_>, shown: &[&str]) -> Vec<(String, String, Markup)> {
    let Some(document) = view.document.as_object() else { return Vec::new() };
    document
        .iter()
        .filter(|(key, value)| !shown.contains(&key.as_str()) && !is_empty(value))
        .map(|(key, value)| (key.clone(), title(key), folded(value)))
        .collect()
}

/// True for what has nothing to show.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A value; long lists are folded.
pub(super) fn folded(value: &Value) -> Markup {
    match value.as_array() {
        Some(list) if list.len() > 12 => {
            html! { details { summary { (human::plural(list.len(), "entry").replace("entrys", "entries")) } (any(value, 0)) } }
        }
        _ => any(value, 0),
    }
}

/// The members of an object but for those in `without`, as a list of facts.
pub(super) fn members(value: &Value, without: &[&str]) -> Markup {
    let Some(object) = value.as_object() else { return html! {} };
    let rest: Map<String, Value> = object
        .iter()
        .filter(|(key, value)| !without.contains(&key.as_str()) && !is_empty(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if rest.is_empty() {
        html! {}
    } else {
        any(&Value::Object(rest), 0)
    }
}

/// Any value.
fn any(value: &Value, depth: usize) -> Markup {
    if depth > DEPTH {
        return html! { span.none { "deeper than this page shows: see the JSON document" } };
    }
    let deeper = depth.saturating_add(1);
    match value {
        Value::Null => maybe(None),
        Value::Bool(yes) => html! { (if *yes { "yes" } else { "no" }) },
        Value::Number(number) => html! { (show(&number.to_string())) },
        Value::String(text) => html! { (show(text)) },
        Value::Array(list) if list.is_empty() => html! { span.none { "none" } },
        Value::Array(list) if list.iter().all(Value::is_object) => rows(list, deeper),
        Value::Array(list) => html! {
            ul.plain {
                @for item in list.iter().take(ROWS) { li data-f { (any(item, deeper)) } }
                (more(list.len()))
            }
        },
        Value::Object(object) => html! {
            dl { @for (key, value) in object { dt { (show(&key.replace('_', " "))) } dd { (cell(key, value, deeper)) } } }
        },
    }
}

fn more(count: usize) -> Markup {
    let more = count.saturating_sub(ROWS);
    html! { @if more > 0 { li.cap { (more) " more are not shown: see the JSON document" } } }
}

/// A list of objects: a column for each member that one of them has.
fn rows(list: &[Value], depth: usize) -> Markup {
    let mut columns: Vec<&str> = Vec::new();
    for key in list.iter().take(ROWS).filter_map(Value::as_object).flat_map(Map::keys) {
        if columns.len() < COLUMNS && !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    columns.retain(|key| list.iter().any(|row| row.get(*key).is_some_and(|value| !is_empty(value))));
    // What a row is called stands first.
    columns.sort_by_key(|key| !matches!(*key, "name" | "device" | "cpu" | "pid" | "irq" | "path"));
    html! {
        div.wide tabindex="0" { table {
            thead { tr { @for key in &columns { th scope="col" { (show(&key.replace('_', " "))) } } } }
            tbody {
                @for row in list.iter().take(ROWS) {
                    tr data-f { @for key in &columns { td { (cell(key, row.get(*key).unwrap_or(&Value::Null), depth)) } } }
                }
            }
        } }
        @if list.len() > ROWS { p.cap { (list.len().saturating_sub(ROWS)) " more rows are not shown: see the JSON document" } }
    }
}

/// A value of which the name tells the unit.
fn cell(key: &str, value: &Value, depth: usize) -> Markup {
    let seconds = key.ends_with("_s") || key == "s";
    match (value.as_u64(), value.as_f64()) {
        (Some(bytes), _) if key.ends_with("bytes") => bytes_cell(bytes),
        (_, Some(s)) if seconds => html! { span.n { (human::duration(s)) } },
        (Some(n), _) if !matches!(key, "pid" | "tgid" | "cpu" | "irq" | "line") => {
            html! { span.n { (human::count(n)) } }
        }
        _ => any(value, depth),
    }
}

/// Bytes as a size, all digits on pointing at it.
pub(super) fn bytes_cell(bytes: u64) -> Markup {
    html! { span.n title=(format!("{} bytes", human::count(bytes))) { (size(bytes)) } }
}

/// `1.5 GiB`: near enough for a picture.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if bytes / unit < 1024 {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return if unit == 1 {
                format!("{bytes} B")
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
        unit <<= 10;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} TiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_of_objects_is_a_table_with_every_member() {
        let text = any(&json!([{"name": "a", "bytes": 2048}, {"name": "<b>", "new_field": [1, 2]}]), 0)
            .into_string();
        assert!(
            text.contains("new field") && text.contains("2.0 KiB") && text.contains("&lt;b&gt;"),
            "{text}"
        );
    }

    #[test]
    fn long_lists_are_cut_and_say_so_and_deep_values_end() {
        let list: Vec<Value> = (0..ROWS + 3).map(|n| json!({"n": n})).collect();
        assert!(any(&json!(list), 0).into_string().contains("3 more rows are not shown"));
        let deep = (0..50).fold(json!(1), |inner, _| json!({"x": inner}));
        assert!(any(&deep, 0).into_string().contains("deeper than this page shows"));
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 30, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB", "16777215.9 TiB"]
        );
    }
}
