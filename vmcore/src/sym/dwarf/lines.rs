//! Source lines: which function, file and line an address belongs to, and what was inlined there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use addr2line::Context;
use gimli::{DebugAranges, DebugInfo, Dwarf, EndianSlice, LittleEndian};
use rayon::prelude::*;

use super::error::DebuginfoError;
use super::file::{Debuginfo, Slice};
use super::index::Index;
use crate::addr::KVirtAddr;

/// Functions inlined into each other at one address: a kernel has up to some twenty.
const DEPTH: usize = 256;
/// Source files that are kept open between lookups of single addresses; each costs about a megabyte.
const OPEN: usize = 16;

/// One function that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The function as its source names it.
    pub function: Option<String>,
    /// Its source file, below the kernel's source tree (`kernel/panic.c`) where that is known.
    pub file: Option<String>,
    /// The line there.
    pub line: Option<u32>,
    /// True where the function was inlined into the next one of the list.
    pub inlined: bool,
}

/// Source lines of the kernel and of modules. Shared by threads; each address is looked up once.
#[derive(Default)]
pub struct Lines<'d> {
    parts: Vec<Part<'d>>,
    known: RwLock<HashMap<u64, Arc<[Location]>>>,
}

struct Part<'d> {
    file: &'d Debuginfo,
    dwarf: Dwarf<Slice<'d>>,
    index: Index,
    slide: u64,
    /// The addresses that it is asked for; `None` for the kernel, which has what no module has.
    ranges: Option<Vec<Range<u64>>>,
    /// Source files that were read lately, the last one first, by their number; one is taken out while a thread uses it.
    open: Mutex<Vec<(usize, Context<Slice<'d>>)>>,
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<_> = self.parts.iter().map(|part| part.file.path()).collect();
        f.debug_struct("Lines").field("files", &paths).finish_non_exhaustive()
    }
}

impl<'d> Lines<'d> {
    /// Without any file: every address has an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the kernel's file, moved by `slide` ([`super::Agreement::slide`]).
    ///
    /// # Errors
    /// When its DWARF can't be opened.
    pub fn add_kernel(&mut self, file: &'d Debuginfo, slide: u64) -> Result<(), DebuginfoError> {
        self.add(file, slide, None)
    }

    /// Adds a module's file, which [`super::place_module`] has moved, for the module's memory.
    ///
    /// # Errors
    /// When its DWARF can't be opened.
    pub fn add_module(&mut self, file: &'d Debuginfo, ranges: &[Range<u64>]) -> Result<(), DebuginfoError> {
        self.add(file, 0, Some(ranges.to_vec()))
    }

    fn add(
        &mut self,
        file: &'d Debuginfo,
        slide: u64,
        ranges: Option<Vec<Range<u64>>>,
    ) -> Result<(), DebuginfoError> {
        let dwarf = file.dwarf()?;
        let index = Index::new(file, &dwarf);
        let part = Part { file, dwarf, index, slide, ranges, open: Mutex::default() };
        // Modules are asked first.
        let place = if part.ranges.is_some() { 0 } else { self.parts.len() };
        self.parts.insert(place, part);
        Ok(())
    }

    /// The functions that the instruction at `pc` belongs to: the innermost inlined one first, the function itself last. Empty where
    /// no file tells it.
    ///
    /// For a return address ask for `pc - 1`: the call is before it, and may be the last thing in its line or its function.
    #[must_use]
    pub fn frames(&self, pc: KVirtAddr) -> Arc<[Location]> {
        let known =
            || Some(Arc::clone(self.known.read().unwrap_or_else(PoisonError::into_inner).get(&pc.0)?));
        known()
            .unwrap_or_else(|| self.look_up(&[pc.0]).into_iter().next().map(|(_, l)| l).unwrap_or_default())
    }

    /// True where no debuginfo was added, so that no address has a line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Looks up many addresses at once, on several threads; [`Lines::frames`] then has them at hand.
    pub fn prepare(&self, pcs: impl IntoIterator<Item = KVirtAddr>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<u64> =
            pcs.into_iter().map(|pc| pc.0).filter(|pc| !known.contains_key(pc)).collect();
        drop(known);
        open.sort_unstable();
        open.dedup();
        // Neighbours are mostly of one source file, which is then read once.
        let same_file = |a: &u64, b: &u64| self.unit_of(*a) == self.unit_of(*b);
        open.chunk_by(same_file).collect::<Vec<_>>().into_par_iter().for_each(|batch| {
            self.look_up(batch);
        });
    }

    fn part_of(&self, pc: u64) -> Option<(usize, &Part<'d>)> {
        self.parts.iter().enumerate().find(|(_, part)| part.has(pc))
    }

    fn unit_of(&self, pc: u64) -> Option<(usize, usize)> {
        let (number, part) = self.part_of(pc)?;
        Some((number, part.index.find(pc.wrapping_sub(part.slide)).next()?.0))
    }

