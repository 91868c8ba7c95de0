//! Freed objects: what they held is still there. All free objects of the caches that payloads, packets and terminals' buffers are
//! allocated from are erased, but for the allocator's own pointer in each.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use crate::addr::KVirtAddr;
use crate::kernel::sheaf::Waiting;
use crate::kernel::slab::{self, Cache, SlabPages};

/// Bytes of the pointer to the next free object.
const POINTER: u64 = 8;

/// True for the caches that payloads and packets are allocated from.
fn wanted(name: &str) -> bool {
    ["kmalloc-", "dma-kmalloc-", "skbuff_", "key_jar"].iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn erase_free(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    eraser.sampling = false;
    let done = free_objects(eraser);
    eraser.sampling = true;
    done
}

fn free_objects(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    let source = eraser.source;
    let caches = all(eraser)?;
    let caches: Vec<&Cache> = caches.iter().filter(|cache| wanted(&cache.name)).collect();
    if slab::hides_free_objects(&source) {
        eraser.trouble("freed objects", "KASAN keeps some of them in its quarantine, which is not followed");
    }
    let waiting = waiting(eraser);
    for cache in &caches {
        for object in idle(eraser, &waiting, cache) {
            eraser.erase(object, cache.object_size);
        }
    }
    let sizes =
        |cache: KVirtAddr| caches.iter().find(|one| one.kaddr == cache).map_or(0, |one| one.object_size);
    each(eraser, &caches, |eraser, pages| {
        let Some((free, pointer)) = pages.free(&source) else {
            eraser.trouble(
                &format!("freed objects of a slab of the cache at {}", pages.cache()),
                "its lists can't be followed",
            );
            return;
        };
        let size = sizes(pages.cache());
        for object in free {
            eraser.erase(object, pointer.min(size));
            let behind = pointer.saturating_add(POINTER);
            if let Some(at) = object.checked_add(behind) {
                eraser.erase(at, size.saturating_sub(behind));
            }
        }
    })
}

/// The sheaves that wait for RCU; where some may be missing, the account says so.
pub(super) fn waiting(eraser: &mut Eraser<'_, '_>) -> Waiting {
    let waiting = Waiting::read(&eraser.source, eraser.source.limits.walk_items);
    if let Some(why) = &waiting.lost {
        eraser.trouble("freed objects that wait for RCU", why);
    }
    waiting
}

/// The free objects that sheaves have; where some may be missing, the account says so.
pub(super) fn idle(eraser: &mut Eraser<'_, '_>, waiting: &Waiting, cache: &Cache) -> BTreeSet<KVirtAddr> {
    let idle = waiting.idle(&eraser.source, cache.kaddr);
    if let Some(why) = idle.lost {
        eraser.trouble(&format!("freed objects of {} in sheaves", cache.name), &why);
    }
    idle.objects
}

/// All caches; what of them could not be read is in the account.
pub(super) fn all(eraser: &mut Eraser<'_, '_>) -> Result<Vec<Cache>, String> {
    let caches = slab::list(&eraser.source)?;
    for lost in &caches.lost {
        eraser.trouble("a slab cache", lost);
    }
    if !caches.end.is_complete() {
        eraser.trouble("slab caches", &caches.end.to_string());
    }
    Ok(caches.caches)
}

/// Gives each slab of these caches to `take`; where not all `struct page` can be read, the account says so.
pub(super) fn each<'a, 'm>(
    eraser: &mut Eraser<'a, 'm>,
    caches: &[&Cache],
    mut take: impl FnMut(&mut Eraser<'a, 'm>, SlabPages),
) -> Result<(), String> {
    let (source, cancel, frames) = (eraser.source, eraser.cancel, eraser.frames());
    let stop = || cancel.is_cancelled();
    let walk = slab::visit(&source, caches, frames, &stop, &mut |pages| take(eraser, pages))?;
    if !walk.end.is_complete() {
        let what = format!("slabs in {} stretches of memory", walk.lost);
        eraser.trouble(&what, &walk.end.to_string());
    }
    Ok(())
}
