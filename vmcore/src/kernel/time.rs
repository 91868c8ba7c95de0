//! What time it was on the dumped machine.
//!
//! The kernel keeps the time in `struct timekeeper`: wall clock, since boot, since boot without suspends. A tick or any code that
//! asks for a precise update brings it up to date, so a machine whose CPUs were all idle can be a few seconds behind. In a crash
//! nothing ticks any more, and the time stands still at that of the crash. Facts: `kernel/time/timekeeping.c`,
//! `include/linux/timekeeper_internal.h`.

use std::time::Duration;

use super::Gap;
use super::describe::Description;
use super::value::{self, Layout, view};
use super::variable::Variables;
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::sym::btf::{Kind, Types};
use crate::xlat::KernelMemory;

const SECOND: i128 = 1_000_000_000;
/// No machine has been up for longer than this (a century), in nanoseconds.
const LONGEST: i128 = 100 * 365 * 86_400 * SECOND;
/// What kernels are built with (`kernel/Kconfig.hz`).
const RATES: [u64; 4] = [100, 250, 300, 1000];
/// Bytes of a clock source's name.
const NAME: usize = 64;
/// CRASHTIME has whole seconds, and the clock ticks on until the other CPUs stand still.
const CRASH_SLACK: u64 = 2;
/// Jiffies begin to count a moment after the clock does.
const JIFFIES_SLACK: u64 = 5;

view! {
    /// `struct timekeeper`.
    struct Timekeeper of "timekeeper" {
        xtime_sec: u64 = ["xtime_sec"],
        xtime_nsec: u64 = ["tkr_mono.xtime_nsec"],
        shift: u32 = ["tkr_mono.shift"],
        clock: KVirtAddr = ["tkr_mono.clock"],
        to_monotonic_sec: i64 = ["wall_to_monotonic.tv_sec"],
        to_monotonic_nsec: i64 = ["wall_to_monotonic.tv_nsec"],
        offs_boot: i64 = ["offs_boot"],
        xtime_interval: Option<u64> = ["xtime_interval"],
    }
}

view! {
    /// `struct clocksource`.
    struct ClockSource of "clocksource" {
        name: KVirtAddr = ["name"],
    }
}

/// The dumped machine's time when its clock was last brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Time {
    /// The wall clock (`CLOCK_REALTIME`), since 1970. For a machine that did not crash: the time of the dump.
    pub now: Duration,
    /// How long the machine is up, suspends included (`CLOCK_BOOTTIME`, `/proc/uptime`).
    pub uptime: Duration,
    /// Of this, how long it was suspended.
    pub suspended: Duration,
    /// When it was booted by the wall clock, since 1970: `now` less `uptime`, as `btime` of `/proc/stat`.
    pub booted: Duration,
    /// CRASHTIME of VMCOREINFO, seconds since 1970: when the kernel crashed, with kexec loaded. `None` where it did not.
    pub crashed: Option<u64>,
    /// `jiffies_64`, where it can be read.
    pub jiffies: Option<u64>,
    /// Ticks in a second (`CONFIG_HZ`), by the clock's own interval.
    pub hz: Option<u64>,
    /// How long the machine is up by its jiffies, without suspends; in whole seconds.
    pub uptime_by_jiffies: Option<Duration>,
    /// The clock source: `tsc`, `kvm-clock`.
    pub clock_source: Option<String>,
    /// Where CRASHTIME or the jiffies tell another time than the clock: sentences.
    pub disagreements: Vec<String>,
}

/// Reads the time.
///
/// # Errors
/// The reason why the clock can't be found or read, or what it holds can't be.
pub fn read(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    description: &Description,
    gaps: &mut Vec<Gap>,
) -> Result<Time, String> {
    let types = &description.types;
    let variables = Variables::new(memory, &description.symbols);
    let at = place(variables, types)?;
    let layout = Layout::<Timekeeper>::new(types).map_err(|e| e.to_string())?;
    let keeper = layout.read(memory, at).map_err(|e| e.to_string())?;
    let (now, monotonic, uptime) = clocks(&keeper).ok_or_else(|| {
        format!("what the clock at {at} holds is no time (wall clock {} s)", keeper.xtime_sec)
    })?;
    let hz = rate(&keeper);
    let jiffies = match variables.u64("jiffies_64") {
        Ok(jiffies) => Some(jiffies),
        Err(why) => {
            gaps.push(Gap { what: "jiffies".into(), why: why.to_string() });
            None
        }
    };
    let source_name = || {
        let source = Layout::<ClockSource>::new(types).ok()?.read(memory, keeper.clock).ok()?;
        value::read_text(memory, source.name, NAME).ok()
    };
    let mut time = Time {
        now,
        uptime,
        suspended: uptime.saturating_sub(monotonic),
        booted: now.saturating_sub(uptime),
        crashed: info.crash_time(),
        jiffies,
        hz,
        uptime_by_jiffies: jiffies.zip(hz).and_then(|(jiffies, hz)| since_boot(jiffies, hz)),
        clock_source: source_name().filter(|name| !name.is_empty()),
        disagreements: Vec::new(),
    };
    time.compare(monotonic);
    Ok(time)
}

