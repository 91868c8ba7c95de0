//! Why a walk over the kernel's data ended.

use std::fmt;

use crate::addr::KVirtAddr;
use crate::error::MemError;

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

impl WalkEnd {
    /// A walk that ends because `at` can't be read. The reason does not name the address again.
    pub(crate) fn unreadable(at: KVirtAddr, why: &MemError) -> Self {
        let text = match why {
            MemError::Page { source, .. } => source.to_string(),
            MemError::NotMapped { level, .. } => format!("it is not mapped ({level})"),
            other => other.to_string(),
        };
        Self::Unreadable(at, text)
    }
}

/// What a walk found, and why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk<T> {
    /// What was found, also where the walk did not come to its end.
    pub items: Vec<T>,
    /// The first reason why something can be missing, or [`WalkEnd::Complete`].
    pub end: WalkEnd,
    /// How many branches (of a tree) or chains (of a list) could not be followed.
    pub lost: usize,
}

impl<T> Default for Walk<T> {
    fn default() -> Self {
        Self { items: Vec::new(), end: WalkEnd::Complete, lost: 0 }
    }
}

impl<T> Walk<T> {
    /// Notes that something could not be followed. The first reason is kept, the others are counted.
    pub(crate) fn lose(&mut self, why: WalkEnd) {
        self.lost = self.lost.saturating_add(1);
        if self.end.is_complete() {
            self.end = why;
        }
    }

    /// Takes an item, or says that there are enough.
    pub(crate) fn push(&mut self, item: T, limit: usize) -> bool {
        if self.items.len() >= limit {
            self.end = WalkEnd::Limit(limit);
            return false;
        }
        self.items.push(item);
        true
    }

    /// The same walk over something else for each item.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Walk<U> {
        Walk { items: self.items.into_iter().map(f).collect(), end: self.end, lost: self.lost }
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
