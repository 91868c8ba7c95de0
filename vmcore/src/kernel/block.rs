//! The disks, and the requests that their drivers have.
//!
//! Disks are the devices of the class `block`. Requests are looked for where the driver's tags point at them, and are believed
//! only where they name the queue, the hardware context and the tag that lead to them.
//! Facts: `drivers/base/base.h`, `drivers/base/class.c`, `include/linux/blk-mq.h`, `block/blk-mq.c`.

use super::describe::Description;
use super::list;
use super::value::{self, Layout, Maybe, Place, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use super::xarray::{self, Entry};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Kind, Types};
use crate::xlat::KernelMemory;

/// Classes of devices.
const CLASSES: usize = 65_536;
/// Hardware contexts of one queue, and tags of one context: more than any driver has.
const CONTEXTS: usize = 16_384;
const TAGS: u32 = 1 << 17;
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// `REQ_OP_BITS`.
const OP: u64 = 0xff;

view! {
    /// `struct gendisk`.
    struct Disk of "gendisk" {
        major: u32 = ["major"],
        minor: u32 = ["first_minor"],
        name: String = ["disk_name"],
        queue: KVirtAddr = ["queue"],
        operations: KVirtAddr = ["fops"],
        private: KVirtAddr = ["private_data"],
        part0: Place = ["part0"],
    }
}

view! {
    /// `struct request_queue`.
    struct Queue of "request_queue" {
        contexts: Option<Place> = ["hctx_table"],
        context_array: Option<KVirtAddr> = ["queue_hw_ctx"],
        context_count: Option<u32> = ["nr_hw_queues"],
        freeze: Maybe<i32> = ["mq_freeze_depth"],
        quiesce: Maybe<i32> = ["quiesce_depth"],
    }
}

view! {
    /// `struct blk_mq_hw_ctx`.
    struct Context of "blk_mq_hw_ctx" {
        number: u32 = ["queue_num"],
        queue: KVirtAddr = ["queue"],
        tags: KVirtAddr = ["tags"],
    }
}

view! {
    /// `struct blk_mq_tags`.
    struct Tags of "blk_mq_tags" {
        count: u32 = ["nr_tags"],
        requests: KVirtAddr = ["rqs"],
    }
}

view! {
    /// The bitmaps of `struct blk_mq_tags`: a `struct sbitmap_queue` each, or a pointer to one (5.10 to 5.15).
    struct TagBitmaps of "blk_mq_tags" {
        shared: Place = ["bitmap_tags"],
        reserved: Place = ["breserved_tags"],
    }
}

view! {
    /// `struct sbitmap_queue`.
    struct Bitmap of "sbitmap_queue" {
        words: KVirtAddr = ["sb.map"],
        count: u32 = ["sb.map_nr"],
    }
}

view! {
    /// `struct request`.
    struct RequestView of "request" {
        queue: KVirtAddr = ["q"],
        context: Option<KVirtAddr> = ["mq_hctx"],
        flags: u32 = ["cmd_flags"],
        tag: i32 = ["tag"],
        bytes: u32 = ["__data_len"],
        sector: u64 = ["__sector"],
        start: Option<u64> = ["start_time_ns"],
        io_start: Option<u64> = ["io_start_time_ns"],
        deadline: Option<u64> = ["deadline", "__deadline"],
        timeout: Option<u32> = ["timeout"],
        state: u32 = ["state"],
    }
}

/// A disk.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Device {
    /// Its `gendisk`.
    pub kaddr: KVirtAddr,
    /// Its name: `sda`.
    pub name: String,
    /// Its numbers.
    pub major: u32,
    /// The first of its minors.
    pub minor: u32,
    /// Its `request_queue`.
    pub queue: KVirtAddr,
    /// Its `block_device_operations`.
    pub operations: KVirtAddr,
    /// What its driver keeps of it.
    pub private: KVirtAddr,
    /// Its size, where that is known.
    pub size_bytes: Option<u64>,
    /// How often it is frozen.
    pub freeze_depth: Option<i32>,
    /// How often it is quiesced.
    pub quiesce_depth: Option<i32>,
    /// The requests that its driver has, in the order of contexts and tags; `None` where they can't be looked for.
    pub requests: Option<Vec<Request>>,
    /// What of it is missing.
    pub gaps: Vec<String>,
}

