//! How the dumped kernel's address space is found: `phys_base`, the page tables' root, the direct map.
//!
//! Nothing is believed that something else can contradict: a `phys_base` has to lead to `init_uts_ns`, and page tables have to
//! translate the kernel's own symbols to where `phys_base` puts them.

use super::hints::{Control, Hints};
use super::{Gap, uts};
use crate::addr::{KVirtAddr, PhysAddr};
use crate::error::MemError;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::mem::{PageState, PhysicalMemory};
use crate::xlat::x86_64::{self, Levels, PageTables, START_KERNEL_MAP};
use crate::xlat::{KernelMemory, Linear, Translation};

/// CR4.LA57.
const LA57: u64 = 1 << 12;
/// CR3 without the PCID and the flags.
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// With page-table isolation, the user's copy of a PGD follows the kernel's: `PTI_USER_PGTABLE_BIT`.
const PTI_USER: u64 = 0x1000;
/// `phys_base` is a multiple of this (`CONFIG_PHYSICAL_ALIGN` is at least 2 MiB on `x86_64`).
const ALIGN: u64 = 2 << 20;
/// How many places the search for an unknown `phys_base` looks at: 1 TiB of RAM.
const PHYS_BASE_TRIES: u64 = 1 << 19;
/// Symbols that VMCOREINFO has on most kernels, and that lie in the kernel's static data.
const KNOWN: [&str; 8] = [
    "init_uts_ns",
    "_stext",
    "init_top_pgt",
    "swapper_pg_dir",
    "prb",
    "log_buf",
    "node_online_map",
    "mem_section",
];

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) translation: Translation,
    pub(super) phys_base: Option<u64>,
    pub(super) gaps: Vec<Gap>,
}

/// Finds out as much as it can. `info` may be empty.
pub(super) fn find(mem: &dyn PhysicalMemory, info: &Vmcoreinfo, hints: &Hints<'_>) -> Found {
    let mut found = Found::default();
    if let Some(machine) = hints.machine.as_deref().filter(|m| !m.is_empty() && *m != "x86_64") {
        found.gap(
            "kernel memory",
            format!("addresses of {machine} can't be translated, only those of x86_64"),
        );
        return found;
    }
    let roots = roots_of_cpus(hints);
    found.phys_base = phys_base(mem, info, hints, &roots);
    found.translation.text = found.phys_base.map(Translation::x86_64_text);
    match found.phys_base {
        None => found.gap("kernel text mapping", "nothing tells phys_base".into()),
        Some(base) if agreement(mem, info, base) == Some(false) => found.gap(
            "kernel text mapping",
            format!("init_uts_ns is not where phys_base {base:#x} puts it: memory is encrypted, or VMCOREINFO is another kernel's"),
        ),
        Some(_) => {}
    }
    match tables(mem, info, &roots, found.translation.text) {
        Ok(tables) => found.translation.tables = Some(tables),
        Err(why) => found.gap("kernel page tables", why),
    }
    if found.translation.text.is_none()
        && let Some(base) = found.translation.tables.and_then(|t| phys_base_by_tables(mem, &t))
    {
        found.phys_base = Some(base);
        found.translation.text = Some(Translation::x86_64_text(base));
        found.gaps.retain(|gap| gap.what != "kernel text mapping");
    }
    match direct_map(mem, hints, &found.translation) {
        Some(direct) => found.translation.direct = Some(direct),
        None => found
            .gap("direct map", "neither the page tables nor the file's segments tell where it begins".into()),
    }
    found
}

impl Found {
    fn gap(&mut self, what: &str, why: String) {
        self.gaps.push(Gap { what: what.to_owned(), why });
    }
}

/// Page tables that CPUs had loaded, the kernel's copy before the user's.
fn roots_of_cpus(hints: &Hints<'_>) -> Vec<PageTables> {
    let mut roots: Vec<PageTables> = Vec::new();
    for control in &hints.control {
        let address = control.cr3 & CR3_ADDRESS;
        let levels = if control.cr4 & LA57 == 0 { Levels::Four } else { Levels::Five };
        for root in [address & !PTI_USER, address] {
            let tables = PageTables { root: PhysAddr(root), levels, encryption_mask: 0 };
            if root != 0 && !roots.contains(&tables) {
                roots.push(tables);
            }
        }
    }
    roots
}

