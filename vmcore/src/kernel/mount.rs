//! The mounts of the first process's namespace.
//!
//! Facts: `fs/mount.h`, `include/linux/mount.h`, `include/linux/fs.h`, `include/linux/percpu-rwsem.h`.

use super::describe::Description;
use super::path::{self, Paths};
use super::value::{Layout, Slot, view};
use super::variable::Variables;
use super::{list, rbtree};
use crate::addr::KVirtAddr;
use crate::kernel::walk::Walk;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// Tasks that wait for one file system.
const WAITERS: usize = 4096;
/// `SB_UNFROZEN` to `SB_FREEZE_COMPLETE`.
const FROZEN: [&str; 5] = ["unfrozen", "freezing writes", "freezing page faults", "freezing", "frozen"];
/// Levels at which writers are stopped: `SB_FREEZE_LEVELS`.
const LEVELS: u64 = 3;

view! {
    /// `struct super_block`.
    struct Super of "super_block" {
        kind: KVirtAddr = ["s_type"],
        flags: u64 = ["s_flags"],
        id: Option<String> = ["s_id"],
        frozen: Option<u32> = ["s_writers.frozen"],
        bdev: Option<KVirtAddr> = ["s_bdev"],
    }
}

view! {
    /// `struct file_system_type`.
    struct FileSystem of "file_system_type" {
        name: KVirtAddr = ["name"],
    }
}

/// A mount.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Mount {
    /// Its `struct mount`.
    pub kaddr: KVirtAddr,
    /// Its number.
    pub id: Option<u32>,
    /// What was mounted, as the caller named it.
    pub device: Option<String>,
    /// Where.
    pub path: Option<String>,
    /// The file system.
    pub fstype: Option<String>,
    /// Options that every file system knows.
    pub options: Vec<&'static str>,
    /// Its `super_block`.
    pub sb: KVirtAddr,
    /// The file system's own name for itself: that of its block device.
    pub id_name: Option<String>,
    /// Its block device.
    pub bdev: Option<KVirtAddr>,
    /// How far it is frozen; `None` where that is not known.
    pub frozen: Option<&'static str>,
    /// The tasks (`task_struct`) that wait until it is thawed.
    pub waiters: Vec<KVirtAddr>,
    /// Why something of it is missing.
    pub gap: Option<String>,
}

impl Mount {
    /// True where writers are stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some_and(|state| state != "unfrozen")
    }
}

/// The mounts, in the kernel's order.
///
/// # Errors
/// Why there is no list at all.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<Mount>, String> {
    let types = &description.types;
    let paths = Paths::new(types).map_err(|e| e.to_string())?;
    let supers = Layout::<Super>::new(types).map_err(|e| e.to_string())?;
    let kinds = Layout::<FileSystem>::new(types).ok();
    let waiting = Waiting::new(types);
    let walk = nodes(memory, description, limit)?;
    Ok(walk.map(|at| one(memory, at, &paths, &supers, kinds.as_ref(), waiting.as_ref())))
}

fn nodes(
    memory: &KernelMemory<'_>,
    description: &Description,
    limit: usize,
) -> Result<Walk<KVirtAddr>, String> {
    let types = &description.types;
    let word = |e: &dyn std::fmt::Display| e.to_string();
    let offset = |of: &str, member: &str| -> Result<u64, String> {
        let found = types.structure(of).and_then(|s| s.member(member));
        found.map(crate::sym::btf::Member::offset).map_err(|e| word(&e))
    };
    let follow = |at: KVirtAddr, by: u64| -> Result<KVirtAddr, String> {
        let place = at.checked_add(by).ok_or("an address is at the end of the address space")?;
        memory.read_ptr(place).map_err(|e| word(&e))
    };
    let init = Variables::new(memory, &description.symbols).address("init_task").map_err(|e| word(&e))?;
    // The first process may have moved to a namespace of its own, but init_task is what the first mounts were made for.
    let proxy = follow(init, offset("task_struct", "nsproxy")?)?;
    let namespace = follow(proxy, offset("nsproxy", "mnt_ns")?)?;
    let place = |by: u64| namespace.checked_add(by).ok_or("the namespace is at the end of the address space");
    // A tree since 6.8 (kernel commit 2eea9ce4310d), a list before it.
    let (walk, inside) =
        if let (Ok(root), Ok(node)) = (offset("mnt_namespace", "mounts"), offset("mount", "mnt_node")) {
            (rbtree::walk(memory, place(root)?, limit), node)
        } else {
            let head = place(offset("mnt_namespace", "list")?)?;
            (list::walk(memory, head, limit), offset("mount", "mnt_list")?)
        };
    Ok(walk.map(|node| node.checked_sub(inside).unwrap_or_default()))
}

