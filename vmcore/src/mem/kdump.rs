//! Memory of a kdump-compressed dump: one file, or the parts of a split set.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::bitmap::{Frame, Frames};
use super::cache::PageCache;
use super::sweep::Place;
use super::{PageState, lost_or_io};
use crate::addr::Pfn;
use crate::error::PageError;
use crate::format::{Codec, decode};
use crate::raw::diskdump::PageDesc;
use crate::source::{NotArrived, ReadAt, read_as_far, read_exact_at};

const DESC: u64 = 24;
/// Descriptors that are read and kept together: just under 4 KiB of them.
const BATCH: u64 = 170;
/// Descriptors that are read at once when all are looked at.
const SURVEY_BATCH: u64 = 16 << 10;

/// One file with page descriptors and pages.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<dyn ReadAt>,
    /// The frames whose pages it has, of those that are stored.
    pub(crate) frames: Range<u64>,
    pub(crate) descriptors_at: u64,
    /// Stored frames before its first; `None` where the bitmap does not tell.
    first_rank: Option<u64>,
    /// Page descriptors that it has.
    count: u64,
}

/// Memory of a kdump-compressed dump.
pub(crate) struct KdumpMemory {
    frames: Frames,
    parts: Vec<Part>,
    page_size: u64,
    end: u64,
    level: u32,
    /// No page is lost, so that a descriptor need not be read to know it.
    sound: bool,
    descriptors: PageCache,
}

/// What looking at the page descriptors showed.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Stored pages whose bytes are in the files.
    pub(crate) present: u64,
    /// Stored pages whose bytes are not, and frames of which the bitmaps' cut hides what they are.
    pub(crate) lost: u64,
    /// Codecs that descriptors name; all of them only where every descriptor was looked at.
    pub(crate) codecs: BTreeSet<Codec>,
    /// The file that ends first before something that it should hold.
    pub(crate) past_end: Option<u64>,
    /// Page descriptors that make no sense.
    pub(crate) nonsense: u64,
    /// Stored pages of files whose bitmap is not the one that their page descriptors were written for.
    pub(crate) misplaced: u64,
    /// One sentence for each such file.
    pub(crate) miscounts: Vec<String>,
}

/// What the page descriptors that were looked at say of where pages lie.
#[derive(Clone, Copy)]
struct Extent {
    /// Where the first page begins; nothing is checked of it but that it is behind the first descriptor.
    lowest: u64,
    /// Where the last page ends.
    highest: u64,
}

impl Extent {
    const NONE: Self = Self { lowest: u64::MAX, highest: 0 };

    fn join(self, other: Self) -> Self {
        Self { lowest: self.lowest.min(other.lowest), highest: self.highest.max(other.highest) }
    }
}

/// A page descriptor, and where.
struct Located<'a> {
    index: usize,
    part: &'a Part,
    desc: PageDesc,
    at: u64,
}

/// Why a descriptor leads to no page.
enum Fault {
    Lost(String),
    Corrupt(String),
}

