//! One progress display for many pieces of work, on stderr: bars on a terminal, and for who asks for it plain lines, which
//! the serial console of a capture kernel can show.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmcore::progress::Progress;

use super::escape::escape;
use super::live::Live;
use crate::size::Size;

/// Work that is done sooner shows nothing: a bar that only flashes tells nobody anything.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);
/// How often a line is printed where there are no bars: a serial console has 11 KiB/s.
const LINE: Duration = Duration::from_secs(5);

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

    /// True where bars are drawn.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.visible
    }

    /// Takes the bars away while `print` writes, and puts them back.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        if self.visible { self.bars.suspend(print) } else { print() }
    }

    /// A line for each part of one piece of work; `None` where nothing is drawn.
    #[must_use]
    pub fn live(&self) -> Option<Live> {
        self.visible.then(|| Live::new(self.bars.clone()))
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
            unit: None,
            name: shorten(&escape(name), 28),
            since: Instant::now(),
            bar: OnceLock::new(),
            now: Mutex::default(),
        }
    }

    /// Plain lines for one piece of work, one every few seconds. A unit of it is `unit` bytes.
    #[must_use]
    pub fn lines(&self, name: &str, unit: u64) -> Piece {
        let mut piece = self.piece(name);
        (piece.bars, piece.unit) = (None, Some(unit));
        piece
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
    /// Bytes of a unit, where lines are printed.
    unit: Option<u64>,
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
    /// When it began, and how long after that its last line was printed.
    times: Option<(Instant, Duration)>,
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

    /// What is printed of it after `passed`.
    fn line(&self, of: &str, unit: u64, passed: Duration) -> String {
        let Some(total) = self.total.filter(|total| *total > 0) else {
            return format!("{of}: {}", self.name);
        };
        let size = |units: u64| Size::from(units.saturating_mul(unit));
        let done = self.done.min(total);
        let percent = u128::from(done) * 100 / u128::from(total);
        let mut line = format!("{of}: {}: {percent} %, {} of {}", self.name, size(done), size(total));
        let bytes = u128::from(done).saturating_mul(u128::from(unit)).saturating_mul(1000);
        if let Some(rate) = bytes.checked_div(passed.as_millis()) {
            let _ = write!(line, ", {}/s", Size::from(u64::try_from(rate).unwrap_or(u64::MAX)));
        }
        line
    }

    /// The line that is due `passed` after its beginning, if one is.
    fn due(&mut self, of: &str, unit: u64, passed: Duration) -> Option<String> {
        let (_, last) = self.times.as_mut()?;
        if passed.checked_sub(*last).is_none_or(|since| since < LINE) {
            return None;
        }
        *last = passed;
        Some(self.line(of, unit, passed))
    }
}

impl Piece {
    /// Changes the step, and shows it where the work takes a while: all of it, or only how much is done.
    fn change(&self, all: bool, change: impl FnOnce(&mut Step)) {
        if let Some(unit) = self.unit {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut now);
            let begun = now.times.get_or_insert((Instant::now(), Duration::ZERO)).0;
            if let Some(line) = now.due(&self.name, unit, begun.elapsed()) {
                // A stderr that nobody reads is no reason to fail.
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
            return;
        }
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
        self.change(true, |now| *now = Step { name: shorten(&escape(name), 24), total, ..Step::default() });
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

pub(super) fn style(template: &str) -> ProgressStyle {
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
    fn a_line_comes_every_few_seconds_and_says_how_far_and_how_fast() {
        let secs = Duration::from_secs;
        let mut step = Step {
            name: "write".into(),
            total: Some(4096),
            done: 1024,
            times: Some((Instant::now(), Duration::ZERO)),
        };
        assert_eq!(step.due("vmcore", 4096, secs(4)), None);
        let line = "vmcore: write: 25 %, 4 MiB of 16 MiB, 819.2 KiB/s";
        assert_eq!(step.due("vmcore", 4096, secs(5)).as_deref(), Some(line));
        assert_eq!(step.due("vmcore", 4096, secs(9)), None, "not twice");
        assert!(step.due("vmcore", 4096, secs(10)).is_some());
        step.total = None;
        assert_eq!(step.line("vmcore", 4096, secs(1)), "vmcore: write");
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
            "  {prefix:11} {wide_msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
