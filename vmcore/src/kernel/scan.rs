//! VMCOREINFO where the dump has no note of it: found in the kernel's memory.
//!
//! The kernel keeps the text at the start of a page of its own (`crash_save_vmcoreinfo_init`), and when it crashes it writes an ELF note of
//! it at the start of another. A machine that runs its capture kernel has the texts of two kernels, and a
//! reboot can leave an old one: so all are looked for, and ranked.

use rayon::prelude::*;

use super::address_space::agreement;
use super::hints::Hints;
use crate::addr::{KVirtAddr, Pfn, PhysAddr};
use crate::error::MemError;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::mem::{PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::xlat::KernelMemory;
use crate::xlat::x86_64::{KERNEL_IMAGE_BYTES, START_KERNEL_MAP};

/// With what the text begins: `VMCOREINFO_OSRELEASE` is the first line of all kernels.
const FIRST: &[u8] = b"OSRELEASE=";
/// Where the text begins in an ELF note: 12 bytes of header and `VMCOREINFO` padded to 12.
const IN_NOTE: usize = 24;
/// Bytes that are read of each page: enough for both forms.
const HEAD: usize = IN_NOTE + FIRST.len();
/// Frames that one thread takes at a time.
const STEP: u64 = 4096;
/// Parts of [`STEP`] frames that are looked at: 16 TiB of RAM.
const MAX_PARTS: usize = 1 << 20;
/// Places that are looked at: more than these are text of something else.
const MAX_PLACES: usize = 256;

/// One text that may be the kernel's.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its first byte.
    pub paddr: PhysAddr,
    /// The text, parsed.
    pub info: Vmcoreinfo,
    /// Whether `init_uts_ns` is where the text says, and names the same release; `None` where that can't be seen.
    pub agrees_with_memory: Option<bool>,
    /// Whether a CPU's page tables map the kernel's text where this text says; `None` where there is no CR3 to ask.
    pub agrees_with_cr3: Option<bool>,
}

/// What a scan brings.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// All candidates, the best first.
    pub candidates: Vec<Candidate>,
    /// Why the first is the best: one sentence.
    pub why: String,
    /// Frames whose first bytes were looked at; not those that are known to be zeros.
    pub scanned: u64,
    /// Frames that could not be read.
    pub unreadable: u64,
    /// True where the caller stopped it, so that candidates can be missing.
    pub cancelled: bool,
}

impl Candidate {
    /// Better is greater.
    fn rank(&self) -> (bool, bool, bool, bool) {
        (
            self.agrees_with_memory == Some(true),
            self.info.crash_time().is_some(),
            self.agrees_with_cr3 == Some(true),
            self.agrees_with_memory.is_none(),
        )
    }

    fn why(&self) -> String {
        let memory = match self.agrees_with_memory {
            Some(true) => "init_uts_ns agrees with it",
            Some(false) => "init_uts_ns contradicts it",
            None => "init_uts_ns is not in the dump",
        };
        let crash =
            if self.info.crash_time().is_some() { "it has a CRASHTIME" } else { "it has no CRASHTIME" };
        let cr3 = match self.agrees_with_cr3 {
            Some(true) => ", the CPUs' page tables agree with it",
            Some(false) => ", the CPUs' page tables contradict it",
            None => "",
        };
        format!("{memory}, {crash}{cr3}")
    }
}

/// Looks for VMCOREINFO in physical memory.
///
/// With a `KernelMemory` whose page tables are known it first follows the pointers in the kernel's static data, which costs
/// some thousand reads. Without one, or where that finds nothing, it looks at the first bytes of each frame that is present.
pub fn find_vmcoreinfo(
    mem: &dyn PhysicalMemory,
    memory: Option<&KernelMemory<'_>>,
    hints: &Hints<'_>,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Scan {
    let mut scan = Scan::default();
    if let Some(memory) = memory {
        let places = by_pointers(memory, cancel);
        judge(mem, hints, places, &mut scan);
    }
    // A contradiction means that another text must be somewhere.
    if scan.candidates.iter().all(|c| c.agrees_with_memory == Some(false)) {
        let places = by_frames(mem, cancel, progress, &mut scan);
        judge(mem, hints, places, &mut scan);
    }
    if scan.scanned == 0 {
        scan.why.insert_str(0, "by a pointer in the kernel's data, ");
    }
    scan.cancelled = cancel.is_cancelled();
    scan
}

