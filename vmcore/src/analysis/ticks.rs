//! How late something is: jiffies in seconds, and how long the kernel went on after its panic.

use super::parts::Context;
use crate::kernel::time;

/// The first jiffy is five minutes before the lower half of them overflows.
const FIRST: u64 = 1 << 32;
const BEFORE: u64 = 300;

/// The time of a dump, in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    pub(super) jiffies: u64,
    pub(super) hz: u64,
    /// Nanoseconds of the monotonic clock.
    pub(super) monotonic_ns: Option<i64>,
    /// Seconds that the machine went on after the panic, with its CPUs stopped; `None` where there was a panic and that is not known.
    pub(super) after_panic_s: Option<f64>,
}

impl Ticks {
    pub(super) fn read(context: &Context<'_>) -> Result<Self, String> {
        let info = context.kernel.vmcoreinfo();
        let time = time::read(context.memory, info, context.description, &mut Vec::new())?;
        let jiffies = time.jiffies.ok_or("jiffies can't be read")?;
        let hz = time.hz.ok_or("how many ticks a second has is not known")?;
        let monotonic = time.uptime.checked_sub(time.suspended);
        let first = FIRST.saturating_sub(hz.saturating_mul(BEFORE));
        let up = seconds(jiffies.saturating_sub(first), hz);
        Ok(Self {
            jiffies,
            hz,
            monotonic_ns: monotonic.and_then(|time| i64::try_from(time.as_nanos()).ok()),
            after_panic_s: match &context.report.panic {
                None => Some(0.0),
                Some(panic) => panicked_at(context, &panic.message).map(|at| (up - at).max(0.0)),
            },
        })
    }

    /// How late `expires` is, in seconds; below zero it is still to come.
    pub(super) fn late_s(self, expires: u64) -> f64 {
        let by = self.jiffies.wrapping_sub(expires).cast_signed();
        let seconds = seconds(by.unsigned_abs(), self.hz);
        if by < 0 { -seconds } else { seconds }
    }
}

/// A number of ticks in seconds.
pub(super) fn seconds(ticks: u64, hz: u64) -> f64 {
    let millis = u128::from(ticks).saturating_mul(1000).checked_div(u128::from(hz)).unwrap_or_default();
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).as_secs_f64()
}

/// When the log tells of the panic, in seconds since boot.
fn panicked_at(context: &Context<'_>, message: &str) -> Option<f64> {
    let first = message.lines().next().filter(|line| !line.is_empty())?;
    let records = &context.log?.records;
    let record = records.iter().rev().find(|record| String::from_utf8_lossy(&record.text).contains(first))?;
    Some(std::time::Duration::from_nanos(record.ts_ns?).as_secs_f64())
}
