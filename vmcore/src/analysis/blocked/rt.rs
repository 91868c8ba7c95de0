//! What `PREEMPT_RT` makes of locks: mutexes, rw-semaphores and spinlocks are built on a rt-mutex, which is all that their waiters name.
//!
//! Facts: `include/linux/{mutex,rwsem,rwbase_rt}.h`, `kernel/locking/{rwbase_rt,rtmutex_api}.c`.

use super::{Waiting, what};
use crate::addr::KVirtAddr;
use crate::analysis::parts::Context;
use crate::kernel::lock::{LockKind, Wait};
use crate::report::Frame;
use crate::xlat::le;

/// A lock as its user knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) at: KVirtAddr,
    /// The kernel's structure.
    pub(super) structure: &'static str,
}

/// The lock that was asked for: what the waiter names may lie inside it.
pub(super) fn whole(context: &Context<'_>, why: what::Wait, symbols: &[String], wait: &Wait) -> Whole {
    let own = Whole { at: wait.lock, structure: wait.kind.structure() };
    if wait.kind != LockKind::RtMutex {
        return own;
    }
    let of_readers = symbols.iter().any(|name| name.trim_start_matches('_').starts_with("rwbase_"));
    let (structure, member) = match why.kind() {
        "mutex" => ("mutex", "rtmutex"),
        "rwsem" => ("rw_semaphore", "rwbase.rtmutex"),
        // A rwlock has no structure with a name around it.
        "spinlock" if of_readers => ("rwbase_rt", "rtmutex"),
        _ => return own,
    };
    let start =
        context.reader().offset(structure, member).ok().and_then(|inside| wait.lock.checked_sub(inside));
    start.map_or(own, |at| Whole { at, structure })
}

/// The function of a lock that left no frame, since it ended with a jump to the one that waits (`mutex_lock` of 6.12): the call
/// before the return address of whoever called it names it.
pub(super) fn jumped_from(context: &Context<'_>, frames: &[Frame]) -> Option<String> {
    let caller = frames
        .iter()
        .filter(|frame| frame.sure && !frame.inlined)
        .find(|frame| frame.symbol.as_deref().is_some_and(|name| !super::is_sleeping(name)))?;
    let at = caller.pc.filter(|_| !caller.interrupted)?.0;
    let mut code = [0_u8; 5];
    context.memory.read(KVirtAddr(at.checked_sub(5)?), &mut code).ok()?;
    let distance = le::u32_at(&code, 1).filter(|_| code.first() == Some(&0xe8))?;
    let target = KVirtAddr(at.wrapping_add_signed(i64::from(distance.cast_signed())));
    let found = context.description.symbols.at(target).filter(|found| found.offset == 0)?;
    Some(found.symbol.name)
}

/// A writer takes the lock below a rw-semaphore first, and then waits until its readers are gone: others wait for it, and it does not
/// have the rw-semaphore either.
pub(super) fn writers(waiting: &mut [Waiting<'_>]) {
    let is_below = |one: &&Waiting<'_>| {
        one.kind() == "rwsem" && one.wait.as_ref().is_some_and(|wait| wait.kind == LockKind::RtMutex)
    };
    let locks: Vec<(KVirtAddr, Whole, Option<String>, String)> = waiting
        .iter()
        .filter(is_below)
        .filter_map(|one| Some((one.owner?.kaddr, one.whole?, one.name.clone(), one.lock_words())))
        .collect();
    let writes = |one: &&mut Waiting<'_>| {
        one.wait.is_none() && one.symbols.iter().any(|name| name.starts_with("rwbase_write_lock"))
    };
    for one in waiting.iter_mut().filter(writes) {
        let Some((_, whole, name, words)) = locks.iter().find(|(owner, ..)| *owner == one.task.kaddr) else {
            continue;
        };
        one.object = Some(format!("the readers of {words}, whom the kernel does not record"));
        (one.whole, one.name) = (Some(*whole), name.clone());
    }
}