/// The texts that a kernel's own pointers lead to, the best first.
pub(super) fn texts_of(
    mem: &dyn PhysicalMemory,
    memory: &KernelMemory<'_>,
    hints: &Hints<'_>,
    cancel: &Cancel,
) -> Vec<Candidate> {
    let mut scan = Scan::default();
    judge(mem, hints, by_pointers(memory, cancel), &mut scan);
    scan.candidates
}

/// Parses and ranks the texts at these places. The same text found twice (the crash-time copy) counts once.
fn judge(mem: &dyn PhysicalMemory, hints: &Hints<'_>, places: Vec<PhysAddr>, scan: &mut Scan) {
    for paddr in places {
        let Some(info) = candidate_text(mem, paddr) else { continue };
        let same = |c: &Candidate| c.paddr == paddr || c.info.entries() == info.entries();
        if scan.candidates.iter().any(same) {
            continue;
        }
        let base = info.number_u64("phys_base");
        let agrees_with_memory = base.and_then(|base| agreement(mem, &info, base));
        let agrees_with_cr3 = base.and_then(|base| super::address_space::cpus_agree(mem, hints, base));
        scan.candidates.push(Candidate { paddr, info, agrees_with_memory, agrees_with_cr3 });
    }
    scan.candidates.sort_by(|a, b| b.rank().cmp(&a.rank()).then(a.paddr.cmp(&b.paddr)));
    if let Some(best) = scan.candidates.first() {
        let others = scan.candidates.len().saturating_sub(1);
        let among = if others == 0 {
            "it is the only one".to_owned()
        } else {
            format!("it is the best of {}", others.saturating_add(1))
        };
        scan.why = format!("found at {}: {among}, {}", best.paddr, best.why());
    }
}

/// The text at a place, if it is one: other things begin with the same letters.
fn candidate_text(mem: &dyn PhysicalMemory, paddr: PhysAddr) -> Option<Vmcoreinfo> {
    let page_size = mem.page_size();
    let inside = paddr.page_offset(page_size)?;
    let mut text = vec![0; usize::try_from(page_size.checked_sub(inside)?).ok()?];
    mem.read(paddr, &mut text).ok()?;
    let info = Vmcoreinfo::parse(&text);
    let is_one = info.release().is_some()
        && info.page_size().is_some()
        && info.symbol("init_uts_ns").or(info.symbol("_stext")).is_some();
    is_one.then_some(info)
}

/// Where in the first bytes of a page a text begins.
fn begins(head: &[u8]) -> Option<u64> {
    if head.starts_with(FIRST) {
        return Some(0);
    }
    let note = head.get(IN_NOTE..)?.starts_with(FIRST);
    note.then(|| u64::try_from(IN_NOTE).unwrap_or_default())
}

