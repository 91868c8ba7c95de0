//! The bundle's own files: version, manifest, list, logs; with sos's keys (4.12), so that its readers read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::archive::OwnFile;
use crate::outcome::{ItemReport, ItemStatus};
use crate::plan::Plan;
use crate::spec::Profile;

/// `version.txt`: sos's readers look for its words at the start.
pub(crate) fn version_file() -> OwnFile {
    let text =
        format!("sos report: 4.12.0 (its layout, written by sosreport-lite {})\n", env!("CARGO_PKG_VERSION"));
    OwnFile { path: "version.txt", text: text.into_bytes() }
}

/// What the files tell of.
pub(crate) struct Story<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) items: &'a [ItemReport],
    pub(crate) notes: &'a [String],
    pub(crate) as_root: bool,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

/// All own files, in the order of the bundle.
pub(crate) fn own_files(story: &Story<'_>) -> Vec<OwnFile> {
    let json = |value: &Value| serde_json::to_vec_pretty(value).unwrap_or_default();
    vec![
        version_file(),
        OwnFile { path: "sos_reports/manifest.json", text: json(&manifest(story)) },
        OwnFile { path: "sos_reports/sos.json", text: json(&sos_json(story)) },
        OwnFile { path: "sos_reports/sos.txt", text: list(story).into_bytes() },
        OwnFile { path: "sos_logs/sos.log", text: sos_log(story).into_bytes() },
        OwnFile { path: "sos_logs/ui.log", text: ui_log(story).into_bytes() },
    ]
}

/// A time as Python's `str(datetime)` writes it.
fn datetime(epoch: f64) -> String {
    let zoned = std::time::Duration::try_from_secs_f64(epoch)
        .ok()
        .and_then(|d| jiff::Timestamp::UNIX_EPOCH.checked_add(d).ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// A length of time as Python's `str(timedelta)` writes it.
fn timedelta(seconds: f64) -> String {
    let micros = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = micros.as_secs();
    format!("{}:{:02}:{:02}.{:06}", whole / 3600, whole / 60 % 60, whole % 60, micros.subsec_micros())
}

fn by_plugin<'a>(story: &Story<'a>) -> BTreeMap<&'a str, Vec<&'a ItemReport>> {
    let mut plugins: BTreeMap<&str, Vec<&ItemReport>> = BTreeMap::new();
    for item in story.items {
        plugins.entry(&item.plugin).or_default().push(item);
    }
    plugins
}

fn end_of(item: &ItemReport) -> f64 {
    item.start + item.took.as_secs_f64()
}

fn manifest(story: &Story<'_>) -> Value {
    let plan = story.plan;
    let mut plugins = Map::new();
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, items) in by_plugin(story) {
        plugins.insert(name.to_owned(), plugin(story, &items, &mut tags));
    }
    let profile = plan.options.profile;
    json!({
        "version": "4.12.0",
        "cmdline": format!("sosreport-lite --profile {}", profile.name()),
        "start_time": datetime(story.start),
        "end_time": datetime(story.end),
        "run_time": timedelta(story.end - story.start),
        "compression": "gzip",
        "tmpdir": plan.path.parent().map(|p| p.to_string_lossy().into_owned()),
        "tmpdir_fs_type": Value::Null,
        "policy": Value::Null,
        "components": { "report": {
            "sysroot": plan.options.root.to_string_lossy(),
            "preset": "none",
            "profiles": [profile.name()],
            "priority": { "io_class": Value::Null, "niceness": crate::run::NICENESS },
            "devices": { "storage": { "block": [], "fibre": [] }, "network": {}, "namespaced_network": {}, "fstype": {} },
            "enabled_plugins": plugins.keys().cloned().collect::<Vec<_>>(),
            "disabled_plugins": [],
            "plugins": plugins,
            "tag_summary": tags,
        }},
        "sosreport_lite": {
            "version": env!("CARGO_PKG_VERSION"),
            "case": plan.options.case,
            "as_root": story.as_root,
            "notes": story.notes,
            "items": story.items.iter().map(item).collect::<Vec<_>>(),
            "not_on_this_host": plan.skipped.iter().map(|s| json!({ "plugin": s.plugin, "what": s.what, "why": s.why })).collect::<Vec<_>>(),
        },
    })
}

/// One item, in this collector's own words.
fn item(report: &ItemReport) -> Value {
    json!({
        "plugin": report.plugin,
        "what": report.what,
        "status": report.status.word(),
        "why": report.status.why(),
        "bytes": report.bytes,
        "took_s": report.took.as_secs_f64(),
        "notes": report.notes,
    })
}

