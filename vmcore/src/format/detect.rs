//! What a file is, by its first bytes and never by its name.
//!
//! No file is refused without saying what it is: an admin at night has only that sentence.

use std::io::Read;

use object::elf;

use crate::error::OpenErrorKind;
use crate::raw::diskdump::{DISKDUMP_SIGNATURE, KDUMP_SIGNATURE};
use crate::raw::flattened;

/// Bytes from the beginning of a file that [`detect`] wants to see; fewer will do.
pub const HEAD_BYTES: usize = 64 << 10;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detected {
    /// A flattened stream; what is in it shows once it is indexed.
    Flattened,
    /// A kdump-compressed file.
    Kdump,
    /// An ELF64 little-endian core file.
    ElfCore,
    /// Anything else.
    Foreign(Foreign),
}

/// A file that is not read as a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, with an article: «a gzip archive».
    pub what: String,
    /// The next step.
    pub hint: String,
    /// True for a memory dump of a kind that is not supported.
    pub dump: bool,
}

impl From<Foreign> for OpenErrorKind {
    fn from(foreign: Foreign) -> Self {
        if foreign.dump {
            Self::Unsupported { what: foreign.what, hint: foreign.hint }
        } else {
            Self::not_a_dump(foreign.what, foreign.hint)
        }
    }
}

const UNPACK: &str = "unpack it first, and name the dump inside";

