//! The lockless ring: `struct printk_ringbuffer` (`kernel/printk/printk_ringbuffer.h`).
//!
//! Descriptors and infos are arrays of 2^`count_bits` entries, the text is a ring of 2^`size_bits` bytes. A descriptor's id names its
//! slot (modulo the count) and its generation, so a stale slot shows as an id that does not agree.

use super::{Caller, Generation, KernelLog, LogError, LogRecord, name, pointer, symbol};
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::kernel::walk::WalkEnd;
use crate::kernel::window::Window;
use crate::limits::Limits;
use crate::xlat::{KernelMemory, le};

/// The two top bits of `state_var` are the state, the rest is the id.
const STATE_SHIFT: u32 = 62;
const ID_MASK: u64 = (1 << STATE_SHIFT) - 1;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
const REUSABLE: u64 = 3;
/// Bytes of the id that each text block begins with: the kernel's `long`.
const BLOCK_ID_BYTES: u64 = 8;
/// The largest exponents that are looked at. The kernel's own are at most 31 (`LOG_BUF_LEN_MAX`).
const MAX_BITS: u32 = 40;

/// Where the members are, by VMCOREINFO.
struct Layout {
    rb_size: u64,
    desc_ring: u64,
    text_ring: u64,
    count_bits: u64,
    descs: u64,
    infos: u64,
    head_id: u64,
    tail_id: u64,
    size_bits: u64,
    data: u64,
    desc_size: u64,
    state_var: usize,
    lpos_begin: usize,
    lpos_next: usize,
    info_size: u64,
    seq: usize,
    ts_nsec: usize,
    text_len: usize,
    caller_id: usize,
    dev_info: Option<DevInfo>,
}

/// `struct dev_printk_info`: two arrays of characters.
struct DevInfo {
    subsystem: usize,
    subsystem_len: usize,
    device: usize,
    device_len: usize,
}

