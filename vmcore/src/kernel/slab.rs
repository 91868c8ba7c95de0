//! SLUB: the caches as `/proc/slabinfo` counts them, and which object of which cache an address belongs to.
//!
//! Facts: `mm/slub.c`, `mm/slab.h` (`struct slab` since 5.17, `struct page` before it).

use std::collections::HashMap;
use std::ops::Range;

use super::freelist::{self, Slab};
use super::list;
use super::mm::zone;
use super::reader::Reader;
use super::value::{Slot, read_text};
use super::walk::{Walk, WalkEnd};
use crate::addr::{KVirtAddr, PhysAddr};

/// Caches at most; a server has a few hundred, one with many control groups on old kernels some ten thousand.
const CACHES: usize = 1 << 16;
/// `struct page` that are read at once.
const PIECE: u64 = 2048;
/// Bytes of a name at most.
const NAME: usize = 128;

/// A slab cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cache {
    /// Its `struct kmem_cache`.
    pub kaddr: KVirtAddr,
    /// Its name.
    pub name: String,
    /// Bytes of an object as its user sees it.
    pub object_size: u64,
    /// Bytes of an object with what the allocator adds.
    pub size: u64,
    /// Pages of a slab are 2^this.
    pub order: u32,
    /// Its constructor.
    pub constructor: Option<KVirtAddr>,
    /// What was counted.
    pub usage: Result<Usage, String>,
}

/// How much a cache holds, as `/proc/slabinfo` counts: what CPUs keep for themselves is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Objects in use.
    pub active: u64,
    /// Objects that there is room for.
    pub total: u64,
    /// Slabs.
    pub slabs: u64,
    /// Bytes of all their pages.
    pub bytes: u64,
}

/// All caches, in the kernel's order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caches {
    /// Those that could be read.
    pub caches: Vec<Cache>,
    /// Why the walk over them ended.
    pub end: WalkEnd,
    /// Those that could not be read, and why.
    pub lost: Vec<String>,
}

/// The slab object that an address is in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlabObject {
    /// The cache's name.
    pub cache: String,
    /// The cache's `struct kmem_cache`.
    pub cache_kaddr: KVirtAddr,
    /// Bytes of an object as its user sees it.
    pub object_size: u64,
    /// Where the object begins.
    pub start: KVirtAddr,
    /// How far into it the address is.
    pub offset: u64,
    /// Whether it is allocated; `None` where the lists of free objects can't be followed to their end.
    pub allocated: Option<bool>,
}

struct Members {
    list: Slot,
    name: Slot,
    object_size: Slot,
    size: Slot,
    oo: Slot,
    ctor: Option<Slot>,
}

impl Members {
    fn new(source: &Reader<'_, '_>) -> Result<Self, String> {
        let of = |paths: &[&str]| source.slot("kmem_cache", paths);
        Ok(Self {
            list: of(&["list"])?,
            name: of(&["name"])?,
            object_size: of(&["object_size"])?,
            size: of(&["size"])?,
            oo: of(&["oo"])?,
            ctor: of(&["ctor"]).ok(),
        })
    }

    fn cache(&self, source: &Reader<'_, '_>, at: KVirtAddr) -> Result<Cache, String> {
        let name = KVirtAddr(source.number(at, &self.name)?);
        let name = read_text(source.memory, name, NAME).map_err(|why| format!("its name: {why}"))?;
        let oo = source.number(at, &self.oo)?;
        let order = u32::try_from(oo >> 16).ok().filter(|order| *order < 32);
        let ctor = self.ctor.as_ref().and_then(|slot| source.number(at, slot).ok()).filter(|ctor| *ctor != 0);
        Ok(Cache {
            kaddr: at,
            name,
            object_size: source.number(at, &self.object_size)?,
            size: source.number(at, &self.size)?,
            order: order.ok_or_else(|| format!("its slabs would have 2^{} pages", oo >> 16))?,
            constructor: ctor.map(KVirtAddr),
            usage: Err("it was not counted".into()),
        })
    }
}

/// Where the list of free objects, the counts and the next slab of a list are.
struct SlabMembers {
    node: Slot,
    objects: Slot,
    inuse: Slot,
}

impl SlabMembers {
    fn new(source: &Reader<'_, '_>) -> Result<Self, String> {
        let of = |paths: &[&str]| source.slot("slab", paths).or_else(|_| source.slot("page", paths));
        Ok(Self { node: of(&["slab_list", "lru"])?, objects: of(&["objects"])?, inuse: of(&["inuse"])? })
    }
}

