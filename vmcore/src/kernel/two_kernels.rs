//! Two kernels in one image: the host kept a guest's memory while the guest's capture kernel ran.
//!
//! The kernel that crashed lies there as it died, and the capture kernel lives in the memory that was set aside for it. The CPU that
//! crashed runs the capture kernel, so its registers and its page tables are not the crashed kernel's. The capture kernel itself
//! tells of the other: `elfcorehdr_addr` leads to the ELF header that `kexec` made, and that to the crashed kernel's VMCOREINFO,
//! to its CPUs' registers at the crash, and to the memory that was its own. Facts: `kernel/crash_dump.c`, `kernel/kexec_file.c`.

use std::ops::Range;

use zerocopy::FromBytes;

use super::address_space::{self, CpuTables};
use super::hints::Hints;
use super::scan::{self, Candidate};
use super::variable::Variables;
use crate::addr::PhysAddr;
use crate::format::notes::{self, Note};
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::format::{Arch, PrStatus, prstatus};
use crate::limits::Limits;
use crate::mem::PhysicalMemory;
use crate::progress::Cancel;
use crate::raw::elf::{Ehdr, Phdr};
use crate::sym::{Symbols, kallsyms};
use crate::xlat::{KernelMemory, Translation};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Bytes of one note segment: the kernel has a page or two for each.
const NOTE_SEGMENT: u64 = 1 << 16;
/// `elfcorehdr_addr` of a kernel that captures nothing (`ELFCORE_ADDR_MAX`).
const NEVER: u64 = u64::MAX;
/// And of one that has read the header (`ELFCORE_ADDR_ERR`).
const USED_UP: u64 = u64::MAX - 1;
/// Bytes of a command line at most.
const COMMAND_LINE: usize = 32 << 10;
/// How many kernels are looked for behind the CPUs' page tables.
const KERNELS: usize = 4;

/// Which kernel a CPU was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The kernel that crashed: the CPU was stopped there.
    Crashed,
    /// The capture kernel.
    Capture,
    /// Its page tables tell neither: it was in firmware, or they are not in the dump.
    Unknown,
}

/// Memory of the crashed kernel that `kexec` moved out of the capture kernel's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it was: physical addresses at which the image now has the capture kernel's bytes.
    pub from: Range<u64>,
    /// Where its bytes are kept.
    pub kept_at: PhysAddr,
}

/// What the capture kernel was told of the crashed one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HandedOver {
    /// The crashed kernel's VMCOREINFO, and where it is.
    pub vmcoreinfo: Option<(PhysAddr, Vmcoreinfo)>,
    /// The registers of its CPUs when it crashed.
    pub registers: Vec<PrStatus>,
    /// Its other notes as they are in memory; the registers are parsed from these.
    pub notes: Vec<Note>,
    /// Its memory, in physical addresses.
    pub memory: Vec<Range<u64>>,
    /// What of it lies elsewhere now.
    pub moved: Vec<Moved>,
}

/// An image of two kernels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TwoKernels {
    /// The capture kernel's VMCOREINFO.
    pub capture: Candidate,
    /// Where the ELF header is that tells it of the crashed kernel.
    pub elf_header: PhysAddr,
    /// What that header tells; `None` where it can't be read.
    pub handed_over: Option<HandedOver>,
    /// For each CPU of [`Hints::control`]: which kernel it was in. Registers of [`Owner::Capture`] say nothing of the crash.
    pub cpus: Vec<Owner>,
}

/// Looks for a capture kernel beside the kernel of `known` (which may be empty): behind the page tables of each CPU, and among
/// `texts` that were found in memory.
pub(super) fn find(
    mem: &dyn PhysicalMemory,
    hints: &Hints<'_>,
    known: &Vmcoreinfo,
    texts: &[Candidate],
    cancel: &Cancel,
) -> Option<TwoKernels> {
    let cpus = address_space::tables_of_cpus(mem, hints);
    let own = known.number_u64("phys_base");
    let mut bases: Vec<CpuTables> = Vec::new();
    for found in cpus.iter().flatten() {
        let seen = Some(found.phys_base) == own || bases.iter().any(|b| b.phys_base == found.phys_base);
        if !seen && bases.len() < KERNELS {
            bases.push(*found);
        }
    }
    let behind = bases.iter().flat_map(|found| {
        let translation = Translation { tables: Some(found.tables), ..Translation::default() };
        scan::texts_of(mem, &KernelMemory::new(mem, translation), hints, cancel)
    });
    let among = texts.iter().filter(|t| own.is_none() || t.info.number_u64("phys_base") != own).cloned();
    let mut candidates = among.chain(behind).filter(|c| c.agrees_with_memory == Some(true));
    let (capture, elf_header) = candidates
        .find_map(|candidate| Some((elf_header(mem, hints, &candidate.info)?, candidate)))
        .map(|(header, candidate)| (candidate, header))?;
    let handed_over = handed_over(mem, elf_header, &Limits::default());
    let capture_base = capture.info.number_u64("phys_base");
    let told = handed_over.as_ref().and_then(|h| h.vmcoreinfo.as_ref());
    let crashed_base = told.map_or(own, |(_, info)| info.number_u64("phys_base"));
    let owner = |found: &Option<CpuTables>| match found.map(|f| f.phys_base) {
        Some(base) if Some(base) == capture_base => Owner::Capture,
        Some(base) if Some(base) == crashed_base => Owner::Crashed,
        _ => Owner::Unknown,
    };
    let cpus = cpus.iter().map(owner).collect();
    Some(TwoKernels { capture, elf_header, handed_over, cpus })
}

