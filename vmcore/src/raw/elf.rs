//! ELF64 little-endian headers: System V gABI, as the kernel's `include/uapi/linux/elf.h` has them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `PN_XNUM` in `e_phnum`: the real count is `sh_info` of section header 0.
pub const PN_XNUM: u16 = 0xffff;
/// `DUMP_ELF_INCOMPLETE` of makedumpfile in `e_flags`: the writer stopped early.
pub const DUMP_ELF_INCOMPLETE: u32 = 0x1;

/// `Elf64_Ehdr`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ehdr {
    /// Magic, class, byte order, version, ABI.
    pub e_ident: [u8; 16],
    /// Kind of file.
    pub e_type: U16,
    /// Architecture.
    pub e_machine: U16,
    /// Always 1.
    pub e_version: U32,
    /// Unused in dumps.
    pub e_entry: U64,
    /// File offset of the program headers.
    pub e_phoff: U64,
    /// File offset of the section headers.
    pub e_shoff: U64,
    /// [`DUMP_ELF_INCOMPLETE`].
    pub e_flags: U32,
    /// Not reliable: QEMU 7.2 and later write 8.
    pub e_ehsize: U16,
    /// Bytes of one program header.
    pub e_phentsize: U16,
    /// Program headers, or [`PN_XNUM`].
    pub e_phnum: U16,
    /// Bytes of one section header.
    pub e_shentsize: U16,
    /// Section headers.
    pub e_shnum: U16,
    /// Section of the section names.
    pub e_shstrndx: U16,
}
const _: () = assert!(size_of::<Ehdr>() == 64);

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Phdr {
    /// `PT_LOAD`, `PT_NOTE`, …
    pub p_type: U32,
    /// Permissions; nothing to a dump.
    pub p_flags: U32,
    /// Where its bytes are in the file.
    pub p_offset: U64,
    /// Virtual address; 0 where the writer did not know.
    pub p_vaddr: U64,
    /// Physical address.
    pub p_paddr: U64,
    /// Bytes in the file.
    pub p_filesz: U64,
    /// Bytes of memory; those past `p_filesz` were left out.
    pub p_memsz: U64,
    /// Alignment.
    pub p_align: U64,
}
const _: () = assert!(size_of::<Phdr>() == 56);

/// `Elf64_Shdr`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Shdr {
    /// Name.
    pub sh_name: U32,
    /// Kind.
    pub sh_type: U32,
    /// Flags.
    pub sh_flags: U64,
    /// Address.
    pub sh_addr: U64,
    /// Where it is in the file.
    pub sh_offset: U64,
    /// Bytes.
    pub sh_size: U64,
    /// Another section.
    pub sh_link: U32,
    /// In section 0: the count of program headers where `e_phnum` can't hold it.
    pub sh_info: U32,
    /// Alignment.
    pub sh_addralign: U64,
    /// Bytes of an entry.
    pub sh_entsize: U64,
}
const _: () = assert!(size_of::<Shdr>() == 64);

/// `Elf64_Nhdr`: before each note's name and descriptor, which are padded to 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Nhdr {
    /// Bytes of the name, its NUL included.
    pub n_namesz: U32,
    /// Bytes of the descriptor.
    pub n_descsz: U32,
    /// Kind, in the name's own numbering.
    pub n_type: U32,
}
const _: () = assert!(size_of::<Nhdr>() == 12);

/// `struct elf_prstatus` of `x86_64` (`arch/x86/include/asm/elf.h`, `include/linux/elfcore.h`).
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PrStatusX86 {
    /// `pr_info`, `pr_cursig` and the signal masks: nothing to a kernel dump.
    pub signals: [u8; 32],
    /// The pid of the task that ran on the CPU; in QEMU's dumps the CPU's index + 1.
    pub pr_pid: U32,
    /// Parent, group, session and times: not filled.
    pub ids_and_times: [u8; 76],
    /// `user_regs_struct`: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi `orig_rax` rip cs
    /// eflags rsp ss `fs_base` `gs_base` ds es fs gs.
    pub pr_reg: [U64; 27],
    /// `pr_fpvalid` and padding.
    pub fpvalid: [u8; 8],
}
const _: () = assert!(size_of::<PrStatusX86>() == 336);