impl Time {
    fn compare(&mut self, monotonic: Duration) {
        if let Some(crashed) = self.crashed
            && crashed.abs_diff(self.now.as_secs()) > CRASH_SLACK
        {
            self.disagreements.push(format!(
                "CRASHTIME is {crashed}, and the clock stands at {}: memory is not as it was at the crash",
                self.now.as_secs()
            ));
        }
        if let Some(jiffies) = self.uptime_by_jiffies
            && jiffies.as_secs().abs_diff(monotonic.as_secs()) > JIFFIES_SLACK
        {
            self.disagreements.push(format!(
                "by its jiffies the machine is up for {} s, by its clock for {} s without suspends",
                jiffies.as_secs(),
                monotonic.as_secs()
            ));
        }
    }
}

/// Where the clock is.
fn place(variables: Variables<'_, '_>, types: &Types) -> Result<KVirtAddr, String> {
    // Since 6.17 (kernel commit 22c62b9a84b8) there are several in an array, and the first is the machine's.
    let (name, start) = match variables.address("timekeeper_data") {
        Ok(at) => ("timekeeper_data", at),
        Err(_) => ("tk_core", variables.address("tk_core").map_err(|e| e.to_string())?),
    };
    let inside = match types.structure("tk_data") {
        Ok(data) => data.member("timekeeper").map_err(|e| e.to_string())?.offset(),
        // Before 6.13 the struct around it had no name.
        Err(_) => unnamed(types).ok_or_else(|| format!("the type of {name} is not known"))?,
    };
    start.checked_add(inside).ok_or_else(|| format!("{name} is at the end of the address space"))
}

/// Where the clock is in the struct without a name that has a lock and a clock, as long as all such agree.
fn unnamed(types: &Types) -> Option<u64> {
    let kernel = types.kernel()?;
    let mut found = kernel.ids().filter_map(|id| kernel.by_id(id).ok()).filter_map(|ty| {
        let mut members = ty.members();
        let (lock, clock) = (members.next()?, members.next()?);
        let pair = ty.kind() == Kind::Struct && ty.name().is_empty() && members.next().is_none();
        let named = lock.name() == "seq" && clock.name() == "timekeeper";
        (pair && named && clock.ty().as_struct().ok()?.name() == "timekeeper").then(|| clock.offset())
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Wall clock, time since boot without and with suspends; `None` where that is no time.
fn clocks(keeper: &Timekeeper) -> Option<(Duration, Duration, Duration)> {
    let part = i128::from(keeper.xtime_nsec.checked_shr(keeper.shift)?);
    let inside = 0..SECOND;
    // The fraction is carried into the seconds at each update; wall_to_monotonic is normalised.
    if part > SECOND.saturating_mul(2) || !inside.contains(&i128::from(keeper.to_monotonic_nsec)) {
        return None;
    }
    let now = i128::from(keeper.xtime_sec).saturating_mul(SECOND).saturating_add(part);
    let to_monotonic = i128::from(keeper.to_monotonic_sec)
        .saturating_mul(SECOND)
        .saturating_add(i128::from(keeper.to_monotonic_nsec));
    let monotonic = now.saturating_add(to_monotonic);
    let uptime = monotonic.saturating_add(i128::from(keeper.offs_boot));
    let plausible = (0..=LONGEST).contains(&monotonic) && (monotonic..=LONGEST).contains(&uptime);
    if !plausible {
        return None;
    }
    let duration = |ns: i128| {
        let seconds = u64::try_from(ns.checked_div(SECOND)?).ok()?;
        Some(Duration::new(seconds, u32::try_from(ns.checked_rem(SECOND)?).ok()?))
    };
    Some((duration(now)?, duration(monotonic)?, duration(uptime)?))
}

/// Ticks in a second: the clock counts on by one tick's nanoseconds (`NTP_INTERVAL_FREQ` is `HZ`).
fn rate(keeper: &Timekeeper) -> Option<u64> {
    let tick = keeper.xtime_interval?.checked_shr(keeper.shift)?;
    let near = |hz: &u64| {
        let wanted = 1_000_000_000_u64.checked_div(*hz).unwrap_or_default();
        tick.abs_diff(wanted) <= wanted >> 7
    };
    RATES.into_iter().find(|hz| near(hz))
}

/// Jiffies begin five minutes before the lower half of them overflows (`INITIAL_JIFFIES`).
fn since_boot(jiffies: u64, hz: u64) -> Option<Duration> {
    let first = (1_u64 << 32).checked_sub(hz.checked_mul(300)?)?;
    Some(Duration::from_secs(jiffies.checked_sub(first)?.checked_div(hz)?))
}
