//! Reads the symbol table: from where VMCOREINFO says, or from where a search found it.

use std::ops::Range;

use super::addresses::{self, Encoding};
use super::names::{self, LOST, Places};
use super::scan::{self, Tables};
use super::tokens::Tokens;
use super::{Found, Kallsyms, KallsymsError, Parts};
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::sym::image::read_table;
use crate::xlat::{KernelMemory, Sparse};

/// What follows the names at least (markers), and what one name takes at most on average. Bounds what is read for them.
const NAME_BYTES: usize = 64;

/// The kernel's symbols: from where VMCOREINFO says, or else by a search of the kernel's image.
///
/// # Errors
/// When both ways fail; the reason is the second one's unless VMCOREINFO named the table.
pub fn load(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    limits: &Limits,
) -> Result<Kallsyms, KallsymsError> {
    match by_vmcoreinfo(memory, info, limits) {
        Ok(symbols) => Ok(symbols),
        Err(named) => scan(memory, info.symbol("_stext"), limits).map_err(|searched| match named {
            KallsymsError::NoKey { .. } => searched,
            _ => named,
        }),
    }
}

/// The kernel's symbols by a search of its image, from `_stext` on where that is known.
///
/// # Errors
/// When nothing is found that fits together.
pub fn scan(
    memory: &KernelMemory<'_>,
    stext: Option<KVirtAddr>,
    limits: &Limits,
) -> Result<Kallsyms, KallsymsError> {
    let tables = scan::find(memory, stext, limits)?;
    build(memory, &tables, stext, limits, Found::Scan)
}

fn by_vmcoreinfo(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    limits: &Limits,
) -> Result<Kallsyms, KallsymsError> {
    let key = |key: &'static str| info.symbol(key).ok_or(KallsymsError::NoKey { key });
    let base = info.symbol("kallsyms_relative_base").map(|at| memory.read_u64(at).map(KVirtAddr));
    // A base that can't be read leaves the one encoding that needs none.
    let base = base.transpose().unwrap_or_default();
    let mut candidates = Vec::new();
    if let Some(offsets) = info.symbol("kallsyms_offsets") {
        candidates.extend(base.map(|base| (offsets, Encoding::PerCpuAbsolute { base })));
        candidates.extend(base.map(|base| (offsets, Encoding::BaseRelative { base })));
        candidates.push((offsets, Encoding::PlaceRelative { table: offsets }));
    }
    candidates.extend(info.symbol("kallsyms_addresses").map(|table| (table, Encoding::Absolute)));
    if candidates.is_empty() {
        return Err(KallsymsError::NoKey { key: "kallsyms_offsets" });
    }
    let tables = Tables {
        num_syms: key("kallsyms_num_syms")?,
        names: key("kallsyms_names")?,
        token_table: key("kallsyms_token_table")?,
        token_index: key("kallsyms_token_index")?,
        candidates,
    };
    build(memory, &tables, info.symbol("_stext"), limits, Found::Vmcoreinfo)
}

fn build(
    memory: &KernelMemory<'_>,
    tables: &Tables,
    stext: Option<KVirtAddr>,
    limits: &Limits,
    found: Found,
) -> Result<Kallsyms, KallsymsError> {
    let mut notes = Vec::new();
    let tokens = read_tokens(memory, tables)?;
    let announced =
        memory.read_u32(tables.num_syms).map_err(|why| unreadable("the count", tables.num_syms, &why))?;
    let count = usize::try_from(announced).unwrap_or(usize::MAX);
    if count == 0 || count > limits.symbols {
        let why = format!("it counts {announced} symbols");
        return Err(KallsymsError::Damaged { what: "the count", at: tables.num_syms, why });
    }
    let (bytes, places) = read_names(memory, tables, count)?;
    let lost = places.at.iter().filter(|at| **at == LOST).count();
    if lost > 0 {
        notes.push(format!("{lost} of {count} names of symbols are not in the dump"));
    }
    if !places.marked {
        notes.push("kallsyms_markers does not agree with the names".into());
    }
    let stext_at = numbers_of(&tokens, &bytes.bytes, &places, "_stext");
    let known = stext.map(|at| (stext_at.as_slice(), at));
    let mut best: Option<(addresses::Fit, KVirtAddr, Encoding)> = None;
    // Candidates for one place stand together: its bytes are read once.
    let mut read: Option<(KVirtAddr, Part)> = None;
    for (at, encoding) in &tables.candidates {
        let len = count.saturating_mul(encoding.width());
        let part = match read.take().filter(|(place, part)| place == at && part.bytes.len() == len) {
            Some((_, part)) => part,
            None => Part::new(read_table(memory, *at, len)),
        };
        let fit = addresses::fit(*encoding, &part.bytes, count, known, &part.holes);
        if best.as_ref().is_none_or(|(other, ..)| fit > *other) {
            best = Some((fit, *at, *encoding));
        }
        read = Some((*at, part));
    }
    let nothing = || KallsymsError::Damaged {
        what: "the addresses",
        at: tables.names,
        why: "no table of them is known".into(),
    };
    let (fit, at, encoding) = best.ok_or_else(nothing)?;
    let table = read_table(memory, at, count.saturating_mul(encoding.width()));
    let holes: Vec<Range<usize>> = table.missing.iter().map(|m| m.range.clone()).collect();
    let missing: usize = holes.iter().map(Range::len).sum();
    if missing >= table.bytes.len() {
        let why = table.missing.first().map(|m| m.why.to_string()).unwrap_or_default();
        return Err(KallsymsError::Unreadable { what: "the addresses", at, why });
    }
    let gone = missing.checked_div(encoding.width()).unwrap_or_default();
    if missing > 0 {
        notes.push(format!("the addresses of {gone} of {count} symbols are not in the dump"));
    }
    // In a sound table none falls, and a fifth at most are aliases; a wrong encoding is far from that.
    let plausible = fit.falling.0.saturating_mul(10) <= count
        && fit.rising.saturating_mul(2) >= count.saturating_sub(gone);
    if !plausible && !fit.stext {
        let why = format!("in no known encoding do they ascend ({} of {count} at best)", fit.rising);
        return Err(KallsymsError::Damaged { what: "the addresses", at, why });
    }
    if let Some(stext) = stext.filter(|_| !fit.stext) {
        notes.push(format!("no symbol _stext is at {stext}, where VMCOREINFO says it is"));
    }
    Ok(Kallsyms::assemble(Parts {
        names: bytes.bytes,
        tokens,
        places,
        table: table.bytes,
        holes,
        encoding,
        found,
        notes,
    }))
}

