//! A file with debuginfo: its sections, by name and one at a time.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use object::elf::{self, FileHeader64};
use object::endian::LittleEndian as ElfLittle;
use object::read::elf::{FileHeader, SectionHeader};

use super::super::build_id::BuildId;
use super::error::{DebuginfoError, DebuginfoErrorKind};
use super::unpack;
use crate::error::OpenErrorKind;
use crate::format::detect::{self, Detected, Foreign};
use crate::limits::Limits;
use crate::source::{FileSource, MmapSource, open_file, read_vec};

/// Sections that a file may have: a module has up to some thousand (one a function), a kernel a hundred.
const SECTIONS: usize = 1 << 20;

/// Bytes that are read before they are given back.
const STRIDE: usize = 16 << 20;

/// Bytes of a file or of a section of it, as gimli reads them.
pub(super) type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// An opened file with debuginfo: a vmlinux, a `.debug` file, or a module's `.ko` or `.ko.debug`.
///
/// It is mapped, and only the parts that are asked for are touched. Sections that are compressed are unpacked into memory when they
/// are asked for.
#[derive(Debug)]
pub struct Debuginfo {
    path: PathBuf,
    bytes: Bytes,
    sections: Vec<Section>,
    relocatable: bool,
    build_id: Option<BuildId>,
    limits: Limits,
}

#[derive(Debug)]
enum Bytes {
    Mapped(MmapSource),
    Owned(Vec<u8>),
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// One section of the file.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) kind: elf::SectionType,
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) size: u64,
    /// Where its bytes are in the file; empty where it has none there.
    file: Range<usize>,
    /// Its bytes where the file has them compressed.
    unpacked: OnceLock<Result<Vec<u8>, String>>,
    /// Its bytes once it is relocated.
    moved: OnceLock<Vec<u8>>,
}

impl Section {
    pub(super) fn is_allocated(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }
}

