//! Takes what `/proc` tells of the threads in some states: the stacks of blocked tasks above all.

use crate::collect::files::{One, Tally, copy};
use crate::collect::{Context, Harvest, status_of_no_answer};
use crate::outcome::ItemStatus;
use crate::spec::Keep;

/// As many threads as this are looked at; more is noted.
const MOST_THREADS: usize = 32_768;

pub(super) fn collect(
    context: &mut Context<'_>,
    states: &str,
    files: &[String],
    harvest: &mut Harvest,
) -> ItemStatus {
    let all_threads = "/proc/[0-9]*/task/[0-9]*/stat";
    let (paths, _, why) = match context.reader.glob(all_threads, MOST_THREADS, context.deadline) {
        Ok(listed) => listed,
        Err(e) => return status_of_no_answer(&e, all_threads),
    };
    if !why.is_empty() {
        harvest.report.notes.push(why);
    }
    let mut tally = Tally::default();
    let mut left = context.item.cap;
    for path in paths {
        if context.is_over() || left == 0 {
            tally.timed_out += usize::from(context.is_over());
            harvest
                .report
                .notes
                .push("not all threads were looked at: the time or the size of this item was used up".into());
            break;
        }
        let mut stat = Vec::new();
        let deadline = context.file_deadline();
        let answer = context.reader.read(&path, Keep::Head, 4096, deadline, &mut |bytes| {
            stat.extend_from_slice(bytes);
            Ok(true)
        });
        if answer.is_err() {
            tally.timed_out += 1;
            harvest
                .report
                .notes
                .push(format!("/{} did not answer in its time", String::from_utf8_lossy(&path)));
            continue;
        }
        let Some(state) = state_of(&stat) else { continue };
        if !states.contains(state) {
            continue;
        }
        let Some(dir) = path.strip_suffix(b"/stat") else { continue };
        for file in files {
            let path = [dir, b"/", file.as_bytes()].concat();
            let before = harvest.spool.len();
            match copy(context, &path, &path, left, harvest) {
                One::Taken => tally.taken += 1,
                One::TimedOut => {
                    tally.timed_out += 1;
                    let path = String::from_utf8_lossy(&path).into_owned();
                    harvest.report.notes.push(format!("/{path} did not answer in its time"));
                }
                One::Broken(ItemStatus::NoSpace) => return ItemStatus::NoSpace,
                One::Broken(other) => tally.worst(other),
                // The thread may have gone on, or ended, since.
                One::Nothing(..) => {}
            }
            left = left.saturating_sub(harvest.spool.len() - before);
        }
    }
    match tally.status(harvest.entries.is_empty()) {
        ItemStatus::Absent(_) => ItemStatus::Absent(format!("no thread is in state {states}")),
        other => other,
    }
}

/// The state letter of `/proc/PID/stat`: after the last `)`, because a name may have parentheses and spaces.
fn state_of(stat: &[u8]) -> Option<char> {
    let close = stat.iter().rposition(|b| *b == b')')?;
    stat.get(close + 2).map(|b| char::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_state() {
        assert_eq!(state_of(b"7 (a) S (b) D 1 2"), Some('D'));
        assert_eq!(state_of(b"7 (a"), None);
        assert_eq!(state_of(b"7 (a)"), None);
    }
}
