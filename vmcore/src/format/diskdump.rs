//! kdump-compressed files: the headers, and where the bitmaps, descriptors and notes lie.

use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::notes::{self, Note};
use super::{Arch, Codec};
use crate::addr::Pfn;
use crate::error::OpenErrorKind;
use crate::limits::Limits;
use crate::raw::diskdump::{
    COMPRESSED_INCOMPLETE, DiskDumpHeader, EXCLUDED_VMEMMAP, KdumpSubHeader, NewUtsname,
};
use crate::source::{ReadAt, read_vec};

const WHAT: &str = "a kdump-compressed dump";
/// The newest header version whose fields are known (makedumpfile 1.7.8, QEMU 7.2).
const NEWEST: i32 = 6;

/// The dumped machine's names; empty where the writer did not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Utsname {
    /// `Linux`.
    pub sysname: String,
    /// The host name.
    pub nodename: String,
    /// The kernel release.
    pub release: String,
    /// The build number and date.
    pub version: String,
    /// The architecture's name.
    pub machine: String,
    /// The NIS domain.
    pub domainname: String,
}

impl Utsname {
    fn new(raw: &NewUtsname) -> Self {
        let text = |field: &[u8; 65]| {
            let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        Self {
            sysname: text(&raw.sysname),
            nodename: text(&raw.nodename),
            release: text(&raw.release),
            version: text(&raw.version),
            machine: text(&raw.machine),
            domainname: text(&raw.domainname),
        }
    }
}

/// What a kdump-compressed file says of itself.
#[derive(Clone, Debug)]
pub struct KdumpHeader {
    /// 0 to 6.
    pub header_version: i32,
    /// The machine's names.
    pub utsname: Utsname,
    /// Seconds and microseconds since 1970 on the dumped machine's clock; `None` in QEMU's dumps.
    pub timestamp: Option<(i64, u32)>,
    /// The writer says that it stopped early.
    pub incomplete: bool,
    /// Unused `struct page` were left out too.
    pub excluded_vmemmap: bool,
    /// The codec that the header names for the file; each page names its own.
    pub codec: Option<Codec>,
    /// Bytes of a page and of a block of the file.
    pub page_size: u64,
    /// CPUs of the dumped machine, as the header has it.
    pub nr_cpus: Option<u32>,
    /// One past the highest frame.
    pub end_pfn: Pfn,
    /// Where the kernel image really lies, against its link address; a
    /// negative number wraps.
    pub phys_base: u64,
    /// makedumpfile's `-d`.
    pub dump_level: Option<u32>,
    /// The frames of this part of a split set.
    pub part: Option<Range<u64>>,
    /// File offset of the first bitmap.
    pub ram_bitmap_at: u64,
    /// File offset of the second bitmap; the first one's where there is one only.
    pub stored_bitmap_at: u64,
    /// Frames for which the bitmaps have room.
    pub bitmap_frames: u64,
    /// File offset of the page descriptors.
    pub descriptors_at: u64,
    /// The VMCOREINFO text.
    pub vmcoreinfo: Option<Vec<u8>>,
    /// The notes.
    pub notes: Vec<Note>,
    /// The text that names what was erased.
    pub erase_info: Option<String>,
    /// One sentence per guess and oddity.
    pub repairs: Vec<String>,
}

impl KdumpHeader {
    /// In what two headers differ that belong to one split set; `None` where they agree.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> Option<String> {
        let differ = |same: bool, what: &str| (!same).then(|| format!("its {what} differs"));
        differ(self.page_size == other.page_size, "page size")
            .or_else(|| differ(self.utsname == other.utsname, "machine or kernel"))
            .or_else(|| differ(self.timestamp == other.timestamp, "time"))
            .or_else(|| differ(self.end_pfn == other.end_pfn, "number of frames"))
            .or_else(|| differ(self.dump_level == other.dump_level, "dump level"))
            .or_else(|| differ(self.header_version == other.header_version, "header version"))
            .or_else(|| match (&self.vmcoreinfo, &other.vmcoreinfo) {
                (Some(a), Some(b)) => differ(a == b, "VMCOREINFO"),
                _ => None,
            })
    }

    /// The machine's architecture, from its name, or from the registers' size where the writer left that out.
    #[must_use]
    pub fn arch(&self, repairs: &mut Vec<String>) -> Arch {
        let arch = Arch::from_machine(&self.utsname.machine);
        let by_notes =
            self.notes.iter().any(|note| note.is("CORE", notes::NT_PRSTATUS) && note.desc.len() == 336);
        if arch == Arch::Unknown && by_notes {
            repairs.push("the header does not name the architecture; x86_64 was taken, from the size of the register notes".into());
            return Arch::X86_64;
        }
        arch
    }
}

