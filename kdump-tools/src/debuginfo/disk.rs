//! Debuginfo on this host's disk.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmcore::sym::find::module_name;

/// Directories of one release's modules: some hundred. A tree that goes on is not followed.
const FOLDERS: usize = 100_000;

/// `path` below another root.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The kernel's own file in a directory that somebody named.
pub(super) fn kernel_in(folder: &Path) -> Option<PathBuf> {
    ["vmlinux", "vmlinux.debug"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

/// The modules' files below a directory, by the modules' names; a file with debuginfo before one without. Links are not followed.
pub(super) fn modules_below(folder: &Path) -> HashMap<String, PathBuf> {
    let mut found: HashMap<String, PathBuf> = HashMap::new();
    let mut open = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        seen += 1;
        if seen > FOLDERS {
            break;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                open.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                let is_debug = entry.path().extension().is_some_and(|extension| extension == "debug");
                match found.entry(name) {
                    std::collections::hash_map::Entry::Occupied(mut slot) if is_debug => {
                        slot.insert(entry.path());
                    }
                    slot => {
                        slot.or_insert_with(|| entry.path());
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_the_name_that_the_kernel_gives_them() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("kernel/drivers/block");
        fs::create_dir_all(&deep).unwrap();
        for name in ["virtio-blk.ko", "virtio-blk.ko.debug", "loop.ko.zst", "notes.txt"] {
            fs::write(deep.join(name), "").unwrap();
        }
        let found = modules_below(dir.path());
        assert_eq!(found.len(), 2);
        assert_eq!(found.get("virtio_blk"), Some(&deep.join("virtio-blk.ko.debug")));
        assert_eq!(found.get("loop"), Some(&deep.join("loop.ko.zst")));
    }
}