/// A request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Its `struct request`.
    pub kaddr: KVirtAddr,
    /// What it does, in the kernel's word without `REQ_OP_`.
    pub op: Option<String>,
    /// Where, in sectors.
    pub sector: Option<u64>,
    /// Bytes left to do.
    pub bytes: u32,
    /// When it was made, on the monotonic clock; 0 where the kernel does not count.
    pub start_ns: u64,
    /// When the driver got it, on the same clock; 0 where the kernel does not count.
    pub io_start_ns: u64,
    /// When the driver got it, in jiffies: its deadline less the time that it has.
    pub started_jiffies: Option<u64>,
    /// True where the driver is done with it.
    pub complete: bool,
    /// The hardware context.
    pub hardware_queue: u32,
    /// Its tag.
    pub tag: i32,
}

struct Layouts {
    disks: Layout<Disk>,
    queues: Layout<Queue>,
    contexts: Option<Layout<Context>>,
    tags: Option<Layout<Tags>>,
    requests: Option<Layout<RequestView>>,
    tree: Option<xarray::Layout>,
}

impl Layouts {
    fn new(types: &Types) -> Result<Self, String> {
        Ok(Self {
            disks: Layout::new(types).map_err(|e| e.to_string())?,
            queues: Layout::new(types).map_err(|e| e.to_string())?,
            contexts: Layout::new(types).ok(),
            tags: Layout::new(types).ok(),
            requests: Layout::new(types).ok(),
            tree: xarray::Layout::new(types).ok(),
        })
    }
}

/// All disks with what their drivers have.
///
/// # Errors
/// Why there is no list of them.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<Device>, String> {
    let types = &description.types;
    let layouts = Layouts::new(types)?;
    let found = disks(memory, description, limit)?;
    let mut walk = Walk { items: Vec::new(), end: found.end, lost: found.lost };
    for at in found.items {
        match layouts.disks.read(memory, at) {
            Ok(disk) => walk.items.push(device(memory, types, &layouts, at, disk)),
            Err(why) => walk.lose(WalkEnd::Inconsistent(at, why.to_string())),
        }
    }
    Ok(walk)
}

