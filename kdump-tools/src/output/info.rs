//! What a file is, for a person.

use vmcore::report::{Info, SplitSet};

use super::color::{Painter, Style};
use super::dump;
use super::escape::escape;
use super::human;
use super::table::Facts;

/// The facts as lines of a label and a text.
#[must_use]
pub fn text(info: &Info, width: usize, painter: Painter) -> String {
    let mut facts = Facts::new();
    if !info.usable {
        facts.row("file", escape(&info.dump.path));
        facts.row("what", escape(&info.what));
        if let Some(error) = &info.error {
            facts.row("usable", painter.paint(Style::Bad, "no"));
            facts.row("hint", escape(&error.hint));
        }
        return facts.render(width, painter);
    }
    dump::file(&mut facts, &info.dump);
    if let Some(split) = &info.split {
        parts(&mut facts, split);
    }
    dump::kernel(&mut facts, &info.kernel);
    for note in &info.notes {
        let count = if note.count == 1 { String::new() } else { format!("{} × ", human::count(note.count)) };
        let bytes = human::count(note.bytes);
        facts.row("notes", format!("{count}{} (kind {:#x}), {bytes} bytes", escape(&note.name), note.kind));
    }
    for skipped in &info.not_looked_at {
        facts.row("not known", format!("{}: {}", escape(&skipped.what), escape(&skipped.why)));
    }
    facts.render(width, painter)
}

fn parts(facts: &mut Facts, split: &SplitSet) {
    for part in &split.parts {
        facts
            .row("part", format!("{}: pfn {:#x} to {:#x}", escape(&part.path), part.start_pfn, part.end_pfn));
    }
    for range in &split.missing {
        facts.row("part", format!("NOT GIVEN: pfn {:#x} to {:#x}", range.start_pfn, range.end_pfn));
    }
}
