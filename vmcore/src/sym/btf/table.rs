//! The table of types as it lies in memory: where each type begins, its strings, and an index by name made on first use.
//!
//! Nothing is turned into objects: 150,000 types of a kernel cost four bytes each, and a type is decoded when it is asked for.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use zerocopy::FromBytes;

use super::types::Type;
use super::{BtfError, TypeId};
use crate::raw::btf::{self as raw, BtfHeader, BtfHeaderLayout, BtfLayout, BtfType, kind};

/// The types of the kernel, or of one module on top of the kernel's.
pub struct Btf {
    data: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
    /// Where each type begins among the types; the first is `first_id`.
    at: Vec<u32>,
    first_id: u32,
    /// How many bytes of strings the base has: a module's string offsets count on from there.
    base_strings: u32,
    base: Option<Arc<Btf>>,
    damage: Option<String>,
    index: OnceLock<Vec<(u32, u32)>>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf")
            .field("types", &self.at.len())
            .field("first_id", &self.first_id)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

impl Btf {
    /// Reads a table that stands alone, as the kernel's own.
    ///
    /// Where the types stop making sense half way, those before are kept and [`Btf::damage`] says what is wrong.
    ///
    /// # Errors
    /// When the header is none, or names sections that are not there, or not one type can be read.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_on(data, None)
    }

    /// Reads a module's table, whose ids and strings count on from those of `base`.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn parse_split(data: Vec<u8>, base: Arc<Btf>) -> Result<Self, BtfError> {
        Self::parse_on(data, Some(base))
    }

    fn parse_on(data: Vec<u8>, base: Option<Arc<Btf>>) -> Result<Self, BtfError> {
        let (header, _) =
            BtfHeader::read_from_prefix(&data).map_err(|_| BtfError::Short { len: data.len() })?;
        if header.magic.get() != raw::MAGIC {
            return Err(BtfError::Magic { found: header.magic.get() });
        }
        if header.version != raw::VERSION {
            return Err(BtfError::Version { found: header.version });
        }
        let section = |what: &'static str, off: u32, len: u32| {
            let start = u64::from(header.hdr_len.get()).saturating_add(u64::from(off));
            let end = start.saturating_add(u64::from(len));
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(start), Ok(end)) if start <= end && start <= data.len() => Ok((start, end)),
                _ => Err(BtfError::Section { what, start, end, len: data.len() }),
            }
        };
        let (type_start, type_end) = section("types", header.type_off.get(), header.type_len.get())?;
        let (str_start, str_end) = section("strings", header.str_off.get(), header.str_len.get())?;
        let layouts = layouts(&data, header);
        let mut damage = None;
        if type_end > data.len() || str_end > data.len() {
            damage = Some(format!(
                "{} bytes of BTF are there, but its header announces {}",
                data.len(),
                type_end.max(str_end)
            ));
        }
        let types = type_start..type_end.min(data.len());
        let strings = str_start..str_end.min(data.len());
        let (at, broken) = find_types(data.get(types.clone()).unwrap_or_default(), &layouts);
        if at.is_empty() && !types.is_empty() {
            return Err(BtfError::NoTypes { why: broken.unwrap_or_default() });
        }
        let (first_id, base_strings) = match &base {
            Some(base) => (base.end_id(), base.end_string()),
            None => (1, 0),
        };
        Ok(Self {
            data,
            types,
            strings,
            at,
            first_id,
            base_strings,
            base,
            damage: damage.or(broken),
            index: OnceLock::new(),
        })
    }

    /// What is wrong with the table, where it could be read in part only.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Adds what its reader knows to be wrong.
    pub(in crate::sym) fn note_damage(&mut self, what: String) {
        self.damage = Some(match self.damage.take() {
            Some(known) => format!("{what}; {known}"),
            None => what,
        });
    }

    /// How many types it has, without those of its base.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// True where it has no type of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Bytes that it keeps in memory.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let index = self.index.get().map_or(0, |i| i.len().saturating_mul(8));
        self.data.len().saturating_add(self.at.len().saturating_mul(4)).saturating_add(index)
    }

    /// The type with this id, from here or from the base. Id 0 is `void`.
    ///
    /// # Errors
    /// When no such type exists.
    pub fn by_id(&self, id: TypeId) -> Result<Type<'_>, BtfError> {
        if id.0 == 0 {
            return Ok(Type::void(self));
        }
        if id.0 < self.first_id {
            return match &self.base {
                Some(base) => base.by_id(id),
                None => Err(BtfError::NoSuchId { id }),
            };
        }
        let types = self.data.get(self.types.clone()).unwrap_or_default();
        let place = id.0.checked_sub(self.first_id).and_then(|n| usize::try_from(n).ok());
        let start = place.and_then(|n| self.at.get(n)).and_then(|at| usize::try_from(*at).ok());
        let bytes = start.and_then(|at| types.get(at..)).ok_or(BtfError::NoSuchId { id })?;
        let (fixed, rest) = BtfType::read_from_prefix(bytes).map_err(|_| BtfError::NoSuchId { id })?;
        Ok(Type::new(self, id, fixed, rest))
    }

    /// The ids of its own types, in order.
    pub fn ids(&self) -> impl Iterator<Item = TypeId> + '_ {
        (self.first_id..self.end_id()).map(TypeId)
    }

    /// The string at `offset`, from here or from the base; empty where there is none.
    pub(super) fn string(&self, offset: u32) -> &[u8] {
        if let Some(base) = &self.base
            && offset < self.base_strings
        {
            return base.string(offset);
        }
        let strings = self.data.get(self.strings.clone()).unwrap_or_default();
        let local = offset.checked_sub(self.base_strings).and_then(|o| usize::try_from(o).ok());
        let tail = local.and_then(|o| strings.get(o..)).unwrap_or_default();
        let end = tail.iter().position(|b| *b == 0).unwrap_or(tail.len());
        tail.get(..end).unwrap_or_default()
    }

    /// The types of its own with this name that carry data or name such (no functions), in order of their ids.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type<'a>> + 'a {
        let index = self.index.get_or_init(|| self.build_index());
        let hash = hash(name.as_bytes());
        let from = index.partition_point(|(h, _)| *h < hash);
        index
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(move |(h, _)| *h == hash)
            .filter_map(|(_, id)| self.by_id(TypeId(*id)).ok())
            .filter(move |ty| ty.name_bytes() == name.as_bytes())
    }

    fn end_id(&self) -> u32 {
        let count = u32::try_from(self.at.len()).unwrap_or(u32::MAX);
        self.first_id.saturating_add(count)
    }

    fn end_string(&self) -> u32 {
        let own = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.base_strings.saturating_add(own)
    }

    fn build_index(&self) -> Vec<(u32, u32)> {
        let types = self.data.get(self.types.clone()).unwrap_or_default();
        let mut index = Vec::with_capacity(self.at.len().checked_div(2).unwrap_or_default());
        for (id, at) in (self.first_id..).zip(&self.at) {
            let bytes = usize::try_from(*at).ok().and_then(|at| types.get(at..)).unwrap_or_default();
            let Ok((fixed, _)) = BtfType::read_from_prefix(bytes) else { continue };
            let indexed = matches!(
                fixed.kind(),
                kind::INT
                    | kind::STRUCT
                    | kind::UNION
                    | kind::ENUM
                    | kind::TYPEDEF
                    | kind::VAR
                    | kind::DATASEC
                    | kind::FLOAT
                    | kind::ENUM64
            );
            if indexed && fixed.name_off.get() != 0 {
                index.push((hash(self.string(fixed.name_off.get())), id));
            }
        }
        index.sort_unstable();
        index
    }
}

