//! The kernel's own symbol table, as it lies in its read-only data: no debuginfo, no `System.map`.
//!
//! Where VMCOREINFO names the table (6.0 and later) it is read from there; where it does not (RHEL 8 and 9, Debian 11) the kernel's
//! image is searched for the token table, whose shape nothing else has. Facts: `scripts/kallsyms.c` and `kernel/kallsyms.c` of
//! the kernel, 4.18 to 7.0.
//!
//! Names stay compressed as the kernel has them, and are decoded when they are asked for: 160,000 symbols take about 6 MB.

mod addresses;
mod load;
mod names;
mod scan;
mod tokens;

use std::sync::OnceLock;

pub use addresses::Encoding;
pub use load::{load, scan};
pub use names::LengthForm;

use self::names::LOST;
use self::tokens::Tokens;
use super::Symbol;
use crate::addr::KVirtAddr;

/// No symbol of a kernel is this far from the next: what lies further belongs to nobody.
const FARTHEST: u64 = 32 << 20;

/// How the table was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Found {
    /// VMCOREINFO names it.
    Vmcoreinfo,
    /// By its shape, in the kernel's image.
    Scan,
}

/// Why there are no symbols.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KallsymsError {
    /// VMCOREINFO lacks a key that is needed.
    #[error("VMCOREINFO does not name {key}")]
    NoKey {
        /// The key.
        key: &'static str,
    },
    /// A part of the table is not in the dump.
    #[error("{what} of the kernel's symbol table can't be read at {at}: {why}")]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// Where it is.
        at: KVirtAddr,
        /// Why.
        why: String,
    },
    /// A part of the table is there and makes no sense.
    #[error("{what} of the kernel's symbol table at {at} makes no sense: {why}")]
    Damaged {
        /// Which part.
        what: &'static str,
        /// Where it is.
        at: KVirtAddr,
        /// What is wrong.
        why: String,
    },
    /// Nothing in the kernel's image looks like the table.
    #[error(
        "no symbol table is in the {bytes} bytes of the kernel's image that could be read from {start} on"
    )]
    NotFound {
        /// Where the search began.
        start: KVirtAddr,
        /// How many bytes could be looked at.
        bytes: u64,
    },
}

/// The kernel's symbol table.
pub struct Kallsyms {
    names: Vec<u8>,
    tokens: Tokens,
    form: LengthForm,
    encoding: Encoding,
    found: Found,
    announced: usize,
    notes: Vec<String>,
    /// Ascending; symbols with equal addresses in the kernel's own order, best name first.
    addresses: Vec<u64>,
    /// Where in `names` each symbol's name is.
    at: Vec<u32>,
    /// The per-CPU section, whose addresses are no addresses before `__per_cpu_offset` is added.
    per_cpu: Option<(u64, u64)>,
    by_name: OnceLock<Vec<(u32, u32)>>,
}

impl std::fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kallsyms")
            .field("symbols", &self.addresses.len())
            .field("announced", &self.announced)
            .field("found", &self.found)
            .field("form", &self.form)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

/// What the loader brings together.
struct Parts {
    names: Vec<u8>,
    tokens: Tokens,
    places: names::Places,
    table: Vec<u8>,
    /// The bytes of `table` that are not real.
    holes: Vec<std::ops::Range<usize>>,
    encoding: Encoding,
    found: Found,
    notes: Vec<String>,
}

impl Kallsyms {
    fn assemble(parts: Parts) -> Self {
        let Parts { mut names, tokens, places, table, holes, encoding, found, notes } = parts;
        let announced = places.at.len();
        let width = encoding.width();
        let mut addresses = Vec::with_capacity(announced);
        let mut at = Vec::with_capacity(announced);
        for (symbol, place) in places.at.iter().enumerate() {
            let start = symbol.saturating_mul(width);
            let gone = *place == LOST
                || holes.iter().any(|h| h.start < start.saturating_add(width) && start < h.end);
            if let (false, Some(address)) = (gone, encoding.address(&table, symbol)) {
                addresses.push(address);
                at.push(*place);
            }
        }
        if !addresses.is_sorted() {
            // The build sorts them; damage does not. The sort is stable: aliases keep the kernel's order.
            let mut pairs: Vec<(u64, u32)> = addresses.iter().copied().zip(at.iter().copied()).collect();
            pairs.sort_by_key(|(address, _)| *address);
            (addresses, at) = pairs.into_iter().unzip();
        }
        if places.end != 0 {
            names.truncate(places.end);
        }
        names.shrink_to_fit();
        let form = places.form;
        let mut this = Self {
            names,
            tokens,
            form,
            encoding,
            found,
            announced,
            notes,
            addresses,
            at,
            per_cpu: None,
            by_name: OnceLock::new(),
        };
        let first = |name: &str| this.all(name).first().map(|s| s.address.0);
        this.per_cpu =
            first("__per_cpu_start").zip(first("__per_cpu_end")).filter(|(start, end)| start < end);
        this
    }

