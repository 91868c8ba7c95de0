//! Data of socket buffers: all that are allocated, whatever queue, timer or driver they wait in.
//!
//! Facts: `include/linux/skbuff.h`, `net/core/skbuff.c`.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use super::slabs;
use crate::addr::KVirtAddr;
use crate::kernel::sheaf::Waiting;
use crate::kernel::slab::Cache;

/// Bytes behind a buffer's head at most: larger ones are of pages.
const LINEAR: u64 = 8 << 20;
/// Pages of one buffer at most; `MAX_SKB_FRAGS` can be set to 45.
const FRAGS: u64 = 64;
/// One page fragment is no larger.
const FRAG: u64 = 4 << 20;
/// Buffers that a CPU keeps ready (`NAPI_SKB_CACHE_SIZE` is 64 or 128).
const READY: u64 = 1024;

pub(super) fn erase(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    let caches = slabs::all(eraser)?;
    let named = |name: &str| caches.iter().filter(|cache| cache.name == name).collect::<Vec<&Cache>>();
    let plain = named("skbuff_head_cache");
    if plain.is_empty() {
        return Err("there is no slab cache skbuff_head_cache".into());
    }
    let pairs = pairs(eraser, &caches);
    let merged = pairs.is_some_and(|cache| {
        eraser.member(cache.kaddr, "kmem_cache", &["refcount"]).is_ok_and(|users| users > 1)
    });
    if pairs.is_none() {
        eraser.trouble("buffers of TCP", "their slab cache is not known");
    }
    let waiting = slabs::waiting(eraser);
    let ready = ready(eraser);
    used(eraser, &plain, &waiting, ready, buffer)?;
    let pairs: Vec<&Cache> = pairs.into_iter().collect();
    used(eraser, &pairs, &waiting, BTreeSet::new(), |eraser, pair| {
        if let Err(why) = both(eraser, pair, merged) {
            eraser.trouble(&format!("the socket buffers at {pair}"), &why);
        }
    })
}

/// Gives each object of these caches that is in use, and not one of `idle`, to `take`.
fn used<'a, 'm>(
    eraser: &mut Eraser<'a, 'm>,
    caches: &[&Cache],
    waiting: &Waiting,
    mut idle: BTreeSet<KVirtAddr>,
    take: impl Fn(&mut Eraser<'a, 'm>, KVirtAddr),
) -> Result<(), String> {
    let source = eraser.source;
    for cache in caches {
        idle.append(&mut slabs::idle(eraser, waiting, cache));
    }
    slabs::each(eraser, caches, |eraser, pages| {
        let Some((free, _)) = pages.free(&source) else {
            return eraser.trouble("a slab of socket buffers", "which of them are free can't be told");
        };
        let free: BTreeSet<KVirtAddr> = free.into_iter().collect();
        for object in pages.objects().filter(|object| !free.contains(object) && !idle.contains(object)) {
            take(eraser, object);
        }
    })
}

/// Buffers that CPUs keep ready for the next packet: allocated for the allocator, and what they point at is somebody else's.
fn ready(eraser: &mut Eraser<'_, '_>) -> BTreeSet<KVirtAddr> {
    let source = eraser.source;
    let mut found = BTreeSet::new();
    let Ok(of) = source.types.structure("napi_alloc_cache") else { return found };
    let (Ok(list), Ok(_)) = (of.member("skb_cache"), of.member("skb_count")) else { return found };
    let most = list.count().map_or(0, u64::from).min(READY);
    let list = list.offset();
    let read = || -> Result<BTreeSet<KVirtAddr>, String> {
        let cpus = source.per_cpu.variable(source.symbols, "napi_alloc_cache");
        let mut found = BTreeSet::new();
        for (_, at) in cpus.map_err(|why| why.to_string())? {
            let count = source.member(at, "napi_alloc_cache", &["skb_count"])?.min(most);
            let first = at.checked_add(list).ok_or("it is past 2^64")?;
            for number in 0..count {
                found.insert(KVirtAddr(source.long(first, number)?.cast_unsigned()));
            }
        }
        Ok(found)
    };
    match read() {
        Ok(all) => found = all,
        Err(why) => eraser.trouble("buffers that CPUs keep ready", &why),
    }
    found
}

/// The cache of buffers with a place for their clone. It is often merged with another of the same size, and then has that one's name.
fn pairs<'c>(eraser: &Eraser<'_, '_>, caches: &'c [Cache]) -> Option<&'c Cache> {
    let variables = eraser.source.variables();
    let at = match variables.u64("skbuff_fclone_cache") {
        Ok(at) => Some(at),
        // Since 6.9 (kernel commit aa70d2d16f28).
        Err(_) => variables
            .address("net_hotdata")
            .ok()
            .and_then(|at| eraser.member(at, "net_hotdata", &["skbuff_fclone_cache"]).ok()),
    };
    caches.iter().find(|cache| Some(cache.kaddr.0) == at || cache.name == "skbuff_fclone_cache")
}

