//! Why a bundle can't be made at all. What can't be had for one item is data, not one of these.

use std::io;
use std::path::PathBuf;

/// Why there is no bundle. `Display` is one sentence; [`CollectError::hint`] is the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A spec file says something that it can't mean.
    #[error("the spec file {file} is not usable: {why}")]
    Spec {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The place where the bundle should go is not a directory that can be written to.
    #[error("{} can't take the bundle: {why}", path.display())]
    Out {
        /// The place.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory given as `root` can't be used.
    #[error("{} can't be used as the root of a host: {source}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk filled up before even the smallest bundle was whole.
    #[error("there is no space for the bundle in {}", dir.display())]
    NoSpace {
        /// The directory.
        dir: PathBuf,
    },
    /// Writing the bundle failed.
    #[error("{} can't be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was read back from the disk is not what was written.
    #[error("{} does not read back as it was written: {why}", path.display())]
    Verify {
        /// The file, still under its temporary name.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// Somebody asked for the stop.
    #[error("the collection was interrupted; what it had until then is in {}", partial.display())]
    Cancelled {
        /// The unfinished bundle, readable up to its last record.
        partial: PathBuf,
    },
}

impl CollectError {
    /// The next step, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Spec { .. } => "mend the spec file; docs/host-bundle.md lists its keys".into(),
            Self::Out { .. } => "name an existing directory, or a new file that ends in .tar.gz".into(),
            Self::Root { .. } => "name a directory that holds etc/, proc/ and var/ of the host".into(),
            Self::NoSpace { .. } => "name a directory on another filesystem as the output".into(),
            Self::Write { .. } => "check the filesystem of the output, or name another directory".into(),
            Self::Verify { .. } => {
                "the disk or its memory is not reliable: write to another filesystem".into()
            }
            Self::Cancelled { .. } => {
                "run it again; `tar -xzf` reads the unfinished file up to its last record".into()
            }
        }
    }

    /// An error of writing `path`, told apart from a full disk.
    pub(crate) fn write(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_no_space(&source) {
            let dir = path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
            return Self::NoSpace { dir };
        }
        Self::Write { path, source }
    }
}

/// True for the errors that mean «the disk, or the user's share of it, is full».
pub(crate) fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
