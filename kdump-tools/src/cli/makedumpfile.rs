//! `kdt` under the name `makedumpfile`: its command line, said in kdt's words, and its exit codes.
//!
//! Each of makedumpfile's modes becomes one command line of kdt (`translate`), which the same code then runs. What has no meaning here
//! (buffers, memory, work folders) is taken and changes nothing; what would change the answer and is not there (erasing, Xen) is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::output::{self, Output, Settings};
use crate::size::Size;

/// The version whose command line this is.
const LIKE: &str = "1.7.8";

const HELP: &str = "\
kdt, called as makedumpfile: takes the command line of makedumpfile and runs kdt.

  makedumpfile [-c|-l|-p|-z|-E] [-d LEVEL] [-f] [-L SIZE] [--num-threads N] VMCORE DUMPFILE
  makedumpfile -F [-c|-l|-p|-z|-E] [-d LEVEL] VMCORE      a flattened stream on stdout
  makedumpfile -R DUMPFILE                                a flattened stream from stdin, rearranged
  makedumpfile --split [-d LEVEL] VMCORE DUMPFILE1 DUMPFILE2 ...
  makedumpfile --reassemble DUMPFILE1 DUMPFILE2 ... DUMPFILE
  makedumpfile --dump-dmesg VMCORE LOGFILE
  makedumpfile --mem-usage /proc/kcore
  makedumpfile --check-params ...                         look at the command line, and do nothing

  --message-level N   without 1 and 2: no notes; with 8 or 16: more. -D, --show-stats: more
  --dry-run           say what would be written
  -x FILE, -i FILE    not needed: the dump itself tells
  -h, -v              this text, the version

Exit code: 0 done, 1 failed or not whole. docs/makedumpfile.md says what differs.
";

/// What stands behind an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Flag,
    /// A value.
    Value,
    /// Nothing, and it changes nothing here.
    Idle,
    /// A value, and it changes nothing here.
    IdleValue,
    /// It is not there, and leaving it away would change the answer.
    Refused,
}

const SHORT: &[(u8, Kind)] = &[
    (b'c', Kind::Flag),
    (b'l', Kind::Flag),
    (b'p', Kind::Flag),
    (b'z', Kind::Flag),
    (b'E', Kind::Flag),
    (b'F', Kind::Flag),
    (b'f', Kind::Flag),
    (b'R', Kind::Flag),
    (b'D', Kind::Flag),
    (b'h', Kind::Flag),
    (b'v', Kind::Flag),
    (b'd', Kind::Value),
    (b'L', Kind::Value),
    (b'x', Kind::Value),
    (b'i', Kind::Value),
    (b'X', Kind::Idle),
    (b'e', Kind::Idle),
    (b'b', Kind::IdleValue),
    (b'g', Kind::Refused),
];

const LONG: &[(&str, Kind)] = &[
    ("split", Kind::Flag),
    ("reassemble", Kind::Flag),
    ("dump-dmesg", Kind::Flag),
    ("mem-usage", Kind::Flag),
    ("dry-run", Kind::Flag),
    ("show-stats", Kind::Flag),
    ("check-params", Kind::Flag),
    ("help", Kind::Flag),
    ("version", Kind::Flag),
    ("message-level", Kind::Value),
    ("num-threads", Kind::Value),
    ("non-cyclic", Kind::Idle),
    ("non-mmap", Kind::Idle),
    ("cyclic-buffer", Kind::IdleValue),
    ("splitblock-size", Kind::IdleValue),
    ("work-dir", Kind::IdleValue),
    ("config", Kind::Refused),
    ("eppic", Kind::Refused),
    ("vtop", Kind::Refused),
    ("diskset", Kind::Refused),
    ("xen-syms", Kind::Refused),
    ("xen-vmcoreinfo", Kind::Refused),
    ("xen_phys_start", Kind::Refused),
];

/// The words of a command line, sorted.
#[derive(Debug, Default)]
struct Words {
    /// Options by their name without dashes, with their value.
    options: Vec<(String, OsString)>,
    /// The names of files.
    files: Vec<OsString>,
}

