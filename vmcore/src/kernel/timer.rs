//! The timers of each CPU: the wheel (`timer_bases`) and the high-resolution timers (`hrtimer_bases`).
//!
//! Facts: `kernel/time/timer.c`, `include/linux/hrtimer.h`. A wheel counts in jiffies; a high-resolution timer in nanoseconds of
//! its clock, which is the monotonic one and an offset.

use super::hlist::{self, Flavour};
use super::reader::{Reader, note, note_end};
use super::value::{Layout, Place, view};
use super::{Gap, rbtree};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Type, TypeError};

/// Bases of a CPU.
const BASES: u32 = 16;
/// Chains of a wheel.
const CHAINS: u32 = 1 << 16;
/// `TIMER_DEFERRABLE`: a timer that may come late on an idle CPU.
const DEFERRABLE: u32 = 0x0008_0000;

view! {
    struct TimerBase of "timer_base" {
        clk: u64 = ["clk"],
        vectors: Place = ["vectors"],
    }
}

view! {
    struct TimerList of "timer_list" {
        expires: u64 = ["expires"],
        function: KVirtAddr = ["function"],
        flags: u32 = ["flags"],
    }
}

view! {
    struct ClockBase of "hrtimer_clock_base" {
        index: u32 = ["index"],
        clock: i32 = ["clockid"],
        active: Place = ["active.rb_root", "active.head"],
        offset: i64 = ["offset"],
    }
}

view! {
    struct HrTimer of "hrtimer" {
        expires: i64 = ["node.expires"],
        function: KVirtAddr = ["function"],
    }
}

/// A timer of the wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timer {
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// When it is to come, in jiffies.
    pub expires: u64,
    /// Its function's address.
    pub function: KVirtAddr,
    /// It may come late on an idle CPU.
    pub deferrable: bool,
    /// Which base of the CPU it is in.
    pub base: usize,
}

/// A high-resolution timer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HighTimer {
    /// Where it is.
    pub kaddr: KVirtAddr,
    /// When it is to come, in nanoseconds of its clock.
    pub expires_ns: i64,
    /// What its clock is ahead of the monotonic one.
    pub offset_ns: i64,
    /// The clock's number (`CLOCK_MONOTONIC` is 1).
    pub clock: i32,
    /// Which base of the CPU it is in.
    pub base: u32,
    /// Its function's address.
    pub function: KVirtAddr,
}

/// A CPU's timers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTimers {
    /// The CPU.
    pub cpu: usize,
    /// How far each of its wheels has turned, in jiffies.
    pub clocks: Vec<u64>,
    /// The wheels' timers, the next first.
    pub timers: Vec<Timer>,
    /// The high-resolution timers, by base and time.
    pub high: Vec<HighTimer>,
}

/// All timers.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Timers {
    /// By CPU.
    pub cpus: Vec<CpuTimers>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads all timers of all CPUs that can exist.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Timers {
    let cpus =
        reader.per_cpu.possible().iter().map(|cpu| CpuTimers { cpu: *cpu, ..CpuTimers::default() }).collect();
    let mut found = Timers { cpus, ..Timers::default() };
    if let Err(why) = wheels(reader, &mut found) {
        note(&mut found.gaps, "the timer wheels", why);
    }
    if let Err(why) = high(reader, &mut found) {
        note(&mut found.gaps, "the high-resolution timers", why);
    }
    for cpu in &mut found.cpus {
        cpu.timers.sort_by_key(|timer| (timer.expires, timer.kaddr));
        cpu.high.sort_by_key(|timer| (timer.base, timer.expires_ns, timer.kaddr));
    }
    found
}

