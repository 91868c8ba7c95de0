//! What triage says, as plain data: the document `kdt/triage/1`.
//!
//! These types are the public contract of `kdt triage --format json`: a field once here keeps its name and its
//! meaning, and new ones are added beside it. `docs/json-schemas/triage-1.json` describes the same document.
//! A value that could not be had is `null`, and [`Report::not_looked_at`] says why. Nothing here reads a dump
//! and nothing here prints.
//!
//! Addresses are strings `"0x…"` ([`Address`]), times are seconds as numbers, sizes are bytes.

mod address;
mod check;
mod devices;
mod fault;
mod finding;
mod guest;
mod host;
mod identity;
mod info;
mod io;
mod kernel_work;
mod memory;
mod scrub;
mod signature;
mod state;
mod storage;
mod waits;

pub use address::Address;
pub use check::{
    BadPages, CHECK_SCHEMA, Check, CheckVerdict, CheckedCodec, CheckedPages, PageFault, PageRun, PagesDigest,
};
pub use devices::{Bpf, BpfProgram, Irq, Livepatch, Setting, Trace, TraceEvent};
pub use fault::{CodeLine, Culprit, Event, FaultRegister, Instruction, Operand, TaintFlag};
pub use finding::{ByHand, Confidence, Finding, HandTool, Severity};
pub use guest::{Softnet, UnixSocket, VirtioDevice, VirtioQueue};
pub use host::{BlockQueue, KernelModule, Mount, NetDevice};
pub use identity::{Completeness, DumpInfo, KernelInfo, Symbols, Taint};
pub use info::{FrameRange, INFO_SCHEMA, Info, NoteCount, SplitPart, SplitSet};
pub use io::{BlockDetail, BlockRequest, ControlGroup, MountDetail, NetDetail, OpenFile, Socket};
pub use kernel_work::{CpuTimers, PendingTimer, Work, WorkQueue, Worker, WorkerPool};
pub use memory::{
    HugeNode, HugePool, Memory, MemoryNode, Oom, ProcessMemory, SlabCache, SwapDevice, VmallocCaller, Zone,
};
pub use scrub::{CanaryHit, CanarySearch, SCRUB_SCHEMA, ScrubAccount, ScrubAudit, ScrubOutput};
pub use signature::{SIGNATURE_VERSION, Signature};
pub use state::{
    Blocked, Cpu, Frame, FrameTrust, Lock, LogLine, LogReport, Panic, PanicKind, Task, TaskRef, WaitEdge,
};
pub use storage::{
    DmTarget, HeldIo, MappedDevice, MdArray, MdMember, Multipath, MultipathPath, UnderlyingDevice,
};
pub use waits::{BlockedGroup, Blocker, Console, Consoles, RunQueue};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name and version of the document's layout.
pub const TRIAGE_SCHEMA: &str = "kdt/triage/1";

/// The first analysis of one dump.
///
/// ```
/// use vmcore::report::Report;
/// let report = Report::empty("kdt", "0.1.0", "/var/crash/vmcore");
/// let json = serde_json::to_value(&report)?;
/// assert_eq!(json["schema"], "kdt/triage/1");
/// assert!(json["panic"].is_null());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`TRIAGE_SCHEMA`].
    pub schema: String,
    /// The program that made the document.
    pub tool: Tool,
    /// The file: what it is, and how much of the machine's memory is in it.
    pub dump: DumpInfo,
    /// The kernel that crashed.
    pub kernel: KernelInfo,
    /// Where names and types come from.
    pub symbols: Symbols,
    /// What the kernel died of; `null` where it had not panicked, or where no log could be read.
    pub panic: Option<Panic>,
    /// By what the same crash is known again; `null` where there is nothing to be known again, or nothing tells.
    #[serde(default)]
    pub signature: Option<Signature>,
    /// The CPUs, in the order of their numbers.
    pub cpus: Vec<Cpu>,
    /// The tasks, in the order of their pids.
    pub tasks: Vec<Task>,
    /// The loaded modules, in the kernel's order.
    pub modules: Vec<KernelModule>,
    /// Who waits for whom.
    pub blocked: Option<Blocked>,
    /// The consoles and their lock.
    #[serde(default)]
    pub console: Option<Consoles>,
    /// How the memory was used.
    pub memory: Option<Memory>,
    /// The slab caches, largest first.
    pub slab: Vec<SlabCache>,
    /// The mounted filesystems.
    pub mounts: Vec<Mount>,
    /// The open files of the task that panicked and of tasks that are blocked.
    #[serde(default)]
    pub open_files: Vec<OpenFile>,
    /// The interrupts.
    pub irqs: Vec<Irq>,
    /// The block devices and what they had in flight.
    pub block_io: Vec<BlockQueue>,
    /// The devices of device-mapper.
    #[serde(default)]
    pub device_mapper: Vec<MappedDevice>,
    /// The arrays of md.
    #[serde(default)]
    pub md: Vec<MdArray>,
    /// The virtio devices, where the dump is of a guest.
    #[serde(default)]
    pub virtio: Vec<VirtioDevice>,
    /// The network devices.
    pub net: Vec<NetDevice>,
    /// TCP and UDP sockets.
    #[serde(default)]
    pub sockets: Vec<Socket>,
    /// Sockets of `AF_UNIX`.
    #[serde(default)]
    pub unix_sockets: Vec<UnixSocket>,
    /// What each CPU did with the packets that it received.
    #[serde(default)]
    pub softnet: Vec<Softnet>,
    /// The control groups, each before those in it.
    #[serde(default)]
    pub cgroups: Vec<ControlGroup>,
    /// The workqueues and what they had pending.
    pub workqueues: Vec<WorkQueue>,
    /// The run queues, one a CPU.
    pub runqueues: Vec<RunQueue>,
    /// The pools of workers, by their numbers.
    #[serde(default)]
    pub worker_pools: Vec<WorkerPool>,
    /// The timers that waited, one entry a CPU.
    #[serde(default)]
    pub timers: Vec<CpuTimers>,
    /// Settings that matter for a crash, by their names.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// The loaded BPF programs.
    #[serde(default)]
    pub bpf: Option<Bpf>,
    /// The livepatches.
    #[serde(default)]
    pub livepatches: Vec<Livepatch>,
    /// The last events of the trace buffer.
    #[serde(default)]
    pub trace: Option<Trace>,
    /// What the log tells of before the last incident, in order of time.
    #[serde(default)]
    pub events: Vec<Event>,
    /// The kernel log.
    pub log: LogReport,
    /// What is worth a person's attention, worst first.
    pub findings: Vec<Finding>,
    /// What this document does not cover, and why.
    pub not_looked_at: Vec<NotLookedAt>,
    /// Why there is no analysis at all; `null` where there is one.
    pub error: Option<ReportError>,
    /// How long it took.
    pub timings: Timings,
}