    /// How many symbols are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// How many symbols the kernel says it has; more than [`Kallsyms::len`] where parts of the table are not in the dump.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.announced
    }

    /// How the table was found.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// How its addresses are written.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How the lengths of its names are written.
    #[must_use]
    pub fn length_form(&self) -> LengthForm {
        self.form
    }

    /// What was odd about the table: parts that are missing, checks that did not agree.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes that it keeps in memory.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let index = self.by_name.get().map_or(0, |i| i.len().saturating_mul(8));
        let numbers = self.addresses.len().saturating_mul(12);
        self.names.len().saturating_add(self.tokens.footprint()).saturating_add(numbers).saturating_add(index)
    }

    /// Where the per-CPU section begins and ends.
    #[must_use]
    pub fn per_cpu_section(&self) -> Option<(KVirtAddr, KVirtAddr)> {
        self.per_cpu.map(|(start, end)| (KVirtAddr(start), KVirtAddr(end)))
    }

    /// All symbols of that name, in order of their addresses.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<Symbol> {
        let index = self.by_name.get_or_init(|| self.build_index());
        let hash = tokens::hash(name);
        let from = index.partition_point(|(h, _)| *h < hash);
        let same = index.get(from..).unwrap_or_default().iter().take_while(|(h, _)| *h == hash);
        same.filter_map(|(_, symbol)| usize::try_from(*symbol).ok())
            .filter(|symbol| self.compressed(*symbol).is_some_and(|c| self.tokens.is(c, name)))
            .filter_map(|symbol| self.get(symbol))
            .collect()
    }

    /// The first symbol of that name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.all(name).into_iter().next()
    }

    /// The symbol that an address belongs to: the nearest at or below it, the first of its aliases, as the kernel's own backtraces
    /// name it. Per-CPU symbols are never meant.
    #[must_use]
    pub fn at(&self, address: KVirtAddr) -> Option<Symbol> {
        let after = self.addresses.partition_point(|a| *a <= address.0);
        let nearest = *self.addresses.get(after.checked_sub(1)?)?;
        if self.is_per_cpu(nearest) || address.0.checked_sub(nearest)? > FARTHEST {
            return None;
        }
        // Aliases are few: the first of them is near.
        let first = self
            .addresses
            .get(..after)?
            .iter()
            .rposition(|a| *a < nearest)
            .map_or(0, |before| before.saturating_add(1));
        self.named(first, after)
            .filter(|s| s.size.is_none_or(|size| address.0.saturating_sub(nearest) < size))
    }

    /// The per-CPU variable that an address belongs to, before a CPU's offset is added.
    #[must_use]
    pub fn per_cpu_at(&self, variable: KVirtAddr) -> Option<Symbol> {
        let after = self.addresses.partition_point(|a| *a <= variable.0);
        let nearest = *self.addresses.get(after.checked_sub(1)?)?;
        let first = self.addresses.partition_point(|a| *a < nearest);
        self.get(first)
            .filter(|s| s.per_cpu && s.size.is_none_or(|size| variable.0.saturating_sub(nearest) < size))
    }

    /// The symbols at exactly this address: one, or several aliases.
    #[must_use]
    pub fn aliases(&self, address: KVirtAddr) -> Vec<Symbol> {
        let from = self.addresses.partition_point(|a| *a < address.0);
        let until = self.addresses.partition_point(|a| *a <= address.0);
        (from..until).filter_map(|symbol| self.get(symbol)).collect()
    }

    /// All symbols, in order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.addresses.len()).filter_map(|symbol| self.get(symbol))
    }

    fn is_per_cpu(&self, address: u64) -> bool {
        self.per_cpu.is_some_and(|(start, end)| start <= address && address < end)
    }

    fn compressed(&self, symbol: usize) -> Option<&[u8]> {
        let at = usize::try_from(*self.at.get(symbol)?).ok()?;
        self.names.get(self.form.name(&self.names, at)?)
    }

    fn get(&self, symbol: usize) -> Option<Symbol> {
        let address = *self.addresses.get(symbol)?;
        self.named(symbol, self.addresses.partition_point(|a| *a <= address))
    }

    /// The symbol of this number; that of the number `next` is the first behind its address.
    fn named(&self, symbol: usize, next: usize) -> Option<Symbol> {
        let address = *self.addresses.get(symbol)?;
        let (letter, name) = self.tokens.expand(self.compressed(symbol)?);
        let per_cpu = self.is_per_cpu(address);
        let size = self.addresses.get(next).and_then(|next| {
            let end = match self.per_cpu {
                Some((_, end)) if per_cpu => end.min(*next),
                _ => *next,
            };
            end.checked_sub(address).filter(|size| *size <= FARTHEST)
        });
        Some(Symbol {
            name,
            address: KVirtAddr(address),
            size,
            letter: char::from(letter),
            module: None,
            per_cpu,
        })
    }

    fn build_index(&self) -> Vec<(u32, u32)> {
        let mut index: Vec<(u32, u32)> = (0_u32..)
            .zip(0..self.addresses.len())
            .filter_map(|(number, symbol)| Some((self.tokens.hash(self.compressed(symbol)?), number)))
            .collect();
        index.sort_unstable();
        index
    }
}