thread_local! {
    /// A page's stored bytes on their way to the codec.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Part {
    pub(crate) fn new(
        path: PathBuf,
        source: Arc<dyn ReadAt>,
        frames: Range<u64>,
        descriptors_at: u64,
    ) -> Self {
        Self { path, source, frames, descriptors_at, first_rank: None, count: 0 }
    }

    fn data_at(&self) -> u64 {
        self.count.saturating_mul(DESC).saturating_add(self.descriptors_at)
    }

    /// True where there is a descriptor of this number that could lead to a page behind the descriptors.
    fn is_descriptor(&self, number: u64, page_size: u64, extent: Extent) -> io::Result<bool> {
        let at = number.saturating_mul(DESC).saturating_add(self.descriptors_at);
        let mut one = [0; 24];
        let got = read_as_far(&*self.source, at, &mut one)?;
        let desc: PageDesc = zerocopy::transmute!(one);
        let most = self.source.len().max(extent.highest);
        Ok(got == one.len()
            && has_page_shape(&desc, page_size)
            && (extent.lowest..=most).contains(&desc.offset.get()))
    }

    /// How many descriptors the file has, where that is not how many its bitmap names. Writers put the first page right
    /// behind the last descriptor, or a page of zeros before it that no other needs to share.
    fn miscount(&self, page_size: u64, extent: Extent) -> io::Result<Option<u64>> {
        let first = extent.lowest.saturating_sub(self.descriptors_at);
        for bytes in [first, first.saturating_sub(page_size)] {
            if bytes == 0 || extent.lowest == u64::MAX || !bytes.is_multiple_of(DESC) {
                continue;
            }
            let there = bytes.checked_div(DESC).unwrap_or(0);
            // The count is that of the descriptors themselves where the last is one, and what follows it is none.
            let agrees = there == self.count
                || !self.is_descriptor(there.saturating_sub(1), page_size, extent)?
                || self.is_descriptor(there, page_size, extent)?;
            return Ok((!agrees).then_some(there));
        }
        Ok(None)
    }

    fn check(&self, desc: &PageDesc, at: u64, page_size: u64) -> Result<Codec, Fault> {
        let (offset, size) = (desc.offset.get(), desc.size.get());
        if offset == 0 {
            return Err(Fault::Lost(format!(
                "its descriptor at file offset {at:#x} is empty, the writer stopped before it"
            )));
        }
        if size == 0 || u64::from(size) > page_size {
            return Err(Fault::Corrupt(format!(
                "its descriptor at file offset {at:#x} gives it {size} bytes in a dump of {page_size}-byte pages"
            )));
        }
        let Some(codec) = Codec::from_flags(desc.flags.get()) else {
            return Err(Fault::Corrupt(format!(
                "its descriptor at file offset {at:#x} names no codec that is known (flags {:#x})",
                desc.flags.get()
            )));
        };
        if offset < self.data_at() || i64::try_from(offset).is_err() {
            return Err(Fault::Corrupt(format!(
                "its descriptor at file offset {at:#x} points where no page can be"
            )));
        }
        let end = offset.saturating_add(size.into());
        let len = self.source.len();
        if end > len {
            return Err(Fault::Lost(format!(
                "it should be at file offset {offset:#x}, but the file ends at {len:#x}"
            )));
        }
        let gaps = self.source.gaps();
        if gaps.get(gaps.partition_point(|gap| gap.end <= offset)).is_some_and(|gap| gap.start < end) {
            return Err(Fault::Lost(format!(
                "it should be at file offset {offset:#x}, and the stream was cut before that arrived"
            )));
        }
        Ok(codec)
    }
}

/// True where the descriptor has the length and the codec of a page.
fn has_page_shape(desc: &PageDesc, page_size: u64) -> bool {
    let size = u64::from(desc.size.get());
    size > 0 && size <= page_size && Codec::from_flags(desc.flags.get()).is_some()
}

impl KdumpMemory {
    /// Takes the bitmaps and the parts, which do not overlap; `suspect` says that pages may be lost. Looks at the page
    /// descriptors: at all of them if there are few or something is wrong, otherwise at the first and the last.
    pub(crate) fn new(
        frames: Frames,
        mut parts: Vec<Part>,
        page_size: u64,
        end: u64,
        level: u32,
        suspect: bool,
    ) -> io::Result<(Self, Survey)> {
        parts.sort_by_key(|part| (part.frames.start, part.frames.end));
        let known = frames.known();
        for part in &mut parts {
            part.first_rank = frames.rank(part.frames.start.min(end));
            let last = frames.rank(part.frames.end.min(known));
            part.count = match (part.first_rank, last) {
                (Some(first), Some(last)) => last.saturating_sub(first),
                _ => 0,
            };
        }
        let mut survey = Survey { lost: frames.unknown, ..Survey::default() };
        let mut given = 0u64;
        for part in &parts {
            given = given.saturating_add(part.count);
            look(part, page_size, suspect || frames.unknown > 0, &mut survey)?;
        }
        // The stored frames of parts that were not given.
        survey.lost = survey.lost.saturating_add(frames.stored().saturating_sub(given));
        let sound = survey.lost == 0;
        let descriptors = PageCache::new(1 << 20, 4096);
        Ok((Self { frames, parts, page_size, end, level, sound, descriptors }, survey))
    }

    pub(crate) fn excluded(&self) -> u64 {
        self.frames.excluded
    }

    pub(crate) fn end_pfn(&self) -> Pfn {
        Pfn(self.end)
    }

    pub(crate) fn next(&self, pfn: Pfn) -> Option<Pfn> {
        self.frames.next(pfn.0).map(Pfn)
    }

    /// The first frame from `pfn` on that has a descriptor.
    pub(crate) fn next_stored(&self, pfn: Pfn) -> Option<Pfn> {
        self.frames.next_stored(pfn.0).map(Pfn)
    }

