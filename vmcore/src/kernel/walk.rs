//! Why a walk over the kernel's data ended.

use std::fmt;

use crate::addr::KVirtAddr;

/// Why a walk ended. Only [`WalkEnd::Complete`] means «this is all».
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalkEnd {
    /// All there is.
    Complete,
    /// It came back to where it had been.
    Cycle(KVirtAddr),
    /// What leads on can't be read, and why.
    Unreadable(KVirtAddr, String),
    /// What leads on can't be true, and why.
    Inconsistent(KVirtAddr, String),
    /// It stopped at this many items, which a limit says is enough.
    Limit(usize),
    /// The caller asked it to stop.
    Cancelled,
}

impl WalkEnd {
    /// True where nothing is left out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::Complete
    }
}

impl fmt::Display for WalkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Cycle(at) => write!(f, "it comes back to {at}"),
            Self::Unreadable(at, why) => write!(f, "it can't be followed at {at}: {why}"),
            Self::Inconsistent(at, why) => write!(f, "it is inconsistent at {at}: {why}"),
            Self::Limit(items) => write!(f, "it stopped at the limit of {items}"),
            Self::Cancelled => f.write_str("it was asked to stop"),
        }
    }
}