fn small(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Layout {
    fn from_keys(info: &Vmcoreinfo) -> Result<Self, LogError> {
        let offset =
            |member: &str| info.offset(member).ok_or_else(|| LogError::NoKey(format!("OFFSET({member})")));
        let size = |name: &str| {
            let size = info.size(name).ok_or_else(|| LogError::NoKey(format!("SIZE({name})")))?;
            // A structure of the log is some hundred bytes at most.
            if size == 0 || size > 1 << 16 {
                return Err(LogError::Inconsistent {
                    what: "VMCOREINFO",
                    why: format!("SIZE({name}) is {size}"),
                });
            }
            Ok(size)
        };
        let text_blk = offset("prb_desc.text_blk_lpos")?;
        let counter = offset("atomic_long_t.counter")?;
        let lpos = |member: &str| Ok::<_, LogError>(small(text_blk.saturating_add(offset(member)?)));
        let begin = info.offset("dev_printk_info.subsystem");
        let dev_info =
            match (info.offset("printk_info.dev_info"), begin, info.offset("dev_printk_info.device")) {
                (Some(dev), Some(subsystem), Some(device)) => {
                    let len = |key: &str, or: u64| small(info.length(key).unwrap_or(or));
                    Some(DevInfo {
                        subsystem: small(dev.saturating_add(subsystem)),
                        subsystem_len: len("printk_info_subsystem", 16),
                        device: small(dev.saturating_add(device)),
                        device_len: len("printk_info_device", 48),
                    })
                }
                _ => None,
            };
        Ok(Self {
            rb_size: size("printk_ringbuffer")?,
            desc_ring: offset("printk_ringbuffer.desc_ring")?,
            text_ring: offset("printk_ringbuffer.text_data_ring")?,
            count_bits: offset("prb_desc_ring.count_bits")?,
            descs: offset("prb_desc_ring.descs")?,
            infos: offset("prb_desc_ring.infos")?,
            head_id: offset("prb_desc_ring.head_id")?.saturating_add(counter),
            tail_id: offset("prb_desc_ring.tail_id")?.saturating_add(counter),
            size_bits: offset("prb_data_ring.size_bits")?,
            data: offset("prb_data_ring.data")?,
            desc_size: size("prb_desc")?,
            state_var: small(offset("prb_desc.state_var")?.saturating_add(counter)),
            lpos_begin: lpos("prb_data_blk_lpos.begin")?,
            lpos_next: lpos("prb_data_blk_lpos.next")?,
            info_size: size("printk_info")?,
            seq: small(offset("printk_info.seq")?),
            ts_nsec: small(offset("printk_info.ts_nsec")?),
            text_len: small(offset("printk_info.text_len")?),
            caller_id: small(offset("printk_info.caller_id")?),
            dev_info,
        })
    }
}

/// The ring's own members.
struct Ring {
    count: u64,
    text_size: u64,
    tail_id: u64,
    head_id: u64,
    descs: KVirtAddr,
    infos: KVirtAddr,
    text: KVirtAddr,
}

impl Ring {
    fn open(
        memory: &KernelMemory<'_>,
        info: &Vmcoreinfo,
        layout: &Layout,
        limits: &Limits,
    ) -> Result<Self, LogError> {
        const WHAT: &str = "the log's printk_ringbuffer";
        let at = pointer(memory, symbol(info, "prb")?, "the log's pointer prb")?;
        let mut bytes = vec![0; small(layout.rb_size)];
        memory.read(at, &mut bytes).map_err(|e| LogError::Unreadable { what: WHAT, why: e.to_string() })?;
        let cut = || LogError::Inconsistent {
            what: "VMCOREINFO",
            why: "a member of printk_ringbuffer lies behind its end".into(),
        };
        let u32_at =
            |ring: u64, member: u64| le::u32_at(&bytes, small(ring.saturating_add(member))).ok_or_else(cut);
        let u64_at =
            |ring: u64, member: u64| le::u64_at(&bytes, small(ring.saturating_add(member))).ok_or_else(cut);
        let power = |what: &'static str, bits: u32| {
            let wrong = || LogError::Inconsistent { what, why: format!("its size is 2^{bits}") };
            if bits == 0 || bits > MAX_BITS {
                Err(wrong())
            } else {
                1_u64.checked_shl(bits).ok_or_else(wrong)
            }
        };
        let ring = Self {
            count: power("the log's descriptor ring", u32_at(layout.desc_ring, layout.count_bits)?)?,
            text_size: power("the log's text ring", u32_at(layout.text_ring, layout.size_bits)?)?,
            tail_id: u64_at(layout.desc_ring, layout.tail_id)? & ID_MASK,
            head_id: u64_at(layout.desc_ring, layout.head_id)? & ID_MASK,
            descs: KVirtAddr(u64_at(layout.desc_ring, layout.descs)?),
            infos: KVirtAddr(u64_at(layout.desc_ring, layout.infos)?),
            text: KVirtAddr(u64_at(layout.text_ring, layout.data)?),
        };
        let per_record = layout.desc_size.saturating_add(layout.info_size);
        let bytes = ring.count.saturating_mul(per_record).saturating_add(ring.text_size);
        if bytes > limits.log_bytes.saturating_mul(8) {
            let why = format!(
                "it says that it has {} descriptors and {} bytes of text",
                ring.count, ring.text_size
            );
            return Err(LogError::Inconsistent { what: WHAT, why });
        }
        Ok(ring)
    }

    fn slot(&self, id: u64) -> u64 {
        id.checked_rem(self.count).unwrap_or_default()
    }
}

/// The three arrays, read as the walk needs them.
struct Reader<'k, 'm> {
    layout: Layout,
    ring: Ring,
    descs: Window<'k, 'm>,
    infos: Window<'k, 'm>,
    text: Window<'k, 'm>,
}

