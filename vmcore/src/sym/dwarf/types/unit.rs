//! The types that one source file describes, and its global variables.

use std::collections::HashMap;

use gimli::constants as dw;
use gimli::{AttributeValue, Dwarf, EntriesRaw, Operation, Reader, Unit, UnitHeader, UnitOffset};

use super::super::file::Slice;
use super::merge::Table;

/// Descriptions of types in one source file.
const TYPES: usize = 1 << 20;
/// Members, enumerators and dimensions in one source file.
const PARTS: usize = 1 << 22;

/// What sort of type is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    Base {
        encoding: u8,
    },
    Float,
    Struct,
    Union,
    Enum,
    Typedef,
    Pointer,
    Const,
    Volatile,
    Restrict,
    /// `_Atomic`, and what else says nothing of the layout.
    Same,
    Array,
    Function,
    Variable,
}

/// One description.
#[derive(Clone, Debug)]
pub(super) struct Die<'d> {
    /// Where it is in its unit.
    pub(super) offset: usize,
    pub(super) sort: Sort,
    pub(super) name: &'d [u8],
    /// Bytes; for a variable its linked address.
    pub(super) size: u64,
    /// The type that it refers to: place in the unit, as the file has it.
    pub(super) target: Option<usize>,
    /// Only declared, nothing of it is known.
    pub(super) declared: bool,
    /// For a variable: seen by other source files.
    pub(super) external: bool,
    /// Its members, enumerators or dimensions.
    pub(super) parts: Vec<Part<'d>>,
}

/// A member, an enumerator or a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'d> {
    pub(super) name: &'d [u8],
    /// A member's type, as the file has it.
    pub(super) target: Option<usize>,
    /// A member's place in bits; an enumerator's value; a dimension's length.
    pub(super) value: u64,
    /// A bit field's width; 0 for others.
    pub(super) bits: u32,
}

/// What of an entry's attributes is of use.
#[derive(Default)]
struct Attributes<'d> {
    name: &'d [u8],
    size: Option<u64>,
    target: Option<usize>,
    declared: bool,
    external: bool,
    encoding: u8,
    sibling: Option<usize>,
    place: Option<u64>,
    bit_size: Option<u64>,
    data_bit_offset: Option<u64>,
    bit_offset: Option<u64>,
    value: u64,
    upper_bound: Option<i64>,
    count: Option<u64>,
    address: Option<u64>,
    specification: Option<usize>,
}

/// Reads one unit into `table`. What is damaged ends the unit there, and the table says so.
pub(super) fn read<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    header: UnitHeader<Slice<'d>>,
    number: usize,
    table: &mut Table<'d>,
) {
    match dies(dwarf, header) {
        Ok((mut dies, damage)) => {
            define(&mut dies);
            table.add(number, &dies);
            if let Some(why) = damage {
                table.note(&why);
            }
        }
        Err(why) => table.note(&why.to_string()),
    }
}

/// A variable's definition takes name and type from its declaration, and the declarations go.
fn define(dies: &mut Vec<Die<'_>>) {
    let declared: HashMap<usize, (&[u8], Option<usize>, bool)> = dies
        .iter()
        .filter(|die| die.sort == Sort::Variable && die.declared)
        .map(|die| (die.offset, (die.name, die.target, die.external)))
        .collect();
    dies.retain(|die| die.sort != Sort::Variable || !die.declared);
    for die in dies.iter_mut().filter(|die| die.sort == Sort::Variable) {
        if let Some((name, target, external)) = die.target.and_then(|offset| declared.get(&offset)) {
            die.name = name;
            die.target = *target;
            die.external |= *external;
        }
    }
}

type Found<'d> = (Vec<Die<'d>>, Option<String>);

