//! How a run tells its caller how far it is, and hears that it should stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outcome::ItemReport;
use crate::plan::Plan;

/// Told by a run how far it is; always called from the thread that called [`crate::run()`].
pub trait Progress {
    /// The run begins.
    fn begin(&self, _plan: &Plan) {}
    /// One item is done, in whatever way.
    fn item(&self, _report: &ItemReport) {}
    /// All items are done; the bundle is put together and verified.
    fn finishing(&self) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}

/// A flag that asks a run to stop. A signal handler may set it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that shares `flag`, for callers who have one already.
    #[must_use]
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

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
