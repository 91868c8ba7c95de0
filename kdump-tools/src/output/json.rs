//! Documents for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::Output;
use crate::exit::Failure;

/// The document as text: indented, one line break at the end, and no character that a terminal would obey (JSON
/// escapes the control characters below 0x20 itself; here the others are escaped too, in JSON's own way).
///
/// # Errors
/// A value that JSON can't hold, which is a bug.
pub fn text(document: &impl Serialize) -> Result<String, Failure> {
    let mut plain = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::internal(format!("the JSON document can't be written: {error}")))?;
    // Most documents are plain ASCII, some of many megabytes; of others nearly all lines are.
    if is_plain(&plain) {
        plain.push('\n');
        return Ok(plain);
    }
    let mut text = String::with_capacity(plain.len() + 1);
    for line in plain.split_inclusive('\n') {
        if is_plain(line) {
            text.push_str(line);
        } else {
            escape_into(&mut text, line);
        }
    }
    text.push('\n');
    Ok(text)
}

/// True where nothing is to be escaped. Pieces without a way out of their middle are compared many bytes at a time.
fn is_plain(text: &str) -> bool {
    let is_harmless = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
    text.as_bytes().chunks(256).all(|piece| piece.iter().fold(true, |all, byte| all & is_harmless(byte)))
}

fn escape_into(text: &mut String, line: &str) {
    for c in line.chars() {
        // Outside of strings, JSON's text is ASCII: all that is escaped here stands inside a string.
        if c == '\n' || super::escape::is_harmless(c) {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
}

/// Writes the document to stdout.
///
/// # Errors
/// As [`Output::answer`].
pub fn print(output: &Output, document: &impl Serialize) -> Result<(), Failure> {
    output.answer(&text(document)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminals_get_no_orders_and_programs_get_the_same_string() {
        let name = "a\u{7f}\u{9b}\u{202e}\u{e0041}\x1b";
        let text = text(&name).unwrap();
        assert_eq!(text, "\"a\\u007f\\u009b\\u202e\\udb40\\udc41\\u001b\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
    }

    proptest! {
        #[test]
        fn every_string_comes_back(name in any::<String>()) {
            let text = text(&vec![&name]).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), vec![name]);
        }
    }
}
