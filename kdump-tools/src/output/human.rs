//! Words for people: counts of pages with their size, times, percentages.

use crate::size::Size;

/// `1,234,567`: digits in groups of three.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1,024 pages (4 MiB)`.
#[must_use]
pub fn pages(n: u64, page_size: u64) -> String {
    let noun = if n == 1 { "page" } else { "pages" };
    match n.checked_mul(page_size).filter(|bytes| *bytes > 0) {
        Some(bytes) => format!("{} {noun} ({})", count(n), Size::from(bytes)),
        None => format!("{} {noun}", count(n)),
    }
}

/// `1 file`, `2 files`.
#[must_use]
pub fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `3 d 4:05:06`, `4:05:06`, `12.3 s`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".into();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let span = std::time::Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |span| span.as_secs());
    let (days, rest) = (span / 86_400, span % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest % 3600 / 60, rest % 60);
    if days > 0 { format!("{days} d {clock}") } else { clock }
}

/// A time in seconds since 1970 as `2026-11-22 06:07:51 UTC`; `None` for one that no calendar has.
#[must_use]
pub fn utc(seconds: f64) -> Option<String> {
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    let time = jiff::Timestamp::from_duration(span).ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// What a dump level leaves out, in words: makedumpfile's `-d` mask.
#[must_use]
pub fn dump_level(level: u32) -> String {
    const CLASSES: [(u32, &str); 5] =
        [(1, "zero pages"), (2, "clean cache"), (4, "private cache"), (8, "user data"), (16, "free pages")];
    let left_out: Vec<&str> =
        CLASSES.iter().filter(|(bit, _)| level & bit != 0).map(|(_, name)| *name).collect();
    if left_out.is_empty() {
        format!("{level} (nothing is left out)")
    } else {
        format!("{level} (leaves out {})", left_out.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn pages_are_told_with_their_size() {
        assert_eq!(pages(1, 4096), "1 page (4 KiB)");
        assert_eq!(pages(u64::MAX, 4096), "18,446,744,073,709,551,615 pages");
    }

    #[test]
    fn times_are_told_as_people_tell_them() {
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(3_661.0), "1:01:01");
        assert_eq!(duration(90_061.0), "1 d 1:01:01");
        assert_eq!(duration(f64::NAN), "unknown");
        assert_eq!(utc(0.0).as_deref(), Some("1970-01-01 00:00:00 UTC"));
        assert_eq!(utc(1e300), None);
    }

    #[test]
    fn a_dump_level_is_told_in_words() {
        assert_eq!(dump_level(0), "0 (nothing is left out)");
        assert_eq!(
            dump_level(31),
            "31 (leaves out zero pages, clean cache, private cache, user data, free pages)"
        );
    }
}
