//! A dump that comes through a pipe, kept in a temporary file: to choose pages it is read more than once, and not in order.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Target, folder};
use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::size::Size;

/// Bytes that are taken from the pipe at once.
const PIECE: usize = 1 << 20;

/// Where the source is read from. Its temporary file goes when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Source {
    path: PathBuf,
    name: PathBuf,
    _spooled: Option<NamedTempFile>,
}

impl Source {
    /// The file `named`; `-` is stdin, which is spooled beside the target, or in TMPDIR where that is a stream.
    ///
    /// # Errors
    /// Where stdin is a terminal or empty, or where there is no room for what comes through it.
    pub(in crate::cli) fn open(
        named: &Path,
        target: Option<&Target>,
        context: &Context,
    ) -> Result<Self, Failure> {
        if named.as_os_str() != "-" {
            return Ok(Self { path: named.to_owned(), name: named.to_owned(), _spooled: None });
        }
        if io::stdin().is_terminal() {
            return Err(Failure::usage(
                "stdin is a terminal, and no dump",
                "name a file, or pipe a dump into it",
            ));
        }
        let beside = target.and_then(|target| target.paths().next());
        let dir = beside.map_or_else(std::env::temp_dir, |path| folder(path).to_owned());
        let failure = |error: &io::Error| Failure::io("spool stdin in", &dir, error);
        let file = tempfile::Builder::new().prefix(".kdt-stdin-").suffix(".tmp").tempfile_in(&dir);
        let file = file.map_err(|e| failure(&e))?;
        context.output.note(&format!(
            "stdin is kept in a temporary file in {} while it is read: its pages are looked at more than once",
            dir.display()
        ));
        let bytes = spool(&mut io::stdin().lock(), file.as_file(), context).map_err(|e| failure(&e))?;
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        if bytes == 0 {
            return Err(Failure::new(
                Exit::Input,
                "stdin is empty",
                "look why what should write the dump ended",
            ));
        }
        context.output.note(&format!("stdin had {}", Size::from(bytes)));
        Ok(Self { path: file.path().to_owned(), name: "stdin".into(), _spooled: Some(file) })
    }

    /// The file to read.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// What it is called.
    pub(in crate::cli) fn name(&self) -> &Path {
        &self.name
    }
}

fn spool(from: &mut impl Read, mut to: &File, context: &Context) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut bytes = 0_u64;
    while !context.cancel.is_cancelled() {
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(piece.get(..count).unwrap_or_default())?;
                bytes = bytes.saturating_add(u64::try_from(count).unwrap_or(0));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}
