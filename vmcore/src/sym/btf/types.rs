//! One type, decoded from the table when somebody asks: its kind, size, target, members and enumerators.

use super::{Btf, BtfError, TypeError, TypeId};
use crate::raw::btf::{BtfType, kind};
use crate::xlat::le;

/// How many typedefs, qualifiers or array dimensions are followed before a chain counts as a cycle.
const CHAIN: usize = 64;
/// How many unnamed structs and unions may be nested.
const NESTING: usize = 32;
/// How many members one search may look at, nested ones included (a kernel's `task_struct` has about 300).
const MEMBERS: usize = 1 << 17;

/// What sort of type it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `void`.
    Void,
    /// An integer, `bool` and `char` included.
    Int,
    /// A pointer.
    Pointer,
    /// An array.
    Array,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An enum of any width.
    Enum,
    /// A struct or union that is only declared.
    Forward,
    /// A typedef.
    Typedef,
    /// `const`, `volatile`, `restrict`, or a type tag such as `__percpu`.
    Qualifier,
    /// A function.
    Function,
    /// A function's prototype.
    Prototype,
    /// A variable.
    Variable,
    /// A section of variables.
    Section,
    /// A floating point number.
    Float,
    /// Something of a newer kernel, or a tag on a declaration.
    Other,
}

/// One type of a table.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    btf: &'a Btf,
    id: TypeId,
    fixed: Option<BtfType>,
    rest: &'a [u8],
}

impl std::fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} (id {})", self.kind(), self.name(), self.id.0)
    }
}

impl<'a> Type<'a> {
    pub(super) fn new(btf: &'a Btf, id: TypeId, fixed: BtfType, rest: &'a [u8]) -> Self {
        Self { btf, id, fixed: Some(fixed), rest }
    }

    pub(super) fn void(btf: &'a Btf) -> Self {
        Self { btf, id: TypeId(0), fixed: None, rest: &[] }
    }

    /// Its id in its table.
    #[must_use]
    pub fn id(self) -> TypeId {
        self.id
    }

