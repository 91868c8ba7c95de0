//! Reads counters twice, so that what moves can be told from what stands still: the question of every hang.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::collect::files::{One, Tally, copy};
use crate::collect::{Body, Context, Entry, Harvest, epoch_seconds};
use crate::outcome::ItemStatus;

pub(super) fn collect(
    context: &mut Context<'_>,
    paths: &[String],
    interval: Duration,
    harvest: &mut Harvest,
) -> ItemStatus {
    let base = format!("sos_strings/{}/samples", context.item.plugin);
    let mut tally = Tally::default();
    let mut times = String::new();
    let began = Instant::now();
    for round in 1..=2_u8 {
        if round == 2 && !wait_until(context, began + interval) {
            tally.timed_out += 1;
            break;
        }
        for path in paths {
            let path = path.trim_start_matches('/');
            let place = format!("{base}/{round}/{path}");
            let (at, epoch) = (began.elapsed(), epoch_seconds());
            match copy(context, path.as_bytes(), place.as_bytes(), context.item.cap, harvest) {
                One::Taken => {
                    tally.taken += 1;
                    let _ = writeln!(times, "{round} /{path} {:.6} {:.6}", at.as_secs_f64(), epoch);
                }
                One::TimedOut => tally.timed_out += 1,
                One::Broken(ItemStatus::NoSpace) => return ItemStatus::NoSpace,
                One::Broken(status) => tally.worst(status),
                One::Nothing(..) => {}
            }
        }
    }
    let header = "# round path seconds-since-the-first-reading seconds-since-1970\n";
    let start = harvest.spool.len();
    let kept = harvest.spool.write(header.as_bytes()).and_then(|()| harvest.spool.write(times.as_bytes()));
    if let Err(e) = kept {
        return super::status_of_no_answer(&crate::reader::NoAnswer::Sink(e), "times.txt");
    }
    let range = start..harvest.spool.len();
    let mtime = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let body = Body::File { range, mode: 0o600, uid: 0, gid: 0, mtime };
    harvest.entries.push(Entry { path: format!("{base}/times.txt").into_bytes(), body });
    tally.status(harvest.entries.is_empty())
}

/// False if the run ends before.
fn wait_until(context: &Context<'_>, when: Instant) -> bool {
    while Instant::now() < when {
        if context.cancel.load(Ordering::Relaxed) || Instant::now() >= context.deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
