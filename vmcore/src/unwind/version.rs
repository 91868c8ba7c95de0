//! Which form the ORC entries have: told by the entries themselves, never by the kernel's release.
//!
//! Three kinds of evidence, each of which can rule a form out: entries that no kernel of that form would write; the first
//! instructions of functions, whose entry is known; and sleeping tasks, whose stacks must lead to their end. The hash that kernels
//! from 6.4 on keep of the header is only compared, since an equal form can have another hash.

use std::ops::Range;

use super::orc::{self, OrcVersion, Rule};
use super::tables::Tables;
use super::{Gap, Unwinder};
use crate::addr::KVirtAddr;
use crate::kernel::list;
use crate::kernel::value::{Layout, view};
use crate::limits::Limits;

/// How many runs of entries are looked at, and how many entries each has.
const RUNS: u64 = 24;
const RUN: u64 = 64;
/// Entries of the entry code that are looked at.
const ENTRY_CODE: u64 = 2048;
/// Functions whose first instruction is looked at.
const FUNCTIONS: u64 = 64;
/// Tasks whose stack is tried, and how many are looked at to find them.
const TASKS: usize = 12;
const LOOKED_AT: usize = 200;
/// Of a thousand entries this many may make no sense: tables have damage, and forms get new registers.
const NONSENSE: u64 = 5;

/// The hashes of the headers whose form is known (`.orc_header`, since 6.4): read from kernels 6.12 and 7.2.
const HEADERS: &[([u8; 4], OrcVersion)] =
    &[([0xfe, 0x5d, 0x32, 0xbf], OrcVersion::V3), ([0x13, 0x7c, 0x36, 0xad], OrcVersion::V4)];

view! {
    /// What is needed to try a task's stack.
    struct Sleeper of "task_struct" {
        stack: KVirtAddr = ["stack"],
        sp: KVirtAddr = ["thread.sp"],
        on_cpu: Option<u32> = ["on_cpu"],
    }
}

/// How well one form explains the entries.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    entries: u64,
    nonsense: u64,
    functions: u64,
    agree: u64,
    unreadable: u64,
}

impl Score {
    fn fits(&self) -> bool {
        let legal = self.nonsense.saturating_mul(1000) <= self.entries.saturating_mul(NONSENSE);
        // Assembler code has other first instructions. In a wrong form next to none agrees.
        let known = self.agree.saturating_mul(2) >= self.functions;
        self.entries > 0 && legal && known
    }

    fn rule(&mut self, rule: Option<Rule>) {
        self.entries = self.entries.saturating_add(1);
        self.nonsense = self.nonsense.saturating_add(u64::from(rule.is_none()));
    }
}

impl<'a> Unwinder<'a> {
    /// Settles the form and keeps the tables, or says why no form fits.
    pub(super) fn choose_version(&mut self, mut tables: Tables<'a>, limits: &Limits) {
        let scores = OrcVersion::ALL.map(|version| (version, self.score(&tables, version)));
        let mut fits: Vec<_> = scores.iter().filter(|(_, score)| score.fits()).copied().collect();
        fits.sort_by_key(|(_, score)| score.nonsense);
        let unreadable = scores.first().map_or(0, |(_, s)| s.unreadable);
        if fits.is_empty() {
            let what = if scores.iter().all(|(_, s)| s.entries == 0) {
                "no page of them is in the dump".to_owned()
            } else {
                "their entries have none of the four known forms".to_owned()
            };
            return self.gap("exact stacks", &format!("the ORC tables can't be used: {what}"));
        }
        let sleepers = self.sleepers(limits);
        let mut best = None;
        for (version, score) in fits {
            tables.set_version(version);
            self.tables = Some(tables);
            let complete = sleepers
                .iter()
                .filter(|task| self.unwind_sleeping(task.stack, task.sp).is_complete())
                .count();
            match self.tables.take() {
                Some(back) => tables = back,
                None => return,
            }
            // The first of equals is the one with the fewest entries that make no sense.
            if best.as_ref().is_none_or(|(_, _, most)| complete > *most) {
                best = Some((version, score, complete));
            }
        }
        let Some((version, score, complete)) = best else { return };
        tables.set_version(version);
        self.tables = Some(tables);
        self.how_sure = format!(
            "{} of {} entries and {} of {} functions are of form {version}; {complete} of {} sleeping tasks lead to their end",
            score.entries.saturating_sub(score.nonsense),
            score.entries,
            score.agree,
            score.functions,
            sleepers.len()
        );
        match self.header() {
            Some((hash, Some(known))) if known != version => self.gaps.push(Gap {
                what: "exact stacks".into(),
                why: format!(
                    "the ORC header {hash:08x}… is that of form {known}, and the entries are of form {version}"
                ),
            }),
            Some((_, Some(_))) => self.how_sure.push_str("; the ORC header agrees"),
            _ => {}
        }
        if unreadable > 0 {
            self.gap("exact stacks", "some pages of the ORC tables are not in the dump");
        }
        if sleepers.len() >= 4 && complete.saturating_mul(2) < sleepers.len() {
            let why = format!("only {complete} of {} sleeping tasks lead to their end", sleepers.len());
            self.gap("exact stacks", &why);
        }
    }

