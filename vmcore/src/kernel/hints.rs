//! What a dump's container says of the kernel in it, besides its memory.

use crate::addr::{KVirtAddr, PhysAddr};

/// The control registers of one CPU, from QEMU's CPU state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The page tables in use: the kernel's, or those of a process with the kernel's half in them.
    pub cr3: u64,
    /// Bit 12 (LA57) tells five levels.
    pub cr4: u64,
}

/// What a dump's container says. Every member may be empty: then the kernel's memory alone has to tell.
#[derive(Clone, Debug, Default)]
pub struct Hints<'d> {
    /// The machine as `uname -m` names it. Anything but `x86_64` (or nothing) stops the translation.
    pub machine: Option<String>,
    /// The text of the VMCOREINFO note.
    pub vmcoreinfo: Option<&'d [u8]>,
    /// The control registers of each CPU that has them.
    pub control: Vec<Control>,
    /// `phys_base` by the kdump-compressed sub header.
    pub phys_base: Option<u64>,
    /// Virtual address, physical address and length of each segment of an ELF dump that has a virtual address.
    pub segments: Vec<(KVirtAddr, PhysAddr, u64)>,
}
