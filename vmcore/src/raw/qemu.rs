//! The `QEMU` note of x86 guests: `QEMUCPUState` in QEMU's `target/i386/arch_dump.c`, version 1.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `QEMUCPUSegment`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CpuSegment {
    /// Selector.
    pub selector: U32,
    /// Limit.
    pub limit: U32,
    /// Descriptor flags.
    pub flags: U32,
    /// Padding.
    pub pad: U32,
    /// Base address.
    pub base: U64,
}
const _: () = assert!(size_of::<CpuSegment>() == 24);

/// `QEMUCPUState` as far as every version has it. `kernel_gs_base` (`u64`) follows where `size` says so.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CpuState {
    /// 1.
    pub version: U32,
    /// Bytes of the whole structure: 432, or 440 with `kernel_gs_base`.
    pub size: U32,
    /// rax rbx rcx rdx rsi rdi rsp rbp r8 … r15 rip rflags.
    pub regs: [U64; 18],
    /// cs ds es fs gs ss ldt tr gdt idt.
    pub segments: [CpuSegment; 10],
    /// cr0 to cr4; cr1 is 0.
    pub cr: [U64; 5],
}
const _: () = assert!(size_of::<CpuState>() == 432);