/// Signature, its offset, what the file is, the next step.
type Signature = (usize, &'static [u8], &'static str, &'static str);

/// Memory dumps that are not read.
const DUMPS: &[Signature] = &[
    (
        0,
        &DISKDUMP_SIGNATURE,
        "a diskdump file of an old kernel (before kexec)",
        "open it with crash and that kernel's vmlinux",
    ),
    (
        0,
        b"EMiL",
        "a LiME memory image",
        "convert it to a raw image and open that with volatility3; for kdt take the memory with kdump or «virsh dump --memory-only»",
    ),
    (
        0,
        b"AVML",
        "an AVML memory image",
        "avml-convert turns it into LiME, which volatility3 opens; for kdt take the memory with kdump or «virsh dump --memory-only»",
    ),
    (
        0,
        b"LibvirtQemudSave",
        "a libvirt save image",
        "restore the guest from it («virsh restore»), then take «virsh dump --memory-only --format elf»",
    ),
    (
        0,
        b"LibvirtQemudPart",
        "an unfinished libvirt save image",
        "its writer was stopped; take the memory again with «virsh dump --memory-only --format elf»",
    ),
    (
        0,
        b"QEVM",
        "a QEMU migration stream (as «virsh dump» without --memory-only writes)",
        "load it into a guest («-incoming»), then take «dump-guest-memory» or «virsh dump --memory-only --format elf»",
    ),
    (
        0,
        b"\xd2\xbe\xd2\xbe",
        "a VMware snapshot (vmss or vmsn)",
        "vmss2core -N6 turns it and its vmem file into an ELF vmcore; crash opens it as it is",
    ),
    (
        0,
        b"\xd3\xbe\xd3\xbe",
        "a partial VMware snapshot (vmss or vmsn)",
        "vmss2core -N6 turns it and its vmem file into an ELF vmcore; crash opens it as it is",
    ),
    (
        0,
        b"\xd0\xbe\xd0\xbe",
        "an old VMware snapshot",
        "vmss2core turns it and its vmem file into an ELF vmcore",
    ),
    (
        0,
        b"\xd1\xba\xd1\xba",
        "a restored VMware snapshot",
        "vmss2core turns it and its vmem file into an ELF vmcore",
    ),
    (
        0,
        b"\xd2\xba\xd2\xba",
        "a restored VMware snapshot",
        "vmss2core turns it and its vmem file into an ELF vmcore",
    ),
    (
        0,
        b"sadump\0\0",
        "a Fujitsu sadump file",
        "«makedumpfile -c -x vmlinux» turns it into a kdump-compressed one",
    ),
    (0, b"\xed\x23\x8f\x61\x73\x01\x19\xa8", "an LKCD dump", "open it with crash and that kernel's vmlinux"),
    (
        0,
        b"\xfd\x23\x8f\x61\x73\x01\x19\xa8",
        "a stand-alone dump of an s390 machine",
        "zgetdump turns it into an ELF vmcore",
    ),
    (
        0,
        b"PAGEDU64",
        "a crash dump of Windows (64 bits)",
        "open it with WinDbg; of a Linux guest take the format elf or kdump-zlib and not win-dmp",
    ),
    (
        0,
        b"PAGEDUMP",
        "a crash dump of Windows (32 bits)",
        "open it with WinDbg; of a Linux guest take the format elf or kdump-zlib and not win-dmp",
    ),
    (0, b"LibxlFmt", "a Xen save image", "restore the domain from it, then take «xl dump-core»"),
];

/// Archives and compressed files.
const ARCHIVES: &[Signature] = &[
    (0, b"\xfd7zXZ\0", "an xz-compressed file", "unpack it first: xz -dk FILE; name the dump inside"),
    (0, b"BZh", "a bzip2-compressed file", "unpack it first: bzip2 -dk FILE; name the dump inside"),
    (
        0,
        b"\x89LZO\0\r\n\x1a\n",
        "an lzop-compressed file",
        "unpack it first: lzop -d FILE; name the dump inside",
    ),
    (0, b"\x04\x22\x4d\x18", "an lz4-compressed file", "unpack it first: lz4 -d FILE; name the dump inside"),
    (0, b"LZIP", "an lzip-compressed file", "unpack it first: lzip -dk FILE; name the dump inside"),
    (0, b"\xff\x06\0\0sNaPpY", "a Snappy-compressed file", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first: unzip FILE; name the dump inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first: 7z x FILE; name the dump inside"),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (0, b"070701", "a cpio archive (an initramfs?)", "name the dump itself"),
    (0, b"070702", "a cpio archive (an initramfs?)", "name the dump itself"),
    (0, b"!<arch>\n", "an ar archive (a Debian package?)", UNPACK),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "a vmlinux comes in kernel-debuginfo; name the dump itself"),
    (0, b"Salted__", "a file encrypted with openssl", "decrypt it first"),
    (0, b"age-encryption.org/", "a file encrypted with age", "decrypt it first: age -d"),
    (0, b"-----BEGIN AGE", "a file encrypted with age", "decrypt it first: age -d"),
    (0, b"-----BEGIN PGP", "a file encrypted or signed with PGP", "decrypt it first: gpg -d"),
];

/// Disks, file systems and the rest.
const OTHERS: &[Signature] = &[
    (
        0,
        b"QFI\xfb",
        "a qcow2 disk image",
        "the dump is a file on that disk: look in its /var/crash with guestmount or qemu-nbd",
    ),
    (0, b"KDMV", "a VMware disk image", "the dump is a file on that disk, in /var/crash"),
    (0, b"vhdxfile", "a Hyper-V disk image", "the dump is a file on that disk, in /var/crash"),
    (0, b"conectix", "a VHD disk image", "the dump is a file on that disk, in /var/crash"),
    (0, b"XFSB", "an XFS file system", "mount it and name the dump on it"),
    (0, b"hsqs", "a squashfs file system", "mount it and name the dump on it"),
    (
        0,
        b"LUKS\xba\xbe",
        "an encrypted disk (LUKS)",
        "open it with cryptsetup, mount it and name the dump on it",
    ),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", "mount it and name the dump on it"),
    (0x10040, b"_BHRfS_M", "a btrfs file system", "mount it and name the dump on it"),
    (512, b"LABELONE", "an LVM physical volume", "activate it, mount the volume and name the dump on it"),
    (512, b"EFI PART", "a partitioned disk", "name the dump on it, or the partition that kdump writes to"),
    (
        4086,
        b"SWAPSPACE2",
        "swap space",
        "kdump may have been given a swap partition: its initramfs saves it to /var/crash on the next boot",
    ),
    (32769, b"CD001", "an ISO 9660 image", "mount it and name the dump on it"),
    (0, b"LPKSHHRH", "a systemd journal", "read it with journalctl --file; name the dump itself"),
    (0, b"SQLite format 3\0", "a SQLite database", "name the dump itself"),
    (0, b"%PDF-", "a PDF document", "name the dump itself"),
    (0, b"\x89PNG", "a picture", "name the dump itself"),
    (0, b"\xff\xd8\xff", "a picture", "name the dump itself"),
    (0, b"MZ", "a Windows or EFI program (or a kernel image, vmlinuz)", "name the dump itself"),
    (0x202, b"HdrS", "a kernel image (vmlinuz)", "name the dump itself; kdt needs no kernel image"),
    (0, b"\xfe\xed\xfa", "a Mach-O file", "name the dump itself"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O file", "name the dump itself"),
    (0, b"\xd4\xc3\xb2\xa1", "a network capture", "name the dump itself"),
    (0, b"\x0a\x0d\x0d\x0a", "a network capture", "name the dump itself"),
    (0, b"\x9f\xeb\x01\x00", "BTF type information", "name the dump itself"),
];

/// Tells what a file is from its first bytes ([`HEAD_BYTES`] of them, or all there are). Never fails.
#[must_use]
pub fn detect(head: &[u8]) -> Detected {
    detect_at_depth(head, 0)
}

fn detect_at_depth(head: &[u8], depth: u8) -> Detected {
    if head.starts_with(&flattened::SIGNATURE) {
        return Detected::Flattened;
    }
    if head.starts_with(&KDUMP_SIGNATURE) {
        return Detected::Kdump;
    }
    if head.starts_with(b"\x7fELF") {
        return elf(head);
    }
    let found = |table: &[Signature], dump| {
        let hit = |(at, bytes, ..): &&Signature| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes));
        table.iter().find(hit).map(|(_, _, what, hint)| foreign(*what, *hint, dump))
    };
    found(DUMPS, true)
        .or_else(|| compressed(head, depth))
        .or_else(|| found(ARCHIVES, false))
        .or_else(|| tar(head))
        .or_else(|| found(OTHERS, false))
        .or_else(|| text(head))
        .unwrap_or_else(|| unknown(head))
}