/// A buffer and the place for its clone, and how many of the two are in use. Of a cache that was merged, an object is believed to
/// be one where it says so (`SKB_FCLONE_ORIG`) and its count and data make sense; the others are of another kind.
fn both(eraser: &mut Eraser<'_, '_>, pair: KVirtAddr, merged: bool) -> Result<(), String> {
    let first = eraser.place(pair, "sk_buff_fclones", &["skb1"])?;
    let second = eraser.place(pair, "sk_buff_fclones", &["skb2"])?;
    let count = eraser.member(pair, "sk_buff_fclones", &["fclone_ref"])?;
    let kind = eraser.member(first, "sk_buff", &["fclone"])?;
    if merged && (kind != 1 || !(1..=2).contains(&count) || check(eraser, first).is_err()) {
        return Ok(());
    }
    match count {
        // One of the two is in use. Where that is the clone, it shares the first one's data, but for the rare one that got its own.
        1 => buffer(eraser, first),
        2 => {
            buffer(eraser, first);
            buffer(eraser, second);
        }
        _ => return Err(format!("they are used {count} times")),
    }
    Ok(())
}

fn buffer(eraser: &mut Eraser<'_, '_>, skb: KVirtAddr) {
    eraser.object();
    if let Err(why) = data(eraser, skb, 0) {
        eraser.trouble(&format!("the socket buffer at {skb}"), &why);
    }
}

/// Where a buffer's data begins, its bytes, where its `skb_shared_info` is, and how many pages that has; `None` where it has no data.
fn check(
    eraser: &Eraser<'_, '_>,
    skb: KVirtAddr,
) -> Result<Option<(KVirtAddr, u64, KVirtAddr, u64)>, String> {
    let member = |name: &str| eraser.member(skb, "sk_buff", &[name]);
    let (head, end) = (KVirtAddr(member("head")?), member("end")?);
    // A message to a process's netlink socket may have none, and a buffer that is being made has none yet.
    if head.is_null() {
        return Ok(None);
    }
    let start = member("data")?.checked_sub(head.0);
    if end > LINEAR || start.is_none_or(|start| start > end) {
        return Err(format!("its data can't begin where it does in {end} bytes"));
    }
    let shared = head.checked_add(end).ok_or("its end is past 2^64")?;
    let count = eraser.member(shared, "skb_shared_info", &["nr_frags"])?;
    if count > FRAGS {
        return Err(format!("it claims {count} pages"));
    }
    // The lower half counts who uses the data.
    let references = eraser.member(shared, "skb_shared_info", &["dataref"])? & 0xffff;
    if references == 0 {
        return Err("nobody uses its data".into());
    }
    Ok(Some((head, end, shared, count)))
}

fn data(eraser: &mut Eraser<'_, '_>, skb: KVirtAddr, depth: u32) -> Result<(), String> {
    let Some((head, end, shared, count)) = check(eraser, skb)? else { return Ok(()) };
    eraser.erase(head, end);
    for number in 0..count {
        let of = |names: [&str; 3]| {
            let paths = names.map(|name| format!("frags[{number}].{name}"));
            eraser.member(shared, "skb_shared_info", &paths.each_ref().map(String::as_str))
        };
        // Renamed in 5.4 and 6.10.
        let page = of(["netmem", "bv_page", "page.p"])?;
        let (len, offset) = (of(["len", "bv_len", "size"])?, of(["offset", "bv_offset", "page_offset"])?);
        // The lowest bit is set for a device's own memory.
        if page & 1 == 1 {
            continue;
        }
        if len > FRAG || offset > FRAG {
            return Err(format!("its page {number} would have {len} bytes"));
        }
        eraser.in_page(KVirtAddr(page), offset, len);
    }
    let mut next = KVirtAddr(eraser.member(shared, "skb_shared_info", &["frag_list"])?);
    // These are buffers of their own, and are met in their slabs too; those of merged caches are not.
    let mut steps = 0_u32;
    while !next.is_null() && depth == 0 {
        steps = steps.saturating_add(1);
        if steps > 1024 {
            return Err("its list of fragments has no end".into());
        }
        data(eraser, next, 1)?;
        next = KVirtAddr(eraser.member(next, "sk_buff", &["next"])?);
    }
    Ok(())
}
