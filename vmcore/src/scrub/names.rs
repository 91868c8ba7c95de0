//! Names of files: those of all dentries, in them or behind them. Lengths and hashes stay.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use super::slabs;
use crate::addr::KVirtAddr;
use crate::kernel::slab::Cache;

/// `NAME_MAX`, and its NUL.
const NAME: u64 = 256;

pub(super) fn erase(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    let source = eraser.source;
    let caches = slabs::all(eraser)?;
    let dentries: Vec<&Cache> = caches.iter().filter(|cache| cache.name == "dentry").collect();
    if dentries.is_empty() {
        return Err("there is no slab cache dentry".into());
    }
    slabs::each(eraser, &dentries, |eraser, pages| {
        let free = pages.free(&source).map(|(free, _)| free.into_iter().collect::<BTreeSet<_>>());
        for dentry in pages.objects() {
            eraser.object();
            let in_use = free.as_ref().map(|free| !free.contains(&dentry));
            if let Err(why) = one(eraser, dentry, in_use) {
                eraser.trouble(&format!("the dentry at {dentry}"), &why);
            }
        }
    })
}

fn one(eraser: &mut Eraser<'_, '_>, dentry: KVirtAddr, in_use: Option<bool>) -> Result<(), String> {
    // An array of bytes, a union with words since 6.12.
    let inside = eraser.source.slot("dentry", &["d_shortname.string", "d_iname"])?;
    let own = dentry.checked_add(inside.offset()).ok_or("it is past 2^64")?;
    let name = KVirtAddr(eraser.member(dentry, "dentry", &["d_name.name"])?);
    let len = eraser.member(dentry, "dentry", &["d_name.len"])?;
    // What lies behind the end of a short name is left from longer ones: only its NUL is kept.
    let short = name == own && len < inside.bytes();
    eraser.erase(own, if short { len } else { inside.bytes() });
    if let Some(behind) = own.checked_add(len.saturating_add(1)).filter(|_| short) {
        eraser.erase(behind, inside.bytes().saturating_sub(len.saturating_add(1)));
    }
    match in_use {
        _ if name == own => Ok(()),
        // What a freed dentry points at is somebody else's.
        Some(false) => Ok(()),
        None => Err("whether it is free can't be told: its long name stays".into()),
        Some(true) if len < NAME => {
            eraser.erase(name, len);
            Ok(())
        }
        Some(true) => Err(format!("its name would have {len} bytes")),
    }
}
