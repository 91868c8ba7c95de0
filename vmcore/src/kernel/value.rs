//! Typed reads: a view declares which members of a structure it needs, and under which names kernels have them.
//!
//! The names are settled once, against the types of the dump, newest first; then each object is read in one go. A member that
//! lies on a page which is not in the dump costs that member only.
//!
//! ```
//! vmcore::view! {
//!     /// What `ps` shows of a task.
//!     pub struct TaskView of "task_struct" {
//!         /// Its number.
//!         pub pid: i32 = ["pid"],
//!         /// Its state; renamed in 5.14 (kernel commit 2f064a59a11f).
//!         pub state: u64 = ["__state", "state"],
//!         /// Its name.
//!         pub comm: String = ["comm"],
//!         /// The CPU it is on; `None` where this kernel keeps that elsewhere.
//!         pub cpu: Option<u32> = ["thread_info.cpu", "cpu"],
//!     }
//! }
//! use vmcore::kernel::value::View;
//! assert_eq!(TaskView::STRUCT, "task_struct");
//! ```

use std::ops::Range;

use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::sym::btf::{Kind, Member, TypeError, Types};
use crate::xlat::{KernelMemory, le};

/// A structure that spans more than this is read member by member.
const SPAN: u64 = 32 << 10;
/// An array or text member is cut here.
const MEMBER: u64 = 64 << 10;
/// How many structs around a single number are looked through (`refcount_t` has two).
const WRAPPERS: usize = 8;

/// Declares a view: a plain struct whose fields are members of a kernel structure. See [the module](crate::kernel::value).
#[macro_export]
macro_rules! view {
    ($(#[$meta:meta])* $vis:vis struct $name:ident of $of:literal {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty = [$($path:literal),+ $(,)?]),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty,)+
        }

        impl $crate::kernel::value::View for $name {
            const STRUCT: &'static str = $of;

            fn bind(binder: &mut $crate::kernel::value::Binder<'_>) -> ::std::result::Result<(), $crate::sym::btf::TypeError> {
                $(binder.member::<$ty>(&[$($path),+])?;)+
                Ok(())
            }

            fn take(object: &mut $crate::kernel::value::Object<'_, '_, '_>) -> ::std::result::Result<Self, $crate::kernel::value::ValueError> {
                Ok(Self { $($field: object.take::<$ty>()?,)+ })
            }
        }
    };
}

pub use view;

/// What [`view!`](crate::view) makes.
pub trait View: Sized {
    /// The kernel's name of the structure.
    const STRUCT: &'static str;

    /// Names the members, in order.
    ///
    /// # Errors
    /// When the structure lacks one that is needed.
    fn bind(binder: &mut Binder<'_>) -> Result<(), TypeError>;

    /// Takes the members, in the same order.
    ///
    /// # Errors
    /// When one that is needed can't be read.
    fn take(object: &mut Object<'_, '_, '_>) -> Result<Self, ValueError>;
}

/// Why an object can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A member that is needed is not in the dump.
    #[error("{member} of the {of} at {kaddr} can't be read: {source}")]
    Unreadable {
        /// The structure.
        of: &'static str,
        /// The member.
        member: String,
        /// Where the structure is.
        kaddr: KVirtAddr,
        /// Why.
        source: MemError,
    },
}

/// A value that may be missing for either reason, which stay apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maybe<T> {
    /// It is there.
    Value(T),
    /// This kernel's structure has no such member.
    Absent,
    /// The member is on a page that is not in the dump, and why.
    Unreadable(String),
}

impl<T> Maybe<T> {
    /// The value, where it is there.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }

    /// The value by reference, where it is there.
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// Where a member itself is: for list heads, locks and other structures that are used by their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(pub KVirtAddr);

/// Where one member is and how it is read.
#[derive(Clone, Debug)]
pub struct Slot {
    name: String,
    offset: u64,
    bytes: u64,
    /// For a bitfield: bits to drop below it, and how many it has.
    bits: Option<(u32, u32)>,
    signed: bool,
    /// Elements of an array, and bytes of each.
    elements: Option<(u64, u64)>,
}

impl Slot {
    /// Where a member is. A struct around a single number (`atomic_t`, `kuid_t`, `refcount_t`) is read as that number.
    ///
    /// # Errors
    /// When the member's type makes no sense.
    pub fn new(member: Member<'_>) -> Result<Self, TypeError> {
        let name = member.name().to_owned();
        let mut ty = member.ty().resolve()?;
        for _ in 0..WRAPPERS {
            let mut members = ty.members();
            let (Some(only), None) = (members.next(), members.next()) else { break };
            if only.bit_offset() != 0 || only.bits().is_some() {
                break;
            }
            ty = only.ty().resolve()?;
        }
        let bytes = member.size()?;
        let elements = match ty.array()? {
            Some((element, count)) => Some((u64::from(count), element.size()?)),
            None => None,
        };
        let bits = member.bits().map(|bits| {
            let below = u32::try_from(member.bit_offset() & 7).unwrap_or_default();
            (below, bits)
        });
        // A bitfield is read as the bytes that it touches.
        let bytes = bits.map_or(bytes, |(below, bits)| u64::from(below.saturating_add(bits).div_ceil(8)));
        Ok(Self { name, offset: member.offset(), bytes, bits, signed: ty.is_signed(), elements })
    }