    pub(crate) fn state(&self, pfn: Pfn) -> PageState {
        match self.frames.frame(pfn.0) {
            Frame::Hole => PageState::Hole,
            Frame::Excluded => PageState::Excluded,
            Frame::Unknown => PageState::Lost,
            Frame::Stored(_) if self.sound => PageState::Present,
            Frame::Stored(rank) => match self.locate(pfn, rank) {
                Err(_) => PageState::Lost,
                Ok(found) => match found.part.check(&found.desc, found.at, self.page_size) {
                    Err(Fault::Lost(_)) => PageState::Lost,
                    _ => PageState::Present,
                },
            },
        }
    }

    /// Where the stored bytes of a frame are, and how they are stored.
    pub(crate) fn place(&self, pfn: Pfn) -> Result<Place, PageError> {
        let (found, codec) = self.find(pfn)?;
        let (offset, size) = (found.desc.offset.get(), found.desc.size.get());
        Ok(Place { file: found.index, offset, size: size.into(), codec })
    }

    /// The file of a [`Place`].
    pub(crate) fn file(&self, index: usize) -> Option<&dyn ReadAt> {
        self.parts.get(index).map(|part| &*part.source)
    }

    /// The frames among which the bitmaps' cut hides what some are, and how many of them.
    pub(crate) fn unknown(&self) -> Option<(Range<u64>, u64)> {
        let unknown = self.frames.unknown;
        (unknown > 0).then(|| (self.frames.known().min(self.end)..self.end, unknown))
    }

    /// The descriptor of a frame, which leads to bytes that the file has.
    fn find(&self, pfn: Pfn) -> Result<(Located<'_>, Codec), PageError> {
        let rank = match self.frames.frame(pfn.0) {
            Frame::Hole => return Err(PageError::Hole { pfn }),
            Frame::Excluded => return Err(PageError::Excluded { pfn, level: self.level }),
            Frame::Unknown => {
                let why = "the file ends inside the bitmap that would lead to it".into();
                return Err(PageError::Lost { pfn, why });
            }
            Frame::Stored(rank) => rank,
        };
        let found = self.locate(pfn, rank)?;
        let codec = found.part.check(&found.desc, found.at, self.page_size).map_err(|fault| match fault {
            Fault::Lost(why) => PageError::Lost { pfn, why: self.in_part(why, found.part) },
            Fault::Corrupt(why) => {
                PageError::Corrupt { pfn, at: found.at, why: self.in_part(why, found.part) }
            }
        })?;
        Ok((found, codec))
    }

    /// Fills `page`, which is as long as a page, from the file.
    pub(crate) fn read_frame(&self, pfn: Pfn, page: &mut [u8]) -> Result<(), PageError> {
        let (Located { part, desc, .. }, codec) = self.find(pfn)?;
        let offset = desc.offset.get();
        let io = |e| lost_or_io(pfn, offset, e, part.source.len());
        let corrupt = |why| PageError::Corrupt { pfn, at: offset, why: self.in_part(why, part) };
        let size = usize::try_from(desc.size.get()).unwrap_or(usize::MAX);
        if codec == Codec::Raw {
            return if size == page.len() {
                read_exact_at(&*part.source, offset, page).map_err(io)
            } else {
                Err(corrupt(format!(
                    "it is stored as it is, in {size} bytes and not a page of {}",
                    page.len()
                )))
            };
        }
        STORED.with_borrow_mut(|stored| {
            stored.resize(size, 0);
            read_exact_at(&*part.source, offset, stored).map_err(io)?;
            decode(codec, stored, page).map_err(corrupt)
        })
    }

    /// Adds the bytes that hold a frame to `out`, and says how they are stored.
    pub(crate) fn read_stored(&self, pfn: Pfn, out: &mut Vec<u8>) -> Result<Codec, PageError> {
        let (Located { part, desc, .. }, codec) = self.find(pfn)?;
        let (offset, start) = (desc.offset.get(), out.len());
        let size = usize::try_from(desc.size.get()).unwrap_or(usize::MAX);
        // No larger than a page: the descriptor was checked.
        out.resize(start.saturating_add(size), 0);
        let to = out.get_mut(start..).unwrap_or_default();
        read_exact_at(&*part.source, offset, to)
            .map_err(|e| lost_or_io(pfn, offset, e, part.source.len()))?;
        Ok(codec)
    }

