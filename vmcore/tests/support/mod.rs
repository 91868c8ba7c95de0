//! What the tests of dump files share: bytes as a source, a dump's log as text, and the promises that hold for every
//! file, however damaged.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test binary uses its own share of this"
)]

use std::io;
use std::sync::Arc;

use fixtures::memory::{Frame, Memory};
use vmcore::addr::{KVirtAddr, Pfn, PhysAddr};
use vmcore::error::{OpenError, PageError};
use vmcore::kernel::Kernel;
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::printk::render::Style;
use vmcore::limits::Limits;
use vmcore::source::ReadAt;
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

/// Bytes in memory as a source.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let count = buf.len().min(self.0.len() - start);
        buf[..count].copy_from_slice(&self.0[start..start + count]);
        Ok(count)
    }
}

/// Opens bytes as a file called `dump`.
pub(crate) fn open(bytes: Vec<u8>) -> Result<Dump, OpenError> {
    Dump::from_source(Arc::new(Bytes(bytes)), "dump", &OpenOptions::default())
}

/// What a dump's container says of its kernel.
pub(crate) fn hints(dump: &Dump) -> Hints<'_> {
    Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        control: dump.qemu_cpus().iter().map(|cpu| Control { cr3: cpu.cr3, cr4: cpu.cr4 }).collect(),
        phys_base: dump.facts().phys_base,
        segments: dump
            .segments()
            .iter()
            .map(|s| (KVirtAddr(s.vaddr), PhysAddr(s.paddr), s.mem_size))
            .collect(),
    }
}

/// The kernel in a dump.
pub(crate) fn kernel(dump: &Dump) -> Kernel<'_> {
    Kernel::open(dump, &hints(dump), vmcore::kernel::Options::default())
}

/// The log as `dmesg` shows it, or why there is none; whether it is whole.
pub(crate) fn log(dump: &Dump) -> Result<(String, bool), String> {
    let kernel = kernel(dump);
    let log = kernel.log(&Limits::default()).map_err(|why| why.to_string())?;
    let mut text = Vec::new();
    log.write_to(&mut text, Style::default()).map_err(|why| why.to_string())?;
    Ok((String::from_utf8(text).map_err(|why| why.to_string())?, log.is_complete()))
}

/// Keeps the whole test process below `mebibytes` of address space: an allocation that follows a header's word ends it.
pub(crate) fn bound_memory(mebibytes: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(mebibytes << 20), maximum: old.maximum }).unwrap();
}

/// A sentence that a person reads: one line, no trace of Rust's `{:?}`, no empty parts.
pub(crate) fn assert_readable(text: &str) {
    let junk = ["Some(", "None", "Err(", "Ok(", "\n", " { ", "::", "\\u{", "\0"];
    for sign in junk {
        assert!(!text.contains(sign), "debug junk «{}» in: {text}", sign.escape_debug());
    }
    assert!(text.len() > 8 && text.len() < 600, "too short or too long for a sentence: {text}");
}

/// What holds for every file: it opens, or one readable sentence and a hint say why not.
pub(crate) fn opened_or_explained(name: &str, bytes: Vec<u8>) -> Option<Dump> {
    match open(bytes) {
        Ok(dump) => {
            let completeness = dump.completeness();
            let parts = [completeness.present_pages, completeness.excluded_pages, completeness.lost_pages];
            let sum = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part));
            assert_eq!(sum, Some(completeness.announced_pages), "{name}: {completeness:?}");
            completeness.repairs.iter().for_each(|repair| assert_readable(repair));
            Some(dump)
        }
        Err(error) => {
            assert_readable(&error.to_string());
            assert_readable(&error.hint());
            None
        }
    }
}

/// Reads what there is of a dump, at most `limit` frames of it: nothing may panic, and each reason is a sentence.
pub(crate) fn exercise(dump: &Dump, limit: usize) {
    let mut page = vec![0; usize::try_from(dump.page_size()).unwrap()];
    let mut next = dump.next_present(Pfn(0));
    for _ in 0..limit {
        let Some(pfn) = next else { break };
        let state = dump.state(pfn);
        match dump.read_frame(pfn, &mut page) {
            Ok(_) => assert_eq!(state, PageState::Present, "{pfn} was read"),
            Err(why) => assert_readable(&why.to_string()),
        }
        next = pfn.checked_add(1).and_then(|pfn| dump.next_present(pfn));
    }
    for pfn in [Pfn(0), Pfn(u64::MAX), dump.end_pfn(), Pfn(u64::MAX >> 12)] {
        let _ = dump.state(pfn);
        let _ = dump.read_frame(pfn, &mut page);
    }
    let _ = dump.read(PhysAddr(u64::MAX - 4), &mut page);
    let kernel = kernel(dump);
    kernel.gaps().iter().for_each(|gap| assert_readable(&gap.why));
    if let Err(why) = kernel.log(&Limits::default()) {
        assert_readable(&why.to_string());
    }
    let _ = kernel.uts();
}

/// Whether every frame is what `memory` says: the bytes of those stored, the reason for those that are not.
pub(crate) fn assert_same_memory(name: &str, dump: &Dump, memory: &Memory) {
    let mut page = vec![0; usize::try_from(memory.page_size()).unwrap()];
    assert_eq!(dump.page_size(), memory.page_size(), "{name}");
    for pfn in 0..memory.max_mapnr() + 2 {
        let read = dump.read_frame(Pfn(pfn), &mut page);
        let state = dump.state(Pfn(pfn));
        match (memory.frame(pfn), read) {
            (Frame::Bytes(bytes), Ok(_)) => {
                assert!(bytes == page, "{name}: the bytes of frame {pfn:#x} differ");
            }
            (Frame::Zero, Ok(_)) => {
                assert!(page.iter().all(|byte| *byte == 0), "{name}: frame {pfn:#x} is not zero");
            }
            (Frame::Hole, Err(PageError::Hole { .. })) => assert_eq!(state, PageState::Hole),
            (Frame::Excluded, Err(PageError::Excluded { .. })) => assert_eq!(state, PageState::Excluded),
            (Frame::Lost, Err(PageError::Lost { .. })) => assert_eq!(state, PageState::Lost),
            (frame, read) => panic!("{name}: frame {pfn:#x} should be {frame:?}, and reads as {read:?}"),
        }
    }
}

/// Whether what a damaged dump still gives is right: frames that read have their true bytes, and those of `whole`
/// (frame numbers) do read.
pub(crate) fn assert_no_wrong_bytes(name: &str, dump: &Dump, memory: &Memory, whole: impl Fn(u64) -> bool) {
    let mut page = vec![0; usize::try_from(memory.page_size()).unwrap()];
    for (pfn, truth) in memory.stored() {
        match dump.read_frame(Pfn(pfn), &mut page) {
            Ok(_) => assert!(page == truth, "{name}: frame {pfn:#x} gives bytes that it never had"),
            Err(why) => assert!(!whole(pfn), "{name}: frame {pfn:#x} is undamaged, but {why}"),
        }
    }
}

/// Values that a hostile writer puts into a field of `width` bytes whose true value is `truth`.
pub(crate) fn hostile_values(truth: u64, width: u64) -> Vec<u64> {
    let max = if width >= 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
    let mut values =
        vec![0, 1, 2, 7, 0xfff, 0x1000, 0x1001, max, max - 1, max / 2, max / 2 + 1, max & !0xfff];
    values.extend([truth.wrapping_add(1) & max, truth.wrapping_sub(1) & max, truth.wrapping_mul(2) & max]);
    values.retain(|value| *value != truth && *value <= max);
    values.sort_unstable();
    values.dedup();
    values
}