/// What a command line of makedumpfile asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// `-h`.
    Help,
    /// `-v`.
    Version,
    /// `--check-params`, of a line that makes sense.
    Nothing,
    /// A command line of kdt.
    Command {
        /// Its words, the program's name first.
        words: Vec<OsString>,
        /// Whether its «done in part» is makedumpfile's «done»: a log may begin late and is still the log.
        part_is_done: bool,
        /// The new dump, where a smaller one may be made if there is no space.
        dump: Option<OsString>,
        /// Said before.
        notes: Vec<String>,
        /// `--message-level` is not below 1.
        talks: bool,
    },
}

/// True where the program was called by this name.
#[must_use]
pub fn is_called(words: &[OsString]) -> bool {
    words.first().is_some_and(|name| Path::new(name).file_name() == Some(OsStr::new("makedumpfile")))
}

/// Runs such a command line; gives makedumpfile's exit code.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
    let asked = match translate(words.get(1..).unwrap_or_default()) {
        Ok(asked) => asked,
        Err(failure) => {
            output::last_words(&failure);
            return 1;
        }
    };
    let text = match asked {
        Asked::Help => HELP.to_owned(),
        Asked::Version => format!(
            "makedumpfile: version {LIKE} (its command line; this is kdt {})\nlzo\tenabled\nsnappy\tenabled\nzstd\tenabled\n",
            env!("CARGO_PKG_VERSION")
        ),
        Asked::Nothing => return 0,
        Asked::Command { words, part_is_done, dump, notes, talks } => {
            let output = Output::new(Settings { quiet: !talks, ..Settings::default() });
            for note in &notes {
                output.note(note);
            }
            // What found room would be in the way of what is written then.
            let only_whole = [OsString::from("--no-incomplete")];
            let first = dump.as_ref().map(|_| with(words.clone(), only_whole));
            let mut exit = super::run(first.unwrap_or_else(|| words.clone()));
            if let (Exit::NoSpace, Some(room)) = (exit, dump.as_deref().and_then(room_beside)) {
                output.warn(&format!(
                    "it is written again, as far as the {} go that are free there",
                    Size::from(room)
                ));
                exit = super::run(with(words, [OsString::from("--limit"), room.to_string().into()]));
            }
            let done = exit == Exit::Done || (exit == Exit::Partial && part_is_done);
            output.note(if done { "makedumpfile Completed." } else { "makedumpfile Failed." });
            return u8::from(!done);
        }
    };
    match output::help(&text) {
        Ok(()) => 0,
        Err(failure) => {
            output::last_words(&failure);
            1
        }
    }
}

/// Bytes that a new dump may take where `dump` lies: what is free, but for a little for the folder itself.
fn room_beside(dump: &OsStr) -> Option<u64> {
    let folder = Path::new(dump).parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = rustix::fs::statvfs(folder).ok()?;
    free.f_bavail.checked_mul(free.f_frsize)?.checked_sub(1 << 20).filter(|room| *room > 1 << 20)
}

/// The same command line with these words before its files.
fn with<const N: usize>(mut words: Vec<OsString>, more: [OsString; N]) -> Vec<OsString> {
    let at = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(at..at, more);
    words
}

/// Takes the words apart as getopt does: options anywhere, short ones together, long ones abbreviated.
fn sort(words: &[OsString]) -> Result<Words, Failure> {
    let mut sorted = Words::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            sorted.files.extend(rest.by_ref().cloned());
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|byte| *byte == b'=') {
                Some(at) => (long.get(..at).unwrap_or_default(), long.get(at + 1..)),
                None => (long, None),
            };
            let name = String::from_utf8_lossy(name).into_owned();
            let (full, kind) = long_option(&name)?;
            let takes = matches!(kind, Kind::Value | Kind::IdleValue);
            let value = match value {
                Some(value) if takes => OsString::from_vec(value.to_vec()),
                Some(_) if kind != Kind::Refused => {
                    return Err(invalid(format!("--{full} takes no value")));
                }
                None if takes => next_value(&mut rest, &format!("--{full}"))?,
                _ => OsString::new(),
            };
            sorted.options.push((full.to_owned(), checked(kind, full, value)?));
        } else if let (Some(mut short), true) = (bytes.strip_prefix(b"-"), bytes.len() > 1) {
            while let Some((letter, after)) = short.split_first() {
                let name = char::from(*letter).to_string();
                let Some((_, kind)) = SHORT.iter().find(|(known, _)| known == letter) else {
                    return Err(invalid(format!("makedumpfile has no option -{name}")));
                };
                let mut value = OsString::new();
                short = after;
                if matches!(kind, Kind::Value | Kind::IdleValue) {
                    value = if after.is_empty() {
                        next_value(&mut rest, &format!("-{name}"))?
                    } else {
                        OsString::from_vec(after.to_vec())
                    };
                    short = &[];
                }
                sorted.options.push((name.clone(), checked(*kind, &name, value)?));
            }
        } else {
            sorted.files.push(word.clone());
        }
    }
    Ok(sorted)
}