/// Reads the headers and the notes. The signature is known to be `KDUMP`.
///
/// # Errors
/// [`OpenErrorKind`], where the place of the bitmaps can't be known or the machine is not a 64-bit little-endian one.
pub fn read(source: &dyn ReadAt, limits: &Limits) -> Result<KdumpHeader, OpenErrorKind> {
    let head = read_vec(source, 0, 464)?;
    let Ok(main) = DiskDumpHeader::read_from_bytes(&head) else {
        return Err(damaged("it ends inside its header", source.len()));
    };
    let mut repairs = Vec::new();
    let utsname = Utsname::new(&main.utsname);
    let Some(page_size) = page_size(i64::from(main.block_size.get())) else {
        if let Some(machine) = other_abi(&head, &utsname) {
            return Err(OpenErrorKind::Unsupported {
                what: format!("a kdump-compressed dump of {machine}"),
                hint: "open it with crash and that kernel's vmlinux: kdt reads 64-bit little-endian machines"
                    .into(),
            });
        }
        return Err(damaged(&format!("its page size is {}", main.block_size.get()), 0x1ac));
    };
    let mut header_version = main.header_version.get();
    if header_version < 0 {
        return Err(damaged(&format!("its header version is {header_version}"), 8));
    }
    if header_version > NEWEST {
        repairs
            .push(format!("header version {header_version} is newer than {NEWEST}; it is read as {NEWEST}"));
        header_version = NEWEST;
    }
    let sub_blocks = match u64::try_from(main.sub_hdr_size.get()) {
        Ok(blocks) if blocks > 0 => blocks,
        _ => return Err(damaged(&format!("its sub header has {} blocks", main.sub_hdr_size.get()), 0x1b0)),
    };
    let sub_bytes = read_vec(source, page_size, 104)?;
    let sub = sub_header(&sub_bytes, &mut repairs);
    let since = |version: i32| header_version >= version;

    let mut end_pfn = u64::from(main.max_mapnr.get());
    if since(6) {
        match sub.max_mapnr_64.get() {
            0 if end_pfn > 0 => repairs
                .push(format!("the 64-bit number of frames is 0; the 32-bit one, {end_pfn}, was taken")),
            frames => end_pfn = frames,
        }
    }
    if end_pfn == 0 {
        return Err(damaged("it announces no frame", 0x1b8));
    }
    if end_pfn > limits.frames {
        return Err(damaged(&format!("it announces {end_pfn} frames, more than {}", limits.frames), 0x1b8));
    }

    let ram_bitmap_at = sub_blocks.saturating_add(1).saturating_mul(page_size);
    let bitmap_blocks = u64::from(main.bitmap_blocks.get());
    let one = end_pfn.div_ceil(8).div_ceil(page_size);
    // Diskdump's heritage: a file whose bitmap blocks hold each frame only once has one bitmap for both.
    let (bitmap_size, second) = if bitmap_blocks >= one.saturating_mul(2) {
        let half = (bitmap_blocks >> 1).saturating_mul(page_size);
        (half, half)
    } else {
        if bitmap_blocks < one {
            repairs.push(format!(
                "the bitmaps have {bitmap_blocks} blocks where {} are needed; the frames behind are lost",
                one.saturating_mul(2)
            ));
        }
        (bitmap_blocks.saturating_mul(page_size), 0)
    };
    let descriptors_at = bitmap_blocks.saturating_mul(page_size).saturating_add(ram_bitmap_at);

    let (notes, vmcoreinfo, erase_info) = texts(source, limits, header_version, &sub, &mut repairs)?;
    Ok(KdumpHeader {
        header_version,
        utsname,
        timestamp: Some((main.tv_sec.get(), main.tv_usec.get()))
            .filter(|time| *time != (0, 0))
            .and_then(|(s, us)| Some((s, u32::try_from(us).ok()?))),
        incomplete: main.status.get() & COMPRESSED_INCOMPLETE != 0,
        excluded_vmemmap: main.status.get() & EXCLUDED_VMEMMAP != 0,
        codec: Codec::from_flags(main.status.get() & !(COMPRESSED_INCOMPLETE | EXCLUDED_VMEMMAP)),
        page_size,
        nr_cpus: u32::try_from(main.nr_cpus.get()).ok().filter(|cpus| *cpus > 0),
        end_pfn: Pfn(end_pfn),
        phys_base: sub.phys_base.get(),
        dump_level: if since(1) { u32::try_from(sub.dump_level.get()).ok() } else { None },
        part: part(header_version, &sub, end_pfn, &mut repairs),
        ram_bitmap_at,
        stored_bitmap_at: ram_bitmap_at.saturating_add(second),
        bitmap_frames: bitmap_size.saturating_mul(8),
        descriptors_at,
        vmcoreinfo,
        notes,
        erase_info,
        repairs,
    })
}

