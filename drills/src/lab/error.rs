//! What can go wrong in the lab, each with its next step.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::world::{GuestError, QmpError};

/// Why the lab cannot make a dump.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A program that the lab runs, or puts into the guest, is not there.
    #[error("the program `{program}` is not installed")]
    MissingProgram {
        /// What was looked for in the search path.
        program: String,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A capture kernel should collect with `kdt`, and it is not said which.
    #[error("there is no `kdt` for the capture kernel")]
    NoKdt,
    /// A Debian package cannot be had.
    #[error("the Debian package `{package}` cannot be had: {why}")]
    Package {
        /// The package that was asked for.
        package: String,
        /// What apt says, or which of its answers does not fit.
        why: String,
    },
    /// A program ran and said no.
    #[error("`{command}` ends with {status}: {said}")]
    Command {
        /// The program and its first words.
        command: String,
        /// Its exit status, in words.
        status: String,
        /// The end of what it printed.
        said: String,
    },
    /// A program had to be ended.
    #[error("`{command}` had not ended after {limit:?}, and is stopped")]
    CommandTime {
        /// The program and its first words.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// A file or folder of the lab.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that should be a kernel, a module or a program is not one.
    #[error("{} is not usable: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No kernel, crash or recipe has this name.
    #[error("the lab has no {kind} `{name}`")]
    Unknown {
        /// `kernel`, `crash` or `recipe`.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The guest ran, but what it left is not a dump.
    #[error("the guest left no dump: {why}")]
    NoDump {
        /// Which sign is missing.
        why: String,
        /// The end of its console.
        console: String,
    },
    /// makedumpfile cannot write this format.
    #[error("makedumpfile {version} cannot write {codec}")]
    Codec {
        /// What was asked for.
        codec: String,
        /// Which makedumpfile was found.
        version: String,
    },
    /// The guest itself.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The talk with QEMU.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

impl LabError {
    /// The next step, as one sentence for the person who reads the error.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::MissingProgram { package, .. } => {
                format!("install it with `apt-get install {package}`, or run drills/lab/setup.sh")
            }
            Self::NoKdt => "set KDT_LAB_KDT to one that is small: `sh drills/lab/static.sh OUT` builds it, or `strip -o OUT target/debug/kdt`".to_owned(),
            Self::Package { package, .. } => format!(
                "run `apt-get update`, then see `apt-cache policy {package}`; drills/lab/setup.sh prepares a machine"
            ),
            Self::Command { .. } | Self::CommandTime { .. } => {
                "run that command by hand to see all that it says".to_owned()
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or set KDT_LAB_CACHE to a folder on a larger disk".to_owned()
            }
            Self::File { .. } => "set KDT_LAB_CACHE to a folder that you may write to".to_owned(),
            Self::Content { .. } => {
                "remove the lab's cache folder (`kdt-drill lab list` names it) and run again".to_owned()
            }
            Self::Unknown { known, .. } => format!("there are: {}", known.join(", ")),
            Self::NoDump { console, .. } => format!("the console's last lines are:\n{console}"),
            Self::Codec { .. } => {
                "let the lab reach a Debian mirror, from which it takes a newer makedumpfile".to_owned()
            }
            Self::Guest(e) => e.hint(),
            Self::Qmp(_) => {
                "run it again; if it stays, `qemu-system-x86_64 --version` tells what answers".to_owned()
            }
        }
    }

    /// Whether it comes from the machine (a program or package that is missing), so that a test may skip.
    #[must_use]
    pub fn is_missing_tool(&self) -> bool {
        matches!(self, Self::MissingProgram { .. } | Self::NoKdt | Self::Package { .. } | Self::Codec { .. })
    }
}

/// Makes the adapter for [`LabError::File`].
pub(crate) fn file_error(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LabError {
    let path = path.into();
    move |source| LabError::File { what, path, source }
}
