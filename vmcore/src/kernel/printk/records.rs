//! The buffer of `struct printk_log` records (3.5 to 5.9; before 3.11 the structure is called `log`).
//!
//! Each record is the structure, the text, the dictionary and padding, `len` bytes in all. A `len` of 0 means that the next
//! record is at the start of the buffer.

use super::{Caller, Generation, KernelLog, LogError, LogRecord, number, pointer, symbol};
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::kernel::walk::WalkEnd;
use crate::kernel::window::Window;
use crate::limits::Limits;
use crate::xlat::{KernelMemory, le};

/// Where the members are, by VMCOREINFO.
pub(super) struct Layout {
    size: u64,
    ts_nsec: usize,
    len: usize,
    text_len: usize,
    dict_len: usize,
}

impl Layout {
    /// The layout, where VMCOREINFO has one: it is what tells this form of the log from the plain one.
    pub(super) fn from_keys(info: &Vmcoreinfo) -> Option<Self> {
        let of = |name: &str| {
            let offset =
                |member: &str| info.offset(&format!("{name}.{member}")).and_then(|o| usize::try_from(o).ok());
            Some(Self {
                size: info.size(name).filter(|s| (1..=4096).contains(s))?,
                ts_nsec: offset("ts_nsec")?,
                len: offset("len")?,
                text_len: offset("text_len")?,
                dict_len: offset("dict_len")?,
            })
        };
        of("printk_log").or_else(|| of("log"))
    }
}

/// Reads the records from the first index to the next one.
pub(super) fn read(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    limits: &Limits,
) -> Result<KernelLog, LogError> {
    let layout = Layout::from_keys(info).ok_or_else(|| LogError::NoKey("SIZE(printk_log)".into()))?;
    let buffer = pointer(memory, symbol(info, "log_buf")?, "the log's pointer log_buf")?;
    let len = number(memory, symbol(info, "log_buf_len")?, "log_buf_len")?;
    let first = number(memory, symbol(info, "log_first_idx")?, "log_first_idx")?;
    let next = number(memory, symbol(info, "log_next_idx")?, "log_next_idx")?;
    let len = u64::from(len);
    if len < layout.size || len > limits.log_bytes {
        return Err(LogError::Inconsistent { what: "log_buf_len", why: format!("it is {len}") });
    }
    let mut reader = Reader { layout, buffer, text: Window::new(memory, buffer, len) };
    Ok(reader.walk(u64::from(first), u64::from(next), limits))
}

struct Reader<'k, 'm> {
    layout: Layout,
    buffer: KVirtAddr,
    text: Window<'k, 'm>,
}

impl Reader<'_, '_> {
    fn walk(&mut self, first: u64, next: u64, limits: &Limits) -> KernelLog {
        let mut log = KernelLog::new(Generation::Records);
        let mut at = first;
        let mut spent = 0;
        // All records together fill the buffer once at most: more is a walk in circles.
        let mut budget = self.text.len();
        while at != next {
            let kaddr = KVirtAddr(self.buffer.0.wrapping_add(at));
            let head = match self.text.exact(at, self.layout.size) {
                Ok(head) => head,
                Err(why) => {
                    // The next record's place is in this one, so nothing after it can be found but by guessing.
                    log.lost.add(|| format!("its header can't be read: {why}"));
                    log.end = WalkEnd::Unreadable(kaddr, why);
                    break;
                }
            };
            let len = le::u16_at(&head, self.layout.len).map_or(0, u64::from);
            if len == 0 {
                if at == 0 {
                    log.end = WalkEnd::Cycle(kaddr);
                    break;
                }
                // The rest of the buffer is unused: it counts as walked.
                budget = budget.saturating_sub(self.text.len().saturating_sub(at));
                at = 0;
                continue;
            }
            let end = at.saturating_add(len);
            if len < self.layout.size || end > self.text.len() {
                log.end = WalkEnd::Inconsistent(kaddr, format!("a record says that it is {len} bytes long"));
                break;
            }
            let Some(rest) = budget.checked_sub(len) else {
                log.end = WalkEnd::Cycle(kaddr);
                break;
            };
            budget = rest;
            let record = self.record(&head, at, end, &mut log);
            if log.push(record, &mut spent, limits).is_break() {
                break;
            }
            at = end;
        }
        log
    }

    fn record(&mut self, head: &[u8], at: u64, end: u64, log: &mut KernelLog) -> LogRecord {
        let l = &self.layout;
        let size = usize::try_from(l.size).unwrap_or(usize::MAX);
        // `u8 facility; u8 flags:5, level:3` follow dict_len, and (5.1 and later, CONFIG_PRINTK_CALLER) `u32 caller_id` them.
        let after_dict = l.dict_len.saturating_add(2);
        let tail = |skip: usize, need: usize| {
            let at = after_dict.saturating_add(skip);
            (at.saturating_add(need) <= size).then_some(at)
        };
        let mut record = LogRecord {
            seq: u64::try_from(log.records.len()).unwrap_or(u64::MAX),
            ts_ns: le::u64_at(head, l.ts_nsec),
            facility: tail(0, 1).and_then(|at| le::u8_at(head, at)),
            level: tail(1, 1).and_then(|at| le::u8_at(head, at)).map(|b| b >> 5),
            caller: tail(2, 4).and_then(|at| le::u32_at(head, at)).map(Caller::from_id),
            ..LogRecord::default()
        };
        let text_at = at.saturating_add(l.size).min(end);
        let text_len = le::u16_at(head, l.text_len).map_or(0, u64::from);
        let text_end = text_at.saturating_add(text_len).min(end);
        let dict_len = le::u16_at(head, l.dict_len).map_or(0, u64::from);
        let dict_end = text_end.saturating_add(dict_len).min(end);
        let text = self.text.bytes(text_at..text_end);
        record.text = text.have;
        if let Some(why) = text.why {
            record.missing_bytes = u32::try_from(text.missing).unwrap_or(u32::MAX);
            log.lost.add(|| format!("{} bytes of its text can't be read: {why}", text.missing));
        }
        for entry in self.text.bytes(text_end..dict_end).have.split(|b| *b == 0) {
            let entry = String::from_utf8_lossy(entry);
            match entry.split_once('=') {
                Some(("SUBSYSTEM", value)) => record.subsystem = Some(value.to_owned()),
                Some(("DEVICE", value)) => record.device = Some(value.to_owned()),
                _ => {}
            }
        }
        record
    }
}