    /// Bytes from the start of the structure.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number in `bytes`, as 64 bits, sign extended where the member is signed.
    #[must_use]
    pub fn number(&self, bytes: &[u8]) -> u64 {
        let mut wide = [0_u8; 16];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        let (below, width) =
            self.bits.unwrap_or((0, u32::try_from(self.bytes.min(8).saturating_mul(8)).unwrap_or(64)));
        // A bitfield of 64 bits that does not begin with a byte touches nine of them.
        let raw = u128::from_le_bytes(wide) >> below;
        let raw = u64::try_from(raw & u128::from(u64::MAX)).unwrap_or_default();
        let unused = 64_u32.saturating_sub(width);
        let top = raw.checked_shl(unused).unwrap_or_default();
        if self.signed {
            top.cast_signed().checked_shr(unused).unwrap_or_default().cast_unsigned()
        } else {
            top.checked_shr(unused).unwrap_or_default()
        }
    }
}

/// A type that a member can be read as.
pub trait Value: Sized {
    /// What it is, for the words of an error.
    const WHAT: &'static str;

    /// True where this type can hold the member.
    fn fits(slot: &Slot, member: Member<'_>) -> bool;

    /// The value, from exactly [`Slot::bytes`] bytes (none where [`Value::READS`] is false).
    fn decode(slot: &Slot, at: KVirtAddr, bytes: &[u8]) -> Self;

    /// False where only the member's place matters.
    const READS: bool = true;

    /// The value where the kernel has no such member, if that is no fault.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// The value where the member can't be read, if that is no fault.
    #[must_use]
    fn unreadable(_why: &MemError) -> Option<Self> {
        None
    }
}

macro_rules! numbers {
    ($($ty:ty, $bytes:literal, $what:literal;)+) => {$(
        impl Value for $ty {
            const WHAT: &'static str = $what;

            fn fits(slot: &Slot, member: Member<'_>) -> bool {
                is_number(slot, member) && slot.bits.map_or(slot.bytes <= $bytes, |(_, bits)| bits <= $bytes * 8)
            }

            fn decode(slot: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
                let wide = slot.number(bytes).to_le_bytes();
                wide.first_chunk().map(|b| Self::from_le_bytes(*b)).unwrap_or_default()
            }
        }
    )+};
}

numbers! {
    u8, 1, "a number of 1 byte";
    u16, 2, "a number of 2 bytes";
    u32, 4, "a number of 4 bytes";
    u64, 8, "a number of 8 bytes";
    i8, 1, "a number of 1 byte";
    i16, 2, "a number of 2 bytes";
    i32, 4, "a number of 4 bytes";
    i64, 8, "a number of 8 bytes";
}

fn is_number(slot: &Slot, member: Member<'_>) -> bool {
    let kind = member.ty().resolve().map(crate::sym::btf::Type::kind);
    let plain = matches!(kind, Ok(Kind::Int | Kind::Enum | Kind::Pointer | Kind::Struct | Kind::Union));
    plain && slot.elements.is_none() && slot.bytes > 0 && (slot.bytes <= 8 || slot.bits.is_some())
}

impl Value for bool {
    const WHAT: &'static str = "yes or no";

    fn fits(slot: &Slot, member: Member<'_>) -> bool {
        is_number(slot, member)
    }

    fn decode(slot: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
        slot.number(bytes) != 0
    }
}

impl Value for KVirtAddr {
    const WHAT: &'static str = "a pointer";

    fn fits(slot: &Slot, member: Member<'_>) -> bool {
        is_number(slot, member) && slot.bytes == 8 && slot.bits.is_none()
    }

    fn decode(slot: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
        Self(slot.number(bytes))
    }
}

impl Value for Place {
    const WHAT: &'static str = "a place";
    const READS: bool = false;

    fn fits(_: &Slot, _: Member<'_>) -> bool {
        true
    }

    fn decode(_: &Slot, at: KVirtAddr, _: &[u8]) -> Self {
        Self(at)
    }
}

/// The bytes of an array of characters up to its NUL; what is no UTF-8 is replaced.
impl Value for String {
    const WHAT: &'static str = "text";

