//! Build ids: what tells one build of a kernel or module from all others.

use std::fmt;
use std::str::FromStr;

use crate::addr::KVirtAddr;
use crate::format::notes;
use crate::sym::Symbols;
use crate::xlat::KernelMemory;

/// `NT_GNU_BUILD_ID`.
const NT_GNU_BUILD_ID: u32 = 3;
/// The kernel's notes are a few hundred bytes.
const NOTES: u64 = 64 << 10;

/// The GNU build id of a kernel, a module or a file: 20 bytes (SHA-1) with every linker of today.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Vec<u8>);

/// A word that is no build id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a build id is an even number of hexadecimal digits, from 4 to 128")]
pub struct NotABuildId;

impl BuildId {
    /// An id of these bytes; `None` for a length that no linker makes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (2..=64).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// The id among the notes of a section or segment.
    #[must_use]
    pub fn in_notes(region: &[u8]) -> Option<Self> {
        let found = notes::parse(region, 0).list;
        found
            .iter()
            .find(|note| note.is("GNU", NT_GNU_BUILD_ID) && !note.cut)
            .and_then(|n| Self::new(&n.desc))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where it is below a directory `.build-id`: the first two digits, then the others.
    #[must_use]
    pub fn split(&self) -> (String, String) {
        let text = self.to_string();
        let (first, rest) = text.split_at_checked(2).unwrap_or((&text, ""));
        (first.to_owned(), rest.to_owned())
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BuildId {
    type Err = NotABuildId;

    fn from_str(text: &str) -> Result<Self, NotABuildId> {
        let digits = text.as_bytes();
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let (pairs, rest) = digits.as_chunks::<2>();
        let byte = |[high, low]: &[u8; 2]| Some(nibble(*high)? << 4 | nibble(*low)?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        bytes.filter(|_| rest.is_empty()).and_then(|b| Self::new(&b)).ok_or(NotABuildId)
    }
}

/// The running kernel's own notes, between `__start_notes` and `__stop_notes`, hold its id.
///
/// VMCOREINFO's `BUILD-ID` comes after this one: some stable kernels write garbage there.
#[must_use]
pub fn of_kernel(memory: &KernelMemory<'_>, symbols: &Symbols) -> Option<BuildId> {
    of_notes(memory, symbols.address("__start_notes")?, symbols.address("__stop_notes")?)
}

/// The id among the notes from `start` to `stop`.
pub(super) fn of_notes(memory: &KernelMemory<'_>, start: KVirtAddr, stop: KVirtAddr) -> Option<BuildId> {
    let len = stop.0.checked_sub(start.0).filter(|len| *len <= NOTES)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    memory.read(start, &mut bytes).ok()?;
    BuildId::in_notes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_and_writes_as_hexadecimal() {
        let id: BuildId = "00Ff10".parse().unwrap();
        assert_eq!((id.bytes(), id.to_string().as_str()), (&[0, 0xff, 0x10][..], "00ff10"));
        assert_eq!(id.split(), ("00".to_owned(), "ff10".to_owned()));
        for bad in ["", "a", "abc", "zz00", "0x12", "00"] {
            assert!(bad.parse::<BuildId>().is_err(), "{bad}");
        }
        assert!("ab".repeat(65).parse::<BuildId>().is_err());
    }

    #[test]
    fn the_id_is_found_behind_other_notes() {
        let note = |name: &[u8; 4], kind: u32, desc: &[u8]| {
            let mut bytes = vec![4, 0, 0, 0, desc.len() as u8, 0, 0, 0];
            bytes.extend(kind.to_le_bytes());
            bytes.extend(name);
            bytes.extend(desc);
            bytes
        };
        let mut notes = note(b"Xen\0", 3, &[9; 20]);
        notes.extend(note(b"GNU\0", 1, &[8; 20]));
        notes.extend(note(b"GNU\0", 3, &[7; 20]));
        assert_eq!(BuildId::in_notes(&notes), BuildId::new(&[7; 20]));
        assert_eq!(BuildId::in_notes(&notes[..notes.len() - 1]), None);
    }
}
