//! The kernel's taint, from what it prints with each oops and panic.

use crate::kernel::printk::KernelLog;
use crate::kernel::taint::mainline_mask;
use crate::report::Taint;

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
        return Some(Taint { mask: Some(0), letters: String::new() });
    }
    let (_, rest) = line.rsplit_once(" Tainted: ")?;
    let is_letters = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let letters: String =
        rest.split_whitespace().take_while(is_letters).flat_map(str::chars).filter(|c| *c != 'G').collect();
    // Distributions have letters of their own; their bits are not known from the letter alone.
    Some(Taint { mask: mainline_mask(&letters), letters })
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
