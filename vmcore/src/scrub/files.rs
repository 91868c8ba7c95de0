//! The files that processes have open, each once.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use crate::kernel::file::{self, OpenFile};
use crate::kernel::task::Tasks;

/// Open files of one process that are looked at.
const FILES: usize = 1 << 20;

/// Those of one kind, and those whose kind could not be read.
pub(super) fn open(eraser: &mut Eraser<'_, '_>, tasks: &Tasks, kind: &str) -> Result<Vec<OpenFile>, String> {
    let source = eraser.source;
    let reader = file::Reader::new(source.types).map_err(|why| why.to_string())?;
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for task in tasks.tasks.iter().filter(|task| task.mm.is_some()) {
        let walk = reader.of(source.memory, task.kaddr, FILES);
        if !walk.end.is_complete() {
            eraser.trouble(&format!("open files of pid {}", task.pid), &walk.end.to_string());
        }
        found.extend(walk.items.into_iter().filter(|file| {
            file.kind.is_none_or(|of| of == kind) && !file.kaddr.is_null() && seen.insert(file.kaddr)
        }));
    }
    Ok(found)
}

/// Why nothing is known of a file.
pub(super) fn unknown(file: &OpenFile) -> String {
    file.gap.clone().unwrap_or_else(|| "what it is is not known".into())
}