impl Debuginfo {
    /// Opens a file and reads its section headers. A local, complete file: it is mapped, see [`MmapSource`].
    ///
    /// # Errors
    /// When it can't be read, is something else, is cut off, or has no DWARF.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, DebuginfoError> {
        let fail = |kind| DebuginfoError::new(path, kind);
        let file = open_file(path).map_err(|e| fail(from_open(e.kind)))?;
        let mut bytes = map(&file).map_err(|e| fail(e.into()))?;
        if bytes.all().starts_with(b"\x28\xb5\x2f\xfd") {
            let unpacked = unpack::zstd_file(bytes.all(), limits.debuginfo_section_bytes);
            bytes = Bytes::Owned(unpacked.map_err(|e| fail(DebuginfoErrorKind::damaged(e)))?);
        }
        Self::of_bytes(path, bytes, limits).map_err(fail)
    }

    /// The same of bytes in memory; `path` is what messages call them.
    ///
    /// # Errors
    /// As [`Debuginfo::open`].
    pub fn of_vec(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Self, DebuginfoError> {
        Self::of_bytes(path, Bytes::Owned(bytes), limits).map_err(|kind| DebuginfoError::new(path, kind))
    }

    fn of_bytes(path: &Path, bytes: Bytes, limits: &Limits) -> Result<Self, DebuginfoErrorKind> {
        let all = bytes.all();
        foreign(all)?;
        let len = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let header = FileHeader64::<ElfLittle>::parse(all).map_err(|_| DebuginfoErrorKind::Truncated {
            what: "the ELF header".into(),
            end: 64,
            len,
        })?;
        let order = ElfLittle;
        let relocatable = header.e_type(order) == elf::ET_REL;
        let start = header.e_shoff.get(order);
        let size =
            u64::from(header.e_shentsize.get(order)).saturating_mul(u64::from(header.e_shnum.get(order)));
        let end = start.saturating_add(size.max(64));
        if start == 0 {
            return Err(DebuginfoErrorKind::NoDwarf { why: "it has no sections".into() });
        }
        if end > len {
            return Err(DebuginfoErrorKind::Truncated { what: "the table of sections".into(), end, len });
        }
        let table = header.sections(order, all).map_err(DebuginfoErrorKind::damaged)?;
        if table.len() > SECTIONS {
            return Err(DebuginfoErrorKind::damaged("it has too many sections to be true"));
        }
        let mut sections = Vec::with_capacity(table.len());
        for section in table.iter() {
            let name = table.section_name(order, section).unwrap_or_default();
            let file = section.file_range(order).unwrap_or((0, 0));
            let end = file.0.saturating_add(file.1);
            let name = String::from_utf8_lossy(name).into_owned();
            if end > len {
                return Err(DebuginfoErrorKind::Truncated { what: format!("section {name}"), end, len });
            }
            let place = usize::try_from(file.0).ok().zip(usize::try_from(end).ok());
            let (from, to) = place.unwrap_or_default();
            sections.push(Section {
                name,
                kind: section.sh_type(order),
                flags: section.sh_flags(order).0,
                address: section.sh_addr(order),
                link: section.sh_link(order),
                info: section.sh_info(order),
                size: section.sh_size(order),
                file: from..to,
                unpacked: OnceLock::new(),
                moved: OnceLock::new(),
            });
        }
        let build_id = build_id(all, &sections);
        let this =
            Self { path: path.to_owned(), bytes, sections, relocatable, build_id, limits: limits.clone() };
        match this.named(".debug_info").filter(|s| !s.file.is_empty()) {
            Some(_) => Ok(this),
            None if this.named(".debug_info").is_some() || this.has_symbols() => {
                Err(DebuginfoErrorKind::NoDwarf { why: "it has no section .debug_info".into() })
            }
            None => Err(DebuginfoErrorKind::NoDwarf {
                why: "it is stripped, with neither .debug_info nor a symbol table".into(),
            }),
        }
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its build id.
    #[must_use]
    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// True for a module: its sections get their addresses when it is loaded.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// An error about this file.
    pub(super) fn error(&self, kind: DebuginfoErrorKind) -> DebuginfoError {
        DebuginfoError::new(&self.path, kind)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    fn has_symbols(&self) -> bool {
        self.sections.iter().any(|s| s.kind == elf::SHT_SYMTAB)
    }

    /// The section of that name; for `.debug_…` also the older `.zdebug_…`.
    pub(super) fn named(&self, name: &str) -> Option<&Section> {
        let older = name.strip_prefix(".debug_");
        let is = |s: &&Section| {
            s.name == name || older.is_some_and(|o| s.name.strip_prefix(".zdebug_").is_some_and(|z| z == o))
        };
        self.sections.iter().find(is)
    }

    /// A section's bytes: those of the file, or what was made of them.
    pub(super) fn data<'a>(&'a self, section: &'a Section) -> Result<&'a [u8], DebuginfoErrorKind> {
        let most = self.limits.debuginfo_section_bytes;
        let raw = || self.bytes.all().get(section.file.clone()).unwrap_or_default();
        if let Some(moved) = section.moved.get() {
            return Ok(moved);
        }
        let unpacked = if section.flags & elf::SHF_COMPRESSED.0 != 0 {
            section.unpacked.get_or_init(|| unpack::compressed(raw(), most))
        } else if section.name.starts_with(".zdebug_") {
            section.unpacked.get_or_init(|| unpack::zdebug(raw(), most))
        } else {
            return Ok(raw());
        };
        unpacked
            .as_deref()
            .map_err(|why| DebuginfoErrorKind::damaged(format!("section {}: {why}", section.name)))
    }

    /// Gives a section other bytes than the file has: its relocated ones. The first ones stay.
    pub(super) fn replace(section: &Section, bytes: Vec<u8>) {
        let _ = section.moved.set(bytes);
    }

    /// The DWARF in it. Sections are touched when something of them is read.
    pub(super) fn dwarf(&self) -> Result<Dwarf<Slice<'_>>, DebuginfoError> {
        let load = |id: SectionId| {
            // Where variables live and what macros were: large, and nobody here asks.
            if matches!(
                id,
                SectionId::DebugLoc
                    | SectionId::DebugLocLists
                    | SectionId::DebugMacro
                    | SectionId::DebugMacinfo
            ) {
                return Ok(EndianSlice::new(&[], LittleEndian));
            }
            let bytes = self.named(id.name()).map(|section| self.data(section)).transpose()?;
            Ok::<_, DebuginfoErrorKind>(EndianSlice::new(bytes.unwrap_or_default(), LittleEndian))
        };
        Dwarf::load(load).map_err(|kind| self.error(kind))
    }

    /// The section `.debug_info`.
    pub(super) fn info(&self) -> Result<&[u8], DebuginfoErrorKind> {
        self.named(".debug_info").map(|section| self.data(section)).transpose().map(Option::unwrap_or_default)
    }

    /// [`Debuginfo::forget`] for `.debug_info`.
    pub(super) fn forget_info(&self, range: Range<usize>) {
        if let Some(section) = self.named(".debug_info") {
            self.forget(section, range);
        }
    }

    /// Reading the section in its order touches all of it: what lies between `from` and `at` is given back once it is much. Returns from
    /// where on it is not.
    pub(super) fn forget_before(&self, from: usize, at: usize) -> usize {
        if at.saturating_sub(from) < STRIDE {
            return from;
        }
        self.forget_info(from..at);
        at
    }

    /// Tells that bytes of a section are not needed any more (nothing happens but that memory gets free).
    fn forget(&self, section: &Section, range: Range<usize>) {
        let is_of_file = section.unpacked.get().is_none() && section.moved.get().is_none();
        if let (Bytes::Mapped(map), true) = (&self.bytes, is_of_file) {
            let at = |offset: usize| section.file.start.saturating_add(offset).min(section.file.end);
            map.forget(at(range.start)..at(range.end));
        }
    }

    /// Bytes of a section that holds the kernel's memory at `address`, where the file has them (a `.debug` file has none).
    pub(super) fn bytes_at(&self, address: u64, len: u64) -> Option<&[u8]> {
        let holds = |s: &&Section| {
            s.is_allocated()
                && s.kind != elf::SHT_NOBITS
                && s.address <= address
                && address.checked_sub(s.address).is_some_and(|into| into < s.size)
        };
        let section = self.sections.iter().find(holds)?;
        let into = usize::try_from(address.checked_sub(section.address)?).ok()?;
        let tail = self.bytes.all().get(section.file.clone())?.get(into..)?;
        Some(tail.get(..usize::try_from(len).ok()?).unwrap_or(tail))
    }
}

/// Maps the file; where the system can't (some file systems of FUSE), reads it.
fn map(file: &FileSource) -> std::io::Result<Bytes> {
    match MmapSource::new(file) {
        Ok(map) => {
            map.read_in_order();
            Ok(Bytes::Mapped(map))
        }
        Err(_) => read_vec(file, 0, u64::MAX).map(Bytes::Owned),
    }
}

fn from_open(kind: OpenErrorKind) -> DebuginfoErrorKind {
    match kind {
        OpenErrorKind::Io(error) => DebuginfoErrorKind::Io(error),
        OpenErrorKind::Empty => DebuginfoErrorKind::Foreign {
            what: "an empty file".into(),
            hint: "copy or install it again".into(),
        },
        OpenErrorKind::NotAFile { what } => {
            DebuginfoErrorKind::Foreign { what, hint: "name the vmlinux itself".into() }
        }
        other => DebuginfoErrorKind::damaged(other),
    }
}

/// Anything but a 64-bit little-endian ELF file that is no core.
fn foreign(bytes: &[u8]) -> Result<(), DebuginfoErrorKind> {
    let head = bytes.get(..detect::HEAD_BYTES.min(bytes.len())).unwrap_or_default();
    let no = |what: &str, hint: &str| {
        Err(DebuginfoErrorKind::Foreign { what: what.to_owned(), hint: hint.to_owned() })
    };
    if head.starts_with(b"\x7fELF") {
        return match (head.get(4), head.get(5), head.get(16)) {
            (Some(2), Some(1), Some(4)) => {
                no("an ELF core file (a dump?)", "name the vmlinux with --vmlinux, and the dump without")
            }
            (Some(2), Some(1), _) => Ok(()),
            (None, ..) | (_, None, _) => no("the first bytes of an ELF file", "copy or install it again"),
            _ => no("not a 64-bit little-endian ELF file", "name the vmlinux of the kernel in the dump"),
        };
    }
    if head.starts_with(b"\xed\xab\xee\xdb") {
        return no("an RPM package", "unpack it («rpm2cpio FILE | cpio -id») and name the vmlinux inside");
    }
    if head.starts_with(b"!<arch>\n") {
        return no(
            "a Debian package or an archive",
            "unpack it («dpkg-deb -x FILE DIR») and name the vmlinux inside",
        );
    }
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return no(
            "a kernel image as it is booted (vmlinuz), which has no debuginfo",
            "name the vmlinux of the debuginfo package",
        );
    }
    match detect::detect(head) {
        Detected::Foreign(Foreign { what, .. }) => {
            let packed = ["gzip", "xz", "bzip2", "zstd", "lz4"].iter().any(|name| what.contains(name));
            let hint = if packed {
                "unpack it, and name the file inside"
            } else {
                "name the vmlinux of the debuginfo package"
            };
            no(&what, hint)
        }
        _ => no("a memory dump", "name the vmlinux with --vmlinux, and the dump without"),
    }
}

/// The GNU build id in any section of notes.
fn build_id(all: &[u8], sections: &[Section]) -> Option<BuildId> {
    let notes = sections.iter().filter(|s| s.kind == elf::SHT_NOTE);
    notes.filter_map(|s| all.get(s.file.clone())).find_map(BuildId::in_notes)
}
