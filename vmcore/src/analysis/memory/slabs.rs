//! The slab caches in the words of the report, and whether one of them leaks.

use super::super::parts::{Clock, Context, Part};

use super::verdict::mib;
use crate::kernel::mm::counters;
use crate::kernel::mm::zone;
use crate::kernel::slab::{self, Cache};
use crate::kernel::walk::WalkEnd;
use crate::report::{Confidence, Finding, Severity, SlabCache};

/// Percent of all memory from which a cache is suspected.
const SHARE: u64 = 25;

/// The caches, largest first.
pub(in crate::analysis) fn slab(context: &Context<'_>, clock: &Clock) -> Part {
    let source = context.reader();
    let all = match slab::read(&source, &|| clock.is_spent()) {
        Ok(all) => all,
        Err(why) => {
            let mut part = Part::default();
            part.skip("slab", why);
            return part;
        }
    };
    let words = |cache: &Cache| {
        let usage = cache.usage.as_ref().ok();
        SlabCache {
            name: cache.name.clone(),
            object_size: Some(cache.object_size),
            objects: usage.map(|u| u.active),
            bytes: usage.map(|u| u.bytes),
            size: Some(cache.size),
            total_objects: usage.map(|u| u.total),
            slabs: usage.map(|u| u.slabs),
            order: Some(cache.order),
            constructor: cache
                .constructor
                .and_then(|at| context.description.symbols.at(at))
                .map(|at| at.to_string()),
        }
    };
    let mut found: Vec<SlabCache> = all.caches.iter().map(words).collect();
    found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let zones = zone::read(&source);
    let total = counters::read(&source, &zones).get("MemTotal");
    let leak = found.first().and_then(|cache| leak(cache, total));
    let failed = all.caches.iter().filter_map(|cache| Some((&cache.name, cache.usage.as_ref().err()?)));
    let failed: Vec<String> = failed.map(|(name, why)| format!("{name}: {why}")).collect();
    let mut part = Part::new(move |report| report.slab = found);
    part.findings.extend(leak);
    if all.end == WalkEnd::Cancelled {
        part.stopped("slab");
    } else if !all.end.is_complete() {
        part.skip("slab", format!("the list of caches is not whole: {}", all.end));
    }
    if let Some(first) = all.lost.first() {
        part.skip("slab", format!("{} caches can't be read: {first}", all.lost.len()));
    }
    if let Some(first) = failed.first() {
        part.skip("slab.bytes", format!("{} caches can't be counted; the first is {first}", failed.len()));
    }
    part
}

fn leak(cache: &SlabCache, total: Option<u64>) -> Option<Finding> {
    let (bytes, total) = (cache.bytes?, total?);
    let percent = bytes.saturating_mul(100).checked_div(total).filter(|n| *n >= SHARE)?;
    let title = format!("The slab cache {} holds {}, {percent} % of the memory.", cache.name, mib(bytes));
    let mut finding =
        Finding::new("KD-MEM-SLAB-LEAK", Severity::Warning, Confidence::Hint, title).because(format!(
            "{} objects of {} bytes are in use",
            cache.objects.unwrap_or_default(),
            cache.object_size.unwrap_or_default()
        ));
    finding.evidence.extend(cache.constructor.as_ref().map(|at| format!("its constructor is {at}")));
    Some(finding.next("Boot with slub_debug=U,CACHE (slab_debug is the newer name of it) and see who allocates in /sys/kernel/debug/slab/CACHE/alloc_traces; RHEL 8 has it as /sys/kernel/slab/CACHE/alloc_calls.")
        .by_hand_crash(format!("kmem -s {}", cache.name))
        .by_hand_drgn(format!("slab_cache_usage(find_slab_cache(\"{}\"))", cache.name.replace(['"', '\\'], "")))
    )
}
