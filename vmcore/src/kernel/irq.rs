//! The interrupts: who handles them, on which CPUs, and how often each came (`/proc/interrupts`, `/proc/irq`).
//!
//! Facts: `include/linux/irqdesc.h`, `include/linux/irq.h`, `kernel/irq/irqdesc.c`. The descriptors are in a maple tree since 6.5
//! (`sparse_irqs`), in a radix tree before that (`irq_desc_tree`), or in an array where interrupts are not sparse.

use super::reader::{Reader, note, note_end};
use super::value::{Layout, Maybe, view};
use super::xarray::Entry;
use super::{Gap, maple, xarray};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Kind, Types};

/// Handlers of one interrupt.
const ACTIONS: usize = 256;
/// Interrupts that are read.
const MOST: usize = 1 << 20;

view! {
    /// `struct irq_desc`.
    struct Object of "irq_desc" {
        irq: u32 = ["irq_data.irq"],
        hwirq: Maybe<u64> = ["irq_data.hwirq"],
        chip: Maybe<KVirtAddr> = ["irq_data.chip"],
        action: KVirtAddr = ["action"],
        counts: Maybe<KVirtAddr> = ["kstat_irqs"],
        depth: Maybe<u32> = ["depth"],
        unhandled: Maybe<u32> = ["irqs_unhandled"],
        state: Maybe<u32> = ["irq_common_data.state_use_accessors"],
        name: Maybe<KVirtAddr> = ["name"],
    }
}

view! {
    /// `struct irqaction`: a handler.
    struct Action of "irqaction" {
        handler: Maybe<KVirtAddr> = ["handler"],
        next: KVirtAddr = ["next"],
        name: KVirtAddr = ["name"],
    }
}

view! {
    /// `struct irq_chip`.
    struct Chip of "irq_chip" {
        name: KVirtAddr = ["name"],
    }
}

/// A handler of an interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handler {
    /// The name that it was registered with.
    pub name: String,
    /// Its function.
    pub function: Option<String>,
}

/// One interrupt. A member is `None` where it can't be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interrupt {
    /// Its number.
    pub number: u64,
    /// Where its descriptor is.
    pub kaddr: KVirtAddr,
    /// Its number at the interrupt controller.
    pub hwirq: Option<u64>,
    /// The interrupt controller.
    pub chip: Option<String>,
    /// How it is handled: `edge`, `fasteoi`, …
    pub flow: Option<String>,
    /// Who handles it, in order.
    pub handlers: Vec<Handler>,
    /// True where the list of handlers was read to its end.
    pub all_handlers: bool,
    /// How often it came on each CPU that can exist, by the CPU's number.
    pub counts: Option<Vec<(usize, u64)>>,
    /// The CPUs that may handle it.
    pub affinity: Option<Vec<usize>>,
    /// The CPUs that do.
    pub effective: Option<Vec<usize>>,
    /// How often it is disabled; 0 is enabled.
    pub depth: Option<u32>,
    /// How many of the last came without any handler saying that it was its own.
    pub unhandled: Option<u32>,
    /// Its state, by the kernel's names without `IRQD_`.
    pub flags: Vec<String>,
}

impl Interrupt {
    /// How often it came on all CPUs.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let counts = self.counts.as_ref()?;
        Some(counts.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count)))
    }
}

