//! LZO1X compression of one page, from the format as `lzo.rs` of [`crate::format`] reads it: greedy, one table of places.

const BITS: u32 = 12;
const FAR: usize = 0x4000;
/// Bytes at the end of a page in which no match begins.
const TAIL: usize = 8;

/// Compresses pages on one thread.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    /// Where four bytes with this hash were seen last, plus one; 0 for nowhere.
    seen: Box<[u32; 1 << BITS]>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { seen: Box::new([0; 1 << BITS]) }
    }
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|four| u32::from_le_bytes(*four))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<8>).map(|eight| u64::from_le_bytes(*eight))
}

/// The low byte.
fn byte(n: usize) -> u8 {
    n.to_le_bytes().first().copied().unwrap_or(0)
}

/// How many bytes at `a` and, before it, at `b` are alike.
fn alike(page: &[u8], a: usize, b: usize) -> usize {
    let mut len = 0_usize;
    while let (Some(x), Some(y)) = (eight(page, a.saturating_add(len)), eight(page, b.saturating_add(len))) {
        let differ = x ^ y;
        if differ != 0 {
            return len.saturating_add(usize::try_from(differ.trailing_zeros() >> 3).unwrap_or(0));
        }
        len = len.saturating_add(8);
    }
    let rest = |at: usize| page.get(at.saturating_add(len)..).unwrap_or_default();
    len.saturating_add(rest(a).iter().zip(rest(b)).take_while(|(x, y)| x == y).count())
}

impl Compressor {
    /// Adds the compressed page to `out`; false where that saves nothing, and what was added is of no use then.
    pub(super) fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        self.seen.fill(0);
        let begun = out.len();
        let full = begun.saturating_add(page.len());
        let end = page.len().saturating_sub(TAIL);
        let (mut at, mut literals) = (0_usize, 0_usize);
        while at < end {
            let Some(word) = four(page, at) else { break };
            let slot = usize::try_from(word.wrapping_mul(0x9e37_79b1) >> 20).unwrap_or(0);
            let Some(place) = self.seen.get_mut(slot) else { break };
            let before = usize::try_from(*place).unwrap_or(0).checked_sub(1);
            *place = u32::try_from(at.saturating_add(1)).unwrap_or(0);
            let found = before.filter(|b| at.saturating_sub(*b) <= FAR && four(page, *b) == Some(word));
            let Some(before) = found else {
                // The longer nothing repeats, the less often it is asked.
                at = at.saturating_add(1).saturating_add(at.saturating_sub(literals) >> 5);
                continue;
            };
            let len = alike(page, at, before);
            put_literals(page.get(literals..at).unwrap_or_default(), begun, out);
            put_match(len, at.saturating_sub(before), out);
            at = at.saturating_add(len);
            literals = at;
            if out.len() >= full {
                return false;
            }
        }
        put_literals(page.get(literals..).unwrap_or_default(), begun, out);
        out.extend([17, 0, 0]);
        out.len() < full
    }
}

/// A length past what the first byte holds: zeros for 255 each, then the rest.
fn put_long(mut len: usize, out: &mut Vec<u8>) {
    while len > 255 {
        out.push(0);
        len = len.saturating_sub(255);
    }
    out.push(byte(len));
}

fn put_literals(run: &[u8], begun: usize, out: &mut Vec<u8>) {
    let len = run.len();
    if len == 0 {
        return;
    }
    if out.len() == begun && len <= 238 {
        out.push(byte(len.saturating_add(17)));
    } else if len <= 3 && out.len() > begun {
        // Two low bits of the match before are free for it.
        let place = out.len().saturating_sub(2);
        if let Some(last) = out.get_mut(place) {
            *last |= byte(len);
        }
    } else if len <= 18 {
        out.push(byte(len.saturating_sub(3)));
    } else {
        out.push(0);
        put_long(len.saturating_sub(18), out);
    }
    out.extend_from_slice(run);
}

fn put_match(len: usize, back: usize, out: &mut Vec<u8>) {
    let back = back.saturating_sub(1);
    if len <= 8 && back < 0x800 {
        out.extend([byte((len.saturating_sub(1) << 5) | ((back & 7) << 2)), byte(back >> 3)]);
        return;
    }
    if len <= 33 {
        out.push(32 | byte(len.saturating_sub(2)));
    } else {
        out.push(32);
        put_long(len.saturating_sub(33), out);
    }
    out.extend([byte((back & 0x3f) << 2), byte(back >> 6)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_readers_read_it(
            words in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1_usize..30), 1..40),
            len in 1_usize..20_000,
        ) {
            let mut page: Vec<u8> = words.iter().flat_map(|(word, times)| word.repeat(*times)).collect();
            page.resize(len, 0);
            let mut out = Vec::new();
            if Compressor::default().compress(&page, &mut out) {
                let mut back = vec![0; page.len()];
                prop_assert_eq!(crate::format::lzo::decompress(&out, &mut back).unwrap(), page.len());
                prop_assert_eq!(&back, &page);
                prop_assert_eq!(lzokay_native::decompress_all(&out, Some(page.len())).unwrap(), page);
            }
        }
    }

    #[test]
    fn a_page_of_one_byte_takes_a_few_bytes() {
        let mut out = Vec::new();
        assert!(Compressor::default().compress(&[5; 4096], &mut out));
        assert!(out.len() < 40, "{}", out.len());
    }
}
