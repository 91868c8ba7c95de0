//! What the command-line tests share: running `kdt` as a user would, and checking JSON against its schema.
pub(crate) mod schema;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run of `kdt` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `kdt` with nothing of this machine's settings in its environment.
pub(crate) fn kdt() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdt"));
    command.env_remove("NO_COLOR").env_remove("RUST_BACKTRACE").env("TERM", "xterm").stdin(Stdio::null());
    command
}

pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(words: I) -> Ran {
    ran(&kdt().args(words).output().unwrap())
}

pub(crate) fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout.clone()).unwrap(),
        stderr: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}

impl Ran {
    /// That stderr is one sentence and one hint, nothing else.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, sentence: &str) {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(lines.len(), 2, "one sentence and one hint: {self:?}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains(sentence), "{self:?}");
        assert!(lines[1].starts_with("hint: ") && lines[1].len() > 10, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A directory for one test, with what it needs in it.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A file of the documentation.
pub(crate) fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// A copy of `kdt`. Another process makes it: a file that this one holds open for writing, or that a child which is
/// just being started has inherited so, can't be run (`ETXTBSY`).
pub(crate) fn copy_of_kdt(to: &Path) -> PathBuf {
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_kdt")).arg(to).status().unwrap().success());
    to.to_path_buf()
}
