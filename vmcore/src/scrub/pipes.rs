//! Data in pipes: those without a name by their file system (`pipe_mnt`), and FIFOs that somebody has open.
//!
//! Facts: `include/linux/pipe_fs_i.h`, `fs/pipe.c`.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use super::files;
use crate::addr::KVirtAddr;
use crate::kernel::list;
use crate::kernel::task::Tasks;

/// Buffers of one pipe at most: 2^20 pages need root.
const BUFFERS: u64 = 1 << 20;

pub(super) fn erase(eraser: &mut Eraser<'_, '_>, tasks: &Tasks) {
    let mut pipes = BTreeSet::new();
    if let Err(why) = nameless(eraser, &mut pipes) {
        eraser.trouble("pipes without a name", &why);
    }
    if let Err(why) = open(eraser, tasks, &mut pipes) {
        eraser.trouble("FIFOs", &why);
    }
    for pipe in pipes {
        eraser.object();
        if let Err(why) = one(eraser, pipe) {
            eraser.trouble(&format!("the pipe at {pipe}"), &why);
        }
    }
}

fn nameless(eraser: &mut Eraser<'_, '_>, pipes: &mut BTreeSet<KVirtAddr>) -> Result<(), String> {
    let source = eraser.source;
    let mount = KVirtAddr(source.variables().u64("pipe_mnt").map_err(|why| why.to_string())?);
    let sb = KVirtAddr(eraser.member(mount, "vfsmount", &["mnt_sb"])?);
    let head = eraser.place(sb, "super_block", &["s_inodes"])?;
    let node = source.slot("inode", &["i_sb_list"])?.offset();
    let walk = list::walk(source.memory, head, source.limits.walk_items);
    if !walk.end.is_complete() {
        eraser.trouble("pipes without a name", &walk.end.to_string());
    }
    for inode in walk.items.into_iter().filter_map(|at| at.checked_sub(node)) {
        match eraser.member(inode, "inode", &["i_pipe"]).map(KVirtAddr) {
            Ok(pipe) => pipes.extend((!pipe.is_null()).then_some(pipe)),
            Err(why) => eraser.trouble(&format!("the pipe with the inode at {inode}"), &why),
        }
    }
    Ok(())
}

fn open(eraser: &mut Eraser<'_, '_>, tasks: &Tasks, pipes: &mut BTreeSet<KVirtAddr>) -> Result<(), String> {
    for file in files::open(eraser, tasks, "pipe")? {
        let found = match file.kind {
            Some(_) => eraser
                .member(file.kaddr, "file", &["f_inode"])
                .and_then(|inode| eraser.member(KVirtAddr(inode), "inode", &["i_pipe"])),
            None => Err(files::unknown(&file)),
        };
        match found.map(KVirtAddr) {
            Ok(pipe) => pipes.extend((!pipe.is_null()).then_some(pipe)),
            Err(why) => eraser.trouble(&format!("the open file at {}", file.kaddr), &why),
        }
    }
    Ok(())
}

fn one(eraser: &mut Eraser<'_, '_>, pipe: KVirtAddr) -> Result<(), String> {
    let source = eraser.source;
    let bufs = KVirtAddr(eraser.member(pipe, "pipe_inode_info", &["bufs"])?);
    // `buffers` up to 5.4.
    let count = eraser.member(pipe, "pipe_inode_info", &["ring_size", "buffers"])?;
    if count > BUFFERS {
        return Err(format!("it claims {count} buffers"));
    }
    let each = source.types.structure("pipe_buffer").map_err(|why| why.to_string())?.size();
    let own = source.variables().address("anon_pipe_buf_ops").map_err(|why| why.to_string())?;
    for number in 0..count {
        let at = number.checked_mul(each).and_then(|by| bufs.checked_add(by)).ok_or("it is past 2^64")?;
        let of = |name: &str| eraser.member(at, "pipe_buffer", &[name]);
        let (page, ops) = (KVirtAddr(of("page")?), KVirtAddr(of("ops")?));
        // A place that was emptied has no operations any more.
        if page.is_null() || ops.is_null() {
            continue;
        }
        if ops == own {
            eraser.in_page(page, 0, source.page_size);
        } else {
            let (offset, len) = (of("offset")?, of("len")?);
            eraser.in_page(page, offset, len.min(source.page_size.saturating_sub(offset)));
        }
    }
    // Pages that it keeps for the next write, with what they held.
    let Ok(kept) = source.types.structure("pipe_inode_info").and_then(|s| s.member("tmp_page")) else {
        return Ok(());
    };
    let slots = kept.count().map_or(1, u64::from).min(16);
    let first = pipe.checked_add(kept.offset()).ok_or("it is past 2^64")?;
    for number in 0..slots {
        let page = KVirtAddr(source.long(first, number)?.cast_unsigned());
        if !page.is_null() {
            eraser.in_page(page, 0, source.page_size);
        }
    }
    Ok(())
}
