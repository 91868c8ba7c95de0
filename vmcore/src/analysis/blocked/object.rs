//! What stands behind a wait without an owner: the page, buffer or server, and the request that a disk has for it.
//!
//! The entry in a wait queue names the function that wakes it, and this tells what the entry is part of: `wake_page_function` a
//! `struct wait_page_queue`, `wake_bit_function` a `struct wait_bit_queue_entry`. A request is known by its bio, whose `bi_private` is the
//! completion or the buffer that the task waits for. Facts: `mm/filemap.c`, `kernel/sched/wait_bit.c`, `block/bio.c`.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::place;
use crate::addr::KVirtAddr;
use crate::analysis::parts::Context;
use crate::kernel::block::{self, Request};
use crate::kernel::lock::{LockKind, Wait};
use crate::kernel::reader::Reader;
use crate::kernel::value::read_text;
use crate::sym::btf::Struct;

/// Disks that are looked at.
const DISKS: usize = 4096;
/// Bios of a request.
const BIOS: usize = 1024;
/// Pages of a bio (`BIO_MAX_VECS`).
const VECTORS: u64 = 256;
/// Bytes of a name.
const NAME: usize = 64;
/// Low bits of a page's `mapping`: what is not the page of a file.
const NO_FILE: u64 = 3;
/// The lowest of them: memory of processes.
const ANONYMOUS: u64 = 1;

/// Says what waits are for.
pub(super) struct Objects<'c, 'a> {
    context: &'c Context<'a>,
    source: Reader<'a, 'a>,
    /// What disks have to do, by the bio's `bi_private` and by its pages.
    requests: OnceCell<HashMap<u64, String>>,
}

impl<'c, 'a> Objects<'c, 'a> {
    pub(super) fn new(context: &'c Context<'a>) -> Self {
        Self { context, source: context.reader(), requests: OnceCell::new() }
    }

