//! Finds the kernel's types in its memory, and the modules' beside them.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::{Btf, BtfError};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::raw::btf::{self as raw, BtfHeader};
use crate::sym::Symbols;
use crate::sym::image::{Image, read_table};
use crate::xlat::KernelMemory;

/// The kernel's own types are megabytes; smaller tables in its image are those of built-in BPF programs.
const SMALLEST: u32 = 100 << 10;

/// How the types were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BtfSource {
    /// The symbols `__start_BTF` and `__stop_BTF` name them.
    Symbols,
    /// By their first bytes, in the kernel's image.
    Scan,
    /// The dump has none: they were made of a vmlinux's DWARF.
    Dwarf,
}

/// Where the kernel's types are: by its symbols, or else by a search of its image.
///
/// # Errors
/// When neither finds them: the kernel was built without them, or that part is not in the dump.
pub fn find_kernel_btf(
    memory: &KernelMemory<'_>,
    symbols: &Symbols,
    stext: Option<KVirtAddr>,
    limits: &Limits,
) -> Result<(KVirtAddr, u64, BtfSource), BtfError> {
    let named = symbols.address("__start_BTF").zip(symbols.address("__stop_BTF"));
    if let Some((start, stop)) = named
        && let Some(len) = stop.0.checked_sub(start.0).filter(|len| *len > 0 && *len <= limits.btf_bytes)
    {
        return Ok((start, len, BtfSource::Symbols));
    }
    if symbols.kernel().is_some() && named.is_none() {
        return Err(BtfError::Unreadable {
            why: "the kernel was built without BTF (it has no symbol __start_BTF)".into(),
        });
    }
    let stext = stext.or_else(|| symbols.address("_stext"));
    let found = [24_u8, 32].iter().find_map(|header_bytes| {
        let first = [0x9f, 0xeb, raw::VERSION, 0, *header_bytes, 0, 0, 0, 0, 0, 0, 0];
        Image::of(memory, stext).search(memory, &first, |at| whole(memory, at, limits).map(|len| (at, len)))
    });
    let none = || BtfError::Unreadable {
        why: "no BTF is in the part of the kernel's image that is in the dump".into(),
    };
    found.map(|(at, len)| (at, len, BtfSource::Scan)).ok_or_else(none)
}

/// How long the table at `at` is by its header, where that can be true.
fn whole(memory: &KernelMemory<'_>, at: KVirtAddr, limits: &Limits) -> Option<u64> {
    let mut bytes = [0_u8; size_of::<BtfHeader>()];
    memory.read(at, &mut bytes).ok()?;
    let header = BtfHeader::read_from_bytes(&bytes).ok()?;
    let plausible = header.type_len.get() >= SMALLEST
        && header.str_off.get() >= header.type_len.get()
        && header.str_len.get() >= SMALLEST;
    let end = u64::from(header.str_off.get()).saturating_add(u64::from(header.str_len.get()));
    let len = end.saturating_add(u64::from(header.hdr_len.get()));
    // The first string is the empty one.
    let strings =
        at.checked_add(u64::from(header.hdr_len.get()))?.checked_add(u64::from(header.str_off.get()))?;
    (plausible && len <= limits.btf_bytes && memory.read_u8(strings).ok()? == 0).then_some(len)
}

/// The kernel's types.
///
/// # Errors
/// When they are not in the dump or not one of them makes sense. What is there in part is read in part, see [`Btf::damage`].
pub fn load_kernel_btf(
    memory: &KernelMemory<'_>,
    symbols: &Symbols,
    stext: Option<KVirtAddr>,
    limits: &Limits,
) -> Result<(Btf, BtfSource), BtfError> {
    let (at, len, source) = find_kernel_btf(memory, symbols, stext, limits)?;
    Ok((read(memory, at, len, None)?, source))
}

/// The types of one module: `len` bytes at `at`, on top of the kernel's.
///
/// # Errors
/// As [`load_kernel_btf`].
pub fn load_module_btf(
    memory: &KernelMemory<'_>,
    at: KVirtAddr,
    len: u64,
    base: &Arc<Btf>,
    limits: &Limits,
) -> Result<Btf, BtfError> {
    if len > limits.btf_bytes {
        return Err(BtfError::Unreadable { why: format!("the module's table should have {len} bytes") });
    }
    read(memory, at, len, Some(Arc::clone(base)))
}

fn read(memory: &KernelMemory<'_>, at: KVirtAddr, len: u64, base: Option<Arc<Btf>>) -> Result<Btf, BtfError> {
    let mut bytes = read_table(memory, at, usize::try_from(len).unwrap_or_default());
    let missing: usize = bytes.missing.iter().map(|m| m.range.len()).sum();
    let why = bytes.missing.first().map(|m| m.why.to_string());
    if let Some(first) = bytes.missing.first().filter(|m| m.range.start == 0) {
        return Err(BtfError::Unreadable { why: first.why.to_string() });
    }
    let data = std::mem::take(&mut bytes.bytes);
    let mut table = match base {
        Some(base) => Btf::parse_split(data, base)?,
        None => Btf::parse(data)?,
    };
    if let Some(why) = why {
        table.note_damage(format!("{missing} of its {len} bytes are not in the dump ({why})"));
    }
    Ok(table)
}
