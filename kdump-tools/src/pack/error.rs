//! Why packing, unpacking or sending stopped.

use std::io;
use std::path::{Path, PathBuf};

use super::name::shown_path;
use crate::exit::{Exit, Failure, io_exit, plain_io};
use crate::size::Size;

/// Why packing, verifying, unpacking or sending stopped. `Display` is one sentence, [`PackError::hint`]
/// the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// It was asked for something that can't be done.
    #[error("{what}")]
    WrongUse {
        /// What is wrong with the request.
        what: String,
        /// What would be right.
        hint: String,
    },
    /// A file that should be packed can't be read.
    #[error("{} can't be read{}: {}", shown_path(path), at_byte(*at), plain_io(source))]
    Source {
        /// The file.
        path: PathBuf,
        /// Where in it, if not at its start.
        at: Option<u64>,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file changed between the plan and the end of reading it.
    #[error("{} changed while it was read: {why}", shown_path(path))]
    SourceChanged {
        /// The file.
        path: PathBuf,
        /// What is different.
        why: String,
    },
    /// The target takes no more bytes.
    #[error(
        "{} has {} free, and {} {} are needed",
        shown_path(path),
        Size::from(*free),
        if *about { "about" } else { "up to" },
        Size::from(*need)
    )]
    TooSmall {
        /// The folder that is written to.
        path: PathBuf,
        /// Bytes free there.
        free: u64,
        /// Bytes needed.
        need: u64,
        /// Whether the need is an estimate from a sample, and not a ceiling.
        about: bool,
    },
    /// The operating system refused a write, a rename, a new folder.
    #[error("{doing} {} is not possible: {}", shown_path(path), plain_io(source))]
    Target {
        /// What was tried, as «writing».
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder is not a package, or its list can't be trusted.
    #[error("{} is not a usable package list: {why}", shown_path(path))]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Whether it is a digest that does not agree, and not the form.
        digest: bool,
    },
    /// A package that was to be sent on is not whole.
    #[error("{what}")]
    Damaged {
        /// What is damaged, and how.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The other side did not take what it was given.
    #[error("{what}")]
    Transfer {
        /// What happened.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// Somebody asked for the stop.
    #[error("stopped before the end, as asked")]
    Cancelled,
}

fn at_byte(at: Option<u64>) -> String {
    at.map(|at| format!(" at byte {at}")).unwrap_or_default()
}

impl PackError {
    /// An error about writing: what was tried, where, and what the operating system said.
    pub(crate) fn target(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Target { doing, path: path.to_owned(), source }
    }

    /// The code that a command ends with for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::WrongUse { .. } => Exit::Usage,
            Self::Source { source, .. } => match io_exit(source) {
                Exit::NotPermitted => Exit::NotPermitted,
                _ => Exit::Input,
            },
            Self::SourceChanged { .. } | Self::Manifest { digest: false, .. } => Exit::Input,
            Self::Manifest { digest: true, .. } | Self::Damaged { .. } => Exit::Verify,
            Self::TooSmall { .. } => Exit::NoSpace,
            Self::Transfer { .. } => Exit::Transfer,
            Self::Target { source, .. } => match io_exit(source) {
                end @ (Exit::NoSpace | Exit::NotPermitted) => end,
                _ if no_place(source) => Exit::Usage,
                // What was written so far is kept, and gone on with.
                _ => Exit::Transfer,
            },
            Self::Cancelled => Exit::Interrupted,
        }
    }

    /// The next step, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::WrongUse { hint, .. } | Self::Damaged { hint, .. } | Self::Transfer { hint, .. } => hint.clone(),
            Self::Source { .. } if self.exit() == Exit::NotPermitted => {
                "dumps are readable by root only: run it with sudo".into()
            }
            Self::Source { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the name; kdump writes to /var/crash by default".into()
            }
            Self::Source { .. } => {
                "copy the file to a healthy disk (ddrescue reads around bad places), and pack the copy".into()
            }
            Self::SourceChanged { .. } => {
                "wait until its writer has finished, or copy it and pack the copy".into()
            }
            Self::TooSmall { .. } => {
                "free some space, or name a folder on a bigger file system; --no-space-check tries anyway".into()
            }
            Self::Target { .. } if self.exit() == Exit::NoSpace => {
                "free some space and run the same command again: it goes on where it stopped".into()
            }
            Self::Target { .. } if self.exit() == Exit::NotPermitted => {
                "name a folder that you may write to, or run it with sudo".into()
            }
            Self::Target { source, .. } if no_place(source) => {
                "name a folder that is there, or can be made".into()
            }
            Self::Target { .. } => {
                "see the kernel log for disk errors, then run the same command again: it goes on where it stopped"
                    .into()
            }
            Self::Manifest { digest: true, .. } => {
                "fetch manifest.json from the sender again, and compare its root digest by another way".into()
            }
            Self::Manifest { .. } => {
                "fetch manifest.json from the sender again; the parts give the files back even without it: cat *.part-* | zstd -dc | tar x".into()
            }
            Self::Cancelled => "run the same command again: it goes on where it stopped".into(),
        }
    }
}

/// The folder that is to be written to can't be one.
fn no_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidFilename
    )
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        Self::new(error.exit(), error.to_string(), error.hint())
    }
}