/// A table that was read, and which of its bytes are not real.
struct Part {
    bytes: Vec<u8>,
    holes: Vec<Range<usize>>,
}

impl Part {
    fn new(sparse: Sparse) -> Self {
        let holes = sparse.missing.iter().map(|m| m.range.clone()).collect();
        Self { bytes: sparse.bytes, holes }
    }
}

fn unreadable(what: &'static str, at: KVirtAddr, why: &crate::error::MemError) -> KallsymsError {
    KallsymsError::Unreadable { what, at, why: why.to_string() }
}

pub(super) fn read_tokens(memory: &KernelMemory<'_>, tables: &Tables) -> Result<Tokens, KallsymsError> {
    let mut index = [0_u8; Tokens::INDEX_BYTES];
    memory
        .read(tables.token_index, &mut index)
        .map_err(|why| unreadable("the token index", tables.token_index, &why))?;
    let table = memory.read_sparse(tables.token_table, Tokens::table_bytes(&index));
    if let Some(missing) = table.missing.first().filter(|m| m.range.start == 0) {
        return Err(unreadable("the token table", tables.token_table, &missing.why));
    }
    Tokens::new(table.bytes, &index).map_err(|why| KallsymsError::Damaged {
        what: "the token table",
        at: tables.token_table,
        why,
    })
}

/// Reads the names and finds each of them.
fn read_names(
    memory: &KernelMemory<'_>,
    tables: &Tables,
    count: usize,
) -> Result<(Sparse, Places), KallsymsError> {
    let most = count.saturating_mul(NAME_BYTES).saturating_add(1 << 16);
    // The token table follows the names and their markers in all kernels so far.
    let between = tables.token_table.0.checked_sub(tables.names.0).and_then(|n| usize::try_from(n).ok());
    let mut between = between.filter(|n| *n <= most);
    // So do, in newer kernels, three bytes for each symbol, which sort them by name and are not read here: markers where they are
    // looked for without these tell that they were there.
    let sorted = count.saturating_mul(3) & !7;
    let mut len = match between.and_then(|n| n.checked_sub(sorted)) {
        Some(len) => len,
        None => count.saturating_mul(20).saturating_add(1 << 16),
    };
    loop {
        let bytes = read_table(memory, tables.names, len);
        let gone: usize = bytes.missing.iter().map(|m| m.range.len()).sum();
        if let Some(missing) = bytes.missing.first().filter(|_| gone == len) {
            return Err(unreadable("the names", tables.names, &missing.why));
        }
        let holes: Vec<Range<usize>> = bytes.missing.iter().map(|m| m.range.clone()).collect();
        let places = names::find(&bytes.bytes, count, &holes);
        match places {
            Some(places) if places.marked || len >= most => return Ok((bytes, places)),
            None if len >= most => {
                let why = format!("{count} names are announced, and fewer can be told apart");
                return Err(KallsymsError::Damaged { what: "the names", at: tables.names, why });
            }
            // Too little was read, or it is damaged: more of it tells which.
            _ => len = between.take().unwrap_or_else(|| len.saturating_mul(2)).min(most),
        }
    }
}

/// The numbers of the symbols of a name. Only used before the index exists.
pub(super) fn numbers_of(tokens: &Tokens, names: &[u8], places: &Places, name: &str) -> Vec<usize> {
    let matches = |at: &u32| {
        let at = usize::try_from(*at).ok()?;
        let compressed = names.get(places.form.name(names, at)?)?;
        tokens.is(compressed, name).then_some(())
    };
    places
        .at
        .iter()
        .enumerate()
        .filter(|(_, at)| matches(at).is_some())
        .map(|(number, _)| number)
        .take(64)
        .collect()
}