/// All frames that are present, in parallel.
fn by_frames(
    mem: &dyn PhysicalMemory,
    cancel: &Cancel,
    progress: &dyn Progress,
    scan: &mut Scan,
) -> Vec<PhysAddr> {
    let page_size = mem.page_size();
    let end = mem.end_pfn().0;
    let parts = parts_with_frames(mem, cancel);
    let total = u64::try_from(parts.len()).ok().and_then(|count| count.checked_mul(STEP));
    progress.step("looking for VMCOREINFO", total);
    let each: Vec<(Vec<PhysAddr>, u64, u64)> = parts
        .into_par_iter()
        .map(|part| {
            let mut found = (Vec::new(), 0_u64, 0_u64);
            if cancel.is_cancelled() {
                return found;
            }
            let first = part.saturating_mul(STEP);
            let last = first.saturating_add(STEP).min(end);
            let mut head = [0; HEAD];
            let mut next = mem.next_written(Pfn(first));
            while let Some(pfn) = next.filter(|pfn| pfn.0 < last) {
                next = pfn.checked_add(1).and_then(|pfn| mem.next_written(pfn));
                if mem.state(pfn) != PageState::Present {
                    continue;
                }
                let Some(start) = pfn.start(page_size) else { break };
                match mem.read(start, &mut head) {
                    Ok(()) => found.1 = found.1.saturating_add(1),
                    Err(_) => found.2 = found.2.saturating_add(1),
                }
                if let Some(place) = begins(&head).and_then(|at| start.checked_add(at)) {
                    found.0.push(place);
                }
                head.fill(0);
            }
            progress.advance(STEP);
            found
        })
        .filter(|(places, scanned, unreadable)| !places.is_empty() || *scanned > 0 || *unreadable > 0)
        .collect();
    let mut places = Vec::new();
    for (found, scanned, unreadable) in each {
        scan.scanned = scan.scanned.saturating_add(scanned);
        scan.unreadable = scan.unreadable.saturating_add(unreadable);
        places.extend(found);
    }
    places.truncate(MAX_PLACES);
    places
}

/// The pieces of [`STEP`] frames in which any frame may hold the text. Not all pieces up to the last one: a header may claim
/// 2^52 bytes of memory and store a page of it.
fn parts_with_frames(mem: &dyn PhysicalMemory, cancel: &Cancel) -> Vec<u64> {
    let mut parts = Vec::new();
    let mut next = mem.next_written(Pfn(0));
    while let Some(pfn) = next
        && parts.len() < MAX_PARTS
        && !cancel.is_cancelled()
    {
        let part = pfn.0 >> STEP.trailing_zeros();
        parts.push(part);
        let behind = part.checked_add(1).and_then(|part| part.checked_mul(STEP));
        next = behind.and_then(|behind| mem.next_written(Pfn(behind)));
    }
    parts
}

/// The pages that pointers in the kernel's static data lead to: `vmcoreinfo_data` and `vmcoreinfo_note` are such pointers.
fn by_pointers(memory: &KernelMemory<'_>, cancel: &Cancel) -> Vec<PhysAddr> {
    const PIECE: u64 = 2 << 20;
    let mut places = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut offset = 0;
    while offset < KERNEL_IMAGE_BYTES && !cancel.is_cancelled() && places.len() < MAX_PLACES {
        let Some(at) = START_KERNEL_MAP.checked_add(offset) else { break };
        let mapped = match memory.translate(at) {
            Err(MemError::NotMapped { level, .. }) => level == "PTE",
            _ => true,
        };
        if mapped {
            let piece = memory.read_sparse(at, usize::try_from(PIECE).unwrap_or_default());
            for pointer in piece.bytes.chunks_exact(8).filter_map(|b| crate::xlat::le::u64_at(b, 0)) {
                let is_page = pointer.trailing_zeros() >= 12
                    && (0xff00_0000_0000_0000..START_KERNEL_MAP.0).contains(&pointer);
                if !is_page || !seen.insert(pointer) {
                    continue;
                }
                let mut head = [0; HEAD];
                if memory.read(KVirtAddr(pointer), &mut head).is_err() {
                    continue;
                }
                let place = begins(&head).and_then(|at| KVirtAddr(pointer).checked_add(at));
                if let Some(paddr) = place.and_then(|kaddr| memory.translate(kaddr).ok()).map(|m| m.paddr) {
                    places.push(paddr);
                }
            }
        }
        offset = offset.saturating_add(PIECE);
    }
    places
}
