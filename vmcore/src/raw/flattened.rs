//! Flattened streams: `makedumpfile -F` (`makedumpfile.h` 1.7) and QEMU's kdump formats. Big-endian.

use zerocopy::big_endian::I64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The signature, NUL-padded to 16 bytes.
pub const SIGNATURE: [u8; 16] = *b"makedumpfile\0\0\0\0";
/// Bytes that the header takes in the file, used or not.
pub const HEADER_BYTES: u64 = 4096;

/// `struct makedumpfile_header`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MakedumpfileHeader {
    /// [`SIGNATURE`].
    pub signature: [u8; 16],
    /// 1.
    pub kind: I64,
    /// 1.
    pub version: I64,
}
const _: () = assert!(size_of::<MakedumpfileHeader>() == 32);

/// `struct makedumpfile_data_header`: before each record's bytes.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MakedumpfileDataHeader {
    /// Where the bytes belong in the rearranged file; -1 in the end marker.
    pub offset: I64,
    /// How many bytes follow; -1 in the end marker.
    pub buf_size: I64,
}
const _: () = assert!(size_of::<MakedumpfileDataHeader>() == 16);
