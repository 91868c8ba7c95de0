//! The kernel's taint, from what it prints with each oops and panic.

use crate::kernel::printk::KernelLog;
use crate::kernel::taint::mainline_mask;
use crate::report::{Report, Taint, TaintFlag};

/// The taint by the last line of the log that tells it; `None` where none does.
#[must_use]
pub fn from_log(log: &KernelLog) -> Option<Taint> {
    let mut kernels =
        log.records.iter().rev().filter(|record| record.facility.is_none_or(|facility| facility == 0));
    kernels.find_map(|record| from_line(&record.text_lossy()))
}

/// `CPU: 0 PID: 1 Comm: init Kdump: loaded Tainted: G           OE      6.1.0 #1`, the letters with blanks between
/// (`print_tainted`), or `Not tainted`. The line of a task that calls itself so is told by how it begins.
fn from_line(line: &str) -> Option<Taint> {
    if !line.starts_with("CPU: ") && !line.starts_with("Pid: ") {
        return None;
    }
    if line.contains(" Not tainted ") {
        return Some(Taint { mask: Some(0), letters: String::new(), flags: Vec::new() });
    }
    let (_, rest) = line.rsplit_once(" Tainted: ")?;
    let is_letters = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let letters: String =
        rest.split_whitespace().take_while(is_letters).flat_map(str::chars).filter(|c| *c != 'G').collect();
    // Distributions have letters of their own; their bits are not known from the letter alone.
    Some(Taint { mask: mainline_mask(&letters), letters, flags: Vec::new() })
}

/// What the letters mean (`Documentation/admin-guide/tainted-kernels.rst`).
const MEANINGS: &[(char, &str)] = &[
    ('P', "proprietary module"),
    ('F', "module loaded by force"),
    ('S', "processor or platform out of specification"),
    ('R', "module unloaded by force"),
    ('M', "machine check"),
    ('B', "page in a bad state"),
    ('U', "asked for by user space"),
    ('D', "earlier oops or BUG"),
    ('A', "ACPI table overridden"),
    ('W', "earlier warning"),
    ('C', "staging driver"),
    ('I', "firmware bug worked around"),
    ('O', "out-of-tree module"),
    ('E', "module without a valid signature"),
    ('L', "soft lockup"),
    ('K', "livepatched"),
    ('X', "the distribution's own"),
    ('T', "built with randomised structures"),
    ('N', "in-kernel test (KUnit)"),
    ('J', "fwctl debugging used by user space"),
];

/// What a line holds that tells of a letter for the first time (`kernel/module/main.c`, `kernel/panic.c`, `kernel/watchdog.c`); a
/// module's name may stand before it.
const SINCE: &[(char, &[&str])] = &[
    ('P', &["' taints kernel."]),
    ('F', &["module verification failed: forced", "kernel tainted: forced module load"]),
    ('O', &["loading out-of-tree module taints kernel"]),
    ('E', &["tainting kernel", "module verification failed"]),
    ('C', &["module is from the staging directory"]),
    ('D', &["Oops: ", "kernel BUG at ", "general protection fault"]),
    ('W', &["WARNING: "]),
    ('M', &["[Hardware Error]: CPU ", "Machine check events logged"]),
    ('B', &["BUG: Bad page state", "BUG: Bad page map", "BUG: Bad rss-counter"]),
    ('L', &["BUG: soft lockup"]),
    ('K', &["tainting kernel with TAINT_LIVEPATCH"]),
    ('I', &["[Firmware Bug]"]),
    ('A', &["Table Upgrade: override", "Override [", "ACPI: Overriding"]),
];

/// Explains each letter of the kernel's taint: what it means, which of the loaded modules carry it, and since when the log tells of it.
pub(super) fn explain(report: &mut Report, log: Option<&KernelLog>) {
    let modules = &report.modules;
    let Some(taint) = &mut report.kernel.taint else { return };
    taint.flags = taint
        .letters
        .chars()
        .map(|letter| {
            let meaning = MEANINGS.iter().find(|(own, _)| *own == letter).map(|(_, words)| *words);
            let carries = |module: &&crate::report::KernelModule| {
                module.taint.as_ref().is_some_and(|letters| letters.contains(letter))
            };
            let since = log.and_then(|log| since(letter, log));
            TaintFlag {
                letter: letter.to_string(),
                meaning: meaning.unwrap_or("not a letter of the mainline kernel").into(),
                modules: modules.iter().filter(carries).map(|module| module.name.clone()).collect(),
                since_s: since.as_ref().and_then(|(ts, _)| *ts),
                line: since.map(|(_, line)| line),
            }
        })
        .collect();
}