    fn fits(slot: &Slot, _: Member<'_>) -> bool {
        slot.elements.is_some_and(|(_, bytes)| bytes == 1) && slot.bytes <= MEMBER
    }

    fn decode(_: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Self::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }
}

/// The member's bytes as they are.
impl Value for Vec<u8> {
    const WHAT: &'static str = "bytes";

    fn fits(slot: &Slot, _: Member<'_>) -> bool {
        slot.bytes <= MEMBER && slot.bits.is_none()
    }

    fn decode(_: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
        bytes.to_vec()
    }
}

/// An array of numbers or pointers of 1, 2, 4 or 8 bytes.
impl Value for Vec<u64> {
    const WHAT: &'static str = "an array of numbers";

    fn fits(slot: &Slot, _: Member<'_>) -> bool {
        slot.elements.is_some_and(|(_, bytes)| matches!(bytes, 1 | 2 | 4 | 8)) && slot.bytes <= MEMBER
    }

    fn decode(slot: &Slot, _: KVirtAddr, bytes: &[u8]) -> Self {
        let (_, width) = slot.elements.unwrap_or((0, 8));
        let width = usize::try_from(width).unwrap_or(8).max(1);
        let number = |b: &[u8]| {
            let mut wide = [0_u8; 8];
            for (to, from) in wide.iter_mut().zip(b) {
                *to = *from;
            }
            u64::from_le_bytes(wide)
        };
        bytes.chunks_exact(width).map(number).collect()
    }
}

/// `None` where this kernel has no such member.
impl<T: Value> Value for Option<T> {
    const WHAT: &'static str = T::WHAT;
    const READS: bool = T::READS;

    fn fits(slot: &Slot, member: Member<'_>) -> bool {
        T::fits(slot, member)
    }