    /// Decodes what [`Self::read_stored`] gave of a frame.
    pub(crate) fn decode_stored(
        &self,
        pfn: Pfn,
        codec: Codec,
        stored: &[u8],
        page: &mut [u8],
    ) -> Result<(), PageError> {
        decode(codec, stored, page).map_err(|why| match self.find(pfn) {
            Ok((found, _)) => {
                let why = self.in_part(why, found.part);
                PageError::Corrupt { pfn, at: found.desc.offset.get(), why }
            }
            Err(why) => why,
        })
    }

    /// Names the file, where there are several.
    fn in_part(&self, why: String, part: &Part) -> String {
        if self.parts.len() > 1 { format!("{why} (in {})", part.path.display()) } else { why }
    }

    /// Finds the descriptor of the stored frame `pfn`, before which `rank` frames are stored.
    fn locate(&self, pfn: Pfn, rank: u64) -> Result<Located<'_>, PageError> {
        let lost = |why: String| PageError::Lost { pfn, why };
        let index = self.parts.partition_point(|part| part.frames.end <= pfn.0);
        let Some(part) = self.parts.get(index).filter(|part| part.frames.start <= pfn.0) else {
            return Err(lost("the part of the split set that has it was not given".into()));
        };
        let Some(number) = part.first_rank.and_then(|first| rank.checked_sub(first)) else {
            return Err(lost("the file ends inside the bitmap that would lead to it".into()));
        };
        let at = number.saturating_mul(DESC).saturating_add(part.descriptors_at);
        let batch = number.checked_div(BATCH).unwrap_or(0);
        // Parts are few, batches below 2^40: the key does not collide.
        let key = u64::try_from(index).unwrap_or(0).wrapping_shl(40) | batch;
        let bytes = if let Some(bytes) = self.descriptors.get(key) {
            bytes
        } else {
            let first = batch.saturating_mul(BATCH);
            let count = BATCH.min(part.count.saturating_sub(first));
            let start = first.saturating_mul(DESC).saturating_add(part.descriptors_at);
            let mut bytes = vec![0; usize::try_from(count.saturating_mul(DESC)).unwrap_or(0)];
            let got = read_as_far(&*part.source, start, &mut bytes)
                .map_err(|e| lost_or_io(pfn, start, e, part.source.len()))?;
            if got < bytes.len() {
                // Behind a gap of a cut stream more may have arrived: this one is read on its own.
                let mut one = [0; 24];
                return match read_exact_at(&*part.source, at, &mut one) {
                    Ok(()) => Ok(Located { index, part, desc: zerocopy::transmute!(one), at }),
                    Err(e) if NotArrived::find(&e).is_some() => Err(lost(
                        self.in_part(format!("its descriptor, at file offset {at:#x}, never arrived"), part),
                    )),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(lost(self.in_part(
                        format!(
                            "its descriptor should be at file offset {at:#x}, but the file ends at {:#x}",
                            part.source.len()
                        ),
                        part,
                    ))),
                    Err(source) => Err(PageError::Io { pfn, at, source }),
                };
            }
            let bytes: Arc<[u8]> = bytes.into();
            self.descriptors.insert(key, Arc::clone(&bytes));
            bytes
        };
        let within = number.saturating_sub(batch.saturating_mul(BATCH)).saturating_mul(DESC);
        let desc = usize::try_from(within)
            .ok()
            .and_then(|within| PageDesc::read_from_prefix(bytes.get(within..)?).ok())
            .ok_or_else(|| lost(format!("it has no descriptor at file offset {at:#x}")))?;
        Ok(Located { index, part, desc: desc.0, at })
    }
}

/// Looks at a part's descriptors and adds to the survey.
fn look(part: &Part, page_size: u64, suspect: bool, survey: &mut Survey) -> io::Result<()> {
    let len = part.source.len();
    let all = suspect || part.count <= SURVEY_BATCH || part.data_at() > len || !part.source.gaps().is_empty();
    let extent = if all { None } else { look_at_both_ends(part, page_size, survey)? };
    let extent = if let Some(extent) = extent {
        extent
    } else {
        let (mut start, mut extent) = (0, Extent::NONE);
        while start < part.count {
            let end = start.saturating_add(SURVEY_BATCH).min(part.count);
            extent = extent.join(look_at(part, page_size, start..end, survey)?);
            start = end;
        }
        extent
    };
    if let Some(there) = part.miscount(page_size, extent)? {
        survey.misplaced = survey.misplaced.saturating_add(part.count);
        survey.miscounts.push(format!(
            "the bitmap names {} pages, and {there} page descriptors are there: behind the damage in the bitmap each page is \
             taken for that of another frame",
            part.count
        ));
    }
    Ok(())
}

