//! Text from a dump as it stands in the page: escaped by `maud`, and without characters that hide or reorder others.

use std::borrow::Cow;

use crate::output::escape::escape;

/// Characters of one text that are shown. A dump can hold a line of a gigabyte.
const LONGEST: usize = 4000;

/// The text on one line, what is invisible written out, and cut where it is endless.
#[must_use]
pub fn show(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        None => escape(text),
        Some((end, _)) => {
            let head = text.get(..end).unwrap_or_default();
            let more = text.len().saturating_sub(end);
            Cow::Owned(format!("{}… ({more} more bytes are not shown)", escape(head)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_written_out_and_what_is_endless_is_cut_with_a_word() {
        assert_eq!(show("a\u{202e}b\0\x1b[2J"), "a\\u{202e}b\\x00\\x1b[2J");
        assert_eq!(show(&"ä".repeat(LONGEST)).chars().count(), LONGEST);
        assert!(show(&"ä".repeat(LONGEST + 1)).ends_with("… (2 more bytes are not shown)"));
    }
}
