//! How a command ends: the exit codes, and the failure that leads to each.
//!
//! The numbers are public (`docs/exit-codes.md`): scripts rely on them, and none of them changes its meaning.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use vmcore::error::{OpenError, OpenErrorKind};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// A bug in kdt.
    Internal = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The input can't be used.
    Input = 3,
    /// Done in part: the report says what is missing.
    Partial = 4,
    /// A digest, a signature or a page does not agree.
    Verify = 5,
    /// A transfer broke off and can be resumed.
    Transfer = 6,
    /// The operating system does not permit it.
    NotPermitted = 7,
    /// No space is left.
    NoSpace = 8,
    /// Findings at or above `--fail-on`.
    Findings = 10,
    /// Somebody pressed Ctrl-C, or ended the program.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::Input,
        Self::Partial,
        Self::Verify,
        Self::Transfer,
        Self::NotPermitted,
        Self::NoSpace,
        Self::Findings,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in the words of `docs/exit-codes.md`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Internal => "internal error (a bug)",
            Self::Usage => "wrong use",
            Self::Input => "input not usable",
            Self::Partial => "done in part: the report says what is missing",
            Self::Verify => "verification failed",
            Self::Transfer => "transfer failed, can be resumed",
            Self::NotPermitted => "not permitted",
            Self::NoSpace => "no space",
            Self::Findings => "findings at or above --fail-on",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How a command returns: the code it ends with, or the failure that stopped it.
pub type Outcome = Result<Exit, Failure>;

/// Why a command stopped: one sentence for a person, the next step, and the exit code.
///
/// The sentence may hold text from dumps and file names; `output` escapes it when it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What happened, where, for what.
    pub message: String,
    /// What can be done.
    pub hint: String,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: hint.into() }
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message, hint)
    }

    /// Something that must not happen did.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            Exit::Internal,
            message,
            "this is a bug in kdt: please report it with this line and `kdt --version`",
        )
    }

    /// The user, or the system, asked for the end.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "it was interrupted", "run the same command again")
    }

    /// What the operating system said of `path` when kdt wanted to `what` («write the report»).
    #[must_use]
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("can't {what} {}: {}", path.display(), plain_io(error));
        match io_exit(error) {
            Exit::NotPermitted => {
                Self::new(Exit::NotPermitted, message, "run it as root, or as the owner of the file")
            }
            Exit::NoSpace => {
                Self::new(Exit::NoSpace, message, "free some space there, or choose another place with -o")
            }
            exit => Self::new(exit, message, "check the name and the medium that it lies on"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::from(&error)
    }
}

impl From<&OpenError> for Failure {
    fn from(error: &OpenError) -> Self {
        let exit = match &error.kind {
            OpenErrorKind::Io(source) => io_exit(source),
            _ => Exit::Input,
        };
        let message = match &error.kind {
            OpenErrorKind::Io(source) => {
                format!("{} can't be read: {}", error.path.display(), plain_io(source))
            }
            kind => format!("{} {kind}", error.path.display()),
        };
        Self::new(exit, message, error.hint())
    }
}

/// The exit code for what the operating system said.
#[must_use]
pub fn io_exit(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Exit::NotPermitted,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Exit::NoSpace
        }
        io::ErrorKind::Interrupted => Exit::Interrupted,
        _ if Errno::from_io_error(error) == Some(Errno::PERM) => Exit::NotPermitted,
        _ => Exit::Input,
    }
}

/// The system's sentence without Rust's «(os error 13)» behind it.
#[must_use]
pub fn plain_io(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 130]);
    }

    #[test]
    fn the_public_table_names_each_code_with_its_meaning() {
        let table = include_str!("../../docs/exit-codes.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(table.contains(&row), "docs/exit-codes.md has no row {row:?}");
        }
    }

    #[test]
    fn what_the_system_says_decides_the_code() {
        let of = |errno: Errno| io_exit(&io::Error::from(errno));
        assert_eq!(of(Errno::ACCESS), Exit::NotPermitted);
        assert_eq!(of(Errno::PERM), Exit::NotPermitted);
        assert_eq!(of(Errno::NOSPC), Exit::NoSpace);
        assert_eq!(of(Errno::DQUOT), Exit::NoSpace);
        assert_eq!(of(Errno::IO), Exit::Input);
    }

    #[test]
    fn a_file_that_can_t_be_opened_says_so_once_and_without_numbers() {
        let error = OpenError::new("/x/vmcore", io::Error::from(Errno::ACCESS));
        let failure = Failure::from(&error);
        assert_eq!(failure.message, "/x/vmcore can't be read: Permission denied");
        assert_eq!(failure.exit, Exit::NotPermitted);
    }
}
