//! What an analysis needs of an opened dump, whatever its format.

use crate::addr::{KVirtAddr, PhysAddr};
use crate::format::notes::KDT_NOTE;
use crate::format::{Arch, PrStatus};
use crate::kernel::hints::{Control, Hints};
use crate::mem::{Dump, PhysicalMemory};
use crate::report::{Completeness, DumpInfo};

/// One dump, ready to be analysed.
pub struct Subject<'d> {
    /// The file in the words of the report.
    pub dump: DumpInfo,
    /// The machine's memory.
    pub memory: &'d dyn PhysicalMemory,
    /// What the container says of the kernel.
    pub hints: Hints<'d>,
    /// The CPUs' registers.
    pub cpus: Vec<PrStatus>,
    /// What the file's header says of the machine.
    pub header: Header,
}

/// What a dump's header says of the machine. The kernel's own memory is asked first: headers can be empty or wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `uname -n`.
    pub nodename: Option<String>,
    /// `uname -r`.
    pub release: Option<String>,
    /// `uname -v`.
    pub version: Option<String>,
    /// `uname -m`.
    pub machine: Option<String>,
    /// How many CPUs.
    pub cpus: Option<u64>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("dump", &self.dump)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl<'d> Subject<'d> {
    /// An opened dump as a subject.
    #[must_use]
    pub fn new(dump: &'d Dump) -> Self {
        Self {
            dump: dump_info(dump),
            memory: dump,
            hints: hints(dump),
            cpus: dump.prstatus().to_vec(),
            header: header(dump),
        }
    }
}

/// The file in the words of the report.
#[must_use]
pub fn dump_info(dump: &Dump) -> DumpInfo {
    let facts = dump.facts();
    let state = dump.completeness();
    DumpInfo {
        path: dump.path().display().to_string(),
        format: Some(facts.format.to_owned()),
        container: facts.containers.iter().map(|name| (*name).to_owned()).collect(),
        codec: facts.codecs.iter().map(ToString::to_string).collect(),
        size_bytes: Some(facts.size_bytes),
        arch: known_arch(dump),
        page_size: Some(facts.page_size),
        dump_level: facts.dump_level,
        made: made(dump),
        completeness: Completeness {
            announced_pages: Some(state.announced_pages),
            present_pages: Some(state.present_pages),
            excluded_pages: Some(state.excluded_pages),
            lost_pages: Some(state.lost_pages),
            misplaced_pages: Some(state.misplaced_pages),
            corrupt_pages: None,
            incomplete_flag: Some(state.incomplete_flag),
            truncated_at: state.truncated_at,
            repairs: state.repairs.clone(),
        },
    }
}

fn made(dump: &Dump) -> Option<String> {
    let note = dump.notes().iter().find(|note| note.is(KDT_NOTE.0, KDT_NOTE.1))?;
    Some(String::from_utf8_lossy(&note.desc).into_owned())
}

fn known_arch(dump: &Dump) -> Option<String> {
    let arch = &dump.facts().arch;
    (*arch != Arch::Unknown).then(|| arch.to_string())
}

fn hints(dump: &Dump) -> Hints<'_> {
    let facts = dump.facts();
    let segments = dump.segments().iter().filter(|segment| segment.vaddr != 0);
    Hints {
        machine: known_arch(dump),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        control: dump.qemu_cpus().iter().map(|cpu| Control { cr3: cpu.cr3, cr4: cpu.cr4 }).collect(),
        phys_base: facts.phys_base,
        segments: segments
            .map(|segment| (KVirtAddr(segment.vaddr), PhysAddr(segment.paddr), segment.mem_size))
            .collect(),
    }
}

fn header(dump: &Dump) -> Header {
    let facts = dump.facts();
    let told = |text: &String| (!text.is_empty()).then(|| text.clone());
    let names = facts.utsname.as_ref();
    Header {
        nodename: names.and_then(|names| told(&names.nodename)),
        release: names.and_then(|names| told(&names.release)),
        version: names.and_then(|names| told(&names.version)),
        machine: names.and_then(|names| told(&names.machine)),
        cpus: facts.nr_cpus.map(u64::from),
    }
}
