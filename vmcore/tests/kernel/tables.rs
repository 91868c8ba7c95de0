//! Entries of page tables that a healthy small machine does not have.

use vmcore::addr::{KVirtAddr, PhysAddr};
use vmcore::error::{MemError, PageError};
use vmcore::xlat::x86_64::{Levels, PageTables};
use vmcore::xlat::{KernelMemory, Translation};

use crate::memory::Fixture;

const PRESENT: u64 = 0x63;
const HUGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NX: u64 = 1 << 63;

/// 4 MiB of RAM with tables at 0x1000 (PGD), 0x2000 (PUD), 0x3000 (PMD), 0x4000 (PTE), which map the lowest addresses of the kernel's half.
struct Tables(fixtures::memory::Memory);

impl Tables {
    fn new() -> Self {
        let mut memory = fixtures::memory::Memory::new(4096).ram(0..0x400);
        for (table, next) in [(0x1000 + 256 * 8, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000)] {
            memory.write_le(table, next | PRESENT, 8);
        }
        memory.write_le(0x4000, 0x5000 | PRESENT, 8);
        Self(memory)
    }

    fn with(mut self, at: u64, entry: u64) -> Self {
        self.0.write_le(at, entry, 8);
        self
    }

    fn translate(self, offset: u64, encryption_mask: u64) -> Result<u64, String> {
        let tables = PageTables { root: PhysAddr(0x1000), levels: Levels::Four, encryption_mask };
        let translation = Translation { tables: Some(tables), ..Translation::default() };
        let memory = Fixture(self.0);
        let kernel = KernelMemory::new(&memory, translation);
        match kernel.translate(KVirtAddr(0xffff_8000_0000_0000 + offset)) {
            Ok(mapping) => Ok(mapping.paddr.0),
            Err(MemError::NotMapped { level, .. }) => Err(level.to_owned()),
            Err(other) => Err(other.to_string()),
        }
    }
}

#[test]
fn bits_above_the_address_do_not_belong_to_it() {
    // NX, a protection key, and the bits that software may use.
    assert_eq!(
        Tables::new().with(0x4000, 0x5000 | PRESENT | NX | 0x7ff << 52).translate(0x123, 0),
        Ok(0x5123)
    );
    assert_eq!(Tables::new().with(0x1000 + 256 * 8, 0x2000 | PRESENT | NX).translate(0, 0), Ok(0x5000));
}

#[test]
fn the_pat_bit_of_a_pte_does_not_make_it_huge() {
    assert_eq!(Tables::new().with(0x4000, 0x5000 | PRESENT | HUGE).translate(0xfff, 0), Ok(0x5fff));
}

#[test]
fn huge_pages_have_their_pat_bit_elsewhere() {
    let pat = 1 << 12;
    let two_mib = Tables::new().with(0x3000, 0x20_0000 | PRESENT | HUGE | GLOBAL | pat);
    assert_eq!(two_mib.translate(0x12_3456, 0), Ok(0x32_3456));
    let one_gib = Tables::new().with(0x2000, PRESENT | HUGE | pat | NX);
    assert_eq!(one_gib.translate(0x2345_6789, 0), Ok(0x2345_6789));
}

#[test]
fn a_huge_page_that_is_not_aligned_is_refused_as_the_processor_refuses_it() {
    assert_eq!(
        Tables::new().with(0x3000, 0x20_4000 | PRESENT | HUGE).translate(0, 0),
        Err("PMD with reserved bits set".into())
    );
    assert_eq!(
        Tables::new().with(0x2000, 0x20_0000 | PRESENT | HUGE).translate(0, 0),
        Err("PUD with reserved bits set".into())
    );
    assert_eq!(
        Tables::new().with(0x1000 + 256 * 8, PRESENT | HUGE).translate(0, 0),
        Err("PGD with reserved bits set".into())
    );
}

#[test]
fn the_encryption_bit_is_taken_off_at_every_level() {
    let mask = 1 << 47;
    let tables = Tables::new()
        .with(0x1000 + 256 * 8, 0x2000 | PRESENT | mask)
        .with(0x2000, 0x3000 | PRESENT | mask)
        .with(0x3000, 0x4000 | PRESENT | mask)
        .with(0x4000, 0x5000 | PRESENT | mask);
    assert_eq!(tables.translate(8, mask), Ok(0x5008));
    let huge = Tables::new().with(0x3000, 0x20_0000 | PRESENT | HUGE | mask);
    assert_eq!(huge.translate(8, mask), Ok(0x20_0008));
}

