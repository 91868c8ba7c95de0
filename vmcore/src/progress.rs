//! How long work tells its caller how far it is, and hears that it should stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Told by long work how far it is. Called from several threads at once.
pub trait Progress: Send + Sync {
    /// A new step begins; `total` units (bytes, pages, …) where known.
    fn step(&self, _name: &str, _total: Option<u64>) {}
    /// `units` more are done.
    fn advance(&self, _units: u64) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}

/// A flag that asks long work to stop at its next safe point.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

/// Shares a flag that something else sets: a signal handler.
impl From<Arc<AtomicBool>> for Cancel {
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

impl Cancel {
    /// Asks for the stop. It can't be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once somebody asked for the stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