fn dies<'d>(dwarf: &Dwarf<Slice<'d>>, header: UnitHeader<Slice<'d>>) -> gimli::Result<Found<'d>> {
    let unit = dwarf.unit(header)?;
    let mut found: Vec<Die<'d>> = Vec::new();
    // The entries that are open: their depth, and which type they are, if any.
    let mut open: Vec<(isize, Option<usize>)> = Vec::new();
    let mut entries = unit.entries_raw(None)?;
    let mut base = 0_isize;
    let mut parts = 0_usize;
    while !entries.is_empty() {
        let offset = entries.next_offset();
        let depth = base.saturating_add(entries.next_depth());
        let abbreviation = match entries.read_abbreviation() {
            Ok(Some(abbreviation)) => abbreviation,
            Ok(None) => continue,
            Err(error) => return Ok((found, Some(error.to_string()))),
        };
        while open.last().is_some_and(|(d, _)| *d >= depth) {
            open.pop();
        }
        let tag = abbreviation.tag();
        // Functions are most of a file, and no type that others can see is inside.
        let skipped =
            matches!(tag, dw::DW_TAG_subprogram | dw::DW_TAG_lexical_block | dw::DW_TAG_inlined_subroutine);
        let mut attributes = Attributes::default();
        for spec in abbreviation.attributes() {
            match entries.read_attribute_inline(*spec) {
                Ok(attribute) => {
                    attributes.take(dwarf, &unit, attribute.name(), attribute.raw_value());
                }
                Err(error) => return Ok((found, Some(error.to_string()))),
            }
        }
        if skipped {
            if abbreviation.has_children() {
                match attributes.sibling.filter(|s| *s > offset.0) {
                    Some(sibling) => {
                        base = depth;
                        entries = unit.entries_raw(Some(UnitOffset(sibling)))?;
                    }
                    None => skip(&mut entries)?,
                }
            }
            continue;
        }
        let inside = open.last().and_then(|(_, die)| *die);
        match part(tag, &attributes) {
            Some(part) => {
                parts = parts.saturating_add(1);
                if let Some(die) = inside.and_then(|n| found.get_mut(n)).filter(|_| parts < PARTS) {
                    die.parts.push(part);
                }
            }
            None if found.len() < TYPES => found.extend(die(tag, offset.0, &attributes)),
            None => return Ok((found, Some("one source file has too many types to be true".into()))),
        }
        if abbreviation.has_children() {
            let own =
                found.len().checked_sub(1).filter(|n| found.get(*n).is_some_and(|d| d.offset == offset.0));
            open.push((depth, own));
        }
    }
    Ok((found, None))
}

/// Reads over the children of the entry that was just read.
fn skip(entries: &mut EntriesRaw<'_, Slice<'_>>) -> gimli::Result<()> {
    let outside = entries.next_depth().saturating_sub(1);
    while !entries.is_empty() && entries.next_depth() > outside {
        if let Some(abbreviation) = entries.read_abbreviation()? {
            entries.skip_attributes(abbreviation.attributes())?;
        }
    }
    Ok(())
}

fn part<'d>(tag: gimli::DwTag, a: &Attributes<'d>) -> Option<Part<'d>> {
    match tag {
        dw::DW_TAG_member => {
            let bits = a.bit_size.and_then(|b| u32::try_from(b).ok()).unwrap_or_default();
            Some(Part { name: a.name, target: a.target, value: a.bit_place(bits), bits })
        }
        dw::DW_TAG_enumerator => Some(Part { name: a.name, target: None, value: a.value, bits: 0 }),
        dw::DW_TAG_subrange_type => {
            let above = a.upper_bound.and_then(|upper| u64::try_from(upper.checked_add(1)?).ok());
            let count = a.count.or(above).unwrap_or_default();
            Some(Part { name: &[], target: None, value: count, bits: 0 })
        }
        _ => None,
    }
}

fn die<'d>(tag: gimli::DwTag, offset: usize, a: &Attributes<'d>) -> Option<Die<'d>> {
    let mut size = a.size.unwrap_or_default();
    let mut target = a.target;
    let sort = match tag {
        dw::DW_TAG_base_type if dw::DwAte(a.encoding) == dw::DW_ATE_float => Sort::Float,
        dw::DW_TAG_base_type => Sort::Base { encoding: a.encoding },
        dw::DW_TAG_structure_type | dw::DW_TAG_class_type => Sort::Struct,
        dw::DW_TAG_union_type => Sort::Union,
        dw::DW_TAG_enumeration_type => Sort::Enum,
        dw::DW_TAG_typedef => Sort::Typedef,
        dw::DW_TAG_pointer_type => Sort::Pointer,
        dw::DW_TAG_const_type => Sort::Const,
        dw::DW_TAG_volatile_type => Sort::Volatile,
        dw::DW_TAG_restrict_type => Sort::Restrict,
        dw::DW_TAG_atomic_type => Sort::Same,
        dw::DW_TAG_array_type => Sort::Array,
        dw::DW_TAG_subroutine_type => Sort::Function,
        dw::DW_TAG_variable => {
            // A declaration has no place; the definition may refer to it for name and type.
            if a.address.is_none() && !a.declared {
                return None;
            }
            size = a.address.unwrap_or_default();
            target = a.specification.or(a.target);
            Sort::Variable
        }
        _ => return None,
    };
    let declared = a.declared;
    Some(Die { offset, sort, name: a.name, size, target, declared, external: a.external, parts: Vec::new() })
}

