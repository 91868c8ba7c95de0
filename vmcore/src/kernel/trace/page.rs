//! One page of a ring of events.

use crate::xlat::le;

/// The lengths that are none: padding, a longer pause, a time.
const PADDING: u32 = 29;
const EXTEND: u32 = 30;
const STAMP: u32 = 31;
/// A time of a page has its highest 5 bits from the time before.
const HIGH: u64 = 0xf800_0000_0000_0000;

/// An event that is not understood yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// When, in nanoseconds of the trace's clock.
    pub ts: u64,
    /// What was written, beginning with `struct trace_entry`.
    pub data: Vec<u8>,
}

/// The events that are written on a page that began at `time`, without those in its first `read` bytes, and whether the page made
/// sense to its end.
#[must_use]
pub fn decode(written: &[u8], time: u64, read: usize) -> (Vec<Raw>, bool) {
    let mut found = Vec::new();
    let (mut at, mut ts) = (0_usize, time);
    while at < written.len() {
        let Some(header) = le::u32_at(written, at) else { return (found, false) };
        let (kind, delta) = (header & 0x1f, u64::from(header >> 5));
        let body = at.saturating_add(4);
        let word = le::u32_at(written, body);
        let wide = word.map(|word| u64::from(word) << 27 | delta);
        let (from, len) = match kind {
            // Nothing is behind it on this page.
            PADDING if delta == 0 => return (found, true),
            PADDING => {
                let Some(next) = word.and_then(|len| body.checked_add(usize::try_from(len).ok()?)) else {
                    return (found, false);
                };
                ts = ts.wrapping_add(delta);
                at = next;
                continue;
            }
            EXTEND | STAMP => {
                let Some(wide) = wide else { return (found, false) };
                ts = if kind == EXTEND { ts.wrapping_add(wide) } else { ts & HIGH | wide };
                at = body.saturating_add(4);
                continue;
            }
            0 => {
                let len = word.and_then(|len| usize::try_from(len).ok()?.checked_sub(4));
                let Some(len) = len else { return (found, false) };
                (body.saturating_add(4), len)
            }
            words => (body, usize::try_from(words).unwrap_or_default().saturating_mul(4)),
        };
        let end = from.saturating_add(len);
        let Some(data) = written.get(from..end) else { return (found, false) };
        ts = ts.wrapping_add(delta);
        if at >= read {
            found.push(Raw { ts, data: data.to_vec() });
        }
        // An event takes whole words.
        at = end.saturating_add(3) & !3;
    }
    (found, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u32, delta: u32) -> [u8; 4] {
        (delta << 5 | kind).to_le_bytes()
    }

    #[test]
    fn each_sort_of_event_moves_the_time_as_the_kernel_does() {
        let mut page = Vec::new();
        page.extend(header(2, 5));
        page.extend([1; 8]);
        // A pause of 2^27 * 3 + 7.
        page.extend(header(EXTEND, 7));
        page.extend(3_u32.to_le_bytes());
        page.extend(header(1, 0));
        page.extend([2; 4]);
        // An event of 12 bytes that tells its length in a word of its own, which counts itself.
        page.extend(header(0, 1));
        page.extend(16_u32.to_le_bytes());
        page.extend([3; 12]);
        // One that was dropped: its time counts, it does not.
        page.extend(header(PADDING, 9));
        page.extend(8_u32.to_le_bytes());
        page.extend([9; 4]);
        page.extend(header(STAMP, 11));
        page.extend(1_u32.to_le_bytes());
        page.extend(header(1, 1));
        page.extend([4; 4]);
        page.extend(header(PADDING, 0));
        page.extend([0xff; 20]);
        let start = 0x0800_0000_0000_0100;
        let (events, whole) = decode(&page, start, 0);
        assert!(whole);
        let times: Vec<u64> = events.iter().map(|event| event.ts).collect();
        let paused = start + 5 + (3 << 27) + 7;
        assert_eq!(times, [start + 5, paused, paused + 1, 0x0800_0000_0000_0000 + (1 << 27) + 11 + 1]);
        assert_eq!(events.iter().map(|event| event.data.len()).collect::<Vec<_>>(), [8, 4, 12, 4]);
    }

    #[test]
    fn what_was_read_before_is_left_out_and_its_time_counts() {
        let mut page = Vec::new();
        page.extend(header(1, 5));
        page.extend([1; 4]);
        page.extend(header(1, 6));
        page.extend([2; 4]);
        assert_eq!(decode(&page, 100, 8), (vec![Raw { ts: 111, data: vec![2; 4] }], true));
    }

    #[test]
    fn an_event_past_the_end_is_damage() {
        let mut page = Vec::new();
        page.extend(header(1, 5));
        page.extend([1; 4]);
        page.extend(header(28, 5));
        page.extend([1; 4]);
        let (events, whole) = decode(&page, 0, 0);
        assert_eq!((events.len(), whole), (1, false));
        // A length that does not even count itself.
        let mut page = header(0, 1).to_vec();
        page.extend(3_u32.to_le_bytes());
        assert_eq!(decode(&page, 0, 0), (Vec::new(), false));
    }
}