fn damaged(why: &str, at: u64) -> OpenErrorKind {
    OpenErrorKind::Damaged { what: WHAT, why: why.into(), at }
}

fn page_size(size: i64) -> Option<u64> {
    u64::try_from(size).ok().filter(|size| size.is_power_of_two() && (4096..=1 << 18).contains(size))
}

/// The machine of a header in another ABI: 32-bit (`block_size` at 416) or big-endian. `None` for nonsense.
fn other_abi(head: &[u8], utsname: &Utsname) -> Option<String> {
    let field = |at: usize| head.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
    let version = |bytes| (0..=NEWEST).contains(&bytes);
    let little = field(8).map(i32::from_le_bytes).is_some_and(version);
    let big = field(8).map(i32::from_be_bytes).is_some_and(version);
    let size = |at, big| {
        let bytes = field(at)?;
        page_size(i64::from(if big { i32::from_be_bytes(bytes) } else { i32::from_le_bytes(bytes) }))
    };
    let kind = if little && size(416, false).is_some() {
        "a 32-bit machine"
    } else if big && size(428, true).is_some() {
        "a big-endian machine"
    } else if big && size(416, true).is_some() {
        "a 32-bit big-endian machine"
    } else {
        return None;
    };
    Some(if utsname.machine.is_empty() {
        kind.into()
    } else {
        format!("{kind} ({})", utsname.machine.escape_debug())
    })
}

/// The sub header; fields that the file does not have are 0.
fn sub_header(bytes: &[u8], repairs: &mut Vec<String>) -> KdumpSubHeader {
    let mut whole = [0; size_of::<KdumpSubHeader>()];
    if bytes.len() < whole.len() {
        repairs.push("the file ends inside its sub header".into());
    }
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    zerocopy::transmute!(whole)
}

/// The frames of this part, where it is one.
fn part(version: i32, sub: &KdumpSubHeader, end_pfn: u64, repairs: &mut Vec<String>) -> Option<Range<u64>> {
    if version < 2 || sub.split.get() == 0 {
        return None;
    }
    let old = sub.start_pfn.get()..sub.end_pfn.get();
    let new = sub.start_pfn_64.get()..sub.end_pfn_64.get();
    let range = if version >= 6 && (!new.is_empty() || old.is_empty()) { new } else { old };
    if range.start > range.end || range.end > end_pfn {
        repairs.push(format!(
            "the part says it has the frames {:#x} to {:#x} of {end_pfn:#x}; it was cut to what there can be",
            range.start, range.end
        ));
    }
    let end = range.end.min(end_pfn);
    Some(range.start.min(end)..end)
}

type Texts = (Vec<Note>, Option<Vec<u8>>, Option<String>);

fn texts(
    source: &dyn ReadAt,
    limits: &Limits,
    version: i32,
    sub: &KdumpSubHeader,
    repairs: &mut Vec<String>,
) -> Result<Texts, OpenErrorKind> {
    let mut region = |what: &str, at: U64, size: U64, since: i32| -> Result<Option<Vec<u8>>, OpenErrorKind> {
        let (at, size) = (at.get(), size.get());
        if version < since || at == 0 || size == 0 {
            return Ok(None);
        }
        let bytes = read_vec(source, at, size.min(limits.notes_bytes))?;
        if u64::try_from(bytes.len()).is_ok_and(|got| got < size) {
            repairs.push(format!(
                "the {what} at file offset {at:#x} should have {size} bytes; {} of them were read",
                bytes.len()
            ));
        }
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    };
    let vmcoreinfo = region("VMCOREINFO", sub.offset_vmcoreinfo, sub.size_vmcoreinfo, 3)?;
    let note_bytes = region("notes", sub.offset_note, sub.size_note, 4)?;
    let erase_info = region("erase info", sub.offset_eraseinfo, sub.size_eraseinfo, 5)?;
    let mut notes = notes::parse(&note_bytes.unwrap_or_default(), sub.offset_note.get());
    repairs.append(&mut notes.repairs);
    let erase_info = erase_info.map(|bytes| {
        String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    });
    Ok((notes.list, vmcoreinfo, erase_info))
}
