//! One progress display for many pieces of work, on stderr, and only on a terminal.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmcore::progress::Progress;

use super::escape::escape;

/// Work that is done sooner shows nothing: a bar that only flashes tells nobody anything.
const PATIENCE: Duration = Duration::from_millis(300);

/// The display: one line for the whole, and one for each piece in work.
#[derive(Debug)]
pub struct Display {
    bars: MultiProgress,
    visible: bool,
}

impl Display {
    /// A display that draws on stderr, or nowhere.
    #[must_use]
    pub fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), visible }
    }

    /// Takes the bars away while `print` writes, and puts them back.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        if self.visible { self.bars.suspend(print) } else { print() }
    }

    /// A line for the whole, which consists of `total` pieces: «dumps».
    #[must_use]
    pub fn whole(&self, noun: &str, total: usize) -> Whole<'_> {
        let bar = (self.visible && total > 1).then(|| {
            let bar = self.bars.add(ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)));
            bar.set_style(style("[{elapsed}] {bar:30} {pos} of {len} {msg}"));
            bar.set_message(noun.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Whole { display: self, bar }
    }

    /// A line for one piece of work. It is drawn when the work takes a while, and goes when it is dropped.
    #[must_use]
    pub fn piece(&self, name: &str) -> Piece {
        Piece {
            bars: self.visible.then(|| self.bars.clone()),
            name: shorten(&escape(name), 28),
            since: Instant::now(),
            bar: OnceLock::new(),
            now: Mutex::default(),
        }
    }
}

/// The line for the whole of many pieces. It goes when it is dropped.
#[derive(Debug)]
pub struct Whole<'a> {
    display: &'a Display,
    bar: Option<ProgressBar>,
}

impl Whole<'_> {
    /// A line for one of the pieces.
    #[must_use]
    pub fn piece(&self, name: &str) -> Piece {
        self.display.piece(name)
    }

    /// One piece more is done.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The line for one piece of work.
#[derive(Debug)]
pub struct Piece {
    bars: Option<MultiProgress>,
    name: String,
    since: Instant,
    bar: OnceLock<ProgressBar>,
    /// Where the work is, for a line that is drawn later than the step began.
    now: Mutex<Step>,
}

/// A step of the work, and how much of it is done.
#[derive(Clone, Debug, Default)]
struct Step {
    name: String,
    total: Option<u64>,
    done: u64,
}

impl Step {
    fn show(&self, bar: &ProgressBar) {
        match self.total {
            Some(total) => {
                bar.set_style(style("  {spinner} {prefix} {msg} {bar:16} {percent:>3} %"));
                bar.set_length(total);
            }
            None => bar.set_style(style("  {spinner} {prefix} {msg}")),
        }
        bar.set_position(self.done);
        bar.set_message(self.name.clone());
    }
}

impl Piece {
    /// Changes the step, and shows it where the work takes a while: all of it, or only how much is done.
    fn change(&self, all: bool, change: impl FnOnce(&mut Step)) {
        let Some(bars) = &self.bars else { return };
        // A thread that panicked leaves a step that is good enough to be shown.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        if let Some(bar) = self.bar.get() {
            if all {
                now.show(bar);
            } else {
                bar.set_position(now.done);
            }
        } else if self.since.elapsed() >= PATIENCE {
            let bar = self.bar.get_or_init(|| bars.add(ProgressBar::no_length()));
            bar.set_prefix(self.name.clone());
            now.show(bar);
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }
}

impl Progress for Piece {
    fn step(&self, name: &str, total: Option<u64>) {
        self.change(true, |now| *now = Step { name: shorten(&escape(name), 24), total, done: 0 });
    }

    fn advance(&self, units: u64) {
        self.change(false, |now| now.done = now.done.saturating_add(units));
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// The end of a long name tells more than its beginning: `…/host7/vmcore`.
pub(super) fn shorten(name: &str, width: usize) -> String {
    let len = name.chars().count();
    if len <= width {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(len - width.saturating_sub(1)).collect();
    format!("…{tail}")
}

fn style(template: &str) -> ProgressStyle {
    // The templates stand in this file and are right; a wrong one would only lose the bar.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_display_makes_no_bars() {
        let display = Display::new(false);
        let whole = display.whole("dumps", 3);
        let piece = whole.piece("vmcore");
        piece.step("read", Some(10));
        piece.advance(1);
        assert!(piece.bar.get().is_none() && whole.bar.is_none());
    }

    #[test]
    fn short_work_shows_no_bar() {
        let piece = Display::new(true).piece("vmcore");
        piece.step("read", Some(10));
        assert!(piece.bar.get().is_none());
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(shorten("/var/crash/host7/vmcore", 10), "…t7/vmcore");
        assert_eq!(shorten("vmcore", 10), "vmcore");
    }

    #[test]
    fn all_templates_are_understood() {
        for template in [
            "[{elapsed}] {bar:30} {pos} of {len} {msg}",
            "  {spinner} {prefix} {msg}",
            "  {spinner} {prefix} {msg} {bar:16} {percent:>3} %",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
