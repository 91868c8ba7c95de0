//! What the events are called and which fields they have.

use std::collections::HashMap;

use super::super::Gap;
use super::super::reader::{Reader, note, note_end};
use super::super::value::{Layout, Place, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::TypeError;

/// Sorts of events, and fields of one, that are read.
const MOST: usize = 1 << 16;
const FIELDS: usize = 256;
/// `TRACE_EVENT_FL_TRACEPOINT` is bit 4 of an event's flags where the types do not tell it.
const TRACEPOINT: u32 = 4;
/// Bytes of a text that are shown.
const TEXT: usize = 256;

view! {
    struct Call of "trace_event_call" {
        class: KVirtAddr = ["class"],
        name: KVirtAddr = ["name"],
        flags: u32 = ["flags"],
        kind: u32 = ["event.type"],
    }
}

view! {
    struct Tracepoint of "tracepoint" {
        name: KVirtAddr = ["name"],
    }
}

view! {
    struct Class of "trace_event_class" {
        fields: Place = ["fields"],
    }
}

view! {
    struct FieldObject of "ftrace_event_field" {
        name: KVirtAddr = ["name"],
        ty: KVirtAddr = ["type"],
        offset: i32 = ["offset"],
        size: i32 = ["size"],
        signed: bool = ["is_signed"],
    }
}

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type, as the kernel writes it.
    pub ty: String,
    /// Where in the event it is.
    pub offset: usize,
    /// Bytes that it has.
    pub size: usize,
    /// Whether it may be below zero.
    pub signed: bool,
}

/// One sort of event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name.
    pub name: String,
    /// Its fields, in their order.
    pub fields: Vec<Field>,
}

impl Format {
    /// What an event of this sort says; a field that the event is too short for is left out. `function` names a place in code.
    #[must_use]
    pub fn values(&self, data: &[u8], function: impl Fn(KVirtAddr) -> String) -> Vec<(String, String)> {
        let value = |field: &Field| Some((field.name.clone(), field.value(data, &function)?));
        self.fields.iter().filter_map(value).collect()
    }
}

