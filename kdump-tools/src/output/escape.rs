//! Text from a dump or a file name, made harmless for a terminal.
//!
//! A crashed guest can name a process `\x1b]0;…`, and a file name can hold a right-to-left override: neither may
//! move the cursor, set colours, or show a name that is another.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The same text on one line, with all that a terminal would obey written as `\x1b` or `\u{202e}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_unless(text, |_| false)
}

/// Like [`escape`], but line breaks and tabs stay: for texts of several lines.
#[must_use]
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_unless(text, |c| c == '\n' || c == '\t')
}

fn escape_unless(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(|c| keep(c) || is_harmless(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if keep(c) || is_harmless(c) {
            out.push(c);
        } else if u32::from(c) < 0x100 {
            // Writing to a `String` can't fail.
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    Cow::Owned(out)
}

/// False for control characters (C0, DEL, C1), and for those of Unicode that reorder, hide or break lines.
pub(super) fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("swapper/0 größer"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_terminal_gets_no_orders() {
        assert_eq!(escape("a\x1b[31mb\r\u{9b}\u{202e}"), "a\\x1b[31mb\\x0d\\x9b\\u{202e}");
        assert_eq!(escape("two\nlines"), "two\\x0alines");
        assert_eq!(escape_lines("two\n\tlines\x07"), "two\n\tlines\\x07");
    }

    proptest! {
        #[test]
        fn nothing_that_moves_the_cursor_is_left(text in any::<String>()) {
            prop_assert!(escape(&text).chars().all(|c| !c.is_control()));
        }
    }
}
