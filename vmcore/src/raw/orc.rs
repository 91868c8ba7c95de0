//! ORC: one entry of the kernel's own table of how to find a function's caller.
//!
//! The layout is that of `arch/x86/include/asm/orc_types.h`; what the bits of `flags` mean changed three times, see
//! [`crate::unwind::orc`].

use zerocopy::byteorder::{I16, LE, U16};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `struct orc_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct OrcEntry {
    /// Added to the register that `flags` names, to find the caller's stack pointer (or saved registers).
    pub sp_offset: I16<LE>,
    /// Where the caller's `rbp` was saved, counted from the register that `flags` names.
    pub bp_offset: I16<LE>,
    /// Registers and type, as bit fields from the lowest bit on.
    pub flags: U16<LE>,
}
const _: () = assert!(size_of::<OrcEntry>() == 6);