fn next_value<'w>(rest: &mut impl Iterator<Item = &'w OsString>, name: &str) -> Result<OsString, Failure> {
    rest.next().cloned().ok_or_else(|| invalid(format!("{name} needs a value")))
}

/// The option of this name, or the only one that begins with it.
fn long_option(name: &str) -> Result<(&'static str, Kind), Failure> {
    let mut like = LONG.iter().filter(|(full, _)| full.starts_with(name));
    match (LONG.iter().find(|(full, _)| *full == name), like.next(), like.next()) {
        (Some(found), ..) | (None, Some(found), None) => Ok(*found),
        (None, Some((one, _)), Some((other, _))) => {
            Err(invalid(format!("--{name} may be --{one} or --{other}")))
        }
        _ => Err(invalid(format!("makedumpfile has no option --{name}"))),
    }
}

fn checked(kind: Kind, name: &str, value: OsString) -> Result<OsString, Failure> {
    if kind != Kind::Refused {
        return Ok(value);
    }
    let (what, hint) = match name {
        "g" => ("kdt makes no VMCOREINFO file", "it is not needed: the dump itself tells"),
        "config" | "eppic" => {
            ("kdt erases no data of a kernel", "leave it away only if the dump may hold that data")
        }
        "vtop" => ("kdt does not translate single addresses here", "use crash, or kdt triage"),
        "diskset" => ("kdt reads no sadump disk sets", "use makedumpfile itself"),
        _ => ("kdt reads no dumps of Xen", "use makedumpfile itself"),
    };
    let dashes = if name.len() == 1 { "-" } else { "--" };
    Err(Failure::usage(format!("{dashes}{name}: {what}"), hint))
}

fn invalid(what: String) -> Failure {
    Failure::usage(what, "makedumpfile -h shows what is understood")
}

impl Words {
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| given == name)
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        self.options.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_os_str())
    }

    /// A number that an option has, not above `most`.
    fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Failure> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.to_string_lossy();
        let number = text.trim().parse().ok().filter(|number| *number <= most);
        let dashes = if name.len() == 1 { "-" } else { "--" };
        number.map(Some).ok_or_else(|| {
            invalid(format!("{dashes}{name} takes a number from 0 to {most}, and {text:?} is none"))
        })
    }

    /// The files, where there are as many as `range` says.
    fn files(&self, least: usize, most: usize, usage: &str) -> Result<&[OsString], Failure> {
        if (least..=most).contains(&self.files.len()) {
            return Ok(&self.files);
        }
        let count = self.files.len();
        let which = if count < least { "too few" } else { "too many" };
        Err(Failure::usage(
            format!("{which} files are named: {count}"),
            format!("usage: makedumpfile {usage}"),
        ))
    }
}

