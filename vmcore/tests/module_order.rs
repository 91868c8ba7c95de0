//! Data flows one way: a module uses only what stands before it. This reads the sources and says who does otherwise.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::path::{Path, PathBuf};

/// The modules in the order in which data flows, `a b` for two that stand side by side. `filter`, `scrub` and `write` stand
/// beside the analysis: they use what comes before `kernel`, and nothing uses them.
const ORDER: &[&[&str]] = &[
    &["addr", "limits", "progress", "error"],
    &["raw"],
    &["source"],
    &["format"],
    &["mem"],
    &["dump"],
    &["xlat"],
    &["sym"],
    &["kernel"],
    &["unwind"],
    &["filter"],
    &["report"],
    &["check"],
    &["analysis"],
    &["distill"],
    &["scrub"],
    &["write"],
];

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|level| level.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that `text` names after `crate::`, with their line; tests and comments do not count.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    for (number, line) in (1..).zip(code.lines()).filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            match rest.strip_prefix('{') {
                None => found.push((number, name(rest))),
                Some(group) => found.extend(first_level(group).into_iter().map(|module| (number, module))),
            }
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// `a::{b, c}, d` → a, d
fn first_level(group: &str) -> Vec<String> {
    let mut depth = 0usize;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            c if depth == 0 => names.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    names.iter().map(|part| name(part.trim())).filter(|part| !part.is_empty()).collect()
}

#[test]
fn a_module_uses_only_what_stands_before_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 5, "no sources below {}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap().with_extension("");
        let own = inside.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if own == "lib" {
            continue;
        }
        let Some(own_rank) = rank(&own) else {
            wrong.push(format!("{}: the module {own} has no place in the order", file.display()));
            continue;
        };
        for (line, used) in uses(&std::fs::read_to_string(&file).unwrap()) {
            // A type that the crate's root re-exports begins with a capital: it is used by its module's name inside.
            match rank(&used) {
                Some(rank) if rank <= own_rank => {}
                Some(_) => {
                    wrong
                        .push(format!("{}:{line}: {own} uses {used}, which stands after it", file.display()));
                }
                None => wrong
                    .push(format!("{}:{line}: {own} uses crate::{used}, which has no place", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_use_lines_reads_groups() {
    let text = "use crate::{addr::{Pfn, PhysAddr}, mem};\n// crate::write\nlet x = crate::raw::PageDesc;";
    let names: Vec<_> = uses(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["addr", "mem", "raw"]);
}
