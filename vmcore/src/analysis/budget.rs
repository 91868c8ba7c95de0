//! A ceiling on how long a step may take, for steps that look at all of memory.

use std::time::{Duration, Instant};

use crate::progress::{Cancel, Progress};

/// Passes progress on, and asks the step to stop when its time is up or when the caller asks for it.
pub struct Budget<'a> {
    inner: &'a dyn Progress,
    caller: &'a Cancel,
    until: Option<Instant>,
    stop: Cancel,
}

impl<'a> Budget<'a> {
    /// A budget that begins now.
    #[must_use]
    pub fn new(time: Duration, inner: &'a dyn Progress, caller: &'a Cancel) -> Self {
        let budget = Self { inner, caller, until: Instant::now().checked_add(time), stop: Cancel::default() };
        budget.check();
        budget
    }

    /// What the step is given to hear that it should stop.
    #[must_use]
    pub fn stop(&self) -> &Cancel {
        &self.stop
    }

    /// True where the time was up, and it was not the caller who asked for the stop.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.stop.is_cancelled() && !self.caller.is_cancelled()
    }

    fn check(&self) {
        if self.caller.is_cancelled() || self.until.is_some_and(|until| Instant::now() >= until) {
            self.stop.cancel();
        }
    }
}

impl Progress for Budget<'_> {
    fn step(&self, name: &str, total: Option<u64>) {
        self.check();
        self.inner.step(name, total);
    }

    fn advance(&self, units: u64) {
        self.check();
        self.inner.advance(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Quiet;

    #[test]
    fn a_spent_budget_stops_the_step_and_not_the_caller() {
        let caller = Cancel::default();
        let budget = Budget::new(Duration::ZERO, &Quiet, &caller);
        budget.advance(1);
        assert!(budget.stop().is_cancelled() && budget.is_spent() && !caller.is_cancelled());
    }

    #[test]
    fn a_caller_who_stops_has_not_spent_the_budget() {
        let caller = Cancel::default();
        let budget = Budget::new(Duration::from_hours(1), &Quiet, &caller);
        budget.advance(1);
        assert!(!budget.stop().is_cancelled());
        caller.cancel();
        budget.advance(1);
        assert!(budget.stop().is_cancelled() && !budget.is_spent());
    }
}
