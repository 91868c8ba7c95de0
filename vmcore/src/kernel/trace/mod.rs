//! The trace buffer: the last events that ftrace wrote down.
//!
//! Facts: `kernel/trace/ring_buffer.c`, `kernel/trace/trace.h`, `include/linux/trace_events.h`. Each CPU has a ring of pages; a
//! page begins with a time and how much of it is written.

mod events;
mod page;

pub use events::{Field, Format};
pub use page::{Raw, decode};

use std::collections::HashMap;

use super::Gap;
use super::reader::{Reader, note};
use super::value::{Layout, Maybe, view};
use crate::addr::KVirtAddr;
use crate::xlat::le;

/// Pages of one CPU that are read: enough for 4 GiB of events.
const PAGES: usize = 1 << 20;
/// The bits that a ring's pointers carry.
const FLAGS: u64 = 3;
/// Bytes of the largest part of a ring (`subbuf_order`).
const LARGEST: u32 = 1 << 20;

view! {
    struct Buffer of "trace_buffer" {
        buffers: KVirtAddr = ["buffers"],
        order: Maybe<u32> = ["subbuf_order"],
    }
}

view! {
    /// Before 5.6 the ring of all CPUs had this name.
    struct OldBuffer of "ring_buffer" {
        buffers: KVirtAddr = ["buffers"],
    }
}

view! {
    struct PerCpuRing of "ring_buffer_per_cpu" {
        head: KVirtAddr = ["head_page"],
        commit: KVirtAddr = ["commit_page"],
        reader: KVirtAddr = ["reader_page"],
        pages: Maybe<u64> = ["nr_pages"],
        overrun: Maybe<u64> = ["overrun"],
    }
}

