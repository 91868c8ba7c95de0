//! Opening: from a path, or the paths of a split set, to a [`Dump`].

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bitmap::Frames;
use super::cache::PageCache;
use super::dump::Memory;
use super::elf::ElfMemory;
use super::kdump::{KdumpMemory, Part};
use super::segments::Segments;
use super::{Completeness, Dump, Facts};
use crate::error::{OpenError, OpenErrorKind};
use crate::format::detect::{Detected, HEAD_BYTES, detect};
use crate::format::diskdump::{self, KdumpHeader, Utsname};
use crate::format::{Arch, Codec, elf, notes, prstatus, qemu_cpu};
use crate::limits::Limits;
use crate::source::{Flattened, FlattenedError, MmapSource, ReadAt, open_file, read_vec};

/// How a dump is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The ceilings that the dump's counts and lengths meet.
    pub limits: Limits,
    /// Maps the files instead of reading them: faster, and only for local complete files, because a file that is cut
    /// while it is mapped ends the process.
    pub mmap: bool,
}

impl OpenOptions {
    /// With these ceilings.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With mapped files, or without.
    #[must_use]
    pub fn mmap(mut self, mmap: bool) -> Self {
        self.mmap = mmap;
        self
    }
}

/// One file, its wrapping taken off.
struct Unwrapped {
    path: PathBuf,
    /// What holds headers and pages.
    source: Arc<dyn ReadAt>,
    size: u64,
    flattened: bool,
    /// How and where a flattened stream was cut.
    cut: Option<(String, u64)>,
    kind: Detected,
}

impl Dump {
    /// Opens a dump: it is known by its content, whatever its name. Reads headers, notes and bitmaps, and no page.
    ///
    /// One part of a split set opens too; the frames of the others are lost.
    ///
    /// # Errors
    /// [`OpenError`]: what the file is, where it is no dump or can't be read at all. A file that was cut, or whose
    /// notes are damaged, opens; see [`Dump::completeness`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, OpenError> {
        let file = unwrap_file(path.as_ref(), options)?;
        assemble_one(file, options)
    }

    /// Opens a dump that is not a file of its own: bytes in memory, or inside something else. `name` stands for it in
    /// messages.
    ///
    /// # Errors
    /// As [`Dump::open`].
    pub fn from_source(
        source: Arc<dyn ReadAt>,
        name: impl Into<PathBuf>,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        assemble_one(unwrap(source, name.into(), options)?, options)
    }

    /// Opens the parts of a split set, named in any order. Parts that are not named leave their frames lost; a part
    /// that is named twice is used once.
    ///
    /// # Errors
    /// As [`Dump::open`], of the first file that can't be used; [`OpenErrorKind::NotOfSet`] for one that belongs to
    /// another dump.
    pub fn open_set<P: AsRef<Path>>(paths: &[P], options: &OpenOptions) -> Result<Self, OpenError> {
        if let [path] = paths {
            return Self::open(path, options);
        }
        let files =
            paths.iter().map(|path| unwrap_file(path.as_ref(), options)).collect::<Result<Vec<_>, _>>()?;
        assemble_set(files, options)
    }
}

fn unwrap_file(path: &Path, options: &OpenOptions) -> Result<Unwrapped, OpenError> {
    let file = open_file(path)?;
    tracing::info!("{}: {} bytes", path.display(), file.len());
    let source: Arc<dyn ReadAt> = if options.mmap {
        Arc::new(MmapSource::new(&file).map_err(|e| OpenError::new(path, e))?)
    } else {
        Arc::new(file)
    };
    unwrap(source, path.into(), options)
}