/// The first `phys_base` under which `init_uts_ns` is where VMCOREINFO says; failing that, the first that anything tells.
fn phys_base(
    mem: &dyn PhysicalMemory,
    info: &Vmcoreinfo,
    hints: &Hints<'_>,
    roots: &[PageTables],
) -> Option<u64> {
    let by_segment = hints.segments.iter().filter_map(|(kaddr, paddr, _)| {
        let offset = kaddr.0.checked_sub(START_KERNEL_MAP.0).filter(|o| *o < x86_64::KERNEL_IMAGE_BYTES)?;
        Some(paddr.0.wrapping_sub(offset))
    });
    // The header's member is 0 where its writer did not know it: a guess that only agreement makes good.
    let by_header = hints.phys_base.filter(|base| *base != 0);
    let told: Vec<u64> = info
        .number_u64("phys_base")
        .into_iter()
        .chain(by_header)
        .chain(by_segment)
        .chain(roots.iter().filter_map(|tables| phys_base_by_tables(mem, tables)))
        .collect();
    let agrees = |base: &u64| agreement(mem, info, *base) == Some(true);
    let found = told
        .iter()
        .copied()
        .find(agrees)
        .or_else(|| info.symbol("phys_base").and_then(|at| phys_base_by_itself(mem, info, at)));
    found
        .or_else(|| told.iter().copied().find(|base| agreement(mem, info, *base).is_none()))
        .or_else(|| told.first().copied())
}

/// Whether `init_uts_ns` is where this `phys_base` puts it; `None` where that can't be seen.
pub(super) fn agreement(mem: &dyn PhysicalMemory, info: &Vmcoreinfo, phys_base: u64) -> Option<bool> {
    let translation =
        Translation { text: Some(Translation::x86_64_text(phys_base)), ..Translation::default() };
    let memory = KernelMemory::new(mem, translation);
    match uts::read(&memory, info) {
        Ok(uts) => Some(info.release().is_none_or(|release| release == uts.release)),
        Err(uts::UtsError::NotUts { .. }) => Some(false),
        Err(_) => None,
    }
}

/// Kernels before 4.10 export the address of the variable `phys_base` and not its value. The right value is the one that,
/// taken as `phys_base`, leads to a variable that holds it.
fn phys_base_by_itself(mem: &dyn PhysicalMemory, info: &Vmcoreinfo, at: KVirtAddr) -> Option<u64> {
    let offset = at.0.checked_sub(START_KERNEL_MAP.0).filter(|o| *o < x86_64::KERNEL_IMAGE_BYTES)?;
    let page_size = mem.page_size();
    let end = mem.end_pfn().start(page_size).map_or(u64::MAX, |end| end.0);
    for step in 0..PHYS_BASE_TRIES {
        // The place of the variable is tried, and not the base: KASLR can make that negative.
        let paddr = step.checked_mul(ALIGN)?.checked_add(offset.checked_rem(ALIGN)?).filter(|p| *p < end)?;
        let base = paddr.wrapping_sub(offset);
        let present = PhysAddr(paddr).pfn(page_size).is_some_and(|pfn| mem.state(pfn) == PageState::Present);
        let mut value = [0; 8];
        if present
            && mem.read(PhysAddr(paddr), &mut value).is_ok()
            && u64::from_le_bytes(value) == base
            && agreement(mem, info, base) != Some(false)
        {
            return Some(base);
        }
    }
    None
}

/// The text mapping by the page tables: the first page mapped in it. Page tables of something else than Linux have none there.
fn phys_base_by_tables(mem: &dyn PhysicalMemory, tables: &PageTables) -> Option<u64> {
    let translation = Translation { tables: Some(*tables), ..Translation::default() };
    let memory = KernelMemory::new(mem, translation);
    let mut offset = 0;
    while offset < x86_64::KERNEL_IMAGE_BYTES {
        let kaddr = START_KERNEL_MAP.checked_add(offset)?;
        match memory.translate(kaddr) {
            Ok(mapping) => return Some(mapping.paddr.0.wrapping_sub(offset)),
            Err(MemError::NotMapped { .. }) => offset = offset.checked_add(ALIGN)?,
            Err(_) => return None,
        }
    }
    None
}

/// Page tables that a CPU had loaded, and the `phys_base` of the kernel that they map.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuTables {
    pub(super) tables: PageTables,
    pub(super) phys_base: u64,
}

/// For each CPU that has control registers: its page tables, where they map a kernel.
pub(super) fn tables_of_cpus(mem: &dyn PhysicalMemory, hints: &Hints<'_>) -> Vec<Option<CpuTables>> {
    let of_one = |control: &Control| {
        let alone = Hints { control: vec![*control], ..Hints::default() };
        roots_of_cpus(&alone)
            .into_iter()
            .find_map(|tables| Some(CpuTables { tables, phys_base: phys_base_by_tables(mem, &tables)? }))
    };
    hints.control.iter().map(of_one).collect()
}

/// Whether a CPU's page tables map the kernel's text where this `phys_base` puts it; `None` where there is none to ask.
pub(super) fn cpus_agree(mem: &dyn PhysicalMemory, hints: &Hints<'_>, phys_base: u64) -> Option<bool> {
    let mut answers =
        roots_of_cpus(hints).into_iter().filter_map(|tables| phys_base_by_tables(mem, &tables)).peekable();
    answers.peek()?;
    Some(answers.any(|base| base == phys_base))
}

