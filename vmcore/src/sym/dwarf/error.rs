//! Why a file is of no use as debuginfo.

use std::io;
use std::path::PathBuf;

use super::super::build_id::BuildId;

/// Why a file is of no use as debuginfo. `Display` is one sentence; [`DebuginfoError::hint`] is the next step.
#[derive(Debug, thiserror::Error)]
#[error("{} {kind}", path.display())]
pub struct DebuginfoError {
    /// The file.
    pub path: PathBuf,
    /// What is the matter with it.
    pub kind: DebuginfoErrorKind,
}

/// What is the matter with a file that was to be debuginfo.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebuginfoErrorKind {
    /// The operating system said no.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("is {what}, not a vmlinux with debuginfo")]
    Foreign {
        /// What it is: «a text file».
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// The file ends before what its header announces.
    #[error("is cut off: {what} should end at file offset {end:#x}, but the file ends at {len:#x}")]
    Truncated {
        /// What is not all there: «section `.debug_info`».
        what: String,
        /// Where it should end.
        end: u64,
        /// Where the file ends.
        len: u64,
    },
    /// An ELF file without DWARF.
    #[error("has no debuginfo: {why}")]
    NoDwarf {
        /// How that shows: «it has no section `.debug_info`».
        why: String,
    },
    /// There, and not to be understood.
    #[error("is damaged: {why}")]
    Damaged {
        /// What is wrong.
        why: String,
    },
    /// It is of another build than the dumped kernel.
    #[error("is of another kernel: its build id is {theirs}, the kernel in the dump has {ours}")]
    OtherBuild {
        /// The file's.
        theirs: BuildId,
        /// The dumped kernel's.
        ours: BuildId,
    },
    /// It is of another release than the dumped kernel.
    #[error("is of another kernel: it is of {theirs}, the kernel in the dump is {ours}")]
    OtherRelease {
        /// The file's.
        theirs: String,
        /// The dumped kernel's.
        ours: String,
    },
    /// Neither build ids nor releases can be compared.
    #[error("can't be checked against the dump: {why}")]
    Unproven {
        /// What is missing.
        why: String,
    },
}

impl DebuginfoErrorKind {
    #[expect(clippy::needless_pass_by_value, reason = "errors are handed over by map_err")]
    pub(super) fn damaged(why: impl ToString) -> Self {
        Self::Damaged { why: why.to_string() }
    }
}

impl DebuginfoError {
    /// An error about `path`.
    pub fn new(path: impl Into<PathBuf>, kind: impl Into<DebuginfoErrorKind>) -> Self {
        Self { path: path.into(), kind: kind.into() }
    }

    /// True where the file is good, and of another kernel.
    #[must_use]
    pub fn is_other_kernel(&self) -> bool {
        matches!(self.kind, DebuginfoErrorKind::OtherBuild { .. } | DebuginfoErrorKind::OtherRelease { .. })
    }

    /// The next step, in one line. Which package would be right depends on the dump: [`crate::sym::find::package`] tells it.
    #[must_use]
    pub fn hint(&self) -> String {
        match &self.kind {
            DebuginfoErrorKind::Io(e) if e.kind() == io::ErrorKind::NotFound => {
                "check the name; debuginfo packages put it below /usr/lib/debug".into()
            }
            DebuginfoErrorKind::Io(_) => "check the permissions, and the disk it lies on".into(),
            DebuginfoErrorKind::Foreign { hint, .. } => hint.clone(),
            DebuginfoErrorKind::Truncated { .. } | DebuginfoErrorKind::Damaged { .. } => {
                "copy or install it again; kdt triage works without it, too".into()
            }
            DebuginfoErrorKind::NoDwarf { .. } => {
                "name the file of the debuginfo package, not the one that the kernel was booted from".into()
            }
            DebuginfoErrorKind::OtherBuild { .. } | DebuginfoErrorKind::OtherRelease { .. } => {
                "name the vmlinux of exactly this build of the kernel".into()
            }
            DebuginfoErrorKind::Unproven { .. } => "leave it out: kdt triage needs no debuginfo".into(),
        }
    }
}
