//! The 256 tokens of which the kernel composes its symbols' names.

use crate::xlat::le;

/// Names longer than this are cut: the kernel's own limit (`KSYM_NAME_LEN`) is 512, and hostile tokens could make megabytes.
const NAME_BYTES: usize = 1024;

/// `kallsyms_token_table` and `kallsyms_token_index`.
#[derive(Clone)]
pub(super) struct Tokens {
    table: Vec<u8>,
    /// Start and end of each token in the table.
    places: Box<[(u16, u16); 256]>,
}

impl Tokens {
    /// How many bytes the index has.
    pub(super) const INDEX_BYTES: usize = 512;

    /// How many bytes of the table must be there for this index: its last token has no length, and is short.
    pub(super) fn table_bytes(index: &[u8]) -> usize {
        let last = index.get(510..).and_then(|i| le::u16_at(i, 0)).unwrap_or_default();
        usize::from(last).saturating_add(256)
    }

    /// Takes both, or says what does not fit.
    pub(super) fn new(table: Vec<u8>, index: &[u8]) -> Result<Self, String> {
        let mut places = Box::new([(0_u16, 0_u16); 256]);
        let mut expected = 0_u16;
        for (token, place) in places.iter_mut().enumerate() {
            let at = token.checked_mul(2).and_then(|i| le::u16_at(index, i));
            let start = at.ok_or_else(|| "the index of the tokens is cut".to_owned())?;
            if start != expected {
                return Err(format!(
                    "token {token} is at {start:#x} by the index, but the one before ends at {expected:#x}"
                ));
            }
            let bytes = table.get(usize::from(start)..).unwrap_or_default();
            let len =
                bytes.iter().position(|b| *b == 0).ok_or_else(|| format!("token {token} has no end"))?;
            let end = u16::try_from(len).ok().and_then(|l| start.checked_add(l));
            let end = end.ok_or_else(|| format!("token {token} reaches past the table"))?;
            *place = (start, end);
            expected = end.checked_add(1).ok_or_else(|| format!("token {token} reaches past the table"))?;
        }
        let mut table = table;
        table.truncate(usize::from(expected));
        Ok(Self { table, places })
    }

    fn token(&self, byte: u8) -> &[u8] {
        let (start, end) = self.places.get(usize::from(byte)).copied().unwrap_or_default();
        self.table.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }

    /// The characters of a compressed name, type letter first.
    fn characters<'a>(&'a self, compressed: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
        compressed.iter().flat_map(|b| self.token(*b)).copied().take(NAME_BYTES)
    }

    /// The type letter and the name.
    pub(super) fn expand(&self, compressed: &[u8]) -> (u8, String) {
        let mut name = Vec::with_capacity(32);
        for byte in compressed {
            name.extend_from_slice(self.token(*byte));
            if name.len() > NAME_BYTES {
                name.truncate(NAME_BYTES);
                break;
            }
        }
        let letter = name.first().copied().unwrap_or(b'?');
        if !name.is_empty() {
            name.remove(0);
        }
        (
            letter,
            String::from_utf8(name).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
        )
    }

    /// True where the name (without the letter) is `name`.
    pub(super) fn is(&self, compressed: &[u8], name: &str) -> bool {
        self.characters(compressed).skip(1).eq(name.bytes())
    }

    /// The hash of the name (without the letter), equal to [`hash`] of its text.
    pub(super) fn hash(&self, compressed: &[u8]) -> u32 {
        let mut hash = HASH_SEED;
        let mut left = NAME_BYTES;
        let mut skip = 1_usize;
        for byte in compressed {
            let token = self.token(*byte).get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(self.token(*byte).len());
            let token = token.get(..left.min(token.len())).unwrap_or_default();
            left = left.saturating_sub(token.len());
            hash = token.iter().fold(hash, |h, b| step(h, *b));
        }
        hash
    }

    /// Bytes kept in memory.
    pub(super) fn footprint(&self) -> usize {
        self.table.len().saturating_add(1024)
    }
}

const HASH_SEED: u32 = 0x811c_9dc5;

fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

/// FNV-1a of a name.
pub(super) fn hash(name: &str) -> u32 {
    name.bytes().fold(HASH_SEED, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn simple() -> (Vec<u8>, Vec<u8>) {
        let mut table = Vec::new();
        let mut index = Vec::new();
        for token in 0..=255_u8 {
            index.extend_from_slice(&u16::try_from(table.len()).unwrap().to_le_bytes());
            match token {
                1 => table.extend_from_slice(b"Tini"),
                2 => table.extend_from_slice(b"t_"),
                b if b.is_ascii_alphanumeric() || b == b'_' => table.push(b),
                _ => {}
            }
            table.push(0);
        }
        (table, index)
    }

    #[test]
    fn a_name_is_its_tokens_without_the_letter() {
        let (table, index) = simple();
        let tokens = Tokens::new(table, &index).unwrap();
        assert_eq!(tokens.expand(&[1, 2, b't', b'a', b's', b'k']), (b'T', "init_task".into()));
        assert_eq!(tokens.hash(&[1, 2, b't', b'a', b's', b'k']), hash("init_task"));
        assert!(tokens.is(&[1, 2, b't', b'a', b's', b'k'], "init_task"));
        assert!(!tokens.is(&[1, 2, b't'], "init_task"));
    }

    #[test]
    fn an_index_that_does_not_fit_the_table_says_which_token() {
        let (table, mut index) = simple();
        index[10] ^= 1;
        let err = Tokens::new(table, &index).err().unwrap();
        assert!(err.starts_with("token 5 is at"), "{err}");
    }

    #[test]
    fn tokens_without_end_are_refused() {
        let (_, index) = simple();
        assert_eq!(Tokens::new(vec![b'x'; 16], &index).err().unwrap(), "token 0 has no end");
        assert_eq!(Tokens::new(Vec::new(), &index[..7]).err().unwrap(), "token 0 has no end");
    }
}
