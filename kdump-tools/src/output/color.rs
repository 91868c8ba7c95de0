//! Whether to colour, and how. A colour only repeats what a word already says.

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Into pipes and files too.
    Always,
    /// Not at all.
    Never,
}

impl Color {
    /// Whether a stream gets colours, which is a `terminal` or not. `environment` answers for the variables
    /// `NO_COLOR` and `TERM`.
    #[must_use]
    pub fn wanted(self, terminal: bool, environment: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                // https://no-color.org: set and not empty, whatever the value.
                let refused = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = environment("TERM").is_some_and(|value| value == "dumb");
                terminal && !refused && !dumb
            }
        }
    }
}

/// A way to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A heading, a verdict.
    Strong,
    /// Something broke.
    Bad,
    /// Something to look at.
    Warn,
    /// What is fine.
    Good,
    /// What matters less.
    Faint,
}

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Painter {
    /// True where the stream takes colours.
    pub on: bool,
}

impl Painter {
    /// The text in this style.
    #[must_use]
    pub fn paint(self, style: Style, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Strong => "1",
            Style::Bad => "1;31",
            Style::Warn => "33",
            Style::Good => "32",
            Style::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_colours_only_when_they_are_asked_for() {
        assert!(!Color::Auto.wanted(false, |_| None));
        assert!(Color::Always.wanted(false, |_| None));
    }

    #[test]
    fn no_color_counts_when_it_is_not_empty() {
        let set = |value: &'static str| move |name: &str| (name == "NO_COLOR").then(|| value.to_owned());
        assert!(!Color::Auto.wanted(true, set("0")));
        assert!(Color::Auto.wanted(true, set("")));
        assert!(Color::Always.wanted(true, set("1")));
        assert!(!Color::Auto.wanted(true, |name| (name == "TERM").then(|| "dumb".into())));
    }

    #[test]
    fn a_painter_that_is_off_changes_nothing() {
        assert_eq!(Painter { on: false }.paint(Style::Bad, "x"), "x");
        assert_eq!(Painter { on: true }.paint(Style::Bad, "x"), "\x1b[1;31mx\x1b[0m");
    }
}