/// Reads the ring from its tail to its head.
pub(super) fn read(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    limits: &Limits,
) -> Result<KernelLog, LogError> {
    let layout = Layout::from_keys(info)?;
    let ring = Ring::open(memory, info, &layout, limits)?;
    let window = |start, len| Window::new(memory, start, len);
    let mut reader = Reader {
        descs: window(ring.descs, ring.count.saturating_mul(layout.desc_size)),
        infos: window(ring.infos, ring.count.saturating_mul(layout.info_size)),
        text: window(ring.text, ring.text_size),
        layout,
        ring,
    };
    Ok(reader.walk(limits))
}

impl Reader<'_, '_> {
    fn walk(&mut self, limits: &Limits) -> KernelLog {
        let mut log = KernelLog::new(Generation::Ring);
        let mut spent = 0;
        let head = self.ring.head_id;
        let mut id = self.ring.tail_id;
        // Ids count modulo 2^62. More of them than slots can't all be there: the newest ones are.
        let span = (head.wrapping_sub(id) & ID_MASK).saturating_add(1);
        if span > self.ring.count {
            let why = format!(
                "tail id {id:#x} and head id {head:#x} are further apart than its {} descriptors",
                self.ring.count
            );
            log.end = WalkEnd::Inconsistent(self.ring.descs, why);
            id = head.wrapping_sub(self.ring.count.saturating_sub(1)) & ID_MASK;
        }
        // A ring of more slots than a log may have records is walked at its newest end.
        let most = u64::try_from(limits.log_records).unwrap_or(u64::MAX).saturating_mul(2);
        let mut left = span.min(self.ring.count);
        if left > most {
            log.end = WalkEnd::Limit(limits.log_records);
            left = most;
            id = head.wrapping_sub(most.saturating_sub(1)) & ID_MASK;
        }
        while left > 0 {
            if let Some(record) = self.record(id, &mut log)
                && log.push(record, &mut spent, limits).is_break()
            {
                break;
            }
            id = id.wrapping_add(1) & ID_MASK;
            left = left.saturating_sub(1);
        }
        log
    }

    /// Looks at one descriptor: its record, or none and the reason is counted.
    fn record(&mut self, id: u64, log: &mut KernelLog) -> Option<LogRecord> {
        let slot = self.ring.slot(id);
        let desc_at = slot.saturating_mul(self.layout.desc_size);
        let desc = match self.descs.exact(desc_at, self.layout.desc_size) {
            Ok(desc) => desc,
            Err(why) => {
                log.lost.add(|| format!("its descriptor can't be read: {why}"));
                return None;
            }
        };
        let field = |at: usize| le::u64_at(&desc, at);
        let (Some(state_var), Some(begin), Some(next)) =
            (field(self.layout.state_var), field(self.layout.lpos_begin), field(self.layout.lpos_next))
        else {
            log.lost.add(|| "a member of prb_desc lies behind its end".into());
            return None;
        };
        match state_var >> STATE_SHIFT {
            // The tail's slot is reusable in a ring that was never filled, and while its record is being pushed out.
            REUSABLE => return None,
            _ if state_var & ID_MASK != id => {
                let own = state_var & ID_MASK;
                log.lost.add(|| format!("the descriptor of record id {id:#x} holds id {own:#x}"));
                return None;
            }
            COMMITTED | FINALIZED => {}
            _ => {
                log.unfinished = log.unfinished.saturating_add(1);
                return None;
            }
        }
        let info_at = slot.saturating_mul(self.layout.info_size);
        let mut lost = None;
        let (mut record, text_len) = match self.infos.exact(info_at, self.layout.info_size) {
            Ok(info) => {
                let (record, text_len) = self.describe(&info);
                // Ids and numbers count alike, so any record tells how many came before the tail's.
                let before = id.wrapping_sub(self.ring.tail_id) & ID_MASK;
                log.dropped.get_or_insert(record.seq.saturating_sub(before));
                (record, Some(text_len))
            }
            Err(why) => {
                lost = Some(format!("its printk_info can't be read: {why}"));
                let seq = log.records.last().map_or(0, |last| last.seq.saturating_add(1));
                (LogRecord { seq, ..LogRecord::default() }, None)
            }
        };
        match self.block(begin, next) {
            None => record.data_less = true,
            Some((start, end)) => {
                if let Err(reason) = self.fill(id, start, end, text_len, &mut record) {
                    lost.get_or_insert(reason);
                }
            }
        }
        if let Some(reason) = lost {
            log.lost.add(|| reason);
        }
        Some(record)
    }

