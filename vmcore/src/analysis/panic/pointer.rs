//! What a value in a register points to. Whatever is not certain is not said: most registers hold mere numbers.

use std::cell::OnceCell;
use std::ops::Range;

use crate::addr::{KVirtAddr, UVirtAddr};
use crate::analysis::parts::Context;
use crate::error::MemError;
use crate::kernel::reader::Reader;
use crate::kernel::slab;
use crate::kernel::task::Task;
use crate::unwind::StackKind;
use crate::xlat::UserMemory;

/// Values below it are taken for NULL and a member's offset, where they are used as an address: the page that is never mapped.
const NULL_PAGE: u64 = 4096;
/// Errors as pointers are the last page of all (`MAX_ERRNO` in `include/linux/err.h`).
const ERRORS: u64 = 4095;
/// How far above a poison a pointer into the poisoned structure is still told from.
const NEAR: u64 = 4096;
/// How far below a task's stack a stack pointer is said to have left it.
const OVERFLOW: u64 = 16 << 10;
/// `POISON_POINTER_DELTA` (`CONFIG_ILLEGAL_POINTER_VALUE` of `x86_64`).
const DELTA: u64 = 0xdead_0000_0000_0000;

/// What marks memory that must not be used (`include/linux/poison.h`).
const POINTERS: &[(u64, &str)] = &[
    (DELTA + 0x100, "LIST_POISON1: its entry was removed from a list"),
    (DELTA + 0x122, "LIST_POISON2: its entry was removed from a list"),
    // Before 4.6 (kernel commit 8a5e5e02fc83).
    (DELTA + 0x200, "LIST_POISON2: its entry was removed from a list"),
    (DELTA + 0x300, "TIMER_ENTRY_STATIC: its timer is not queued"),
];

/// Bytes that fill such memory.
const BYTES: &[(u8, &str)] = &[
    (0x6b, "POISON_FREE: read from a freed slab object"),
    (0x5a, "POISON_INUSE: read from a slab object that was never written"),
    (0xaa, "PAGE_POISON: read from a freed page"),
    (0xcc, "POISON_FREE_INITMEM: read from freed init memory"),
    (0xbb, "SLUB_RED_INACTIVE: read from the red zone of a free slab object"),
];

/// Says what addresses are.
pub(in crate::analysis) struct Pointers<'c, 'a> {
    context: &'c Context<'a>,
    source: Reader<'a, 'a>,
    /// Whose memory the user's half of the addresses is.
    current: Option<&'a Task>,
    cpu: Option<usize>,
    /// The CPUs' own stacks, once they are asked for.
    stacks: OnceCell<Vec<CpuStack>>,
}

/// One of a CPU's own stacks.
type CpuStack = (usize, StackKind, Range<KVirtAddr>);

impl<'c, 'a> Pointers<'c, 'a> {
    pub(in crate::analysis) fn new(context: &'c Context<'a>, cpu: Option<usize>) -> Self {
        let current = cpu.and_then(|cpu| context.tasks.current(cpu));
        Self { context, source: context.reader(), current, cpu, stacks: OnceCell::new() }
    }

    /// What is at an address that an instruction uses.
    pub(in crate::analysis) fn address(&self, at: u64) -> Option<String> {
        if at == 0 {
            return Some("NULL".into());
        }
        if at < NULL_PAGE {
            return Some(format!("NULL + {at:#x}"));
        }
        self.value(at).or_else(|| (at >> 63 == 0).then(|| "a user address".to_owned()))
    }

    /// What a register's value points to.
    pub(super) fn value(&self, value: u64) -> Option<String> {
        if value == 0 {
            return Some("NULL".into());
        }
        if value > u64::MAX.saturating_sub(ERRORS) {
            return Some(error(value));
        }
        if let Some(words) = poison(value) {
            return Some(words);
        }
        let levels = self.context.memory.translation().tables.map(|tables| tables.levels);
        let canonical = match levels {
            Some(levels) => levels.is_canonical(KVirtAddr(value)),
            // Without page tables only what no machine has is known not to be an address.
            None => value >> 56 == 0 || value >> 56 == 0xff,
        };
        if !canonical {
            return Some("no address (non-canonical)".into());
        }
        if value >> 63 == 0 { self.user(value) } else { Some(self.kernel(KVirtAddr(value))) }
    }