    fn look_up(&self, pcs: &[u64]) -> Vec<(u64, Arc<[Location]>)> {
        let mut found = Vec::with_capacity(pcs.len());
        for pc in pcs {
            let part = self.part_of(*pc);
            found.push((*pc, part.map(|(_, part)| part.locate(*pc)).unwrap_or_default()));
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(found.iter().cloned());
        found
    }
}

impl<'d> Part<'d> {
    fn has(&self, pc: u64) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|r| r.contains(&pc)))
    }

    fn locate(&self, pc: u64) -> Arc<[Location]> {
        let probe = pc.wrapping_sub(self.slide);
        for (number, place) in self.index.find(probe) {
            let Some(context) = self.context(number, place.clone()) else { continue };
            let found = frames(&context, probe);
            self.put_back(number, context);
            self.file.forget_info(place);
            if !found.is_empty() {
                return found.into();
            }
        }
        Arc::default()
    }

    fn context(&self, number: usize, place: Range<usize>) -> Option<Context<Slice<'d>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(n, _)| *n == number) {
            return Some(open.remove(at).1);
        }
        drop(open);
        Context::from_dwarf(self.only(place)?).ok()
    }

    fn put_back(&self, number: usize, context: Context<Slice<'d>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.truncate(OPEN.saturating_sub(1));
        open.insert(0, (number, context));
    }

    /// The DWARF of one unit alone: a context of all of them would keep megabytes for files that nobody asks for. References into
    /// other units (link-time optimisation makes them) lead nowhere then, and cost a function's name.
    fn only(&self, place: Range<usize>) -> Option<Dwarf<Slice<'d>>> {
        let info = self.file.info().ok()?.get(place)?;
        let empty = EndianSlice::new(&[], LittleEndian);
        let all = &self.dwarf;
        Some(Dwarf {
            debug_abbrev: all.debug_abbrev,
            debug_addr: all.debug_addr,
            debug_aranges: DebugAranges::from(empty),
            debug_info: DebugInfo::new(info, LittleEndian),
            debug_line: all.debug_line,
            debug_line_str: all.debug_line_str,
            debug_str: all.debug_str,
            debug_str_offsets: all.debug_str_offsets,
            ranges: all.ranges,
            ..Dwarf::default()
        })
    }
}

/// Damage in the DWARF ends the list where it is.
fn frames(context: &Context<Slice<'_>>, probe: u64) -> Vec<Location> {
    let mut found: Vec<Location> = Vec::new();
    let Ok(mut frames) = context.find_frames(probe).skip_all_loads() else { return found };
    let unit = context.find_dwarf_and_unit(probe).skip_all_loads();
    let root = unit.and_then(|unit| Some(String::from_utf8_lossy(unit.comp_dir?.slice()).into_owned()));
    while let Ok(Some(frame)) = frames.next() {
        if found.len() >= DEPTH {
            break;
        }
        if let Some(outer) = found.last_mut() {
            outer.inlined = true;
        }
        let text = |name: &Slice<'_>| String::from_utf8_lossy(name.slice()).into_owned();
        let place = frame.location;
        found.push(Location {
            function: frame.function.as_ref().map(|f| text(&f.name)),
            file: place.as_ref().and_then(|l| l.file).map(|file| below(file, root.as_deref())),
            line: place.as_ref().and_then(|l| l.line).filter(|line| *line != 0),
            inlined: false,
        });
    }
    found
}

/// The part of a path below the source tree. Distributions build in directories of their own; `.` and `..` in the path are resolved.
fn below(file: &str, root: Option<&str>) -> String {
    let clean = normal(file);
    let root = root.map(normal).filter(|root| root.len() > 1);
    let rest = root.and_then(|root| clean.strip_prefix(&root)?.strip_prefix('/').map(str::to_owned));
    rest.or_else(|| in_tree(&clean)).unwrap_or(clean)
}

/// Files of assembly have another directory, beside the source tree: `/…/linux-6.1.192/arch/x86/kernel/head_64.S`.
fn in_tree(path: &str) -> Option<String> {
    let (_, rest) =
        path.split_once("/linux-").filter(|(before, _)| before.is_empty() || before.starts_with('/'))?;
    let (version, rest) = rest.split_once('/')?;
    (version.starts_with(|c: char| c.is_ascii_digit()) && !rest.is_empty()).then(|| rest.to_owned())
}

fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else if part != ".." || !path.starts_with('/') {
            parts.push(part);
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_below_the_source_tree() {
        assert_eq!(below("/build/linux/./kernel/panic.c", Some("/build/linux")), "kernel/panic.c");
        assert_eq!(below("/usr/src/a/../b/x.c", Some("/build")), "/usr/src/b/x.c");
        assert_eq!(below("/build/linux-x/x.c", Some("/build/linux")), "/build/linux-x/x.c");
        assert_eq!(below("/build/linux-6.1.1/arch/a.S", Some("/build/linux-6.1.1/debian/b")), "arch/a.S");
        assert_eq!(below("./arch/x86/entry.S", None), "arch/x86/entry.S");
        assert_eq!(below("/../../x", Some("/")), "/x");
        assert_eq!(below("../common/x.c", None), "../common/x.c");
    }
}
