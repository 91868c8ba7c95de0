//! The only place that prints. stdout is the answer, stderr is the talk.
//!
//! - [`Output`]: the two streams, whether they take colours, and the progress display that must not be torn.
//! - [`human`]: words for people, such as counts of pages; [`json`]: documents for programs; [`table`]: columns.
//! - [`dump`], [`info`], [`mod@check`], [`report`]: a dump and its triage, for a person.
//! - [`mod@html`]: the same triage as one file for a browser.
//! - [`progress`]: one display for many pieces of work, on a terminal; and lines for a console.
//! - [`mod@escape`]: what came from a dump or a file name does nothing to a terminal.
//! - [`live`]: a line for each part of a work, while it runs.
//! - [`log`]: what the libraries trace, for `-v`.
//! - [`mod@file`]: an answer that goes to a file gets its name only when it is whole.
//!
//! A reader that closes stdout early (`kdt log vmcore | head`) has what it wanted: that is no error.

pub mod check;
pub mod color;
pub mod dump;
pub mod escape;
pub mod file;
pub mod html;
pub mod human;
pub mod info;
pub mod json;
pub mod live;
pub mod log;
pub mod progress;
pub mod report;
pub mod similar;
pub mod table;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{Exit, Failure, plain_io};
use color::{Color, Painter, Style};
use escape::escape;
use progress::{Display, Piece};

/// How much is said, and in which colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// `--color`.
    pub color: Color,
    /// `-q`: no notes and no progress; errors are still said.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// Both streams.
#[derive(Debug)]
pub struct Output {
    settings: Settings,
    stdout_terminal: bool,
    painter: Painter,
    error_painter: Painter,
    display: Display,
    console: bool,
    closed: AtomicBool,
}

impl Output {
    /// The streams of this process.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let stdout_terminal = io::stdout().is_terminal();
        let stderr_terminal = io::stderr().is_terminal();
        let environment = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        let console = stderr_terminal && is_console();
        Self {
            settings,
            stdout_terminal,
            painter: Painter { on: settings.color.wanted(stdout_terminal, environment) },
            error_painter: Painter { on: settings.color.wanted(stderr_terminal, environment) },
            display: Display::new(stderr_terminal && !console && !settings.quiet),
            console,
            closed: AtomicBool::new(false),
        }
    }

    /// How much is said.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Paints for stdout.
    #[must_use]
    pub fn painter(&self) -> Painter {
        self.painter
    }

    /// True where a person looks at stdout.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.stdout_terminal
    }

    /// How many columns text for a person may take: the terminal's, 80 where there is none.
    #[must_use]
    pub fn width(&self) -> usize {
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        if columns == 0 { 80 } else { columns.clamp(40, 120) }
    }

    /// The progress display.
    #[must_use]
    pub fn display(&self) -> &Display {
        &self.display
    }

    /// The progress of one piece of work that goes through memory page by page: plain lines on a console, and where
    /// makedumpfile's message level `level` has its 1; else a bar on a terminal.
    #[must_use]
    pub fn page_progress(&self, name: &str, page_size: u64, level: Option<u32>) -> Piece {
        let wanted = level.map(|level| level & 1 != 0);
        let bars = self.display.is_visible();
        if !self.settings.quiet && !bars && wanted.unwrap_or(self.console) {
            self.display.lines(name, page_size)
        } else if wanted == Some(false) {
            Display::new(false).piece(name)
        } else {
            self.display.piece(name)
        }
    }

    /// True once the reader of stdout has gone: long answers can stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Writes a part of the answer to stdout, as it is. Text from a dump or a file name is escaped before.
    ///
    /// # Errors
    /// What the operating system says, but for a reader that has closed the pipe.
    pub fn answer(&self, text: &str) -> Result<(), Failure> {
        self.answer_with(|stdout| stdout.write_all(text.as_bytes()))
    }

    /// Writes a part of the answer in pieces, through a buffer.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn answer_with(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        if self.is_closed() {
            return Ok(());
        }
        let result = self.display.suspend(|| {
            let mut stdout = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
            write(&mut stdout).and_then(|()| stdout.flush())
        });
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(stdout_failure(&error)),
        }
    }

    /// Says something that is good to know, on stderr; `-q` silences it.
    pub fn note(&self, text: &str) {
        if !self.settings.quiet {
            self.talk(&format!("{} {}\n", self.error_painter.paint(Style::Faint, "note:"), escape(text)));
        }
    }

    /// Says that something is not as it should be, on stderr; `-q` does not silence it.
    pub fn warn(&self, text: &str) {
        self.talk(&format!("{} {}\n", self.error_painter.paint(Style::Warn, "warning:"), escape(text)));
    }

    /// Says what stopped the work, and the next step.
    pub fn failure(&self, failure: &Failure) {
        self.talk(&failure_text(failure, self.error_painter));
    }

    /// Writes to stderr. A stderr that nobody reads is no reason to fail.
    fn talk(&self, text: &str) {
        self.display.suspend(|| {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }
}

/// True where stderr is the machine's console, which shows lines and nothing that moves.
fn is_console() -> bool {
    let Ok(name) = std::fs::read_link("/proc/self/fd/2") else { return false };
    let name = name.to_string_lossy();
    ["/dev/console", "/dev/ttyS", "/dev/ttyAMA", "/dev/hvc"].iter().any(|console| name.starts_with(console))
}

/// Writes to stderr before the command line is understood, or while the program panics.
pub fn last_words(failure: &Failure) {
    let terminal = io::stderr().is_terminal();
    let environment = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let painter = Painter { on: Color::Auto.wanted(terminal, environment) };
    let _ = io::stderr().lock().write_all(failure_text(failure, painter).as_bytes());
}

/// Writes the text of `--help` or `--version` to stdout.
///
/// # Errors
/// As [`Output::answer`].
pub fn help(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(stdout_failure(&error)),
        _ => Ok(()),
    }
}

/// Writes the help that answers a command line without a command to stderr.
pub fn help_on_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn stdout_failure(error: &io::Error) -> Failure {
    let exit = match crate::exit::io_exit(error) {
        Exit::Input => Exit::Partial,
        exit => exit,
    };
    Failure::new(
        exit,
        format!("can't write the answer to stdout: {}", plain_io(error)),
        "the answer is not whole: free some space, or send it elsewhere",
    )
}

fn failure_text(failure: &Failure, painter: Painter) -> String {
    format!(
        "{} {}\n{} {}\n",
        painter.paint(Style::Bad, "error:"),
        escape(&failure.message),
        painter.paint(Style::Strong, "hint:"),
        escape(&failure.hint),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_sentence_and_one_hint_whatever_the_file_is_called() {
        let failure = Failure::new(Exit::Input, "evil\x1b[2J\nname is empty", "look elsewhere");
        assert_eq!(
            failure_text(&failure, Painter { on: false }),
            "error: evil\\x1b[2J\\x0aname is empty\nhint: look elsewhere\n"
        );
    }
}