#[test]
fn a_protected_page_is_there_although_the_processor_may_not_use_it() {
    // PROTNONE as kernels before the L1TF mitigation store it, and inverted as those after it do.
    assert_eq!(Tables::new().with(0x4000, 0x5000 | GLOBAL).translate(1, 0), Ok(0x5001));
    let inverted = !0x5000 & 0x000f_ffff_ffff_f000;
    assert_eq!(Tables::new().with(0x4000, inverted | GLOBAL).translate(1, 0), Ok(0x5001));
    let huge = !0x20_0000 & 0x000f_ffff_ffe0_0000;
    assert_eq!(Tables::new().with(0x3000, huge | GLOBAL | HUGE).translate(1, 0), Ok(0x20_0001));
}

#[test]
fn a_swapped_page_is_not_mapped() {
    assert_eq!(Tables::new().with(0x4000, 0x5000).translate(0, 0), Err("PTE".into()));
    assert_eq!(Tables::new().with(0x3000, 0).translate(0, 0), Err("PMD".into()));
}

#[test]
fn a_table_outside_of_ram_is_told_apart_from_nothing_mapped() {
    let err = Tables::new().with(0x3000, 0x7000_0000 | PRESENT).translate(0, 0).unwrap_err();
    assert_eq!(
        err,
        "kaddr 0xffff800000000000 can't be translated, its PTE is unreadable: pfn 0x70000 is not RAM of the dumped machine"
    );
}

#[test]
fn a_text_ends_at_its_nul_or_at_the_limit_and_not_in_a_page_that_is_not_there() {
    let mut memory = Tables::new().0;
    memory.write(0x5ff8, b"hello\0");
    memory.write(0x5ffe, b"xy");
    let memory = Fixture(memory);
    let tables = PageTables { root: PhysAddr(0x1000), levels: Levels::Four, encryption_mask: 0 };
    let kernel = KernelMemory::new(&memory, Translation { tables: Some(tables), ..Translation::default() });
    let at = |offset: u64| KVirtAddr(0xffff_8000_0000_0000 + offset);
    assert_eq!(kernel.read_cstr(at(0xff8), 64).unwrap(), b"hello");
    assert_eq!(kernel.read_cstr(at(0xff8), 3).unwrap(), b"hel");
    assert!(matches!(kernel.read_cstr(at(0xffe), 64), Err(MemError::NotMapped { .. })));
    assert_eq!(kernel.read_u16(at(0xffe)).unwrap(), u16::from_le_bytes(*b"xy"));
    assert!(matches!(kernel.read_u32(at(0xffe)), Err(MemError::NotMapped { .. })));
}

#[test]
fn a_read_past_the_last_address_is_refused_and_one_up_to_it_is_not() {
    let memory = Fixture(Tables::new().0);
    let kernel = KernelMemory::new(
        &memory,
        Translation { text: Some(Translation::x86_64_text(0)), ..Translation::default() },
    );
    let mut buf = [0; 16];
    assert!(matches!(kernel.read(KVirtAddr(u64::MAX - 3), &mut buf), Err(MemError::OutOfRange { .. })));
    assert!(matches!(kernel.read(KVirtAddr(u64::MAX - 15), &mut buf), Err(MemError::NotMapped { .. })));
    let err = kernel.read(KVirtAddr(0xffff_ffff_8700_0000), &mut buf).unwrap_err();
    assert!(matches!(err, MemError::Page { source: PageError::Hole { .. }, .. }), "{err}");
}

#[test]
fn what_can_be_read_of_a_range_is_given_with_the_rest_named() {
    let mut memory = Tables::new().0;
    memory.write_le(0x4008, 0x6000 | PRESENT, 8);
    memory.write_le(0x4010, 0x7000 | PRESENT, 8);
    memory.exclude(6..7);
    memory.write(0x7000, b"after");
    let memory = Fixture(memory);
    let tables = PageTables { root: PhysAddr(0x1000), levels: Levels::Four, encryption_mask: 0 };
    let kernel = KernelMemory::new(&memory, Translation { tables: Some(tables), ..Translation::default() });
    let sparse = kernel.read_sparse(KVirtAddr(0xffff_8000_0000_0ff0), 0x1015);
    assert_eq!(sparse.missing.len(), 1);
    assert_eq!(sparse.missing[0].range, 0x10..0x1010);
    assert!(sparse.bytes.ends_with(b"after"));
    assert!(sparse.why_missing(&(0..0x10)).is_none());
    assert!(sparse.why_missing(&(0..0x11)).is_some());
    assert_eq!(sparse.u64_at(0x0c), None);
}