/// Reads the caches and counts them. `stop` is asked between caches; the walk then ends as cancelled.
///
/// # Errors
/// Where not even the list of caches can be found.
pub fn read(source: &Reader<'_, '_>, stop: &dyn Fn() -> bool) -> Result<Caches, String> {
    let members = Members::new(source)?;
    let mut all = list_of_caches(source, &members)?;
    let slab = SlabMembers::new(source);
    let nodes = zone::nodes(source)?;
    for cache in &mut all.caches {
        if stop() {
            all.end = WalkEnd::Cancelled;
            cache.usage = Err("the time was up".into());
            continue;
        }
        cache.usage = slab.as_ref().map_err(Clone::clone).and_then(|slab| usage(source, slab, &nodes, cache));
    }
    Ok(all)
}

fn list_of_caches(source: &Reader<'_, '_>, members: &Members) -> Result<Caches, String> {
    let head = source.variables().address("slab_caches").map_err(|why| why.to_string())?;
    let walk = list::walk(source.memory, head, source.limits.walk_items.min(CACHES));
    let mut all = Caches { caches: Vec::new(), end: walk.end, lost: Vec::new() };
    for node in walk.items {
        let Some(at) = node.checked_sub(members.list.offset()) else { continue };
        match members.cache(source, at) {
            Ok(cache) => all.caches.push(cache),
            Err(why) => all.lost.push(format!("the cache at {at}: {why}")),
        }
    }
    Ok(all)
}

/// The `struct kmem_cache_node` of a node.
pub(super) fn cache_node(source: &Reader<'_, '_>, cache: KVirtAddr, node: u64) -> Result<KVirtAddr, String> {
    // The array moved into a struct of both per-node pointers with 7.x's sheaves.
    let names = [format!("per_node[{node}].node"), format!("node[{node}]")];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    source.member(cache, "kmem_cache", &names).map(KVirtAddr)
}

fn usage(
    source: &Reader<'_, '_>,
    members: &SlabMembers,
    nodes: &[(u64, KVirtAddr)],
    cache: &Cache,
) -> Result<Usage, String> {
    let mut found = Usage::default();
    let mut free = 0_u64;
    for (number, _) in nodes {
        let node = cache_node(source, cache.kaddr, *number)?;
        if node.is_null() {
            continue;
        }
        let of = |paths: &[&str]| source.member(node, "kmem_cache_node", paths);
        found.slabs = found.slabs.saturating_add(of(&["nr_slabs"])?);
        found.total = found.total.saturating_add(of(&["total_objects"])?);
        let partial = source.slot("kmem_cache_node", &["partial"])?;
        let head = node.checked_add(partial.offset()).ok_or("the place is past 2^64")?;
        let walk = list::walk(source.memory, head, source.limits.walk_items);
        if !walk.end.is_complete() {
            return Err(format!("its list of partly used slabs is not whole: {}", walk.end));
        }
        for at in walk.items {
            let at = at.checked_sub(members.node.offset()).ok_or("a slab's place is below zero")?;
            let room = source.number(at, &members.objects)?;
            let used = source.number(at, &members.inuse)?;
            free = free.saturating_add(room.saturating_sub(used));
        }
    }
    found.active = found.total.saturating_sub(free);
    let pages = 1_u64.checked_shl(cache.order).unwrap_or_default();
    found.bytes = source.bytes(found.slabs.saturating_mul(pages));
    Ok(found)
}

/// All caches, not counted.
///
/// # Errors
/// Where not even the list of caches can be found.
pub fn list(source: &Reader<'_, '_>) -> Result<Caches, String> {
    list_of_caches(source, &Members::new(source)?)
}

/// The pages of one slab.
#[derive(Clone, Copy, Debug)]
pub struct SlabPages(Slab);

impl SlabPages {
    /// The cache that its objects are of.
    #[must_use]
    pub fn cache(&self) -> KVirtAddr {
        self.0.cache
    }

    /// Its objects, free or not.
    pub fn objects(&self) -> impl Iterator<Item = KVirtAddr> {
        let Slab { start, size, pad, objects, .. } = self.0;
        (0..objects)
            .filter_map(move |n| start.checked_add(pad)?.checked_add(n.checked_mul(size)?))
            .map(KVirtAddr)
    }

    /// Its free objects but for those in sheaves, and how far into each the allocator's own pointer lies; `None` where its lists
    /// can't be followed.
    #[must_use]
    pub fn free(&self, source: &Reader<'_, '_>) -> Option<(Vec<KVirtAddr>, u64)> {
        let free = freelist::free(source, self.0)?;
        Some((free.objects.into_iter().map(KVirtAddr).collect(), free.offset))
    }
}

/// True where objects may be free and neither on a list that [`SlabPages::free`] sees nor in a sheaf: KASAN has a quarantine.
#[must_use]
pub fn hides_free_objects(source: &Reader<'_, '_>) -> bool {
    freelist::hides(source)
}

