//! BTF: the header, one type's fixed part, and the numbers of the kinds.
//!
//! Names and layouts as in the kernel's `include/uapi/linux/btf.h`. Since 7.1 `vlen` has 24 bits (16 before) and the kind 7 (5
//! before); the bits in between were zero until then, so one way of reading serves all kernels. A header of 32 bytes (`hdr_len`)
//! has the place of the layout section, which tells how long a kind is that a reader does not know.

use zerocopy::byteorder::{LE, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `BTF_MAGIC`, as the first two bytes on a little-endian machine.
pub const MAGIC: u16 = 0xeb9f;
/// The only version there is.
pub const VERSION: u8 = 1;

/// `struct btf_header`, without the layout section's place that 7.1 appended.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BtfHeader {
    /// [`MAGIC`].
    pub magic: U16<LE>,
    /// [`VERSION`].
    pub version: u8,
    /// Zero so far.
    pub flags: u8,
    /// Length of the header; the offsets below count from its end.
    pub hdr_len: U32<LE>,
    /// Where the types begin.
    pub type_off: U32<LE>,
    /// How many bytes of them there are.
    pub type_len: U32<LE>,
    /// Where the strings begin.
    pub str_off: U32<LE>,
    /// How many bytes of them there are.
    pub str_len: U32<LE>,
}
const _: () = assert!(size_of::<BtfHeader>() == 24);

/// The end of a header of 32 bytes or more: where the layout section is.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BtfHeaderLayout {
    /// Where the layout section begins.
    pub layout_off: U32<LE>,
    /// How many bytes of it there are.
    pub layout_len: U32<LE>,
}
const _: () = assert!(size_of::<BtfHeaderLayout>() == 8);

/// `struct btf_layout`: how long the types of one kind are. The section has one for each kind, by its number.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BtfLayout {
    /// Bytes after the fixed part that are there once.
    pub info_sz: u8,
    /// Bytes that are there `vlen` times.
    pub elem_sz: u8,
    /// Unused so far.
    pub flags: U16<LE>,
}
const _: () = assert!(size_of::<BtfLayout>() == 4);

/// `struct btf_type`: the fixed part of every type.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BtfType {
    /// Offset of the name among the strings; 0 for none.
    pub name_off: U32<LE>,
    /// Bits 0–23 `vlen`, 24–30 kind, 31 `kind_flag`.
    pub info: U32<LE>,
    /// The size, or the id of another type, by kind.
    pub size_or_type: U32<LE>,
}
const _: () = assert!(size_of::<BtfType>() == 12);

impl BtfType {
    /// Number of the kind, one of the constants of [`kind`].
    #[must_use]
    pub fn kind(self) -> u8 {
        u8::try_from((self.info.get() >> 24) & 0x7f).unwrap_or_default()
    }

    /// How many members, enumerators or parameters follow.
    #[must_use]
    pub fn vlen(self) -> u32 {
        self.info.get() & 0x00ff_ffff
    }

    /// `kind_flag`: bitfield sizes in the members, signed enumerators, a union's forward declaration.
    #[must_use]
    pub fn kind_flag(self) -> bool {
        self.info.get() >> 31 == 1
    }
}

/// The numbers of the kinds.
pub mod kind {
    /// An integer.
    pub const INT: u8 = 1;
    /// A pointer.
    pub const PTR: u8 = 2;
    /// An array.
    pub const ARRAY: u8 = 3;
    /// A struct.
    pub const STRUCT: u8 = 4;
    /// A union.
    pub const UNION: u8 = 5;
    /// An enum of at most 32 bits.
    pub const ENUM: u8 = 6;
    /// A forward declaration.
    pub const FWD: u8 = 7;
    /// A typedef.
    pub const TYPEDEF: u8 = 8;
    /// `volatile`.
    pub const VOLATILE: u8 = 9;
    /// `const`.
    pub const CONST: u8 = 10;
    /// `restrict`.
    pub const RESTRICT: u8 = 11;
    /// A function.
    pub const FUNC: u8 = 12;
    /// A function's prototype.
    pub const FUNC_PROTO: u8 = 13;
    /// A variable.
    pub const VAR: u8 = 14;
    /// A section of variables.
    pub const DATASEC: u8 = 15;
    /// A floating point number.
    pub const FLOAT: u8 = 16;
    /// A declaration's tag.
    pub const DECL_TAG: u8 = 17;
    /// A type's tag (`__user`, `__percpu`, …).
    pub const TYPE_TAG: u8 = 18;
    /// An enum of 64 bits.
    pub const ENUM64: u8 = 19;
}

/// Bytes after the fixed part of a type of a kind that we know: once, and for each of its `vlen` elements.
#[must_use]
pub fn known_layout(kind: u8) -> Option<(u8, u8)> {
    match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => Some((4, 0)),
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => Some((0, 0)),
        kind::ARRAY => Some((12, 0)),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Some((0, 12)),
        kind::ENUM | kind::FUNC_PROTO => Some((0, 8)),
        _ => None,
    }
}
