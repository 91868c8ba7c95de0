//! Some frames of each class, to tell from how they compress how all of it will.

use super::Class;

/// No class has more of them.
const MOST: usize = 256;

/// Frames of each class, spread over all of it: the same ones each time.
#[derive(Clone, Debug, Default)]
pub struct Samples([Spread; 9]);

/// Every 2^`shift`th frame of those that were seen.
#[derive(Clone, Debug, Default)]
struct Spread {
    seen: u64,
    shift: u32,
    frames: Vec<u64>,
}

impl Spread {
    fn add(&mut self, pfn: u64) {
        if self.wants(self.seen) {
            if self.frames.len() >= MOST {
                self.thin();
            }
            if self.wants(self.seen) {
                self.frames.push(pfn);
            }
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// True where the frame with this number is chosen.
    fn wants(&self, number: u64) -> bool {
        number.trailing_zeros() >= self.shift
    }

    /// Forgets every other frame.
    fn thin(&mut self) {
        let mut odd = false;
        self.frames.retain(|_| {
            odd = !odd;
            odd
        });
        self.shift = self.shift.saturating_add(1);
    }

    /// What was seen behind this.
    fn append(&mut self, mut other: Self) {
        if other.seen == 0 {
            return;
        }
        while self.shift < other.shift {
            self.thin();
        }
        while other.shift < self.shift {
            other.thin();
        }
        self.frames.append(&mut other.frames);
        self.seen = self.seen.saturating_add(other.seen);
        while self.frames.len() > MOST {
            self.thin();
        }
    }
}

impl Samples {
    /// One frame of a class more.
    pub fn add(&mut self, class: Class, pfn: u64) {
        if let Some(spread) = self.0.get_mut(class.place()) {
            spread.add(pfn);
        }
    }

    /// Those of frames behind these.
    pub(super) fn append(&mut self, other: Self) {
        for (spread, more) in self.0.iter_mut().zip(other.0) {
            spread.append(more);
        }
    }

    /// The frames of a class that were chosen, and how many it has.
    #[must_use]
    pub fn get(&self, class: Class) -> (&[u64], u64) {
        self.0.get(class.place()).map_or((&[], 0), |spread| (&spread.frames, spread.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_few_and_spread_over_all_of_a_class() {
        for count in [0, 1, 255, 256, 257, 1000, 100_000_u64] {
            let mut samples = Samples::default();
            (0..count).for_each(|pfn| samples.add(Class::Free, pfn * 3));
            let (frames, seen) = samples.get(Class::Free);
            assert_eq!(seen, count);
            assert!(
                frames.len() <= 256 && frames.len() as u64 >= count.min(128),
                "{count}: {}",
                frames.len()
            );
            let gaps: Vec<u64> = frames.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.windows(2).all(|pair| pair[0] == pair[1]), "{count}");
            assert_eq!(samples.get(Class::User).1, 0);
        }
    }

    #[test]
    fn samples_of_parts_are_few_and_of_all_parts() {
        for (parts, each) in [(3, 0), (3, 1), (5, 60), (7, 255), (40, 3000_u64)] {
            let mut samples = Samples::default();
            for part in 0..parts {
                let mut more = Samples::default();
                (part * each..(part + 1) * each).for_each(|pfn| more.add(Class::Free, pfn));
                samples.append(more);
            }
            let (frames, seen) = samples.get(Class::Free);
            assert_eq!(seen, parts * each);
            assert!(frames.len() <= 256 && frames.len() as u64 >= seen.min(100), "{each}: {}", frames.len());
            assert!(frames.is_sorted());
            if each > 100 {
                assert!((0..parts).all(|part| frames.iter().any(|pfn| pfn / each == part)), "{each}");
            }
        }
    }
}