    fn decode(slot: &Slot, at: KVirtAddr, bytes: &[u8]) -> Self {
        Some(T::decode(slot, at, bytes))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Maybe<T> {
    const WHAT: &'static str = T::WHAT;
    const READS: bool = T::READS;

    fn fits(slot: &Slot, member: Member<'_>) -> bool {
        T::fits(slot, member)
    }

    fn decode(slot: &Slot, at: KVirtAddr, bytes: &[u8]) -> Self {
        Self::Value(T::decode(slot, at, bytes))
    }

    fn absent() -> Option<Self> {
        Some(Self::Absent)
    }

    fn unreadable(why: &MemError) -> Option<Self> {
        Some(Self::Unreadable(why.to_string()))
    }
}

/// Collects the members of a view while its names are settled.
pub struct Binder<'a> {
    of: crate::sym::btf::Struct<'a>,
    slots: Vec<Option<Slot>>,
    span: Range<u64>,
}

impl Binder<'_> {
    /// The next member, under the first of these names that the structure has.
    ///
    /// # Errors
    /// When it has none of them and `T` needs it, or what it has does not fit `T`.
    pub fn member<T: Value>(&mut self, paths: &[&str]) -> Result<(), TypeError> {
        let member = match self.of.member_of(paths) {
            Ok(member) => member,
            Err(TypeError::NoMember { .. }) if T::absent().is_some() => {
                self.slots.push(None);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let slot = Slot::new(member)?;
        if !T::fits(&slot, member) {
            return Err(TypeError::Unfit {
                of: self.of.name().to_owned(),
                member: paths.join(" or "),
                found: format!("{} bytes ({:?})", slot.bytes, member.ty().resolve()?.kind()),
                wanted: T::WHAT,
            });
        }
        if T::READS {
            let end = slot.offset.saturating_add(slot.bytes);
            let whole = self.span.is_empty();
            self.span.start = if whole { slot.offset } else { self.span.start.min(slot.offset) };
            self.span.end = if whole { end } else { self.span.end.max(end) };
        }
        self.slots.push(Some(slot));
        Ok(())
    }
}

/// A view, settled against the types of one dump.
#[derive(Debug)]
pub struct Layout<V> {
    size: u64,
    slots: Vec<Option<Slot>>,
    span: Range<u64>,
    view: std::marker::PhantomData<fn() -> V>,
}

// Not derived: a layout can be cloned whatever its view is.
impl<V> Clone for Layout<V> {
    fn clone(&self) -> Self {
        Self {
            size: self.size,
            slots: self.slots.clone(),
            span: self.span.clone(),
            view: std::marker::PhantomData,
        }
    }
}

impl<V: View> Layout<V> {
    /// Settles the members' names.
    ///
    /// # Errors
    /// When the kernel has no such structure, or it lacks a member that the view needs.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        let of = types.structure(V::STRUCT)?;
        let mut binder = Binder { of, slots: Vec::new(), span: 0..0 };
        V::bind(&mut binder)?;
        Ok(Self { size: of.size(), slots: binder.slots, span: binder.span, view: std::marker::PhantomData })
    }

    /// Bytes of the kernel's structure.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the object at `kaddr`.
    ///
    /// # Errors
    /// When a member that the view needs is not in the dump.
    pub fn read(&self, memory: &KernelMemory<'_>, kaddr: KVirtAddr) -> Result<V, ValueError> {
        let len = self.span.end.saturating_sub(self.span.start);
        let whole = || {
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            memory.read(kaddr.checked_add(self.span.start)?, &mut bytes).ok()?;
            Some(bytes)
        };
        let bytes = if len <= SPAN { whole() } else { None };
        let mut object = Object {
            memory,
            kaddr,
            slots: &self.slots,
            next: 0,
            start: self.span.start,
            bytes,
            of: V::STRUCT,
        };
        V::take(&mut object)
    }
}

/// An object that is being read, member by member in the order of the view.
pub struct Object<'l, 'k, 'm> {
    memory: &'k KernelMemory<'m>,
    kaddr: KVirtAddr,
    slots: &'l [Option<Slot>],
    next: usize,
    start: u64,
    /// The whole span, where it could be read in one go.
    bytes: Option<Vec<u8>>,
    of: &'static str,
}

impl Object<'_, '_, '_> {
    /// The next member.
    ///
    /// # Errors
    /// When it is not in the dump and `T` can't say so.
    pub fn take<T: Value>(&mut self) -> Result<T, ValueError> {
        let slot = self.slots.get(self.next).and_then(Option::as_ref);
        self.next = self.next.saturating_add(1);
        let out_of_range = || MemError::OutOfRange { kaddr: self.kaddr, len: slot.map_or(0, |s| s.offset) };
        let missing = |member: &str, source: MemError| {
            let member = member.to_owned();
            T::unreadable(&source).ok_or(ValueError::Unreadable {
                of: self.of,
                member,
                kaddr: self.kaddr,
                source,
            })
        };
        let Some(slot) = slot else {
            return T::absent().map_or_else(|| missing("a member", out_of_range()), Ok);
        };
        let Some(at) = self.kaddr.checked_add(slot.offset) else {
            return missing(&slot.name, out_of_range());
        };
        if !T::READS {
            return Ok(T::decode(slot, at, &[]));
        }
        let len = usize::try_from(slot.bytes.min(MEMBER)).unwrap_or_default();
        let from = slot.offset.checked_sub(self.start).and_then(|o| usize::try_from(o).ok());
        let have = self.bytes.as_ref().zip(from).and_then(|(b, from)| b.get(from..from.checked_add(len)?));
        if let Some(bytes) = have {
            return Ok(T::decode(slot, at, bytes));
        }
        let mut bytes = vec![0; len];
        match self.memory.read(at, &mut bytes) {
            Ok(()) => Ok(T::decode(slot, at, &bytes)),
            Err(source) => missing(&slot.name, source),
        }
    }
}

/// A number in an object, by a member that was looked up: for the few reads that are no view.
///
/// # Errors
/// As [`KernelMemory::read`].
pub fn read_number(memory: &KernelMemory<'_>, object: KVirtAddr, slot: &Slot) -> Result<u64, MemError> {
    let kaddr =
        object.checked_add(slot.offset).ok_or(MemError::OutOfRange { kaddr: object, len: slot.offset })?;
    let mut bytes = [0_u8; 16];
    let wanted = usize::try_from(slot.bytes.min(9)).unwrap_or_default();
    let Some(bytes) = bytes.get_mut(..wanted) else { return Ok(0) };
    memory.read(kaddr, bytes)?;
    Ok(slot.number(bytes))
}

/// The text that a pointer points at, up to its NUL, at most `max` bytes; what is no UTF-8 is replaced.
///
/// # Errors
/// As [`KernelMemory::read`].
pub fn read_text(memory: &KernelMemory<'_>, at: KVirtAddr, max: usize) -> Result<String, MemError> {
    memory.read_cstr(at, max).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The pointers of an array of `count`, for hash tables and the like. The caller bounds `count`.
///
/// # Errors
/// As [`KernelMemory::read`].
pub fn read_pointers(
    memory: &KernelMemory<'_>,
    at: KVirtAddr,
    count: usize,
) -> Result<Vec<KVirtAddr>, MemError> {
    let mut bytes = vec![0; count.saturating_mul(8)];
    memory.read(at, &mut bytes)?;
    Ok((0..count).filter_map(|i| le::u64_at(&bytes, i.checked_mul(8)?)).map(KVirtAddr).collect())
}