    /// Where a record's block lies in the ring, id and all; `None` for a record without data.
    fn block(&self, begin: u64, next: u64) -> Option<(u64, u64)> {
        let size = self.ring.text_size;
        let (begin_at, next_at) = (begin.checked_rem(size)?, next.checked_rem(size)?);
        // Bit 0 marks both positions of a record without data (FAILED_LPOS 1, EMPTY_LINE_LPOS 3): blocks are aligned to a long.
        if (begin & 1 == 1 && next & 1 == 1) || begin_at == next_at {
            return None;
        }
        if begin_at < next_at {
            return Some((begin_at, next_at));
        }
        // A block that would cross the end starts again at 0. One that ends exactly there does not cross it; kernels before 6.18 never
        // made one such, they wrapped it.
        Some(if next_at == 0 { (begin_at, size) } else { (0, next_at) })
    }

    /// Reads the text of a block, and says what of it is not there.
    fn fill(
        &mut self,
        id: u64,
        start: u64,
        end: u64,
        text_len: Option<u64>,
        record: &mut LogRecord,
    ) -> Result<(), String> {
        let text_at = start.saturating_add(BLOCK_ID_BYTES).min(end);
        // A hostile or half-written length never reaches into the next block.
        let space = end.saturating_sub(text_at);
        // Without a length the text fills the block, but for the padding.
        let len = text_len.unwrap_or(u64::MAX).min(space).min(u64::from(u16::MAX));
        if let Ok(own) = self.text.exact(start, BLOCK_ID_BYTES)
            && le::u64_at(&own, 0).is_some_and(|own| own != id)
        {
            record.missing_bytes = u32::try_from(len).unwrap_or(u32::MAX);
            return Err(format!("the text of record id {id:#x} was overwritten by another record's"));
        }
        let bytes = self.text.bytes(text_at..text_at.saturating_add(len));
        record.text = bytes.have;
        if text_len.is_none() {
            let used = record.text.iter().rposition(|b| *b != 0).map_or(0, |last| last.saturating_add(1));
            record.text.truncate(used);
        }
        match bytes.why {
            None => Ok(()),
            Some(why) => {
                record.missing_bytes = u32::try_from(bytes.missing).unwrap_or(u32::MAX);
                Err(format!("{} bytes of its text can't be read: {why}", bytes.missing))
            }
        }
    }

    /// What `struct printk_info` says, and the length of the text by it.
    fn describe(&self, info: &[u8]) -> (LogRecord, u64) {
        let l = &self.layout;
        let mut record = LogRecord {
            seq: le::u64_at(info, l.seq).unwrap_or_default(),
            ts_ns: le::u64_at(info, l.ts_nsec),
            caller: le::u32_at(info, l.caller_id).map(Caller::from_id),
            ..LogRecord::default()
        };
        // VMCOREINFO does not name `u8 facility; u8 flags:5, level:3`. They fill the gap between the two members that it names.
        if l.text_len.checked_add(4) == Some(l.caller_id) {
            record.facility = l.text_len.checked_add(2).and_then(|at| le::u8_at(info, at));
            record.level = l.text_len.checked_add(3).and_then(|at| le::u8_at(info, at)).map(|b| b >> 5);
        }
        if let Some(dev) = &l.dev_info {
            let field =
                |at: usize, len: usize| at.checked_add(len).and_then(|end| info.get(at..end)).and_then(name);
            record.subsystem = field(dev.subsystem, dev.subsystem_len);
            record.device = field(dev.device, dev.device_len);
        }
        (record, le::u16_at(info, l.text_len).map_or(0, u64::from))
    }
}
