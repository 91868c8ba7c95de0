//! The proof: what must not be in a dump is looked for in all of its pages.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::text::{self, Pattern};
use super::{What, neighbours};
use crate::addr::Pfn;
use crate::kernel::reader::Reader;
use crate::mem::{Dump, PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::xlat::KernelMemory;

/// A sample has so many bytes at least, and at most, and so many different ones.
const LEAST: usize = 12;
const MOST: usize = 48;
const DIFFERENT: usize = 6;
/// Hits that are told; the others are counted.
const TOLD: usize = 100;
/// Reasons why borders could not be looked at that are told.
const REASONS: usize = 20;
/// Bytes of the kernel's image that are looked at at once, and of it at most.
const PIECE: u64 = 1 << 20;
const IMAGE: u64 = 1 << 30;

/// What must not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    bytes: Vec<u8>,
    /// The kind of what it is a sample of; `None` where somebody named it.
    pub sample_of: Option<What>,
}

impl Canary {
    /// A text that somebody named.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), sample_of: None }
    }

    pub(super) fn sample(what: What, bytes: Vec<u8>) -> Self {
        Self { bytes, sample_of: Some(what) }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where one was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit {
    /// Which: its place in the list.
    pub canary: usize,
    /// The frame in which it begins.
    pub pfn: u64,
    /// And where in it.
    pub offset: u64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The first hits, by frame.
    pub hits: Vec<Hit>,
    /// How many there are.
    pub count: u64,
    /// How many of them are in what the dump says beside its pages: names, notes, texts. They have no frame, and are not in `hits`.
    pub in_headers: u64,
    /// Pages that were looked at.
    pub pages: u64,
    /// Pages that are in the file and can't be read: what they hold is not known.
    pub unreadable: u64,
    /// Borders of pages that follow each other in virtual memory only that were looked at, some more than once.
    pub borders: u64,
    /// Why others could not be, the first of the reasons.
    pub borders_lost: Vec<String>,
    /// It was interrupted, or what is looked for is too much: nothing is proven.
    pub unproven: Option<String>,
}

/// Looks for all of these in every page of a dump, and across the border of pages that follow each other in physical or virtual
/// memory.
#[must_use]
pub fn search(dump: &Dump, canaries: &[Canary], watch: (&Cancel, &dyn Progress)) -> Found {
    let texts: Vec<&[u8]> = canaries.iter().map(Canary::bytes).filter(|bytes| !bytes.is_empty()).collect();
    if texts.is_empty() {
        return Found::default();
    }
    let Some(any) = Pattern::any_of(&texts) else {
        return Found { unproven: Some("there are too many texts to look for".into()), ..Found::default() };
    };
    // What is known at once may be one frame only: a text that crosses to the next is in a run of both.
    let mut frames: Vec<Range<u64>> = Vec::new();
    let mut next = dump.next_present(Pfn(0));
    while let Some(pfn) = next {
        let (state, end) = dump.states(pfn);
        match frames.last_mut() {
            // What another part of a set has, or was cut off, is not in this file.
            _ if state != PageState::Present => {}
            Some(run) if run.end == pfn.0 => run.end = end.0,
            _ => frames.push(pfn.0..end.0),
        }
        next = dump.next_present(end);
    }
    let beside = headers(dump);
    let in_headers = beside.iter().map(|bytes| any.hits(bytes).count()).sum::<usize>();
    let in_headers = u64::try_from(in_headers).unwrap_or(u64::MAX);
    let patterns = [any];
    let swept = text::sweep(dump, frames.into_iter(), &patterns, watch);
    let across = neighbours::sweep_all(dump, &patterns, watch);
    let numbers: HashMap<&[u8], usize> =
        canaries.iter().enumerate().map(|(n, canary)| (canary.bytes(), n)).collect();
    let size = dump.page_size();
    let mut found = Found {
        pages: swept.pages,
        unreadable: swept.unreadable,
        in_headers,
        count: in_headers,
        borders: across.looked,
        borders_lost: across.lost.into_iter().take(REASONS).collect(),
        ..Found::default()
    };
    // Where each begins, and the bytes: of one that goes across a border, in two pieces.
    let here = swept.hits.into_iter().flatten().map(|(at, len)| [(at, len), (at, 0)]);
    for pieces in here.chain(across.hits.iter().map(|hit| hit.pieces)) {
        found.count = found.count.saturating_add(1);
        if found.hits.len() >= TOLD {
            continue;
        }
        let mut text = Vec::new();
        for (at, len) in pieces {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            if dump.read(at, &mut bytes).is_ok() {
                text.append(&mut bytes);
            }
        }
        let [(at, _), _] = pieces;
        let (Some(pfn), Some(offset)) = (at.pfn(size), at.page_offset(size)) else { continue };
        let canary = numbers.get(text.as_slice()).copied().unwrap_or(0);
        found.hits.push(Hit { canary, pfn: pfn.0, offset });
    }
    let more = swept.more.iter().fold(across.more, |sum, more| sum.saturating_add(*more));
    found.count = found.count.saturating_add(more);
    if watch.0.is_cancelled() {
        found.unproven = Some("it was interrupted".into());
    }
    found
}

/// What a dump says beside its pages.
fn headers(dump: &Dump) -> Vec<Vec<u8>> {
    let facts = dump.facts();
    let names = facts.utsname.iter().flat_map(|names| {
        [&names.sysname, &names.nodename, &names.release, &names.version, &names.machine, &names.domainname]
    });
    let mut all: Vec<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
    all.extend(dump.notes().iter().flat_map(|note| [note.name.as_bytes().to_vec(), note.desc.clone()]));
    all.extend(dump.vmcoreinfo_raw().map(<[u8]>::to_vec));
    all.extend(facts.erase_info.as_ref().map(|text| text.as_bytes().to_vec()));
    all
}

/// The longest text of these bytes that is like no other; `None` where there is none.
pub(super) fn distinctive(bytes: &[u8]) -> Option<&[u8]> {
    let longest =
        bytes.split(|byte| *byte == 0).filter(|text| !is_path(text)).max_by_key(|text| text.len())?;
    let text = longest.get(..MOST.min(longest.len()))?;
    let different: BTreeSet<u8> = text.iter().copied().collect();
    (text.len() >= LEAST && different.len() >= DIFFERENT).then_some(text)
}

/// True for the name of a file: programs are called by theirs, and the kernel knows it in many places.
fn is_path(text: &[u8]) -> bool {
    text.starts_with(b"/") && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte))
}

