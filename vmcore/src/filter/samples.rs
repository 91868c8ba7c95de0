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
        let step = 1_u64.checked_shl(self.shift).unwrap_or(u64::MAX);
        if self.seen.is_multiple_of(step) {
            if self.frames.len() >= MOST {
                let mut odd = false;
                self.frames.retain(|_| {
                    odd = !odd;
                    odd
                });
                self.shift = self.shift.saturating_add(1);
            }
            let step = 1_u64.checked_shl(self.shift).unwrap_or(u64::MAX);
            if self.seen.is_multiple_of(step) {
                self.frames.push(pfn);
            }
        }
        self.seen = self.seen.saturating_add(1);
    }
}

impl Samples {
    /// One frame of a class more.
    pub fn add(&mut self, class: Class, pfn: u64) {
        let place = Class::ALL.iter().position(|other| *other == class);
        if let Some(spread) = place.and_then(|place| self.0.get_mut(place)) {
            spread.add(pfn);
        }
    }

    /// The frames of a class that were chosen, and how many it has.
    #[must_use]
    pub fn get(&self, class: Class) -> (&[u64], u64) {
        let place = Class::ALL.iter().position(|other| *other == class);
        let spread = place.and_then(|place| self.0.get(place));
        spread.map_or((&[], 0), |spread| (&spread.frames, spread.seen))
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
}
