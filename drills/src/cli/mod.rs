//! The program `kdt-drill`: its commands, what they print, and their exit codes.
//!
//! One module a command. A command gets its words, the [`Environment`] and two writers, and gives back what
//! it did or a [`Failure`]; [`run`] alone turns that into words and an exit code.

mod lab;
mod rehearse;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::lab::LabError;

/// Rehearses kernel failures.
#[derive(Debug, Parser)]
#[command(name = "kdt-drill", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The rehearsals themselves.
    #[command(flatten)]
    Rehearse(rehearse::Rehearse),
    /// Makes real dumps: boots kernels from Debian packages under QEMU, and crashes them
    Lab(lab::LabArgs),
}

/// What a command may know of the process that it runs in.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `KDT_LAB_CACHE`.
    pub lab_cache: Option<OsString>,
    /// `KDT_LAB_KDT`: a small `kdt`, for capture kernels.
    pub lab_kdt: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
    /// `PATH`.
    pub path: Option<OsString>,
}

impl Environment {
    /// Reads it.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            lab_cache: read("KDT_LAB_CACHE"),
            lab_kdt: read("KDT_LAB_KDT").map(PathBuf::from),
            xdg_cache_home: read("XDG_CACHE_HOME"),
            xdg_state_home: read("XDG_STATE_HOME"),
            home: read("HOME"),
            path: read("PATH"),
        }
    }

    /// Where the lab keeps what it downloads and makes: `$KDT_LAB_CACHE`, else `$XDG_CACHE_HOME/kdt-lab`,
    /// else `~/.cache/kdt-lab`.
    #[must_use]
    pub fn lab_cache(&self) -> PathBuf {
        let xdg = || self.xdg_cache_home.as_ref().map(|dir| PathBuf::from(dir).join("kdt-lab"));
        let home = || self.home.as_ref().map(|dir| PathBuf::from(dir).join(".cache/kdt-lab"));
        let own = self.lab_cache.as_ref().map(PathBuf::from);
        own.or_else(xdg).or_else(home).unwrap_or_else(|| PathBuf::from("/var/cache/kdt-lab"))
    }
}

/// Why a command ends without what was asked of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The lab cannot make it.
    Lab(LabError),
    /// The answer cannot be written.
    Output(io::Error),
    /// What was asked for makes no sense.
    Usage {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// Something that is needed is not there, or is not what it should be.
    Input {
        /// What.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Self::Lab(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    fn usage(what: String, hint: &'static str) -> Self {
        Self::Usage { what, hint }
    }

    fn input(what: String, hint: &'static str) -> Self {
        Self::Input { what, hint }
    }

    fn file(path: &Path, error: &io::Error) -> Self {
        let source = io::Error::new(error.kind(), error.to_string());
        Self::Lab(LabError::File { what: "use", path: path.to_owned(), source })
    }

    /// The public meaning of the exit code: 2 wrong use, 3 input not usable, 7 not permitted, 8 no space.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Lab(LabError::Unknown { .. }) | Self::Usage { .. } => 2,
            Self::Lab(LabError::File { source, .. }) | Self::Output(source) => match source.kind() {
                io::ErrorKind::PermissionDenied => 7,
                io::ErrorKind::StorageFull => 8,
                _ => 3,
            },
            Self::Lab(_) | Self::Input { .. } => 3,
        }
    }
}

/// Runs a command, and gives its exit code.
pub fn run(cli: &Cli, environment: &Environment, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = match &cli.command {
        Command::Lab(args) => lab::run(args, environment, out).map(|()| 0),
        Command::Rehearse(rehearse) => rehearse.run(environment, out),
    };
    let done = done.and_then(|code| out.flush().map_err(Failure::from).map(|()| code));
    match done {
        Ok(code) => code,
        // Who closes the answer has read enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            // Nobody is left to tell where stderr is closed.
            let _ = match &failure {
                Failure::Lab(e) => writeln!(err, "error: {e}\nhint: {}", e.hint()),
                Failure::Usage { what, hint } | Failure::Input { what, hint } => {
                    writeln!(err, "error: {what}\nhint: {hint}")
                }
                Failure::Output(e) => {
                    writeln!(err, "error: cannot write the answer: {e}\nhint: see where stdout goes")
                }
            };
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str], environment: &Environment) -> (u8, String, String) {
        let cli = Cli::try_parse_from(words).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&cli, environment, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_cache_lies_where_the_first_of_three_says() {
        let mut environment = Environment { home: Some("/home/a".into()), ..Environment::default() };
        assert_eq!(environment.lab_cache(), PathBuf::from("/home/a/.cache/kdt-lab"));
        environment.xdg_cache_home = Some("/x".into());
        assert_eq!(environment.lab_cache(), PathBuf::from("/x/kdt-lab"));
        environment.lab_cache = Some("/mine".into());
        assert_eq!(environment.lab_cache(), PathBuf::from("/mine"));
    }

    #[test]
    fn a_recipe_that_is_not_there_is_wrong_use() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment { lab_cache: Some(dir.path().into()), ..Environment::default() };
        let (code, out, err) = run_words(&["kdt-drill", "lab", "make", "--recipe", "x"], &environment);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.starts_with("error: the lab has no recipe `x`\nhint: there are: "), "{err}");
    }

    #[test]
    fn the_list_names_each_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment { lab_cache: Some(dir.path().into()), ..Environment::default() };
        let (code, out, err) = run_words(&["kdt-drill", "lab", "list"], &environment);
        assert_eq!((code, err.as_str()), (0, ""));
        for name in ["6.1 ", "6.12", "kdump-zstd", "host-elf-no-vmcoreinfo"] {
            assert!(out.contains(name), "{name} is not in\n{out}");
        }
    }

    #[test]
    fn a_folder_that_is_a_file_is_an_error_with_a_hint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let environment = Environment { lab_cache: Some(file.path().into()), ..Environment::default() };
        let (code, _, err) = run_words(&["kdt-drill", "lab", "make"], &environment);
        assert_eq!(code, 3);
        assert!(err.contains("cannot make the cache folder") && err.contains("\nhint: "), "{err}");
    }
}
