//! The consoles: how far each is behind the log, and the lock around all of them.
//!
//! Who prints to a console holds the semaphore `console_sem`, which does not say whose it is. While a record goes out, `console_owner` is
//! the task that prints it, and `console_waiter` says that a CPU spins to take over. Consoles that print without that lock (`CON_NBCON`, 6.5
//! and later) have their owner's CPU in a state of their own. Facts: `kernel/printk/{printk,nbcon}.c`, `include/linux/console.h`.

use super::Gap;
use super::hlist::{self, Flavour};
use super::reader::{Reader, note, note_end};
use super::value::read_text;
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;

/// Consoles that are looked at: kernels have a handful.
const CONSOLES: usize = 64;
/// `CON_ENABLED`: records go to it.
const ENABLED: u64 = 1 << 2;
/// `CON_NBCON` (6.5 and later).
const NBCON: u64 = 1 << 8;
/// Bytes of a console's name.
const NAME: usize = 16;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consoles {
    /// Where `console_sem` is.
    pub lock: Option<KVirtAddr>,
    /// True where somebody has it.
    pub held: Option<bool>,
    /// `console_locked`: it was taken for printing or by `console_lock()`, and is not on its way back.
    pub locked: Option<bool>,
    /// `console_may_schedule`: who has it may sleep with it.
    pub may_schedule: Option<bool>,
    /// `console_owner`: the task that prints a record.
    pub owner: Option<KVirtAddr>,
    /// `console_waiter`: a CPU spins to take over from the owner.
    pub spinning: Option<bool>,
    /// The tasks in the lock's list of waiters, the oldest first.
    pub waiters: Vec<KVirtAddr>,
    /// The consoles.
    pub consoles: Vec<Console>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// One console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Console {
    /// Where its `struct console` is.
    pub kaddr: KVirtAddr,
    /// Its name without the number: `ttyS`.
    pub name: String,
    /// The number.
    pub index: Option<i64>,
    /// Its `CON_*` flags.
    pub flags: Option<u64>,
    /// The number of the record that it prints next; `None` where the kernel counts for all consoles together or not at all.
    pub seq: Option<u64>,
    /// Records that were overwritten before they got to it.
    pub dropped: Option<u64>,
    /// The CPU that owns it, for a console that prints without the lock; `None` where no CPU does.
    pub owner_cpu: Option<u64>,
}

impl Console {
    /// True where records go to it.
    #[must_use]
    pub fn enabled(&self) -> Option<bool> {
        self.flags.map(|flags| flags & ENABLED != 0)
    }

    /// True where it prints without the lock.
    #[must_use]
    pub fn nbcon(&self) -> Option<bool> {
        self.flags.map(|flags| flags & NBCON != 0)
    }
}

/// Reads them, each part as far as it can be had.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Consoles {
    let mut found = Consoles::default();
    let variables = Variables::new(reader.memory, reader.symbols);
    let flag = |name| variables.i32(name).ok().map(|number| number != 0);
    found.locked = flag("console_locked");
    found.may_schedule = flag("console_may_schedule");
    // A `bool`, so that only its first byte is its own.
    found.spinning = variables.u32("console_waiter").ok().map(|word| word & 0xff != 0);
    found.owner = variables.u64("console_owner").ok().map(KVirtAddr).filter(|at| !at.is_null());
    if let Err(why) = lock(reader, &mut found) {
        note(&mut found.gaps, "the lock of the consoles", why);
    }
    match nodes(reader) {
        Ok(walk) => {
            note_end(&mut found.gaps, "the list of consoles", &walk.end);
            found.consoles = walk.items.iter().map(|at| one(reader, *at)).collect();
            // Before 6.0 all consoles were at the same record.
            let common = variables.u64("console_seq").ok();
            for console in &mut found.consoles {
                console.seq = console.seq.or(common);
            }
        }
        Err(why) => note(&mut found.gaps, "the consoles", why),
    }
    found
}

