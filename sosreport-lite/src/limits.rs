//! The bounds of a whole run, and how a spec file writes sizes.

use std::time::Duration;

/// The bounds of a run. An item's own limits are in its spec.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the whole run may take. Items that it does not reach are reported as such.
    pub max_time: Duration,
    /// How long one file may take to be read.
    pub file_time: Duration,
    /// How long a command has between SIGTERM and SIGKILL.
    pub term_grace: Duration,
    /// How long a killed command has to be gone before it is left behind.
    pub reap_grace: Duration,
    /// How many bytes of content, before compression, the bundle may hold.
    pub max_bytes: u64,
    /// How many files one glob may name.
    pub max_matches: usize,
    /// How many items are collected at the same time.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_time: Duration::from_mins(5),
            file_time: Duration::from_secs(5),
            term_grace: Duration::from_secs(2),
            reap_grace: Duration::from_secs(1),
            max_bytes: 512 << 20,
            max_matches: 4096,
            workers: 3,
        }
    }
}

/// Bytes from `4096`, `64KiB`, `25MiB`, `1GiB`; `None` where it is something else or too large.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size for people: `25 MiB`, `512 KiB`, `7 B`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    for (shift, unit) in [(30_u32, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
            return if tenths == 0 || whole >= 100 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        let table = [
            ("4096", Some(4096)),
            ("64KiB", Some(65536)),
            ("25MiB", Some(25 << 20)),
            ("1GB", Some(1_000_000_000)),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5MiB", "1 parsec", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_for_people_keep_one_digit() {
        assert_eq!(human_size(7), "7 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(25 << 20), "25 MiB");
        assert_eq!(human_size(3 << 30), "3 GiB");
    }
}
