//! What the file is, and which kernel is in it.

use serde::{Deserialize, Serialize};

use super::{Address, TaintFlag};

/// The dump file (or the split set, or the file inside its container).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpInfo {
    /// The path as it was given; of a split set the first part's.
    pub path: String,
    /// The innermost format: `elf`, `kdump-compressed`, …; `null` for what is no dump.
    pub format: Option<String>,
    /// What is around it, outermost first: `flattened`, `split`.
    pub container: Vec<String>,
    /// How pages are stored: `zlib`, `lzo`, `snappy`, `zstd`, `raw`.
    pub codec: Vec<String>,
    /// The bytes of the file; of a split set, of all parts.
    pub size_bytes: Option<u64>,
    /// The machine: `x86_64`, `aarch64`, …
    pub arch: Option<String>,
    /// Bytes in a page of the dumped kernel.
    pub page_size: Option<u64>,
    /// makedumpfile's `-d` mask, where the file tells it.
    pub dump_level: Option<u32>,
    /// How kdt made it of another dump, where it did: `distilled by kdt 0.1.0 at level standard`.
    #[serde(default)]
    pub made: Option<String>,
    /// How much of what it announces it holds.
    pub completeness: Completeness,
}

/// Announced against found. The kinds of "not there" are never folded into one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Frames of RAM that the file speaks of.
    pub announced_pages: Option<u64>,
    /// Frames whose bytes are in the file.
    pub present_pages: Option<u64>,
    /// Frames left out on purpose.
    pub excluded_pages: Option<u64>,
    /// Frames announced and cut off with the end of the file or with a missing part.
    pub lost_pages: Option<u64>,
    /// Frames present whose bytes can be another frame's, because the bitmap that says whose they are is damaged.
    #[serde(default)]
    pub misplaced_pages: Option<u64>,
    /// Frames whose bytes do not decode, of those that were read; `null` where no page was read.
    pub corrupt_pages: Option<u64>,
    /// True where the writer itself marked the file as not finished.
    pub incomplete_flag: Option<bool>,
    /// The file offset at which bytes that the file announces end; `null` for a whole file.
    pub truncated_at: Option<u64>,
    /// What was read around, in sentences.
    pub repairs: Vec<String>,
}

/// The kernel that was dumped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// `uname -r`.
    pub release: Option<String>,
    /// `uname -v`.
    pub version: Option<String>,
    /// The build ID that VMCOREINFO tells, in hexadecimal. Some stable kernels write garbage there.
    pub build_id: Option<String>,
    /// The host's name.
    pub nodename: Option<String>,
    /// The machine, as the kernel says it.
    pub arch: Option<String>,
    /// How many CPUs it ran.
    pub cpus: Option<u64>,
    /// Bytes of RAM that the dump speaks of.
    pub memory_bytes: Option<u64>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// When it was booted, in seconds since 1970.
    pub boot_time: Option<f64>,
    /// When it crashed, in seconds since 1970.
    pub crash_time: Option<f64>,
    /// How long it had been up.
    pub uptime_s: Option<f64>,
    /// How far KASLR moved it.
    pub kaslr_offset: Option<Address>,
    /// What has tainted it.
    pub taint: Option<Taint>,
    /// The load averages over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    /// What its CPUs call themselves.
    pub cpu_model: Option<String>,
    /// What it runs under, where it is a guest: `kvm`, `vmware`, `hyperv`, `xen`, …
    pub hypervisor: Option<String>,
}

/// The kernel's taint flags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taint {
    /// `/proc/sys/kernel/tainted`; `null` where only the letters are known.
    pub mask: Option<u64>,
    /// The letters, as in an oops: `PO`, without the blanks; empty for a clean kernel.
    pub letters: String,
    /// What each of them means.
    #[serde(default)]
    pub flags: Vec<TaintFlag>,
}

/// Where names and types come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbols {
    /// `vmcoreinfo`, `kallsyms`, `kallsyms-scan` or `vmlinux`; `null` where there is none of them.
    pub source: Option<String>,
    /// How many symbols are known.
    pub count: Option<u64>,
    /// `btf`, `dwarf` or `none`.
    pub types: String,
    /// What finds callers: `orc`, `cfi`, `fp`; `null` for none.
    pub unwinder: Option<String>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { source: None, count: None, types: "none".into(), unwinder: None }
    }
}