fn foreign(what: impl Into<String>, hint: impl Into<String>, dump: bool) -> Detected {
    Detected::Foreign(Foreign { what: what.into(), hint: hint.into(), dump })
}

/// ELF64 little-endian cores are dumps; the others are named.
fn elf(head: &[u8]) -> Detected {
    let byte = |at: usize| head.get(at).copied().unwrap_or(0);
    let (class, order) = (elf::FileClass(byte(4)), elf::DataEncoding(byte(5)));
    let word = |at: usize| {
        let pair = [byte(at), byte(at.saturating_add(1))];
        if order == elf::ELFDATA2MSB { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    };
    let kind = elf::FileType(word(16));
    let bits = match class {
        elf::ELFCLASS32 => "32-bit",
        elf::ELFCLASS64 => "64-bit",
        _ => "unknown-class",
    };
    let machine = machine_name(word(18), order == elf::ELFDATA2MSB);
    if kind == elf::ET_CORE {
        if class == elf::ELFCLASS64 && order == elf::ELFDATA2LSB {
            return Detected::ElfCore;
        }
        let order = if order == elf::ELFDATA2MSB { "big-endian" } else { "little-endian" };
        return foreign(
            format!("a {bits} {order} ELF core file of {machine}"),
            "open it with crash and that kernel's vmlinux: kdt reads 64-bit little-endian machines",
            true,
        );
    }
    if head.len() < 20 {
        return foreign(
            "the first bytes of an ELF file",
            "the file was cut off in its header; copy it again",
            false,
        );
    }
    let (what, hint) = match kind {
        elf::ET_REL => ("object file or kernel module", "name the dump itself"),
        elf::ET_EXEC => ("program (a vmlinux?)", "name the dump itself; kdt needs no vmlinux"),
        elf::ET_DYN => ("program or library (a vmlinux?)", "name the dump itself; kdt needs no vmlinux"),
        _ => ("file that is no core", "name the dump itself"),
    };
    foreign(format!("a {bits} ELF {what} of {machine}"), hint, false)
}

fn machine_name(machine: u16, big_endian: bool) -> String {
    match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64".into(),
        elf::EM_386 => "i386".into(),
        elf::EM_AARCH64 => "aarch64".into(),
        elf::EM_ARM => "arm".into(),
        elf::EM_PPC64 if big_endian => "ppc64".into(),
        elf::EM_PPC64 => "ppc64le".into(),
        elf::EM_PPC => "ppc".into(),
        elf::EM_S390 => "s390x".into(),
        elf::EM_RISCV => "riscv".into(),
        elf::EM_LOONGARCH => "loongarch64".into(),
        elf::EM_MIPS => "mips".into(),
        elf::EM_SPARCV9 => "sparc64".into(),
        elf::EM_IA_64 => "ia64".into(),
        _ => format!("machine {machine}"),
    }
}

