//! SHA-256 digests: what a file must hash to.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The SHA-256 of something, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Reads 64 lower-case hexadecimal digits, the form that `sha256sum` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = from_hex(text)?;
        Some(Self(<[u8; 32]>::try_from(bytes).ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a sha256 is 64 lower-case hexadecimal digits"))
    }
}

/// A SHA-256 that grows with what it is given.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Hashes what `file` gives until its end: its length and digest.
///
/// # Errors
/// What the operating system says of the read, or `Interrupted` once `stop` says so.
pub fn digest_file(file: &mut impl Read, stop: &dyn Fn() -> bool) -> io::Result<(u64, Digest)> {
    let mut hasher = Hasher::default();
    let mut length = 0_u64;
    let mut buf = vec![0; 1 << 20];
    loop {
        if stop() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let got = match file.read(&mut buf) {
            Ok(0) => return Ok((length, hasher.finish())),
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(buf.get(..got).unwrap_or_default());
        length = length.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
    }
}

/// The bytes that an even number of lower-case hexadecimal digits stand for.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let lower = !text.bytes().any(|c| c.is_ascii_uppercase());
    lower.then(|| hex::decode(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_what_sha256sum_says() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        assert_eq!(Digest::parse(abc), Some(Digest::of(b"abc")));
        assert_eq!(Digest::parse(&abc.to_uppercase()), None);
        assert_eq!(Digest::parse(&abc[1..]), None);
        assert_eq!(Digest::parse(""), None);
    }

    #[test]
    fn hex_is_in_lower_case_and_whole() {
        assert_eq!(from_hex("00ff7f"), Some(vec![0, 255, 127]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("00FF7F"), None);
    }
}
