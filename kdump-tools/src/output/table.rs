//! Columns that line up.

use super::color::{Painter, Style};

/// Lines of a label and a text: `label:  text`. A text that is too long continues below itself, and a label that
/// comes again right after itself is not repeated.
#[derive(Debug, Default)]
pub struct Facts {
    rows: Vec<(String, String)>,
}

impl Facts {
    /// No lines yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more line.
    pub fn row(&mut self, label: &str, text: impl Into<String>) {
        self.rows.push((label.to_owned(), text.into()));
    }

    /// One more line where there is something to say.
    pub fn maybe(&mut self, label: &str, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.row(label, text);
        }
    }

    /// The lines, `width` columns wide at most where words allow it.
    #[must_use]
    pub fn render(&self, width: usize, painter: Painter) -> String {
        let labels = self.rows.iter().map(|(label, _)| label.chars().count() + 1).max().unwrap_or(0);
        let mut out = String::new();
        let mut last = "";
        for (label, text) in &self.rows {
            let head = if label == last { String::new() } else { format!("{label}:") };
            last = label;
            let pad = labels - head.chars().count() + 2;
            out.push_str(&painter.paint(Style::Strong, &head));
            out.push_str(&" ".repeat(pad));
            let indent = " ".repeat(labels + 2);
            let lines = wrap(text, width.saturating_sub(labels + 2).max(20));
            out.push_str(&lines.join(&format!("\n{indent}")));
            out.push('\n');
        }
        out
    }
}

/// Breaks a text at blanks into lines of at most `width` characters; a longer word keeps a line of its own.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split(' ') {
            let len = word.chars().count();
            if used > 0 && used + 1 + len > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 || !line.is_empty() {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += len;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_line_up_and_long_texts_continue_below_themselves() {
        let mut facts = Facts::new();
        facts.row("file", "vmcore");
        facts.row("complete", "one two three four five six seven");
        facts.maybe("absent", None::<String>);
        assert_eq!(
            facts.render(32, Painter::default()),
            "file:      vmcore\ncomplete:  one two three four\n           five six seven\n"
        );
    }

    #[test]
    fn a_label_is_said_once_for_what_belongs_together() {
        let mut facts = Facts::new();
        facts.row("part", "one");
        facts.row("part", "two");
        assert_eq!(facts.render(80, Painter::default()), "part:  one\n       two\n");
    }

    #[test]
    fn a_word_longer_than_the_line_is_not_broken() {
        assert_eq!(wrap("a incomprehensibilities b", 5), ["a", "incomprehensibilities", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
