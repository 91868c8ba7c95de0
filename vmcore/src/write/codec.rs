//! How one page becomes its stored bytes, and how it is proven that it comes back.

use super::{deflate, lzo};
use crate::format::{Codec, decode};

/// How much work a page is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// The fastest way whose output is as large as makedumpfile's, or a little smaller: the machine waits. That is zstd's level 1,
    /// and for zlib our own encoder.
    #[default]
    Fast,
    /// The level behind which next to nothing is won: what is written travels.
    Small,
}

impl Effort {
    /// The level of zstd. 13 is the first at which a page of 4 KiB is parsed optimally: 16 % smaller than 11, and all the levels behind
    /// it together win another 1 %.
    fn zstd(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Small => 13,
        }
    }

    fn zlib(self) -> Zlib {
        match self {
            Self::Fast => Zlib::Own(deflate::Compressor::default()),
            Self::Small => Zlib::Library(libdeflater::Compressor::new(
                libdeflater::CompressionLvl::new(12).unwrap_or_default(),
            )),
        }
    }
}

/// What makes zlib streams.
enum Zlib {
    Own(deflate::Compressor),
    Library(libdeflater::Compressor),
}

/// Encodes pages on one thread.
pub struct Encoder {
    codec: Codec,
    zlib: Zlib,
    snappy: snap::raw::Encoder,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lzo: lzo::Compressor,
    back: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder. lzo, snappy and raw know one effort only.
    #[must_use]
    pub fn new(codec: Codec, effort: Effort) -> Self {
        Self {
            codec,
            zlib: effort.zlib(),
            snappy: snap::raw::Encoder::new(),
            zstd: zstd::bulk::Compressor::new(effort.zstd()).ok(),
            lzo: lzo::Compressor::default(),
            back: Vec::new(),
        }
    }

    /// The codec that it encodes with.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Adds the stored form of `page` to `out`, and gives how it is stored: as it is where encoding saves nothing.
    pub fn encode(&mut self, page: &[u8], out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        // An output that takes as much as the page is of no use, so no more room than that is needed.
        let most = start.saturating_add(page.len());
        let len = match self.codec {
            Codec::Raw => None,
            Codec::Zlib => match &mut self.zlib {
                Zlib::Own(zlib) => zlib.compress(page, out).then(|| out.len().saturating_sub(start)),
                Zlib::Library(zlib) => {
                    out.resize(most, 0);
                    out.get_mut(start..).and_then(|to| zlib.zlib_compress(page, to).ok())
                }
            },
            Codec::Lzo => self.lzo.compress(page, out).then(|| out.len().saturating_sub(start)),
            Codec::Snappy => {
                out.resize(start.saturating_add(snap::raw::max_compress_len(page.len())), 0);
                out.get_mut(start..).and_then(|to| self.snappy.compress(page, to).ok())
            }
            Codec::Zstd => {
                out.resize(most, 0);
                let to = out.get_mut(start..);
                to.zip(self.zstd.as_mut()).and_then(|(to, zstd)| zstd.compress_to_buffer(page, to).ok())
            }
        };
        if let Some(len) = len.filter(|len| *len < page.len()) {
            out.truncate(start.saturating_add(len));
            self.codec
        } else {
            out.truncate(start);
            out.extend_from_slice(page);
            Codec::Raw
        }
    }

    /// Decodes `stored` and compares it with `page`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn prove(&mut self, codec: Codec, stored: &[u8], page: &[u8]) -> Result<(), String> {
        self.back.resize(page.len(), 0);
        if codec == Codec::Raw {
            return if stored == page { Ok(()) } else { Err("its bytes differ".into()) };
        }
        decode(codec, stored, &mut self.back)?;
        if self.back == page { Ok(()) } else { Err("its bytes differ".into()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_page_comes_back_in_every_codec(
            words in prop::collection::vec((any::<u8>(), 1_usize..300), 1..80),
            codec in 0_usize..5,
        ) {
            let mut page: Vec<u8> = words.iter().flat_map(|(byte, n)| (0..*n).map(move |i| if *n > 20 { *byte } else { byte.wrapping_mul(i as u8) })).collect();
            page.resize(4096, 7);
            let mut encoder = Encoder::new(Codec::ALL[codec], Effort::Fast);
            let mut out = vec![1, 2, 3];
            for _ in 0..2 {
                out.truncate(3);
                let stored = encoder.encode(&page, &mut out);
                prop_assert!(out.len() - 3 <= page.len());
                prop_assert_eq!(encoder.prove(stored, &out[3..], &page), Ok(()));
                let mut back = vec![0; page.len()];
                prop_assert_eq!(decode(stored, &out[3..], &mut back), Ok(()));
                prop_assert_eq!(&back, &page);
            }
        }
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let mut x = 1_u32;
        let page: Vec<u8> = (0..4096)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 24) as u8
            })
            .collect();
        for codec in Codec::ALL {
            let mut out = Vec::new();
            assert_eq!(Encoder::new(codec, Effort::Small).encode(&page, &mut out), Codec::Raw);
            assert_eq!(out, page);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        for codec in Codec::ALL {
            let (page, mut out) = ([9_u8; 4096], Vec::new());
            let mut encoder = Encoder::new(codec, Effort::Small);
            let stored = encoder.encode(&page, &mut out);
            let mut other = page;
            other[4000] = 1;
            assert!(encoder.prove(stored, &out, &other).is_err(), "{codec}");
        }
    }
}
