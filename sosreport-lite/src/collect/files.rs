//! Copies the files that match a glob, the newest first where logs are concerned.

use crate::collect::{Body, Context, Entry, Harvest, status_of_no_answer, tailed_place};
use crate::error::is_no_space;
use crate::mangle::{relative_link, tailed_name};
use crate::outcome::{FileRecord, ItemStatus};
use crate::reader::NoAnswer;
use crate::reader::frame::Verdict;
use crate::reader::glob::matches_path;
use crate::spec::Keep;
use crate::spool::Intake;

/// How one file came out.
pub(super) enum One {
    Taken,
    Nothing(Verdict, String),
    TimedOut,
    Broken(ItemStatus),
}

pub(super) fn collect(
    context: &mut Context<'_>,
    glob: &str,
    exclude: &[String],
    harvest: &mut Harvest,
) -> ItemStatus {
    let limit = context.plan.options.limits.max_matches;
    let listed = context.reader.glob(glob, limit, context.file_deadline());
    let (mut paths, verdict, why) = match listed {
        Ok(listed) => listed,
        Err(e) => return status_of_no_answer(&e, glob),
    };
    if !matches!(verdict, Verdict::Complete) {
        if paths.is_empty() {
            return super::status_of(verdict, why);
        }
        harvest.report.notes.push(why);
    }
    let excluded =
        |path: &[u8]| exclude.iter().any(|e| matches_path(e.trim_start_matches('/').as_bytes(), path));
    paths.retain(|path| !excluded(path));
    if context.item.keep == Keep::Tail {
        newest_first(&mut paths);
    }
    let mut tally = Tally::default();
    let mut left = context.item.cap;
    for path in &paths {
        if context.is_over() {
            tally.timed_out += 1;
            harvest.report.notes.push("the time of this item was up before its last file".into());
            break;
        }
        let name = String::from_utf8_lossy(path);
        if left == 0 || (left < context.item.cap && is_compressed(path) && left < 64 << 10) {
            harvest
                .report
                .notes
                .push(format!("/{name} is left out: the files before it filled the item's cap"));
            continue;
        }
        let before = harvest.spool.len();
        match copy(context, path, path, left, harvest) {
            One::Taken => tally.taken += 1,
            One::TimedOut => {
                tally.timed_out += 1;
                harvest.report.notes.push(format!("/{name} did not answer in its time"));
            }
            One::Broken(ItemStatus::NoSpace) => return ItemStatus::NoSpace,
            One::Broken(status) => tally.worst(status),
            One::Nothing(Verdict::Absent, why) => {
                harvest.report.notes.push(format!("/{name}: {why}"));
            }
            One::Nothing(verdict, why) => {
                harvest.report.notes.push(format!("/{name}: {why}"));
                tally.worst(super::status_of(verdict, why));
            }
        }
        left = left.saturating_sub(harvest.spool.len() - before);
    }
    tally.status(harvest.entries.is_empty())
}

/// How the files of an item came out together.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) taken: usize,
    pub(super) timed_out: usize,
    worst: Option<ItemStatus>,
}

impl Tally {
    pub(super) fn worst(&mut self, status: ItemStatus) {
        self.worst.get_or_insert(status);
    }

    pub(super) fn status(self, nothing: bool) -> ItemStatus {
        if self.timed_out > 0 {
            return ItemStatus::TimedOut(format!("{} of its files did not answer in time", self.timed_out));
        }
        match self.worst {
            Some(status) if self.taken == 0 => status,
            _ if self.taken == 0 && nothing => ItemStatus::Absent("there is no such file".into()),
            _ => ItemStatus::Taken,
        }
    }
}

/// Names of rotated logs end in a number or a date; the plain name is the newest, then the smallest number or
/// the greatest date. Times of the files would need a call for each, which may hang.
fn newest_first(paths: &mut [Vec<u8>]) {
    paths.sort_by(|a, b| {
        let (a, b) = (rotation(a), rotation(b));
        match (a, b) {
            (Some(a), Some(b)) if a > 9999 && b > 9999 => b.cmp(&a),
            (a, b) => a.cmp(&b),
        }
    });
}

fn rotation(path: &[u8]) -> Option<u64> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let digits = name.iter().rev().skip_while(|b| !b.is_ascii_digit()).take_while(|b| b.is_ascii_digit());
    let mut number = String::from_utf8(digits.copied().collect()).ok()?;
    number = number.chars().rev().take(18).collect();
    number.parse().ok()
}