/// Looks at a part's first and last descriptors, which are enough where nothing is wrong with them.
fn look_at_both_ends(part: &Part, page_size: u64, survey: &mut Survey) -> io::Result<Option<Extent>> {
    // The last pages lie at the end of the file: where those are whole, nothing was cut. Zero pages all share the first
    // page's place, and say nothing of the end.
    let mut tail = Survey::default();
    let mut end = part.count;
    let mut extent = Extent::NONE;
    while end > 0 && extent.highest <= part.data_at().saturating_add(page_size) {
        let start = end.saturating_sub(SURVEY_BATCH);
        extent = extent.join(look_at(part, page_size, start..end, &mut tail)?);
        end = start;
    }
    extent = extent.join(look_at(part, page_size, 0..BATCH.min(part.count), &mut tail)?);
    // One more than there should be: the first page is looked for among all.
    let more = part.is_descriptor(part.count, page_size, extent)?;
    if tail.lost > 0 || tail.nonsense > 0 || more {
        return Ok(None);
    }
    survey.present = survey.present.saturating_add(part.count);
    survey.codecs.append(&mut tail.codecs);
    Ok(Some(extent))
}

/// Looks at some of a part's descriptors; gives what they say of where pages lie.
fn look_at(part: &Part, page_size: u64, which: Range<u64>, survey: &mut Survey) -> io::Result<Extent> {
    let len = part.source.len();
    let mut extent = Extent::NONE;
    let mut bytes = Vec::new();
    let mut start = which.start;
    while start < which.end {
        let at = start.saturating_mul(DESC).saturating_add(part.descriptors_at);
        let want = which.end.saturating_sub(start);
        bytes.resize(usize::try_from(want.saturating_mul(DESC)).unwrap_or(0), 0);
        let got = read_as_far(&*part.source, at, &mut bytes)?;
        let (descs, _) = bytes.get(..got).unwrap_or_default().as_chunks::<24>();
        for (desc, number) in descs.iter().zip(start..) {
            let desc: PageDesc = zerocopy::transmute!(*desc);
            let at = number.saturating_mul(DESC).saturating_add(part.descriptors_at);
            let end = desc.offset.get().saturating_add(desc.size.get().into());
            if has_page_shape(&desc, page_size) && desc.offset.get() > part.descriptors_at {
                extent.lowest = extent.lowest.min(desc.offset.get());
            }
            match part.check(&desc, at, page_size) {
                Ok(codec) => {
                    survey.codecs.insert(codec);
                    survey.present = survey.present.saturating_add(1);
                    extent.highest = extent.highest.max(end);
                }
                Err(Fault::Lost(_)) => {
                    survey.lost = survey.lost.saturating_add(1);
                    if desc.offset.get() != 0 && end > len {
                        survey.past_end = Some(survey.past_end.map_or(len, |other| other.min(len)));
                    }
                }
                Err(Fault::Corrupt(_)) => {
                    survey.present = survey.present.saturating_add(1);
                    survey.nonsense = survey.nonsense.saturating_add(1);
                }
            }
        }
        let seen = u64::try_from(descs.len()).unwrap_or(0);
        start = start.saturating_add(seen);
        if seen < want {
            // Cut here. A gap of a stream ends somewhere: go on behind it.
            let here = start.saturating_mul(DESC).saturating_add(part.descriptors_at);
            let gaps = part.source.gaps();
            let gap = gaps.get(gaps.partition_point(|gap| gap.end <= here));
            let resume =
                if let Some(gap) = gap.filter(|gap| gap.end < len && gap.start < here.saturating_add(DESC)) {
                    gap.end.saturating_sub(part.descriptors_at).div_ceil(DESC).max(start.saturating_add(1))
                } else {
                    survey.past_end = Some(survey.past_end.map_or(len, |other| other.min(len)));
                    which.end
                };
            let resume = resume.min(which.end);
            survey.lost = survey.lost.saturating_add(resume.saturating_sub(start));
            start = resume;
        }
    }
    Ok(extent)
}
