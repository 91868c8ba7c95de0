//! zlib streams of one page each (RFC 1950 and 1951): one block, with codes that are made for it.
//!
//! A library that is made for long streams clears tables of 192 KiB before each page. The tables here are as small as a page is.

use super::huffman::{Huffman, Table};

/// The longest page.
const LONGEST_PAGE: usize = 1 << 16;
/// A page, and what is read past its end.
const ROOM: usize = LONGEST_PAGE + 16;
/// Bits of a place in the table of what was seen: 16 KiB, which stay in a core's first cache.
const BITS: u32 = 12;
/// Bytes at the end of a page in which no repetition begins.
const TAIL: usize = 8;
/// The shortest and the longest repetition that the format has.
const SHORTEST: usize = 3;
const LONGEST: usize = 258;
/// How far back it reaches.
const FAR: usize = 1 << 15;
/// Three bytes from further back than this take more bits than three bytes.
const FAR_FOR_SHORTEST: usize = 1 << 11;
/// A repetition as long as this is taken at once: none that begins a byte later is looked for.
const LONG: usize = 16;
/// The longest codes that are made. The format allows longer ones, which win next to nothing in a page, and cost each reader
/// a larger table.
const CODE_BITS: u32 = 10;
const PLACE_BITS: u32 = 9;
const LENGTH_BITS: u32 = 7;
/// The symbol of the end, behind those of all bytes and before those of lengths.
const END: usize = 256;
/// Two bytes that begin a zlib stream: deflate with a window of 32 KiB, made fast.
const HEAD: u32 = 0x0178;

/// The order in which the lengths of the codes of lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// How lengths of codes are told: the length before again, and zeros, few and many; then how many bits say how often.
const AGAIN: usize = 16;
const ZEROS: usize = 17;
const MANY_ZEROS: usize = 18;

/// By the symbol of a repetition's length, counted from [`END`] + 1: the shortest one, and how many bits say how much longer.
const LENGTHS: Table<(u16, u8), 32> = Table([
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
    (0, 0),
    (0, 0),
    (0, 0),
]);

/// Some bytes as they are, and then bytes that came before.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    literals: u16,
    /// 0 in the last step.
    len: u16,
    /// How far back, less one.
    back: u16,
}

/// A repetition that was found.
#[derive(Clone, Copy)]
struct Found {
    len: usize,
    back: usize,
}

impl Found {
    fn is_worthless(self) -> bool {
        self.len < SHORTEST || self.back > if self.len == SHORTEST { FAR_FOR_SHORTEST } else { FAR }
    }
}

/// Compresses pages on one thread.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    page: Box<[u8; ROOM]>,
    /// The two places where three bytes with this hash were seen last, the later one in the low half; the start where they
    /// were not, for what is there is compared anyway.
    seen: Box<Table<u32, { 1 << BITS }>>,
    steps: Vec<Step>,
    symbols: Box<Huffman<512, 288>>,
    places: Box<Huffman<32, 30>>,
    lengths: Box<Huffman<32, 19>>,
    /// The lengths of all codes: each a symbol of `lengths`, and how often.
    told: Vec<(u8, u8)>,
    room: Vec<u8>,
}