/// Gives each slab of these caches in `frames` to `visit`, by the array of all `struct page`: full ones are on no list.
///
/// # Errors
/// Where the array, or what is in it, is not known.
pub fn visit(
    source: &Reader<'_, '_>,
    caches: &[&Cache],
    frames: impl Iterator<Item = Range<u64>>,
    stop: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(SlabPages),
) -> Result<Walk<()>, String> {
    let pages = Pages::new(source)?;
    let of = |paths: &[&str]| source.slot("slab", paths).or_else(|_| source.slot("page", paths));
    let (owner, objects) = (of(&["slab_cache"])?, of(&["objects"])?);
    let pad = source.slot("kmem_cache", &["red_left_pad"]).ok();
    let mut known = HashMap::new();
    for cache in caches {
        let pad = pad.as_ref().map_or(Ok(0), |slot| source.number(cache.kaddr, slot))?;
        known.insert(cache.kaddr.0, (*cache, pad));
    }
    let stride = usize::try_from(pages.each).map_err(|_| "struct page is too large")?;
    let mut walk = Walk::default();
    for run in frames {
        let mut from = run.start;
        while from < run.end {
            if stop() {
                walk.lose(WalkEnd::Cancelled);
                return Ok(walk);
            }
            let count = run.end.saturating_sub(from).min(PIECE);
            let at = pages.page(from).ok_or("the page's place is past 2^64")?;
            let len =
                usize::try_from(count).ok().and_then(|n| n.checked_mul(stride)).ok_or("too many pages")?;
            let sparse = source.memory.read_sparse(at, len);
            if let Some(missing) = sparse.missing.first() {
                walk.lose(WalkEnd::unreadable(at, &missing.why));
            }
            for (frame, bytes) in (from..).zip(sparse.bytes.chunks_exact(stride)) {
                let number = |slot: &Slot| {
                    let start = usize::try_from(slot.offset()).ok()?;
                    let end = start.checked_add(usize::try_from(slot.bytes()).ok()?)?;
                    bytes.get(start..end).map(|bytes| slot.number(bytes))
                };
                let Some((cache, pad)) = number(&owner).and_then(|owner| known.get(&owner)) else { continue };
                let tail = number(&pages.compound).is_none_or(|info| info & 1 == 1);
                let marked = match &pages.flag {
                    Flag::Bit(slot, bit) => number(slot)
                        .and_then(|flags| flags.checked_shr(*bit))
                        .is_some_and(|flags| flags & 1 == 1),
                    Flag::Type(slot, kind) => number(slot).is_some_and(|ty| ty >> 24 & 0xff == *kind),
                    Flag::Unknown => true,
                };
                let start = source.memory.direct_map(PhysAddr(source.bytes(frame)));
                let (Some(page), Some(start), Some(objects)) = (pages.page(frame), start, number(&objects))
                else {
                    continue;
                };
                let room = source.bytes(1_u64.checked_shl(cache.order).unwrap_or_default());
                let fits = objects.checked_mul(cache.size).is_some_and(|bytes| bytes > 0 && bytes <= room);
                if tail || !marked {
                    continue;
                }
                if !fits {
                    walk.lose(WalkEnd::Inconsistent(page, format!("a slab with room for {objects} objects")));
                    continue;
                }
                let size = cache.size;
                visit(SlabPages(Slab { cache: cache.kaddr, page, start: start.0, size, pad: *pad, objects }));
            }
            from = from.saturating_add(count);
        }
    }
    Ok(walk)
}

/// The frame of a `struct page`; `None` where it is none.
///
/// # Errors
/// Where the array of all `struct page` is not known.
pub fn frame_of(source: &Reader<'_, '_>, page: KVirtAddr) -> Result<Option<u64>, String> {
    let pages = Pages::new(source)?;
    let exact = page.0.checked_sub(pages.base).and_then(|by| by.checked_rem(pages.each)) == Some(0);
    Ok(pages.frame(page).filter(|_| exact))
}

