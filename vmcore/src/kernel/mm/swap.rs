//! The swap devices and files, as `/proc/swaps` tells them.
//!
//! Facts: `mm/swapfile.c`, `include/linux/swap.h`.

use crate::addr::KVirtAddr;
use crate::kernel::Gap;
use crate::kernel::path::Paths;
use crate::kernel::reader::Reader;

/// Devices at most (`MAX_SWAPFILES` is 32 at most).
const DEVICES: u32 = 64;
/// `SWP_USED`: the slot is taken.
const USED: u64 = 1;
/// `SWP_WRITEOK`: pages may be written to it.
const WRITE_OK: u64 = 2;
/// `SWAP_USAGE_OFFLIST_BIT`, in the count of used pages since 6.13: it is full, or is being switched off.
const COUNT: u64 = (1 << 62) - 1;

/// A swap device or file; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapDevice {
    /// Its `struct swap_info_struct`.
    pub kaddr: KVirtAddr,
    /// The file.
    pub path: Option<String>,
    /// Room for pages.
    pub bytes: Option<u64>,
    /// Of these, in use.
    pub used: Option<u64>,
    /// Its priority.
    pub priority: Option<i64>,
    /// False where nothing more may be written to it: it is being switched on or off.
    pub writable: bool,
}

/// Reads them.
#[must_use]
pub fn read(source: &Reader<'_, '_>) -> (Vec<SwapDevice>, Vec<Gap>) {
    let (mut found, mut gaps) = (Vec::new(), Vec::new());
    if let Err(why) = fill(source, &mut found, &mut gaps) {
        gaps.push(Gap { what: "swap".into(), why });
    }
    (found, gaps)
}

fn fill(source: &Reader<'_, '_>, found: &mut Vec<SwapDevice>, gaps: &mut Vec<Gap>) -> Result<(), String> {
    let variables = source.variables();
    let count = variables.u32("nr_swapfiles").map_err(|why| why.to_string())?;
    if count > DEVICES {
        return Err(format!("nr_swapfiles holds {count}"));
    }
    if count == 0 {
        return Ok(());
    }
    let table = variables.address("swap_info").map_err(|why| why.to_string())?;
    let flags = source.slot("swap_info_struct", &["flags"])?;
    let paths = Paths::new(source.types).map_err(|why| why.to_string());
    for number in 0..count {
        let at = KVirtAddr(source.long(table, u64::from(number))?.cast_unsigned());
        let mut lose = |what: &str, why: String| {
            gaps.push(Gap { what: format!("swap device {number}"), why: format!("{what}: {why}") });
        };
        let flags = match source.number(at, &flags) {
            Ok(flags) => flags,
            Err(why) => {
                lose("it can't be read", why);
                continue;
            }
        };
        // The slot of a device that was switched off is kept for the next one.
        if flags & USED == 0 {
            continue;
        }
        let read = |member: &str| source.member(at, "swap_info_struct", &[member]);
        let path = || -> Result<String, String> {
            let file = KVirtAddr(read("swap_file")?);
            let of = |member: &str| source.member(file, "file", &[member]).map(KVirtAddr);
            paths.as_ref().map_err(Clone::clone)?.of(source.memory, of("f_path.mnt")?, of("f_path.dentry")?)
        };
        let path = path().map_err(|why| lose("its name", why)).ok();
        let bytes = read("pages").map(|n| source.bytes(n)).map_err(|why| lose("its size", why)).ok();
        let used = read("inuse_pages").map(|n| source.bytes(n & COUNT));
        let used = used.map_err(|why| lose("what is in use", why)).ok();
        let priority = read("prio").map(u64::cast_signed).map_err(|why| lose("its priority", why)).ok();
        found.push(SwapDevice { kaddr: at, path, bytes, used, priority, writable: flags & WRITE_OK != 0 });
    }
    Ok(())
}
