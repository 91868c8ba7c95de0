//! A folder that nothing is written outside of: every step down is taken by hand, and no link is followed.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::name::ArtifactName;

/// The hidden folder for files that are not whole yet.
const TEMPORARY: &str = ".kdt-unpack";

/// The folder.
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Beneath {
    /// Makes the folder if it is not there.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// Opens a folder that is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::open(path, FOLDER, Mode::empty())? })
    }

    /// The folder that `name` is in, made if it is not there.
    fn parent(&self, name: &ArtifactName, make: bool) -> Result<OwnedFd, Errno> {
        let mut at = rustix::fs::openat(&self.root, ".", FOLDER, Mode::empty())?;
        for folder in name.folders() {
            if make {
                match rustix::fs::mkdirat(&at, folder, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
            }
            at = rustix::fs::openat(&at, folder, FOLDER.union(OFlags::NOFOLLOW), Mode::empty())?;
        }
        Ok(at)
    }

    /// The file of that name, if there is one.
    pub(super) fn existing(&self, name: &ArtifactName) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = self
            .parent(name, false)
            .and_then(|parent| rustix::fs::openat(&parent, name.file_name(), flags, Mode::empty()));
        match opened {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A new file under a temporary name.
    pub(super) fn temporary(&self, number: usize) -> io::Result<File> {
        match rustix::fs::mkdirat(&self.root, TEMPORARY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let folder = self.workshop()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&folder, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(fd))
    }

    fn workshop(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.root, TEMPORARY, FOLDER.union(OFlags::NOFOLLOW), Mode::empty())
    }

    /// Gives a temporary file its final name, which must not be taken.
    pub(super) fn publish(&self, number: usize, name: &ArtifactName) -> io::Result<()> {
        let (from, to) = (self.workshop()?, self.parent(name, true)?);
        let (number, name) = (number.to_string(), name.file_name());
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&from, number.as_str(), &to, name, flags) {
            // Some network file systems can't promise it, so the second best is done there.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::statat(&to, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => Ok(rustix::fs::renameat(&from, number.as_str(), &to, name)?),
                    Ok(_) => Err(Errno::EXIST.into()),
                    Err(e) => Err(e.into()),
                }
            }
            renamed => Ok(renamed?),
        }
    }

    /// Removes a temporary file.
    pub(super) fn discard(&self, number: usize) {
        if let Ok(folder) = self.workshop() {
            let _ = rustix::fs::unlinkat(&folder, number.to_string(), AtFlags::empty());
        }
    }

    /// Removes the hidden folder, and brings everything to the disk.
    pub(super) fn finish(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.root, TEMPORARY, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(rustix::fs::syncfs(self.root.as_fd())?)
    }
}