    fn user(&self, value: u64) -> Option<String> {
        let task = self.current?;
        let pgd = self.source.member(task.mm?, "mm_struct", &["pgd"]).ok()?;
        let memory = UserMemory::new(self.context.memory, KVirtAddr(pgd)).ok()?;
        match memory.translate(UVirtAddr(value)) {
            Ok(_) => Some(format!("user memory of {}", named(task))),
            Err(MemError::NotMapped { .. }) => {
                // Smaller numbers are more often numbers.
                (value >> 32 != 0).then(|| format!("a user address, not mapped in {}", named(task)))
            }
            Err(_) => None,
        }
    }

    fn kernel(&self, at: KVirtAddr) -> String {
        let found = self.stack(at).or_else(|| self.task(at)).or_else(|| self.per_cpu(at));
        let found = found.or_else(|| self.symbol(at)).or_else(|| self.slab(at));
        found.unwrap_or_else(|| self.other(at))
    }

    /// A place on a stack.
    fn stack(&self, at: KVirtAddr) -> Option<String> {
        let bytes = self.context.unwinder.stack_bytes();
        for task in &self.context.tasks.tasks {
            let Some(low) = task.stack else { continue };
            if at.0.checked_sub(low.0).is_some_and(|inside| inside < bytes) {
                return Some(format!("the stack of {}", named(task)));
            }
        }
        for task in &self.context.tasks.tasks {
            // Nothing is mapped there where stacks have guard pages; where they do not, it may be anything.
            let below = task.stack.and_then(|low| low.0.checked_sub(at.0));
            if below.is_some_and(|below| below > 0 && below <= OVERFLOW)
                && matches!(self.context.memory.translate(at), Err(MemError::NotMapped { .. }))
            {
                return Some(format!("below the stack of {}: it is used up", named(task)));
            }
        }
        let all = self.stacks.get_or_init(|| self.cpu_stacks());
        let (cpu, kind, _) = all.iter().find(|(.., range)| range.contains(&at))?;
        Some(format!("the {kind} stack of CPU {cpu}"))
    }

    fn cpu_stacks(&self) -> Vec<CpuStack> {
        let of = |cpu: &usize| {
            let own = self.context.unwinder.cpu_stacks(*cpu).into_iter();
            own.map(|(kind, range)| (*cpu, kind, range)).collect::<Vec<_>>()
        };
        self.context.per_cpu.possible().iter().flat_map(of).collect()
    }

    fn task(&self, at: KVirtAddr) -> Option<String> {
        let size = self.source.types.structure("task_struct").ok()?.size();
        let of = |task: &&Task| at.0.checked_sub(task.kaddr.0).is_some_and(|inside| inside < size);
        let task = self.context.tasks.tasks.iter().find(of)?;
        Some(format!("{} of {}", place("the task_struct", at.0, task.kaddr.0), named(task)))
    }

    /// A CPU's copy of a per-CPU variable.
    fn per_cpu(&self, at: KVirtAddr) -> Option<String> {
        let symbols = &self.context.description.symbols;
        let start = symbols.address("__per_cpu_start")?;
        let end = symbols.address("__per_cpu_end")?;
        self.context.per_cpu.possible().iter().find_map(|cpu| {
            let variable = KVirtAddr(at.0.wrapping_sub(self.context.per_cpu.offset(*cpu).ok()?));
            if !(start..end).contains(&variable) {
                return None;
            }
            // `at` does not answer for per-CPU symbols, which begin at 0 on most kernels.
            let nearest = symbols.kernel()?.per_cpu_at(variable)?;
            let name = place(&nearest.name, variable.0, nearest.address.0);
            Some(format!("the per-CPU variable {name} of CPU {cpu}"))
        })
    }

    fn symbol(&self, at: KVirtAddr) -> Option<String> {
        let symbols = &self.context.description.symbols;
        if let Some(module) = symbols.module_at(at) {
            let inside = symbols.at(at).map_or_else(|| "memory".to_owned(), |found| short(&found));
            return Some(format!("{inside} of module {module}"));
        }
        let image = symbols.address("_text").or_else(|| symbols.address("_stext"))?;
        let end = symbols.address("_end")?;
        (image..end).contains(&at).then(|| symbols.at(at).map(|found| short(&found))).flatten()
    }

    fn slab(&self, at: KVirtAddr) -> Option<String> {
        let object = slab::identify(&self.source, at).ok()??;
        let state = match object.allocated {
            Some(true) => ", allocated",
            Some(false) => ", FREE",
            None => "",
        };
        let what = place(&format!("the object {:#x}", object.start.0), at.0, object.start.0);
        Some(format!("{what} of slab cache {}{state}", object.cache))
    }

