//! The memory that `fixtures` builds, as a dump would give it.

use fixtures::machine::Built;
use fixtures::memory::Frame;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::kernel::hints::Hints;
use vmcore::kernel::{Kernel, Options};
use vmcore::mem::{PageState, PhysicalMemory};

pub(crate) struct Fixture(pub(crate) fixtures::memory::Memory);

impl PhysicalMemory for Fixture {
    fn page_size(&self) -> u64 {
        self.0.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        Pfn(self.0.max_mapnr())
    }

    fn state(&self, pfn: Pfn) -> PageState {
        match self.0.frame(pfn.0) {
            Frame::Hole => PageState::Hole,
            Frame::Excluded => PageState::Excluded,
            Frame::Lost => PageState::Lost,
            Frame::Zero | Frame::Bytes(_) => PageState::Present,
        }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let size = self.page_size();
        let mut at = paddr.0;
        let mut rest = buf;
        while !rest.is_empty() {
            let pfn = Pfn(at / size);
            let inside = usize::try_from(at % size).unwrap();
            let here = (usize::try_from(size).unwrap() - inside).min(rest.len());
            let (now, later) = rest.split_at_mut(here);
            match self.0.frame(pfn.0) {
                Frame::Hole => return Err(PageError::Hole { pfn }),
                Frame::Excluded => return Err(PageError::Excluded { pfn, level: 31 }),
                Frame::Lost => return Err(PageError::Lost { pfn, why: "the file ends before it".into() }),
                Frame::Zero => now.fill(0),
                Frame::Bytes(bytes) => now.copy_from_slice(&bytes[inside..inside + here]),
            }
            rest = later;
            at += u64::try_from(here).unwrap();
        }
        Ok(())
    }
}

/// The hints of a dump with a VMCOREINFO note.
pub(crate) fn noted(built: &Built) -> Hints<'_> {
    Hints {
        machine: Some("x86_64".into()),
        vmcoreinfo: Some(built.vmcoreinfo.as_bytes()),
        ..Hints::default()
    }
}

pub(crate) fn open<'m>(memory: &'m Fixture, hints: &Hints<'_>) -> Kernel<'m> {
    Kernel::open(memory, hints, Options::default())
}

/// The physical place of a symbol of the image.
pub(crate) fn place(built: &Built, symbol: &str) -> u64 {
    built.symbols[symbol].wrapping_sub(0xffff_ffff_8000_0000).wrapping_add(built.phys_base)
}

/// VMCOREINFO without some of its lines.
pub(crate) fn without(built: &Built, dropped: impl Fn(&str) -> bool) -> String {
    let lines: Vec<&str> = built.vmcoreinfo.lines().filter(|line| !dropped(line)).collect();
    lines.join("\n") + "\n"
}
