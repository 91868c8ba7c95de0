//! Whether a file belongs to the dumped kernel, and by how much KASLR moved that.

use super::super::build_id::{self, BuildId};
use super::error::{DebuginfoError, DebuginfoErrorKind};
use super::file::Debuginfo;
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::sym::Symbols;
use crate::xlat::KernelMemory;

/// Symbols that both sides have and that tell by how much the kernel was moved, best first.
const ANCHORS: &[&str] = &["_stext", "_text", "init_uts_ns", "swapper_pg_dir", "init_task"];
/// The banner is one line.
const BANNER: u64 = 512;

/// By what a file was found to belong to the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// Its build id is the one in the kernel's own notes.
    Notes,
    /// Its build id is the one in VMCOREINFO.
    Vmcoreinfo,
    /// Its banner (`linux_banner`) is the one in the kernel's memory, to the byte.
    Banner,
}

/// A file that belongs to the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreement {
    /// What is added to an address in the file to get the one in the dump; wraps around.
    pub slide: u64,
    /// How it is known.
    pub proof: Proof,
}

/// Whether the file is the dumped kernel's.
///
/// Asked in this order: the kernel's notes in memory, found by its own symbols or else by the file's; VMCOREINFO's `BUILD-ID`, which
/// proves a file right and never wrong (some stable kernels write garbage there); the kernel's banner.
///
/// # Errors
/// When the file is another kernel's, or nothing proves that it is this one's.
pub fn check(
    file: &Debuginfo,
    memory: &KernelMemory<'_>,
    symbols: &Symbols,
    info: &Vmcoreinfo,
) -> Result<Agreement, DebuginfoError> {
    let unproven = |why: &str| file.error(DebuginfoErrorKind::Unproven { why: why.to_owned() });
    if file.is_relocatable() {
        return Err(file.error(DebuginfoErrorKind::Foreign {
            what: "a kernel module".into(),
            hint: "name the vmlinux; modules are found beside it".into(),
        }));
    }
    let linked = Linked::of(file)?;
    let slide = linked.slide(symbols, info);
    let told = info.build_id().and_then(|text| text.parse::<BuildId>().ok());
    let agree = |proof| {
        let why = "neither the dump's symbols nor VMCOREINFO tell where the kernel was loaded";
        slide.map(|slide| Agreement { slide, proof }).ok_or_else(|| unproven(why))
    };
    if let Some(theirs) = file.build_id() {
        let at_its_symbols = || {
            let (start, stop) =
                linked.notes.zip(slide).map(|((a, b), by)| (a.wrapping_add(by), b.wrapping_add(by)))?;
            build_id::of_notes(memory, KVirtAddr(start), KVirtAddr(stop))
        };
        let own = build_id::of_kernel(memory, symbols);
        match own.clone().or_else(at_its_symbols) {
            Some(ours) if ours == *theirs => return agree(Proof::Notes),
            // By the kernel's own symbols it is certain; by the file's, another kernel's notes can't well be there.
            Some(ours) => {
                return Err(file.error(DebuginfoErrorKind::OtherBuild { theirs: theirs.clone(), ours }));
            }
            None if told.as_ref() == Some(theirs) => return agree(Proof::Vmcoreinfo),
            None => {}
        }
    }
    let banner = file_banner(file, &linked);
    if let (Some(theirs), Some(ours)) = (release_of(banner.as_deref()), info.release())
        && theirs != ours
    {
        return Err(file.error(DebuginfoErrorKind::OtherRelease { theirs, ours: ours.to_owned() }));
    }
    let place = symbols.address("linux_banner").map(|a| a.0);
    let place = place.or_else(|| Some(linked.banner?.wrapping_add(slide?)));
    if let (Some(theirs), Some(at)) = (&banner, place) {
        let mut ours = vec![0; theirs.len()];
        if memory.read(KVirtAddr(at), &mut ours).is_ok() && ours == *theirs {
            return agree(Proof::Banner);
        }
    }
    if let (Some(theirs), Some(ours)) = (file.build_id(), told) {
        return Err(file.error(DebuginfoErrorKind::OtherBuild { theirs: theirs.clone(), ours }));
    }
    Err(unproven("the kernel's notes and its banner are not in the dump, and VMCOREINFO has no build id"))
}

/// Addresses that the file's symbol table tells.
struct Linked {
    anchors: Vec<(&'static str, u64)>,
    notes: Option<(u64, u64)>,
    banner: Option<u64>,
}

impl Linked {
    fn of(file: &Debuginfo) -> Result<Self, DebuginfoError> {
        let table = file.raw_symbols()?;
        let at = |name: &str| table.iter().find(|s| s.name == name.as_bytes()).map(|s| s.value);
        Ok(Self {
            anchors: ANCHORS.iter().filter_map(|name| Some((*name, at(name)?))).collect(),
            notes: at("__start_notes").zip(at("__stop_notes")),
            banner: at("linux_banner"),
        })
    }

    fn slide(&self, symbols: &Symbols, info: &Vmcoreinfo) -> Option<u64> {
        let by = |(name, linked): &(&str, u64)| Some(symbols.address(name)?.0.wrapping_sub(*linked));
        self.anchors.iter().find_map(by).or_else(|| info.kaslr_offset())
    }
}

/// The banner in the file, where it has the kernel's data.
fn file_banner(file: &Debuginfo, linked: &Linked) -> Option<Vec<u8>> {
    let bytes = file.bytes_at(linked.banner?, BANNER)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    bytes.get(..end).filter(|text| text.starts_with(b"Linux version ")).map(<[u8]>::to_vec)
}

/// `Linux version 6.1.0-44-amd64 (…` → `6.1.0-44-amd64`.
fn release_of(banner: Option<&[u8]>) -> Option<String> {
    let text = std::str::from_utf8(banner?).ok()?;
    text.strip_prefix("Linux version ")?.split(' ').next().map(str::to_owned)
}