/// Which slab object `at` is in; `None` for an address that is not in a slab.
///
/// # Errors
/// Where that can't be told: its `struct page` or cache is not in the dump, or what they hold can't be.
pub fn identify(source: &Reader<'_, '_>, at: KVirtAddr) -> Result<Option<SlabObject>, String> {
    let memory = source.memory;
    let Some(direct) = memory.translation().direct else {
        return Err("where the direct map begins is not known".into());
    };
    // Slabs are only ever used through the direct map.
    let Some(inside) = at.0.checked_sub(direct.start.0).filter(|inside| *inside < direct.len) else {
        return Ok(None);
    };
    let pages = Pages::new(source)?;
    let paddr = direct.paddr.0.checked_add(inside).ok_or("the address is past 2^64")?;
    let frame = paddr.checked_div(source.page_size).ok_or("a page has no bytes")?;
    let page = pages.head(source, pages.page(frame).ok_or("the page's place is past 2^64")?)?;
    if !pages.is_slab(source, page)? {
        return Ok(None);
    }
    let kaddr = source.slot("slab", &["slab_cache"]).or_else(|_| source.slot("page", &["slab_cache"]))?;
    let kaddr = KVirtAddr(source.number(page, &kaddr)?);
    let members = Members::new(source)?;
    // Only a cache of the list is believed: the field is a union with others.
    let head = source.variables().address("slab_caches").map_err(|why| why.to_string())?;
    let walk = list::walk(memory, head, source.limits.walk_items.min(CACHES));
    let known = walk.items.iter().any(|node| node.checked_sub(members.list.offset()) == Some(kaddr));
    if !known {
        return if pages.marked() && walk.end.is_complete() {
            Err(format!("its page is a slab's, but {kaddr} is no slab cache"))
        } else if pages.marked() {
            Err(format!("whether {kaddr} is a slab cache is not known: the list of them: {}", walk.end))
        } else {
            Ok(None)
        };
    }
    let cache = members.cache(source, kaddr)?;
    let frame = pages.frame(page).ok_or("the slab's page lies outside the page array")?;
    let start =
        memory.direct_map(PhysAddr(source.bytes(frame))).ok_or("the slab is not in the direct map")?;
    let within = at.0.checked_sub(start.0).ok_or("the slab begins behind the address")?;
    let number = within.checked_div(cache.size).ok_or("its objects have no bytes")?;
    let skipped = number.saturating_mul(cache.size);
    let first = start;
    let pad = source.slot("kmem_cache", &["red_left_pad"]).ok();
    let pad = pad.map_or(Ok(0), |slot| source.number(kaddr, &slot))?;
    let start = start.checked_add(skipped).and_then(|s| s.checked_add(pad)).ok_or("past 2^64")?;
    let count = source.slot("slab", &["objects"]).or_else(|_| source.slot("page", &["objects"]))?;
    let objects = source.number(page, &count)?;
    if number >= objects {
        // The rest of a slab that no object fits into.
        return Ok(None);
    }
    let slab = Slab { cache: kaddr, page, start: first.0, size: cache.size, pad, objects };
    Ok(Some(SlabObject {
        cache: cache.name,
        cache_kaddr: kaddr,
        object_size: cache.object_size,
        start,
        offset: at.0.saturating_sub(start.0),
        allocated: freelist::is_allocated(source, slab, start),
    }))
}

/// The array of all `struct page`.
struct Pages {
    base: u64,
    each: u64,
    compound: Slot,
    flag: Flag,
}

/// How a page says that it is a slab's.
enum Flag {
    /// A bit of its flags (before 6.10).
    Bit(Slot, u32),
    /// The upper byte of its type (since 6.12).
    Type(Slot, u64),
    /// Its cache alone tells.
    Unknown,
}

impl Pages {
    fn new(source: &Reader<'_, '_>) -> Result<Self, String> {
        let each = source.types.structure("page").map_err(|why| why.to_string())?.size();
        let base = source.variables().u64("vmemmap_base").map_err(|why| why.to_string())?;
        let compound = source.slot("page", &["compound_info", "compound_head"])?;
        let bit = source.index("pageflags", &["PG_slab"]).and_then(|bit| u32::try_from(bit).ok());
        let kind = source.index("pagetype", &["PGTY_slab"]);
        let flag = match (bit, kind) {
            (Some(bit), _) => Flag::Bit(source.slot("page", &["flags"])?, bit),
            (None, Some(kind)) => Flag::Type(source.slot("page", &["page_type"])?, kind),
            (None, None) => Flag::Unknown,
        };
        if each == 0 {
            return Err("struct page has no bytes".into());
        }
        Ok(Self { base, each, compound, flag })
    }

    fn marked(&self) -> bool {
        !matches!(self.flag, Flag::Unknown)
    }

    fn page(&self, frame: u64) -> Option<KVirtAddr> {
        frame.checked_mul(self.each).and_then(|skip| self.base.checked_add(skip)).map(KVirtAddr)
    }

    fn frame(&self, page: KVirtAddr) -> Option<u64> {
        page.0.checked_sub(self.base)?.checked_div(self.each)
    }

    /// The first page of the block that a page belongs to.
    fn head(&self, source: &Reader<'_, '_>, page: KVirtAddr) -> Result<KVirtAddr, String> {
        let info = source.number(page, &self.compound)?;
        Ok(if info & 1 == 1 { KVirtAddr(info & !1) } else { page })
    }

    fn is_slab(&self, source: &Reader<'_, '_>, page: KVirtAddr) -> Result<bool, String> {
        Ok(match &self.flag {
            Flag::Bit(slot, bit) => source.number(page, slot)?.checked_shr(*bit).unwrap_or_default() & 1 == 1,
            Flag::Type(slot, kind) => source.number(page, slot)? >> 24 & 0xff == *kind,
            Flag::Unknown => true,
        })
    }
}
