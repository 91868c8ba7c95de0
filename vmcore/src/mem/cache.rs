//! A bounded store of decoded pages, shared by threads.
//!
//! Sharded, so that threads which read different frames rarely meet; in each shard the page that was not read
//! since the hand last passed goes first (second chance), which costs a read no more than setting a flag.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::NumberMap;

const SHARDS: usize = 16;

/// Decoded pages by number.
pub(crate) struct PageCache {
    shards: [Mutex<Shard>; SHARDS],
    most: usize,
}

#[derive(Default)]
struct Shard {
    pages: NumberMap<u64, Slot>,
    hand: VecDeque<u64>,
    /// The page that went last, whose memory the next one takes: to give it back and ask for it anew costs as much as to decode.
    spare: Option<Arc<[u8]>>,
}

struct Slot {
    page: Arc<[u8]>,
    used: bool,
}

impl PageCache {
    /// A store for `bytes` of pages of `page_size`; for a few pages at least.
    pub(crate) fn new(bytes: usize, page_size: u64) -> Self {
        let page_size = usize::try_from(page_size).unwrap_or(usize::MAX).max(1);
        let pages = bytes.checked_div(page_size).unwrap_or(0);
        Self { shards: Default::default(), most: pages.wrapping_div(SHARDS).max(2) }
    }

    fn shard(&self, number: u64) -> Option<&Mutex<Shard>> {
        // Neighbours go to different shards.
        usize::try_from(number % 16).ok().and_then(|shard| self.shards.get(shard))
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<[u8]>> {
        let mut shard = self.shard(number)?.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.pages.get_mut(&number)?;
        slot.used = true;
        Some(Arc::clone(&slot.page))
    }

    /// Memory of `bytes` for the page of that number: zeros.
    pub(crate) fn room(&self, number: u64, bytes: usize) -> Arc<[u8]> {
        let shard = self.shard(number).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        let spare = shard.and_then(|mut shard| shard.spare.take());
        if let Some(mut page) = spare
            && let Some(own) = Arc::get_mut(&mut page).filter(|own| own.len() == bytes)
        {
            own.fill(0);
            return page;
        }
        std::iter::repeat_n(0, bytes).collect()
    }

    pub(crate) fn insert(&self, number: u64, page: Arc<[u8]>) {
        let Some(shard) = self.shard(number) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.pages.insert(number, Slot { page, used: false }).is_none() {
            shard.hand.push_back(number);
        }
        while shard.hand.len() > self.most {
            let Some(oldest) = shard.hand.pop_front() else { break };
            match shard.pages.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    shard.hand.push_back(oldest);
                }
                _ => shard.spare = shard.pages.remove(&oldest).map(|slot| slot.page),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_what_is_used_stays() {
        let cache = PageCache::new(64 * 4096, 4096);
        for number in 0..10_000u64 {
            cache.insert(number, vec![number as u8; 4096].into());
            cache.insert(16, vec![16; 4096].into());
            assert!(cache.get(16).is_some(), "after {number}");
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().pages.len()).sum();
        assert!(held <= 64, "{held}");
        assert_eq!(cache.get(9_999).unwrap()[0], 9_999u64 as u8);
        assert_eq!(cache.room(9_999, 4096)[..], [0; 4096], "memory that was used before is cleared");
        assert!(cache.get(0).is_none());
    }

    #[test]
    fn a_page_that_is_still_read_is_not_written_over() {
        let cache = PageCache::new(0, 4096);
        let read: Vec<Arc<[u8]>> = (0..9_u64)
            .map(|number| {
                let mut page = cache.room(number * 16, 4096);
                Arc::get_mut(&mut page).unwrap().fill(number as u8);
                cache.insert(number * 16, Arc::clone(&page));
                page
            })
            .collect();
        assert!(read.iter().zip(0_u8..).all(|(page, number)| page.iter().all(|b| *b == number)));
    }
}
