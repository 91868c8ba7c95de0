//! Where each artifact lies in the tar stream. Names, sizes, modes and times decide every byte of it that
//! is not an artifact's own, so a reader makes those bytes anew and compares, and parses no tar header.
//!
//! The headers are GNU tar's (`tar(5)` of libarchive, and `tar.h` in GNU tar's manual, «Basic Tar
//! Format»): `ustar  \0` for magic, sizes from 8 GiB on in base 256, names from 100 bytes on in a member
//! `././@LongLink` of type `L` before theirs. GNU tar, bsdtar, busybox and Python read them.

use super::name::ArtifactName;

/// Bytes of a tar block.
const BLOCK: u64 = 512;
/// The two blocks of zeros at the end.
const TRAILER: u64 = 1024;
/// From here on a size does not fit in eleven octal digits.
const OCTAL_SIZES: u64 = 1 << 33;

/// What a tar header says of one artifact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: &'a ArtifactName,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Seconds since 1970; what lies before is written as 0.
    pub(super) mtime: i64,
}

/// The place of one artifact in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Its header's first byte.
    pub(super) start: u64,
    /// Its own first byte.
    pub(super) data: u64,
    /// The byte after its last.
    pub(super) data_end: u64,
    /// The byte after its padding, where the next header starts.
    pub(super) end: u64,
}

/// The places of all artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) spans: Vec<Span>,
    /// Bytes of the whole stream, the two blocks of zeros included.
    pub(super) total: u64,
}

impl Layout {
    /// Lays the members out one after the other; `None` where the stream would be longer than 2^64.
    pub(super) fn new<'a>(members: impl Iterator<Item = Member<'a>>) -> Option<Self> {
        let mut spans = Vec::new();
        let mut at = 0_u64;
        for member in members {
            let data = at.checked_add(header_len(member.name)?)?;
            let data_end = data.checked_add(member.size)?;
            let end = data_end.checked_next_multiple_of(BLOCK)?;
            spans.push(Span { start: at, data, data_end, end });
            at = end;
        }
        Some(Self { spans, total: at.checked_add(TRAILER)? })
    }

    /// The index of the artifact whose header, bytes or padding are at `at`; the count of artifacts from
    /// the trailer on.
    pub(super) fn find(&self, at: u64) -> usize {
        self.spans.partition_point(|span| span.end <= at)
    }
}

fn header_len(name: &ArtifactName) -> Option<u64> {
    let length = u64::try_from(name.as_bytes().len()).ok()?;
    if length < 100 {
        return Some(BLOCK);
    }
    length.checked_add(1)?.checked_next_multiple_of(BLOCK)?.checked_add(2 * BLOCK)
}

/// All that stands before an artifact's bytes.
pub(super) fn header(member: Member<'_>) -> Vec<u8> {
    let name = member.name.as_bytes();
    let mut bytes = Vec::with_capacity(512);
    if name.len() >= 100 {
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX).saturating_add(1);
        bytes.extend(block(b"././@LongLink", 0o644, length, 0, b'L'));
        bytes.extend(name);
        // The name's NUL, and zeros up to the next block.
        let padded = bytes.len().saturating_add(1).next_multiple_of(512);
        bytes.resize(padded, 0);
    }
    let mtime = u64::try_from(member.mtime).unwrap_or(0);
    bytes.extend(block(name, member.mode, member.size, mtime, b'0'));
    bytes
}

fn block(name: &[u8], mode: u32, size: u64, mtime: u64, kind: u8) -> Vec<u8> {
    let with_sum = |sum: &[u8]| {
        let mut block = Vec::with_capacity(512);
        put(&mut block, name, 100);
        put(&mut block, format!("{:07o}", mode & 0o7777).as_bytes(), 8);
        put(&mut block, b"0000000", 8);
        put(&mut block, b"0000000", 8);
        put(&mut block, &number(size), 12);
        put(&mut block, &number(mtime), 12);
        put(&mut block, sum, 8);
        block.push(kind);
        put(&mut block, b"", 100);
        put(&mut block, b"ustar  ", 8);
        put(&mut block, b"", 247);
        block
    };
    let sum = with_sum(b"        ").iter().fold(0_u64, |sum, byte| sum.saturating_add(u64::from(*byte)));
    with_sum(format!("{sum:06o}\0 ").as_bytes())
}

/// Appends the start of `text` and zeros up to `width` bytes.
fn put(block: &mut Vec<u8>, text: &[u8], width: usize) {
    block.extend(text.iter().chain(std::iter::repeat(&0)).take(width));
}

fn number(value: u64) -> Vec<u8> {
    if value < OCTAL_SIZES {
        return format!("{value:011o}").into_bytes();
    }
    let mut field = vec![0x80, 0, 0, 0];
    field.extend(value.to_be_bytes());
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ArtifactName {
        ArtifactName::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn headers_are_as_long_as_the_layout_says() {
        for length in [1, 99, 100, 101, 510, 511, 512, 513, 2000] {
            // Folders and files of at most 200 bytes.
            let text: String =
                (1..=length).map(|at| if at % 201 == 0 && at < length { '/' } else { 'n' }).collect();
            let name = name(&text);
            let member = Member { name: &name, size: 7, mode: 0o600, mtime: -1 };
            let header = header(member);
            assert_eq!(header_len(&name), Some(header.len() as u64), "{length}");
            assert_eq!(header.len() % 512, 0);
        }
    }

    #[test]
    fn artifacts_follow_each_other_block_by_block() {
        let (a, b) = (name("a"), name("b"));
        let member = |name, size| Member { name, size, mode: 0o644, mtime: 0 };
        let layout = Layout::new([member(&a, 513), member(&b, 0)].into_iter()).unwrap();
        assert_eq!(layout.spans[0], Span { start: 0, data: 512, data_end: 1025, end: 1536 });
        assert_eq!(layout.spans[1], Span { start: 1536, data: 2048, data_end: 2048, end: 2048 });
        assert_eq!(layout.total, 3072);
        assert_eq!([0, 1535, 1536, 2047, 2048].map(|at| layout.find(at)), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn sizes_past_two_to_the_64_are_no_layout() {
        let a = name("a");
        let member = Member { name: &a, size: u64::MAX - 600, mode: 0, mtime: 0 };
        assert_eq!(Layout::new([member, member].into_iter()), None);
    }
}
