//! kdump-compressed, version 6, as makedumpfile 1.7 writes it.

use std::ops::Range;

use super::pipeline::{self, Stored};
use super::sink::Sink;
use super::{Options, Texts, WriteError, Written};
use crate::filter::{Classes, Selection};
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::raw::diskdump::{COMPRESSED_INCOMPLETE, EXCLUDED_VMEMMAP, KDUMP_SIGNATURE};

const DESC: u64 = 24;
/// Bytes that are gathered before they are put.
const GATHER: usize = 256 << 10;

/// Descriptors that are gathered for a stream: where it is cut, their pages are lost although they arrived.
const GATHER_DESCS: usize = 16 << 10;

/// Bytes that follow each other, gathered.
struct Run {
    at: u64,
    bytes: Vec<u8>,
    gather: usize,
}

impl Run {
    fn new(at: u64, gather: usize) -> Self {
        Self { at, bytes: Vec::with_capacity(gather), gather }
    }

    fn end(&self) -> u64 {
        self.at.saturating_add(u64::try_from(self.bytes.len()).unwrap_or(0))
    }

    fn add(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), WriteError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= self.gather { self.flush(sink) } else { Ok(()) }
    }

    /// Puts a long stretch without gathering it.
    fn add_long(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), WriteError> {
        if bytes.len() < self.gather >> 2 {
            return self.add(bytes, sink);
        }
        self.flush(sink)?;
        sink.put(self.at, bytes).map_err(WriteError::at(self.at))?;
        self.at = self.at.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        Ok(())
    }

    fn flush(&mut self, sink: &mut dyn Sink) -> Result<(), WriteError> {
        if !self.bytes.is_empty() {
            sink.put(self.at, &self.bytes).map_err(WriteError::at(self.at))?;
            self.at = self.end();
            self.bytes.clear();
        }
        Ok(())
    }
}

/// Where everything lies.
struct Plan {
    page_size: u64,
    sub_blocks: u64,
    bitmap_blocks: u64,
    end: u64,
    descs_at: u64,
    data_at: u64,
}

