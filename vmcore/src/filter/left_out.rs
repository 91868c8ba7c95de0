//! Pages that the dumped kernel itself uses, and that a dump left out all the same: whoever wrote it did not know this kernel's marks.
//! A makedumpfile that is older than the kernel does so, without a word (1.7.2 with 6.12, 1.7.8 with 7.2: slab pages taken for
//! memory of processes).

use super::rules::Rules;
use super::sections::Sections;
use crate::addr::Pfn;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::mem::{PageState, PhysicalMemory};
use crate::sym::btf::Types;
use crate::xlat::{KernelMemory, Sparse};

/// Frames of one window; their `struct page`s are 16 KiB.
const WINDOW: u64 = 256;
/// Windows, spread evenly over all frames: what they hold takes some milliseconds to read, however large the machine is.
const WINDOWS: u64 = 64;

/// What a look at some of the pages that were left out found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Frames that were left out and whose `struct page` could be read.
    pub looked_at: u64,
    /// Those of them that are slab: no dump level leaves these out.
    pub slab: Vec<Pfn>,
}

/// Looks at some of the frames that were left out. Of a dump that has no page of zeros, slab of zeros can be among them (it was an
/// ELF once, which has no place for such): then none is told.
///
/// # Errors
/// Why the kernel's marks can't be read.
pub fn left_out(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    types: Option<&Types>,
) -> Result<LeftOut, String> {
    let dump = memory.physical();
    let first = dump.next_present(Pfn(0)).ok_or("no page is there")?;
    let (rules, sections) = (Rules::new(info, types)?, Sections::find(memory, info, first.0)?);
    let size = sections.page_struct();
    let end = dump.end_pfn().0;
    // Whole windows, so that a slab that begins in one ends in it.
    let step =
        end.checked_div(WINDOWS).unwrap_or(0).checked_next_multiple_of(WINDOW).unwrap_or(WINDOW).max(WINDOW);
    let (mut found, mut sparse) = (LeftOut::default(), Sparse::default());
    for number in 0..WINDOWS {
        let start = step.saturating_mul(number);
        let until = start.saturating_add(WINDOW).min(end).min(sections.end_of(start));
        let excluded: Vec<bool> =
            (start..until).map(|pfn| dump.state(Pfn(pfn)) == PageState::Excluded).collect();
        let Some(at) = sections.page(memory, start).filter(|_| excluded.contains(&true)) else { continue };
        let bytes = until.saturating_sub(start).saturating_mul(size);
        memory.read_sparse_into(at, usize::try_from(bytes).unwrap_or(0), &mut sparse);
        let step = usize::try_from(size).unwrap_or(usize::MAX);
        // Whether the last page that is no tail is slab: the tails behind it are what it is.
        let mut head = None;
        for ((pfn, excluded), number) in (start..until).zip(excluded).zip(0_usize..) {
            let from = number.saturating_mul(step);
            let range = from..from.saturating_add(step);
            let page = sparse.bytes.get(range.clone()).filter(|_| sparse.why_missing(&range).is_none());
            let tail = page.and_then(|page| rules.is_tail(page));
            if tail != Some(true) {
                head = page.map(|page| rules.is_slab(page));
            }
            let (Some(page), true) = (page, excluded) else { continue };
            found.looked_at = found.looked_at.saturating_add(1);
            if head == Some(true) && !rules.is_poisoned(page) {
                found.slab.push(Pfn(pfn));
            }
        }
    }
    if !found.slab.is_empty() && !has_zeros(dump, step) {
        found.slab.clear();
    }
    Ok(found)
}

/// True where one of the pages in the windows is full of zeros.
fn has_zeros(dump: &dyn PhysicalMemory, step: u64) -> bool {
    let mut page = vec![0; usize::try_from(dump.page_size()).unwrap_or(0)];
    let mut windows = (0..WINDOWS).map(|number| step.saturating_mul(number));
    windows.any(|start| {
        (start..start.saturating_add(WINDOW)).map(Pfn).any(|pfn| {
            let at = pfn.start(dump.page_size()).filter(|_| dump.state(pfn) == PageState::Present);
            at.is_some_and(|at| dump.read(at, &mut page).is_ok()) && page.iter().all(|byte| *byte == 0)
        })
    })
}