fn unwrap(source: Arc<dyn ReadAt>, path: PathBuf, options: &OpenOptions) -> Result<Unwrapped, OpenError> {
    let head = |source: &dyn ReadAt| {
        read_vec(source, 0, HEAD_BYTES.try_into().unwrap_or(u64::MAX)).map_err(|e| OpenError::new(&path, e))
    };
    let size = source.len();
    if size == 0 {
        return Err(OpenError::new(path, OpenErrorKind::Empty));
    }
    let kind = detect(&head(&*source)?);
    if kind != Detected::Flattened {
        return Ok(Unwrapped { path, source, size, flattened: false, cut: None, kind });
    }
    let damaged = |why: &str| OpenErrorKind::Damaged { what: "a flattened dump", why: why.into(), at: size };
    let flat = Flattened::index(source, &options.limits).map_err(|e| {
        let kind = match e {
            FlattenedError::Io(e) => e.into(),
            FlattenedError::TooManyRecords(_) => OpenErrorKind::Unsupported {
                what: format!("a flattened dump that {e}"),
                hint: "rearrange it with «makedumpfile -R», and open that".into(),
            },
            FlattenedError::NoRecord | FlattenedError::NotFlattened => {
                damaged("it ends before its first record")
            }
        };
        OpenError::new(&path, kind)
    })?;
    let cut = flat.cut().map(|cut| (format!("the flattened stream {cut}"), size));
    let source: Arc<dyn ReadAt> = Arc::new(flat);
    let inner = head(&*source)?;
    if inner.is_empty() {
        return Err(OpenError::new(path, damaged("the header of the dump in it never arrived")));
    }
    let kind = match detect(&inner) {
        Detected::Foreign(mut foreign) => {
            foreign.what = format!("a flattened stream that holds {}", foreign.what);
            return Err(OpenError::new(path, foreign));
        }
        Detected::Flattened => {
            return Err(OpenError::new(path, damaged("it holds another flattened stream")));
        }
        kind => kind,
    };
    Ok(Unwrapped { path, source, size, flattened: true, cut, kind })
}

fn assemble_one(file: Unwrapped, options: &OpenOptions) -> Result<Dump, OpenError> {
    let path = file.path.clone();
    let fail = |kind| OpenError::new(path, kind);
    match file.kind.clone() {
        Detected::Foreign(foreign) => Err(fail(foreign.into())),
        Detected::ElfCore => assemble_elf(file, options).map_err(fail),
        _ => {
            let header = diskdump::read(&*file.source, &options.limits);
            header.and_then(|header| assemble_kdump(vec![(file, header)], Vec::new(), options)).map_err(fail)
        }
    }
}

fn assemble_set(files: Vec<Unwrapped>, options: &OpenOptions) -> Result<Dump, OpenError> {
    let mut members: Vec<(Unwrapped, KdumpHeader)> = Vec::new();
    let mut repairs = Vec::new();
    for file in files {
        let path = file.path.clone();
        let fail = |kind| OpenError::new(path, kind);
        let header = match &file.kind {
            Detected::Foreign(foreign) => return Err(fail(foreign.clone().into())),
            Detected::Kdump => diskdump::read(&*file.source, &options.limits).map_err(fail)?,
            _ => return Err(fail(not_a_part("an ELF vmcore"))),
        };
        let Some(range) = header.part.clone() else {
            return Err(OpenError::new(file.path, not_a_part("a whole kdump-compressed dump")));
        };
        let mut given_before = false;
        for (other, other_header) in &members {
            let of_set = |why: String| {
                let kind = OpenErrorKind::NotOfSet { first: other.path.clone(), why };
                OpenError::new(&file.path, kind)
            };
            if let Some(why) = header.differs_from(other_header) {
                return Err(of_set(why));
            }
            let theirs = other_header.part.clone().unwrap_or_default();
            // makedumpfile splits by blocks of 1 GB: parts of a small machine have no frames at all.
            if theirs == range && !range.is_empty() {
                repairs.push(format!(
                    "{} has the same frames as {} and is not used",
                    file.path.display(),
                    other.path.display()
                ));
                given_before = true;
                break;
            }
            if range.start.max(theirs.start) < range.end.min(theirs.end) {
                return Err(of_set(format!(
                    "it has the frames {:#x} to {:#x}, and the other one {:#x} to {:#x}",
                    range.start, range.end, theirs.start, theirs.end
                )));
            }
        }
        if !given_before {
            members.push((file, header));
        }
    }
    let path = members.first().map(|(file, _)| file.path.clone()).unwrap_or_default();
    assemble_kdump(members, repairs, options).map_err(|kind| OpenError::new(path, kind))
}

fn not_a_part(what: &str) -> OpenErrorKind {
    OpenErrorKind::Unsupported {
        what: format!("{what}, and not a part of a split set"),
        hint: "name it alone; only the parts of one split set are named together".into(),
    }
}

