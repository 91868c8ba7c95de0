//! The log as text, as `makedumpfile --dump-dmesg` writes it (1.7.2; with [`Style::caller`] as 1.7.8 does).
//!
//! Each record begins with `[%5lld.%06ld] `; further lines of the same record are indented by as many blanks. Printable ASCII and white space
//! stand for themselves, any other byte is `\xNN`. Seen with makedumpfile 1.7.2, and different here on purpose:
//!
//! - A byte above 0x7f is `\xc3`; makedumpfile prints a sign-extended `\xffffffc3`.
//! - A plain buffer (before 3.5) loses its `<level>` prefixes, as with dmesg and crash; makedumpfile copies them.
//! - Text that is not in the dump is announced in its place: `<23 bytes are not in the dump>`.
//!
//! A record without data is left out, as makedumpfile and crash leave it out.

use std::io;

use super::{KernelLog, LogRecord};

/// How a log is written.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Style {
    /// With `[      T1] ` or `[      C0] ` after the time, as makedumpfile 1.7.8 writes it. makedumpfile 1.7.2, crash and dmesg do not.
    pub caller: bool,
}

/// Writes one record with its prefix and its newline. A record without data writes nothing.
///
/// # Errors
/// What `out` says.
pub fn record(out: &mut impl io::Write, record: &LogRecord, style: Style) -> io::Result<()> {
    if record.data_less {
        return Ok(());
    }
    let mut prefix = String::new();
    if let Some(ns) = record.ts_ns {
        let seconds = ns.checked_div(1_000_000_000).unwrap_or_default();
        let micros =
            ns.checked_rem(1_000_000_000).and_then(|rest| rest.checked_div(1000)).unwrap_or_default();
        prefix = format!("[{seconds:5}.{micros:06}] ");
    }
    if style.caller
        && let Some(caller) = record.caller
    {
        prefix = format!("{prefix}[{:>8}] ", caller.to_string());
    }
    out.write_all(prefix.as_bytes())?;
    let mut plain = 0_usize;
    for (at, byte) in record.text.iter().enumerate() {
        let stands_for_itself = matches!(*byte, b' '..=b'~' | b'\t' | 0x0b | 0x0c | b'\r');
        if stands_for_itself {
            continue;
        }
        out.write_all(record.text.get(plain..at).unwrap_or_default())?;
        plain = at.saturating_add(1);
        if *byte == b'\n' {
            write!(out, "\n{:width$}", "", width = prefix.len())?;
        } else {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    out.write_all(record.text.get(plain..).unwrap_or_default())?;
    if record.missing_bytes > 0 {
        write!(out, "<{} bytes are not in the dump>", record.missing_bytes)?;
    }
    out.write_all(b"\n")
}

impl KernelLog {
    /// Writes all records, oldest first.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_to(&self, out: &mut impl io::Write, style: Style) -> io::Result<()> {
        self.records.iter().try_for_each(|r| record(out, r, style))
    }
}