/// How page tables answer for the symbols that the linear text mapping can be asked for too.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    agree: usize,
    differ: usize,
}

fn ask(mem: &dyn PhysicalMemory, info: &Vmcoreinfo, tables: PageTables, text: Option<Linear>) -> Answers {
    let by_tables = KernelMemory::new(mem, Translation { tables: Some(tables), ..Translation::default() });
    let by_text = KernelMemory::new(mem, Translation { text, ..Translation::default() });
    let mut answers = Answers::default();
    for kaddr in KNOWN.iter().filter_map(|name| info.symbol(name)) {
        let linear = by_text.translate(kaddr);
        match (by_tables.translate(kaddr), linear) {
            (Ok(a), Ok(b)) if a.paddr != b.paddr => answers.differ = answers.differ.saturating_add(1),
            (Ok(_), _) => answers.agree = answers.agree.saturating_add(1),
            (Err(MemError::NotMapped { .. }), Ok(_)) => answers.differ = answers.differ.saturating_add(1),
            (Err(_), _) => {}
        }
    }
    answers
}

/// The kernel's own page tables if VMCOREINFO and the dump have them, else those that a CPU had loaded.
fn tables(
    mem: &dyn PhysicalMemory,
    info: &Vmcoreinfo,
    cpus: &[PageTables],
    text: Option<Linear>,
) -> Result<PageTables, String> {
    let encryption_mask = info.number_u64("sme_mask").unwrap_or_default();
    let depth = match info.number("pgtable_l5_enabled") {
        Some(0) => vec![Levels::Four],
        Some(_) => vec![Levels::Five],
        // Kernels without the key are older than five levels, or were configured without them.
        None => vec![Levels::Four, Levels::Five],
    };
    let symbol =
        ["init_top_pgt", "swapper_pg_dir", "init_level4_pgt"].iter().find_map(|name| info.symbol(name));
    let by_symbol = symbol.zip(text).and_then(|(kaddr, text)| {
        let memory = KernelMemory::new(mem, Translation { text: Some(text), ..Translation::default() });
        memory.translate(kaddr).ok().map(|mapping| mapping.paddr)
    });
    let own = by_symbol.into_iter().flat_map(|root| {
        depth.iter().map(move |levels| PageTables { root, levels: *levels, encryption_mask })
    });
    let of_cpus = cpus.iter().map(|t| PageTables { encryption_mask, ..*t });
    let mut unseen = None;
    let mut contradicted = false;
    for tables in own.chain(of_cpus) {
        let answers = ask(mem, info, tables, text);
        if answers.differ > 0 {
            contradicted = true;
        } else if answers.agree > 0 || (info.is_empty() && phys_base_by_tables(mem, &tables).is_some()) {
            return Ok(tables);
        } else if unseen.is_none() && by_symbol.is_some() {
            // Some of the tables are not in the dump. Those that are still tell what they map; linear mappings stand in for the rest.
            unseen = Some(tables);
        }
    }
    unseen.ok_or_else(|| match (symbol.is_some() || !cpus.is_empty(), contradicted) {
        (false, _) => "neither VMCOREINFO nor a CPU's CR3 tells where they are".into(),
        (true, true) => "what is where they should be contradicts the kernel's text mapping".into(),
        (true, false) => "they can't be read".into(),
    })
}

/// The direct map by the page tables, or by the segments of an ELF dump.
fn direct_map(mem: &dyn PhysicalMemory, hints: &Hints<'_>, translation: &Translation) -> Option<Linear> {
    let len = mem.end_pfn().start(mem.page_size()).map_or(u64::MAX, |end| end.0);
    let memory = KernelMemory::new(mem, translation.clone());
    let by_tables = memory.first_kernel_leaf().and_then(|(kaddr, leaf)| {
        let start = kaddr.checked_sub(leaf.paddr.0)?;
        // KASLR moves it by whole gigabytes, and it maps the tables themselves.
        let root = memory.translation().tables?.root;
        let mirrored = memory.translate(start.checked_add(root.0)?).ok()?;
        (start.0.is_multiple_of(1 << 30) && mirrored.paddr == root).then_some(start)
    });
    let by_segment = || {
        let below_text =
            |kaddr: &KVirtAddr| *kaddr >= Levels::Five.kernel_half() && *kaddr < START_KERNEL_MAP;
        let mut starts = hints
            .segments
            .iter()
            .filter(|(kaddr, ..)| below_text(kaddr))
            .map(|(kaddr, paddr, _)| kaddr.checked_sub(paddr.0));
        let start = starts.next()??;
        starts.all(|other| other == Some(start)).then_some(start)
    };
    let start = by_tables.or_else(by_segment)?;
    Some(Linear { start, paddr: PhysAddr(0), len })
}
