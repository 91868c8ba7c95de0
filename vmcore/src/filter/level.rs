//! makedumpfile's `-d`: a sum of the classes that are left out.

use std::fmt;
use std::str::FromStr;

use super::Class;

/// Which classes of pages are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// Pages full of zeros.
    pub const ZERO: u8 = 1;
    /// Page cache without private data.
    pub const CACHE: u8 = 2;
    /// All page cache.
    pub const CACHE_PRIVATE: u8 = 4;
    /// Memory of processes.
    pub const USER: u8 = 8;
    /// Free pages.
    pub const FREE: u8 = 16;
    /// Everything that can be left out.
    pub const MAX: Self = Self(31);

    /// The level with this number, 0 to 31.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number <= 31).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// True where pages of zeros need no bytes of their own.
    #[must_use]
    pub fn drops_zeros(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// True where it takes the kernel's own records to know what is left out.
    #[must_use]
    pub fn needs_classes(self) -> bool {
        self.0 & !Self::ZERO != 0
    }

    /// True where pages of this class are left out, as makedumpfile 1.7.8 does it: memory that is broken or taken away goes
    /// with any class but zeros, memory that was never accepted goes with the free.
    #[must_use]
    pub fn excludes(self, class: Class) -> bool {
        let any = |bits: u8| self.0 & bits != 0;
        match class {
            Class::Kernel | Class::Unknown => false,
            Class::Cache => any(Self::CACHE | Self::CACHE_PRIVATE),
            Class::CachePrivate => any(Self::CACHE_PRIVATE),
            Class::User => any(Self::USER),
            Class::Free | Class::Unaccepted => any(Self::FREE),
            Class::HwPoison | Class::Offline => self.needs_classes(),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().and_then(Self::new);
        number.ok_or_else(|| format!("{text:?} is no dump level: they go from 0 to 31"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_with_private_data_goes_with_four_only() {
        let level = |n| Level::new(n).unwrap();
        assert!(level(2).excludes(Class::Cache) && !level(2).excludes(Class::CachePrivate));
        assert!(level(4).excludes(Class::Cache) && level(4).excludes(Class::CachePrivate));
    }

    #[test]
    fn what_is_not_known_is_never_left_out() {
        for number in 0..=31 {
            let level = Level::new(number).unwrap();
            assert!(!level.excludes(Class::Unknown) && !level.excludes(Class::Kernel));
        }
        assert!("32".parse::<Level>().is_err() && "x".parse::<Level>().is_err());
    }
}
