//! The dumped kernel: who it is, how to read its memory, what it logged.
//!
//! [`Kernel::open`] never fails: what can't be had is a [`Gap`] with its reason, and everything else is there.

mod address_space;
pub mod bio;
pub mod block;
pub mod block_device;
pub mod bpf;
pub mod bus;
mod cgroup;
pub mod cgroups;
mod cmdline;
pub mod console;
pub mod cpu;
mod cred;
pub mod describe;
pub mod device_mapper;
pub mod file;
mod freelist;
pub mod hints;
pub mod hlist;
pub mod idr;
pub mod ipi;
pub mod irq;
pub mod list;
pub mod livepatch;
pub mod llist;
pub mod lock;
pub mod machine;
pub mod maple;
pub mod md;
pub mod mm;
pub mod module;
pub mod mount;
pub mod multipath;
pub mod net;
pub mod params;
pub mod path;
pub mod percpu;
mod pid;
pub mod printk;
pub mod rbtree;
pub mod rcu;
pub mod reader;
pub mod resource;
pub mod runqueue;
pub mod scan;
pub mod sheaf;
pub mod slab;
pub mod socket;
pub mod softnet;
pub mod sysctl;
pub mod taint;
pub mod task;
pub mod time;
pub mod timer;
pub mod trace;
pub mod two_kernels;
pub mod unix;
pub mod uts;
pub mod value;
pub mod variable;
pub mod virtio;
pub mod walk;
mod window;
pub mod workqueue;
pub mod xarray;

use std::fmt;

use crate::addr::{KVirtAddr, PhysAddr};
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::mem::PhysicalMemory;
use crate::progress::{Cancel, Progress, Quiet};
use crate::xlat::x86_64::Levels;
use crate::xlat::{KernelMemory, Translation};

use hints::Hints;
use printk::{KernelLog, LogError};
use scan::Candidate;
use two_kernels::{Owner, TwoKernels};
use uts::{Uts, UtsError};

/// Something that could not be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// Where VMCOREINFO comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// The dump has a note of it.
    Note,
    /// It was found in the kernel's memory.
    Memory {
        /// Where.
        paddr: PhysAddr,
        /// Why this text and not another one.
        why: String,
        /// The other texts that were found.
        others: Vec<Candidate>,
    },
    /// There is none.
    Nowhere,
}

/// How a kernel is opened.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Options<'o> {
    /// Whether all frames are looked at for VMCOREINFO where the dump has no note. That reads a page of each frame.
    pub scan: bool,
    /// Asks the scan to stop.
    pub cancel: Option<&'o Cancel>,
    /// Told how far the scan is.
    pub progress: &'o dyn Progress,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { scan: true, cancel: None, progress: &Quiet }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("scan", &self.scan).finish_non_exhaustive()
    }
}

impl<'o> Options<'o> {
    /// Without the scan of all frames.
    #[must_use]
    pub fn without_scan(mut self) -> Self {
        self.scan = false;
        self
    }

    /// With somebody who is told how far the scan is, and who may stop it.
    #[must_use]
    pub fn watched(mut self, cancel: &'o Cancel, progress: &'o dyn Progress) -> Self {
        self.cancel = Some(cancel);
        self.progress = progress;
        self
    }
}

/// What is known of a kernel before any of its structures is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// `uname -r`.
    pub release: Option<String>,
    /// The build id in hexadecimal; unreliable on some kernels, see [`crate::format::vmcoreinfo`].
    pub build_id: Option<String>,
    /// Bytes of a page.
    pub page_size: Option<u64>,
    /// By how much KASLR moved the text.
    pub kaslr_offset: Option<u64>,
    /// By how much the text lies further in physical memory than linked.
    pub phys_base: Option<u64>,
    /// Seconds since 1970; present only in a kernel that crashed with kexec loaded.
    pub crash_time: Option<u64>,
    /// Depth of the page tables.
    pub levels: Option<Levels>,
    /// Where the direct map begins: `page_offset_base`.
    pub page_offset: Option<KVirtAddr>,
    /// The bit of an entry that means «encrypted», or 0.
    pub encryption_mask: Option<u64>,
}