/// gzip and zstd are unpacked for a few KiB, to name what is inside.
fn compressed(head: &[u8], depth: u8) -> Option<Detected> {
    let (name, tool, inside) = if head.starts_with(b"\x1f\x8b") {
        let mut inside = Vec::new();
        // An error is the end of `head`, inside the stream; what came before it is there.
        let _ = flate2::read::GzDecoder::new(head).take(4096).read_to_end(&mut inside);
        ("gzip", "gzip -dk FILE", inside)
    } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
        let mut inside = Vec::new();
        if let Ok(decoder) = zstd::stream::read::Decoder::new(head) {
            let _ = decoder.take(4096).read_to_end(&mut inside);
        }
        ("zstd", "zstd -dk FILE", inside)
    } else {
        return None;
    };
    let kind = if inside.len() < 64 || depth > 0 { None } else { Some(detect_at_depth(&inside, 1)) };
    let content = match kind {
        Some(Detected::Flattened) => " that holds a flattened dump".into(),
        Some(Detected::Kdump) => " that holds a kdump-compressed dump".into(),
        Some(Detected::ElfCore) => " that holds an ELF vmcore".into(),
        Some(Detected::Foreign(inner)) if !inner.what.starts_with("data of") => {
            format!(" that holds {}", inner.what)
        }
        _ => String::new(),
    };
    Some(foreign(
        format!("a {name}-compressed file{content}"),
        format!("unpack it first: {tool}; name the dump inside"),
        false,
    ))
}

fn tar(head: &[u8]) -> Option<Detected> {
    if !head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return None;
    }
    let name = head.get(..100).and_then(|name| name.split(|byte| *byte == 0).next()).unwrap_or_default();
    let name = name.strip_prefix(b"./").unwrap_or(name);
    Some(if name.starts_with(b"sosreport") || name.starts_with(b"sos-") {
        foreign(
            "a sosreport (a tar archive)",
            "a host's report is not its dump: the dump is in /var/crash of that host",
            false,
        )
    } else {
        foreign("a tar archive", "unpack it first: tar -xf FILE; name the dump inside", false)
    })
}

