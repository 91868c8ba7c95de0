//! The kernel log, in the three forms that it has had: the lockless ring (5.10 and later), the buffer of `printk_log` records
//! (3.5 to 5.9) and the plain text buffer (before 3.5).
//!
//! Which form it is follows from the keys that VMCOREINFO has, never from the release. Everything that the readers need is in
//! VMCOREINFO, so the log needs no debug information. A page that is not in the dump costs the records on it and no others.

mod plain;
mod records;
pub mod render;
mod ring;

use std::fmt;
use std::ops::ControlFlow;

use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::kernel::walk::WalkEnd;
use crate::limits::Limits;
use crate::xlat::KernelMemory;

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Generation {
    /// `struct printk_ringbuffer`, 5.10 and later.
    Ring,
    /// `struct printk_log` (at first `struct log`) records in one buffer, 3.5 to 5.9.
    Records,
    /// Text with `<level>` prefixes, before 3.5.
    Plain,
}

/// Who printed a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A task, by its pid.
    Task(u32),
    /// A CPU that ran no task's code: an interrupt.
    Cpu(u32),
}

impl Caller {
    /// `caller_id` as the kernel packs it.
    fn from_id(id: u32) -> Self {
        const CPU: u32 = 0x8000_0000;
        if id & CPU == 0 { Self::Task(id) } else { Self::Cpu(id & !CPU) }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(pid) => write!(f, "T{pid}"),
            Self::Cpu(cpu) => write!(f, "C{cpu}"),
        }
    }
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number since boot in a ring; in the older forms its number in the buffer, from 0.
    pub seq: u64,
    /// Nanoseconds since boot, by the kernel's `local_clock`. `None` in a plain buffer without `printk.time`.
    pub ts_ns: Option<u64>,
    /// 0 (emergency) to 7 (debug). `None` where the form or a damaged record does not tell.
    pub level: Option<u8>,
    /// 0 for the kernel itself; others come from user space through `/dev/kmsg`.
    pub facility: Option<u8>,
    /// Who printed it. Older kernels do not record that.
    pub caller: Option<Caller>,
    /// `SUBSYSTEM` of the device that it speaks of.
    pub subsystem: Option<String>,
    /// `DEVICE` that it speaks of, in the kernel's notation: `+pci:0000:00:03.0`.
    pub device: Option<String>,
    /// The text as it stands, newlines and control bytes too, without prefix. Lossless: not always UTF-8.
    pub text: Vec<u8>,
    /// How many bytes of the text are not in the dump.
    pub missing_bytes: u32,
    /// True for a record of the ring without a text block: an empty line, or one that found no space.
    pub data_less: bool,
}

impl LogRecord {
    /// The text with what is not UTF-8 replaced.
    #[must_use]
    pub fn text_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// Records that exist and can't be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostRecords {
    /// How many.
    pub count: u64,
    /// Why the first of them is lost.
    pub first_reason: Option<String>,
}

impl LostRecords {
    fn add(&mut self, reason: impl FnOnce() -> String) {
        self.count = self.count.saturating_add(1);
        self.first_reason.get_or_insert_with(reason);
    }
}

/// The log as far as it can be had.
#[derive(Clone, Debug)]
pub struct KernelLog {
    /// In which form the kernel keeps it.
    pub generation: Generation,
    /// The records, oldest first.
    pub records: Vec<LogRecord>,
    /// How many older records were overwritten before the crash. Only the ring knows.
    pub dropped: Option<u64>,
    /// Records that a CPU was writing when the kernel stopped. Their text is not valid yet, so they are not shown.
    pub unfinished: u64,
    /// Records that are wholly or partly not there. Those partly there are among the records too.
    pub lost: LostRecords,
    /// Why the walk ended.
    pub end: WalkEnd,
}

impl KernelLog {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            records: Vec::new(),
            dropped: None,
            unfinished: 0,
            lost: LostRecords::default(),
            end: WalkEnd::Complete,
        }
    }

    /// Appends a record, or ends the walk: because there are enough of them, or because they take more memory than a log may.
    /// `spent` counts that memory from one call to the next.
    fn push(&mut self, record: LogRecord, spent: &mut u64, limits: &Limits) -> ControlFlow<()> {
        let bytes = u64::try_from(size_of::<LogRecord>().saturating_add(record.text.len()));
        *spent = spent.saturating_add(bytes.unwrap_or(u64::MAX));
        if self.records.len() >= limits.log_records || *spent > limits.log_bytes {
            self.end = WalkEnd::Limit(self.records.len());
            return ControlFlow::Break(());
        }
        self.records.push(record);
        ControlFlow::Continue(())
    }

    /// True where every record that the kernel had finished is there, whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.end.is_complete() && self.lost.count == 0
    }
}

/// Why there is no log at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// VMCOREINFO does not say where the log is.
    #[error("VMCOREINFO does not say where the log is: it has no {0}")]
    NoKey(String),
    /// The structure that leads to the records can't be read.
    #[error("{what} can't be read: {why}")]
    Unreadable {
        /// Which structure.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The structure that leads to the records can't be true.
    #[error("{what} can't be right: {why}")]
    Inconsistent {
        /// Which structure.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// Reads the log in the form that VMCOREINFO tells of.
///
/// # Errors
/// [`LogError`] where not even the first record can be looked for. What is missing of a log that begins well is told in [`KernelLog`].
pub fn read(memory: &KernelMemory<'_>, info: &Vmcoreinfo, limits: &Limits) -> Result<KernelLog, LogError> {
    if info.symbol("prb").is_some() {
        return ring::read(memory, info, limits);
    }
    if info.symbol("log_buf").is_none() {
        return Err(LogError::NoKey("SYMBOL(prb) and no SYMBOL(log_buf)".into()));
    }
    if records::Layout::from_keys(info).is_some() {
        return records::read(memory, info, limits);
    }
    plain::read(memory, info, limits)
}

/// `SYMBOL(name)`, or which key is not there.
fn symbol(info: &Vmcoreinfo, name: &str) -> Result<crate::addr::KVirtAddr, LogError> {
    info.symbol(name).ok_or_else(|| LogError::NoKey(format!("SYMBOL({name})")))
}

/// A pointer variable that leads to the log.
fn pointer(
    memory: &KernelMemory<'_>,
    at: crate::addr::KVirtAddr,
    what: &'static str,
) -> Result<crate::addr::KVirtAddr, LogError> {
    let target = memory.read_ptr(at).map_err(|e| LogError::Unreadable { what, why: e.to_string() })?;
    if target.is_null() {
        return Err(LogError::Inconsistent { what, why: "it is a null pointer".into() });
    }
    Ok(target)
}

/// An `int` or `u32` variable of the log.
fn number(
    memory: &KernelMemory<'_>,
    at: crate::addr::KVirtAddr,
    what: &'static str,
) -> Result<u32, LogError> {
    memory.read_u32(at).map_err(|e| LogError::Unreadable { what, why: e.to_string() })
}

/// A NUL-padded name.
fn name(field: &[u8]) -> Option<String> {
    let text = field.split(|b| *b == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}