view! {
    struct Page of "buffer_page" {
        next: u64 = ["list.next"],
        read: u32 = ["read"],
        data: KVirtAddr = ["page"],
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When, in nanoseconds of the trace's clock.
    pub ts: u64,
    /// On which CPU.
    pub cpu: usize,
    /// Its type's number.
    pub kind: u16,
    /// Its type's name; `None` where the kernel has no type of that number.
    pub name: Option<String>,
    /// The task that ran.
    pub pid: i32,
    /// What it says, in order.
    pub fields: Vec<(String, String)>,
}

/// What the trace buffer holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trace {
    /// The last events of all CPUs, the oldest first.
    pub events: Vec<Event>,
    /// How many events there are on all CPUs, those that are not shown among them.
    pub total: usize,
    /// How many were overwritten by later ones.
    pub overwritten: u64,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads the last `most` events. `None` where this kernel can't trace.
#[must_use]
pub fn read(reader: Reader<'_, '_>, most: usize) -> Option<Trace> {
    let root = reader.symbols.address("global_trace")?;
    let mut found = Trace::default();
    let mut all = Vec::new();
    if let Err(why) = rings(reader, root, &mut found, &mut all, most) {
        note(&mut found.gaps, "the trace buffer", why);
    }
    all.sort_by_key(|(cpu, raw)| (raw.ts, *cpu));
    let all = all.split_off(all.len().saturating_sub(most));
    let formats = if all.is_empty() { HashMap::new() } else { events::formats(reader, &mut found.gaps) };
    found.events = all.iter().map(|(cpu, raw)| event(reader, &formats, *cpu, raw)).collect();
    Some(found)
}

fn event(reader: Reader<'_, '_>, formats: &HashMap<u16, Format>, cpu: usize, raw: &Raw) -> Event {
    // `struct trace_entry`: type, flags, preemption count, pid.
    let kind = le::u16_at(&raw.data, 0).unwrap_or_default();
    let format = formats.get(&kind);
    Event {
        ts: raw.ts,
        cpu,
        kind,
        name: format.map(|format| format.name.clone()),
        pid: le::u32_at(&raw.data, 4).unwrap_or_default().cast_signed(),
        fields: format.map(|format| format.values(&raw.data, |at| reader.function(at))).unwrap_or_default(),
    }
}

fn rings(
    reader: Reader<'_, '_>,
    root: KVirtAddr,
    found: &mut Trace,
    all: &mut Vec<(usize, Raw)>,
    most: usize,
) -> Result<(), String> {
    let of = reader.types.structure("trace_array").map_err(|why| why.to_string())?;
    let inside =
        of.member_of(&["array_buffer.buffer", "trace_buffer.buffer"]).map_err(|why| why.to_string())?;
    let at = root.checked_add(inside.offset()).ok_or("it is at the end of the address space")?;
    let buffer = reader.memory.read_ptr(at).map_err(|why| why.to_string())?;
    if buffer.is_null() {
        return Err("it was not made yet".into());
    }
    let (buffers, order) = if let Ok(layout) = Layout::<Buffer>::new(reader.types) {
        let buffer = layout.read(reader.memory, buffer).map_err(|why| why.to_string())?;
        (buffer.buffers, buffer.order.value().unwrap_or_default())
    } else {
        let layout = Layout::<OldBuffer>::new(reader.types).map_err(|why| why.to_string())?;
        (layout.read(reader.memory, buffer).map_err(|why| why.to_string())?.buffers, 0)
    };
    let bytes = 4096_u32.checked_shl(order).filter(|bytes| *bytes <= LARGEST && order < 16);
    let bytes = bytes.ok_or_else(|| format!("its parts would be 2^{order} pages"))?;
    let ring = Ring::new(reader, usize::try_from(bytes).unwrap_or(4096))?;
    for cpu in reader.per_cpu.possible() {
        let place = u64::try_from(*cpu).ok().and_then(|n| buffers.checked_add(n.checked_mul(8)?));
        let at = match place.map(|place| reader.memory.read_ptr(place)) {
            Some(Ok(at)) if !at.is_null() => at,
            Some(Ok(_)) | None => continue,
            Some(Err(why)) => {
                note(&mut found.gaps, &format!("the trace of CPU {cpu}"), why);
                continue;
            }
        };
        if let Err(why) = ring.read(*cpu, at, found, all, most) {
            note(&mut found.gaps, &format!("the trace of CPU {cpu}"), why);
        }
    }
    Ok(())
}

struct Ring<'a, 'm> {
    reader: Reader<'a, 'm>,
    rings: Layout<PerCpuRing>,
    pages: Layout<Page>,
    list: u64,
    data: usize,
    commit: usize,
    bytes: usize,
}

impl<'a, 'm> Ring<'a, 'm> {
    fn new(reader: Reader<'a, 'm>, bytes: usize) -> Result<Self, String> {
        let place = |name: &str| {
            let offset = reader.offset("buffer_data_page", name)?;
            usize::try_from(offset).map_err(|why| why.to_string())
        };
        Ok(Self {
            reader,
            rings: Layout::new(reader.types).map_err(|why| why.to_string())?,
            pages: Layout::new(reader.types).map_err(|why| why.to_string())?,
            list: reader.offset("buffer_page", "list")?,
            data: place("data")?,
            commit: place("commit")?,
            bytes,
        })
    }

    /// The reader's page, then from the head to the page that is being written.
    fn read(
        &self,
        cpu: usize,
        at: KVirtAddr,
        found: &mut Trace,
        all: &mut Vec<(usize, Raw)>,
        most: usize,
    ) -> Result<(), String> {
        let memory = self.reader.memory;
        let ring = self.rings.read(memory, at).map_err(|why| why.to_string())?;
        found.overwritten = found.overwritten.saturating_add(ring.overrun.value().unwrap_or_default());
        let limit = usize::try_from(ring.pages.value().unwrap_or_default()).unwrap_or(PAGES);
        let limit = limit.saturating_add(1).min(PAGES);
        let mut seen = std::collections::HashSet::new();
        let mut own: Vec<Raw> = Vec::new();
        let (mut page_at, mut skip_read) = (ring.reader, true);
        loop {
            if !seen.insert(page_at) || seen.len() > limit {
                note(
                    &mut found.gaps,
                    &format!("the trace of CPU {cpu}"),
                    "its ring does not come to its end",
                );
                break;
            }
            let page = match self.pages.read(memory, page_at) {
                Ok(page) => page,
                Err(why) => {
                    note(&mut found.gaps, &format!("the trace of CPU {cpu}"), why);
                    break;
                }
            };
            match self.page(&page, skip_read) {
                Ok((events, whole)) => {
                    found.total = found.total.saturating_add(events.len());
                    own.extend(events);
                    if !whole {
                        let why = format!("a part at {} is damaged, and its rest is left out", page.data);
                        note(&mut found.gaps, &format!("the trace of CPU {cpu}"), why);
                    }
                }
                Err(why) => note(&mut found.gaps, &format!("the trace of CPU {cpu}"), why),
            }
            // No more than is shown is kept.
            if own.len() > most.saturating_mul(64) {
                own.drain(..own.len().saturating_sub(most));
            }
            if page_at == ring.commit {
                break;
            }
            page_at = if std::mem::take(&mut skip_read) {
                ring.head
            } else {
                KVirtAddr((page.next & !FLAGS).wrapping_sub(self.list))
            };
        }
        let from = own.len().saturating_sub(most);
        all.extend(own.drain(from..).map(|raw| (cpu, raw)));
        Ok(())
    }

    fn page(&self, page: &Page, skip_read: bool) -> Result<(Vec<Raw>, bool), String> {
        let mut bytes = vec![0_u8; self.bytes];
        self.reader.memory.read(page.data, &mut bytes).map_err(|why| why.to_string())?;
        let time = le::u64_at(&bytes, 0).unwrap_or_default();
        // The highest bits say that events were lost before this page.
        let commit = le::u32_at(&bytes, self.commit).unwrap_or_default() & 0x000f_ffff;
        let end = usize::try_from(commit).unwrap_or_default().saturating_add(self.data);
        let written = bytes.get(self.data..end).ok_or("it says that more is written than it has room for")?;
        let read = if skip_read { usize::try_from(page.read).unwrap_or_default() } else { 0 };
        Ok(decode(written, time, read))
    }
}