    /// What sort of type it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        let Some(fixed) = self.fixed else { return Kind::Void };
        match fixed.kind() {
            kind::INT => Kind::Int,
            kind::PTR => Kind::Pointer,
            kind::ARRAY => Kind::Array,
            kind::STRUCT => Kind::Struct,
            kind::UNION => Kind::Union,
            kind::ENUM | kind::ENUM64 => Kind::Enum,
            kind::FWD => Kind::Forward,
            kind::TYPEDEF => Kind::Typedef,
            kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => Kind::Qualifier,
            kind::FUNC => Kind::Function,
            kind::FUNC_PROTO => Kind::Prototype,
            kind::VAR => Kind::Variable,
            kind::DATASEC => Kind::Section,
            kind::FLOAT => Kind::Float,
            _ => Kind::Other,
        }
    }

    pub(super) fn name_bytes(self) -> &'a [u8] {
        self.fixed.map_or(&[], |f| self.btf.string(f.name_off.get()))
    }

    /// Its name; empty where it has none (or one that is no text).
    #[must_use]
    pub fn name(self) -> &'a str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// The type that a pointer, typedef, qualifier, array, variable or function refers to.
    ///
    /// # Errors
    /// When it refers to a type that does not exist.
    pub fn target(self) -> Result<Option<Self>, BtfError> {
        let id = match self.kind() {
            Kind::Pointer | Kind::Typedef | Kind::Qualifier | Kind::Variable | Kind::Function => {
                self.fixed.map(|f| f.size_or_type.get())
            }
            Kind::Array => le::u32_at(self.rest, 0),
            _ => None,
        };
        id.map(|id| self.btf.by_id(TypeId(id))).transpose()
    }

    /// The type behind its typedefs and qualifiers (and behind the name, for a variable).
    ///
    /// # Errors
    /// When the chain leads nowhere or runs in a circle.
    pub fn resolve(self) -> Result<Self, BtfError> {
        let mut ty = self;
        for _ in 0..CHAIN {
            if !matches!(ty.kind(), Kind::Typedef | Kind::Qualifier | Kind::Variable) {
                return Ok(ty);
            }
            let Some(next) = ty.target()? else { return Ok(ty) };
            ty = next;
        }
        Err(BtfError::Cycle { id: self.id })
    }

    /// How many bytes a value of it has. A function or an opaque struct has none.
    ///
    /// # Errors
    /// When the chain of types leads nowhere, runs in a circle, or multiplies past 2^64.
    pub fn size(self) -> Result<u64, BtfError> {
        let mut ty = self;
        let mut factor = 1_u64;
        for _ in 0..CHAIN {
            ty = ty.resolve()?;
            let own = match (ty.kind(), ty.fixed) {
                (Kind::Pointer, _) => 8,
                (Kind::Array, _) => {
                    let count = le::u32_at(ty.rest, 8).unwrap_or_default();
                    factor = factor.checked_mul(u64::from(count)).ok_or(BtfError::TooBig { id: self.id })?;
                    let Some(element) = ty.target()? else { return Ok(0) };
                    ty = element;
                    continue;
                }
                (
                    Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Float | Kind::Section,
                    Some(fixed),
                ) => u64::from(fixed.size_or_type.get()),
                _ => 0,
            };
            return factor.checked_mul(own).ok_or(BtfError::TooBig { id: self.id });
        }
        Err(BtfError::Cycle { id: self.id })
    }

    /// For an array: the type of its elements and how many there are.
    ///
    /// # Errors
    /// When the element's type does not exist.
    pub fn array(self) -> Result<Option<(Self, u32)>, BtfError> {
        let ty = self.resolve()?;
        if ty.kind() != Kind::Array {
            return Ok(None);
        }
        let count = le::u32_at(ty.rest, 8).unwrap_or_default();
        Ok(ty.target()?.map(|element| (element, count)))
    }

    /// True for a signed integer or an enum with negative values.
    #[must_use]
    pub fn is_signed(self) -> bool {
        let Ok(ty) = self.resolve() else { return false };
        match ty.kind() {
            Kind::Int => le::u32_at(ty.rest, 0).is_some_and(|v| v >> 24 & 1 == 1),
            Kind::Enum => ty.fixed.is_some_and(BtfType::kind_flag),
            _ => false,
        }
    }

    /// For a variable in a section: where the section says it is and how many bytes it has.
    pub(super) fn section_places(self) -> impl Iterator<Item = (TypeId, u32, u32)> + 'a {
        let records = if self.kind() == Kind::Section { self.elements::<12>() } else { &[] };
        records.iter().filter_map(|r| Some((TypeId(le::u32_at(r, 0)?), le::u32_at(r, 4)?, le::u32_at(r, 8)?)))
    }

    fn elements<const N: usize>(self) -> &'a [[u8; N]] {
        let count = self.fixed.map_or(0, BtfType::vlen);
        let (all, _) = self.rest.as_chunks::<N>();
        usize::try_from(count).ok().and_then(|n| all.get(..n)).unwrap_or_default()
    }

    /// The members of a struct or union, as they are written: unnamed ones included, nothing of what they hold.
    pub fn members(self) -> impl Iterator<Item = Member<'a>> {
        let records =
            if matches!(self.kind(), Kind::Struct | Kind::Union) { self.elements::<12>() } else { &[] };
        let flagged = self.fixed.is_some_and(BtfType::kind_flag);
        let btf = self.btf;
        records.iter().filter_map(move |r| {
            let name_off = le::u32_at(r, 0)?;
            let ty = btf.by_id(TypeId(le::u32_at(r, 4)?)).ok()?;
            let offset = le::u32_at(r, 8)?;
            let (bit_offset, bits) = if flagged {
                let bits = offset >> 24;
                (u64::from(offset & 0x00ff_ffff), (bits != 0).then_some(bits))
            } else {
                plain_bitfield(ty, u64::from(offset))
            };
            Some(Member { btf, name_off, ty, bit_offset, bits })
        })
    }

    /// The enumerators of an enum: names with their values, the value's bits as of a 64-bit integer.
    pub fn enumerators(self) -> impl Iterator<Item = (&'a str, i64)> {
        let btf = self.btf;
        let signed = self.fixed.is_some_and(BtfType::kind_flag);
        let number = self.fixed.map_or(0, BtfType::kind);
        let (narrow, wide): (&[[u8; 8]], &[[u8; 12]]) = match number {
            kind::ENUM => (self.elements::<8>(), &[]),
            kind::ENUM64 => (&[], self.elements::<12>()),
            _ => (&[], &[]),
        };
        let text = move |offset: Option<u32>| {
            std::str::from_utf8(btf.string(offset.unwrap_or_default())).unwrap_or_default()
        };
        let narrow = narrow.iter().map(move |r| {
            let bits = le::u32_at(r, 4).unwrap_or_default();
            // Before 6.0 (kernel commit 6089fb325cf7) enums had no sign flag, and their values were all taken as signed.
            let small = bits.cast_signed();
            let value = if signed || small >= 0 { i64::from(small) } else { i64::from(bits) };
            (text(le::u32_at(r, 0)), value)
        });
        let wide = wide
            .iter()
            .map(move |r| (text(le::u32_at(r, 0)), le::u64_at(r, 4).unwrap_or_default().cast_signed()));
        narrow.chain(wide)
    }

    /// It as a struct or union, behind typedefs and qualifiers.
    ///
    /// # Errors
    /// When it is something else.
    pub fn as_struct(self) -> Result<Struct<'a>, TypeError> {
        let ty = self.resolve()?;
        match ty.kind() {
            Kind::Struct | Kind::Union => {
                Ok(Struct { ty, name: if ty.name().is_empty() { self.name() } else { ty.name() } })
            }
            _ => Err(TypeError::NotAStruct { name: self.name().to_owned(), kind: ty.kind() }),
        }
    }

    /// What a pointer points at, as a struct or union.
    ///
    /// # Errors
    /// When it is no pointer, or points at something else.
    pub fn pointee(self) -> Result<Struct<'a>, TypeError> {
        let ty = self.resolve()?;
        match ty.target()? {
            Some(target) if ty.kind() == Kind::Pointer => target.as_struct(),
            _ => Err(TypeError::NotAStruct { name: self.name().to_owned(), kind: ty.kind() }),
        }
    }
}

