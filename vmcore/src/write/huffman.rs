//! Codes for symbols, each as short as its symbol is frequent, as a zlib stream wants them.

/// A table whose length is a power of two, and whose places wrap: there is none outside of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<T, const N: usize>(pub(super) [T; N]);

impl<T: Copy + Default, const N: usize> Default for Table<T, N> {
    fn default() -> Self {
        Self([T::default(); N])
    }
}

impl<T: Copy + Default, const N: usize> Table<T, N> {
    pub(super) fn get(&self, at: usize) -> T {
        self.0.get(at & N.wrapping_sub(1)).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, at: usize, value: T) {
        if let Some(place) = self.0.get_mut(at & N.wrapping_sub(1)) {
            *place = value;
        }
    }
}

impl<const N: usize> Table<u32, N> {
    pub(super) fn add(&mut self, at: usize, more: u32) {
        self.set(at, self.get(at).wrapping_add(more));
    }
}

/// Bits of a symbol beside its count.
const SYMBOL_BITS: u32 = 9;
/// Counts from here on share a heap when symbols are sorted, and are sorted in it.
const MANY: u32 = 255;

/// The low bits of a symbol and of its count.
fn symbol_of(item: u32) -> usize {
    usize::try_from(item & 0x1ff).unwrap_or(0)
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn place(n: u32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// The bits of a byte the other way round.
#[expect(clippy::indexing_slicing, reason = "it is the compiler that fills the table")]
static REVERSED: Table<u8, 256> = {
    let mut table = [0; 256];
    let (mut at, mut byte) = (0, 0_u8);
    while at < 256 {
        table[at] = byte.reverse_bits();
        (at, byte) = (at + 1, byte.wrapping_add(1));
    }
    Table(table)
};

/// How often each symbol of an alphabet comes, and its code. `N` is a power of two, 512 at most; the alphabet has `S` symbols.
#[derive(Clone, Debug, Default)]
pub(super) struct Huffman<const N: usize, const S: usize> {
    /// How often each symbol comes: in sum less than 2^23.
    pub(super) counts: Table<u32, N>,
    /// Bits of each code, 0 for a symbol that does not come.
    pub(super) lens: Table<u8, N>,
    codes: Table<u32, N>,
}

impl<const N: usize, const S: usize> Huffman<N, S> {
    /// The bits of a symbol's code, the first lowest, and how many.
    pub(super) fn code(&self, symbol: usize) -> (u32, u32) {
        let code = self.codes.get(symbol);
        (code & 0xffff, code >> 16)
    }

    /// One more than the last symbol that has a code.
    pub(super) fn used(&self) -> usize {
        self.lens.0.iter().rposition(|len| *len > 0).map_or(0, |last| last.wrapping_add(1))
    }

    /// How many bits all symbols take that come.
    pub(super) fn bits(&self) -> u32 {
        let each = self.counts.0.iter().zip(&self.lens.0);
        each.fold(0, |sum, (count, len)| sum.wrapping_add(count.wrapping_mul(u32::from(*len))))
    }

    /// Makes codes of at most `longest` bits, at least two of them.
    pub(super) fn make(&mut self, longest: u32) {
        self.lens = Table::default();
        let (sorted, used) = self.sorted();
        if used < 2 {
            // A code that has one word only is no code to some readers.
            let only = symbol_of(sorted.get(0)).wrapping_mul(used);
            self.lens.set(only, 1);
            self.lens.set(usize::from(only == 0), 1);
        } else {
            // The rarest come first, and get the longest codes.
            let counts = lengths(&sorted, used, longest);
            let mut at = 0_usize;
            for len in (1..=longest).rev() {
                for _ in 0..counts.get(place(len)) {
                    self.lens.set(symbol_of(sorted.get(at)), u8::try_from(len).unwrap_or(0));
                    at = at.wrapping_add(1);
                }
            }
        }
        self.assign();
    }

    /// The symbols that come, each behind its count, the rarest first; and how many they are.
    fn sorted(&self) -> (Table<u32, 512>, usize) {
        let mut starts = Table::<u32, 256>::default();
        for count in self.counts.0.iter().take(S) {
            starts.add(place((*count).min(MANY)), 1);
        }
        let never = starts.get(0);
        let mut sum = 0_u32;
        for start in &mut starts.0 {
            (*start, sum) = (sum, sum.wrapping_add(*start));
        }
        let many = place(starts.get(place(MANY)).wrapping_sub(never));
        let mut sorted = Table::<u32, 512>::default();
        for (symbol, count) in self.counts.0.iter().take(S).enumerate() {
            let heap = place((*count).min(MANY));
            // Those that never come wrap to the end of the table, which nobody looks at.
            sorted.set(
                place(starts.get(heap).wrapping_sub(never)),
                (count << SYMBOL_BITS) | small(symbol & 0x1ff),
            );
            starts.add(heap, 1);
        }
        let used = place(sum.wrapping_sub(never));
        if let Some(many) = sorted.0.get_mut(many..used) {
            many.sort_unstable();
        }
        (sorted, used)
    }

    /// Gives out the words: of codes of one length in the order of their symbols, shorter ones before longer ones.
    pub(super) fn assign(&mut self) {
        let mut next = Table::<u32, 16>::default();
        for len in self.lens.0.iter().take(S) {
            next.add(usize::from(*len), 1);
        }
        next.set(0, 0);
        let mut word = 0_u32;
        for next in &mut next.0 {
            let count = *next;
            *next = word;
            word = word.wrapping_add(count) << 1;
        }
        for (len, code) in self.lens.0.iter().zip(&mut self.codes.0).take(S) {
            let word = next.get(usize::from(*len));
            let bits = u32::from(*len);
            let [high, low] = [word & 0xff, word >> 8].map(|byte| u32::from(REVERSED.get(place(byte))));
            *code = ((high << 8) | low).wrapping_shr(16_u32.wrapping_sub(bits)) | (bits << 16);
            next.set(usize::from(*len), word.wrapping_add(1));
        }
    }
}

/// How many codes there are of each length. The tree is built in place, the two rarest nodes first, which are always the
/// next of two queues (Moffat and Katajainen); where it gets too deep, a leaf higher up is put one deeper.
fn lengths(sorted: &Table<u32, 512>, used: usize, longest: u32) -> Table<u32, 16> {
    // Of each inner node its weight, then its parent, then its depth.
    let mut nodes = Table::<u32, 512>::default();
    let (mut leaf, mut node) = (0_usize, 0_usize);
    let root = used.wrapping_sub(2);
    for next in 0..=root {
        let mut weight = 0_u32;
        for _ in 0..2 {
            let rarest = sorted.get(leaf) >> SYMBOL_BITS;
            if leaf < used && (node == next || rarest <= nodes.get(node)) {
                weight = weight.wrapping_add(rarest);
                leaf = leaf.wrapping_add(1);
            } else {
                weight = weight.wrapping_add(nodes.get(node));
                nodes.set(node, small(next));
                node = node.wrapping_add(1);
            }
        }
        nodes.set(next, weight);
    }
    let mut counts = Table::<u32, 16>::default();
    counts.set(1, 2);
    nodes.set(root, 0);
    for inner in (0..root).rev() {
        let mut depth = nodes.get(place(nodes.get(inner))).wrapping_add(1);
        nodes.set(inner, depth);
        if depth >= longest {
            depth = longest.wrapping_sub(1);
            while depth > 0 && counts.get(place(depth)) == 0 {
                depth = depth.wrapping_sub(1);
            }
        }
        counts.add(place(depth), u32::MAX);
        counts.add(place(depth.wrapping_add(1)), 2);
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_code_begins_another_and_none_is_too_long(
            counts in prop::collection::vec(prop_oneof![Just(0_u32), 1_u32..9, 1_u32..4000], 1..288),
            longest in 9_u32..16,
        ) {
            let mut huffman = Huffman::<512, 288>::default();
            for (symbol, count) in counts.iter().enumerate() {
                huffman.counts.set(symbol, *count);
            }
            huffman.make(longest);
            // All words of the longest length begin with exactly one of them.
            let words: u32 = huffman.lens.0.iter().filter(|len| **len > 0).map(|len| 1 << (longest - u32::from(*len))).sum();
            prop_assert_eq!(words, 1 << longest);
            let mut all: Vec<(u32, u32)> = Vec::new();
            for symbol in 0..512 {
                let (word, bits) = huffman.code(symbol);
                prop_assert_eq!(bits, u32::from(huffman.lens.get(symbol)));
                prop_assert!(bits <= longest);
                if counts.get(symbol).is_some_and(|count| *count > 0) {
                    prop_assert!(bits > 0);
                }
                if bits > 0 {
                    prop_assert!(all.iter().all(|(other, n)| (other ^ word) & ((1 << bits.min(*n)) - 1) != 0));
                    all.push((word, bits));
                }
            }
            // The more often, the shorter.
            for (a, one) in counts.iter().enumerate() {
                for (b, two) in counts.iter().enumerate() {
                    if one > two && *two > 0 {
                        prop_assert!(huffman.lens.get(a) <= huffman.lens.get(b));
                    }
                }
            }
        }
    }
}
