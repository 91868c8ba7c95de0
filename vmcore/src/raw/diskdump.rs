//! kdump-compressed files: `diskdump_mod.h` of makedumpfile 1.7, 64-bit little-endian ABI.

use zerocopy::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The signature of kdump-compressed files.
pub const KDUMP_SIGNATURE: [u8; 8] = *b"KDUMP   ";
/// The signature of the older diskdump files.
pub const DISKDUMP_SIGNATURE: [u8; 8] = *b"DISKDUMP";

/// `DUMP_DH_COMPRESSED_ZLIB`, in `status` and in [`PageDesc::flags`].
pub const COMPRESSED_ZLIB: u32 = 0x1;
/// `DUMP_DH_COMPRESSED_LZO`.
pub const COMPRESSED_LZO: u32 = 0x2;
/// `DUMP_DH_COMPRESSED_SNAPPY`.
pub const COMPRESSED_SNAPPY: u32 = 0x4;
/// `DUMP_DH_COMPRESSED_INCOMPLETE`, in `status` only: the writer stopped early.
pub const COMPRESSED_INCOMPLETE: u32 = 0x8;
/// `DUMP_DH_EXCLUDED_VMEMMAP`, in `status` only: unused `struct page` were left out.
pub const EXCLUDED_VMEMMAP: u32 = 0x10;
/// `DUMP_DH_COMPRESSED_ZSTD`.
pub const COMPRESSED_ZSTD: u32 = 0x20;

/// `struct new_utsname` as the dumped kernel filled it; each field ends at its first NUL.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NewUtsname {
    /// `Linux`.
    pub sysname: [u8; 65],
    /// The host name.
    pub nodename: [u8; 65],
    /// The kernel release.
    pub release: [u8; 65],
    /// The build number and date.
    pub version: [u8; 65],
    /// The architecture's name.
    pub machine: [u8; 65],
    /// The NIS domain.
    pub domainname: [u8; 65],
}
const _: () = assert!(size_of::<NewUtsname>() == 390);

/// `struct disk_dump_header`: block 0. `tasks[]` after it is of diskdump only.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiskDumpHeader {
    /// [`KDUMP_SIGNATURE`] or [`DISKDUMP_SIGNATURE`].
    pub signature: [u8; 8],
    /// 0 to 6.
    pub header_version: I32,
    /// The dumped machine's names; QEMU sets the machine only.
    pub utsname: NewUtsname,
    /// Alignment.
    pub pad: [u8; 6],
    /// `timeval.tv_sec`, 0 in QEMU's dumps.
    pub tv_sec: I64,
    /// `timeval.tv_usec`.
    pub tv_usec: I64,
    /// Codec of the file, and [`COMPRESSED_INCOMPLETE`].
    pub status: U32,
    /// Bytes of a block, which is a page of the dumped kernel.
    pub block_size: I32,
    /// Blocks of the sub header, notes included.
    pub sub_hdr_size: I32,
    /// Blocks of both bitmaps together.
    pub bitmap_blocks: U32,
    /// One past the highest frame, low 32 bits.
    pub max_mapnr: U32,
    /// Not reliable.
    pub total_ram_blocks: U32,
    /// Not reliable.
    pub device_blocks: U32,
    /// Not reliable.
    pub written_blocks: U32,
    /// Not reliable.
    pub current_cpu: U32,
    /// CPUs of the dumped machine.
    pub nr_cpus: I32,
}
const _: () = assert!(size_of::<DiskDumpHeader>() == 464);

/// `struct kdump_sub_header`: block 1. Each field is there from one header version on.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct KdumpSubHeader {
    /// Where the kernel image really lies, against its link address.
    pub phys_base: U64,
    /// Version 1 on: makedumpfile's `-d`.
    pub dump_level: I32,
    /// Version 2 on: 1 in a part of a split set.
    pub split: I32,
    /// Version 2 on; obsolete in 6.
    pub start_pfn: U64,
    /// Version 2 on; obsolete in 6.
    pub end_pfn: U64,
    /// Version 3 on: file offset of the VMCOREINFO text.
    pub offset_vmcoreinfo: U64,
    /// Version 3 on.
    pub size_vmcoreinfo: U64,
    /// Version 4 on: file offset of the ELF notes.
    pub offset_note: U64,
    /// Version 4 on.
    pub size_note: U64,
    /// Version 5 on: file offset of the text that names what was erased.
    pub offset_eraseinfo: U64,
    /// Version 5 on.
    pub size_eraseinfo: U64,
    /// Version 6: first frame of this part.
    pub start_pfn_64: U64,
    /// Version 6: one past the last frame of this part.
    pub end_pfn_64: U64,
    /// Version 6: one past the highest frame.
    pub max_mapnr_64: U64,
}
const _: () = assert!(size_of::<KdumpSubHeader>() == 104);

/// `struct page_desc`: where one page lies in the file.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PageDesc {
    /// File offset of the page's bytes; 0 where the writer never got to it.
    pub offset: U64,
    /// Bytes stored.
    pub size: U32,
    /// The codec of this page; 0 for none.
    pub flags: U32,
    /// Always 0.
    pub page_flags: U64,
}
const _: () = assert!(size_of::<PageDesc>() == 24);