/// An opened kernel.
#[derive(Debug)]
pub struct Kernel<'m> {
    memory: KernelMemory<'m>,
    info: Vmcoreinfo,
    origin: Origin,
    facts: Facts,
    two_kernels: Option<TwoKernels>,
    gaps: Vec<Gap>,
}

impl<'m> Kernel<'m> {
    /// Finds out what it can about the kernel in `mem`.
    #[must_use]
    pub fn open(mem: &'m dyn PhysicalMemory, hints: &Hints<'_>, options: Options<'_>) -> Self {
        let mut gaps = Vec::new();
        let mut info = hints.vmcoreinfo.map(Vmcoreinfo::parse).unwrap_or_default();
        let mut origin = Origin::Note;
        if info.is_empty() {
            let why = if hints.vmcoreinfo.is_some() {
                "the note in the dump is empty"
            } else {
                "the dump has no note of it"
            };
            (info, origin) = look_for_info(mem, hints, options, why, &mut gaps);
        } else if let Some(cut) = info.cut_line() {
            gaps.push(Gap {
                what: "VMCOREINFO".into(),
                why: format!("the kernel's page for it was full: it ends within «{cut}»"),
            });
        }
        let two_kernels = look_for_capture(mem, hints, options, &mut info, &mut origin, &mut gaps);
        let found = address_space::find(mem, &info, hints);
        gaps.extend(found.gaps);
        let facts = Facts::new(&info, &found.translation, found.phys_base);
        tracing::info!("VMCOREINFO: {origin}; {facts}");
        Self { memory: KernelMemory::new(mem, found.translation), info, origin, facts, two_kernels, gaps }
    }

    /// The capture kernel that ran beside this one, where the image has both. Then this one is the kernel that crashed, and
    /// [`TwoKernels::cpus`] says whose the CPUs' registers are.
    #[must_use]
    pub fn two_kernels(&self) -> Option<&TwoKernels> {
        self.two_kernels.as_ref()
    }

    /// The kernel's memory by virtual address.
    #[must_use]
    pub fn memory(&self) -> &KernelMemory<'m> {
        &self.memory
    }

    /// VMCOREINFO; empty where there is none.
    #[must_use]
    pub fn vmcoreinfo(&self) -> &Vmcoreinfo {
        &self.info
    }

    /// Where VMCOREINFO comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What is known without looking at the kernel's structures.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What could not be found out, and why.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What `uname -a` says on the dumped machine.
    ///
    /// # Errors
    /// Where `init_uts_ns` can't be found or read.
    pub fn uts(&self) -> Result<Uts, UtsError> {
        uts::read(&self.memory, &self.info)
    }

    /// The kernel log.
    ///
    /// # Errors
    /// Where not even its first record can be looked for; a log with losses is no error and says what it lost.
    pub fn log(&self, limits: &Limits) -> Result<KernelLog, LogError> {
        printk::read(&self.memory, &self.info, limits)
    }
}

