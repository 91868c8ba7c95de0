//! The files of a host below its root, walked one component at a time so that no link leads out.
//!
//! `openat2(RESOLVE_IN_ROOT)` does the same, but RHEL 8's kernel and some containers lack it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use crate::reader::glob::{is_pattern, matches_name};

/// As many links as the kernel itself follows.
const MOST_LINKS: usize = 40;
/// Deeper paths are a trap.
const DEEPEST: usize = 256;
/// More names than this in one directory are not looked at.
const MOST_NAMES: usize = 65_536;

/// The root of a host.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

/// A file that was found, opened at nothing yet.
#[derive(Debug)]
pub(crate) struct Found {
    dir: OwnedFd,
    name: OsString,
    /// The path with all links resolved, without the first `/`.
    pub(crate) canonical: Vec<u8>,
    pub(crate) stat: Stat,
}

/// What a glob found.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Paths as a spec would write them, without the first `/`, in order.
    pub(crate) paths: Vec<Vec<u8>>,
    /// True if there were more than asked for.
    pub(crate) limited: bool,
    /// A directory that could not be listed, and why.
    pub(crate) unlisted: Option<(Vec<u8>, io::Error)>,
}

impl Tree {
    /// The tree below `root`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(root, flags, Mode::empty())? })
    }

    /// Finds `path`. With `follow`, a link at its end is followed too, always below the root.
    pub(crate) fn find(&self, path: &[u8], follow: bool) -> io::Result<Found> {
        let mut pending: VecDeque<Vec<u8>> = components(path).collect();
        let mut dirs: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                dirs.pop();
                continue;
            }
            let here = dirs.last().map_or(self.root.as_fd(), |(fd, _)| fd.as_fd());
            let stat = statat(here, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let last = pending.is_empty();
            if kind == FileType::Symlink && (follow || !last) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from(rustix::io::Errno::LOOP));
                }
                let target = readlinkat(here, OsStr::from_bytes(&name), Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    dirs.clear();
                }
                for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(part);
                }
                continue;
            }
            if last {
                let mut canonical: Vec<u8> = Vec::new();
                for (_, dir) in &dirs {
                    canonical.extend_from_slice(dir);
                    canonical.push(b'/');
                }
                canonical.extend_from_slice(&name);
                let dir = match dirs.pop() {
                    Some((fd, _)) => fd,
                    None => self.root.try_clone()?,
                };
                return Ok(Found { dir, name: OsString::from_vec(name), canonical, stat });
            }
            if kind != FileType::Directory {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            if dirs.len() >= DEEPEST {
                return Err(io::Error::from(rustix::io::Errno::NAMETOOLONG));
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(here, OsStr::from_bytes(&name), flags, Mode::empty())?;
            dirs.push((fd, name));
        }
        let stat = rustix::fs::fstat(&self.root)?;
        Ok(Found { dir: self.root.try_clone()?, name: OsString::from("."), canonical: Vec::new(), stat })
    }

    /// All that matches `pattern` and is not a directory, at most `limit`.
    pub(crate) fn glob(&self, pattern: &[u8], limit: usize) -> Matches {
        let mut matches = Matches::default();
        let parts: Vec<Vec<u8>> = components(pattern).collect();
        self.descend(Vec::new(), &parts, limit, &mut matches);
        matches
    }

    fn descend(&self, base: Vec<u8>, parts: &[Vec<u8>], limit: usize, matches: &mut Matches) {
        let Some((part, rest)) = parts.split_first() else {
            // A link counts even if it leads nowhere: that is a fact about the host.
            let Ok(found) = self.find(&base, false) else { return };
            if found.kind() == FileType::Directory {
                return;
            }
            if matches.paths.len() < limit {
                matches.paths.push(base);
            } else {
                matches.limited = true;
            }
            return;
        };
        let names = if is_pattern(part) {
            match self.names(&base) {
                Ok((names, limited)) => {
                    matches.limited |= limited;
                    names.into_iter().filter(|name| matches_name(part, name)).collect()
                }
                Err(e) if is_absent(&e) => return,
                Err(e) => {
                    matches.unlisted.get_or_insert((base, e));
                    return;
                }
            }
        } else {
            vec![part.clone()]
        };
        for name in names {
            if matches.limited {
                return;
            }
            let mut path = base.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            self.descend(path, rest, limit, matches);
        }
    }

    /// The names in a directory, sorted, and whether there were more than are looked at.
    fn names(&self, path: &[u8]) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let found = self.find(path, true)?;
        if found.kind() != FileType::Directory {
            return Ok((Vec::new(), false));
        }
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&found.dir, found.name.as_os_str(), flags, Mode::empty())?;
        let mut names = Vec::new();
        let mut limited = false;
        for entry in Dir::new(fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() >= MOST_NAMES {
                limited = true;
                break;
            }
            names.push(name);
        }
        names.sort();
        Ok((names, limited))
    }
}

impl Found {
    /// What kind of file it is.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The target of a link.
    pub(crate) fn target(&self) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.dir, self.name.as_os_str(), Vec::new())?.into_bytes())
    }

    /// Writes to a file of `/proc`, which is never made, cut or appended to.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(&self.dir, self.name.as_os_str(), flags, Mode::empty())?;
        rustix::io::write(&fd, bytes)?;
        Ok(())
    }

    /// Opens a regular file. What became something else since it was found is not opened.
    pub(crate) fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let dir: BorrowedFd<'_> = self.dir.as_fd();
        let file = File::from(openat(dir, self.name.as_os_str(), flags, Mode::empty())?);
        let now = rustix::fs::fstat(&file)?;
        if (now.st_dev, now.st_ino) != (self.stat.st_dev, self.stat.st_ino) {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        Ok(file)
    }
}

/// True for the errors that mean «there is no such file».
pub(crate) fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}
