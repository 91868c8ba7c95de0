//! A command line that makes no sense, told in one sentence and one hint instead of a page.

use clap::error::ErrorKind;

use crate::exit::{Exit, Failure};
use crate::output;

/// Prints help or version, or what is wrong with the words; returns how that ends.
pub(super) fn end(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match output::help(&error.render().to_string())
        {
            Ok(()) => Exit::Done,
            Err(failure) => {
                output::last_words(&failure);
                failure.exit
            }
        },
        // `kdt` alone is a question too, but nothing was done: the help goes to stderr and the code is 2.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::help_on_stderr(&error.render().to_string());
            Exit::Usage
        }
        _ => {
            let failure = failure(&error.render().to_string());
            output::last_words(&failure);
            failure.exit
        }
    }
}

/// Takes clap's text apart: its first paragraph is the sentence; its tips, or else its usage line, the hint.
fn failure(text: &str) -> Failure {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut message = Vec::new();
    let mut tips = Vec::new();
    let mut usage = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip.to_owned());
        } else if let Some(line) = line.strip_prefix("Usage: ") {
            line.clone_into(&mut usage);
        } else if usage.is_empty() && !line.is_empty() && !line.starts_with("For more information") {
            message.push(line);
        }
    }
    let hint = match (tips.is_empty(), usage.is_empty()) {
        (false, _) => tips.join("; "),
        (true, false) => format!("usage: {usage}"),
        (true, true) => "see kdt --help".to_owned(),
    };
    Failure::usage(message.join(" "), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_becomes_the_hint() {
        let text = "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\n\
                    Usage: kdt info <PATH>...\n\nFor more information, try '--help'.\n";
        let failure = failure(text);
        assert_eq!(failure.message, "unexpected argument '--jsn' found");
        assert_eq!(failure.hint, "a similar argument exists: '--json'");
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn without_a_tip_the_usage_is_the_hint() {
        let text = "error: the following required arguments were not provided:\n  <PATH>...\n\n\
                    Usage: kdt info <PATH>...\n\nFor more information, try '--help'.\n";
        let failure = failure(text);
        assert_eq!(failure.message, "the following required arguments were not provided: <PATH>...");
        assert_eq!(failure.hint, "usage: kdt info <PATH>...");
    }
}
