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
    fn place(class: Class) -> usize {
        Class::ALL.iter().position(|other| *other == class).unwrap_or(0)
    }

    /// One page more.
    pub fn add(&mut self, class: Class) {
        if let Some(count) = self.0.get_mut(Self::place(class)) {
            *count = count.saturating_add(1);
        }
    }

    /// The pages of a class.
    #[must_use]
    pub fn get(&self, class: Class) -> u64 {
        self.0.get(Self::place(class)).copied().unwrap_or(0)
    }

    /// Each class that has pages, with their count.
    pub fn iter(&self) -> impl Iterator<Item = (Class, u64)> {
        Class::ALL.into_iter().map(|class| (class, self.get(class))).filter(|(_, count)| *count > 0)
    }
}