/// All interrupts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Interrupts {
    /// By ascending number.
    pub interrupts: Vec<Interrupt>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads all interrupts.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Interrupts {
    let mut found = Interrupts::default();
    let descriptors = match descriptors(reader, &mut found.gaps) {
        Ok(descriptors) => descriptors,
        Err(why) => {
            note(&mut found.gaps, "interrupts", why);
            return found;
        }
    };
    let layouts = || {
        let types = reader.types;
        let layouts =
            (Layout::<Object>::new(types)?, Layout::<Action>::new(types)?, Layout::<Chip>::new(types)?);
        Ok::<_, crate::sym::btf::TypeError>(layouts)
    };
    let (objects, actions, chips) = match layouts() {
        Ok(layouts) => layouts,
        Err(why) => {
            note(&mut found.gaps, "interrupts", why);
            return found;
        }
    };
    let each = Each { reader, actions, chips, count: count_inside(reader.types), flags: flags(reader.types) };
    for (number, kaddr) in descriptors {
        match objects.read(reader.memory, kaddr) {
            Ok(object) if u64::from(object.irq) == number => {
                let read = each.one(number, kaddr, &object, &mut found.gaps);
                found.interrupts.push(read);
            }
            Ok(object) => {
                let why = format!("the descriptor at {kaddr} is that of interrupt {}", object.irq);
                note(&mut found.gaps, &format!("interrupt {number}"), why);
            }
            Err(why) => note(&mut found.gaps, &format!("interrupt {number}"), why),
        }
    }
    found
}

/// Numbers and descriptors.
fn descriptors(reader: Reader<'_, '_>, gaps: &mut Vec<Gap>) -> Result<Vec<(u64, KVirtAddr)>, String> {
    let limit = reader.limits.walk_items.min(MOST);
    if let Some(tree) = reader.symbols.address("sparse_irqs") {
        let layout = maple::Layout::new(reader.types).map_err(|why| why.to_string())?;
        let walk = layout.entries(reader.memory, tree, limit);
        note_end(gaps, "the tree of interrupts", &walk.end);
        return Ok(walk.items.into_iter().map(|range| (range.first, range.entry)).collect());
    }
    if let Some(tree) = reader.symbols.address("irq_desc_tree") {
        let layout = xarray::Layout::new(reader.types).map_err(|why| why.to_string())?;
        let walk = layout.entries(reader.memory, tree, limit);
        note_end(gaps, "the tree of interrupts", &walk.end);
        let pointer = |(index, entry)| match entry {
            Entry::Pointer(at) => Some((index, at)),
            Entry::Value(_) => None,
        };
        return Ok(walk.items.into_iter().filter_map(pointer).collect());
    }
    let array =
        reader.symbols.symbol("irq_desc").ok_or("no symbol of the interrupts' descriptors is known")?;
    let size = reader.types.structure("irq_desc").map_err(|why| why.to_string())?.size();
    let room = array.size.ok_or("the size of the array irq_desc is not known")?;
    let count = room.checked_div(size).unwrap_or_default();
    let count = count.min(u64::try_from(limit).unwrap_or_default());
    let place = |number: u64| Some((number, array.address.checked_add(number.checked_mul(size)?)?));
    Ok((0..count).filter_map(place).collect())
}

/// Where in what `kstat_irqs` points at the count is: the number itself, or a member of `struct irqstat` (6.10).
fn count_inside(types: &Types) -> Option<u64> {
    let target = types.structure("irq_desc").ok()?.member("kstat_irqs").ok()?.ty().resolve().ok()?;
    let target = target.target().ok()??.resolve().ok()?;
    match target.kind() {
        Kind::Int => Some(0),
        Kind::Struct => Some(target.as_struct().ok()?.member("cnt").ok()?.offset()),
        _ => None,
    }
}

/// The bits of an interrupt's state and their names.
fn flags(types: &Types) -> Vec<(u32, String)> {
    const WANTED: [&str; 6] = [
        "IRQD_IRQ_DISABLED",
        "IRQD_IRQ_MASKED",
        "IRQD_IRQ_INPROGRESS",
        "IRQD_IRQ_STARTED",
        "IRQD_AFFINITY_MANAGED",
        "IRQD_MANAGED_SHUTDOWN",
    ];
    let Some(kernel) = types.kernel() else { return Vec::new() };
    let bit = |name: &&str| {
        let bit = u32::try_from(kernel.constant(name).ok()?).ok()?;
        let short = name.strip_prefix("IRQD_").unwrap_or(name);
        Some((bit, short.strip_prefix("IRQ_").unwrap_or(short).to_ascii_lowercase()))
    };
    WANTED.iter().filter_map(bit).collect()
}