fn is_compressed(path: &[u8]) -> bool {
    [b".gz".as_slice(), b".xz", b".bz2", b".zst"].iter().any(|suffix| path.ends_with(suffix))
}

/// Copies the file at `path` of the host to `place` in the bundle, at most `cap` bytes of it.
pub(super) fn copy(
    context: &mut Context<'_>,
    path: &[u8],
    place: &[u8],
    cap: u64,
    harvest: &mut Harvest,
) -> One {
    let keep = context.item.keep;
    let deadline = context.file_deadline();
    let mut intake = Intake::new(&mut harvest.spool, place, keep, cap);
    let answer = context.reader.read(path, keep, cap, deadline, &mut |bytes| intake.push(bytes));
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::TimedOut) => return One::TimedOut,
        Err(NoAnswer::Sink(e)) if is_no_space(&e) => return One::Broken(ItemStatus::NoSpace),
        Err(e) => return One::Broken(status_of_no_answer(&e, &String::from_utf8_lossy(path))),
    };
    if answer.verdict == Verdict::Truncated {
        intake.mark_truncated();
    }
    let taken = match intake.finish() {
        Ok(taken) => taken,
        Err(e) if is_no_space(&e) => return One::Broken(ItemStatus::NoSpace),
        Err(e) => return One::Broken(ItemStatus::Failed(format!("it can't be kept: {e}"))),
    };
    let Some(meta) = answer.meta else {
        if let Some(target) = answer.link {
            put_link(harvest, place, &target);
        }
        return One::Nothing(answer.verdict, answer.why);
    };
    let bytes = taken.range.end - taken.range.start;
    // A file that gives nothing but an error has nothing to show: many of /sys are so by nature.
    if bytes == 0 && !matches!(answer.verdict, Verdict::Complete | Verdict::Truncated) {
        return One::Nothing(answer.verdict, answer.why);
    }
    let mut at = place.to_vec();
    // The links of /proc and /sys are many and their targets mean nothing outside of this boot.
    let real_link = answer.link.filter(|_| !place.starts_with(b"proc/") && !place.starts_with(b"sys/"));
    if let Some(target) = real_link {
        put_link(harvest, place, &target);
        at.clone_from(&meta.canonical);
    }
    let body =
        Body::File { range: taken.range, mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime };
    if taken.truncated {
        let strings = tailed_place(&context.item.plugin, &tailed_name(&at));
        let target = relative_link(&at, &strings);
        harvest.entries.push(Entry { path: strings, body });
        harvest.entries.push(Entry { path: at.clone(), body: Body::Link { target } });
    } else {
        harvest.entries.push(Entry { path: at.clone(), body });
    }
    harvest.report.files.push(FileRecord {
        path: format!("/{}", String::from_utf8_lossy(path)),
        place: String::from_utf8_lossy(&at).into_owned(),
        bytes,
        truncated: taken.truncated,
        scrubbed: taken.scrubbed,
    });
    One::Taken
}

/// A link stays a link, but always a relative one: unpacked anywhere, it stays inside the bundle.
fn put_link(harvest: &mut Harvest, place: &[u8], target: &[u8]) {
    let mut to: Vec<&[u8]> = Vec::new();
    if target.first() != Some(&b'/') {
        to.extend(place.split(|b| *b == b'/'));
        to.pop();
    }
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(to.pop()),
            part => to.push(part),
        }
    }
    let target = relative_link(place, &to.join(&b'/'));
    harvest.entries.push(Entry { path: place.to_vec(), body: Body::Link { target } });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_log_comes_first() {
        let sorted = |names: &[&str]| {
            let mut paths: Vec<Vec<u8>> = names.iter().map(|n| n.as_bytes().to_vec()).collect();
            newest_first(&mut paths);
            paths.into_iter().map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            sorted(&["log/kern.log.10.gz", "log/kern.log.2.gz", "log/kern.log", "log/kern.log.1"]),
            ["log/kern.log", "log/kern.log.1", "log/kern.log.2.gz", "log/kern.log.10.gz"]
        );
        assert_eq!(
            sorted(&["messages-20260101", "messages", "messages-20261101"]),
            ["messages", "messages-20261101", "messages-20260101"]
        );
    }
}