/// Where a kernel that captures another one's crash was told of it; `None` for a kernel that does not (`is_kdump_kernel`).
fn elf_header(mem: &dyn PhysicalMemory, hints: &Hints<'_>, info: &Vmcoreinfo) -> Option<PhysAddr> {
    let memory = KernelMemory::new(mem, address_space::find(mem, info, hints).translation);
    let table = kallsyms::load(&memory, info, &Limits::default()).ok()?;
    let symbols = Symbols::new(info, Some(table));
    let variables = Variables::new(&memory, &symbols);
    match variables.u64("elfcorehdr_addr").ok()? {
        0 | NEVER => None,
        // `vmcore_init` forgets it once it has its own copy; the header itself stays where it was.
        USED_UP => by_command_line(&variables.text("saved_command_line", COMMAND_LINE).ok()??),
        address => Some(PhysAddr(address)),
    }
}

/// `elfcorehdr=[SIZE@]ADDRESS`, both with K, M or G behind them.
fn by_command_line(text: &str) -> Option<PhysAddr> {
    let order = text.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("elfcorehdr="))?;
    let number = order.rsplit('@').next()?;
    let digits = number.trim_end_matches(['K', 'M', 'G', 'k', 'm', 'g']);
    let shift = match number.get(digits.len()..)? {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return None,
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    value.checked_mul(1 << shift).map(PhysAddr)
}

/// Reads the ELF header that `kexec` made for the capture kernel. Its notes are where they were written: in physical memory.
#[must_use]
pub fn handed_over(mem: &dyn PhysicalMemory, at: PhysAddr, limits: &Limits) -> Option<HandedOver> {
    let mut bytes = [0_u8; size_of::<Ehdr>()];
    mem.read(at, &mut bytes).ok()?;
    let header = Ehdr::read_from_bytes(&bytes).ok()?;
    let is_elf = header.e_ident.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]);
    let each = u64::try_from(size_of::<Phdr>()).ok()?;
    if !is_elf || u64::from(header.e_phentsize.get()) != each {
        return None;
    }
    let mut found = HandedOver::default();
    let mut list: Vec<Note> = Vec::new();
    let mut left = limits.notes_bytes;
    for number in 0..u64::from(header.e_phnum.get()) {
        let place = header.e_phoff.get().checked_add(number.checked_mul(each)?)?;
        let mut bytes = [0_u8; size_of::<Phdr>()];
        if mem.read(at.checked_add(place)?, &mut bytes).is_err() {
            break;
        }
        let segment = Phdr::read_from_bytes(&bytes).ok()?;
        let (offset, size) = (PhysAddr(segment.p_offset.get()), segment.p_filesz.get());
        match segment.p_type.get() {
            PT_NOTE if size <= NOTE_SEGMENT && size <= left => {
                left = left.saturating_sub(size);
                let mut region = vec![0; usize::try_from(size).ok()?];
                if mem.read(offset, &mut region).is_err() {
                    continue;
                }
                for note in notes::parse(&region, offset.0).list {
                    if note.name == "VMCOREINFO" {
                        let info = Vmcoreinfo::parse(&note.desc);
                        found.vmcoreinfo = (!info.is_empty()).then_some((offset, info));
                    } else {
                        list.push(note);
                    }
                }
            }
            PT_LOAD => {
                let start = segment.p_paddr.get();
                let Some(end) = start.checked_add(segment.p_memsz.get()) else { continue };
                found.memory.push(start..end);
                if offset.0 != start {
                    found.moved.push(Moved { from: start..end, kept_at: offset });
                }
            }
            _ => {}
        }
    }
    (found.registers, _) = prstatus::from_notes(&list, &Arch::X86_64, limits.cpus);
    found.notes = list;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_header_is_read_as_the_kernel_reads_it() {
        let place = |text: &str| by_command_line(text).map(|at| at.0);
        assert_eq!(place("quiet elfcorehdr=212340K"), Some(212_340 << 10));
        assert_eq!(place("elfcorehdr=4096@0x2f000000 quiet"), Some(0x2f00_0000));
        assert_eq!(place("elfcorehdr=1M elfcorehdr=2M"), Some(2 << 20), "the last one counts");
        assert_eq!(place("elfcorehdr=2T"), None);
        assert_eq!(place("elfcorehdr=99999999999999G"), None);
        assert_eq!(place("crashkernel=128M"), None);
    }
}
