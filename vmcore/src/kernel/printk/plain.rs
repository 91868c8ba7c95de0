//! The plain text buffer (before 3.5): lines with a `<level>` prefix, and with `printk.time` a `[seconds.micros]` one.

use super::{Generation, KernelLog, LogError, LogRecord, number, pointer, symbol};
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::kernel::window::{Bytes, Window};
use crate::limits::Limits;
use crate::xlat::KernelMemory;

/// Reads the text, oldest byte first, and splits it into lines.
pub(super) fn read(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    limits: &Limits,
) -> Result<KernelLog, LogError> {
    let buffer = pointer(memory, symbol(info, "log_buf")?, "the log's pointer log_buf")?;
    let len = u64::from(number(memory, symbol(info, "log_buf_len")?, "log_buf_len")?);
    let end = u64::from(number(memory, symbol(info, "log_end")?, "log_end")?);
    if len == 0 || len > limits.log_bytes {
        return Err(LogError::Inconsistent { what: "log_buf_len", why: format!("it is {len}") });
    }
    // log_end counts all bytes ever written; the buffer holds the last of them.
    let mut window = Window::new(memory, buffer, len);
    let mut parts = Vec::new();
    if end > len {
        let start = end.checked_rem(len).unwrap_or_default();
        parts.push(window.bytes(start..len));
        parts.push(window.bytes(0..start));
    } else {
        parts.push(window.bytes(0..end));
    }
    let mut log = KernelLog::new(Generation::Plain);
    let mut spent = 0;
    let mut text = Vec::new();
    for Bytes { have, missing, why } in parts {
        text.extend(have);
        if let Some(why) = why {
            log.lost.add(|| format!("{missing} bytes of the text can't be read: {why}"));
        }
    }
    // The writer's position can be wrong; unwritten bytes are NUL.
    text.retain(|b| *b != 0);
    let lines = text.strip_suffix(b"\n").unwrap_or(&text);
    for line in lines.split(|b| *b == b'\n') {
        if text.is_empty() {
            break;
        }
        let mut record = parse_line(line);
        record.seq = u64::try_from(log.records.len()).unwrap_or(u64::MAX);
        if log.push(record, &mut spent, limits).is_break() {
            break;
        }
    }
    Ok(log)
}

/// Takes the prefixes off a line.
fn parse_line(line: &[u8]) -> LogRecord {
    let mut record = LogRecord::default();
    let mut rest = line;
    if let Some((digits, after)) = rest.strip_prefix(b"<").and_then(|r| split_at_byte(r, b'>'))
        && let Some(number) = decimal(digits)
    {
        record.level = u8::try_from(number & 7).ok();
        record.facility = u8::try_from(number >> 3).ok();
        rest = after;
    }
    if let Some((stamp, after)) = rest.strip_prefix(b"[").and_then(|r| split_at_byte(r, b']'))
        && let Some(ns) = timestamp(stamp)
    {
        record.ts_ns = Some(ns);
        rest = after.strip_prefix(b" ").unwrap_or(after);
    }
    record.text = rest.to_vec();
    record
}

fn split_at_byte(bytes: &[u8], stop: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(32).position(|b| *b == stop)?;
    Some((bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `    1.234567` in nanoseconds.
fn timestamp(stamp: &[u8]) -> Option<u64> {
    let (seconds, micros) = split_at_byte(stamp.trim_ascii_start(), b'.')?;
    if micros.len() != 6 {
        return None;
    }
    decimal(seconds)?.checked_mul(1_000_000_000)?.checked_add(decimal(micros)?.checked_mul(1000)?)
}
