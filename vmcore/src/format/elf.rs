//! ELF vmcores: of the kernel (`/proc/vmcore`), of `makedumpfile -E`, of QEMU and libvirt.
//!
//! Parsed by our own count, header by header: whole-file parsers refuse a file that is cut, and 16 bits do not
//! hold the segments of a large machine. Sections are not looked at but for the count in section header 0.

use object::elf::{PT_LOAD, PT_NOTE, PT_NULL, ProgramType};
use zerocopy::FromBytes;

use super::Arch;
use super::notes::{self, NT_AUXV, NT_PRPSINFO, NT_PRSTATUS, Note};
use crate::error::OpenErrorKind;
use crate::limits::Limits;
use crate::raw::elf::{DUMP_ELF_INCOMPLETE, Ehdr, PN_XNUM, Phdr, Shdr};
use crate::source::{ReadAt, read_as_far, read_vec};

/// One `PT_LOAD`: memory that the file holds, and of which it may have left out the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// Physical address.
    pub paddr: u64,
    /// Virtual address: a hint, 0 or the physical address where the writer did not know.
    pub vaddr: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes of memory.
    pub mem_size: u64,
}

/// What an ELF vmcore says of itself.
#[derive(Clone, Debug)]
pub struct ElfCore {
    /// The machine.
    pub arch: Arch,
    /// The writer says that it stopped early.
    pub incomplete: bool,
    /// Every `PT_LOAD` whose header is there, in file order.
    pub segments: Vec<LoadSegment>,
    /// Program headers that are announced and lie past the end of the file.
    pub lost_headers: u64,
    /// Program headers that the writer left empty: makedumpfile fills them in as it goes.
    pub empty_headers: u64,
    /// The notes.
    pub notes: Vec<Note>,
    /// One sentence per guess and oddity.
    pub repairs: Vec<String>,
}

const WHAT: &str = "an ELF vmcore";

/// Reads the headers and the notes. The first 64 bytes are known to be those of an ELF64 little-endian core.
///
/// # Errors
/// [`OpenErrorKind`], where there is no segment to be found or the file is the core of a process.
pub fn read(source: &dyn ReadAt, limits: &Limits) -> Result<ElfCore, OpenErrorKind> {
    let damaged = |why: &str, at| OpenErrorKind::Damaged { what: WHAT, why: why.into(), at };
    let head = read_vec(source, 0, 64)?;
    let Ok(ehdr) = Ehdr::read_from_bytes(&head) else {
        return Err(damaged("it ends inside its header", source.len()));
    };
    let mut core = ElfCore {
        arch: Arch::from_elf(ehdr.e_machine.get()),
        incomplete: ehdr.e_flags.get() & DUMP_ELF_INCOMPLETE != 0,
        segments: Vec::new(),
        lost_headers: 0,
        empty_headers: 0,
        notes: Vec::new(),
        repairs: Vec::new(),
    };
    let count = header_count(source, &ehdr, &mut core.repairs)?;
    if count == 0 {
        return Err(damaged("it announces no program header", 0x38));
    }
    if count > limits.segments {
        return Err(damaged(
            &format!("it announces {count} program headers, more than {}", limits.segments),
            0x38,
        ));
    }
    let stride = match u64::from(ehdr.e_phentsize.get()) {
        size if size >= 56 => size,
        size => {
            core.repairs.push(format!("the header gives program headers {size} bytes; 56 were taken"));
            56
        }
    };
    let note_ranges = read_program_headers(source, ehdr.e_phoff.get(), count, stride, &mut core)?;
    if core.segments.is_empty() && note_ranges.is_empty() {
        // makedumpfile 1.7.8 with -F -E sends them behind the last page: of such a stream, cut at 99 %, the pages are
        // there, and their places are not.
        let why =
            "it was cut off before its program headers came, and nothing else tells where a page belongs";
        return Err(damaged(why, ehdr.e_phoff.get()));
    }
    if core.empty_headers > 0 {
        core.repairs.push(format!(
            "{} of {count} program headers are empty, the writer stopped before them; the memory that they would name is not counted",
            core.empty_headers
        ));
    }
    if core.lost_headers > 0 {
        core.repairs.push(format!(
            "the file ends before {} of its {count} program headers; the memory that they name is not counted",
            core.lost_headers
        ));
    }
    read_notes(source, &note_ranges, limits, &mut core)?;
    if let Some(what) = process_core(&core) {
        return Err(OpenErrorKind::not_a_dump(
            what,
            "kdt reads dumps of the kernel; debug a process's core with gdb and its program",
        ));
    }
    if core.segments.is_empty() && core.lost_headers == 0 {
        return Err(damaged("it has no memory segments", ehdr.e_phoff.get()));
    }
    Ok(core)
}

