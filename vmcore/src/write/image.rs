//! An image: physical memory from its first byte on, each page at its address. It can't say of a page that it is missing.

use std::ops::Range;

use super::pipeline::{self, Stored};
use super::sink::Sink;
use super::{Options, WriteError, Written};
use crate::filter::Classes;
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};

pub(super) fn write(
    dump: &Dump,
    classes: &Classes,
    frames: Range<u64>,
    options: &Options,
    sink: &mut dyn Sink,
    watch: (&Cancel, &dyn Progress),
) -> Result<Written, WriteError> {
    if options.part.is_some() {
        return Err(WriteError::Unfit("an image of memory can't be split into a set".into()));
    }
    if !sink.has_holes() {
        return Err(WriteError::Unfit("an image of memory has no form as a stream".into()));
    }
    let size = dump.page_size();
    let too_large = || WriteError::Unfit("its memory ends behind what a file can hold".into());
    let len = frames.end.checked_mul(size).filter(|len| i64::try_from(*len).is_ok()).ok_or_else(too_large)?;
    let mut written = Written::default();
    pipeline::run(dump, classes.kept.runs(frames), Codec::Raw, true, options, watch, |batch| {
        let mut rest = batch.bytes.as_slice();
        for (pfn, page) in batch.runs.iter().cloned().flatten().zip(&batch.pages) {
            match page {
                Stored::Zero => written.zero_pages = written.zero_pages.saturating_add(1),
                Stored::Bytes(count, _) => {
                    let (now, later) = rest.split_at_checked(*count).unwrap_or((rest, &[]));
                    rest = later;
                    let at = pfn.saturating_mul(size);
                    sink.put(at, now).map_err(WriteError::at(at))?;
                }
                Stored::Unreadable(why) => {
                    written.unreadable = written.unreadable.saturating_add(1);
                    written.first_unreadable.get_or_insert_with(|| why.clone());
                    continue;
                }
            }
            written.pages = written.pages.saturating_add(1);
        }
        Ok(())
    })?;
    written.bytes = len;
    sink.finish(len).map_err(WriteError::at(len))?;
    Ok(written)
}