fn plugin(story: &Story<'_>, items: &[&ItemReport], tags: &mut BTreeMap<String, Vec<String>>) -> Value {
    let start = items.iter().map(|i| i.start).fold(f64::INFINITY, f64::min);
    let end = items.iter().map(|i| end_of(i)).fold(start, f64::max);
    let (mut commands, mut files, mut strings) = (Vec::new(), Vec::new(), Map::new());
    for report in items {
        let item_tags = story.plan.items.get(report.index).map(|i| i.tags.clone()).unwrap_or_default();
        let places = report.commands.iter().filter_map(|c| c.place.clone());
        let places = places.chain(report.files.iter().map(|f| f.place.clone()));
        for place in places {
            for tag in &item_tags {
                tags.entry(tag.clone()).or_default().push(place.clone());
            }
        }
        for command in &report.commands {
            let parameters: Vec<&str> = command.line.split_whitespace().skip(1).collect();
            commands.push(json!({
                "command": command.line.split_whitespace().next(),
                "parameters": parameters,
                "exec": command.line,
                "filepath": command.place,
                "truncated": command.truncated,
                "return_code": command.code,
                "priority": 10,
                "start_time": command.start,
                "end_time": command.end,
                "run_time": command.end - command.start,
                "tags": item_tags,
                "scrubbed": command.scrubbed,
            }));
        }
        if report.commands.is_empty() && matches!(report.what.bytes().next(), Some(b'/')) {
            files.push(json!({
                "specification": report.what,
                "files_copied": report.files.iter().map(|f| f.place.clone()).collect::<Vec<_>>(),
                "truncated": report.files.iter().filter(|f| f.truncated).map(|f| f.place.clone()).collect::<Vec<_>>(),
                "tags": item_tags,
            }));
        } else if report.commands.is_empty() && !report.files.is_empty() {
            let places: Vec<String> = report.files.iter().map(|f| f.place.clone()).collect();
            strings.insert(report.what.clone(), json!({ "path": places, "tags": item_tags }));
        }
    }
    json!({
        "start_time": datetime(start),
        "end_time": datetime(end),
        "run_time": timedelta(end - start),
        "timeout": story.plan.options.limits.max_time.as_secs(),
        "timeout_hit": items.iter().any(|i| cut_short(&i.status)),
        "command_timeout": crate::spec::COMMAND_TIME.as_secs(),
        "commands": commands,
        "files": files,
        "strings": strings,
        "containers": {},
        "collections": [],
    })
}

fn cut_short(status: &ItemStatus) -> bool {
    matches!(status, ItemStatus::TimedOut(_) | ItemStatus::NotReached(_))
}

/// `sos.json`: a list of pairs of a plugin and what it has, as sos writes it.
fn sos_json(story: &Story<'_>) -> Value {
    let pairs = by_plugin(story).into_iter().map(|(name, items)| {
        let command = |c: &crate::outcome::CommandRecord| {
            c.place
                .as_ref()
                .map(|place| json!({ "name": c.line, "return_code": c.code, "href": format!("../{place}") }))
        };
        let commands: Vec<Value> = items.iter().flat_map(|i| &i.commands).filter_map(command).collect();
        let file =
            |f: &crate::outcome::FileRecord| json!({ "name": f.path, "href": format!("../{}", f.place) });
        let files: Vec<Value> = items.iter().flat_map(|i| &i.files).map(file).collect();
        let mut has = Map::new();
        if !commands.is_empty() {
            has.insert("commands".into(), commands.into());
        }
        if !files.is_empty() {
            has.insert("copied_files".into(), files.into());
        }
        json!([name, has])
    });
    pairs.collect::<Vec<_>>().into()
}

/// `sos.txt`: for people.
fn list(story: &Story<'_>) -> String {
    let mut text = format!("{}\n", story.plan.name);
    let _ = writeln!(text, "collected {} in {}", datetime(story.start), timedelta(story.end - story.start));
    if !story.as_root {
        let _ = writeln!(text, "not run as root: much is not readable");
    }
    for note in story.notes {
        let _ = writeln!(text, "{note}");
    }
    for (plugin, items) in by_plugin(story) {
        let _ = writeln!(text, "\n{plugin}");
        for report in items {
            let why = report.status.why();
            let colon = if why.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "  {:<13} {}{colon}{}", report.status.word(), report.what, one_line(why));
            for note in &report.notes {
                let _ = writeln!(text, "                - {}", one_line(note));
            }
            for command in report.commands.iter().filter(|c| c.code != 0) {
                let _ =
                    writeln!(text, "                - {} returned {}", one_line(&command.line), command.code);
            }
        }
    }
    if !story.plan.skipped.is_empty() {
        let _ = writeln!(text, "\nnot on this host");
    }
    for skipped in &story.plan.skipped {
        let _ = writeln!(text, "  {:<13} {}: {}", skipped.plugin, skipped.what, skipped.why);
    }
    text
}

/// Names of files and words of the system may hold anything; a list has one line for each.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn sos_log(story: &Story<'_>) -> String {
    let mut text = String::new();
    for report in story.items {
        let level = match report.status {
            ItemStatus::Taken | ItemStatus::Absent(_) => "INFO",
            ItemStatus::Denied(_) | ItemStatus::Failed(_) => "WARNING",
            _ => "ERROR",
        };
        let _ = writeln!(
            text,
            "{} {level}: [plugin:{}] {}: {} {} ({:.3} s)",
            datetime(end_of(report)),
            report.plugin,
            one_line(&report.what),
            report.status.word(),
            one_line(report.status.why()),
            report.took.as_secs_f64(),
        );
    }
    text
}

/// `ui.log`: readers look in it for «Plugin … timed out».
fn ui_log(story: &Story<'_>) -> String {
    let mut text = format!(
        "sosreport-lite ({}, profile {})\n",
        env!("CARGO_PKG_VERSION"),
        name_of(story.plan.options.profile)
    );
    for (plugin, items) in by_plugin(story) {
        if items.iter().any(|i| cut_short(&i.status)) {
            let _ = writeln!(text, " Plugin {plugin} timed out");
        }
        for report in items.iter().filter(|i| i.status == ItemStatus::NoSpace) {
            let _ = writeln!(text, " There was no space for {}", one_line(&report.what));
        }
    }
    for note in story.notes {
        let _ = writeln!(text, " {note}");
    }
    text
}

fn name_of(profile: Profile) -> &'static str {
    profile.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        assert_eq!(timedelta(3_725.5), "1:02:05.500000");
        let text = datetime(1_700_000_000.25);
        assert_eq!(text.len(), "2023-11-14 22:13:20.250000".len(), "{text}");
        assert!(text.ends_with(":20.250000"), "{text}");
    }
}
