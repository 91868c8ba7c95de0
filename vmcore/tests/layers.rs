//! Data flows one way: a module uses only what stands before it.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

const ORDER: &[&str] = &[
    "addr", "limits", "progress", "error", "raw", "source", "format", "mem", "xlat", "sym", "kernel",
    "unwind", "report", "analysis", "filter", "write",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn a_module_uses_only_what_stands_before_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 20, "{root:?} has no sources");
    let place = |name: &str| ORDER.iter().position(|module| *module == name);
    let mut wrong = Vec::new();
    for path in found {
        let inside = path.strip_prefix(&root).unwrap();
        let module = inside.iter().next().and_then(|name| Path::new(name).file_stem()?.to_str()).unwrap();
        if module == "lib" {
            continue;
        }
        let own = place(module).unwrap_or_else(|| panic!("{module} has no place in the order"));
        for line in
            fs::read_to_string(&path).unwrap().lines().filter(|line| !line.trim_start().starts_with("//"))
        {
            for used in line.split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if place(&name).is_some_and(|place| place > own) {
                    wrong.push(format!("{}: {}", inside.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
