//! LZO1X blocks, as makedumpfile's liblzo2 writes them; after the stream's description in the kernel's
//! `Documentation/staging/lzo.rst`.
//!
//! Written here because the free decoders for Rust panic on damaged blocks or follow their lengths into memory.
//! This one fills a buffer of the caller and can't leave it.

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LzoError {
    /// It ends before its end mark.
    #[error("the LZO block ends too early")]
    Short,
    /// It holds more than a page.
    #[error("the LZO block holds more than a page")]
    TooLong,
    /// It repeats bytes from before its start.
    #[error("the LZO block refers to bytes before its start")]
    Before,
}

/// Bytes that are copied at once, where there are so many.
const WIDE: usize = 16;
const HALF: usize = 8;

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, LzoError> {
        let (first, rest) = self.rest.split_first().ok_or(LzoError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], LzoError> {
        let (first, rest) = self.rest.split_at_checked(count).ok_or(LzoError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    fn le16(&mut self) -> Result<usize, LzoError> {
        let low = self.byte()?;
        let high = self.byte()?;
        Ok(usize::from(u16::from_le_bytes([low, high])))
    }

    /// A length that did not fit its instruction: zero bytes count 255 each, the byte after them itself.
    fn length(&mut self, short: usize, base: usize) -> Result<usize, LzoError> {
        if short != 0 {
            return Ok(short);
        }
        let mut sum = base;
        loop {
            let byte = self.byte()?;
            sum =
                sum.checked_add(if byte == 0 { 255 } else { usize::from(byte) }).ok_or(LzoError::TooLong)?;
            if byte != 0 {
                return Ok(sum);
            }
        }
    }
}

struct Output<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl Output<'_> {
    fn literals(&mut self, from: &mut Input<'_>, count: usize) -> Result<(), LzoError> {
        // Most are few: a copy of known length is one instruction, and what is too much is overwritten by what follows.
        if count <= WIDE
            && let Some(bytes) = from.rest.first_chunk::<WIDE>()
            && let Some(to) = self.buf.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut::<WIDE>)
        {
            *to = *bytes;
            from.rest = from.rest.get(count..).ok_or(LzoError::Short)?;
            self.at = self.at.wrapping_add(count);
            return Ok(());
        }
        let from = from.take(count)?;
        let end = self.at.checked_add(from.len()).ok_or(LzoError::TooLong)?;
        self.buf.get_mut(self.at..end).ok_or(LzoError::TooLong)?.copy_from_slice(from);
        self.at = end;
        Ok(())
    }

    /// Repeats `len` bytes from `distance` back. Where they overlap their own copy, they repeat as a pattern.
    fn repeat(&mut self, distance: usize, len: usize) -> Result<(), LzoError> {
        let from = self.at.checked_sub(distance).ok_or(LzoError::Before)?;
        let end = self.at.checked_add(len).filter(|end| *end <= self.buf.len()).ok_or(LzoError::TooLong)?;
        if len <= WIDE && distance >= WIDE && self.copy::<WIDE>(from, self.at) {
            self.at = end;
            return Ok(());
        }
        if len <= WIDE
            && distance >= HALF
            && self.copy::<HALF>(from, self.at)
            && (len <= HALF || self.copy::<HALF>(from.wrapping_add(HALF), self.at.wrapping_add(HALF)))
        {
            self.at = end;
            return Ok(());
        }
        while self.at < end {
            // What lies between `from` and here is the pattern, once or several times: it doubles each round.
            let pattern = self.at.saturating_sub(from);
            let count = pattern.min(end.saturating_sub(self.at));
            if count == 0 {
                return Err(LzoError::Before);
            }
            self.buf.copy_within(from..from.saturating_add(count), self.at);
            self.at = self.at.saturating_add(count);
        }
        Ok(())
    }

    /// Copies `N` bytes; false where there are not so many.
    fn copy<const N: usize>(&mut self, from: usize, to: usize) -> bool {
        let bytes = self.buf.get(from..).and_then(<[u8]>::first_chunk::<N>).copied();
        let to = self.buf.get_mut(to..).and_then(<[u8]>::first_chunk_mut::<N>);
        bytes.zip(to).map(|(bytes, to)| *to = bytes).is_some()
    }
}