/// A bitfield of a struct without `kind_flag` (pahole before 1.13): the integer's own encoding tells the bits.
fn plain_bitfield(ty: Type<'_>, offset: u64) -> (u64, Option<u32>) {
    let Ok(resolved) = ty.resolve() else { return (offset, None) };
    let (Kind::Int, Some(fixed), Some(encoding)) =
        (resolved.kind(), resolved.fixed, le::u32_at(resolved.rest, 0))
    else {
        return (offset, None);
    };
    let bits = encoding & 0xff;
    let inner = encoding >> 16 & 0xff;
    if u64::from(bits) == u64::from(fixed.size_or_type.get()).saturating_mul(8) {
        return (offset, None);
    }
    (offset.saturating_add(u64::from(inner)), Some(bits))
}

/// A member of a struct or union, with its place counted from the struct that was asked.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    btf: &'a Btf,
    name_off: u32,
    ty: Type<'a>,
    bit_offset: u64,
    bits: Option<u32>,
}

impl std::fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at bit {} ({:?} bits): {:?}", self.name(), self.bit_offset, self.bits, self.ty)
    }
}

impl<'a> Member<'a> {
    /// Its name; empty for an unnamed struct or union.
    #[must_use]
    pub fn name(self) -> &'a str {
        std::str::from_utf8(self.btf.string(self.name_off)).unwrap_or_default()
    }

    /// Its type, as declared.
    #[must_use]
    pub fn ty(self) -> Type<'a> {
        self.ty
    }

    /// Bytes before it in the struct. For a bitfield: before the byte that its first bit is in.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.bit_offset >> 3
    }

    /// Bits before it in the struct.
    #[must_use]
    pub fn bit_offset(self) -> u64 {
        self.bit_offset
    }

    /// How many bits a bitfield has; `None` for whole bytes.
    #[must_use]
    pub fn bits(self) -> Option<u32> {
        self.bits
    }

    /// How many bytes it has. For a bitfield: those of its declared type.
    ///
    /// # Errors
    /// As [`Type::size`].
    pub fn size(self) -> Result<u64, BtfError> {
        self.ty.size()
    }

    /// How many elements an array has (of its first dimension); `None` for anything else.
    #[must_use]
    pub fn count(self) -> Option<u32> {
        self.ty.array().ok().flatten().map(|(_, count)| count)
    }

    /// A member inside it, with its place still counted from the outer struct.
    ///
    /// # Errors
    /// When it is no struct, or has no such member.
    pub fn member(self, path: &str) -> Result<Self, TypeError> {
        let inner = self.ty.as_struct()?.member(path)?;
        Ok(Self { bit_offset: self.bit_offset.saturating_add(inner.bit_offset), ..inner })
    }
}

/// A struct or union.
#[derive(Clone, Copy, Debug)]
pub struct Struct<'a> {
    ty: Type<'a>,
    name: &'a str,
}