impl Facts {
    fn new(info: &Vmcoreinfo, translation: &Translation, phys_base: Option<u64>) -> Self {
        Self {
            release: info.release().map(str::to_owned),
            build_id: info.build_id().map(str::to_owned),
            page_size: info.page_size(),
            kaslr_offset: info.kaslr_offset(),
            phys_base,
            crash_time: info.crash_time(),
            levels: translation.tables.map(|t| t.levels),
            page_offset: translation.direct.map(|d| d.start),
            encryption_mask: translation.tables.map(|t| t.encryption_mask),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note => f.write_str("from the dump's note"),
            Self::Memory { why, .. } => f.write_str(why),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

impl fmt::Display for Facts {
    /// How addresses are translated, for who asks why one is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |value: Option<u64>| value.map_or_else(|| "unknown".into(), |v| format!("{v:#x}"));
        let levels = match self.levels {
            Some(Levels::Four) => "page tables of 4 levels",
            Some(Levels::Five) => "page tables of 5 levels",
            None => "no page tables",
        };
        let direct = hex(self.page_offset.map(|at| at.0));
        write!(f, "{levels}, phys_base {}, direct map at {direct}", hex(self.phys_base))
    }
}

/// VMCOREINFO from the kernel's memory, where the options allow to look for it.
fn look_for_info(
    mem: &dyn PhysicalMemory,
    hints: &Hints<'_>,
    options: Options<'_>,
    why: &str,
    gaps: &mut Vec<Gap>,
) -> (Vmcoreinfo, Origin) {
    let gap = |why: String| Gap { what: "VMCOREINFO".into(), why };
    if !options.scan {
        gaps.push(gap(format!("{why}, and memory was not searched for it")));
        return (Vmcoreinfo::default(), Origin::Nowhere);
    }
    let never = Cancel::default();
    let cancel = options.cancel.unwrap_or(&never);
    let bare = address_space::find(mem, &Vmcoreinfo::default(), hints).translation;
    let memory = bare.tables.is_some().then(|| KernelMemory::new(mem, bare));
    let scan = scan::find_vmcoreinfo(mem, memory.as_ref(), hints, cancel, options.progress);
    let mut candidates = scan.candidates.into_iter();
    let Some(best) = candidates.next() else {
        let stopped = if scan.cancelled { " before the search was stopped" } else { "" };
        let unreadable = if scan.unreadable == 0 {
            String::new()
        } else {
            format!(", {} more can't be read", scan.unreadable)
        };
        gaps.push(gap(format!(
            "{why}, and none of the {} frames looked at{stopped} holds it{unreadable}",
            scan.scanned
        )));
        return (Vmcoreinfo::default(), Origin::Nowhere);
    };
    if scan.cancelled {
        gaps.push(gap("the search of memory was stopped, so a better text can be elsewhere".into()));
    }
    (best.info, Origin::Memory { paddr: best.paddr, why: scan.why, others: candidates.collect() })
}

/// Looks for a capture kernel in the image. Where `info` is its own, or none is known, the crashed kernel's takes its place.
fn look_for_capture(
    mem: &dyn PhysicalMemory,
    hints: &Hints<'_>,
    options: Options<'_>,
    info: &mut Vmcoreinfo,
    origin: &mut Origin,
    gaps: &mut Vec<Gap>,
) -> Option<TwoKernels> {
    let never = Cancel::default();
    let cancel = options.cancel.unwrap_or(&never);
    let (known, texts) = match origin {
        Origin::Note => (info.clone(), Vec::new()),
        // What was found may be either kernel's: it is asked too, and stands where it crashed.
        Origin::Memory { paddr, others, .. } => {
            let agrees =
                info.number_u64("phys_base").and_then(|base| address_space::agreement(mem, info, base));
            let best = Candidate {
                paddr: *paddr,
                info: info.clone(),
                agrees_with_memory: agrees,
                agrees_with_cr3: None,
            };
            let known = if info.crash_time().is_some() { info.clone() } else { Vmcoreinfo::default() };
            (known, std::iter::once(best).chain(others.iter().cloned()).collect())
        }
        Origin::Nowhere => return None,
    };
    let two = two_kernels::find(mem, hints, &known, &texts, cancel)?;
    let captured = two.capture.info.number_u64("phys_base");
    let told = two.handed_over.as_ref().and_then(|h| h.vmcoreinfo.clone());
    if info.number_u64("phys_base") == captured {
        if let Some((paddr, crashed)) = told {
            let why = format!(
                "found at {paddr}: the capture kernel, which runs in this image, was told of it at {}",
                two.elf_header
            );
            let others = vec![two.capture.clone()];
            (*info, *origin) = (crashed, Origin::Memory { paddr, why, others });
        } else {
            gaps.push(Gap {
                what: "the kernel that crashed".into(),
                why: format!(
                    "the image is a capture kernel's, and what it was told of the crashed kernel at {} can't be read; all that \
                     follows is of the capture kernel",
                    two.elf_header
                ),
            });
            return Some(two);
        }
    }
    for (number, _) in two.cpus.iter().enumerate().filter(|(_, owner)| **owner == Owner::Capture) {
        gaps.push(Gap {
            what: format!("registers of CPU {number} in the dump"),
            why: "it ran the capture kernel when the dump was made; they say nothing of the crash".into(),
        });
    }
    for moved in two.handed_over.iter().flat_map(|h| &h.moved) {
        gaps.push(Gap {
            what: format!("memory from {:#x} to {:#x}", moved.from.start, moved.from.end),
            why: format!(
                "the capture kernel uses it; the crashed kernel's bytes are kept at {} and are not read from there",
                moved.kept_at
            ),
        });
    }
    Some(two)
}