fn wheels(reader: Reader<'_, '_>, found: &mut Timers) -> Result<(), String> {
    let text = |why: TypeError| why.to_string();
    let bases = Layout::<TimerBase>::new(reader.types).map_err(text)?;
    let lists = Layout::<TimerList>::new(reader.types).map_err(text)?;
    let chains = reader.types.structure("timer_base").and_then(|s| s.member("vectors")).map_err(text)?;
    let chains = chains.count().unwrap_or_default().min(CHAINS);
    let typed = reader.types.variable("timer_bases").ok().and_then(elements);
    let room = reader.symbols.symbol("timer_bases").and_then(|symbol| symbol.size);
    let count = how_many(typed, room, bases.size());
    let count = count.unwrap_or_else(|| {
        note(&mut found.gaps, "the timer wheels", "how many a CPU has is not known, and the first is read");
        1
    });
    let start = reader.symbols.address("timer_bases").ok_or("no symbol timer_bases is known")?;
    let inside = reader.offset("timer_list", "entry")?;
    for cpu in &mut found.cpus {
        let Ok(own) = reader.per_cpu.address(start, cpu.cpu) else { continue };
        for number in 0..count {
            let Some(at) = bases.size().checked_mul(u64::from(number)).and_then(|o| own.checked_add(o))
            else {
                continue;
            };
            let base = match bases.read(reader.memory, at) {
                Ok(base) => base,
                Err(why) => {
                    note(&mut found.gaps, &format!("the timer wheel of CPU {}", cpu.cpu), why);
                    continue;
                }
            };
            cpu.clocks.push(base.clk);
            let what = format!("timers of CPU {}", cpu.cpu);
            for chain in 0..u64::from(chains) {
                let Some(head) = chain.checked_mul(8).and_then(|o| base.vectors.0.checked_add(o)) else {
                    break;
                };
                let left = reader.limits.walk_items.saturating_sub(cpu.timers.len());
                let walk = hlist::walk(reader.memory, head, Flavour::Plain, left);
                note_end(&mut found.gaps, &what, &walk.end);
                for node in walk.items {
                    let kaddr = KVirtAddr(node.0.wrapping_sub(inside));
                    match lists.read(reader.memory, kaddr) {
                        Ok(timer) => cpu.timers.push(Timer {
                            kaddr,
                            expires: timer.expires,
                            function: timer.function,
                            deferrable: timer.flags & DEFERRABLE != 0,
                            base: usize::try_from(number).unwrap_or_default(),
                        }),
                        Err(why) => note(&mut found.gaps, &what, why),
                    }
                }
            }
        }
    }
    Ok(())
}

/// How many wheels a CPU has: by the variable's type, else by the room that it has. Not every BTF has per-CPU variables: Debian's of
/// 5.10 has none.
fn how_many(typed: Option<u32>, room: Option<u64>, size: u64) -> Option<u32> {
    let fit = room.and_then(|room| room.checked_div(size)).and_then(|n| u32::try_from(n).ok());
    typed.or(fit.filter(|n| *n > 0)).map(|n| n.min(BASES))
}

fn high(reader: Reader<'_, '_>, found: &mut Timers) -> Result<(), String> {
    let text = |why: TypeError| why.to_string();
    let bases = Layout::<ClockBase>::new(reader.types).map_err(text)?;
    let timers = Layout::<HrTimer>::new(reader.types).map_err(text)?;
    let of = reader.types.structure("hrtimer_cpu_base").map_err(text)?;
    let array = of.member("clock_base").map_err(text)?;
    let count = array.count().unwrap_or_default().min(BASES);
    let start = reader.symbols.address("hrtimer_bases").ok_or("no symbol hrtimer_bases is known")?;
    let inside = reader.offset("hrtimer", "node.node")?;
    for cpu in &mut found.cpus {
        let Ok(own) = reader.per_cpu.address(start, cpu.cpu) else { continue };
        let what = format!("high-resolution timers of CPU {}", cpu.cpu);
        for number in 0..u64::from(count) {
            let place = bases.size().checked_mul(number).and_then(|o| o.checked_add(array.offset()));
            let Some(at) = place.and_then(|o| own.checked_add(o)) else { continue };
            let base = match bases.read(reader.memory, at) {
                Ok(base) => base,
                Err(why) => {
                    note(&mut found.gaps, &what, why);
                    continue;
                }
            };
            let left = reader.limits.walk_items.saturating_sub(cpu.high.len());
            let walk = rbtree::walk(reader.memory, base.active.0, left);
            note_end(&mut found.gaps, &what, &walk.end);
            for node in walk.items {
                let kaddr = KVirtAddr(node.0.wrapping_sub(inside));
                match timers.read(reader.memory, kaddr) {
                    Ok(timer) => cpu.high.push(HighTimer {
                        kaddr,
                        expires_ns: timer.expires,
                        offset_ns: base.offset,
                        clock: base.clock,
                        base: base.index,
                        function: timer.function,
                    }),
                    Err(why) => note(&mut found.gaps, &what, why),
                }
            }
        }
    }
    Ok(())
}

/// Elements of an array.
fn elements(ty: Type<'_>) -> Option<u32> {
    ty.resolve().ok()?.array().ok()?.map(|(_, count)| count)
}

#[cfg(test)]
mod tests {
    use super::how_many;

    #[test]
    fn the_room_of_the_variable_tells_how_many_wheels_there_are_where_no_type_does() {
        // 5.10: two wheels of 4736 bytes, and no type.
        assert_eq!(how_many(None, Some(0x2500), 4736), Some(2));
        assert_eq!(how_many(None, Some(0x2500 + 64), 4736), Some(2), "padding is no wheel");
        assert_eq!(how_many(Some(3), Some(0x2500), 4736), Some(3));
        assert_eq!(how_many(None, Some(8), 4736), None);
        assert_eq!(how_many(None, None, 4736), None);
        assert_eq!(how_many(None, Some(u64::MAX), 1), None);
        assert_eq!(how_many(Some(u32::MAX), None, 4736), Some(16));
        assert_eq!(how_many(None, Some(1), 0), None);
    }
}