/// What the words, without the program's name, ask for.
fn translate(words: &[OsString]) -> Result<Asked, Failure> {
    let words = sort(words)?;
    if words.has("h") || words.has("help") {
        return Ok(Asked::Help);
    }
    if words.has("v") || words.has("version") {
        return Ok(Asked::Version);
    }
    let level = words.number("message-level", 31)?.unwrap_or(7);
    let talks = level & 0x3 != 0;
    let more = level & 0x18 != 0 || words.has("D") || words.has("show-stats");
    let mut line: Vec<OsString> = vec!["kdt".into()];
    match (more, talks) {
        (true, _) => line.push("-v".into()),
        (false, false) => line.push("-q".into()),
        (false, true) => {}
    }
    let mut notes = Vec::new();
    for (name, what) in [("x", "-x VMLINUX"), ("i", "-i VMCOREINFO")] {
        if words.has(name) {
            notes.push(format!("{what} is not needed, and not looked at: the dump itself tells"));
        }
    }
    if words.has("X") {
        notes.push("-X changes nothing: it is about dumps of Xen, which kdt does not read".into());
    }
    if words.has("e") {
        notes.push("-e changes nothing: all struct page are kept".into());
    }
    let mut part_is_done = false;
    let mut dump = None;
    let force = words.has("f");
    let files = if words.has("dump-dmesg") {
        part_is_done = true;
        let files = words.files(2, 2, "--dump-dmesg VMCORE LOGFILE")?;
        let (vmcore, log) = files.split_at_checked(1).unwrap_or_default();
        if let Some(log) = log.first() {
            if !force && !words.has("check-params") && Path::new(log).is_file() {
                return Err(Failure::usage(
                    format!("{} is there already", Path::new(log).display()),
                    "choose another name, or replace it with -f",
                ));
            }
            line.extend(["log".into(), "--caller".into(), "-o".into(), log.clone()]);
        }
        vmcore
    } else if words.has("R") {
        line.extend(["join".into(), "--no-digest".into()]);
        words.files(1, 1, "-R DUMPFILE < STREAM")?
    } else if words.has("reassemble") {
        line.extend(["join".into(), "--no-digest".into()]);
        words.files(2, usize::MAX, "--reassemble DUMPFILE1 DUMPFILE2 ... DUMPFILE")?
    } else if words.has("mem-usage") {
        line.extend(["filter".into(), "--plan".into()]);
        words.files(1, 1, "--mem-usage /proc/kcore")?
    } else {
        dump = filter(&words, &mut line)?;
        // The files of a set are named by options.
        let only = if words.has("split") { 1 } else { 2 };
        words.files.get(..only.min(words.files.len())).unwrap_or_default()
    };
    if force && !words.has("dump-dmesg") && !words.has("mem-usage") {
        line.push("-f".into());
    }
    if words.has("dry-run") && !words.has("dump-dmesg") && !words.has("mem-usage") {
        line.push("--dry-run".into());
    }
    line.push("--".into());
    if words.has("R") {
        line.push("-".into());
    }
    line.extend(files.iter().cloned());
    if words.has("check-params") {
        return Ok(Asked::Nothing);
    }
    Ok(Asked::Command { words: line, part_is_done, dump, notes, talks })
}

