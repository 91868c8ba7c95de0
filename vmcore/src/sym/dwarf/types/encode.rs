//! Writes types as BTF, the form that all readers of types know.

use std::collections::{HashMap, HashSet};

use super::super::symtab::LINKED;
use super::merge::{Key, Record, Table};
use super::unit::{Part, Sort};
use crate::raw::btf::{self as raw, kind};

/// Bits of an integer's encoding: signed, `char`, `bool`.
const SIGNED: u32 = 1 << 24;
const CHAR: u32 = 2 << 24;
const BOOL: u32 = 4 << 24;
/// How many elements fit into a type's `vlen`.
const VLEN: usize = 0x00ff_ffff;
/// The bits of a member's place where its struct has bit fields.
const PLACE: u64 = 0x00ff_ffff;

/// The per-CPU variables of the file's symbol table.
#[derive(Debug, Default)]
pub(super) struct PerCpu<'d> {
    /// Where their section is linked.
    pub(super) section: Option<(u64, u64)>,
    /// Their names and addresses.
    pub(super) symbols: HashSet<(&'d [u8], u64)>,
}

/// All types of the table.
pub(super) fn encode<'d>(table: &mut Table<'d>, per_cpu: &PerCpu<'d>) -> Result<Vec<u8>, String> {
    let records = std::mem::take(&mut table.records);
    let mut order: Vec<(Key, Record<'_>)> = records.into_iter().collect();
    order.sort_unstable_by_key(|(_, record)| record.first);
    // The compiler's helpers and what the linker threw away have addresses of no meaning, from 0 on.
    order.retain(|(_, record)| {
        let die = &record.die;
        die.sort != Sort::Variable || die.size >= LINKED || per_cpu.symbols.contains(&(die.name, die.size))
    });
    let kept = unambiguous(&order);
    order.retain(|(key, record)| record.die.sort != Sort::Variable || kept.get(record.die.name) == Some(key));
    let mut writer = Writer::new(&order)?;
    for (_, record) in &order {
        writer.record(record);
    }
    writer.per_cpu(&order, per_cpu);
    if let Some(why) = writer.damage.take() {
        table.note(&why);
    }
    writer.finish()
}

/// The variables whose name means one thing: the only one that other files see, or the only one at all.
fn unambiguous<'d>(order: &[(Key, Record<'d>)]) -> HashMap<&'d [u8], Key> {
    let mut found: HashMap<&[u8], (Key, &Record<'d>, bool)> = HashMap::new();
    for (key, record) in order.iter().filter(|(_, r)| r.die.sort == Sort::Variable && !r.die.name.is_empty())
    {
        let entry = found.entry(record.die.name).or_insert((*key, record, true));
        if entry.0 == *key {
            continue;
        }
        if record.die.external && !entry.1.die.external {
            *entry = (*key, record, true);
        } else if record.die.external == entry.1.die.external && record.target != entry.1.target {
            entry.2 = false;
        }
    }
    found.into_iter().filter(|(_, (.., one))| *one).map(|(name, (key, ..))| (name, key)).collect()
}

struct Writer<'d> {
    types: Vec<u8>,
    strings: Vec<u8>,
    places: HashMap<&'d [u8], u32>,
    ids: HashMap<Key, u32>,
    damage: Option<String>,
}

