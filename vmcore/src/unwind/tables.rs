//! All ORC tables of a dump, the kernel's and the modules', and what they say of an address.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use super::orc::{self, OrcVersion, Rule};
use super::table::{ENTRIES, Index, Lost, Table};
use crate::addr::{KVirtAddr, NumberMap};
use crate::kernel::describe::Description;
use crate::kernel::value::{Slot, read_number};
use crate::sym::btf::TypeError;
use crate::xlat::KernelMemory;

/// Answers that are kept for the next stack with the same function in it, per shard.
const KEPT: usize = 4096;
const SHARDS: usize = 16;
/// Entries of all modules' tables together at most; the tables of real machines have a tenth of it.
const MODULE_ENTRIES: u64 = 8 << 20;

/// What the tables say of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// How its caller is found.
    Rule(Rule),
    /// The address is in none of the code that has tables.
    NotText,
    /// There is none, and why.
    None(String),
}

/// The tables.
pub(super) struct Tables<'a> {
    memory: &'a KernelMemory<'a>,
    pub(super) version: OrcVersion,
    pub(super) kernel: Table,
    text: Vec<Range<u64>>,
    modules: Vec<Module>,
    /// Start, end and module of each range, ascending.
    ranges: Vec<(u64, u64, usize)>,
    places: Result<Places, TypeError>,
    left: AtomicU64,
    kept: [RwLock<NumberMap<u64, Answer>>; SHARDS],
}

struct Module {
    name: String,
    kaddr: KVirtAddr,
    table: OnceLock<Result<Table, String>>,
}

/// Where in `struct module` its table is.
struct Places {
    entries: Slot,
    ips: Slot,
    count: Slot,
}

impl Places {
    fn new(description: &Description) -> Result<Self, TypeError> {
        let module = description.types.structure("module")?;
        let slot = |path: &str| Slot::new(module.member(path)?);
        Ok(Self {
            entries: slot("arch.orc_unwind")?,
            ips: slot("arch.orc_unwind_ip")?,
            count: slot("arch.num_orcs")?,
        })
    }
}

impl<'a> Tables<'a> {
    /// Finds them.
    ///
    /// # Errors
    /// A sentence that says why there are none.
    pub(super) fn find(
        memory: &'a KernelMemory<'a>,
        description: &'a Description,
        text: Vec<Range<u64>>,
    ) -> Result<Self, String> {
        let symbols = &description.symbols;
        let address = |name: &str| symbols.address(name).map(|at| at.0);
        let bounds =
            |from: &str, to: &str| Some(address(from)?..address(to)?).filter(|range| !range.is_empty());
        let (Some(entries), Some(ips)) = (
            bounds("__start_orc_unwind", "__stop_orc_unwind"),
            bounds("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
        ) else {
            return Err("the kernel has no symbols for its ORC tables".into());
        };
        let count = ips.end.saturating_sub(ips.start) / 4;
        let same = entries.end.saturating_sub(entries.start) / 6;
        if count != same {
            return Err(format!("the ORC tables have {count} addresses and {same} entries"));
        }
        let kernel = Table::new(KVirtAddr(ips.start), KVirtAddr(entries.start), count)
            .ok_or_else(|| format!("an ORC table can't have {count} entries"))?;
        let index = bounds("orc_lookup", "orc_lookup_end").zip(address("_stext")).map(|(slots, text)| {
            Index { text, slots: KVirtAddr(slots.start), count: slots.end.saturating_sub(slots.start) / 4 }
        });
        let kernel = kernel.with_index(index);
        let modules: Vec<Module> = symbols
            .modules()
            .iter()
            .map(|m| Module { name: m.name().to_string(), kaddr: m.kaddr(), table: OnceLock::new() })
            .collect();
        let mut ranges: Vec<_> = symbols
            .modules()
            .iter()
            .enumerate()
            .flat_map(|(number, m)| m.ranges().iter().map(move |r| (r.start, r.end, number)))
            .collect();
        ranges.sort_unstable();
        Ok(Self {
            memory,
            version: OrcVersion::V1,
            kernel,
            text,
            modules,
            ranges,
            places: Places::new(description),
            left: AtomicU64::new(MODULE_ENTRIES),
            kept: std::array::from_fn(|_| RwLock::default()),
        })
    }

    /// Reads the same tables in another form.
    pub(super) fn set_version(&mut self, version: OrcVersion) {
        self.version = version;
        for shard in &mut self.kept {
            *shard = RwLock::default();
        }
    }

    /// Why modules have no tables, where the kernel does not tell.
    pub(super) fn modules_gap(&self) -> Option<String> {
        if self.modules.is_empty() { None } else { self.places.as_ref().err().map(ToString::to_string) }
    }

    /// What holds at an instruction.
    pub(super) fn at(&self, pc: u64) -> Answer {
        let number = usize::try_from(pc >> 4).unwrap_or_default() % SHARDS;
        let Some(shard) = self.kept.get(number) else { return Answer::NotText };
        if let Some(answer) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&pc) {
            return answer.clone();
        }
        let answer = self.look_up(pc);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() < KEPT {
            shard.insert(pc, answer.clone());
        }
        answer
    }

    fn look_up(&self, pc: u64) -> Answer {
        let table = match self.module(pc) {
            Some(module) => match self.module_table(module) {
                Ok(table) => table,
                Err(why) => return Answer::None(why.clone()),
            },
            None if self.text.iter().any(|range| range.contains(&pc)) => &self.kernel,
            None => return Answer::NotText,
        };
        let lost = |lost: Lost| {
            Answer::None(format!("its entry in the ORC table at {} can't be read: {}", lost.at, lost.why))
        };
        let number = match table.search(self.memory, pc) {
            Ok(Some(number)) => number,
            Ok(None) => return Answer::None("the ORC table begins behind it".into()),
            Err(why) => return lost(why),
        };
        match table.entry(self.memory, number) {
            Ok(entry) => match orc::decode(self.version, entry) {
                Some(rule) => Answer::Rule(rule),
                None => Answer::None(format!(
                    "its ORC entry makes no sense (flags {:#x}, offsets {} and {})",
                    entry.flags.get(),
                    entry.sp_offset.get(),
                    entry.bp_offset.get()
                )),
            },
            Err(why) => lost(why),
        }
    }

    fn module(&self, pc: u64) -> Option<&Module> {
        let after = self.ranges.partition_point(|(start, ..)| *start <= pc);
        let (_, end, number) = self.ranges.get(after.checked_sub(1)?)?;
        if pc < *end { self.modules.get(*number) } else { None }
    }

    fn module_table<'t>(&'t self, module: &'t Module) -> Result<&'t Table, &'t String> {
        module.table.get_or_init(|| self.read_module(module)).as_ref()
    }

    fn read_module(&self, module: &Module) -> Result<Table, String> {
        let of = |why: String| format!("the ORC table of module {}: {why}", module.name);
        let places = self.places.as_ref().map_err(|why| of(why.to_string()))?;
        let number = |slot| read_number(self.memory, module.kaddr, slot).map_err(|why| of(why.to_string()));
        let (ips, entries, count) = (number(&places.ips)?, number(&places.entries)?, number(&places.count)?);
        if count == 0 {
            return Err(format!("module {} has no ORC table", module.name));
        }
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            if count > ENTRIES { None } else { left.checked_sub(count) }
        });
        if taken.is_err() {
            return Err(of(format!("it can't have {count} entries")));
        }
        Table::new(KVirtAddr(ips), KVirtAddr(entries), count)
            .ok_or_else(|| of(format!("it can't be at {}", KVirtAddr(ips))))
    }
}