    fn score(&self, tables: &Tables<'a>, version: OrcVersion) -> Score {
        let mut score = Score::default();
        let count = tables.kernel.len();
        let look = |score: &mut Score, number: u64| match tables.kernel.entry(self.memory, number) {
            Ok(entry) => score.rule(orc::decode(version, entry)),
            Err(_) => score.unreadable = score.unreadable.saturating_add(1),
        };
        for run in 0..RUNS {
            let first = count.checked_div(RUNS).unwrap_or_default().saturating_mul(run);
            (first..first.saturating_add(RUN).min(count)).for_each(|number| look(&mut score, number));
        }
        // What distinguishes the first two forms stands in the entry code only.
        if let Some(range) = self.between("__entry_text_start", "__entry_text_end")
            && let Ok(Some(first)) = tables.kernel.search(self.memory, range.start)
            && let Ok(Some(last)) = tables.kernel.search(self.memory, range.end)
        {
            let last = last.min(first.saturating_add(ENTRY_CODE));
            (first..=last).for_each(|number| look(&mut score, number));
        }
        for at in self.functions() {
            let found = tables.kernel.search(self.memory, at).ok().flatten();
            let Some(entry) = found.and_then(|n| tables.kernel.entry(self.memory, n).ok()) else { continue };
            score.functions = score.functions.saturating_add(1);
            let agree = orc::decode(version, entry) == Some(Rule::FIRST_INSTRUCTION);
            score.agree = score.agree.saturating_add(u64::from(agree));
        }
        score
    }

    fn between(&self, from: &str, to: &str) -> Option<Range<u64>> {
        let symbols = &self.description.symbols;
        Some(symbols.address(from)?.0..symbols.address(to)?.0)
    }

    /// The first instructions of functions all over the kernel's text.
    fn functions(&self) -> Vec<u64> {
        let Some(text) = self.between("_stext", "_etext") else { return Vec::new() };
        let step = text.end.saturating_sub(text.start) / FUNCTIONS;
        let at = (0..FUNCTIONS).filter_map(|n| text.start.checked_add(step.checked_mul(n)?));
        let mut found: Vec<u64> = at
            .filter_map(|at| self.description.symbols.at(KVirtAddr(at)))
            // The room before a function that a kernel with call padding has a symbol for is none.
            .filter(|at| !at.symbol.name.starts_with("__pfx_"))
            // Nor is a part that was split off a function: its first instruction is in the middle of a frame.
            .filter(|at| matches!(at.symbol.letter, 'T' | 't') && !at.symbol.name.contains('.'))
            .map(|at| at.symbol.address.0)
            .collect();
        found.dedup();
        found
    }

    /// Some tasks that do not run.
    fn sleepers(&self, limits: &Limits) -> Vec<Sleeper> {
        let description = self.description;
        let Some(init) = description.symbols.address("init_task") else { return Vec::new() };
        let inside = description.types.structure("task_struct").and_then(|t| Ok(t.member("tasks")?.offset()));
        let (Ok(inside), Ok(layout)) = (inside, Layout::<Sleeper>::new(&description.types)) else {
            return Vec::new();
        };
        let Some(head) = init.checked_add(inside) else { return Vec::new() };
        let walk = list::walk(self.memory, head, LOOKED_AT.min(limits.walk_items));
        let read = |node: &KVirtAddr| layout.read(self.memory, KVirtAddr(node.0.wrapping_sub(inside))).ok();
        let sleeps = |task: &Sleeper| task.on_cpu.unwrap_or_default() == 0 && !task.stack.is_null();
        walk.items.iter().filter_map(read).filter(sleeps).take(TASKS).collect()
    }

    /// The first four bytes of the header's hash, and the form that is known to have it.
    fn header(&self) -> Option<(u32, Option<OrcVersion>)> {
        let at = self.description.symbols.address("__start_orc_header")?;
        let mut hash = [0; 20];
        self.memory.read(at, &mut hash).ok()?;
        let begin: [u8; 4] = *hash.first_chunk()?;
        let known = HEADERS.iter().find(|(known, _)| *known == begin).map(|(_, version)| *version);
        Some((u32::from_be_bytes(begin), known))
    }
}