fn one(
    memory: &KernelMemory<'_>,
    at: KVirtAddr,
    paths: &Paths,
    supers: &Layout<Super>,
    kinds: Option<&Layout<FileSystem>>,
    waiting: Option<&Waiting>,
) -> Mount {
    let mut mount = Mount { kaddr: at, ..Mount::default() };
    let found = match paths.mounts.read(memory, at) {
        Ok(found) => found,
        Err(why) => {
            mount.gap = Some(why.to_string());
            return mount;
        }
    };
    mount.id = found.id;
    mount.device = path::text(memory, found.device);
    match paths.through(memory, at, found.root) {
        Ok(path) => mount.path = Some(path),
        Err(why) => mount.gap = Some(why),
    }
    mount.sb = found.sb;
    let sb = match supers.read(memory, found.sb) {
        Ok(sb) => sb,
        Err(why) => {
            mount.gap = Some(why.to_string());
            return mount;
        }
    };
    let name = kinds.and_then(|k| k.read(memory, sb.kind).ok()).and_then(|k| path::text(memory, k.name));
    mount.fstype = name;
    mount.options = options(found.flags, sb.flags);
    mount.id_name = sb.id.filter(|id| !id.is_empty());
    mount.bdev = sb.bdev.filter(|at| !at.is_null());
    let level = sb.frozen.and_then(|level| usize::try_from(level).ok());
    mount.frozen = level.and_then(|level| FROZEN.get(level).copied());
    if mount.is_frozen() {
        if let Some(waiting) = waiting {
            mount.waiters = waiting.of(memory, found.sb);
        } else {
            let why = "it is frozen, and where this kernel keeps the tasks that wait for it is not known";
            mount.gap.get_or_insert_with(|| why.to_owned());
        }
    }
    mount
}

/// As `/proc/mounts` has them: `MNT_…` of the mount, `SB_…` of the file system.
fn options(mount: u64, sb: u64) -> Vec<&'static str> {
    let mut found = vec![if mount & 0x40 != 0 || sb & 1 != 0 { "ro" } else { "rw" }];
    let of_sb = [(1 << 4, "sync"), (1 << 7, "dirsync"), (1 << 6, "mand"), (1 << 25, "lazytime")];
    found.extend(of_sb.iter().filter(|(bit, _)| sb & bit != 0).map(|(_, word)| *word));
    let of_mount = [
        (0x01, "nosuid"),
        (0x02, "nodev"),
        (0x04, "noexec"),
        (0x08, "noatime"),
        (0x10, "nodiratime"),
        (0x20, "relatime"),
        (0x80, "nosymfollow"),
    ];
    found.extend(of_mount.iter().filter(|(bit, _)| mount & bit != 0).map(|(_, word)| *word));
    found
}

view! {
    /// `struct wait_queue_entry`.
    struct Entry of "wait_queue_entry" {
        task: KVirtAddr = ["private"],
    }
}

/// Where those wait that want to write to a frozen file system.
#[derive(Debug)]
struct Waiting {
    /// The semaphores in a `super_block`, and bytes of each.
    first: u64,
    step: u64,
    /// The list of waiters in each, the node in an entry, and the task in it.
    head: u64,
    node: u64,
    entries: Layout<Entry>,
    thawing: Option<u64>,
}

impl Waiting {
    /// `None` where this kernel keeps them elsewhere (before 5.7, commit 7f26482a872c).
    fn new(types: &Types) -> Option<Self> {
        let semaphore = types.structure("percpu_rw_semaphore").ok()?;
        let writers = types.structure("super_block").ok()?;
        let offset = |of: crate::sym::btf::Struct<'_>, member| {
            of.member(member).ok().map(crate::sym::btf::Member::offset)
        };
        Some(Self {
            first: Slot::new(writers.member("s_writers.rw_sem").ok()?).ok()?.offset(),
            step: semaphore.size(),
            head: offset(semaphore, "waiters.head")?,
            node: offset(types.structure("wait_queue_entry").ok()?, "entry")?,
            entries: Layout::new(types).ok()?,
            thawing: offset(writers, "s_writers.wait_unfrozen.head"),
        })
    }

    fn of(&self, memory: &KernelMemory<'_>, sb: KVirtAddr) -> Vec<KVirtAddr> {
        let level = |n: u64| {
            sb.checked_add(self.first.checked_add(n.checked_mul(self.step)?)?.checked_add(self.head)?)
        };
        let thawing = self.thawing.and_then(|by| sb.checked_add(by));
        let heads = (0..LEVELS).filter_map(level).chain(thawing);
        let mut found: Vec<KVirtAddr> = heads
            .flat_map(|head| list::walk(memory, head, WAITERS).items)
            .filter_map(|node| self.entries.read(memory, node.checked_sub(self.node)?).ok())
            .map(|entry| entry.task)
            .filter(|task| !task.is_null())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
