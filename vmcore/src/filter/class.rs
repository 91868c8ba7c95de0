//! What a page was used for.

/// What a page was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The kernel's own: slab, stacks, page tables, text, and all that is none of the others.
    Kernel,
    /// Page cache without private data.
    Cache,
    /// Page cache with private data: buffers of a filesystem.
    CachePrivate,
    /// Memory of processes: anonymous and huge pages.
    User,
    /// Free in the buddy allocator.
    Free,
    /// Its hardware is broken.
    HwPoison,
    /// Taken away from this machine: ballooned or unplugged.
    Offline,
    /// Never accepted from the host (confidential guests).
    Unaccepted,
    /// Its `struct page` can't be read, or contradicts its neighbours.
    Unknown,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Kernel,
        Self::Cache,
        Self::CachePrivate,
        Self::User,
        Self::Free,
        Self::HwPoison,
        Self::Offline,
        Self::Unaccepted,
        Self::Unknown,
    ];

    /// Its place in [`Self::ALL`].
    pub(super) fn place(self) -> usize {
        match self {
            Self::Kernel => 0,
            Self::Cache => 1,
            Self::CachePrivate => 2,
            Self::User => 3,
            Self::Free => 4,
            Self::HwPoison => 5,
            Self::Offline => 6,
            Self::Unaccepted => 7,
            Self::Unknown => 8,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cache => "cache",
            Self::CachePrivate => "cache-private",
            Self::User => "user",
            Self::Free => "free",
            Self::HwPoison => "hwpoison",
            Self::Offline => "offline",
            Self::Unaccepted => "unaccepted",
            Self::Unknown => "unknown",
        }
    }
}

/// How many pages each class has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; 9]);

impl Counts {
    /// One page more.
    pub fn add(&mut self, class: Class) {
        if let Some(count) = self.0.get_mut(class.place()) {
            *count = count.saturating_add(1);
        }
    }

    /// The pages of `other` too.
    pub(super) fn append(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// The pages of a class.
    #[must_use]
    pub fn get(&self, class: Class) -> u64 {
        self.0.get(class.place()).copied().unwrap_or(0)
    }

    /// Each class that has pages, with their count.
    pub fn iter(&self) -> impl Iterator<Item = (Class, u64)> {
        Class::ALL.into_iter().map(|class| (class, self.get(class))).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_place() {
        assert!(Class::ALL.into_iter().enumerate().all(|(place, class)| class.place() == place));
    }
}
