//! The stacks of the `x86_64` kernel: where each one is, and reads that stay inside.
//!
//! A task has one stack. A CPU has one for interrupts and one for each exception that must not trust the stack it comes upon
//! (`arch/x86/include/asm/page_64_types.h`), and a small one on which it enters from user space. Which of them this kernel has,
//! and where, its types and symbols tell.

use std::fmt;

use crate::addr::KVirtAddr;
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::value::{Slot, read_number};
use crate::kernel::walk::WalkEnd;
use crate::xlat::{KernelMemory, le};

const PAGE: u64 = 4096;
/// `THREAD_SIZE` without KASAN, where the dump does not tell it.
const TASK_BYTES: u64 = 16 << 10;
/// No stack is larger: `THREAD_SIZE` with KASAN is 64 KiB.
const LARGEST: u64 = 256 << 10;
/// How far below a stack a pointer is still taken for one that has overflowed it.
const OVERFLOW: u64 = 16 << 10;
/// Bytes of `struct pt_regs`: 21 registers.
pub(super) const PT_REGS: u64 = 168;

/// What a stack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StackKind {
    /// A task's own.
    Task,
    /// Interrupts and softirqs of a CPU.
    Irq,
    /// Double faults, as by a stack that was used up.
    DoubleFault,
    /// Non-maskable interrupts.
    Nmi,
    /// Debug exceptions.
    Debug,
    /// Machine checks.
    MachineCheck,
    /// Exceptions of an encrypted guest.
    Vc,
    /// The way in from user space.
    Entry,
    /// None that is known: the block of `THREAD_SIZE` around the stack pointer is taken for one.
    Unknown,
}

impl StackKind {
    /// `task`, `irq`, `nmi`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Irq => "irq",
            Self::DoubleFault => "double fault",
            Self::Nmi => "nmi",
            Self::Debug => "debug",
            Self::MachineCheck => "machine check",
            Self::Vc => "vc",
            Self::Entry => "entry",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for StackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// What it is for.
    pub kind: StackKind,
    /// Its lowest byte.
    pub start: u64,
    /// The byte behind its highest one.
    pub end: u64,
}

impl Area {
    fn new(kind: StackKind, start: u64, bytes: u64) -> Option<Self> {
        let end = start.checked_add(bytes)?;
        (start >= 1 << 63 && bytes > 0 && bytes <= LARGEST && start.is_multiple_of(8)).then_some(Self {
            kind,
            start,
            end,
        })
    }

    /// True where a stack pointer is in the guard page below this stack, or a large frame below it: it has overflowed.
    pub(super) fn is_just_above(&self, sp: u64) -> bool {
        self.start.checked_sub(sp).is_some_and(|below| below > 0 && below <= OVERFLOW)
    }

    pub(super) fn holds(&self, at: u64, bytes: u64) -> bool {
        at >= self.start && at.checked_add(bytes).is_some_and(|end| end <= self.end)
    }
}

/// Where this kernel keeps its stacks.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) task_bytes: u64,
    /// Symbol (per CPU) and place in it of the pointer to the task that runs.
    current: Option<(KVirtAddr, u64)>,
    task_stack: Option<Slot>,
    /// Symbol (per CPU) and place in it of the pointer to the end of the interrupts' stack.
    irq: Option<(KVirtAddr, u64)>,
    irq_bytes: u64,
    /// The pointer to the exception stacks (per CPU), and each one's place and length.
    exceptions: Option<(KVirtAddr, Vec<Place>)>,
    /// The task state segment (per CPU), where its stack pointers are, and the length of the stack of the way in.
    tss: Option<Tss>,
}

/// An exception's stack: where it is among them, and its length.
type Place = (StackKind, u64, u64);

#[derive(Debug)]
struct Tss {
    at: KVirtAddr,
    entry: u64,
    ist: u64,
    entry_bytes: u64,
}

impl Shape {
    pub(super) fn new(description: &Description) -> Self {
        let (symbols, types) = (&description.symbols, &description.types);
        let size = |name: &str| types.structure(name).ok().map(crate::sym::btf::Struct::size);
        let plausible = |bytes: &u64| bytes.is_power_of_two() && (PAGE..=LARGEST).contains(bytes);
        let between = |from: &str, to: &str| {
            symbols.address(to)?.0.checked_sub(symbols.address(from)?.0).filter(plausible)
        };
        let task_bytes = between("__start_init_stack", "__end_init_stack")
            .or_else(|| between("__start_init_task", "__end_init_task"))
            .or_else(|| size("thread_union").filter(plausible));
        let hot = symbols.address("pcpu_hot");
        let in_hot = |member: &str| {
            let place = types.structure("pcpu_hot").ok()?.member(member).ok()?.offset();
            Some((hot?, place))
        };
        let alone = |name: &str| symbols.address(name).map(|at| (at, 0));
        // In `pcpu_hot` from 6.2 to 6.14; under its present name since 5.2 (kernel commit 758a2e312228).
        let irq = in_hot("hardirq_stack_ptr")
            .or_else(|| alone("hardirq_stack_ptr"))
            .or_else(|| alone("irq_stack_ptr"));
        let irq_bytes = size("irq_stack").or_else(|| size("irq_stack_union")).filter(plausible);
        Self {
            task_bytes: task_bytes.unwrap_or(TASK_BYTES),
            current: in_hot("current_task").or_else(|| alone("current_task")),
            task_stack: types
                .structure("task_struct")
                .and_then(|t| t.member("stack"))
                .and_then(Slot::new)
                .ok()
                .filter(|slot| slot.bytes() == 8),
            irq,
            irq_bytes: irq_bytes.unwrap_or(TASK_BYTES),
            exceptions: exceptions(description),
            tss: tss(description),
        }
    }

