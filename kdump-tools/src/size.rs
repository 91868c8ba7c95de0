//! Sizes as people write them: `4MiB`, `1GB`, `512k`, `4096`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes that a person wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number in front.
    #[error("{0:?} is not a size: it begins with no number")]
    NoNumber(String),
    /// The unit is not known.
    #[error("{unit:?} is not a unit of size (use B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB)")]
    Unit {
        /// What was written for a unit.
        unit: String,
    },
    /// It is larger than 64 bits can say, or not a whole number of bytes.
    #[error("{0:?} is no whole number of bytes below 2^64")]
    Range(String),
}

impl Size {
    /// How many bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    /// `K`, `M`, `G`, `T` alone are binary, as with `dd`, `split` and `truncate`; `KB`, `MB`, `GB`, `TB` are decimal, as there.
    /// Case does not matter. A fraction is taken where it makes whole bytes: `1.5GiB`.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
            return Err(SizeError::NoNumber(text.to_owned()));
        }
        let unit = unit.trim_start();
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(SizeError::Unit { unit: unit.to_owned() }),
        };
        let range = || SizeError::Range(text.to_owned());
        let digits = format!("{whole}{fraction}").parse::<u128>().map_err(|_| range())?;
        let scale =
            u32::try_from(fraction.len()).ok().and_then(|n| 10_u128.checked_pow(n)).ok_or_else(range)?;
        let product = digits.checked_mul(u128::from(factor)).ok_or_else(range)?;
        if product % scale != 0 {
            return Err(range());
        }
        u64::try_from(product / scale).map(Self).map_err(|_| range())
    }
}

impl fmt::Display for Size {
    /// Binary units with one digit after the point: `1.5 GiB`, `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = 0;
        let mut divisor: u64 = 1024;
        // One more than 1023.95 would print as «1024.0», so the next unit begins there.
        while unit + 1 < UNITS.len() && u128::from(self.0) * 20 >= u128::from(divisor) * 20_479 {
            divisor <<= 10;
            unit += 1;
        }
        let tenths = (u128::from(self.0) * 10 + u128::from(divisor) / 2) / u128::from(divisor);
        let name = UNITS.get(unit).copied().unwrap_or("EiB");
        if tenths % 10 == 0 {
            write!(f, "{} {name}", tenths / 10)
        } else {
            write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Result<u64, SizeError> {
        text.parse::<Size>().map(Size::bytes)
    }

    #[test]
    fn units_are_those_of_coreutils() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("4MiB"), Ok(4 << 20));
        assert_eq!(bytes("4 mib"), Ok(4 << 20));
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        assert_eq!(bytes("1.5k"), Ok(1536));
        assert_eq!(bytes("0"), Ok(0));
    }

    #[test]
    fn what_is_no_size_says_why() {
        assert_eq!(bytes("big").unwrap_err().to_string(), "\"big\" is not a size: it begins with no number");
        assert_eq!(bytes("-1").unwrap_err().to_string(), "\"-1\" is not a size: it begins with no number");
        assert_eq!(bytes("4."), Err(SizeError::NoNumber("4.".into())));
        assert!(bytes("4XB").unwrap_err().to_string().starts_with("\"XB\" is not a unit of size"));
        assert_eq!(bytes("99999999T"), Err(SizeError::Range("99999999T".into())));
        assert_eq!(bytes("0.3"), Err(SizeError::Range("0.3".into())));
    }

    #[test]
    fn sizes_are_shown_with_one_digit() {
        let shown = |n: u64| Size(n).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown((1 << 20) - 1), "1 MiB");
        assert_eq!(shown(4 << 30), "4 GiB");
        assert_eq!(shown(u64::MAX), "16 EiB");
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in ".{0,40}") {
            let _ = bytes(&text);
        }

        #[test]
        fn whole_units_come_back(n in 0u64..1023) {
            prop_assert_eq!(bytes(&Size(n << 20).to_string()), Ok(n << 20));
        }
    }
}