/// The first line of the log that tells of a letter.
fn since(letter: char, log: &KernelLog) -> Option<(Option<f64>, String)> {
    let phrases = SINCE.iter().find(|(own, _)| *own == letter).map(|(_, phrases)| *phrases)?;
    let kernels = log.records.iter().filter(|record| record.facility.is_none_or(|facility| facility == 0));
    let mut told = kernels.filter_map(|record| {
        let text = record.text_lossy();
        let line = text.lines().find(|line| phrases.iter().any(|phrase| line.contains(phrase)))?;
        let ts = record.ts_ns.map(|ns| std::time::Duration::from_nanos(ns).as_secs_f64());
        Some((ts, line.trim_end().to_owned()))
    });
    told.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(line: &str) -> Option<(Option<u64>, String)> {
        from_line(line).map(|taint| (taint.mask, taint.letters))
    }

    #[test]
    fn letters_are_read_between_their_blanks() {
        let line = "CPU: 1 PID: 7 Comm: insmod Kdump: loaded Tainted: G        W  OE      6.1.0-56-cloud-amd64 #1  Debian";
        assert_eq!(taint(line), Some((Some((1 << 9) | (1 << 12) | (1 << 13)), "WOE".into())));
        let line = "CPU: 1 UID: 0 PID: 7 Comm: x Tainted: P           OE       6.12.0 #1 PREEMPT";
        assert_eq!(taint(line), Some((Some(1 | (1 << 12) | (1 << 13)), "POE".into())));
    }

    #[test]
    fn each_letter_of_the_mainline_kernel_has_its_meaning() {
        let known: String = MEANINGS.iter().map(|(letter, _)| *letter).collect();
        assert_eq!(known, crate::kernel::taint::LETTERS);
    }

    #[test]
    fn a_letter_is_explained_with_its_modules_and_its_first_line() {
        use crate::kernel::printk::{Generation, LogRecord, LostRecords};
        let record = |ts, facility, text: &str| LogRecord {
            ts_ns: Some(ts),
            facility: Some(facility),
            text: text.into(),
            ..LogRecord::default()
        };
        let log = KernelLog {
            generation: Generation::Ring,
            records: vec![
                record(1, 1, "x: loading out-of-tree module taints kernel."),
                record(4_500_000_000, 0, "bad: loading out-of-tree module taints kernel."),
            ],
            dropped: Some(0),
            unfinished: 0,
            lost: LostRecords::default(),
            end: crate::kernel::walk::WalkEnd::Complete,
        };
        let mut report = Report::empty("kdt", "0", "x");
        report.kernel.taint = Some(Taint { mask: None, letters: "OH".into(), flags: Vec::new() });
        report.modules = ["bad", "good"]
            .map(|name| crate::report::KernelModule {
                name: name.into(),
                taint: Some(if name == "bad" { "OE".into() } else { String::new() }),
                ..Default::default()
            })
            .into();
        explain(&mut report, Some(&log));
        let flags = report.kernel.taint.unwrap().flags;
        assert_eq!(
            (flags[0].modules.as_slice(), flags[0].since_s),
            (["bad".to_owned()].as_slice(), Some(4.5))
        );
        assert!(flags[1].meaning.contains("not a letter"), "{flags:?}");
        assert_eq!(flags[1].since_s, None);
    }

    #[test]
    fn a_clean_kernel_says_so() {
        let line =
            "CPU: 0 PID: 1 Comm: init Kdump: loaded Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2";
        assert_eq!(taint(line), Some((Some(0), String::new())));
    }

    #[test]
    fn other_lines_and_other_letters_are_not_guessed_at() {
        assert_eq!(taint("Tainted: [W]=WARN"), None);
        assert_eq!(taint("CPU: 0 PID: 1 Comm: Tainted"), None);
        assert_eq!(taint("CPU: 0 PID: 1 Comm: a Tainted: G    H    4.18.0 #1"), Some((None, "H".into())));
    }
}