    /// Whether there is memory at all.
    fn other(&self, at: KVirtAddr) -> String {
        let direct = self.context.memory.translation().direct;
        let in_direct = direct
            .is_some_and(|direct| at.0.checked_sub(direct.start.0).is_some_and(|inside| inside < direct.len));
        match (self.context.memory.translate(at), in_direct) {
            (Ok(mapping), true) => format!("memory at {} (direct map), no slab object", mapping.paddr),
            (Ok(mapping), false) => format!("mapped kernel memory at {}", mapping.paddr),
            (Err(MemError::NotMapped { .. }), true) => "in the direct map, where nothing is mapped".into(),
            (Err(MemError::NotMapped { .. }), false) => "a kernel address where nothing is mapped".into(),
            (Err(_), _) => "a kernel address; its page table is not in the dump".into(),
        }
    }

    /// The base of the CPU's per-CPU segment, which `gs` holds in the kernel.
    pub(super) fn gs(&self) -> Option<u64> {
        self.context.per_cpu.offset(self.cpu?).ok()
    }
}

/// `name`, or `name + 0x10`.
fn place(name: &str, at: u64, start: u64) -> String {
    match at.wrapping_sub(start) {
        0 => name.to_owned(),
        offset => format!("{name} + {offset:#x}"),
    }
}

/// `name+0x10`, as the kernel prints it.
pub(super) fn short(found: &crate::sym::SymbolAt) -> String {
    format!("{}+{:#x}", found.symbol.name, found.offset)
}

fn named(task: &Task) -> String {
    let cpu = task.cpu.filter(|_| task.pid == 0).map(|cpu| format!(" of CPU {cpu}")).unwrap_or_default();
    format!("{} (pid {}){cpu}", task.comm, task.pid)
}

/// An error number as a pointer.
fn error(value: u64) -> String {
    let number = value.wrapping_neg();
    // The numbers of `include/uapi/asm-generic/errno-base.h` that functions return most as pointers.
    let name = match number {
        1 => "EPERM",
        2 => "ENOENT",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        22 => "EINVAL",
        28 => "ENOSPC",
        110 => "ETIMEDOUT",
        517 => "EPROBE_DEFER",
        _ => return format!("-{number}: an error as a pointer, or a small negative number"),
    };
    format!("-{number}: the error {name} as a pointer, or a small negative number")
}

/// What a poison tells, where the value is one or is a little above one.
pub(super) fn poison(value: u64) -> Option<String> {
    let plus = |offset: u64| if offset == 0 { String::new() } else { format!(" + {offset:#x}") };
    if let Some((_, words)) = POINTERS.iter().find(|(poison, _)| *poison == value) {
        return Some((*words).to_owned());
    }
    if value >> 48 == DELTA >> 48 {
        return Some("a poisoned pointer (0xdead…): what it was in was removed or freed".into());
    }
    for (byte, words) in BYTES {
        let filled = u64::from_ne_bytes([*byte; 8]);
        if let Some(offset) = value.checked_sub(filled).filter(|offset| *offset < NEAR) {
            let (name, rest) = words.split_once(':').unwrap_or((words, ""));
            return Some(format!("{name}{}:{rest}", plus(offset)));
        }
    }
    // The last byte of a freed object differs (`POISON_END`).
    (value == 0xa56b_6b6b_6b6b_6b6b).then(|| "POISON_FREE: read from a freed slab object".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisons_are_told_with_what_was_added_to_them() {
        assert!(poison(0xdead_0000_0000_0100).unwrap().starts_with("LIST_POISON1"));
        assert!(poison(0xdead_0000_0000_0122).unwrap().starts_with("LIST_POISON2"));
        assert!(poison(0xdead_0000_0000_0108).unwrap().starts_with("a poisoned pointer"));
        assert_eq!(
            poison(0x6b6b_6b6b_6b6b_6b83).unwrap(),
            "POISON_FREE + 0x18: read from a freed slab object"
        );
        assert!(poison(0xa56b_6b6b_6b6b_6b6b).unwrap().starts_with("POISON_FREE"));
        assert_eq!(poison(0xffff_8880_0000_1000), None);
        assert_eq!(poison(0x6b), None);
    }

    #[test]
    fn errors_as_pointers_have_their_names() {
        assert!(error(u64::MAX - 11).starts_with("-12: the error ENOMEM"));
        assert!(error(u64::MAX).starts_with("-1: the error EPERM"));
        assert!(error(u64::MAX - 999).starts_with("-1000: an error"));
    }
}