impl Field {
    fn value(&self, data: &[u8], function: &impl Fn(KVirtAddr) -> String) -> Option<String> {
        let bytes = data.get(self.offset..self.offset.checked_add(self.size)?)?;
        if self.ty.starts_with("__data_loc") || self.ty.starts_with("__rel_loc") {
            let word = u32::from_le_bytes(*bytes.first_chunk::<4>()?);
            let (at, len) = (usize::try_from(word & 0xffff).ok()?, usize::try_from(word >> 16).ok()?);
            let relative = self.ty.starts_with("__rel_loc");
            let base = if relative { self.offset.checked_add(self.size)? } else { 0 };
            let start = base.checked_add(at)?;
            let bytes = data.get(start..start.checked_add(len)?)?;
            return Some(if self.ty.contains("char") { text(bytes) } else { hexadecimal(bytes) });
        }
        if self.ty.contains("char") && (self.ty.contains('[') || self.size == 0) {
            let bytes = if self.size == 0 { data.get(self.offset..)? } else { bytes };
            return Some(text(bytes));
        }
        if !matches!(self.size, 1 | 2 | 4 | 8) || self.ty.contains('[') {
            return Some(hexadecimal(bytes));
        }
        let mut wide = [0_u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        let number = u64::from_le_bytes(wide);
        let code = matches!(self.name.as_str(), "ip" | "parent_ip" | "func" | "ret_ip" | "function");
        if self.size == 8 && code {
            return Some(function(KVirtAddr(number)));
        }
        if self.ty.contains('*') {
            return Some(format!("{number:#x}"));
        }
        if !self.signed {
            return Some(number.to_string());
        }
        let unused = 64_u32.saturating_sub(u32::try_from(self.size.saturating_mul(8)).ok()?);
        let signed = number.checked_shl(unused)?.cast_signed().checked_shr(unused)?;
        Some(signed.to_string())
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()).min(TEXT);
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn hexadecimal(bytes: &[u8]) -> String {
    hex::encode(bytes.get(..TEXT).unwrap_or(bytes))
}

/// All sorts of events by their numbers.
pub(super) fn formats(reader: Reader<'_, '_>, gaps: &mut Vec<Gap>) -> HashMap<u16, Format> {
    match read(reader, gaps) {
        Ok(formats) => formats,
        Err(why) => {
            note(gaps, "the sorts of trace events", why);
            HashMap::new()
        }
    }
}

fn read(reader: Reader<'_, '_>, gaps: &mut Vec<Gap>) -> Result<HashMap<u16, Format>, String> {
    let words = |why: TypeError| why.to_string();
    let calls = Layout::<Call>::new(reader.types).map_err(words)?;
    let points = Layout::<Tracepoint>::new(reader.types).map_err(words)?;
    let classes = Layout::<Class>::new(reader.types).map_err(words)?;
    let objects = Layout::<FieldObject>::new(reader.types).map_err(words)?;
    let link = reader.offset("ftrace_event_field", "link")?;
    let bit = reader.types.kernel().and_then(|kernel| kernel.constant("TRACE_EVENT_FL_TRACEPOINT_BIT").ok());
    let bit = bit.and_then(|bit| u32::try_from(bit).ok()).unwrap_or(TRACEPOINT);
    let tracepoint = 1_u32.checked_shl(bit).unwrap_or_default();
    let walk = reader.objects("ftrace_events", "trace_event_call", "list")?;
    note_end(gaps, "the sorts of trace events", &walk.end);
    let mut found = HashMap::new();
    for kaddr in walk.items.into_iter().take(MOST) {
        let Ok(call) = calls.read(reader.memory, kaddr) else { continue };
        let Ok(kind) = u16::try_from(call.kind) else { continue };
        let name = if call.flags & tracepoint == 0 {
            reader.text(call.name)
        } else {
            points.read(reader.memory, call.name).ok().and_then(|point| reader.text(point.name))
        };
        let Some(name) = name else { continue };
        let mut fields = Vec::new();
        if let Ok(class) = classes.read(reader.memory, call.class) {
            let nodes = reader.list(class.fields.0, link, FIELDS);
            for at in nodes.items {
                let Ok(field) = objects.read(reader.memory, at) else { continue };
                let place = usize::try_from(field.offset).ok().zip(usize::try_from(field.size).ok());
                let Some((offset, size)) = place else { continue };
                fields.push(Field {
                    name: reader.text(field.name).unwrap_or_default(),
                    ty: reader.text(field.ty).unwrap_or_default(),
                    offset,
                    size,
                    signed: field.signed,
                });
            }
        }
        // The kernel keeps the last field first.
        fields.sort_by_key(|field| field.offset);
        found.insert(kind, Format { name, fields });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, ty: &str, offset: usize, size: usize, signed: bool) -> Field {
        Field { name: name.into(), ty: ty.into(), offset, size, signed }
    }

    #[test]
    fn numbers_texts_and_places_are_read_by_their_types() {
        let mut data = vec![0_u8; 8];
        data.extend((-5_i32).to_le_bytes());
        data.extend(7_u32.to_le_bytes());
        data.extend(*b"sh\0garbage\0\0\0\0\0\0");
        // Four bytes at 36.
        data.extend((4_u32 << 16 | 0x24).to_le_bytes());
        data.extend(*b"eth0");
        data.extend(0xffff_ffff_8100_0000_u64.to_le_bytes());
        let format = Format {
            name: "test".into(),
            fields: vec![
                field("prio", "int", 8, 4, true),
                field("count", "u32", 12, 4, false),
                field("comm", "char[16]", 16, 16, false),
                field("dev", "__data_loc char[]", 32, 4, false),
                field("ip", "unsigned long", 40, 8, false),
                field("beyond", "int", 46, 4, true),
            ],
        };
        let values = format.values(&data, |at| format!("<{:#x}>", at.0));
        let shown: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["prio=-5", "count=7", "comm=sh", "dev=eth0", "ip=<0xffffffff81000000>"]);
    }
}
