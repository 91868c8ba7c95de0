//! Whether an object of a slab is allocated: it is where neither a list of free objects nor a sheaf has it.
//!
//! Facts: `mm/slub.c`. A free object holds the pointer to the next one, on most kernels in a form that is hard to forge
//! (`CONFIG_SLAB_FREELIST_HARDENED`). Which form, the lists tell: only the right one leads through objects of that slab to the end.

use super::reader::Reader;
use super::sheaf::Waiting;
use crate::addr::KVirtAddr;

/// Callbacks of a CPU that are looked through for one object: where RCU is stuck there are millions.
const CALLBACKS: usize = 20_000;

/// A slab, and one of its objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slab {
    pub(super) cache: KVirtAddr,
    /// Its `struct slab`, or `struct page`.
    pub(super) page: KVirtAddr,
    /// Where its first object's room begins.
    pub(super) start: u64,
    /// Bytes from one object to the next.
    pub(super) size: u64,
    /// Bytes before each object (`red_left_pad`).
    pub(super) pad: u64,
    /// Objects that there is room for.
    pub(super) objects: u64,
}

/// How the pointer to the next free object is kept.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `ptr ^ random ^ swab(where it is)`: since 5.7 (kernel commit 1ad53d9fa3f6).
    Swapped(u64),
    /// `ptr ^ random ^ where it is`.
    Mixed(u64),
    /// As it is.
    Plain,
}

impl Form {
    fn decode(self, stored: u64, at: u64) -> u64 {
        match self {
            Self::Swapped(random) => stored ^ random ^ at.swap_bytes(),
            Self::Mixed(random) => stored ^ random ^ at,
            Self::Plain => stored,
        }
    }
}

/// Whether the object at `start` is allocated; `None` where the lists of free objects can't be followed to their ends, or
/// where it may be on one that is not looked at.
pub(super) fn is_allocated(source: &Reader<'_, '_>, slab: Slab, start: KVirtAddr) -> Option<bool> {
    if free(source, slab)?.objects.contains(&start.0) {
        return Some(false);
    }
    let waiting = Waiting::read(source, CALLBACKS);
    let idle = waiting.idle(source, slab.cache);
    if idle.objects.contains(&start) {
        return Some(false);
    }
    (idle.lost.is_none() && waiting.lost.is_none() && !hides(source)).then_some(true)
}

/// The free objects of a slab, and where in each the pointer to the next one is.
#[derive(Clone, Debug)]
pub(super) struct Free {
    pub(super) objects: Vec<u64>,
    pub(super) offset: u64,
}

/// True where objects may be free and neither on a list nor in a sheaf: in KASAN's quarantine.
pub(super) fn hides(source: &Reader<'_, '_>) -> bool {
    source.variables().address("global_quarantine").is_ok()
}

/// The free objects of a slab; `None` where its lists can't be followed to their ends.
pub(super) fn free(source: &Reader<'_, '_>, slab: Slab) -> Option<Free> {
    let member = |paths: &[&str]| {
        source
            .slot("slab", paths)
            .or_else(|_| source.slot("page", paths))
            .ok()
            .and_then(|slot| source.number(slab.page, &slot).ok())
    };
    let own = member(&["freelist"])?;
    let count = slab.objects.checked_sub(member(&["inuse"])?)?;
    let mut heads = vec![(own, Some(count))];
    let cpus = source.member(slab.cache, "kmem_cache", &["cpu_slab"]);
    if let Ok(cpus) = cpus.map(KVirtAddr)
        && !cpus.is_null()
    {
        for cpu in source.per_cpu.possible() {
            let at = source.per_cpu.address(cpus, *cpu).ok()?;
            let current = source.member(at, "kmem_cache_cpu", &["slab", "page"]).ok()?;
            if current == slab.page.0 {
                heads.push((source.member(at, "kmem_cache_cpu", &["freelist"]).ok()?, None));
            }
        }
    }
    let offset = source.member(slab.cache, "kmem_cache", &["offset"]).ok()?;
    let forms = match source.member(slab.cache, "kmem_cache", &["random"]) {
        Ok(random) => vec![Form::Swapped(random), Form::Mixed(random)],
        Err(_) => vec![Form::Plain],
    };
    let found = forms.into_iter().find_map(|form| {
        let lists = heads.iter().map(|(head, count)| follow(source, slab, form, offset, *head, *count));
        lists.collect::<Option<Vec<_>>>()
    })?;
    Some(Free { objects: found.into_iter().flatten().collect(), offset })
}

/// The objects of one list, where all of it makes sense.
fn follow(
    source: &Reader<'_, '_>,
    slab: Slab,
    form: Form,
    offset: u64,
    head: u64,
    count: Option<u64>,
) -> Option<Vec<u64>> {
    let mut found = Vec::new();
    let mut at = head;
    while at != 0 {
        let inside = at.checked_sub(slab.start.checked_add(slab.pad)?)?;
        let whole = inside.checked_rem(slab.size)? == 0 && inside.checked_div(slab.size)? < slab.objects;
        let room = u64::try_from(found.len()).is_ok_and(|len| len < slab.objects);
        if !whole || !room {
            return None;
        }
        found.push(at);
        let place = at.checked_add(offset)?;
        at = form.decode(source.memory.read_u64(KVirtAddr(place)).ok()?, place);
    }
    let len = u64::try_from(found.len()).ok()?;
    count.is_none_or(|count| count == len).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_pointer_is_decoded_by_where_it_is() {
        let (random, at, next) = (0x1234_5678_9abc_def0, 0xffff_8880_0012_3440_u64, 0xffff_8880_0012_3480);
        assert_eq!(Form::Swapped(random).decode(next ^ random ^ at.swap_bytes(), at), next);
        assert_eq!(Form::Mixed(random).decode(next ^ random ^ at, at), next);
        assert_eq!(Form::Plain.decode(next, at), next);
    }
}