impl<'d> Writer<'d> {
    fn new(order: &[(Key, Record<'d>)]) -> Result<Self, String> {
        let mut this = Self {
            types: Vec::new(),
            strings: vec![0],
            places: HashMap::new(),
            ids: HashMap::new(),
            damage: None,
        };
        let mut defined: HashMap<(Sort, &[u8]), u32> = HashMap::new();
        let mut next = 1_u32;
        for (key, record) in order {
            if let Sort::Same = record.die.sort {
                continue;
            }
            this.ids.insert(*key, next);
            let is_definition = !record.die.declared && !record.die.name.is_empty();
            if is_definition {
                defined.entry((record.die.sort, record.die.name)).or_insert(next);
            }
            next = next.checked_add(1).ok_or("the file has too many types")?;
        }
        // What is only declared in one file is meant to be what another one defines; the kernel's own files come first.
        for (key, record) in order.iter().filter(|(_, record)| record.die.declared) {
            if let Some(id) = defined.get(&(record.die.sort, record.die.name)) {
                this.ids.insert(*key, *id);
            }
        }
        this.pass_through(order);
        Ok(this)
    }

    /// `_Atomic` and the like stand for what they are made of.
    fn pass_through(&mut self, order: &[(Key, Record<'d>)]) {
        let same: HashMap<Key, Option<Key>> =
            order.iter().filter(|(_, r)| r.die.sort == Sort::Same).map(|(key, r)| (*key, r.target)).collect();
        for key in same.keys() {
            let mut at = Some(*key);
            for _ in 0..same.len() {
                match at.and_then(|key| same.get(&key)) {
                    Some(next) => at = *next,
                    None => break,
                }
            }
            let id = at.and_then(|key| self.ids.get(&key)).copied().unwrap_or_default();
            self.ids.insert(*key, id);
        }
    }

    fn id(&self, key: Option<Key>) -> u32 {
        key.and_then(|key| self.ids.get(&key)).copied().unwrap_or_default()
    }

    fn string(&mut self, text: &'d [u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = u32::try_from(self.strings.len()).unwrap_or_default();
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        self.places.insert(text, place);
        place
    }

    fn word(&mut self, word: u32) {
        self.types.extend_from_slice(&word.to_le_bytes());
    }

    fn head(&mut self, name: u32, kind: u8, count: usize, flag: bool, size_or_type: u32) {
        let vlen = u32::try_from(count.min(VLEN)).unwrap_or_default();
        self.word(name);
        self.word(u32::from(flag) << 31 | u32::from(kind) << 24 | vlen);
        self.word(size_or_type);
    }

    fn record(&mut self, record: &Record<'d>) {
        let die = &record.die;
        let name = self.string(die.name);
        let size = u32::try_from(die.size).unwrap_or(u32::MAX);
        let target = self.id(record.target);
        match die.sort {
            Sort::Base { encoding } => {
                self.head(name, kind::INT, 0, false, size);
                let bits = size.saturating_mul(8) & 0xff;
                self.word(bits | integer(encoding));
            }
            Sort::Float => self.head(name, kind::FLOAT, 0, false, size),
            Sort::Struct | Sort::Union if die.declared => {
                self.head(name, kind::FWD, 0, die.sort == Sort::Union, 0);
            }
            Sort::Struct => self.members(name, kind::STRUCT, size, record),
            Sort::Union => self.members(name, kind::UNION, size, record),
            Sort::Enum => self.enumerators(name, size, &die.parts),
            Sort::Typedef => self.head(name, kind::TYPEDEF, 0, false, target),
            Sort::Pointer => self.head(0, kind::PTR, 0, false, target),
            Sort::Const => self.head(0, kind::CONST, 0, false, target),
            Sort::Volatile => self.head(0, kind::VOLATILE, 0, false, target),
            Sort::Restrict => self.head(0, kind::RESTRICT, 0, false, target),
            Sort::Function => self.head(0, kind::FUNC_PROTO, 0, false, target),
            Sort::Same => {}
            Sort::Array => self.array(&die.parts, target),
            Sort::Variable => {
                self.head(name, kind::VAR, 0, false, target);
                self.word(u32::from(die.external));
            }
        }
    }

    /// All dimensions as one, as `pahole` writes them: the readers of the kernel's own BTF expect no other form.
    fn array(&mut self, parts: &[Part<'d>], element: u32) {
        let length = match parts {
            [] => 0,
            parts => parts.iter().map(|part| part.value).fold(1, u64::saturating_mul),
        };
        self.head(0, kind::ARRAY, 0, false, 0);
        self.word(element);
        self.word(0);
        self.word(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn members(&mut self, name: u32, kind: u8, size: u32, record: &Record<'d>) {
        let parts = &record.die.parts;
        let flag = parts.iter().any(|part| part.bits != 0);
        self.head(name, kind, parts.len(), flag, size);
        for (part, ty) in parts.iter().zip(&record.members).take(VLEN) {
            let name = self.string(part.name);
            let id = self.id(*ty);
            if flag && part.value > PLACE || part.value > u64::from(u32::MAX) {
                self.damage.get_or_insert_with(|| "a struct is too large for BTF".into());
            }
            let place = u32::try_from(part.value).unwrap_or(u32::MAX);
            self.word(name);
            self.word(id);
            self.word(if flag { part.bits << 24 | place & 0x00ff_ffff } else { place });
        }
    }

    fn enumerators(&mut self, name: u32, size: u32, parts: &[Part<'d>]) {
        let signed = parts.iter().any(|part| part.value.cast_signed() < 0);
        let wide = size > 4;
        self.head(name, if wide { kind::ENUM64 } else { kind::ENUM }, parts.len(), signed, size);
        for part in parts.iter().take(VLEN) {
            let name = self.string(part.name);
            let low = u32::try_from(part.value & 0xffff_ffff).unwrap_or_default();
            self.word(name);
            self.word(low);
            if wide {
                self.word(u32::try_from(part.value >> 32).unwrap_or_default());
            }
        }
    }

    /// The section of per-CPU variables, as the kernel's own BTF has it.
    fn per_cpu(&mut self, order: &[(Key, Record<'d>)], known: &PerCpu<'d>) {
        let Some((start, end)) = known.section.filter(|(start, end)| start < end) else { return };
        let inside = |(key, record): &(Key, Record<'d>)| {
            let is = record.die.sort == Sort::Variable && (start..end).contains(&record.die.size);
            let into = u32::try_from(record.die.size.checked_sub(start)?).ok()?;
            is.then(|| (into, self.id(Some(*key))))
        };
        let mut found: Vec<(u32, u32)> = order.iter().filter_map(inside).collect();
        found.sort_unstable();
        let name = self.string(b".data..percpu");
        let size = u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX);
        self.head(name, kind::DATASEC, found.len(), false, size);
        for (place, id) in found.into_iter().take(VLEN) {
            self.word(id);
            self.word(place);
            self.word(0);
        }
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        let too_large = |_| "the types do not fit into BTF".to_owned();
        let types = u32::try_from(self.types.len()).map_err(too_large)?;
        let strings = u32::try_from(self.strings.len()).map_err(too_large)?;
        let mut out =
            Vec::with_capacity(self.types.len().saturating_add(self.strings.len()).saturating_add(24));
        out.extend_from_slice(&raw::MAGIC.to_le_bytes());
        out.extend_from_slice(&[raw::VERSION, 0]);
        for word in [24, 0, types, types, strings] {
            out.extend_from_slice(&u32::to_le_bytes(word));
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        Ok(out)
    }
}

/// How DWARF's `DW_ATE_…` is said in BTF.
fn integer(encoding: u8) -> u32 {
    match gimli::DwAte(encoding) {
        gimli::DW_ATE_boolean => BOOL,
        gimli::DW_ATE_signed => SIGNED,
        gimli::DW_ATE_signed_char => SIGNED | CHAR,
        gimli::DW_ATE_unsigned_char | gimli::DW_ATE_UTF => CHAR,
        _ => 0,
    }
}