fn assemble_elf(file: Unwrapped, options: &OpenOptions) -> Result<Dump, OpenErrorKind> {
    let limits = &options.limits;
    let core = elf::read(&*file.source, limits)?;
    let mut repairs: Vec<String> = file.cut.iter().map(|(cut, _)| cut.clone()).collect();
    repairs.extend(core.repairs);
    let mut infos = core.notes.iter().filter(|note| note.name == "VMCOREINFO" && !note.desc.is_empty());
    let vmcoreinfo = infos.next().map(|note| note.desc.clone());
    if infos.any(|note| Some(&note.desc) != vmcoreinfo.as_ref()) {
        repairs.push("there is more than one VMCOREINFO note; the first was taken".into());
    }
    let page_size = vmcoreinfo.as_deref().and_then(page_size_of).unwrap_or_else(|| {
        let usual = core.arch.usual_page_size();
        if core.arch != Arch::X86_64 {
            repairs.push(format!("nothing tells the page size; {usual}, usual on {}, was taken", core.arch));
        }
        usual
    });
    let segments = Segments::new(&core.segments, &*file.source, limits.segments);
    if segments.rough {
        repairs
            .push("the stream has too many holes to count; more pages may be lost than are counted".into());
    }
    let tally = segments.tally(page_size);
    let len = file.source.len();
    let past_end = core.lost_headers > 0
        || core.segments.iter().any(|s| s.file_size > 0 && s.offset.saturating_add(s.file_size) > len);
    let completeness = Completeness {
        announced_pages: tally.present.saturating_add(tally.excluded).saturating_add(tally.lost),
        present_pages: tally.present,
        excluded_pages: tally.excluded,
        lost_pages: tally.lost,
        misplaced_pages: 0,
        incomplete_flag: core.incomplete,
        truncated_at: file.cut.as_ref().map(|(_, at)| *at).or_else(|| past_end.then_some(len)),
        repairs,
    };
    let facts = Facts {
        format: "elf",
        containers: if file.flattened { vec!["flattened", "elf"] } else { vec!["elf"] },
        codecs: vec![Codec::Raw],
        size_bytes: file.size,
        arch: core.arch,
        page_size,
        dump_level: None,
        header_version: None,
        utsname: None,
        timestamp: None,
        nr_cpus: None,
        phys_base: None,
        parts: Vec::new(),
        erase_info: core
            .notes
            .iter()
            .find(|note| note.name == "ERASEINFO")
            .map(|note| String::from_utf8_lossy(&note.desc).trim_end_matches('\0').to_owned()),
        excluded_vmemmap: false,
    };
    let memory = Memory::Elf(ElfMemory { source: file.source, segments, page_size });
    let paths = vec![file.path];
    Ok(finish(paths, facts, completeness, core.notes, vmcoreinfo, core.segments, memory, limits))
}

/// What the files of one kdump-compressed dump say together.
struct Gathered {
    header: KdumpHeader,
    frames: Frames,
    paths: Vec<PathBuf>,
    parts: Vec<Part>,
    ranges: Vec<Range<u64>>,
    incomplete: bool,
    flattened: bool,
    cut_at: Option<u64>,
    size: u64,
    repairs: Vec<String>,
}

fn gather(
    members: Vec<(Unwrapped, KdumpHeader)>,
    mut repairs: Vec<String>,
) -> Result<Gathered, OpenErrorKind> {
    let several = members.len() > 1;
    let mut all: Option<Gathered> = None;
    for (file, mut header) in members {
        let mut said: Vec<String> = file.cut.iter().map(|(cut, _)| cut.clone()).collect();
        said.append(&mut header.repairs);
        repairs.extend(
            said.into_iter().map(|s| if several { format!("{}: {s}", file.path.display()) } else { s }),
        );
        let cut_at = file.cut.map(|(_, at)| at);
        // Every part has the whole bitmaps: the least damaged are taken.
        let frames = if all.as_ref().is_none_or(|all| all.frames.unknown > 0) {
            let places = (header.ram_bitmap_at, header.stored_bitmap_at);
            Some(Frames::index(&file.source, places, header.end_pfn.0, header.bitmap_frames)?)
        } else {
            None
        };
        let range = header.part.clone();
        let whole = 0..header.end_pfn.0;
        let part =
            Part::new(file.path.clone(), file.source, range.clone().unwrap_or(whole), header.descriptors_at);
        match (&mut all, frames) {
            (None, Some(frames)) => {
                all = Some(Gathered {
                    incomplete: header.incomplete,
                    header,
                    frames,
                    paths: vec![file.path],
                    parts: vec![part],
                    ranges: range.into_iter().collect(),
                    flattened: file.flattened,
                    cut_at,
                    size: file.size,
                    repairs: Vec::new(),
                });
            }
            (Some(all), frames) => {
                if let Some(frames) = frames.filter(|frames| frames.unknown < all.frames.unknown) {
                    all.frames = frames;
                }
                if all.header.notes.is_empty() {
                    all.header.notes = header.notes;
                }
                all.header.vmcoreinfo = all.header.vmcoreinfo.take().or(header.vmcoreinfo);
                all.incomplete |= header.incomplete;
                all.flattened |= file.flattened;
                all.paths.push(file.path);
                all.parts.push(part);
                all.ranges.extend(range);
                all.cut_at = all.cut_at.or(cut_at);
                all.size = all.size.saturating_add(file.size);
            }
            (None, None) => {}
        }
    }
    let Some(mut all) = all else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no file was named").into());
    };
    all.ranges.sort_by_key(|range| range.start);
    all.repairs = repairs;
    Ok(all)
}