/// The program that made a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One thing that a report does not cover. An absent answer without one of these is a bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLookedAt {
    /// The part of the document, by its field name where it has one: `tasks`, `log`, `kernel.cmdline`.
    pub what: String,
    /// Why, in one sentence.
    pub why: String,
}

/// Why a file could not be analysed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportError {
    /// One sentence: what, where, for what.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// How long the analysis took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// All of it, in seconds.
    pub total_s: f64,
    /// Step by step, in the order in which they ran.
    pub steps: Vec<StepTime>,
}

/// How long one step took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step.
    pub name: String,
    /// Its seconds.
    pub s: f64,
}

impl Report {
    /// A document that knows nothing yet but the file's name.
    #[must_use]
    pub fn empty(tool: &str, version: &str, path: &str) -> Self {
        Self {
            schema: TRIAGE_SCHEMA.into(),
            tool: Tool { name: tool.into(), version: version.into() },
            dump: DumpInfo { path: path.into(), ..DumpInfo::default() },
            kernel: KernelInfo::default(),
            symbols: Symbols::default(),
            panic: None,
            signature: None,
            cpus: Vec::new(),
            tasks: Vec::new(),
            modules: Vec::new(),
            blocked: None,
            console: None,
            memory: None,
            slab: Vec::new(),
            mounts: Vec::new(),
            open_files: Vec::new(),
            irqs: Vec::new(),
            block_io: Vec::new(),
            device_mapper: Vec::new(),
            md: Vec::new(),
            virtio: Vec::new(),
            net: Vec::new(),
            sockets: Vec::new(),
            unix_sockets: Vec::new(),
            softnet: Vec::new(),
            cgroups: Vec::new(),
            workqueues: Vec::new(),
            runqueues: Vec::new(),
            worker_pools: Vec::new(),
            timers: Vec::new(),
            settings: BTreeMap::new(),
            bpf: None,
            livepatches: Vec::new(),
            trace: None,
            events: Vec::new(),
            log: LogReport::default(),
            findings: Vec::new(),
            not_looked_at: Vec::new(),
            error: None,
            timings: Timings::default(),
        }
    }

    /// Says that a part of the document is not covered, and why.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.not_looked_at.push(NotLookedAt { what: what.into(), why: why.into() });
    }

    /// The worst severity among the findings; `None` without a finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_the_way_through_json() {
        let mut report = Report::empty("kdt", "0.1.0", "vmcore");
        report.skip("tasks", "the dump has no task list");
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn what_is_not_known_is_null_and_not_left_out() {
        let json = serde_json::to_value(Report::empty("kdt", "0.1.0", "vmcore")).unwrap();
        for pointer in
            ["/panic", "/kernel/release", "/dump/dump_level", "/blocked", "/memory", "/log/records"]
        {
            assert_eq!(json.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
        }
    }

    #[test]
    fn the_worst_finding_decides() {
        let mut report = Report::empty("kdt", "0.1.0", "vmcore");
        assert_eq!(report.worst(), None);
        report.findings.push(Finding::new("KD-A", Severity::Warning, Confidence::Certain, "a"));
        report.findings.push(Finding::new("KD-B", Severity::Info, Confidence::Certain, "b"));
        assert_eq!(report.worst(), Some(Severity::Warning));
    }
}