impl Plan {
    fn new(dump: &Dump, texts: &Texts, pages: u64) -> Self {
        let (page_size, end) = (dump.page_size(), dump.end_pfn().0);
        let texts_len = u64::try_from(texts.notes.len()).unwrap_or(0);
        let sub_blocks = 104_u64.saturating_add(texts_len).div_ceil(page_size);
        let bitmap_blocks = end.div_ceil(8).div_ceil(page_size).saturating_mul(2);
        let before = sub_blocks.saturating_add(bitmap_blocks).saturating_add(1);
        let descs_at = before.saturating_mul(page_size);
        let data_at = pages.saturating_mul(DESC).saturating_add(descs_at);
        Self { page_size, sub_blocks, bitmap_blocks, end, descs_at, data_at }
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
pub(super) fn write(
    dump: &Dump,
    classes: &Classes,
    texts: &Texts,
    codec: Codec,
    frames: Range<u64>,
    options: &Options,
    sink: &mut dyn Sink,
    watch: (&Cancel, &dyn Progress),
) -> Result<Written, WriteError> {
    let plan = Plan::new(dump, texts, classes.kept.count(frames.clone()));
    let mut room = options.limit.map(|limit| limit.saturating_sub(plan.data_at));
    if !sink.has_holes() {
        // A stream may be cut: what arrived can be read with headers that came first, and call it incomplete.
        headers(dump, &plan, texts, codec, options, &frames, 0, true, sink)?;
    }
    bitmaps(&plan, classes, sink)?;
    let mut descs = Run::new(plan.descs_at, if sink.has_holes() { GATHER } else { GATHER_DESCS });
    let mut data = Run::new(plan.data_at, GATHER);
    let mut written = Written::default();
    let zero = desc(plan.data_at, plan.page_size, Codec::Raw);
    let drop_zeros = options.level.drops_zeros() || options.share_zeros;
    if drop_zeros {
        room = room.map(|room| room.saturating_sub(plan.page_size));
        let page = vec![0; usize::try_from(plan.page_size).unwrap_or(0)];
        data.add(&page, sink)?;
    }
    let runs = classes.kept.runs(frames.clone());
    pipeline::run(dump, runs, codec, drop_zeros, options, watch, |batch| {
        let mut at = data.end();
        let bytes = u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
        let full = room.is_some_and(|room| room < bytes);
        room = room.map(|room| if full { 0 } else { room.saturating_sub(bytes) });
        for page in &batch.pages {
            written.pages = written.pages.saturating_add(1);
            match page {
                Stored::Bytes(..) if full => {
                    written.pages = written.pages.saturating_sub(1);
                    written.cut_off = written.cut_off.saturating_add(1);
                    descs.add(&[0; 24], sink)?;
                }
                Stored::Zero => {
                    written.zero_pages = written.zero_pages.saturating_add(1);
                    descs.add(&zero, sink)?;
                }
                Stored::Bytes(len, codec) => {
                    let len = u64::try_from(*len).unwrap_or(0);
                    descs.add(&desc(at, len, *codec), sink)?;
                    at = at.saturating_add(len);
                }
                Stored::Unreadable(why) => {
                    written.pages = written.pages.saturating_sub(1);
                    written.unreadable = written.unreadable.saturating_add(1);
                    written.first_unreadable.get_or_insert_with(|| why.clone());
                    // An empty descriptor is how a writer says that a page is missing.
                    descs.add(&[0; 24], sink)?;
                }
            }
        }
        if full { Ok(()) } else { data.add_long(&batch.bytes, sink) }
    })?;
    descs.flush(sink)?;
    let erased_at = data.end();
    if let Some(erased) = &texts.erased {
        data.add(erased.as_bytes(), sink)?;
    }
    data.flush(sink)?;
    written.bytes = data.end();
    let incomplete = written.unreadable > 0 || written.cut_off > 0 || classes.lost > 0;
    headers(dump, &plan, texts, codec, options, &frames, erased_at, incomplete, sink)?;
    sink.finish(written.bytes).map_err(WriteError::at(written.bytes))?;
    Ok(written)
}

fn desc(at: u64, size: u64, codec: Codec) -> [u8; 24] {
    let mut bytes = [0; 24];
    let parts = at.to_le_bytes().into_iter();
    let size = u32::try_from(size).unwrap_or(0).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(parts.chain(size).chain(codec.flag().to_le_bytes())) {
        *to = from;
    }
    bytes
}

/// Both bitmaps. What is zero is left a hole where the sink has such.
fn bitmaps(plan: &Plan, classes: &Classes, sink: &mut dyn Sink) -> Result<(), WriteError> {
    let half = (plan.bitmap_blocks >> 1).saturating_mul(plan.page_size);
    let start = plan.sub_blocks.saturating_add(1).saturating_mul(plan.page_size);
    let holes = sink.has_holes();
    let mut one = |set: &Selection, at: u64| -> Result<(), WriteError> {
        let mut piece = vec![0; usize::try_from(plan.page_size).unwrap_or(4096)];
        let mut done = 0;
        while done < half {
            set.bitmap(done.saturating_mul(8), &mut piece);
            let here = at.saturating_add(done);
            if !holes || !pipeline::is_zero(&piece) {
                sink.put(here, &piece).map_err(WriteError::at(here))?;
            }
            done = done.saturating_add(plan.page_size);
        }
        Ok(())
    };
    one(&classes.ram, start)?;
    one(&classes.kept, start.saturating_add(half))
}

fn field(bytes: &mut [u8], at: usize, value: &[u8]) {
    let Some(rest) = bytes.get_mut(at..) else { return };
    for (to, from) in rest.iter_mut().zip(value) {
        *to = *from;
    }
}

/// The header, the sub header and the notes.
#[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
fn headers(
    dump: &Dump,
    plan: &Plan,
    texts: &Texts,
    codec: Codec,
    options: &Options,
    frames: &Range<u64>,
    erased_at: u64,
    incomplete: bool,
    sink: &mut dyn Sink,
) -> Result<(), WriteError> {
    let unfit = || WriteError::Unfit("its notes or bitmaps are too large for a kdump header".into());
    let small = |n: u64| i32::try_from(n).map_err(|_| unfit());
    let facts = dump.facts();
    let mut status = codec.flag();
    if incomplete {
        status |= COMPRESSED_INCOMPLETE;
    }
    if facts.excluded_vmemmap {
        status |= EXCLUDED_VMEMMAP;
    }
    let mut main = vec![0; usize::try_from(plan.page_size).unwrap_or(4096)];
    field(&mut main, 0, &KDUMP_SIGNATURE);
    field(&mut main, 8, &6_i32.to_le_bytes());
    let names = &texts.utsname;
    let machine = if names.machine.is_empty() { facts.arch.name() } else { &names.machine };
    let sysname = if names.sysname.is_empty() { "Linux" } else { &names.sysname };
    let all = [sysname, &names.nodename, &names.release, &names.version, machine, &names.domainname];
    for (name, at) in all.into_iter().zip((12_usize..).step_by(65)) {
        field(&mut main, at, name.as_bytes().get(..64).unwrap_or(name.as_bytes()));
    }
    field(&mut main, 408, &texts.time.0.to_le_bytes());
    field(&mut main, 416, &texts.time.1.to_le_bytes());
    field(&mut main, 424, &status.to_le_bytes());
    field(&mut main, 428, &small(plan.page_size)?.to_le_bytes());
    field(&mut main, 432, &small(plan.sub_blocks)?.to_le_bytes());
    field(&mut main, 436, &small(plan.bitmap_blocks)?.to_le_bytes());
    // Obsolete: the 64-bit number below counts.
    field(&mut main, 440, &u32::try_from(plan.end).unwrap_or(u32::MAX).to_le_bytes());
    field(&mut main, 460, &texts.cpus.to_le_bytes());
    sink.put(0, &main).map_err(WriteError::at(0))?;

    let len = plan.sub_blocks.saturating_mul(plan.page_size);
    let mut sub = vec![0; usize::try_from(len).map_err(|_| unfit())?];
    let notes_at = plan.page_size.saturating_add(104);
    let level = u32::from(options.level.number()) | facts.dump_level.unwrap_or(0);
    field(&mut sub, 0, &texts.phys_base.to_le_bytes());
    field(&mut sub, 8, &level.to_le_bytes());
    if options.part.is_some() {
        field(&mut sub, 12, &1_u32.to_le_bytes());
        field(&mut sub, 16, &frames.start.to_le_bytes());
        field(&mut sub, 24, &frames.end.to_le_bytes());
        field(&mut sub, 80, &frames.start.to_le_bytes());
        field(&mut sub, 88, &frames.end.to_le_bytes());
    }
    if let Some((at, len)) = texts.vmcoreinfo {
        field(&mut sub, 32, &notes_at.saturating_add(at).to_le_bytes());
        field(&mut sub, 40, &len.to_le_bytes());
    }
    if !texts.notes.is_empty() {
        field(&mut sub, 48, &notes_at.to_le_bytes());
        field(&mut sub, 56, &u64::try_from(texts.notes.len()).unwrap_or(0).to_le_bytes());
    }
    if let Some(erased) = texts.erased.as_ref().filter(|_| erased_at > 0) {
        field(&mut sub, 64, &erased_at.to_le_bytes());
        field(&mut sub, 72, &u64::try_from(erased.len()).unwrap_or(0).to_le_bytes());
    }
    field(&mut sub, 96, &plan.end.to_le_bytes());
    field(&mut sub, 104, &texts.notes);
    sink.put(plan.page_size, &sub).map_err(WriteError::at(plan.page_size))
}
