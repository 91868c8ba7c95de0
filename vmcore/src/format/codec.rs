//! How one page of a kdump-compressed dump is stored, and how it becomes a page again.

use std::cell::RefCell;
use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use super::lzo;
use crate::raw::diskdump;

/// How a page's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As they are.
    Raw,
    /// A zlib stream.
    Zlib,
    /// An LZO1X block.
    Lzo,
    /// A raw Snappy block.
    Snappy,
    /// A Zstandard frame.
    Zstd,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Zlib, Self::Lzo, Self::Snappy, Self::Zstd];

    /// The word for it: `zlib`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Zlib => "zlib",
            Self::Lzo => "lzo",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }

    /// The codec that a page descriptor's flags name; `None` for flags that name two or none that is known.
    #[must_use]
    pub fn from_flags(flags: u32) -> Option<Self> {
        match flags {
            0 => Some(Self::Raw),
            diskdump::COMPRESSED_ZLIB => Some(Self::Zlib),
            diskdump::COMPRESSED_LZO => Some(Self::Lzo),
            diskdump::COMPRESSED_SNAPPY => Some(Self::Snappy),
            diskdump::COMPRESSED_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The flag that names it, in a page descriptor and in the header's `status`.
    #[must_use]
    pub fn flag(self) -> u32 {
        match self {
            Self::Raw => 0,
            Self::Zlib => diskdump::COMPRESSED_ZLIB,
            Self::Lzo => diskdump::COMPRESSED_LZO,
            Self::Snappy => diskdump::COMPRESSED_SNAPPY,
            Self::Zstd => diskdump::COMPRESSED_ZSTD,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each thread keeps from one page to the next, because making it costs more than a page.
struct Contexts {
    zlib: libdeflater::Decompressor,
    /// Slower, and says what is wrong.
    inflate: Decompress,
    snappy: snap::raw::Decoder,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::new(Contexts {
        zlib: libdeflater::Decompressor::new(),
        inflate: Decompress::new(true),
        snappy: snap::raw::Decoder::new(),
        zstd: None,
    });
}

/// Decodes one page: `stored` must hold exactly as many bytes as `page` takes.
///
/// # Errors
/// One clause that says what is wrong with the bytes.
pub fn decode(codec: Codec, stored: &[u8], page: &mut [u8]) -> Result<(), String> {
    let got = CONTEXTS.with_borrow_mut(|contexts| match codec {
        Codec::Raw => {
            if stored.len() == page.len() {
                page.copy_from_slice(stored);
            }
            Ok(stored.len())
        }
        Codec::Lzo => lzo::decompress(stored, page).map_err(|e| e.to_string()),
        Codec::Zlib => match contexts.zlib.zlib_decompress(stored, page) {
            Ok(len) if len == page.len() => Ok(len),
            _ => inflate(&mut contexts.inflate, stored, page),
        },
        Codec::Snappy => {
            let len =
                snap::raw::decompress_len(stored).map_err(|e| format!("the Snappy block is bad: {e}"))?;
            if len == page.len() {
                contexts.snappy.decompress(stored, page).map_err(|e| format!("the Snappy block is bad: {e}"))
            } else {
                Ok(len)
            }
        }
        Codec::Zstd => {
            let fail = |e| format!("the Zstandard frame is bad: {e}");
            let decoder = match &mut contexts.zstd {
                Some(decoder) => decoder,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(fail)?),
            };
            decoder.decompress_to_buffer(stored, page).map_err(fail)
        }
    })?;
    if got == page.len() {
        Ok(())
    } else {
        Err(format!("it holds {got} bytes and not a page of {}", page.len()))
    }
}

fn inflate(zlib: &mut Decompress, stored: &[u8], page: &mut [u8]) -> Result<usize, String> {
    zlib.reset(true);
    match zlib.decompress(stored, page, FlushDecompress::Finish) {
        Ok(Status::StreamEnd) => Ok(usize::try_from(zlib.total_out()).unwrap_or(usize::MAX)),
        Ok(Status::Ok | Status::BufError) => {
            if usize::try_from(zlib.total_out()).is_ok_and(|out| out >= page.len()) {
                Err("the zlib stream holds more than a page".into())
            } else {
                Err("the zlib stream ends too early".into())
            }
        }
        Err(e) => Err(format!("the zlib stream is bad: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn encode(codec: Codec, page: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Raw => page.to_vec(),
            Codec::Zlib => {
                let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(page).unwrap();
                out.finish().unwrap()
            }
            Codec::Lzo => lzokay_native::compress(page).unwrap(),
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(page).unwrap(),
            Codec::Zstd => zstd::bulk::compress(page, 1).unwrap(),
        }
    }

    fn page() -> Vec<u8> {
        (0..4096u32).map(|i| ((i * i) >> 7) as u8).collect()
    }

    #[test]
    fn a_page_of_each_codec_comes_back() {
        for codec in Codec::ALL {
            let mut out = [0; 4096];
            for _ in 0..2 {
                decode(codec, &encode(codec, &page()), &mut out).unwrap();
                assert_eq!(out[..], page()[..], "{codec}");
            }
        }
    }

    #[test]
    fn too_much_and_too_little_are_refused_and_the_next_page_is_not_hurt() {
        for codec in Codec::ALL {
            for len in [1, 4095, 4097, 20000] {
                let bad = encode(codec, &vec![3; len]);
                let err = decode(codec, &bad, &mut [0; 4096]).unwrap_err();
                assert!(!err.is_empty(), "{codec} {len}");
            }
            let mut out = [0; 4096];
            decode(codec, &encode(codec, &page()), &mut out).unwrap();
            assert_eq!(out[..], page()[..], "{codec}");
        }
    }

    #[test]
    fn the_wrong_codec_is_an_error() {
        for codec in Codec::ALL {
            for other in Codec::ALL.into_iter().filter(|other| *other != codec) {
                assert!(
                    decode(other, &encode(codec, &page()), &mut [0; 4096]).is_err(),
                    "{codec} as {other}"
                );
            }
        }
    }

    #[test]
    fn flags_that_name_two_codecs_name_none() {
        assert_eq!(Codec::from_flags(3), None);
        assert_eq!(Codec::from_flags(0x40), None);
        for codec in Codec::ALL {
            assert_eq!(Codec::from_flags(codec.flag()), Some(codec));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(codec in 0usize..5, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Codec::ALL[codec], &bytes, &mut [0; 4096]);
        }
    }
}