    /// The task's own stack, from its lowest byte on.
    pub(super) fn task(&self, base: KVirtAddr) -> Option<Area> {
        Area::new(StackKind::Task, base.0, self.task_bytes)
    }

    /// The block of a task's size around an address: tasks' stacks are aligned to their size.
    pub(super) fn around(&self, sp: u64) -> Option<Area> {
        let start = sp & !self.task_bytes.wrapping_sub(1);
        Area::new(StackKind::Unknown, start, self.task_bytes)
    }

    /// All stacks of a CPU, and that of the task which it ran.
    pub(super) fn of_cpu(&self, memory: &KernelMemory<'_>, cpus: &PerCpu, cpu: usize) -> Vec<Area> {
        let mut found = Vec::new();
        let copy = |at: KVirtAddr, place: u64| cpus.address(at, cpu).ok()?.checked_add(place);
        if let (Some((at, place)), Some(slot)) = (&self.current, &self.task_stack) {
            let task = copy(*at, *place).and_then(|at| memory.read_ptr(at).ok());
            let base = task.and_then(|task| read_number(memory, task, slot).ok());
            found.extend(base.and_then(|base| self.task(KVirtAddr(base))));
        }
        if let Some((at, place)) = &self.irq
            && let Some(pointer) = copy(*at, *place).and_then(|at| memory.read_ptr(at).ok())
        {
            // It points at the end, or a few words before it (5.9 and later: 8 bytes; 4.14: 64).
            let end = pointer.0.checked_next_multiple_of(PAGE);
            let start = end.and_then(|end| end.checked_sub(self.irq_bytes));
            found.extend(start.and_then(|start| Area::new(StackKind::Irq, start, self.irq_bytes)));
        }
        if let Some((at, stacks)) = &self.exceptions
            && let Some(base) = copy(*at, 0).and_then(|at| memory.read_ptr(at).ok()).filter(|b| !b.is_null())
        {
            found.extend(
                stacks
                    .iter()
                    .filter_map(|(kind, place, bytes)| Area::new(*kind, base.checked_add(*place)?.0, *bytes)),
            );
        }
        if let Some(tss) = &self.tss {
            found.extend(self.by_tss(memory, tss, copy(tss.at, 0)));
        }
        found
    }

    /// What the task state segment tells: the stack of the way in, and where no structure tells them the exceptions' stacks.
    fn by_tss(&self, memory: &KernelMemory<'_>, tss: &Tss, at: Option<KVirtAddr>) -> Vec<Area> {
        let mut found = Vec::new();
        let pointer = |place: u64| at?.checked_add(place).and_then(|at| memory.read_ptr(at).ok());
        let end = pointer(tss.entry).map(|p| p.0).filter(|end| end.is_multiple_of(8));
        let start = end.and_then(|end| end.checked_sub(tss.entry_bytes));
        found.extend(start.and_then(|start| Area::new(StackKind::Entry, start, tss.entry_bytes)));
        if self.exceptions.is_some() {
            return found;
        }
        // 4.18 to 5.1: the order of `DOUBLEFAULT_STACK`, `NMI_STACK`, `DEBUG_STACK`, `MCE_STACK`; each ends where the next begins.
        let kinds = [StackKind::DoubleFault, StackKind::Nmi, StackKind::Debug, StackKind::MachineCheck];
        let ends: Vec<u64> = (0_u64..7)
            .filter_map(|n| pointer(tss.ist.saturating_add(n.saturating_mul(8))))
            .map(|end| end.0)
            .filter(|end| *end >= 1 << 63 && end.is_multiple_of(PAGE))
            .collect();
        for (kind, end) in kinds.into_iter().zip(&ends) {
            let below = ends.iter().filter(|e| *e < end).max();
            let bytes = below.and_then(|b| end.checked_sub(*b)).filter(|bytes| *bytes <= 8 * PAGE);
            let bytes = bytes.unwrap_or(PAGE);
            found.extend(end.checked_sub(bytes).and_then(|start| Area::new(kind, start, bytes)));
        }
        found
    }
}

