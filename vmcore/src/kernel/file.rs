//! The open files of a task.
//!
//! Facts: `include/linux/fdtable.h`, `include/linux/fs.h`, `fs/proc/fd.c`.

use super::path::{self, Paths};
use super::value::{Layout, Maybe, view};
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::{KernelMemory, le};

/// Files that one table may have: `NR_OPEN` of a generous machine.
const TABLE: u64 = 1 << 26;

view! {
    /// `struct task_struct`.
    struct Owner of "task_struct" {
        files: KVirtAddr = ["files"],
    }
}
view! {
    /// `struct files_struct`.
    struct Files of "files_struct" {
        table: KVirtAddr = ["fdt"],
    }
}
view! {
    /// `struct fdtable`.
    struct Table of "fdtable" {
        max: u32 = ["max_fds"],
        files: KVirtAddr = ["fd"],
        open: KVirtAddr = ["open_fds"],
    }
}
view! {
    /// `struct file`.
    struct FileView of "file" {
        mount: KVirtAddr = ["f_path.mnt"],
        dentry: KVirtAddr = ["f_path.dentry"],
        inode: KVirtAddr = ["f_inode"],
        flags: u32 = ["f_flags"],
        position: Maybe<i64> = ["f_pos"],
    }
}
view! {
    /// `struct inode`.
    struct Inode of "inode" {
        mode: u16 = ["i_mode"],
        number: u64 = ["i_ino"],
        sb: KVirtAddr = ["i_sb"],
    }
}
view! {
    /// `struct super_block`.
    struct Super of "super_block" {
        kind: KVirtAddr = ["s_type"],
    }
}
view! {
    /// `struct file_system_type`.
    struct FileSystem of "file_system_type" {
        name: KVirtAddr = ["name"],
    }
}

/// An open file.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenFile {
    /// Its number in the task.
    pub fd: u64,
    /// Its `struct file`.
    pub kaddr: KVirtAddr,
    /// Its name, as `/proc/PID/fd` shows it: `/var/log/messages`, `socket:[1234]`, `anon_inode:[eventpoll]`.
    pub path: Option<String>,
    /// `file`, `directory`, `socket`, `pipe`, `character device`, `block device`, `link`, `anonymous`.
    pub kind: Option<&'static str>,
    /// How it was opened: `O_…`.
    pub flags: Option<u32>,
    /// Where in it the task is.
    pub position: Option<i64>,
    /// Why something of it is missing.
    pub gap: Option<String>,
}

/// Reads open files.
#[derive(Debug)]
pub struct Reader {
    owners: Layout<Owner>,
    files: Layout<Files>,
    tables: Layout<Table>,
    file: Layout<FileView>,
    inodes: Layout<Inode>,
    supers: Layout<Super>,
    kinds: Layout<FileSystem>,
    paths: Paths,
}

impl Reader {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When its types don't tell.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        Ok(Self {
            owners: Layout::new(types)?,
            files: Layout::new(types)?,
            tables: Layout::new(types)?,
            file: Layout::new(types)?,
            inodes: Layout::new(types)?,
            supers: Layout::new(types)?,
            kinds: Layout::new(types)?,
            paths: Paths::new(types)?,
        })
    }

    /// The open files of the task whose `task_struct` is at `task`, by ascending number, at most `limit`. None for who has exited.
    #[must_use]
    pub fn of(&self, memory: &KernelMemory<'_>, task: KVirtAddr, limit: usize) -> Walk<OpenFile> {
        let mut walk = Walk::default();
        if let Err((at, why)) = self.fill(memory, task, limit, &mut walk) {
            walk.lose(WalkEnd::Inconsistent(at, why));
        }
        walk
    }

    fn fill(
        &self,
        memory: &KernelMemory<'_>,
        task: KVirtAddr,
        limit: usize,
        walk: &mut Walk<OpenFile>,
    ) -> Result<(), (KVirtAddr, String)> {
        let files = self.owners.read(memory, task).map_err(|e| (task, e.to_string()))?.files;
        if files.is_null() {
            return Ok(());
        }
        let at = self.files.read(memory, files).map_err(|e| (files, e.to_string()))?.table;
        let table = self.tables.read(memory, at).map_err(|e| (at, e.to_string()))?;
        let max = u64::from(table.max);
        if max > TABLE {
            return Err((at, format!("the table claims {max} files")));
        }
        let bytes = usize::try_from(max.div_ceil(64).saturating_mul(8)).unwrap_or_default();
        let mut open = vec![0_u8; bytes];
        memory.read(table.open, &mut open).map_err(|e| (table.open, e.to_string()))?;
        for (number, start) in (0..bytes).step_by(8).enumerate() {
            let mut word = le::u64_at(&open, start).unwrap_or_default();
            while word != 0 {
                let bit = u64::from(word.trailing_zeros());
                word &= word.wrapping_sub(1);
                let base = u64::try_from(number).unwrap_or_default().saturating_mul(64);
                let fd = base.saturating_add(bit);
                let Some(slot) = fd.checked_mul(8).and_then(|by| table.files.checked_add(by)) else {
                    continue;
                };
                let file = match memory.read_ptr(slot) {
                    // The number is taken and the file not there yet: an open that is under way.
                    Ok(file) if file.is_null() => continue,
                    Ok(file) => self.one(memory, fd, file),
                    Err(why) => OpenFile { fd, gap: Some(why.to_string()), ..OpenFile::default() },
                };
                if !walk.push(file, limit) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn one(&self, memory: &KernelMemory<'_>, fd: u64, kaddr: KVirtAddr) -> OpenFile {
        let mut file = OpenFile { fd, kaddr, ..OpenFile::default() };
        let found = match self.file.read(memory, kaddr) {
            Ok(found) => found,
            Err(why) => {
                file.gap = Some(why.to_string());
                return file;
            }
        };
        file.flags = Some(found.flags);
        file.position = found.position.value();
        let inode = match self.inodes.read(memory, found.inode) {
            Ok(inode) => inode,
            Err(why) => {
                file.gap = Some(why.to_string());
                file.path = self.paths.of(memory, found.mount, found.dentry).ok();
                return file;
            }
        };
        let sb = self.supers.read(memory, inode.sb).ok();
        let kind = sb.and_then(|sb| self.kinds.read(memory, sb.kind).ok());
        let fstype = kind.and_then(|kind| path::text(memory, kind.name)).unwrap_or_default();
        // Only pipes without a name live in pipefs; a FIFO on a disk has a path.
        let path = match fstype.as_str() {
            "sockfs" => Ok(format!("socket:[{}]", inode.number)),
            "pipefs" => Ok(format!("pipe:[{}]", inode.number)),
            "anon_inodefs" => self.paths.name(memory, found.dentry).map(|name| format!("anon_inode:{name}")),
            _ => self.paths.of(memory, found.mount, found.dentry),
        };
        file.kind = Some(match inode.mode & 0xf000 {
            _ if fstype == "anon_inodefs" => "anonymous",
            0xc000 => "socket",
            0x1000 => "pipe",
            0x2000 => "character device",
            0x4000 => "directory",
            0x6000 => "block device",
            0xa000 => "link",
            0x8000 => "file",
            _ => "anonymous",
        });
        match path {
            Ok(path) => file.path = Some(path),
            Err(why) => file.gap = Some(why),
        }
        file
    }
}
