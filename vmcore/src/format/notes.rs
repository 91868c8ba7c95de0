//! ELF notes, as in `PT_NOTE` segments and in the sub header of kdump-compressed files.

use zerocopy::FromBytes;

use crate::raw::elf::Nhdr;

/// The note in which a dump that kdt made of another one says how: its name and kind, and its text is a sentence. Other readers pass over it.
pub const KDT_NOTE: (&str, u32) = ("KDT", 0x4b44);
/// `NT_PRSTATUS`: the registers of one CPU.
pub const NT_PRSTATUS: u32 = 1;
/// `NT_PRPSINFO`: only a process's core has it.
pub const NT_PRPSINFO: u32 = 3;
/// `NT_AUXV`: only a process's core has it.
pub const NT_AUXV: u32 = 6;

/// One note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `CORE`, `VMCOREINFO`, `QEMU`, …, without the NUL behind it.
    pub name: String,
    /// Its kind, in the name's own numbering.
    pub kind: u32,
    /// Its bytes: shorter than announced where `cut` is true.
    pub desc: Vec<u8>,
    /// File offset of `desc`.
    pub at: u64,
    /// The notes end before this one does.
    pub cut: bool,
}

impl Note {
    /// True for a note of this name and kind.
    #[must_use]
    pub fn is(&self, name: &str, kind: u32) -> bool {
        self.kind == kind && self.name == name
    }
}

/// Notes, and what was wrong with their region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// In file order.
    pub list: Vec<Note>,
    /// One sentence per oddity.
    pub repairs: Vec<String>,
}

/// Splits a region of notes that lies at file offset `at`. Never fails: a note that leaves the region ends the
/// list, its bytes up to there are kept and it is marked as cut.
///
/// Zeros between notes are skipped: the kernel leaves the space of a CPU that did not answer, and kexec-tools
/// the end of its page, at zero.
#[must_use]
pub fn parse(region: &[u8], at: u64) -> Notes {
    let mut notes = Notes::default();
    let mut rest = region;
    while let Ok((header, after)) = Nhdr::read_from_prefix(rest) {
        let (name_size, desc_size, kind) =
            (header.n_namesz.get(), header.n_descsz.get(), header.n_type.get());
        // A note of no name says nothing: these are zeros up to the next note's name size.
        if name_size == 0 {
            rest = rest.get(4..).unwrap_or_default();
            continue;
        }
        let here = at.saturating_add(offset_in(region, rest));
        // No writer has a name longer than «VMCOREINFO_XEN»: past this the header is not one.
        let name = usize::try_from(name_size).ok().filter(|size| *size <= 256);
        let Some((name, after)) = name.and_then(|size| split_padded(after, size)) else {
            notes.repairs.push(format!("the note at file offset {here:#x} has a name of {name_size} bytes; it and what follows is left out"));
            break;
        };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let desc_at = at.saturating_add(offset_in(region, after));
        let size = usize::try_from(desc_size).unwrap_or(usize::MAX);
        let Some((desc, next)) = split_padded(after, size) else {
            notes.repairs.push(format!(
                "the {} note at file offset {here:#x} announces {desc_size} bytes and only {} are there",
                name.escape_debug(),
                after.len(),
            ));
            notes.list.push(Note { name, kind, desc: after.to_vec(), at: desc_at, cut: true });
            break;
        };
        notes.list.push(Note { name, kind, desc: desc.to_vec(), at: desc_at, cut: false });
        rest = next;
    }
    notes
}

fn offset_in(region: &[u8], rest: &[u8]) -> u64 {
    u64::try_from(region.len().saturating_sub(rest.len())).unwrap_or(u64::MAX)
}

/// `size` bytes, and what follows their padding to 4; the padding may be missing at the very end.
fn split_padded(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_at_checked(size)?;
    let pad = size.wrapping_neg() & 3;
    Some((first, rest.get(pad..).unwrap_or_default()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((name.len() as u32 + 1).to_le_bytes());
        out.extend((desc.len() as u32).to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(desc);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn notes_come_with_their_place() {
        let region = [note("CORE", 1, b"regs"), vec![0; 40], note("VMCOREINFO", 0, b"A=1\nB")].concat();
        let notes = parse(&region, 0x1000);
        assert_eq!(notes.repairs, [""; 0]);
        let [a, b] = &notes.list[..] else { panic!("{notes:?}") };
        assert_eq!((a.name.as_str(), a.kind, &a.desc[..], a.at), ("CORE", 1, &b"regs"[..], 0x1014));
        assert_eq!((b.name.as_str(), b.kind, &b.desc[..], b.at), ("VMCOREINFO", 0, &b"A=1\nB"[..], 0x1058));
        assert!(b.is("VMCOREINFO", 0) && !b.is("VMCOREINFO", 1));
    }

    #[test]
    fn a_note_longer_than_its_region_keeps_what_is_there() {
        let mut region = note("VMCOREINFO", 0, b"OSRELEASE=6.1\n");
        region[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let notes = parse(&region, 0);
        assert!(notes.list[0].cut);
        assert!(notes.list[0].desc.starts_with(b"OSRELEASE=6.1\n"));
        assert_eq!(
            notes.repairs,
            ["the VMCOREINFO note at file offset 0x0 announces 4294967295 bytes and only 16 are there"]
        );
    }

    #[test]
    fn a_name_that_can_not_be_ends_the_list() {
        let mut region = note("CORE", 1, b"x");
        let second = region.len();
        region.extend(note("CORE", 1, b"y"));
        region[second..second + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let notes = parse(&region, 0);
        assert_eq!(notes.list.len(), 1);
        assert_eq!(
            notes.repairs,
            ["the note at file offset 0x18 has a name of 4294967295 bytes; it and what follows is left out"]
        );
    }

    proptest! {
        #[test]
        fn any_region_is_split(region in prop::collection::vec(any::<u8>(), 0..300)) {
            let notes = parse(&region, u64::MAX - 4);
            prop_assert!(notes.list.iter().map(|n| n.desc.len()).sum::<usize>() <= region.len());
        }
    }
}
