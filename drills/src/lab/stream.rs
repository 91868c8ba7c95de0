//! Where a dump ends that was written to the beginning of a larger disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How many records or segments are looked at, at most.
const LIMIT: u32 = 100_000_000;

/// The length of a flattened stream (makedumpfile: `makedumpfile.h`, `struct makedumpfile_header` and
/// `struct makedumpfile_data_header`; both big-endian), up to and with its end mark. `None` where the file
/// does not begin with one, or where its end mark is missing.
///
/// # Errors
/// What the file says; a stream without end is no error.
pub(super) fn flattened_len(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let mut signature = [0; 12];
    if size < 4096 {
        return Ok(None);
    }
    file.read_exact_at(&mut signature, 0)?;
    if &signature != b"makedumpfile" {
        return Ok(None);
    }
    let mut at = 4096_u64;
    for _ in 0..LIMIT {
        let mut header = [0; 16];
        if at.checked_add(16).is_none_or(|end| end > size) {
            return Ok(None);
        }
        file.read_exact_at(&mut header, at)?;
        at += 16;
        let (offset, length) = header.split_at(8);
        let offset = i64::from_be_bytes(offset.try_into().unwrap_or_default());
        let length = i64::from_be_bytes(length.try_into().unwrap_or_default());
        match (offset, u64::try_from(length)) {
            (-1, _) => return Ok(Some(at)),
            (0.., Ok(1..)) => at = at.saturating_add(length.unsigned_abs()),
            // A disk that was not written on reads as zeros.
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// The length of a 64-bit ELF core: the end of the segment that lies last. `None` where it is no such file
/// or does not hold its last segment.
///
/// # Errors
/// What the file says.
pub(super) fn elf_len(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let mut header = [0; 64];
    if size < 64 {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    };
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let Some(table) = word(&header, 32) else { return Ok(None) };
    let count = u16::from_le_bytes([header[56], header[57]]);
    let mut end = 0;
    for index in 0..u64::from(count) {
        let mut segment = [0; 56];
        let Some(at) = table.checked_add(index * 56).filter(|at| at.saturating_add(56) <= size) else {
            return Ok(None);
        };
        file.read_exact_at(&mut segment, at)?;
        let (Some(offset), Some(length)) = (word(&segment, 8), word(&segment, 32)) else { return Ok(None) };
        end = end.max(offset.saturating_add(length));
    }
    Ok((end > 0 && end <= size).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn stream() -> Vec<u8> {
        let mut bytes = b"makedumpfile".to_vec();
        bytes.resize(4096, 0);
        for (offset, data) in [(0_i64, &b"abc"[..]), (4096, b"de")] {
            bytes.extend_from_slice(&offset.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u64).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes.extend_from_slice(&[0xff; 16]);
        bytes
    }

    #[test]
    fn a_stream_ends_at_its_mark_whatever_follows() {
        let mut bytes = stream();
        let len = bytes.len() as u64;
        bytes.extend_from_slice(&[0; 9000]);
        assert_eq!(flattened_len(&file(&bytes)).unwrap(), Some(len));
    }

    #[test]
    fn a_stream_without_mark_has_no_end() {
        let bytes = stream();
        for cut in [0, 11, 4095, 4096, 4100, bytes.len() - 1] {
            assert_eq!(flattened_len(&file(&bytes[..cut])).unwrap(), None, "cut at {cut}");
        }
        let mut zeros = bytes[..bytes.len() - 16].to_vec();
        zeros.extend_from_slice(&[0; 4096]);
        assert_eq!(flattened_len(&file(&zeros)).unwrap(), None);
    }

    #[test]
    fn an_elf_ends_where_its_last_segment_does() {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64 + 56, 0);
        bytes[32] = 64;
        bytes[56] = 1;
        bytes[64 + 8] = 120;
        bytes[64 + 32] = 30;
        assert_eq!(elf_len(&file(&bytes)).unwrap(), None, "the segment is not there");
        bytes.resize(5000, 0);
        assert_eq!(elf_len(&file(&bytes)).unwrap(), Some(150));
        assert_eq!(elf_len(&file(b"text")).unwrap(), None);
    }
}