impl Default for Compressor {
    #[expect(clippy::large_stack_arrays, reason = "once for each thread, and much less than its stack")]
    fn default() -> Self {
        Self {
            page: Box::new([0; ROOM]),
            seen: Box::default(),
            steps: Vec::new(),
            symbols: Box::default(),
            places: Box::default(),
            lengths: Box::default(),
            told: Vec::new(),
            room: Vec::new(),
        }
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn place(n: u32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// A place or a length in a page.
fn half(n: usize) -> u16 {
    u16::try_from(n & 0xffff).unwrap_or(0)
}

/// Eight bytes of a page, the first lowest.
fn eight(page: &[u8; ROOM], at: usize) -> u64 {
    let at = at & LONGEST_PAGE.wrapping_sub(1);
    let bytes = page.get(at..at.wrapping_add(8)).and_then(<[u8]>::first_chunk::<8>);
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn slot(eight: u64) -> usize {
    let three = (eight << 40).wrapping_mul(0x9e37_79b1_7f4a_7c15);
    usize::try_from(three >> 64_u32.wrapping_sub(BITS)).unwrap_or(0)
}

/// The symbol of a length, counted from [`END`] + 1.
fn length_symbol(len: usize) -> usize {
    if len == LONGEST {
        return 28;
    }
    let (symbol, _) = power(len.saturating_sub(SHORTEST), 2);
    symbol
}

/// The symbol of a number that is told by its highest bits, the first and `more` behind it, and how many are told beside it.
fn power(n: usize, more: u32) -> (usize, u32) {
    let extra = (small(n) >> more | 1).ilog2();
    let symbol = place(extra << more).wrapping_add(n.wrapping_shr(extra));
    (symbol, extra)
}

impl Compressor {
    /// Adds the zlib stream of a page to `out`; false where that saves nothing, and nothing was added then.
    pub(super) fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let mut room = std::mem::take(&mut self.room);
        // What takes as much as the page is of no use; eight bytes are put at once.
        room.resize(page.len().saturating_add(8), 0);
        let len = self.encode(page, &mut room).filter(|len| *len < page.len());
        if let Some(bytes) = len.and_then(|len| room.get(..len)) {
            out.extend_from_slice(bytes);
        }
        self.room = room;
        len.is_some()
    }

    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        if page.is_empty() || page.len() > LONGEST_PAGE {
            return None;
        }
        self.page.get_mut(..page.len())?.copy_from_slice(page);
        self.page.get_mut(page.len()..)?.first_chunk_mut::<16>()?.fill(0);
        self.seen.0.fill(0);
        self.symbols.counts = Table::default();
        self.places.counts = Table::default();
        self.parse(page.len());
        self.symbols.counts.set(END, 1);
        self.symbols.make(CODE_BITS);
        self.places.make(PLACE_BITS);
        let mut to = Bits { out, at: 0, rest: 0, count: 0 };
        to.add(HEAD, 16);
        self.head(&mut to)?;
        let to = self.body(page, to)?;
        to.end(libdeflater::adler32(page).to_be_bytes())
    }

    /// Looks for the longest of two repetitions at `at`, and notes the place.
    fn find(&mut self, at: usize, len: usize) -> Found {
        let here = eight(&self.page, at);
        let slot = slot(here);
        let places = self.seen.get(slot);
        self.seen.set(slot, (places << 16) | u32::from(half(at)));
        // The longer one is the greater number. Seven bytes are told for sure: of what can't be zero, the zeros behind it
        // are counted in one step.
        let same = |before: u32| {
            let differ = (eight(&self.page, place(before)) ^ here) | 1 << 63;
            ((differ.trailing_zeros() >> 3) << 16) | before
        };
        let best = same(places & 0xffff).max(same(places >> 16));
        let before = place(best & 0xffff);
        let mut same = place(best >> 16);
        let most = LONGEST.min(len.wrapping_sub(at));
        if same == 7 {
            while same < most {
                let differ =
                    eight(&self.page, at.wrapping_add(same)) ^ eight(&self.page, before.wrapping_add(same));
                if differ != 0 {
                    same = same.wrapping_add(place(differ.trailing_zeros() >> 3));
                    break;
                }
                same = same.wrapping_add(8);
            }
        }
        Found { len: same.min(most), back: at.wrapping_sub(before) }
    }

    fn note(&mut self, at: usize) {
        let slot = slot(eight(&self.page, at));
        self.seen.set(slot, (self.seen.get(slot) << 16) | u32::from(half(at)));
    }

    /// Counts bytes that are stored as they are.
    fn count(&mut self, from: usize, to: usize) {
        for byte in self.page.get(from..to).unwrap_or_default() {
            self.symbols.counts.add(usize::from(*byte), 1);
        }
    }

    /// Cuts the page into steps, and counts their symbols.
    fn parse(&mut self, len: usize) {
        self.steps.clear();
        let end = len.saturating_sub(TAIL);
        // The first byte finds nothing before it.
        let (mut at, mut literals) = (1_usize, 0_usize);
        while at < end {
            let mut found = self.find(at, len);
            if found.is_worthless() {
                // The longer nothing repeats, the less often it is asked.
                at = at.wrapping_add(1).wrapping_add(at.wrapping_sub(literals) >> 5);
                continue;
            }
            while found.len < LONG && at.wrapping_add(1) < end {
                let later = self.find(at.wrapping_add(1), len);
                if later.len <= found.len || later.back > FAR {
                    break;
                }
                at = at.wrapping_add(1);
                found = later;
            }
            self.count(literals, at);
            let back = found.back.wrapping_sub(1);
            self.symbols.counts.add(END.wrapping_add(1).wrapping_add(length_symbol(found.len)), 1);
            self.places.counts.add(power(back, 1).0, 1);
            self.steps.push(Step {
                literals: half(at.wrapping_sub(literals)),
                len: half(found.len),
                back: half(back),
            });
            at = at.wrapping_add(found.len);
            literals = at;
            if at < end {
                self.note(at.wrapping_sub(2));
                self.note(at.wrapping_sub(1));
            }
        }
        self.count(literals, len);
        self.steps.push(Step { literals: half(len.wrapping_sub(literals)), len: 0, back: 0 });
    }

    /// The lengths of the codes, where these are shorter with that than the codes that the format knows.
    fn head(&mut self, to: &mut Bits<'_>) -> Option<()> {
        let symbols = self.symbols.used().max(END.wrapping_add(1));
        let places = self.places.used().max(1);
        self.tell(symbols, places);
        self.lengths.make(LENGTH_BITS);
        let last = ORDER.iter().rposition(|symbol| self.lengths.lens.get(*symbol) > 0).unwrap_or(0);
        let lengths = last.wrapping_add(1).max(4);
        let more = [(AGAIN, 2_u32), (ZEROS, 3), (MANY_ZEROS, 7)];
        let more = more.map(|(symbol, bits)| self.lengths.counts.get(symbol).wrapping_mul(bits));
        let head = small(lengths).wrapping_mul(3).wrapping_add(14).wrapping_add(self.lengths.bits());
        let own = [self.symbols.bits(), self.places.bits(), head].into_iter().chain(more);
        if self.known_bits() <= own.fold(0, u32::wrapping_add) {
            to.add(0b011, 3);
            self.know();
            return to.flush();
        }
        to.add(0b101, 3);
        to.add(small(symbols.wrapping_sub(257)), 5);
        to.add(small(places.wrapping_sub(1)), 5);
        to.add(small(lengths.wrapping_sub(4)), 4);
        to.flush()?;
        for symbol in ORDER.iter().take(lengths) {
            to.add(u32::from(self.lengths.lens.get(*symbol)), 3);
            to.flush()?;
        }
        for (symbol, times) in &self.told {
            let symbol = usize::from(*symbol);
            to.code(self.lengths.code(symbol));
            let bits = match symbol {
                AGAIN => 2,
                ZEROS => 3,
                MANY_ZEROS => 7,
                _ => 0,
            };
            to.add(u32::from(*times), bits);
            to.flush()?;
        }
        Some(())
    }

    /// Says the lengths of all codes in few words.
    fn tell(&mut self, symbols: usize, places: usize) {
        self.told.clear();
        self.lengths.counts = Table::default();
        let mut tell = |symbol: usize, times: usize| {
            self.lengths.counts.add(symbol, 1);
            self.told.push((u8::try_from(symbol).unwrap_or(0), u8::try_from(times).unwrap_or(0)));
        };
        let mut say = |len: u8, mut times: usize| {
            if len == 0 {
                while times > 10 {
                    let now = times.min(138);
                    tell(MANY_ZEROS, now.wrapping_sub(11));
                    times = times.wrapping_sub(now);
                }
                if times > 2 {
                    tell(ZEROS, times.wrapping_sub(3));
                    times = 0;
                }
            } else {
                tell(usize::from(len), 0);
                times = times.wrapping_sub(1);
                while times > 2 {
                    let now = times.min(6);
                    tell(AGAIN, now.wrapping_sub(3));
                    times = times.wrapping_sub(now);
                }
            }
            for _ in 0..times {
                tell(usize::from(len), 0);
            }
        };
        let (mut before, mut times) = (0_u8, 0_usize);
        let symbols = self.symbols.lens.0.iter().take(symbols);
        for len in symbols.chain(self.places.lens.0.iter().take(places)) {
            if *len != before {
                if times > 0 {
                    say(before, times);
                }
                (before, times) = (*len, 0);
            }
            times = times.wrapping_add(1);
        }
        say(before, times);
    }

    /// How many bits the page takes with the codes that the format knows.
    fn known_bits(&self) -> u32 {
        let count = |counts: &[u32]| counts.iter().fold(0_u32, |sum, n| sum.wrapping_add(*n));
        let symbols = |from: usize, to: usize| count(self.symbols.counts.0.get(from..to).unwrap_or_default());
        let bits = [(0, 144, 8), (144, 256, 9), (256, 280, 7), (280, 288, 8)];
        let bits = bits.map(|(from, to, bits): (_, _, u32)| symbols(from, to).wrapping_mul(bits));
        bits.into_iter().fold(count(&self.places.counts.0).wrapping_mul(5), u32::wrapping_add)
    }

    /// Takes the codes that the format knows.
    fn know(&mut self) {
        for (symbol, len) in self.symbols.lens.0.iter_mut().enumerate() {
            *len = match symbol {
                0..144 | 280..288 => 8,
                144..256 => 9,
                256..280 => 7,
                _ => 0,
            };
        }
        self.places.lens.0.fill(5);
        self.symbols.assign();
        self.places.assign();
    }

    /// Takes and gives `to`, so that what is in it stays in registers.
    fn body<'o>(&self, page: &[u8], mut to: Bits<'o>) -> Option<Bits<'o>> {
        let mut rest = page;
        for step in &self.steps {
            let (now, later) = rest.split_at_checked(usize::from(step.literals))?;
            let mut now = now;
            // Four codes and what is left of a byte are no more than can be added at once.
            while let Some((four, later)) = now.split_first_chunk::<4>() {
                for byte in four {
                    to.code(self.symbols.code(usize::from(*byte)));
                }
                to.flush()?;
                now = later;
            }
            for byte in now {
                to.code(self.symbols.code(usize::from(*byte)));
            }
            to.flush()?;
            if step.len > 0 {
                let symbol = length_symbol(usize::from(step.len));
                to.code(self.symbols.code(END.wrapping_add(1).wrapping_add(symbol)));
                let (shortest, extra) = LENGTHS.get(symbol);
                to.add(u32::from(step.len.wrapping_sub(shortest)), u32::from(extra));
                let (symbol, extra) = power(usize::from(step.back), 1);
                to.code(self.places.code(symbol));
                to.add(u32::from(step.back) & 1_u32.wrapping_shl(extra).wrapping_sub(1), extra);
                to.flush()?;
            }
            rest = later.get(usize::from(step.len)..)?;
        }
        to.code(self.symbols.code(END));
        to.flush()?;
        Some(to)
    }
}

