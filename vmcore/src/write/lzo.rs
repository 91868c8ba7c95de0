//! LZO1X compression of one page, from the format as `lzo.rs` of [`crate::format`] reads it: greedy, one table of places.

/// Bits of a place in the table: more than a page has words find little more, and take time to clear.
const BITS: u32 = 13;
const FAR: usize = 0x4000;
/// Bytes at the end of a page in which no match begins.
const TAIL: usize = 8;
/// Bytes that are copied at once where there are so many: a copy of known length is one instruction, and what is too much
/// is overwritten by what follows.
const WIDE: usize = 16;

/// Compresses pages on one thread.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    /// Where four bytes with this hash were seen last; the start where they were not, for what is there is compared anyway.
    seen: Box<[u16; 1 << BITS]>,
    room: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { seen: Box::new([0; 1 << BITS]), room: Vec::new() }
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<N>)
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(|four| u32::from_le_bytes(*four))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    chunk(bytes, at).map(|eight| u64::from_le_bytes(*eight))
}

/// The low byte.
fn byte(n: usize) -> u8 {
    n.to_le_bytes().first().copied().unwrap_or(0)
}

/// How many bytes at `a` and, before it, at `b` are alike.
fn alike(page: &[u8], mut a: usize, mut b: usize) -> usize {
    let begun = a;
    while let (Some(x), Some(y)) = (eight(page, a), eight(page, b)) {
        let differ = x ^ y;
        if differ != 0 {
            let same = usize::try_from(differ.trailing_zeros() >> 3).unwrap_or(0);
            return a.wrapping_add(same).wrapping_sub(begun);
        }
        (a, b) = (a.wrapping_add(8), b.wrapping_add(8));
    }
    let rest = |at: usize| page.get(at..).unwrap_or_default();
    let same = rest(a).iter().zip(rest(b)).take_while(|(x, y)| x == y).count();
    a.wrapping_add(same).wrapping_sub(begun)
}

impl Compressor {
    /// Adds the compressed page to `out`; false where that saves nothing, and nothing was added then.
    pub(super) fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        // Places have 16 bits, and no architecture's page has more.
        if page.len() > 1 << 16 {
            return false;
        }
        self.seen.fill(0);
        self.room.resize(page.len().saturating_add(WIDE), 0);
        let mut to = Output { buf: &mut self.room, at: 0 };
        let done = encode(&mut self.seen, page, &mut to).is_some() && to.at < page.len();
        if done {
            out.extend_from_slice(to.buf.get(..to.at).unwrap_or_default());
        }
        done
    }
}

/// `None` where the output gets longer than the page.
fn encode(seen: &mut [u16; 1 << BITS], page: &[u8], to: &mut Output<'_>) -> Option<()> {
    let end = page.len().saturating_sub(TAIL);
    // The first byte finds nothing before it.
    let (mut at, mut literals) = (1_usize, 0_usize);
    while at < end {
        let word = four(page, at)?;
        let slot = usize::try_from(word.wrapping_mul(0x9e37_79b1) >> 32_u32.wrapping_sub(BITS)).unwrap_or(0);
        let place = seen.get_mut(slot)?;
        let before = usize::from(*place);
        *place = u16::try_from(at).unwrap_or(0);
        if four(page, before) != Some(word) || at.wrapping_sub(before) > FAR {
            // The longer nothing repeats, the less often it is asked.
            at = at.wrapping_add(1).wrapping_add(at.wrapping_sub(literals) >> 5);
            continue;
        }
        let len = alike(page, at.wrapping_add(4), before.wrapping_add(4)).wrapping_add(4);
        to.literals(page, literals, at.wrapping_sub(literals))?;
        to.repeat(len, at.wrapping_sub(before))?;
        at = at.wrapping_add(len);
        literals = at;
    }
    to.literals(page, literals, page.len().saturating_sub(literals))?;
    to.put([17, 0, 0])
}

/// What is written so far, in a buffer that is no longer than it is of use.
struct Output<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl Output<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.buf.get_mut(self.at..)?.first_chunk_mut::<N>()? = bytes;
        self.at = self.at.wrapping_add(N);
        Some(())
    }

    /// A length past what the first byte holds: zeros for 255 each, then the rest.
    fn long(&mut self, mut len: usize) -> Option<()> {
        while len > 255 {
            self.put([0])?;
            len = len.saturating_sub(255);
        }
        self.put([byte(len)])
    }

    fn literals(&mut self, page: &[u8], from: usize, len: usize) -> Option<()> {
        if len == 0 {
            return Some(());
        }
        if len <= 3 && self.at > 0 {
            // Two low bits of the match before are free for it.
            *self.buf.get_mut(self.at.wrapping_sub(2))? |= byte(len);
        } else if self.at == 0 && len <= 238 {
            self.put([byte(len.wrapping_add(17))])?;
        } else if len <= 18 {
            self.put([byte(len.wrapping_sub(3))])?;
        } else {
            self.put([0])?;
            self.long(len.wrapping_sub(18))?;
        }
        let room = self.buf.get_mut(self.at..)?;
        if len <= WIDE
            && let (Some(to), Some(from)) = (room.first_chunk_mut::<WIDE>(), chunk::<WIDE>(page, from))
        {
            *to = *from;
        } else {
            room.get_mut(..len)?.copy_from_slice(page.get(from..)?.get(..len)?);
        }
        self.at = self.at.wrapping_add(len);
        Some(())
    }

    fn repeat(&mut self, len: usize, back: usize) -> Option<()> {
        let back = back.wrapping_sub(1);
        if len <= 8 && back < 0x800 {
            return self.put([byte((len.wrapping_sub(1) << 5) | ((back & 7) << 2)), byte(back >> 3)]);
        }
        if len <= 33 {
            self.put([32 | byte(len.wrapping_sub(2))])?;
        } else {
            self.put([32])?;
            self.long(len.wrapping_sub(33))?;
        }
        self.put([byte((back & 0x3f) << 2), byte(back >> 6)])
    }
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
            let mut compressor = Compressor::default();
            let mut out = vec![1];
            if compressor.compress(&page, &mut out) {
                let block = out.split_off(1);
                prop_assert!(block.len() < page.len());
                let mut back = vec![0; page.len()];
                prop_assert_eq!(crate::format::lzo::decompress(&block, &mut back).unwrap(), page.len());
                prop_assert_eq!(&back, &page);
                prop_assert_eq!(lzokay_native::decompress_all(&block, Some(page.len())).unwrap(), page.clone());
                // What a thread did before does not show.
                compressor.compress(&page, &mut out);
                prop_assert_eq!(&out[1..], &block);
            } else {
                prop_assert_eq!(out, [1]);
            }
        }
    }

    #[test]
    fn what_is_longer_than_a_page_can_be_is_left_as_it_is() {
        assert!(Compressor::default().compress(&vec![5; 1 << 16], &mut Vec::new()));
        assert!(!Compressor::default().compress(&vec![5; (1 << 16) + 1], &mut Vec::new()));
    }

    #[test]
    fn a_page_of_one_byte_takes_a_few_bytes() {
        let mut out = Vec::new();
        assert!(Compressor::default().compress(&[5; 4096], &mut out));
        assert!(out.len() < 40, "{}", out.len());
    }
}
