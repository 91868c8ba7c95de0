//! What a capture kernel is told of the crashed one: the ELF header that kexec leaves in memory.

use vmcore::PhysicalMemory;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::kernel::two_kernels::{Moved, handed_over};
use vmcore::limits::Limits;
use vmcore::mem::PageState;

const HEADER: usize = 0x1000;
const INFO: usize = 0x3000;

struct Ram(Vec<u8>);

impl PhysicalMemory for Ram {
    fn page_size(&self) -> u64 {
        4096
    }

    fn end_pfn(&self) -> Pfn {
        Pfn((self.0.len() / 4096) as u64)
    }

    fn state(&self, pfn: Pfn) -> PageState {
        if pfn < self.end_pfn() { PageState::Present } else { PageState::Hole }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let start = usize::try_from(paddr.0).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let bytes = self.0.get(start..end).ok_or(PageError::Hole { pfn: Pfn(paddr.0 >> 12) })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// Type, file offset, physical address, bytes.
fn ram(segments: &[(u32, u64, u64, u64)]) -> Ram {
    let mut bytes = vec![0_u8; 0x8000];
    let mut put = |at: usize, text: &[u8]| bytes[at..at + text.len()].copy_from_slice(text);
    put(HEADER, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(HEADER + 32, &64_u64.to_le_bytes());
    put(HEADER + 54, &56_u16.to_le_bytes());
    put(HEADER + 56, &u16::try_from(segments.len()).unwrap().to_le_bytes());
    for (number, (kind, offset, paddr, size)) in segments.iter().enumerate() {
        let at = HEADER + 64 + number * 56;
        put(at, &kind.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 24, &paddr.to_le_bytes());
        put(at + 32, &size.to_le_bytes());
        put(at + 40, &size.to_le_bytes());
    }
    let note =
        fixtures::note::Note::vmcoreinfo("OSRELEASE=6.1.0-dead\nPAGESIZE=4096\nCRASHTIME=1700000000\n");
    put(INFO, &note.encode(fixtures::bytes::Endian::Little));
    Ram(bytes)
}

fn read(ram: &Ram) -> Option<vmcore::kernel::two_kernels::HandedOver> {
    handed_over(ram, PhysAddr(HEADER as u64), &Limits::default())
}

#[test]
fn the_header_tells_of_the_crashed_kernel_and_of_what_was_moved() {
    let segments =
        [(4, INFO as u64, 0, 0x400), (1, 0x7000, 0x1000, 0x9_f000), (1, 0x10_0000, 0x10_0000, 0x4f0_0000)];
    let found = read(&ram(&segments)).unwrap();
    let (paddr, info) = found.vmcoreinfo.unwrap();
    assert_eq!(
        (paddr.0, info.release(), info.crash_time()),
        (INFO as u64, Some("6.1.0-dead"), Some(1_700_000_000))
    );
    assert_eq!(found.memory, [0x1000..0xa_0000, 0x10_0000..0x500_0000]);
    assert_eq!(found.moved, [Moved { from: 0x1000..0xa_0000, kept_at: PhysAddr(0x7000) }]);
}

#[test]
fn what_is_no_header_tells_nothing() {
    let mut other = ram(&[]);
    other.0[HEADER + 1] = b'X';
    assert!(read(&other).is_none());
    let mut entries = ram(&[]);
    entries.0[HEADER + 54] = 32;
    assert!(read(&entries).is_none());
    assert!(handed_over(&ram(&[]), PhysAddr(u64::MAX - 8), &Limits::default()).is_none());
}

#[test]
fn sizes_that_cannot_be_are_left_out() {
    let huge = [(4, INFO as u64, 0, u64::MAX), (1, 0, u64::MAX - 1, 0x1000), (4, INFO as u64, 0, 0x400)];
    let found = read(&ram(&huge)).unwrap();
    assert!(found.memory.is_empty());
    assert!(found.vmcoreinfo.is_some(), "the segments behind them are read");
    // More segments than the memory has: it ends where that ends.
    let mut many = ram(&[]);
    many.0[HEADER + 56..HEADER + 58].copy_from_slice(&[0xff, 0xff]);
    assert!(read(&many).unwrap().vmcoreinfo.is_none());
}