fn lock(reader: Reader<'_, '_>, found: &mut Consoles) -> Result<(), String> {
    let at = reader.symbols.address("console_sem").ok_or("no symbol console_sem is known")?;
    found.lock = Some(at);
    let of = reader.types.structure("semaphore").map_err(|why| why.to_string())?;
    found.held = reader.field(at, of, &["count"]).map(|count| count == 0);
    let inside = reader.offset("semaphore_waiter", "list")?;
    let walk = if let Ok(head) = reader.offset("semaphore", "wait_list") {
        reader.list(at.checked_add(head).ok_or("it is no address")?, inside, reader.limits.tasks)
    } else {
        // In 7.2 it names its first waiter, which stands in a ring with the others.
        let first = at.checked_add(reader.offset("semaphore", "first_waiter")?).ok_or("it is no address")?;
        let first = reader.memory.read_ptr(first).map_err(|why| why.to_string())?;
        let mut walk = Walk::default();
        if !first.is_null() {
            let node = first.checked_add(inside).ok_or("its first waiter is at no address")?;
            walk = reader.list(node, inside, reader.limits.tasks);
            walk.items.insert(0, first);
        }
        walk
    };
    note_end(&mut found.gaps, "who waits for the console", &walk.end);
    let task = reader.offset("semaphore_waiter", "task")?;
    let task = |at: &KVirtAddr| at.checked_add(task).and_then(|at| reader.memory.read_ptr(at).ok());
    found.waiters = walk.items.iter().filter_map(task).collect();
    Ok(())
}

/// The `struct console` of each: a list since 6.2 (kernel commit 4dc64682ad37), a chain of pointers before.
fn nodes(reader: Reader<'_, '_>) -> Result<Walk<KVirtAddr>, String> {
    let limit = reader.limits.walk_items.min(CONSOLES);
    if let (Some(head), Ok(inside)) =
        (reader.symbols.address("console_list"), reader.offset("console", "node"))
    {
        let walk = hlist::walk(reader.memory, head, Flavour::Plain, limit);
        return Ok(walk.map(|node| KVirtAddr(node.0.wrapping_sub(inside))));
    }
    let head = reader.symbols.address("console_drivers");
    let mut link = head.ok_or("neither a symbol console_list nor console_drivers is known")?;
    let next = reader.offset("console", "next")?;
    let mut walk = Walk::default();
    loop {
        match reader.memory.read_ptr(link) {
            Ok(at) if at.is_null() => return Ok(walk),
            Ok(at) if walk.items.contains(&at) => {
                walk.lose(WalkEnd::Cycle(at));
                return Ok(walk);
            }
            Ok(at) => {
                let Some(on) = at.checked_add(next).filter(|_| walk.push(at, limit)) else { return Ok(walk) };
                link = on;
            }
            Err(why) => {
                walk.lose(WalkEnd::unreadable(link, &why));
                return Ok(walk);
            }
        }
    }
}

fn one(reader: Reader<'_, '_>, at: KVirtAddr) -> Console {
    let mut console = Console { kaddr: at, ..Console::default() };
    let Ok(of) = reader.types.structure("console") else { return console };
    let number = |paths: &[&str]| reader.field(at, of, paths);
    let name = reader.offset("console", "name").ok().and_then(|inside| at.checked_add(inside));
    console.name = name.and_then(|at| read_text(reader.memory, at, NAME).ok()).unwrap_or_default();
    // Both are `short` members, which may be negative.
    let signed = |number: u64| i64::from(u16::try_from(number & 0xffff).unwrap_or_default().cast_signed());
    console.index = number(&["index"]).map(signed);
    console.flags = number(&["flags"]).map(|flags| flags & 0xffff);
    console.dropped = number(&["dropped"]);
    let nbcon = console.nbcon() == Some(true);
    console.seq = if nbcon { number(&["nbcon_seq"]) } else { number(&["seq"]) };
    let state = reader.offset("console", "nbcon_state").ok().and_then(|inside| at.checked_add(inside));
    if let (Some(state), Ok(of), true) = (state, reader.types.structure("nbcon_state"), nbcon) {
        let owned = reader.field(state, of, &["prio"]).is_some_and(|prio| prio != 0);
        console.owner_cpu = reader.field(state, of, &["cpu"]).filter(|_| owned);
    }
    console
}
