//! The talk between the collector and its reader: frames of a tag, a length and bytes over two pipes.

use std::io::{self, Read, Write};

/// A longer frame is a mistake of one side, not something to make room for.
const LONGEST: usize = 1 << 20;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Collector: name the files that match this glob.
    Glob,
    /// Collector: read a file; cap (8 bytes), kept end (1 byte), path.
    Read,
    /// Collector: have the kernel do what this letter of `/proc/sysrq-trigger` says.
    Sysrq,
    /// Reader: one match of a glob.
    Match,
    /// Reader: the file is a link; its target.
    Link,
    /// Reader: what kind of file it is, see [`Meta`].
    Meta,
    /// Reader: bytes of the file.
    Bytes,
    /// Reader: the answer is whole; a [`Verdict`] byte and a sentence.
    End,
}

const TAGS: [(Tag, u8); 8] = [
    (Tag::Glob, b'G'),
    (Tag::Read, b'R'),
    (Tag::Sysrq, b'Q'),
    (Tag::Match, b'p'),
    (Tag::Link, b'l'),
    (Tag::Meta, b'm'),
    (Tag::Bytes, b'b'),
    (Tag::End, b'e'),
];

impl Tag {
    fn byte(self) -> u8 {
        TAGS.iter().find(|(tag, _)| *tag == self).map_or(0, |(_, byte)| *byte)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        TAGS.iter().find(|(_, b)| *b == byte).map(|(tag, _)| *tag)
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All there is.
    Complete,
    /// There is more than was asked for.
    Truncated,
    /// No such thing.
    Absent,
    /// It is there and is not to be read.
    Refused,
    /// The operating system does not permit it.
    Denied,
    /// The operating system said something else.
    Failed,
}

const VERDICTS: [(Verdict, u8); 6] = [
    (Verdict::Complete, b'c'),
    (Verdict::Truncated, b't'),
    (Verdict::Absent, b'a'),
    (Verdict::Refused, b'r'),
    (Verdict::Denied, b'd'),
    (Verdict::Failed, b'f'),
];

/// The payload of [`Tag::End`].
pub(crate) fn end_payload(verdict: Verdict, why: &str) -> Vec<u8> {
    let byte = VERDICTS.iter().find(|(v, _)| *v == verdict).map_or(0, |(_, b)| *b);
    [&[byte], why.as_bytes()].concat()
}

/// The verdict and the sentence of a [`Tag::End`] payload.
pub(crate) fn parse_end(payload: &[u8]) -> Option<(Verdict, String)> {
    let (byte, why) = payload.split_first()?;
    let (verdict, _) = VERDICTS.iter().find(|(_, b)| b == byte)?;
    Some((*verdict, String::from_utf8_lossy(why).into_owned()))
}

/// What the bundle keeps of a file beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: u64,
    /// Where it really lies, with all links resolved, from the root of the host and without the first `/`.
    pub(crate) canonical: Vec<u8>,
}

impl Meta {
    pub(crate) fn to_payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.canonical.len());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.to_le_bytes());
        out.extend_from_slice(&self.canonical);
        out
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (mode, rest) = payload.split_first_chunk::<4>()?;
        let (uid, rest) = rest.split_first_chunk::<4>()?;
        let (gid, rest) = rest.split_first_chunk::<4>()?;
        let (mtime, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            mode: u32::from_le_bytes(*mode),
            uid: u32::from_le_bytes(*uid),
            gid: u32::from_le_bytes(*gid),
            mtime: u64::from_le_bytes(*mtime),
            canonical: rest.to_vec(),
        })
    }
}

/// Writes one frame.
pub(crate) fn write_frame(to: &mut dyn Write, tag: Tag, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let [a, b, c, d] = len.to_le_bytes();
    to.write_all(&[tag.byte(), a, b, c, d])?;
    to.write_all(payload)
}

/// Reads one frame, waiting for it; `None` at the end of the talk.
pub(crate) fn read_frame(from: &mut dyn Read) -> io::Result<Option<(Tag, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (tag, len) = parse_head(head)?;
    let mut payload = vec![0; len];
    from.read_exact(&mut payload)?;
    Ok(Some((tag, payload)))
}

/// The first frame in `buf` and how many bytes it takes; `None` while it is not whole.
pub(crate) fn split_frame(buf: &[u8]) -> io::Result<Option<(Tag, &[u8], usize)>> {
    let Some((head, rest)) = buf.split_first_chunk::<5>() else { return Ok(None) };
    let (tag, len) = parse_head(*head)?;
    Ok(rest.get(..len).map(|payload| (tag, payload, 5 + len)))
}

fn parse_head(head: [u8; 5]) -> io::Result<(Tag, usize)> {
    let [tag, a, b, c, d] = head;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    match Tag::from_byte(tag) {
        Some(tag) if len <= LONGEST => Ok((tag, len)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the reader process does not talk as a reader")),
    }
}
