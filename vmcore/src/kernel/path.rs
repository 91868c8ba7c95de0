//! Names of files: a dentry's path up to the root of its mount, and on through the mounts above it.
//!
//! Facts: `fs/d_path.c`, `include/linux/dcache.h`, `fs/mount.h`.

use super::value::{self, Layout, view};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// Names in one path; `PATH_MAX` has room for no more.
const NAMES: usize = 2048;
/// `NAME_MAX`.
const NAME: usize = 255;
/// Bytes of an inode's or device's own name.
const TEXT: usize = 4096;

view! {
    /// `struct dentry`.
    pub(super) struct Dentry of "dentry" {
        pub(super) parent: KVirtAddr = ["d_parent"],
        name: KVirtAddr = ["d_name.name"],
        pub(super) hashed: Option<KVirtAddr> = ["d_hash.pprev"],
    }
}

view! {
    /// `struct mount`.
    pub(super) struct MountView of "mount" {
        pub(super) parent: KVirtAddr = ["mnt_parent"],
        pub(super) mountpoint: KVirtAddr = ["mnt_mountpoint"],
        pub(super) root: KVirtAddr = ["mnt.mnt_root"],
        pub(super) sb: KVirtAddr = ["mnt.mnt_sb"],
        pub(super) flags: u64 = ["mnt.mnt_flags"],
        pub(super) device: KVirtAddr = ["mnt_devname"],
        pub(super) id: Option<u32> = ["mnt_id"],
    }
}

/// Reads paths.
#[derive(Debug)]
pub struct Paths {
    dentries: Layout<Dentry>,
    pub(super) mounts: Layout<MountView>,
    /// Where in a `mount` the part is that files point at.
    vfs: u64,
}

impl Paths {
    /// Where this kernel has names and mounts.
    ///
    /// # Errors
    /// When its types don't tell.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        let vfs = types.structure("mount")?.member("mnt")?.offset();
        Ok(Self { dentries: Layout::new(types)?, mounts: Layout::new(types)?, vfs })
    }

    /// The path of a dentry seen through a `struct vfsmount`, from the root of all mounts; with ` (deleted)` where it has no name
    /// any more.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn of(&self, memory: &KernelMemory<'_>, vfs: KVirtAddr, dentry: KVirtAddr) -> Result<String, String> {
        let mount = vfs.checked_sub(self.vfs).ok_or("the mount is no address")?;
        let path = self.through(memory, mount, dentry)?;
        let own = self.dentry(memory, dentry)?;
        let gone = own.hashed.is_some_and(KVirtAddr::is_null) && own.parent != dentry;
        Ok(if gone { format!("{path} (deleted)") } else { path })
    }

    /// The path of a dentry within the mount at `mount`.
    ///
    /// # Errors
    /// Why it can't be had.
    pub(super) fn through(
        &self,
        memory: &KernelMemory<'_>,
        mount: KVirtAddr,
        dentry: KVirtAddr,
    ) -> Result<String, String> {
        let mut names = Vec::new();
        let (mut mount, mut dentry) = (mount, dentry);
        for _ in 0..NAMES {
            let on = self.mounts.read(memory, mount).map_err(|e| e.to_string())?;
            if dentry == on.root {
                if on.parent == mount || on.parent.is_null() {
                    names.reverse();
                    return Ok(format!("/{}", names.join("/")));
                }
                (mount, dentry) = (on.parent, on.mountpoint);
                continue;
            }
            let found = self.dentry(memory, dentry)?;
            if found.parent == dentry {
                // A tree that hangs on no mount: what was unmounted lazily, or what is only inside.
                names.reverse();
                return Ok(format!("(unreachable)/{}", names.join("/")));
            }
            names.push(Self::text(memory, &found)?);
            dentry = found.parent;
        }
        Err(format!("the path has more than {NAMES} names"))
    }

    fn dentry(&self, memory: &KernelMemory<'_>, at: KVirtAddr) -> Result<Dentry, String> {
        self.dentries.read(memory, at).map_err(|e| e.to_string())
    }

    fn text(memory: &KernelMemory<'_>, dentry: &Dentry) -> Result<String, String> {
        value::read_text(memory, dentry.name, NAME).map_err(|e| e.to_string())
    }

    /// A dentry's own name.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn name(&self, memory: &KernelMemory<'_>, at: KVirtAddr) -> Result<String, String> {
        Self::text(memory, &self.dentry(memory, at)?)
    }
}

/// The text behind a pointer; `None` for a null pointer or where it can't be read.
pub(super) fn text(memory: &KernelMemory<'_>, at: KVirtAddr) -> Option<String> {
    if at.is_null() { None } else { value::read_text(memory, at, TEXT).ok() }
}