/// Decodes one block into `page` and tells how many bytes it held.
///
/// # Errors
/// [`LzoError`], where the block is damaged or holds more than `page` can take.
pub fn decompress(block: &[u8], page: &mut [u8]) -> Result<usize, LzoError> {
    let mut input = Input { rest: block };
    let mut output = Output { buf: page, at: 0 };
    // How many literals went before the next instruction: 0, 1 to 3, or 4 for «more»; it changes what codes
    // below 16 mean.
    let mut state = 0;
    if let Some(first) = block.first().copied().map(usize::from).filter(|first| *first >= 18) {
        input.byte()?;
        let count = first.saturating_sub(17);
        output.literals(&mut input, count)?;
        state = count.min(4);
    }
    loop {
        let code = usize::from(input.byte()?);
        let (distance, len, literals);
        if code >= 64 {
            let high = usize::from(input.byte()?);
            distance = (high << 3).saturating_add((code >> 2) & 7).saturating_add(1);
            len = (code >> 5).saturating_add(1);
            literals = code & 3;
        } else if code >= 32 {
            len = input.length(code & 31, 31)?.saturating_add(2);
            let word = input.le16()?;
            distance = (word >> 2).saturating_add(1);
            literals = word & 3;
        } else if code >= 16 {
            len = input.length(code & 7, 7)?.saturating_add(2);
            let word = input.le16()?;
            distance = ((code & 8) << 11).saturating_add(word >> 2).saturating_add(16384);
            if distance == 16384 {
                return Ok(output.at);
            }
            literals = word & 3;
        } else if state == 0 {
            let count = input.length(code, 15)?.saturating_add(3);
            output.literals(&mut input, count)?;
            state = 4;
            continue;
        } else {
            let high = usize::from(input.byte()?);
            let near = (high << 2).saturating_add(code >> 2).saturating_add(1);
            (distance, len) = if state == 4 { (near.saturating_add(2048), 3) } else { (near, 2) };
            literals = code & 3;
        }
        output.repeat(distance, len)?;
        output.literals(&mut input, literals)?;
        state = literals;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(data: &[u8]) {
        let block = lzokay_native::compress(data).unwrap();
        let mut out = vec![0; data.len()];
        assert_eq!(decompress(&block, &mut out), Ok(data.len()));
        assert_eq!(out, data);
    }

    #[test]
    fn blocks_of_a_foreign_writer_decode() {
        round_trip(&[0; 4096]);
        round_trip(&(0..4096).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        round_trip(include_bytes!("lzo.rs"));
        let far: Vec<u8> = (0..65536u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        round_trip(&[&far[..40000], &far[..20000]].concat());
    }

    #[test]
    fn a_block_longer_than_the_page_is_refused() {
        let block = lzokay_native::compress(&[5; 5000]).unwrap();
        assert_eq!(decompress(&block, &mut [0; 4096]), Err(LzoError::TooLong));
    }

    #[test]
    fn a_block_cut_anywhere_ends_too_early() {
        let block = lzokay_native::compress(&include_bytes!("lzo.rs")[..4096]).unwrap();
        for len in 0..block.len() {
            assert_eq!(decompress(&block[..len], &mut [0; 4096]), Err(LzoError::Short), "cut at {len}");
        }
    }

    #[test]
    fn a_reference_before_the_start_is_refused() {
        assert_eq!(decompress(&[18, b'a', 0x40, 0xff], &mut [0; 64]), Err(LzoError::Before));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(data in prop::collection::vec(0u8..4, 1..5000)) {
            round_trip(&data);
        }

        #[test]
        fn patterns_of_any_length_come_back(
            words in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..24), 1usize..40), 1..60),
            room in 0usize..40,
        ) {
            let data: Vec<u8> = words.iter().flat_map(|(word, times)| word.repeat(*times)).collect();
            let block = lzokay_native::compress(&data).unwrap();
            let mut out = vec![0; data.len() + room];
            prop_assert_eq!(decompress(&block, &mut out), Ok(data.len()));
            prop_assert_eq!(&out[..data.len()], &data);
            prop_assert_eq!(decompress(&block, &mut out[..data.len() - 1]), Err(LzoError::TooLong));
        }

        #[test]
        fn any_bytes_decode_or_fail(block in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decompress(&block, &mut [0; 512]);
        }

        #[test]
        fn a_damaged_block_decodes_or_fails(at in 0usize..600, byte: u8) {
            let mut block = lzokay_native::compress(&include_bytes!("lzo.rs")[..4096]).unwrap();
            let at = at % block.len();
            block[at] = byte;
            let _ = decompress(&block, &mut [0; 4096]);
        }
    }
}