    /// In words, to follow what the stack told; nothing where it is not proven.
    pub(super) fn told(&self, symbols: &[String], wait: &Wait) -> Option<String> {
        match wait.kind {
            LockKind::Completion => self.request(wait.lock),
            LockKind::WaitQueue => {
                let function = self.read(wait.waiter, "wait_queue_entry", &["func"])?;
                let function = self.context.description.symbols.at(KVirtAddr(function))?;
                match function.symbol.name.as_str() {
                    "wake_page_function" => self.page(wait.waiter),
                    "wake_bit_function" => self.bit(symbols, wait.waiter),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn read(&self, at: KVirtAddr, of: &str, paths: &[&str]) -> Option<u64> {
        self.source.member(at, of, paths).ok()
    }

    fn outer(&self, entry: KVirtAddr, of: &str, member: &str) -> Option<KVirtAddr> {
        entry.checked_sub(self.source.offset(of, member).ok()?)
    }

    fn page(&self, entry: KVirtAddr) -> Option<String> {
        let key = self.outer(entry, "wait_page_queue", "wait")?;
        let page = KVirtAddr(self.read(key, "wait_page_queue", &["folio", "page"])?);
        let bit = self.read(key, "wait_page_queue", &["bit_nr"])?;
        let names = self.source.types.enumeration("pageflags").ok();
        let bit = names.and_then(|names| names.name_of(i64::try_from(bit).ok()?).map(str::to_owned));
        let bit = bit.map(|name| format!(" to lose {name}")).unwrap_or_default();
        let of = self.of_file(page).map(|of| format!(", {of},")).unwrap_or_default();
        let request = self.request(page).map(|request| format!("; {request}")).unwrap_or_default();
        Some(format!("the page at {page}{of}{bit}{request}"))
    }

    /// `page 3 of inode 131 of vda1`.
    fn of_file(&self, page: KVirtAddr) -> Option<String> {
        let of = |name: &str| self.read(page, "folio", &[name]).or_else(|| self.read(page, "page", &[name]));
        let mapping = of("mapping")?;
        if mapping & NO_FILE == ANONYMOUS {
            return Some("of a process's memory".into());
        }
        if mapping == 0 || mapping & NO_FILE != 0 {
            return None;
        }
        let inode = KVirtAddr(self.read(KVirtAddr(mapping), "address_space", &["host"])?);
        // An inode names its mapping in turn.
        if self.read(inode, "inode", &["i_mapping"])? != mapping {
            return None;
        }
        let index = of("index").or_else(|| self.read(page, "page", &["__folio_index"]));
        let index = index.map(|index| format!("page {index} of ")).unwrap_or_default();
        if let Some(disk) = self.disk_of(inode, mapping) {
            return Some(format!("{index}the disk {disk}"));
        }
        let number = self.read(inode, "inode", &["i_ino"])?;
        let filesystem = KVirtAddr(self.read(inode, "inode", &["i_sb"])?);
        let name = filesystem.checked_add(self.source.offset("super_block", "s_id").ok()?)?;
        let name = read_text(self.context.memory, name, 32).ok()?;
        Some(format!("{index}inode {number} of {name}"))
    }

    /// The disk whose own inode this is, and not that of a file on it. `mapping` is the page's.
    fn disk_of(&self, inode: KVirtAddr, mapping: u64) -> Option<String> {
        let device = self.outer(inode, "bdev_inode", "vfs_inode")?;
        let device = device.checked_add(self.source.offset("bdev_inode", "bdev").ok()?)?;
        // Any inode could stand there: this one's disk names it, or its mapping, in turn (`bd_mapping` since 6.10).
        let named = self.read(device, "block_device", &["bd_mapping"]).map(|at| at == mapping);
        let named = named.or_else(|| Some(self.read(device, "block_device", &["bd_inode"])? == inode.0));
        if named != Some(true) {
            return None;
        }
        self.disk_name(device)
    }

    /// The name of a `block_device`'s disk.
    fn disk_name(&self, device: KVirtAddr) -> Option<String> {
        let disk = KVirtAddr(self.read(device, "block_device", &["bd_disk"])?);
        let name = disk.checked_add(self.source.offset("gendisk", "disk_name").ok()?)?;
        read_text(self.context.memory, name, NAME).ok().filter(|name| !name.is_empty())
    }

    fn bit(&self, symbols: &[String], entry: KVirtAddr) -> Option<String> {
        let key = self.outer(entry, "wait_bit_queue_entry", "wq_entry")?;
        let word = KVirtAddr(self.read(key, "wait_bit_queue_entry", &["key.flags"])?);
        let bit = self.read(key, "wait_bit_queue_entry", &["key.bit_nr"])?;
        let is_in = |name: &str| symbols.iter().any(|symbol| symbol == name);
        let known = if is_in("__wait_on_buffer") {
            self.buffer(word)
        } else if is_in("rpc_wait_bit_killable") {
            self.rpc(word)
        } else {
            None
        };
        known.or_else(|| {
            let place = place::slab(self.context, word);
            let place =
                place.map_or_else(|| format!("the word at {word}"), |place| format!("the word {place}"));
            Some(format!("bit {} of {place}", bit.cast_signed()))
        })
    }

    fn buffer(&self, state: KVirtAddr) -> Option<String> {
        let buffer = state.checked_sub(self.source.offset("buffer_head", "b_state").ok()?)?;
        let number = self.read(buffer, "buffer_head", &["b_blocknr"])?;
        let device = KVirtAddr(self.read(buffer, "buffer_head", &["b_bdev"])?);
        let name = self.disk_name(device)?;
        let request = self.request(buffer).map(|request| format!("; {request}")).unwrap_or_default();
        Some(format!("block {number} of {name}{request}"))
    }

    /// The server of an RPC, where the module's types are in the dump.
    fn rpc(&self, state: KVirtAddr) -> Option<String> {
        let task = state.checked_sub(self.source.offset("rpc_task", "tk_runstate").ok()?)?;
        let client = KVirtAddr(self.read(task, "rpc_task", &["tk_client"])?);
        let transport = KVirtAddr(self.read(client, "rpc_clnt", &["cl_xprt"])?);
        let name = KVirtAddr(self.read(transport, "rpc_xprt", &["servername"])?);
        let name = read_text(self.context.memory, name, NAME).ok().filter(|name| !name.is_empty())?;
        Some(format!("the server {name}, by the rpc_task at {task}"))
    }

    /// What a disk has to do for this completion, buffer or page.
    fn request(&self, private: KVirtAddr) -> Option<String> {
        self.requests.get_or_init(|| self.requests()).get(&private.0).cloned()
    }

    fn requests(&self) -> HashMap<u64, String> {
        let mut found = HashMap::new();
        // Where disks can't be read, their own part of the report says so.
        let Ok(disks) = block::read(self.context.memory, self.context.description, DISKS) else {
            return found;
        };
        for disk in disks.items {
            for request in disk.requests.iter().flatten() {
                let words = words(&disk.name, request);
                let mut bio = self.read(request.kaddr, "request", &["bio"]).unwrap_or_default();
                for _ in 0..BIOS {
                    let at = KVirtAddr(bio);
                    let private = self.read(at, "bio", &["bi_private"]).filter(|_| !at.is_null());
                    let Some(private) = private else { break };
                    found.entry(private).or_insert_with(|| words.clone());
                    for page in self.pages(at) {
                        found.entry(page).or_insert_with(|| words.clone());
                    }
                    bio = self.read(at, "bio", &["bi_next"]).unwrap_or_default();
                }
                // Of a request that has no bio, or is waited for itself (`blk_execute_rq`).
                if let Some(data) =
                    self.read(request.kaddr, "request", &["end_io_data"]).filter(|data| *data != 0)
                {
                    found.entry(data).or_insert(words);
                }
            }
        }
        found
    }
}

impl Objects<'_, '_> {
    /// The pages that a bio reads or writes.
    fn pages(&self, bio: KVirtAddr) -> Vec<u64> {
        let vector = self.read(bio, "bio", &["bi_io_vec"]).map(KVirtAddr).filter(|at| !at.is_null());
        let count = self.read(bio, "bio", &["bi_vcnt"]).unwrap_or_default() & 0xffff;
        let size = self.source.types.structure("bio_vec").map(Struct::size).unwrap_or_default();
        let Some(vector) = vector else { return Vec::new() };
        let page = |number: u64| {
            let at = vector.checked_add(number.checked_mul(size)?)?;
            self.read(at, "bio_vec", &["bv_page"])
        };
        (0..count.min(VECTORS)).map_while(page).collect()
    }
}

fn words(disk: &str, request: &Request) -> String {
    let op = request.op.as_deref().map(|op| format!(" ({})", op.to_ascii_lowercase())).unwrap_or_default();
    let sector = request.sector.map(|sector| format!(", sector {sector}")).unwrap_or_default();
    let done = if request.complete { ", which the driver is done with" } else { "" };
    format!("the driver of {disk} has its request at {}{op}{sector}{done}", request.kaddr)
}
