//! Data of socket buffers: all that are allocated, whatever queue, timer or driver they wait in.
//!
//! Facts: `include/linux/skbuff.h`, `net/core/skbuff.c`.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use super::slabs;
use crate::addr::KVirtAddr;
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
    let source = eraser.source;
    let caches = slabs::all(eraser)?;
    let named = |name: &str| caches.iter().filter(|cache| cache.name == name).collect::<Vec<&Cache>>();
    let plain = named("skbuff_head_cache");
    if plain.is_empty() {
        return Err("there is no slab cache skbuff_head_cache".into());
    }
    let pairs = named("skbuff_fclone_cache");
    if pairs.is_empty() {
        eraser.trouble(
            "buffers of TCP",
            "their slab cache skbuff_fclone_cache is not in the list: it was merged with another",
        );
    }
    let ready = ready(eraser);
    slabs::each(eraser, &plain, |eraser, pages| {
        let Some((free, _)) = pages.free(&source) else {
            return eraser.trouble("a slab of socket buffers", "which of them are free can't be told");
        };
        let free: BTreeSet<KVirtAddr> = free.into_iter().collect();
        for skb in pages.objects().filter(|skb| !free.contains(skb) && !ready.contains(skb)) {
            buffer(eraser, skb);
        }
    })?;
    slabs::each(eraser, &pairs, |eraser, pages| {
        let Some((free, _)) = pages.free(&source) else {
            return eraser.trouble("a slab of socket buffers", "which of them are free can't be told");
        };
        let free: BTreeSet<KVirtAddr> = free.into_iter().collect();
        for pair in pages.objects().filter(|pair| !free.contains(pair)) {
            if let Err(why) = both(eraser, pair) {
                eraser.trouble(&format!("the socket buffers at {pair}"), &why);
            }
        }
    })
}

/// Buffers that CPUs keep ready for the next packet: allocated for the allocator, and what they point at is somebody else's.
fn ready(eraser: &mut Eraser<'_, '_>) -> BTreeSet<KVirtAddr> {
    let source = eraser.source;
    let mut found = BTreeSet::new();
    let Ok(of) = source.types().structure("napi_alloc_cache") else { return found };
    let (Ok(list), Ok(_)) = (of.member("skb_cache"), of.member("skb_count")) else { return found };
    let most = list.count().map_or(0, u64::from).min(READY);
    let list = list.offset();
    let read = || -> Result<BTreeSet<KVirtAddr>, String> {
        let cpus = source.per_cpu.variable(&source.description.symbols, "napi_alloc_cache");
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

/// A buffer and the place for its clone. Which of them is in use, only their common count tells, and at 1 it does not.
fn both(eraser: &mut Eraser<'_, '_>, pair: KVirtAddr) -> Result<(), String> {
    let first = eraser.place(pair, "sk_buff_fclones", &["skb1"])?;
    let second = eraser.place(pair, "sk_buff_fclones", &["skb2"])?;
    let count = eraser.member(pair, "sk_buff_fclones", &["fclone_ref"])?;
    let head = |skb: KVirtAddr| eraser.member(skb, "sk_buff", &["head"]);
    let same = head(first)? == head(second)?;
    let kind = eraser.member(second, "sk_buff", &["fclone"])?;
    match count {
        // Never cloned (SKB_FCLONE_UNAVAILABLE, SKB_FCLONE_ORIG are below SKB_FCLONE_CLONE), or both share their data.
        1 if kind < 2 || same => buffer(eraser, first),
        2 => {
            buffer(eraser, first);
            buffer(eraser, second);
        }
        1 => return Err("which of the two is in use can't be told".into()),
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

fn data(eraser: &mut Eraser<'_, '_>, skb: KVirtAddr, depth: u32) -> Result<(), String> {
    let member = |name: &str| eraser.member(skb, "sk_buff", &[name]);
    let (head, end) = (KVirtAddr(member("head")?), member("end")?);
    // A message to a process's netlink socket may have none, and a buffer that is being made has none yet.
    if head.is_null() {
        return Ok(());
    }
    // A pointer on 32-bit kernels only.
    let start = member("data")?.checked_sub(head.0);
    if end > LINEAR || start.is_none_or(|start| start > end) {
        return Err(format!("its data can't begin where it does in {end} bytes"));
    }
    let shared = head.checked_add(end).ok_or("its end is past 2^64")?;
    let count = eraser.member(shared, "skb_shared_info", &["nr_frags"])?;
    if count > FRAGS {
        return Err(format!("it claims {count} pages"));
    }
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