/// The layout section of a kernel that has one: bytes once and bytes per element, by kind.
fn layouts(data: &[u8], header: BtfHeader) -> Vec<(u8, u8)> {
    let Some(rest) = data.get(size_of::<BtfHeader>()..) else { return Vec::new() };
    if u64::from(header.hdr_len.get()) < 32 {
        return Vec::new();
    }
    let Ok((place, _)) = BtfHeaderLayout::read_from_prefix(rest) else { return Vec::new() };
    let start = u64::from(header.hdr_len.get()).saturating_add(u64::from(place.layout_off.get()));
    let end = start.saturating_add(u64::from(place.layout_len.get()));
    let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
    let bytes = data.get(range).unwrap_or_default();
    let (found, _) = bytes.as_chunks::<4>();
    found
        .iter()
        .take(128)
        .filter_map(|c| BtfLayout::read_from_bytes(c).ok())
        .map(|l| (l.info_sz, l.elem_sz))
        .collect()
}

/// Where each type begins, and why the search ended early if it did.
fn find_types(types: &[u8], layouts: &[(u8, u8)]) -> (Vec<u32>, Option<String>) {
    let mut found = Vec::with_capacity(types.len().checked_div(28).unwrap_or_default());
    let mut at = 0_usize;
    while let Some(bytes) = types.get(at..).filter(|b| !b.is_empty()) {
        let Ok((fixed, _)) = BtfType::read_from_prefix(bytes) else {
            return (found, Some(format!("the last {} bytes of the BTF types are no type", bytes.len())));
        };
        let layout =
            raw::known_layout(fixed.kind()).or_else(|| layouts.get(usize::from(fixed.kind())).copied());
        let (Some((once, each)), false) = (layout, fixed.kind() == 0) else {
            let why = format!(
                "BTF type {} (at byte {at:#x} of the types) is of unknown kind {}",
                found.len().saturating_add(1),
                fixed.kind()
            );
            return (found, Some(why));
        };
        let elements = usize::try_from(fixed.vlen()).unwrap_or(usize::MAX).saturating_mul(usize::from(each));
        let size = size_of::<BtfType>().saturating_add(usize::from(once)).saturating_add(elements);
        if size > bytes.len() {
            let why = format!(
                "BTF type {} (at byte {at:#x} of the types) reaches past the end of the types",
                found.len().saturating_add(1)
            );
            return (found, Some(why));
        }
        let Ok(start) = u32::try_from(at) else { break };
        found.push(start);
        at = at.saturating_add(size);
    }
    (found, None)
}

/// FNV-1a: short names, no keys that an attacker gains from (equal hashes only cost a comparison).
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash: u32, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