/// `struct cea_exception_stacks` (5.2 and later, kernel commit 019b17b3ffe4).
fn exceptions(description: &Description) -> Option<(KVirtAddr, Vec<Place>)> {
    let at = description.symbols.address("cea_exception_stacks")?;
    let of = description.types.structure("cea_exception_stacks").ok()?;
    let names = [
        (StackKind::DoubleFault, "DF_stack"),
        (StackKind::Nmi, "NMI_stack"),
        (StackKind::Debug, "DB_stack"),
        (StackKind::MachineCheck, "MCE_stack"),
        (StackKind::Vc, "VC_stack"),
        (StackKind::Vc, "VC2_stack"),
    ];
    let find = |(kind, name): (StackKind, &str)| {
        let member = of.member(name).ok()?;
        Some((kind, member.offset(), member.size().ok()?))
    };
    // Of a guest that is not encrypted the last two are empty.
    Some((at, names.into_iter().filter_map(find).filter(|(.., bytes)| *bytes > 0).collect()))
}

fn tss(description: &Description) -> Option<Tss> {
    let at = description.symbols.address("cpu_tss_rw")?;
    let of = description.types.structure("tss_struct").ok()?;
    let bytes = description.types.structure("entry_stack").ok()?.size();
    Some(Tss {
        at,
        entry: of.member("x86_tss.sp0").ok()?.offset(),
        ist: of.member("x86_tss.ist").ok()?.offset(),
        entry_bytes: bytes,
    })
}

/// Why a word can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoWord {
    /// It is on none of the stacks.
    Outside(u64),
    /// It is not in the dump.
    Unreadable(u64, String),
}

/// Reads of stacks, which keep the page that was read last.
pub(super) struct Reader<'a> {
    memory: &'a KernelMemory<'a>,
    pub(super) areas: Vec<Area>,
    /// How far each stack has been used up: a step must lead higher.
    reached: Vec<u64>,
    kept: Option<(u64, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(memory: &'a KernelMemory<'a>, areas: Vec<Area>) -> Self {
        let reached = vec![0; areas.len()];
        Self { memory, areas, reached, kept: None }
    }

    /// The stack that holds these bytes.
    pub(super) fn area(&self, at: u64, bytes: u64) -> Option<Area> {
        self.areas.iter().find(|a| a.holds(at, bytes)).copied()
    }

    /// The stack that a stack pointer is on: it may point behind the stack where the stack is empty, and before it where
    /// the stack has overflowed.
    pub(super) fn area_of_pointer(&self, sp: u64) -> Option<Area> {
        let find = |is: &dyn Fn(&&Area) -> bool| self.areas.iter().find(is).copied();
        self.area(sp, 8).or_else(|| find(&|a| a.end == sp)).or_else(|| find(&|a| a.is_just_above(sp)))
    }

    /// What kind of stack a stack pointer is on.
    pub(super) fn kind(&self, sp: u64) -> StackKind {
        self.area_of_pointer(sp).map_or(StackKind::Unknown, |a| a.kind)
    }

    /// Notes that a step used what is at `at`. False where it had been there, or beyond, on the same stack.
    pub(super) fn advance(&mut self, at: u64) -> bool {
        let Some(number) = self.areas.iter().position(|a| a.holds(at, 8)) else { return false };
        match self.reached.get_mut(number) {
            Some(reached) if *reached < at => {
                *reached = at;
                true
            }
            _ => false,
        }
    }

    /// How far the stack has been used up.
    pub(super) fn reached(&self, area: &Area) -> u64 {
        let number = self.areas.iter().position(|a| a == area);
        number.and_then(|n| self.reached.get(n)).copied().unwrap_or_default()
    }

    /// The word at `at`, which must be on a stack.
    pub(super) fn word(&mut self, at: u64) -> Result<u64, NoWord> {
        if self.area(at, 8).is_none() {
            return Err(NoWord::Outside(at));
        }
        let page = at & !PAGE.wrapping_sub(1);
        let within = usize::try_from(at.wrapping_sub(page)).unwrap_or_default();
        if within > 4088 {
            // A word across two pages: no kernel has one, a damaged stack pointer may ask for it.
            return self.memory.read_u64(KVirtAddr(at)).map_err(|why| unreadable(at, &why));
        }
        if !matches!(&self.kept, Some((kept, _)) if *kept == page) {
            let mut bytes = self.kept.take().map_or_else(|| vec![0; 4096], |(_, bytes)| bytes);
            self.memory.read(KVirtAddr(page), &mut bytes).map_err(|why| unreadable(at, &why))?;
            self.kept = Some((page, bytes));
        }
        let word = self.kept.as_ref().and_then(|(_, bytes)| le::u64_at(bytes, within));
        word.ok_or(NoWord::Outside(at))
    }
}

fn unreadable(at: u64, why: &crate::error::MemError) -> NoWord {
    match WalkEnd::unreadable(KVirtAddr(at), why) {
        WalkEnd::Unreadable(_, why) => NoWord::Unreadable(at, why),
        other => NoWord::Unreadable(at, other.to_string()),
    }
}
