//! Lines that come and go on a terminal: one for each part of a work whose parts run beside each other.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar};

use super::escape::escape;
use super::progress::{PATIENCE, style};

/// The lines. They are drawn when the work takes a while, and go when they are dropped.
#[derive(Debug)]
pub struct Live {
    lines: Arc<Mutex<Lines>>,
    /// Its end ends the wait for what takes a while.
    _until: Option<Sender<()>>,
}

#[derive(Debug)]
struct Lines {
    bars: MultiProgress,
    drawn: bool,
    all: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: String,
    text: String,
    bar: Option<ProgressBar>,
}

impl Live {
    /// Lines in this display.
    #[must_use]
    pub(super) fn new(bars: MultiProgress) -> Self {
        let lines = Arc::new(Mutex::new(Lines { bars, drawn: false, all: Vec::new() }));
        let (until, wait) = channel();
        let own = Arc::clone(&lines);
        // Where no thread can be had, there are no lines: they are not the answer.
        let waits = std::thread::Builder::new().spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let mut lines = locked(&own);
                lines.drawn = true;
                lines.draw();
            }
        });
        Self { lines, _until: waits.is_ok().then_some(until) }
    }

    /// What the line of this name says; a name that is new gets the last line.
    pub fn say(&self, name: &str, text: &str) {
        let mut lines = locked(&self.lines);
        let text = escape(text).into_owned();
        match lines.all.iter_mut().find(|line| line.name == name) {
            Some(line) => line.text = text,
            None => lines.all.push(Line { name: name.to_owned(), text, bar: None }),
        }
        lines.draw();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut lines = locked(&self.lines);
        lines.drawn = false;
        for bar in lines.all.drain(..).filter_map(|line| line.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn draw(&mut self) {
        if !self.drawn {
            return;
        }
        for line in &mut self.all {
            let bar = line.bar.get_or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::no_length());
                bar.set_style(style("  {prefix:11} {wide_msg}"));
                bar.set_prefix(line.name.clone());
                bar
            });
            if bar.message() != line.text {
                bar.set_message(line.text.clone());
            }
            bar.tick();
        }
    }
}

/// A thread that panicked leaves lines that are good enough to be shown.
fn locked(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_line_and_short_work_shows_none() {
        let live = Live::new(MultiProgress::new());
        live.say("mounts", "runs");
        live.say("net", "runs");
        live.say("mounts", "done");
        let lines = locked(&live.lines);
        let said: Vec<_> = lines.all.iter().map(|line| (line.name.as_str(), line.text.as_str())).collect();
        assert_eq!(said, [("mounts", "done"), ("net", "runs")]);
        assert!(lines.all.iter().all(|line| line.bar.is_none()));
    }
}
