//! `struct bio_list`: block I/O that a driver has put aside.
//!
//! Facts: `include/linux/bio.h`, `include/linux/blk_types.h`.

use std::collections::HashSet;

use super::value::{Layout, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// I/O that is looked at in one list.
const BIOS: usize = 65_536;
/// `REQ_OP_BITS`.
const OP: u64 = 0xff;

view! {
    /// `struct bio`.
    struct BioView of "bio" {
        next: KVirtAddr = ["bi_next"],
        operation: u32 = ["bi_opf"],
        sector: u64 = ["bi_iter.bi_sector"],
        bytes: u32 = ["bi_iter.bi_size"],
    }
}

/// I/O that waits in a list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Bio {
    /// Its `struct bio`.
    pub kaddr: KVirtAddr,
    /// What it does, in the kernel's word without `REQ_OP_`.
    pub op: Option<String>,
    /// Where, in sectors of the device that it was sent to.
    pub sector: u64,
    /// Bytes left to do.
    pub bytes: u32,
}

/// The I/O in the list whose `struct bio_list` is at `list`.
///
/// # Errors
/// Where the types do not tell how it is linked.
pub(super) fn walk(memory: &KernelMemory<'_>, types: &Types, list: KVirtAddr) -> Result<Walk<Bio>, String> {
    let layout = Layout::<BioView>::new(types).map_err(|why| why.to_string())?;
    let head = types.structure("bio_list").and_then(|of| of.member("head")).map_err(|why| why.to_string())?;
    // Renamed in 6.0 (commit ff07a02e9e8e).
    let names = types.enumeration("req_op").or_else(|_| types.enumeration("req_opf")).ok();
    let start = list.checked_add(head.offset()).ok_or("the list is at the end of the address space")?;
    let mut next = memory.read_ptr(start).map_err(|why| why.to_string())?;
    let (mut walk, mut seen) = (Walk::default(), HashSet::new());
    while !next.is_null() {
        if !seen.insert(next) {
            walk.lose(WalkEnd::Cycle(next));
            break;
        }
        let view = match layout.read(memory, next) {
            Ok(view) => view,
            Err(why) => {
                walk.lose(WalkEnd::Inconsistent(next, why.to_string()));
                break;
            }
        };
        let code = i64::try_from(u64::from(view.operation) & OP).unwrap_or_default();
        let op = names.and_then(|names| names.name_of(code));
        let op = op.map(|name| name.trim_start_matches("REQ_OP_").to_lowercase().replace('_', " "));
        if !walk.push(Bio { kaddr: next, op, sector: view.sector, bytes: view.bytes }, BIOS) {
            break;
        }
        next = view.next;
    }
    Ok(walk)
}