/// The words of `kdt filter` but for its files; gives the new dump where a smaller one may be made.
fn filter(words: &Words, line: &mut Vec<OsString>) -> Result<Option<OsString>, Failure> {
    line.extend(["filter".into(), "--no-digest".into()]);
    let codecs: Vec<&str> = ["c", "l", "p", "z", "E"].into_iter().filter(|name| words.has(name)).collect();
    match codecs[..] {
        [] => line.push("--raw".into()),
        [one] => line.push(format!("-{one}").into()),
        _ => return Err(invalid(format!("of -{} only one can be given", codecs.join(" and -")))),
    }
    let level = words.value("d").unwrap_or(OsStr::new("0"));
    line.extend(["-d".into(), level.to_owned()]);
    let numbers = level.to_string_lossy();
    if let Some(bad) = numbers.split(',').find(|n| n.parse::<u64>().map_or(true, |n| n > 31)) {
        return Err(invalid(format!("{bad:?} is no dump level: they go from 0 to 31")));
    }
    if let Some(threads) = words.number("num-threads", 1 << 20)?.filter(|threads| *threads > 0) {
        line.extend(["--jobs".into(), threads.min(64).to_string().into()]);
    }
    let limit = words.number("L", u64::MAX)?;
    if words.has("split") {
        for (with, why) in [("F", "stream"), ("E", "ELF dump"), ("L", "limit")] {
            if words.has(with) {
                return Err(invalid(format!("--split and -{with} do not go together: a set has no {why}")));
            }
        }
        let files = words.files(3, usize::MAX, "--split VMCORE DUMPFILE1 DUMPFILE2 ...")?;
        for file in files.iter().skip(1) {
            line.extend(["--into".into(), file.clone()]);
        }
        return Ok(None);
    }
    if let Some(limit) = limit {
        line.extend(["--limit".into(), limit.to_string().into()]);
    }
    if words.has("F") {
        line.push("-F".into());
        words.files(1, 1, "-F VMCORE > STREAM")?;
        return Ok(None);
    }
    // With --dry-run a name is not needed.
    let least = if words.has("dry-run") { 1 } else { 2 };
    let files = words.files(least, 2, "VMCORE DUMPFILE")?;
    Ok(files.get(1).filter(|_| limit.is_none() && !words.has("E")).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[track_caller]
    fn becomes(line: &str, expected: &str) {
        match translate(&words(line)).unwrap() {
            Asked::Command { words, .. } => {
                let told: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                assert_eq!(told.join(" "), expected);
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(line: &str) -> String {
        translate(&words(line)).unwrap_err().message
    }

    #[test]
    fn the_lines_of_kdump_conf() {
        becomes(
            "-l --message-level 7 -d 31 /proc/vmcore vmcore-incomplete",
            "kdt filter --no-digest -l -d 31 -- /proc/vmcore vmcore-incomplete",
        );
        becomes(
            "-F -l --message-level 7 -d 31 /proc/vmcore",
            "kdt filter --no-digest -l -d 31 -F -- /proc/vmcore",
        );
        becomes("/proc/vmcore out -d16,31 -zf", "kdt filter --no-digest -z -d 16,31 -f -- /proc/vmcore out");
    }

    #[test]
    fn without_letters_nothing_is_compressed_and_nothing_left_out() {
        becomes("a b", "kdt filter --no-digest --raw -d 0 -- a b");
    }

    #[test]
    fn sets_streams_and_logs() {
        becomes(
            "--split -c -d 31 v one two three",
            "kdt filter --no-digest -c -d 31 --into one --into two --into three -- v",
        );
        becomes("--reassemble one two whole", "kdt join --no-digest -- one two whole");
        becomes("-R whole", "kdt join --no-digest -- - whole");
        becomes("--dump-dmesg v log-that-is-not-there", "kdt log --caller -o log-that-is-not-there -- v");
        becomes("--mem-usage /proc/kcore", "kdt filter --plan -- /proc/kcore");
    }

    #[test]
    fn message_levels_say_how_much_is_said() {
        becomes("--message-level 4 a b", "kdt -q filter --no-digest --raw -d 0 -- a b");
        becomes("--message-level=31 a b", "kdt -v filter --no-digest --raw -d 0 -- a b");
        becomes("--show-stats a b", "kdt -v filter --no-digest --raw -d 0 -- a b");
        assert!(refused("--message-level 32 a b").contains("from 0 to 31"));
    }

    #[test]
    fn what_changes_nothing_is_taken_and_abbreviations_too() {
        becomes(
            "--non-cyclic --cyclic 1024 --work-dir /tmp -b 4 --num-th 2 -L 5000 -X a b",
            "kdt filter --no-digest --raw -d 0 --jobs 2 --limit 5000 -- a b",
        );
        let Asked::Command { notes, .. } = translate(&words("-x vmlinux -i info a b")).unwrap() else {
            panic!()
        };
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn what_would_change_the_answer_is_refused() {
        assert!(refused("--config f -x v a b").contains("erases no data"));
        assert!(refused("--bogus a b").contains("no option --bogus"));
        assert!(refused("-y a b").contains("no option -y"));
        assert!(refused("--s a b").contains("may be --split or --show-stats"));
        assert!(refused("-c -l a b").contains("only one"));
        assert!(refused("-d 99 a b").contains("no dump level"));
        assert!(refused("a").contains("too few"));
        assert!(refused("-d").contains("needs a value"));
        assert!(refused("--split -E v a b").contains("do not go together"));
    }

    #[test]
    fn a_line_is_looked_at_without_being_run() {
        assert_eq!(translate(&words("--check-params -l -d 31 vmcore dumpfile")).unwrap(), Asked::Nothing);
        assert!(refused("--check-params -l vmcore").contains("too few"));
    }

    #[test]
    fn the_name_decides() {
        assert!(is_called(&words("/usr/sbin/makedumpfile -h")));
        assert!(!is_called(&words("/usr/bin/kdt makedumpfile")));
    }

    #[test]
    fn a_limit_stands_before_the_files() {
        let line = with(words("kdt filter -- a b"), ["--limit".into(), "7".into()]);
        assert_eq!(line, words("kdt filter --limit 7 -- a b"));
    }
}