struct Each<'a, 'm> {
    reader: Reader<'a, 'm>,
    actions: Layout<Action>,
    chips: Layout<Chip>,
    count: Option<u64>,
    flags: Vec<(u32, String)>,
}

impl Each<'_, '_> {
    fn one(&self, number: u64, kaddr: KVirtAddr, object: &Object, gaps: &mut Vec<Gap>) -> Interrupt {
        let reader = self.reader;
        let what = format!("interrupt {number}");
        let mut gap = |part: &str, why: String| note(gaps, &format!("{what}: {part}"), why);
        let mut found = Interrupt {
            number,
            kaddr,
            hwirq: object.hwirq.clone().value(),
            depth: object.depth.clone().value(),
            unhandled: object.unhandled.clone().value(),
            flow: object.name.clone().value().and_then(|at| reader.text(at)),
            all_handlers: true,
            ..Interrupt::default()
        };
        if let Some(state) = object.state.as_ref() {
            let set = self.flags.iter().filter(|(bit, _)| state & bit != 0);
            found.flags = set.map(|(_, name)| name.clone()).collect();
        }
        if let Some(chip) = object.chip.as_ref().filter(|chip| !chip.is_null()) {
            match self.chips.read(reader.memory, *chip) {
                Ok(chip) => {
                    found.chip = reader.text(chip.name);
                    if found.chip.is_none() && !chip.name.is_null() {
                        gap("chip", format!("its name at {} can't be read", chip.name));
                    }
                }
                Err(why) => gap("chip", why.to_string()),
            }
        }
        let mut seen = std::collections::HashSet::new();
        let mut next = object.action;
        while !next.is_null() {
            if found.handlers.len() >= ACTIONS || !seen.insert(next) {
                gap("handlers", "their list has no end".into());
                found.all_handlers = false;
                break;
            }
            match self.actions.read(reader.memory, next) {
                Ok(action) => {
                    let function = action.handler.value().filter(|at| !at.is_null());
                    let name = reader.text(action.name);
                    if name.is_none() && !action.name.is_null() {
                        gap("handlers", format!("the name of one, at {}, can't be read", action.name));
                    }
                    found.handlers.push(Handler {
                        name: name.unwrap_or_default(),
                        function: function.map(|at| reader.function(at)),
                    });
                    next = action.next;
                }
                Err(why) => {
                    gap("handlers", why.to_string());
                    found.all_handlers = false;
                    break;
                }
            }
        }
        match self.counts(object) {
            Ok(counts) => found.counts = Some(counts),
            Err(why) => gap("counts", why),
        }
        if let Ok(of) = reader.types.structure("irq_desc") {
            match reader.cpumask(kaddr, of, &["irq_common_data.affinity"]) {
                Ok(cpus) => found.affinity = Some(cpus),
                Err(why) => gap("affinity", why),
            }
            if of.has("irq_common_data.effective_affinity") {
                match reader.cpumask(kaddr, of, &["irq_common_data.effective_affinity"]) {
                    Ok(cpus) => found.effective = Some(cpus),
                    Err(why) => gap("effective affinity", why),
                }
            }
        }
        found
    }

    fn counts(&self, object: &Object) -> Result<Vec<(usize, u64)>, String> {
        let reader = self.reader;
        let at = object.counts.as_ref().filter(|at| !at.is_null()).ok_or("there are none")?;
        let inside = self.count.ok_or("their type is not known")?;
        let start = at.checked_add(inside).ok_or("they are at the end of the address space")?;
        let count = |cpu: &usize| {
            let place = reader.per_cpu.address(start, *cpu).map_err(|why| why.to_string())?;
            let count = reader.memory.read_u32(place).map_err(|why| why.to_string())?;
            Ok((*cpu, u64::from(count)))
        };
        reader.per_cpu.possible().iter().map(count).collect()
    }
}
