//! What is written first, where the space may not do for all.

use std::borrow::Cow;
use std::ops::Range;

use crate::filter::Selection;

/// The kept frames, cut into what is written first, what then, and the rest.
pub(super) fn of<'a>(
    kept: &'a Selection,
    first: &[Selection],
    frames: &Range<u64>,
) -> Vec<Cow<'a, Selection>> {
    if first.is_empty() {
        return vec![Cow::Borrowed(kept)];
    }
    let mut rest = kept.clone();
    let mut passes = Vec::new();
    for wanted in first {
        let mut pass = Selection::default();
        for pfn in wanted.runs(frames.clone()).flatten().filter(|pfn| rest.contains(*pfn)) {
            pass.insert(pfn);
        }
        for pfn in pass.runs(frames.clone()).flatten() {
            rest.remove(pfn);
        }
        passes.push(Cow::Owned(pass));
    }
    passes.push(Cow::Owned(rest));
    passes
}