/// Those of the samples that are no secret: the kernel's own text and constants have them, or its command line.
pub(super) fn public(source: &Reader<'_, '_>, samples: &[Canary]) -> BTreeSet<Vec<u8>> {
    let mut known = BTreeSet::new();
    let texts: Vec<&[u8]> = samples.iter().map(Canary::bytes).collect();
    if texts.is_empty() {
        return known;
    }
    let Some(any) = Pattern::any_of(&texts) else { return known };
    let symbols = source.symbols;
    if let Some((from, to)) = symbols.address("_text").zip(symbols.address("__end_rodata")) {
        let mut at = from;
        let end = to.0.min(from.0.saturating_add(IMAGE));
        while at.0 < end {
            // A little of the next piece, so that none is cut.
            let len = PIECE.saturating_add(64).min(end.saturating_sub(at.0));
            let bytes = image(source.memory, at, len);
            known.extend(any.hits(&bytes).filter_map(|hit| bytes.get(hit)).map(<[u8]>::to_vec));
            let Some(next) = at.checked_add(PIECE) else { break };
            at = next;
        }
    }
    if let Ok(Some(line)) = source.variables().text("saved_command_line", 32 << 10) {
        known.extend(
            texts
                .iter()
                .filter(|text| line.as_bytes().windows(text.len()).any(|at| at == **text))
                .map(|text| text.to_vec()),
        );
    }
    known
}

fn image(memory: &KernelMemory<'_>, at: crate::addr::KVirtAddr, len: u64) -> Vec<u8> {
    memory.read_sparse(at, usize::try_from(len).unwrap_or(0)).bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_long_and_varied() {
        assert_eq!(distinctive(b"\0\0SECRET_TOKEN=abc\0short\0"), Some(&b"SECRET_TOKEN=abc"[..]));
        assert_eq!(distinctive(b"PATH=/bin\0"), None);
        assert_eq!(distinctive(&[b'X'; 100]), None);
        assert_eq!(distinctive(b"/usr/bin/some-program\0"), None, "a file's name is no secret");
        assert_eq!(distinctive(b""), None);
    }
}
