//! makedumpfile: the newest that can be had, for it has to know the kernel that crashed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::apt::Apt;
use super::cache::{Cache, key};
use super::error::LabError;
use super::process::{find_program, run, run_any};
use super::program::Program;
use super::recipe::MakedumpfileSpec;

const LIMIT: Duration = Duration::from_mins(5);

/// A makedumpfile that runs on this machine, and in the guest.
#[derive(Clone, Debug)]
pub struct Makedumpfile {
    /// The program with its libraries.
    pub program: Program,
    /// For example `1.7.8`.
    pub version: String,
    /// What it was built with: `lzo`, `snappy`, `zstd`. zlib is always there.
    pub codecs: BTreeSet<String>,
}

impl Makedumpfile {
    /// The one of the first suite that has one; where no suite can be reached, the one installed here.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`] where neither is to be had.
    pub fn find(cache: &Cache, spec: &MakedumpfileSpec, talk: &dyn Fn(&str)) -> Result<Self, LabError> {
        for suite in &spec.suites {
            match Self::of_suite(cache, suite, talk) {
                Ok(found) => return Ok(found),
                Err(e) => talk(&format!("no makedumpfile of {suite}: {e}")),
            }
        }
        Self::installed()
    }

    /// The one installed on this machine.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`].
    pub fn installed() -> Result<Self, LabError> {
        Self::identify(Program::new(find_program("makedumpfile", "makedumpfile")?, "/"))
    }

    /// The one of a Debian suite, unpacked into the cache with its libraries.
    ///
    /// # Errors
    /// [`LabError::Package`], and those of a broken package.
    pub fn of_suite(cache: &Cache, suite: &str, talk: &dyn Fn(&str)) -> Result<Self, LabError> {
        let apt = Apt::of_suite(cache, suite)?;
        let package = apt.show("makedumpfile")?;
        // The suite too: its C library is not that of another suite with the same makedumpfile.
        let key = key(&["makedumpfile", suite, &package.version]);
        let entry = cache.entry("tools", &key, |dir| {
            talk(&format!("taking makedumpfile {} of {suite}", package.version));
            let root = dir.join("root");
            let library = |name: &str| name.starts_with("lib") || name.starts_with("zlib");
            let complete = |root: &Path| inside(root).is_some_and(|program| program.libraries().is_ok());
            apt.unpack(&package, &root, library, complete)?;
            inside(&root).map_or_else(
                || {
                    Err(LabError::Package {
                        package: "makedumpfile".to_owned(),
                        why: "it has no program".to_owned(),
                    })
                },
                |program| Self::identify(program).map(|_| ()),
            )
        })?;
        let program = inside(&entry.join("root"))
            .ok_or_else(|| LabError::Content { path: entry, why: "its makedumpfile is gone".to_owned() })?;
        Self::identify(program)
    }

    /// Asks the program who it is.
    fn identify(program: Program) -> Result<Self, LabError> {
        let out = run(program.command()?.arg("-v"), Duration::from_secs(20))?;
        let (version, codecs) = parse_version(&String::from_utf8_lossy(&out)).ok_or_else(|| {
            LabError::Content { path: program.path.clone(), why: "it does not tell its version".to_owned() }
        })?;
        Ok(Self { program, version, codecs })
    }

    /// Asks for a codec.
    ///
    /// # Errors
    /// [`LabError::Codec`].
    pub fn needs(&self, codec: &str) -> Result<(), LabError> {
        if codec == "zlib" || self.codecs.contains(codec) {
            return Ok(());
        }
        Err(LabError::Codec { codec: codec.to_owned(), version: self.version.clone() })
    }

    /// A command that runs it on this machine.
    ///
    /// # Errors
    /// As [`Program::command`].
    pub fn command(&self) -> Result<Command, LabError> {
        self.program.command()
    }

    /// Runs it with these words, then `from`, then `to`.
    ///
    /// # Errors
    /// [`LabError::Command`] where it says no.
    pub fn convert(&self, args: &[String], from: &Path, to: &[&Path]) -> Result<(), LabError> {
        run(self.command()?.args(args).arg(from).args(to), LIMIT).map(|_| ())
    }

    /// The kernel log of a dump as `--dump-dmesg` writes it; `None` where it cannot read the dump, as it
    /// cannot read QEMU's ELF (seen with 1.7.8 and QEMU 7.2: «Can't get the number of `PT_LOAD`»).
    ///
    /// # Errors
    /// [`LabError::CommandTime`].
    pub fn dmesg(&self, dump: &Path, to: &Path) -> Result<Option<()>, LabError> {
        let (status, ..) = run_any(self.command()?.args(["--dump-dmesg", "-f"]).arg(dump).arg(to), LIMIT)?;
        if status.success() {
            return Ok(Some(()));
        }
        // What it began to write is no log.
        let _ = std::fs::remove_file(to);
        Ok(None)
    }
}

fn inside(root: &Path) -> Option<Program> {
    ["usr/bin/makedumpfile", "usr/sbin/makedumpfile"]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.is_file())
        .map(|path| Program::new(path, root))
}

/// Reads `makedumpfile -v`.
fn parse_version(text: &str) -> Option<(String, BTreeSet<String>)> {
    let (_, rest) = text.split_once("version ")?;
    let version = rest.split_whitespace().next()?.to_owned();
    let codecs = text.lines().filter_map(|line| {
        let (codec, state) = line.split_once('\t')?;
        (state.trim() == "enabled").then(|| codec.trim().to_owned())
    });
    Some((version, codecs.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_that_is_not_built_in_is_named() {
        let text = "makedumpfile: version 1.7.2 (released on 20 Oct 2022)\nlzo\tenabled\nsnappy\tdisabled\nzstd\tdisabled\n\n";
        let (version, codecs) = parse_version(text).unwrap();
        assert_eq!((version.as_str(), codecs.len()), ("1.7.2", 1));
        let tool = Makedumpfile { program: Program::new("/x".into(), "/"), version, codecs };
        assert!(tool.needs("lzo").is_ok() && tool.needs("zlib").is_ok());
        assert_eq!(tool.needs("zstd").unwrap_err().to_string(), "makedumpfile 1.7.2 cannot write zstd");
    }
}