fn assemble_kdump(
    members: Vec<(Unwrapped, KdumpHeader)>,
    repairs: Vec<String>,
    options: &OpenOptions,
) -> Result<Dump, OpenErrorKind> {
    let Gathered { header, frames, paths, parts, ranges, incomplete, flattened, cut_at, size, mut repairs } =
        gather(members, repairs)?;
    let arch = header.arch(&mut repairs);
    let by_note = || header.notes.iter().find(|note| note.name == "VMCOREINFO" && !note.desc.is_empty());
    let vmcoreinfo = header.vmcoreinfo.clone().or_else(|| by_note().map(|note| note.desc.clone()));
    let unknown = frames.unknown;
    let suspect = incomplete || cut_at.is_some();
    let level = header.dump_level.unwrap_or(0);
    let (memory, survey) =
        KdumpMemory::new(frames, parts, header.page_size, header.end_pfn.0, level, suspect)?;
    if let [only] = &ranges[..] {
        repairs.push(format!(
            "this is one part of a split set, with the frames {:#x} to {:#x}; the stored frames outside are lost",
            only.start, only.end
        ));
    }
    if survey.nonsense > 0 {
        repairs.push(format!("{} page descriptors make no sense; their pages are corrupt", survey.nonsense));
    }
    repairs.extend(survey.miscounts);
    if unknown > 0 {
        repairs.push(format!(
            "the bitmaps are cut; of {unknown} frames it is not known whether they are RAM or stored"
        ));
    }
    let mut codecs = survey.codecs;
    codecs.extend(header.codec);
    if codecs.len() > 1 {
        // Pages that do not shrink, and zero pages, are stored as they are with any codec.
        codecs.remove(&Codec::Raw);
    }
    let excluded = memory.excluded();
    let completeness = Completeness {
        announced_pages: survey.present.saturating_add(excluded).saturating_add(survey.lost),
        present_pages: survey.present,
        excluded_pages: excluded,
        lost_pages: survey.lost,
        misplaced_pages: survey.misplaced,
        incomplete_flag: incomplete,
        truncated_at: cut_at.or(survey.past_end),
        repairs,
    };
    let wrappings = [(flattened, "flattened"), (!ranges.is_empty(), "split"), (true, "kdump")];
    let facts = Facts {
        format: "kdump-compressed",
        containers: wrappings.into_iter().filter_map(|(there, name)| there.then_some(name)).collect(),
        codecs: codecs.into_iter().collect(),
        size_bytes: size,
        arch,
        page_size: header.page_size,
        dump_level: header.dump_level,
        header_version: u32::try_from(header.header_version).ok(),
        utsname: Some(header.utsname).filter(|names| *names != Utsname::default()),
        timestamp: header.timestamp,
        nr_cpus: header.nr_cpus,
        phys_base: Some(header.phys_base),
        parts: ranges,
        erase_info: header.erase_info,
        excluded_vmemmap: header.excluded_vmemmap,
    };
    let memory = Memory::Kdump(Box::new(memory));
    Ok(finish(paths, facts, completeness, header.notes, vmcoreinfo, Vec::new(), memory, &options.limits))
}

#[expect(clippy::too_many_arguments, reason = "the pieces of a dump, put together in one place")]
fn finish(
    paths: Vec<PathBuf>,
    facts: Facts,
    mut completeness: Completeness,
    notes: Vec<notes::Note>,
    vmcoreinfo: Option<Vec<u8>>,
    segments: Vec<elf::LoadSegment>,
    memory: Memory,
    limits: &Limits,
) -> Dump {
    let (prstatus, mut said) = prstatus::from_notes(&notes, &facts.arch, limits.cpus);
    completeness.repairs.append(&mut said);
    let (qemu_cpus, mut said) = qemu_cpu::from_notes(&notes, &facts.arch, limits.cpus);
    completeness.repairs.append(&mut said);
    let cache = PageCache::new(limits.page_cache_bytes, facts.page_size);
    Dump { paths, facts, completeness, notes, vmcoreinfo, prstatus, qemu_cpus, segments, memory, cache }
}

/// `PAGESIZE=` of a VMCOREINFO text.
fn page_size_of(text: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"PAGESIZE="))?;
    let size: u64 = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    (size.is_power_of_two() && (4096..=1 << 18).contains(&size)).then_some(size)
}