/// All disks, without the requests that their drivers have.
///
/// # Errors
/// Why there is no list of them.
pub fn list(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<Device>, String> {
    let layout = Layout::<Disk>::new(&description.types).map_err(|e| e.to_string())?;
    let found = disks(memory, description, limit)?;
    let mut walk = Walk { items: Vec::new(), end: found.end, lost: found.lost };
    for at in found.items {
        match layout.read(memory, at) {
            Ok(disk) => walk.items.push(Device::new(memory, &description.types, at, disk)),
            Err(why) => walk.lose(WalkEnd::Inconsistent(at, why.to_string())),
        }
    }
    Ok(walk)
}

/// The `gendisk`s: devices of the class `block` that are no partitions.
fn disks(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<KVirtAddr>, String> {
    let types = &description.types;
    let offset = |of: &str, paths: &[&str]| -> Result<u64, String> {
        types
            .structure(of)
            .and_then(|s| s.member_of(paths))
            .map(crate::sym::btf::Member::offset)
            .map_err(|e| e.to_string())
    };
    let private = class(memory, description)?;
    let head = offset("subsys_private", &["klist_devices.k_list"])?;
    let node = offset("klist_node", &["n_node"])?;
    // In the device itself before 5.1.
    let (in_private, knode) = match offset("device_private", &["knode_class"]) {
        Ok(at) => (Some(offset("device_private", &["device"])?), at),
        Err(_) => (None, offset("device", &["knode_class"])?),
    };
    // Since 5.11 a disk's device is in its first block_device, before it in its first hd_struct, which is in the gendisk.
    let since = offset("block_device", &["bd_device"]).ok();
    let disk_in_bdev = offset("block_device", &["bd_disk"])?;
    let part0 = offset("gendisk", &["part0"])?;
    let before = offset("gendisk", &["part0.__dev"]).ok();
    let type_in_device = offset("device", &["type"])?;
    let kind = Variables::new(memory, &description.symbols).address("disk_type").ok();
    let head = private.checked_add(head).ok_or("the class is at the end of the address space")?;
    let walk = list::walk(memory, head, limit);
    let mut disks = Walk { items: Vec::new(), end: walk.end, lost: walk.lost };
    for at in walk.items {
        let disk = || -> Option<Result<KVirtAddr, crate::error::MemError>> {
            let holder = at.checked_sub(node)?.checked_sub(knode)?;
            let device = match in_private {
                Some(by) => match memory.read_ptr(holder.checked_add(by)?) {
                    Ok(device) => device,
                    Err(why) => return Some(Err(why)),
                },
                None => holder,
            };
            let found_kind = match memory.read_ptr(device.checked_add(type_in_device)?) {
                Ok(found) => found,
                // It may be a disk: it is missed, not dropped.
                Err(why) => return Some(Err(why)),
            };
            if kind.is_some_and(|kind| kind != found_kind) {
                return None;
            }
            let Some(inside) = since else { return device.checked_sub(before?).map(Ok) };
            let bdev = device.checked_sub(inside)?;
            let disk = match memory.read_ptr(bdev.checked_add(disk_in_bdev)?) {
                Ok(disk) => disk,
                Err(why) => return Some(Err(why)),
            };
            match memory.read_ptr(disk.checked_add(part0)?) {
                Ok(first) => (first == bdev).then_some(Ok(disk)),
                Err(why) => Some(Err(why)),
            }
        };
        match disk() {
            Some(Ok(disk)) => disks.items.push(disk),
            Some(Err(why)) => disks.lose(WalkEnd::unreadable(at, &why)),
            None => {}
        }
    }
    Ok(disks)
}

/// The `subsys_private` of the class `block`.
fn class(memory: &KernelMemory<'_>, description: &Description) -> Result<KVirtAddr, String> {
    let types = &description.types;
    let variables = Variables::new(memory, &description.symbols);
    let class = variables.address("block_class").map_err(|e| e.to_string())?;
    let structure = types.structure("class").map_err(|e| e.to_string())?;
    // A class has it up to 6.3; since then it is looked up among all classes.
    if let Ok(member) = structure.member("p") {
        let at =
            class.checked_add(member.offset()).ok_or("block_class is at the end of the address space")?;
        return memory.read_ptr(at).map_err(|e| e.to_string());
    }
    let offset = |of: &str, path: &str| -> Result<u64, String> {
        types
            .structure(of)
            .and_then(|s| s.member(path))
            .map(crate::sym::btf::Member::offset)
            .map_err(|e| e.to_string())
    };
    let kset = variables.u64("class_kset").map(KVirtAddr).map_err(|e| e.to_string())?;
    let head = kset.checked_add(offset("kset", "list")?).ok_or("class_kset is no address")?;
    let entry = offset("subsys_private", "subsys.kobj.entry")?;
    let own = offset("subsys_private", "class")?;
    let walk = list::walk(memory, head, CLASSES);
    let found = walk
        .items
        .iter()
        .filter_map(|node| node.checked_sub(entry))
        .find(|private| private.checked_add(own).and_then(|at| memory.read_ptr(at).ok()) == Some(class));
    found.ok_or_else(|| format!("the class block is not among the kernel's classes ({})", walk.end))
}

impl Device {
    /// What the `gendisk` says.
    fn new(memory: &KernelMemory<'_>, types: &Types, kaddr: KVirtAddr, disk: Disk) -> Self {
        Self {
            kaddr,
            size_bytes: size(memory, types, disk.part0.0),
            name: disk.name,
            major: disk.major,
            minor: disk.minor,
            queue: disk.queue,
            operations: disk.operations,
            private: disk.private,
            ..Self::default()
        }
    }
}

fn device(
    memory: &KernelMemory<'_>,
    types: &Types,
    layouts: &Layouts,
    kaddr: KVirtAddr,
    disk: Disk,
) -> Device {
    let mut device = Device::new(memory, types, kaddr, disk);
    match layouts.queues.read(memory, device.queue) {
        Ok(queue) => {
            device.freeze_depth = queue.freeze.as_ref().copied();
            device.quiesce_depth = queue.quiesce.as_ref().copied();
            device.requests = requests(memory, types, layouts, device.queue, &queue, &mut device.gaps);
        }
        Err(why) => device.gaps.push(why.to_string()),
    }
    device
}

fn size(memory: &KernelMemory<'_>, types: &Types, part0: KVirtAddr) -> Option<u64> {
    let member = types.structure("gendisk").ok()?.member("part0").ok()?;
    // A block_device since 5.11, an hd_struct within the disk before.
    let (part, of, path) = if member.ty().resolve().ok()?.kind() == Kind::Pointer {
        (memory.read_ptr(part0).ok()?, "block_device", "bd_nr_sectors")
    } else {
        (part0, "hd_struct", "nr_sects")
    };
    let by = types.structure(of).ok()?.member(path).ok()?.offset();
    memory.read_u64(part.checked_add(by)?).ok()?.checked_mul(SECTOR)
}

/// `None` where they can't be looked for.
fn requests(
    memory: &KernelMemory<'_>,
    types: &Types,
    layouts: &Layouts,
    at: KVirtAddr,
    queue: &Queue,
    gaps: &mut Vec<String>,
) -> Option<Vec<Request>> {
    let (Some(contexts), Some(tags), Some(views)) = (&layouts.contexts, &layouts.tags, &layouts.requests)
    else {
        gaps.push("the kernel's types don't tell how requests are kept".into());
        return None;
    };
    let mut found = Vec::new();
    for context_at in hardware_contexts(memory, layouts, queue, gaps)? {
        let one = || -> Result<(Context, Tags, Vec<KVirtAddr>), String> {
            let context = contexts.read(memory, context_at).map_err(|e| e.to_string())?;
            if context.queue != at {
                return Err(format!("the hardware context at {context_at} is of another queue"));
            }
            if context.tags.is_null() {
                // A context that no CPU is mapped to.
                return Ok((context, Tags { count: 0, requests: KVirtAddr(0) }, Vec::new()));
            }
            let tags = tags.read(memory, context.tags).map_err(|e| e.to_string())?;
            if tags.count > TAGS {
                return Err(format!("the tags at {} claim to be {}", context.tags, tags.count));
            }
            let count = usize::try_from(tags.count).unwrap_or_default();
            let pointers = value::read_pointers(memory, tags.requests, count).map_err(|e| e.to_string())?;
            Ok((context, tags, pointers))
        };
        let (context, _, pointers) = match one() {
            Ok(parts) => parts,
            Err(why) => {
                gaps.push(why);
                continue;
            }
        };
        for (tag, kaddr) in pointers.into_iter().enumerate().filter(|(_, at)| !at.is_null()) {
            let view = match views.read(memory, kaddr) {
                Ok(view) => view,
                Err(why) => {
                    gaps.push(why.to_string());
                    continue;
                }
            };
            // The table keeps pointers to requests that are done, and of other queues that share the tags.
            let ours = view.queue == at
                && view.context.is_none_or(|c| c == context_at)
                && usize::try_from(view.tag).is_ok_and(|own| own == tag);
            // MQ_RQ_IDLE 0, MQ_RQ_IN_FLIGHT 1, MQ_RQ_COMPLETE 2, since 4.18 (commit 12f5b9314545).
            if ours && matches!(view.state, 1 | 2) {
                found.push(request(types, kaddr, context.number, &view));
            }
        }
    }
    Some(found)
}

/// Where the words of the bitmaps of a disk's tags are, and their bytes: readers that count requests begin there. What of
/// them can't be had is not named.
pub(crate) fn tag_bitmaps(
    memory: &KernelMemory<'_>,
    description: &Description,
    disk: &Device,
) -> Vec<(KVirtAddr, u64)> {
    let types = &description.types;
    let find = || -> Result<Vec<(KVirtAddr, u64)>, String> {
        let layouts = Layouts::new(types)?;
        let contexts = layouts.contexts.as_ref().ok_or("no struct blk_mq_hw_ctx")?;
        let bitmaps: Layout<TagBitmaps> = Layout::new(types).map_err(|e| e.to_string())?;
        let layout: Layout<Bitmap> = Layout::new(types).map_err(|e| e.to_string())?;
        let tags = types
            .structure("blk_mq_tags")
            .and_then(|s| s.member("bitmap_tags"))
            .map_err(|e| e.to_string())?;
        let by_pointer = tags.ty().resolve().is_ok_and(|ty| ty.kind() == Kind::Pointer);
        let word = types.structure("sbitmap_word").map_err(|e| e.to_string())?.size();
        let queue = layouts.queues.read(memory, disk.queue).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        for at in hardware_contexts(memory, &layouts, &queue, &mut Vec::new()).unwrap_or_default() {
            let tags = contexts.read(memory, at).ok().filter(|context| !context.tags.is_null());
            let Some(tags) = tags.and_then(|context| bitmaps.read(memory, context.tags).ok()) else {
                continue;
            };
            for Place(place) in [tags.shared, tags.reserved] {
                let place = if by_pointer { memory.read_ptr(place).ok() } else { Some(place) };
                if let Some(bitmap) = place.and_then(|place| layout.read(memory, place).ok()) {
                    // A word has a bit at least.
                    found.push((bitmap.words, word.saturating_mul(bitmap.count.min(TAGS).into())));
                }
            }
        }
        Ok(found)
    };
    find().unwrap_or_default()
}

fn hardware_contexts(
    memory: &KernelMemory<'_>,
    layouts: &Layouts,
    queue: &Queue,
    gaps: &mut Vec<String>,
) -> Option<Vec<KVirtAddr>> {
    if let (Some(Place(table)), Some(tree)) = (queue.contexts, &layouts.tree) {
        // From 5.18 (commit 4e5cc99e1e48); before and after it, an array.
        let walk = tree.entries(memory, table, CONTEXTS);
        if !walk.end.is_complete() {
            gaps.push(format!("the hardware contexts are not all known: {}", walk.end));
        }
        let pointer = |(_, entry)| match entry {
            Entry::Pointer(at) => Some(at),
            Entry::Value(_) => None,
        };
        return Some(walk.items.into_iter().filter_map(pointer).collect());
    }
    let (Some(array), Some(count)) = (queue.context_array, queue.context_count) else {
        gaps.push("the kernel's types don't tell where the hardware contexts are".into());
        return None;
    };
    if array.is_null() || count == 0 {
        return Some(Vec::new());
    }
    let all = usize::try_from(count).unwrap_or(usize::MAX);
    if all > CONTEXTS {
        gaps.push(format!("the queue claims {count} hardware contexts; {CONTEXTS} are looked at"));
    }
    match value::read_pointers(memory, array, all.min(CONTEXTS)) {
        Ok(found) => Some(found.into_iter().filter(|at| !at.is_null()).collect()),
        Err(why) => {
            gaps.push(why.to_string());
            None
        }
    }
}

fn request(types: &Types, kaddr: KVirtAddr, hardware_queue: u32, view: &RequestView) -> Request {
    let code = i64::try_from(u64::from(view.flags) & OP).unwrap_or_default();
    // Renamed in 6.0 (commit ff07a02e9e8e).
    let names = types.enumeration("req_op").or_else(|_| types.enumeration("req_opf")).ok();
    let name = names.and_then(|names| names.name_of(code));
    Request {
        kaddr,
        op: name.map(|name| name.trim_start_matches("REQ_OP_").to_lowercase().replace('_', " ")),
        sector: (view.sector != u64::MAX).then_some(view.sector),
        bytes: view.bytes,
        start_ns: view.start.unwrap_or_default(),
        io_start_ns: view.io_start.unwrap_or_default(),
        started_jiffies: view
            .deadline
            .zip(view.timeout)
            .and_then(|(deadline, timeout)| deadline.checked_sub(u64::from(timeout)))
            .filter(|at| *at != 0),
        complete: view.state == 2,
        hardware_queue,
        tag: view.tag,
    }
}
