//! Notes what is erased, and keeps the account of it.

use std::ops::Range;
use std::sync::Arc;

use super::blanks::Blanks;
use super::search::{self, Canary};
use super::{Account, Plan, What};
use crate::addr::{KVirtAddr, PhysAddr};
use crate::filter::Selection;
use crate::kernel::reader::Reader;
use crate::kernel::slab;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::Cancel;

/// Sentences of one account that are kept; the others are counted.
const SENTENCES: usize = 20;
/// Samples of one kind.
const SAMPLES: usize = 64;
/// Bytes that are looked at for a sample.
const SAMPLE: u64 = 256;
/// No object of the kernel that is erased as one piece is larger.
const PIECE: u64 = 64 << 20;

/// The walk of one plan.
pub(super) struct Eraser<'a, 'm> {
    pub(super) source: Reader<'a, 'm>,
    pub(super) kept: &'a Selection,
    pub(super) dump: &'a Dump,
    pub(super) cancel: &'a Cancel,
    blanks: Blanks,
    pages: Selection,
    accounts: Vec<Account>,
    samples: Vec<Canary>,
    sampled: usize,
    /// False for what may be anybody's: left in freed objects.
    pub(super) sampling: bool,
}

impl<'a, 'm> Eraser<'a, 'm> {
    pub(super) fn new(
        source: Reader<'a, 'm>,
        kept: &'a Selection,
        dump: &'a Dump,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            source,
            kept,
            dump,
            cancel,
            blanks: Blanks::new(source.page_size),
            pages: Selection::default(),
            accounts: Vec::new(),
            samples: Vec::new(),
            sampled: 0,
            sampling: true,
        }
    }

    /// What follows is of this kind.
    pub(super) fn begin(&mut self, what: What) {
        self.close();
        self.accounts.push(Account {
            what,
            objects: 0,
            ranges: 0,
            bytes: 0,
            pages: 0,
            left_out: 0,
            absent: 0,
            not_scrubbed: Vec::new(),
            not_scrubbed_count: 0,
        });
    }

    fn close(&mut self) {
        let pages = std::mem::take(&mut self.pages).len();
        self.sampled = 0;
        self.note(|account| account.pages = account.pages.saturating_add(pages));
    }

    pub(super) fn note(&mut self, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.last_mut() {
            change(account);
        }
    }

    /// One object more was looked at.
    pub(super) fn object(&mut self) {
        self.note(|account| account.objects = account.objects.saturating_add(1));
    }

    /// Something that should be erased could not be reached.
    pub(super) fn trouble(&mut self, what: &str, why: &str) {
        self.note(|account| {
            account.not_scrubbed_count = account.not_scrubbed_count.saturating_add(1);
            if account.not_scrubbed.len() < SENTENCES {
                account.not_scrubbed.push(format!("{what}: {why}"));
            }
        });
    }

    /// The frames that are written.
    pub(super) fn frames(&self) -> impl Iterator<Item = Range<u64>> + use<'a> {
        self.kept.runs(0..self.dump.end_pfn().0)
    }

    /// Erases bytes by their physical address.
    pub(super) fn physical(&mut self, at: PhysAddr, len: u64) {
        if len > PIECE {
            self.trouble(&format!("memory at {at}"), &format!("{len} bytes are no object of the kernel"));
            return;
        }
        if len == 0 {
            return;
        }
        self.sample(at, len);
        self.note(|account| account.ranges = account.ranges.saturating_add(1));
        let (mut at, mut left) = (at, len);
        while left > 0 {
            let (Some(pfn), Some(inside)) =
                (at.pfn(self.source.page_size), at.page_offset(self.source.page_size))
            else {
                return;
            };
            let here = self.source.page_size.saturating_sub(inside).min(left).max(1);
            if self.kept.contains(pfn.0) {
                if self.blanks.add(at, here).is_err() {
                    self.trouble(&format!("{here} bytes at {at}"), "there are more pieces than are held");
                } else {
                    self.pages.insert(pfn.0);
                    self.note(|account| account.bytes = account.bytes.saturating_add(here));
                }
            } else {
                self.note(|account| account.absent = account.absent.saturating_add(here));
            }
            left = left.saturating_sub(here);
            let Some(next) = at.checked_add(here) else { return };
            at = next;
        }
    }

    /// Erases bytes by their address in the kernel.
    pub(super) fn erase(&mut self, at: KVirtAddr, len: u64) {
        if len > PIECE {
            self.trouble(&format!("memory at {at}"), &format!("{len} bytes are no object of the kernel"));
            return;
        }
        let (mut at, mut left) = (at, len);
        while left > 0 {
            match self.source.memory.translate(at) {
                Ok(mapping) => {
                    let here = mapping.run.min(left).max(1);
                    self.physical(mapping.paddr, here);
                    left = left.saturating_sub(here);
                    let Some(next) = at.checked_add(here) else { return };
                    at = next;
                }
                Err(why) => return self.trouble(&format!("{left} bytes at {at}"), &why.to_string()),
            }
        }
    }

    /// Erases bytes by the `struct page` of the first of their frames.
    pub(super) fn in_page(&mut self, page: KVirtAddr, offset: u64, len: u64) {
        let frame = match slab::frame_of(&self.source, page) {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.trouble(&format!("a page at {page}"), "that is no struct page"),
            Err(why) => return self.trouble(&format!("a page at {page}"), &why),
        };
        let at = frame.checked_mul(self.source.page_size).and_then(|at| at.checked_add(offset));
        match at {
            Some(at) => self.physical(PhysAddr(at), len),
            None => self.trouble(&format!("a page at {page}"), "it is past 2^64"),
        }
    }

    /// A member of an object, by its names, the newest first.
    pub(super) fn member(&self, at: KVirtAddr, of: &str, names: &[&str]) -> Result<u64, String> {
        self.source.member(at, of, names)
    }

    /// Where a member is in memory.
    pub(super) fn place(&self, at: KVirtAddr, of: &str, names: &[&str]) -> Result<KVirtAddr, String> {
        let slot = self.source.slot(of, names)?;
        at.checked_add(slot.offset()).ok_or_else(|| "it is past 2^64".into())
    }

    /// Keeps the beginning of what is erased, where it is long and varied enough that nothing else looks like it.
    fn sample(&mut self, at: PhysAddr, len: u64) {
        let Some(what) = self.accounts.last().map(|account| account.what) else { return };
        if !self.sampling
            || self.sampled >= SAMPLES
            || matches!(what, What::User | What::Strings | What::Names)
        {
            return;
        }
        let mut bytes = vec![0; usize::try_from(len.min(SAMPLE)).unwrap_or(0)];
        if self.dump.read(at, &mut bytes).is_err() {
            return;
        }
        let Some(text) = search::distinctive(&bytes) else { return };
        if self.samples.iter().all(|known| known.bytes() != text) {
            self.samples.push(Canary::sample(what, text.to_vec()));
            self.sampled = self.sampled.saturating_add(1);
        }
    }

    pub(super) fn finish(mut self) -> Plan {
        self.close();
        let public = search::public(&self.source, &self.samples);
        self.samples.retain(|sample| !public.contains(sample.bytes()));
        Plan { blanks: Arc::new(self.blanks), accounts: self.accounts, samples: self.samples }
    }
}