impl<'d> Attributes<'d> {
    fn take(
        &mut self,
        dwarf: &Dwarf<Slice<'d>>,
        unit: &Unit<Slice<'d>>,
        name: gimli::DwAt,
        value: AttributeValue<Slice<'d>>,
    ) {
        match name {
            dw::DW_AT_name => {
                self.name = dwarf.attr_string(unit, value).map(|s| s.slice()).unwrap_or_default();
            }
            dw::DW_AT_byte_size => self.size = value.udata_value(),
            dw::DW_AT_type => self.target = reference(unit, &value),
            dw::DW_AT_specification => self.specification = reference(unit, &value),
            dw::DW_AT_sibling => self.sibling = reference(unit, &value),
            dw::DW_AT_declaration => self.declared = value == AttributeValue::Flag(true),
            dw::DW_AT_external => self.external = value == AttributeValue::Flag(true),
            dw::DW_AT_encoding => {
                self.encoding = value.udata_value().and_then(|v| u8::try_from(v).ok()).unwrap_or_default();
            }
            dw::DW_AT_data_member_location => self.place = place(unit, value),
            dw::DW_AT_bit_size => self.bit_size = value.udata_value(),
            dw::DW_AT_data_bit_offset => self.data_bit_offset = value.udata_value(),
            dw::DW_AT_bit_offset => self.bit_offset = value.udata_value(),
            dw::DW_AT_const_value => self.value = signed(&value).cast_unsigned(),
            dw::DW_AT_upper_bound => self.upper_bound = Some(signed(&value)),
            dw::DW_AT_count => self.count = value.udata_value(),
            dw::DW_AT_location => self.address = address(dwarf, unit, value),
            _ => {}
        }
    }

    /// Bits before a member in its struct.
    fn bit_place(&self, bits: u32) -> u64 {
        let start = self.place.unwrap_or_default().saturating_mul(8);
        if let Some(offset) = self.data_bit_offset {
            return start.saturating_add(offset);
        }
        match (self.bit_offset, self.size) {
            // Up to DWARF 4: bits between the highest bit of the storage unit and that of the field.
            (Some(offset), Some(size)) => start
                .saturating_add(size.saturating_mul(8))
                .saturating_sub(offset)
                .saturating_sub(u64::from(bits)),
            _ => start,
        }
    }
}

/// A reference inside the unit; to another unit (link-time optimisation makes them) there is none here.
fn reference(unit: &Unit<Slice<'_>>, value: &AttributeValue<Slice<'_>>) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(offset) => Some(offset.0),
        AttributeValue::DebugInfoRef(offset) => offset.0.checked_sub(unit.header.offset().0),
        _ => None,
    }
}

/// The number; forms without a sign are taken as they are.
fn signed(value: &AttributeValue<Slice<'_>>) -> i64 {
    match value {
        AttributeValue::Sdata(value) => *value,
        other => other.udata_value().map(u64::cast_signed).unwrap_or_default(),
    }
}

fn place(unit: &Unit<Slice<'_>>, value: AttributeValue<Slice<'_>>) -> Option<u64> {
    let (AttributeValue::Exprloc(gimli::Expression(mut bytes)) | AttributeValue::Block(mut bytes)) = value
    else {
        return value.udata_value();
    };
    match Operation::parse(&mut bytes, unit.encoding()).ok()? {
        Operation::PlusConstant { value } | Operation::UnsignedConstant { value } => Some(value),
        _ => None,
    }
}

fn address(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    value: AttributeValue<Slice<'_>>,
) -> Option<u64> {
    let (AttributeValue::Exprloc(gimli::Expression(mut bytes)) | AttributeValue::Block(mut bytes)) = value
    else {
        return None;
    };
    let first = Operation::parse(&mut bytes, unit.encoding()).ok()?;
    match first {
        Operation::Address { address } if bytes.is_empty() => Some(address),
        Operation::AddressIndex { index } if bytes.is_empty() => dwarf.address(unit, index).ok(),
        _ => None,
    }
}