/// How many program headers there are: `e_phnum`, or `sh_info` of section header 0 where 16 bits don't hold it.
fn header_count(source: &dyn ReadAt, ehdr: &Ehdr, repairs: &mut Vec<String>) -> Result<u64, OpenErrorKind> {
    let count = ehdr.e_phnum.get();
    if count != PN_XNUM {
        return Ok(u64::from(count));
    }
    let bytes = match ehdr.e_shoff.get() {
        0 => Vec::new(),
        at => read_vec(source, at, 64)?,
    };
    if let Some(count) =
        Shdr::read_from_bytes(&bytes).ok().map(|s| s.sh_info.get()).filter(|count| *count > 0)
    {
        return Ok(u64::from(count));
    }
    repairs.push(format!(
        "the count of program headers should be in section header 0, which is not there; {PN_XNUM} were taken"
    ));
    Ok(u64::from(PN_XNUM))
}

/// Fills `segments` and `lost_headers`; gives offset and size of each `PT_NOTE`.
fn read_program_headers(
    source: &dyn ReadAt,
    start: u64,
    count: u64,
    stride: u64,
    core: &mut ElfCore,
) -> Result<Vec<(u64, u64)>, OpenErrorKind> {
    let mut note_ranges = Vec::new();
    let stride_bytes = usize::try_from(stride).unwrap_or(usize::MAX);
    let batch = (64u64 << 10).checked_div(stride).unwrap_or(1).max(1);
    let mut buf = vec![0; usize::try_from(batch.saturating_mul(stride)).unwrap_or(0)];
    let mut done = 0;
    while done < count {
        let at = done.checked_mul(stride).and_then(|at| at.checked_add(start));
        let Some(at) = at else { break };
        let got = read_as_far(source, at, &mut buf)?;
        let want = batch.min(count.saturating_sub(done));
        let mut found = 0u64;
        for bytes in
            buf.get(..got).unwrap_or_default().chunks(stride_bytes).take(usize::try_from(want).unwrap_or(0))
        {
            let Ok((phdr, _)) = Phdr::read_from_prefix(bytes) else { break };
            found = found.saturating_add(1);
            match ProgramType(phdr.p_type.get()) {
                PT_LOAD => core.segments.push(LoadSegment {
                    paddr: phdr.p_paddr.get(),
                    vaddr: phdr.p_vaddr.get(),
                    offset: phdr.p_offset.get(),
                    file_size: phdr.p_filesz.get(),
                    // A writer that gives no memory size means the file's.
                    mem_size: phdr.p_memsz.get().max(phdr.p_filesz.get()),
                }),
                PT_NULL => core.empty_headers = core.empty_headers.saturating_add(1),
                PT_NOTE => note_ranges.push((phdr.p_offset.get(), phdr.p_filesz.get())),
                _ => {}
            }
        }
        done = done.saturating_add(found);
        if found < want {
            break;
        }
    }
    core.lost_headers = count.saturating_sub(done);
    Ok(note_ranges)
}

fn read_notes(
    source: &dyn ReadAt,
    ranges: &[(u64, u64)],
    limits: &Limits,
    core: &mut ElfCore,
) -> Result<(), OpenErrorKind> {
    let mut left = limits.notes_bytes;
    for (at, size) in ranges {
        let take = (*size).min(left);
        let region = read_vec(source, *at, take)?;
        let got = u64::try_from(region.len()).unwrap_or(u64::MAX);
        left = left.saturating_sub(got);
        if take < *size {
            core.repairs.push(format!(
                "the notes at file offset {at:#x} announce {size} bytes; {got} of them were read"
            ));
        } else if got < take {
            core.repairs.push(format!("the file ends inside the notes at file offset {at:#x}"));
        }
        let mut parsed = notes::parse(&region, *at);
        core.notes.append(&mut parsed.list);
        core.repairs.append(&mut parsed.repairs);
    }
    Ok(())
}

/// A process's core has the process's notes and no physical addresses.
fn process_core(core: &ElfCore) -> Option<String> {
    let kernel = core.notes.iter().any(|note| {
        note.name.starts_with("VMCOREINFO")
            || note.name == "QEMU"
            || note.name == "Xen"
            || note.name == "LINUX" && note.kind == 0x700
    });
    let process = core.notes.iter().any(|note| note.is("CORE", NT_AUXV) || note.is("CORE", NT_PRPSINFO));
    let physical = core.segments.iter().any(|segment| segment.paddr != 0);
    if kernel || !process || physical || !core.notes.iter().any(|note| note.is("CORE", NT_PRSTATUS)) {
        return None;
    }
    // `struct elf_prpsinfo`: pr_fname is 16 bytes at 40 on 64-bit machines.
    let info = core.notes.iter().find(|note| note.is("CORE", NT_PRPSINFO));
    let name = info.and_then(|note| note.desc.get(40..56)).and_then(|name| name.split(|b| *b == 0).next());
    Some(match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("the core of a process («{}»)", String::from_utf8_lossy(name).escape_debug()),
        None => "the core of a process".into(),
    })
}