/// Text, by its first KiB: no NUL, few control bytes, UTF-8 but for a character cut at the end.
fn text(head: &[u8]) -> Option<Detected> {
    let head = head.get(..1024).unwrap_or(head);
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(head.get(..e.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    if valid.is_empty()
        || valid.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x1b' | '\x0c'))
    {
        return None;
    }
    let start = valid.trim_start_matches('\u{feff}').trim_start();
    let (what, hint) = if valid.contains("] Linux version ") || log_line(start) {
        (
            "a kernel log in text (vmcore-dmesg.txt?)",
            "read it as it is; the dump lies beside it and is named vmcore",
        )
    } else if valid.contains("OSRELEASE=") && valid.contains("SYMBOL(") {
        ("the text of a VMCOREINFO", "name the dump that it belongs to")
    } else if start.starts_with("#!") {
        ("a script", "name the dump itself")
    } else if json(start) {
        ("a JSON text", "name the dump itself")
    } else if start.starts_with("<!DOCTYPE html") || start.starts_with("<html") {
        ("a web page", "the download gave a page (of a login?) and not the dump: fetch it again")
    } else if start.starts_with('<') {
        ("an XML text", "name the dump itself")
    } else {
        ("a text file", "name the dump itself; it is called vmcore or dump.<time>, in /var/crash")
    };
    Some(foreign(what, hint, false))
}

/// Whether it begins with a line of the kernel's log: seconds in brackets, as `[   12.345678] `.
fn log_line(start: &str) -> bool {
    let stamp = start.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(stamp, _)| stamp);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    stamp.and_then(|stamp| stamp.trim_start().split_once('.')).is_some_and(|(s, us)| digits(s) && digits(us))
}

/// Whether it begins as an object or an array of JSON; the text may be cut.
fn json(start: &str) -> bool {
    start.starts_with(['{', '['])
        && serde_json::from_str::<serde::de::IgnoredAny>(start).map_or_else(|why| why.is_eof(), |_| true)
}

fn unknown(head: &[u8]) -> Detected {
    if head.iter().all(|byte| *byte == 0) {
        return foreign(
            "a file that begins with zeros only",
            "its blocks were perhaps never written before the machine stopped; look for another copy of the dump",
            false,
        );
    }
    let first: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    foreign(
        format!("data of a kind that kdt does not know (it begins with {})", first.join(" ")),
        "if it is a raw memory image, it needs a format that names its addresses: take an ELF or kdump-zlib dump",
        false,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what(head: &[u8]) -> String {
        match detect(head) {
            Detected::Foreign(foreign) => {
                assert!(!foreign.hint.is_empty());
                foreign.what
            }
            dump => format!("{dump:?}"),
        }
    }

    fn elf_head(class: u8, order: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        let pair = |v: u16| if order == 2 { v.to_be_bytes() } else { v.to_le_bytes() };
        head[16..18].copy_from_slice(&pair(kind));
        head[18..20].copy_from_slice(&pair(machine));
        head
    }

    #[test]
    fn dumps_are_known_by_their_first_bytes() {
        assert_eq!(what(b"KDUMP   \x06\0\0\0"), "Kdump");
        assert_eq!(what(b"makedumpfile\0\0\0\0\0\0"), "Flattened");
        assert_eq!(what(&elf_head(2, 1, 4, 62)), "ElfCore");
    }

    #[test]
    fn other_dumps_are_named_and_have_a_next_step() {
        for (head, name) in [
            (&b"EMiL\x01\0\0\0"[..], "a LiME memory image"),
            (b"AVML\x02\0\0\0", "an AVML memory image"),
            (b"LibvirtQemudSave\x02", "a libvirt save image"),
            (b"LibvirtQemudPart\x02", "an unfinished libvirt save image"),
            (b"QEVM\0\0\0\x03", "a QEMU migration stream (as «virsh dump» without --memory-only writes)"),
            (b"PAGEDU64", "a crash dump of Windows (64 bits)"),
            (b"\xd2\xbe\xd2\xbe\x08\0\0\0", "a VMware snapshot (vmss or vmsn)"),
            (b"DISKDUMP\x01", "a diskdump file of an old kernel (before kexec)"),
            (b"sadump\0\0\x01", "a Fujitsu sadump file"),
        ] {
            assert_eq!(what(head), name);
            assert!(matches!(detect(head), Detected::Foreign(Foreign { dump: true, .. })), "{name}");
        }
    }

    #[test]
    fn elf_files_that_are_no_vmcore_are_named() {
        assert_eq!(what(&elf_head(2, 1, 2, 62)), "a 64-bit ELF program (a vmlinux?) of x86_64");
        assert_eq!(what(&elf_head(2, 1, 1, 62)), "a 64-bit ELF object file or kernel module of x86_64");
        assert_eq!(what(&elf_head(1, 1, 4, 3)), "a 32-bit little-endian ELF core file of i386");
        assert_eq!(what(&elf_head(2, 2, 4, 22)), "a 64-bit big-endian ELF core file of s390x");
        assert_eq!(what(b"\x7fELF"), "the first bytes of an ELF file");
    }

    #[test]
    fn text_is_named_by_what_it_looks_like() {
        assert_eq!(what(b"hello\nworld\n"), "a text file");
        assert_eq!(what("grüße, abgeschnitten ü".as_bytes().split_last().unwrap().1), "a text file");
        assert_eq!(what(b"[    0.000000] Linux version 6.1.0\n"), "a kernel log in text (vmcore-dmesg.txt?)");
        assert_eq!(
            what(b"[ 4321.000012][  T123] usb 1-1: gone\n"),
            "a kernel log in text (vmcore-dmesg.txt?)"
        );
        assert_eq!(what(b"[12:00:01] started\n"), "a text file");
        assert_eq!(what(b"{\"schema\": \"kdt.triage\", \"log\": [\"cut he"), "a JSON text");
        assert_eq!(what(b"[1, 2]\n"), "a JSON text");
        assert_eq!(what(b"[package]\nname = 'kdt'\n"), "a text file");
        assert_eq!(what(b"[[failure]]\nname = 'oom'\n"), "a text file");
        assert_eq!(what(b"<!DOCTYPE html><title>Login"), "a web page");
        assert_eq!(
            what(b"OSRELEASE=6.1\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ff\n"),
            "the text of a VMCOREINFO"
        );
    }

    #[test]
    fn an_archive_tells_what_it_holds() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&[b"KDUMP   ".as_slice(), &vec![7; 20_000]].concat()).unwrap();
        let gz = gz.finish().unwrap();
        assert_eq!(what(&gz), "a gzip-compressed file that holds a kdump-compressed dump");
        assert_eq!(what(&gz[..12]), "a gzip-compressed file");
        let mut zst = vec![0; 600];
        zst[..16].copy_from_slice(b"sosreport-host/\0");
        zst[257..262].copy_from_slice(b"ustar");
        assert_eq!(what(&zst), "a sosreport (a tar archive)");
        let zst = zstd::bulk::compress(&zst, 1).unwrap();
        assert_eq!(what(&zst), "a zstd-compressed file that holds a sosreport (a tar archive)");
        assert_eq!(what(b"\xfd7zXZ\0\0\x04"), "an xz-compressed file");
        assert_eq!(what(b"BZh91AY&SY"), "a bzip2-compressed file");
        assert_eq!(what(b"\x89LZO\0\r\n\x1a\n"), "an lzop-compressed file");
        assert_eq!(what(b"PK\x03\x04"), "a zip archive");
        assert_eq!(what(b"QFI\xfb\0\0\0\x03"), "a qcow2 disk image");
    }

    #[test]
    fn the_rest_shows_its_first_bytes() {
        assert_eq!(what(&[0; 4096]), "a file that begins with zeros only");
        assert_eq!(
            what(&[1, 0, 255, 3]),
            "data of a kind that kdt does not know (it begins with 01 00 ff 03)"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(head in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(!what(&head).is_empty());
        }
    }
}