/// Bits, the first in the lowest bit of the first byte.
struct Bits<'a> {
    out: &'a mut [u8],
    at: usize,
    /// What is not put yet, and how many bits of it there are.
    rest: u64,
    count: u32,
}

impl Bits<'_> {
    /// Up to 56 bits may be added before they are flushed.
    fn add(&mut self, bits: u32, count: u32) {
        self.rest |= u64::from(bits).wrapping_shl(self.count);
        self.count = self.count.wrapping_add(count);
    }

    fn code(&mut self, (bits, count): (u32, u32)) {
        self.add(bits, count);
    }

    /// Puts the whole bytes. `None` where there is no room for eight.
    fn flush(&mut self) -> Option<()> {
        *self.out.get_mut(self.at..)?.first_chunk_mut::<8>()? = self.rest.to_le_bytes();
        self.at = self.at.wrapping_add(place(self.count >> 3));
        self.rest = self.rest.wrapping_shr(self.count & !7);
        self.count &= 7;
        Some(())
    }

    /// Begins a byte and puts the sum. How long all of it is.
    fn end(self, sum: [u8; 4]) -> Option<usize> {
        let at = self.at.wrapping_add(usize::from(self.count > 0));
        *self.out.get_mut(at..)?.first_chunk_mut::<4>()? = sum;
        Some(at.wrapping_add(4))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn two_readers(stream: &[u8], page: &[u8]) {
        let mut back = vec![0; page.len()];
        crate::format::decode(crate::format::Codec::Zlib, stream, &mut back).unwrap();
        assert_eq!(back, page);
        let mut back = Vec::new();
        flate2::read::ZlibDecoder::new(stream).read_to_end(&mut back).unwrap();
        assert_eq!(back, page);
    }

    proptest! {
        #[test]
        fn two_readers_read_it(
            words in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1_usize..30), 1..60),
            len in prop_oneof![1_usize..5000, 1_usize..=LONGEST_PAGE],
        ) {
            let mut page: Vec<u8> = words.iter().flat_map(|(word, times)| word.repeat(*times)).collect();
            page = page.iter().copied().cycle().take(len).collect();
            let mut compressor = Compressor::default();
            let mut out = vec![1];
            if compressor.compress(&page, &mut out) {
                let stream = out.split_off(1);
                prop_assert!(stream.len() < page.len());
                two_readers(&stream, &page);
                // What a thread did before does not show.
                compressor.compress(&page, &mut out);
                prop_assert_eq!(&out[1..], &stream);
            } else {
                prop_assert_eq!(out, [1]);
            }
        }
    }

    #[test]
    fn each_length_and_each_distance_is_said() {
        let noise: Vec<u8> = (0..LONGEST_PAGE as u32)
            .map(|n| (n.wrapping_mul(n) >> 7).wrapping_mul(0x9e37_79b1).to_le_bytes()[3])
            .collect();
        let mut compressor = Compressor::default();
        for len in 3..300 {
            for back in [1, 2, 3, 4, 5, 8, 100, 4095, 32_767, 32_768, 32_769, 40_000] {
                let mut page = noise[..back.max(len)].to_vec();
                for _ in 0..len {
                    page.push(page[page.len() - back]);
                }
                page.extend(&noise[..9]);
                page.truncate(LONGEST_PAGE);
                let mut out = Vec::new();
                if compressor.compress(&page, &mut out) {
                    two_readers(&out, &page);
                }
            }
        }
    }

    #[test]
    fn a_symbol_has_the_lengths_that_the_format_gives_it() {
        for len in SHORTEST..=LONGEST {
            let (shortest, extra) = LENGTHS.get(length_symbol(len));
            let more = len - usize::from(shortest);
            assert!(more < 1 << extra, "{len}");
        }
        // RFC 1951: 4 is the symbol of 5 and 6, 29 of 24,577 to 32,768.
        assert_eq!(
            [power(4, 1), power(5, 1), power(24_576, 1), power(32_767, 1)],
            [(4, 1), (4, 1), (29, 13), (29, 13)]
        );
        assert_eq!(
            [power(0, 1).0, power(1, 1).0, power(2, 1).0, power(3, 1).0, power(6, 1).0],
            [0, 1, 2, 3, 5]
        );
    }

    #[test]
    fn what_is_longer_than_a_page_can_be_is_left_as_it_is() {
        assert!(Compressor::default().compress(&vec![5; LONGEST_PAGE], &mut Vec::new()));
        assert!(!Compressor::default().compress(&vec![5; LONGEST_PAGE + 1], &mut Vec::new()));
        assert!(!Compressor::default().compress(&[], &mut Vec::new()));
    }

    #[test]
    fn a_page_of_one_byte_takes_a_few_bytes() {
        let mut out = Vec::new();
        assert!(Compressor::default().compress(&[5; 4096], &mut out));
        assert!(out.len() < 40, "{}", out.len());
    }
}
