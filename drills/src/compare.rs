//! What the receiving side compares with what the sending side had: bytes, and the log with the console.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Looks below `within` for the file that has exactly the bytes of `left`.
///
/// # Errors
/// What the operating system says. A file that is not found is `Ok(None)`.
pub fn find_same(left: &Path, within: &Path) -> io::Result<Option<PathBuf>> {
    let len = fs::metadata(left)?.len();
    let mut dirs = VecDeque::from([within.to_owned()]);
    while let Some(dir) = dirs.pop_front() {
        let mut entries = fs::read_dir(&dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push_back(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() == len && same_bytes(left, &entry.path())? {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

/// True where both files have the same bytes.
fn same_bytes(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (fs::File::open(left)?, fs::File::open(right)?);
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = fill(&mut left, &mut a)?;
        let m = fill(&mut right, &mut b)?;
        if a.get(..n) != b.get(..m) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut fs::File, buf: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buf.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}

/// How a kernel log compares with what its console printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogAgreement {
    /// Lines that both have, in the same order.
    pub both: usize,
    /// Lines that the console printed and the log does not have.
    pub only_console: Vec<String>,
    /// Lines of the log, up to the last that the console printed, that the console did not print.
    pub only_log: Vec<String>,
    /// Lines of the log after the last that the console printed: a console is cut off by the crash, a log is not.
    pub after_console: usize,
}

/// Compares the log of a crashed kernel with its console, which may go on with the capture kernel's boot and may have
/// a program's output between the kernel's lines.
#[must_use]
pub fn log_agreement(log: &str, console: &str) -> LogAgreement {
    let log = with_continuations(log);
    let printed = first_kernel(console);
    let mut out = LogAgreement::default();
    let mut next = 0;
    for line in printed {
        match log.iter().skip(next).position(|l| without_caller(l) == without_caller(line)) {
            Some(skipped) => {
                out.only_log.extend(log.iter().skip(next).take(skipped).cloned());
                out.both += 1;
                next += skipped + 1;
            }
            None => out.only_console.push(line.to_owned()),
        }
    }
    out.after_console = log.len() - next;
    out
}

/// The lines of a log, each with its stamp: dmesg shows it on the first line of a record only and indents the others,
/// a console prints it on each.
fn with_continuations(log: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut stamp = String::new();
    for line in log.lines() {
        if let Some(line) = stamped(line) {
            stamp = line.split_once("] ").map_or(line, |(stamp, _)| stamp).to_owned() + "] ";
            lines.push(line.to_owned());
        } else if let Some((indent, text)) = line.split_at_checked(stamp.len())
            && !stamp.is_empty()
            && indent.trim().is_empty()
        {
            lines.push(format!("{stamp}{text}"));
        }
    }
    lines
}

/// The stamped lines of the first kernel on this console: the capture kernel begins at time zero again.
fn first_kernel(console: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in console.lines().filter_map(stamped) {
        let boots = line.contains("] Linux version ");
        if boots && lines.iter().any(|l: &&str| l.contains("] Linux version ")) {
            break;
        }
        lines.push(line);
    }
    lines
}

/// The line from its `[    1.234567]` on, or `None` where it has none.
fn stamped(line: &str) -> Option<&str> {
    line.match_indices('[').map(|(at, _)| &line[at..]).find(|rest| {
        let Some((stamp, _)) = rest[1..].split_once(']') else { return false };
        let Some((s, us)) = stamp.trim_start().split_once('.') else { return false };
        us.len() == 6 && !s.is_empty() && s.bytes().chain(us.bytes()).all(|b| b.is_ascii_digit())
    })
}

/// The line without the `[    T1]` that kernels with `CONFIG_PRINTK_CALLER` put behind the stamp, as one of the two
/// may show it and the other not.
fn without_caller(line: &str) -> (&str, &str) {
    let line = line.trim_end();
    let Some((stamp, text)) = line.split_once("] ") else { return (line, "") };
    let caller = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")).filter(|(caller, _)| {
        let id = caller.trim_start().strip_prefix(['T', 'C']);
        id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
    });
    (stamp, caller.map_or(text, |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str =
        "[    0.000000] Linux version 6.1\n[    1.000000] a\n[    1.000001] b\n[    2.000000] end\n";

    #[test]
    fn a_console_with_program_output_and_a_second_kernel_agrees() {
        let console = "SeaBIOS\r\n[    0.000000] Linux version 6.1\r\nhello\r\n/ # [    1.000000] a\r\n\
                       [    1.000001] b\r\n[    0.000000] Linux version 6.1\r\n[    0.100000] other\r\n";
        let got = log_agreement(LOG, console);
        assert_eq!(got, LogAgreement { both: 3, after_console: 1, ..LogAgreement::default() });
    }

    #[test]
    fn the_lines_of_one_record_agree() {
        let log = "[    1.000000] first\n                 second\n[    2.000000] end\n";
        let console = "[    1.000000] first\n[    1.000000]   second\n[    2.000000] end\n";
        assert_eq!(log_agreement(log, console), LogAgreement { both: 3, ..LogAgreement::default() });
    }

    #[test]
    fn the_caller_column_may_be_on_one_side_only() {
        let console = LOG.replace("] a", "] [    T1] a").replace("] b", "] [   C12] b");
        assert_eq!(log_agreement(LOG, &console).both, 4);
        let other = LOG.replace("] a", "] [drm] a");
        assert_eq!(log_agreement(LOG, &other).both, 3);
    }

    #[test]
    fn a_line_that_the_log_lost_is_named() {
        let console = "[    0.000000] Linux version 6.1\n[    0.500000] lost\n[    1.000000] a\n";
        assert_eq!(log_agreement(LOG, console).only_console, ["[    0.500000] lost"]);
    }

    #[test]
    fn a_line_that_the_log_made_up_is_named() {
        let console = "[    0.000000] Linux version 6.1\n[    1.000001] b\n";
        assert_eq!(log_agreement(LOG, console).only_log, ["[    1.000000] a"]);
    }

    #[test]
    fn files_of_equal_length_and_other_bytes_are_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("left");
        let out = dir.path().join("out/deep");
        fs::create_dir_all(&out).unwrap();
        fs::write(&left, b"abc").unwrap();
        fs::write(out.join("other"), b"abd").unwrap();
        assert_eq!(find_same(&left, &dir.path().join("out")).unwrap(), None);
        fs::write(out.join("vmcore"), b"abc").unwrap();
        assert_eq!(find_same(&left, &dir.path().join("out")).unwrap(), Some(out.join("vmcore")));
    }
}
