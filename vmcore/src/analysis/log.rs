//! The kernel log in a report: its lines, what is missing of it, and what its clock tells.

use std::fmt::Write as _;

use crate::kernel::printk::{KernelLog, LogError, LogRecord};
use crate::report::{Confidence, Finding, LogLine, LogReport, Severity};

/// A record as the report has it.
#[must_use]
pub fn line(record: &LogRecord) -> LogLine {
    let mut text = record.text_lossy().into_owned();
    if record.missing_bytes > 0 {
        // Writing to a `String` can't fail.
        let _ = write!(text, "<{} bytes are not in the dump>", record.missing_bytes);
    }
    LogLine {
        ts: record.ts_ns.map(seconds),
        level: record.level,
        caller: record.caller.map(|caller| caller.to_string()),
        text,
    }
}

/// The log as the report has it. Records without data are no lines, as with dmesg.
#[must_use]
pub fn section(log: &KernelLog) -> LogReport {
    LogReport {
        records: u64::try_from(log.records.len()).ok(),
        dropped: log.dropped,
        lines: log.records.iter().filter(|record| !record.data_less).map(line).collect(),
    }
}

/// Nanoseconds as seconds. An `f64` holds microseconds exactly for 285 years of uptime.
fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// The log's last time: how long the kernel had been up, by its own clock, which stands still while it is suspended.
#[must_use]
pub fn uptime(log: &KernelLog) -> Option<f64> {
    log.records.iter().rev().find_map(|record| record.ts_ns).map(seconds)
}

/// When the machine was booted, in seconds since 1970: the kernel notes the time of day when it crashes
/// (`CRASHTIME`, written by `crash_save_vmcoreinfo` right before it leaves), and the log's last record is from
/// the same moment. `None` where the kernel did not note it.
#[must_use]
pub fn boot_time(crash_time: Option<u64>, log: &KernelLog) -> Option<f64> {
    // A crash time is far below 2^53, so that nothing is lost.
    let crash = std::time::Duration::from_secs(crash_time?).as_secs_f64();
    Some(crash - uptime(log)?)
}

/// What the log's own state means for whoever relies on it.
#[must_use]
pub fn findings(log: &KernelLog) -> Vec<Finding> {
    let mut found = Vec::new();
    if !log.is_complete() {
        let count = log.lost.count;
        let title = if count > 0 {
            format!("{count} records of the kernel log are wholly or partly not in the dump.")
        } else {
            "The kernel log could not be read to its end.".to_owned()
        };
        let mut finding = Finding::new("KD-LOG-LOST", Severity::Warning, Confidence::Certain, title);
        if let Some(why) = &log.lost.first_reason {
            finding = finding.because(format!("the first of them: {why}"));
        }
        if !log.end.is_complete() {
            finding = finding.because(format!("why the reading ended: {}", log.end));
        }
        let finding = finding.next("Look for the lines in the journal or on the console of that host.");
        found.push(finding.by_hand_crash("log").by_hand_drgn("print_dmesg()"));
    }
    if let Some(dropped) = log.dropped.filter(|n| *n > 0) {
        found.push(
            Finding::new(
                "KD-LOG-OVERWRITTEN",
                Severity::Info,
                Confidence::Certain,
                format!(
                    "The log's ring was full: its {dropped} oldest records were overwritten before the crash."
                ),
            )
            .because(format!("the first record that is left has the number {dropped}"))
            .next("log_buf_len= on the kernel's command line makes the ring larger.")
            .by_hand_crash("log")
            .by_hand_drgn("get_printk_records()[0].seq"),
        );
    }
    found
}

/// What it means that there is no log.
#[must_use]
pub fn unreadable(error: &LogError) -> Finding {
    Finding::new(
        "KD-LOG-UNREADABLE",
        Severity::Error,
        Confidence::Certain,
        "The kernel log can't be read, so what happened is not known from it.",
    )
    .because(error.to_string())
    .next("Look at the console, the BMC's serial log, or netconsole of that host.")
    .by_hand_crash("log")
    .by_hand_drgn("print_dmesg()")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::printk::{Caller, Generation, LostRecords};
    use crate::kernel::walk::WalkEnd;

    fn record(ts_ns: Option<u64>, text: &str) -> LogRecord {
        LogRecord { ts_ns, text: text.as_bytes().to_vec(), ..LogRecord::default() }
    }

    fn log(records: Vec<LogRecord>) -> KernelLog {
        KernelLog {
            generation: Generation::Ring,
            records,
            dropped: Some(0),
            unfinished: 0,
            lost: LostRecords::default(),
            end: WalkEnd::Complete,
        }
    }

    #[test]
    fn a_line_keeps_time_caller_and_what_it_lacks() {
        let record = LogRecord {
            level: Some(4),
            caller: Some(Caller::Cpu(1)),
            missing_bytes: 3,
            ..record(Some(1_500_000_000), "half")
        };
        let line = line(&record);
        assert_eq!((line.ts, line.level, line.caller.as_deref()), (Some(1.5), Some(4), Some("C1")));
        assert_eq!(line.text, "half<3 bytes are not in the dump>");
    }

    #[test]
    fn records_without_data_are_counted_and_are_no_lines() {
        let section =
            section(&log(vec![record(Some(1), "a"), LogRecord { data_less: true, ..LogRecord::default() }]));
        assert_eq!((section.records, section.lines.len()), (Some(2), 1));
    }

    #[test]
    fn the_boot_was_an_uptime_before_the_crash() {
        let log = log(vec![record(Some(1), "a"), record(Some(60_000_000_000), "b"), record(None, "c")]);
        assert_eq!(boot_time(Some(1_000_000_060), &log), Some(1_000_000_000.0));
        assert_eq!(boot_time(None, &log), None);
    }

    #[test]
    fn a_log_with_losses_says_how_many_and_why() {
        let mut log = log(Vec::new());
        assert_eq!(findings(&log), []);
        log.lost = LostRecords { count: 2, first_reason: Some("pfn 0x7 is lost".into()) };
        log.dropped = Some(9);
        let found = findings(&log);
        assert_eq!(found[0].code, "KD-LOG-LOST");
        assert_eq!(found[0].evidence, ["the first of them: pfn 0x7 is lost"]);
        assert_eq!((found[1].code.as_str(), found[1].severity), ("KD-LOG-OVERWRITTEN", Severity::Info));
    }
}
