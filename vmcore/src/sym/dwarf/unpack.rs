//! Compressed sections: `SHF_COMPRESSED` (zlib, zstd) and the older `.zdebug_…`.

use std::io::Read;

use object::elf;

use crate::xlat::le;

/// Bytes before the data of a section with `SHF_COMPRESSED` (`Elf64_Chdr`).
const CHDR: usize = 24;
/// Bytes before the data of a `.zdebug_…` section: `ZLIB`, and the length as a big-endian number.
const ZHDR: usize = 12;

/// What a section with `SHF_COMPRESSED` holds.
pub(super) fn compressed(bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let (Some(kind), Some(size), Some(data)) =
        (le::u32_at(bytes, 0), le::u64_at(bytes, 8), bytes.get(CHDR..))
    else {
        return Err("it is too short for a compressed section".into());
    };
    if kind == elf::ELFCOMPRESS_ZLIB.0 {
        drain(flate2::read::ZlibDecoder::new(data), size, most)
    } else if kind == elf::ELFCOMPRESS_ZSTD.0 {
        let decoder = zstd::stream::read::Decoder::new(data).map_err(|e| e.to_string())?;
        drain(decoder, size, most)
    } else {
        Err(format!("it is compressed in a way that is not known ({kind})"))
    }
}

/// What a `.zdebug_…` section holds.
pub(super) fn zdebug(bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let size = bytes.get(4..ZHDR).and_then(|s| s.try_into().ok()).map(u64::from_be_bytes);
    match (bytes.starts_with(b"ZLIB"), size, bytes.get(ZHDR..)) {
        (true, Some(size), Some(data)) => drain(flate2::read::ZlibDecoder::new(data), size, most),
        _ => Err("it does not begin as a compressed section does".into()),
    }
}

/// A whole file that is a zstd stream, such as a module below `/lib/modules`.
pub(super) fn zstd_file(bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    decoder.take(most.saturating_add(1)).read_to_end(&mut out).map_err(|e| e.to_string())?;
    if u64::try_from(out.len()).is_ok_and(|n| n <= most) {
        Ok(out)
    } else {
        Err(format!("it unpacks to more than {most} bytes"))
    }
}

/// Exactly `size` bytes. They are allocated as they come, so that a header that lies costs no memory.
fn drain(from: impl Read, size: u64, most: u64) -> Result<Vec<u8>, String> {
    if size > most {
        return Err(format!("it says that it unpacks to {size} bytes, which is too much"));
    }
    let mut out = Vec::new();
    from.take(size).read_to_end(&mut out).map_err(|e| format!("it does not unpack: {e}"))?;
    if u64::try_from(out.len()).is_ok_and(|n| n == size) {
        Ok(out)
    } else {
        Err(format!("it unpacks to {} bytes instead of {size}", out.len()))
    }
}