impl<'a> Struct<'a> {
    /// The type itself.
    #[must_use]
    pub fn ty(self) -> Type<'a> {
        self.ty
    }

    /// Its name, or the typedef's that led here.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.name
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.ty.fixed.map_or(0, |f| u64::from(f.size_or_type.get()))
    }

    /// A member by its name, through unnamed structs and unions. `a.b` and `a[2].b` name what is inside a member.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn member(self, path: &str) -> Result<Member<'a>, TypeError> {
        self.find(path)?
            .ok_or_else(|| TypeError::NoMember { of: self.name.to_owned(), names: path.to_owned() })
    }

    /// The first of several names that the struct has: members were renamed and moved, so the newest kernel's name stands first.
    ///
    /// # Errors
    /// When it has none of them.
    pub fn member_of(self, paths: &[&str]) -> Result<Member<'a>, TypeError> {
        for path in paths {
            if let Some(member) = self.find(path)? {
                return Ok(member);
            }
        }
        Err(TypeError::NoMember { of: self.name.to_owned(), names: paths.join(" or ") })
    }

    /// True where the struct has a member of that name.
    #[must_use]
    pub fn has(self, path: &str) -> bool {
        matches!(self.find(path), Ok(Some(_)))
    }

    fn find(self, path: &str) -> Result<Option<Member<'a>>, TypeError> {
        let mut inside = self.ty;
        let mut before = 0_u64;
        let mut found = None;
        for step in path.split('.') {
            if let Some(Member { ty, .. }) = found {
                let Ok(next) = ty.as_struct() else { return Ok(None) };
                inside = next.ty;
            }
            let (name, places) = step.split_once('[').map_or((step, None), |(name, rest)| (name, Some(rest)));
            let Some(mut member) = find_direct(inside, name.as_bytes())? else { return Ok(None) };
            for place in places.into_iter().flat_map(|p| p.split('[')) {
                let Some((element, count)) = member.ty.array()? else { return Ok(None) };
                let Ok(place) = place.trim_end_matches(']').parse::<u32>() else { return Ok(None) };
                // A flexible array has length zero and any number of elements.
                if count != 0 && place >= count {
                    return Ok(None);
                }
                let skipped = element.size()?.saturating_mul(u64::from(place)).saturating_mul(8);
                member =
                    Member { ty: element, bit_offset: member.bit_offset.saturating_add(skipped), ..member };
            }
            before = before.saturating_add(member.bit_offset);
            found = Some(member);
        }
        Ok(found.map(|member| Member { bit_offset: before, ..member }))
    }
}

/// A member by name, in `ty` or in its unnamed structs and unions.
fn find_direct<'a>(ty: Type<'a>, name: &[u8]) -> Result<Option<Member<'a>>, TypeError> {
    let outermost = ty;
    let mut open = vec![(ty, 0_u64, 0_usize)];
    let mut seen = 0_usize;
    while let Some((ty, before, depth)) = open.pop() {
        for member in ty.members() {
            seen = seen.saturating_add(1);
            if seen > MEMBERS {
                return Err(TypeError::TooDeep { of: outermost.name().to_owned() });
            }
            let place = before.saturating_add(member.bit_offset);
            if member.name_off == 0 {
                if depth < NESTING
                    && let Ok(inner) = member.ty.resolve()
                {
                    open.push((inner, place, depth.saturating_add(1)));
                }
            } else if member.btf.string(member.name_off) == name {
                return Ok(Some(Member { bit_offset: place, ..member }));
            }
        }
    }
    Ok(None)
}

/// An enum.
#[derive(Clone, Copy, Debug)]
pub struct Enum<'a> {
    ty: Type<'a>,
}

impl<'a> Enum<'a> {
    pub(super) fn new(ty: Type<'a>) -> Self {
        Self { ty }
    }

    /// The type itself.
    #[must_use]
    pub fn ty(self) -> Type<'a> {
        self.ty
    }

    /// The value of an enumerator.
    ///
    /// # Errors
    /// When the enum has none of that name.
    pub fn value(self, name: &str) -> Result<i64, TypeError> {
        let found = self.ty.enumerators().find(|(n, _)| *n == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| TypeError::NoMember { of: self.ty.name().to_owned(), names: name.to_owned() })
    }

    /// The first enumerator with this value.
    #[must_use]
    pub fn name_of(self, value: i64) -> Option<&'a str> {
        self.ty.enumerators().find(|(_, v)| *v == value).map(|(name, _)| name)
    }

    /// All enumerators with their values.
    pub fn values(self) -> impl Iterator<Item = (&'a str, i64)> {
        self.ty.enumerators()
    }
}
