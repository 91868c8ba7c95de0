//! A program with all the libraries that it needs, to be put into a guest or run out of an unpacked package.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, ElfFile64, ProgramHeader};

use super::error::{LabError, file_error};

/// A program and the tree (`/`, or a folder into which packages are unpacked) with its libraries.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    root: PathBuf,
}

/// What a program's file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

impl Program {
    /// The program `path`, whose libraries are looked for below `root`.
    #[must_use]
    pub fn new(path: PathBuf, root: impl Into<PathBuf>) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, path, root: root.into() }
    }

    /// The loader and each library, by the name under which the program asks for it. Empty for a static one.
    ///
    /// # Errors
    /// [`LabError::Content`] where a file is not ELF or a library is not below the root.
    pub fn libraries(&self) -> Result<BTreeMap<String, PathBuf>, LabError> {
        let dirs = self.library_dirs();
        let mut found = BTreeMap::new();
        let mut queue = vec![self.path.clone()];
        while let Some(path) = queue.pop() {
            let bytes = fs::read(&path).map_err(file_error("read", &path))?;
            let needs =
                needs(&bytes).map_err(|why| LabError::Content { path: path.clone(), why: why.to_owned() })?;
            for name in needs.libraries.into_iter().chain(needs.loader) {
                if found.contains_key(&name) {
                    continue;
                }
                let Some(library) = dirs.iter().map(|d| d.join(&name)).find(|p| p.is_file()) else {
                    return Err(LabError::Content {
                        path: self.path.clone(),
                        why: format!("its library `{name}` is not below {}", self.root.display()),
                    });
                };
                found.insert(name, library.clone());
                queue.push(library);
            }
        }
        Ok(found)
    }

    /// The loader's name (`ld-linux-x86-64.so.2`), or `None` for a static program.
    ///
    /// # Errors
    /// As [`Self::libraries`].
    pub fn loader(&self) -> Result<Option<String>, LabError> {
        let bytes = fs::read(&self.path).map_err(file_error("read", &self.path))?;
        let needs = needs(&bytes)
            .map_err(|why| LabError::Content { path: self.path.clone(), why: why.to_owned() })?;
        Ok(needs.loader)
    }

    /// A command that runs it here: with its own loader and libraries, if it does not belong to this machine.
    ///
    /// # Errors
    /// As [`Self::libraries`].
    pub fn command(&self) -> Result<Command, LabError> {
        if self.root == Path::new("/") {
            return Ok(Command::new(&self.path));
        }
        let libraries = self.libraries()?;
        let Some(loader) = self.loader()?.and_then(|name| libraries.get(&name).cloned()) else {
            return Ok(Command::new(&self.path));
        };
        let dirs: Vec<String> = self.library_dirs().iter().map(|d| d.display().to_string()).collect();
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(dirs.join(":")).arg(&self.path);
        Ok(command)
    }

    /// Debian's library folders, those with a multiarch name first.
    fn library_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = Vec::new();
        for lib in ["usr/lib", "lib"] {
            let entries = fs::read_dir(self.root.join(lib)).into_iter().flatten().flatten();
            dirs.extend(entries.map(|e| e.path()).filter(|p| p.to_string_lossy().contains("-linux-gnu")));
        }
        dirs.sort();
        dirs.extend(
            ["usr/lib64", "lib64", "usr/lib", "lib"].iter().map(|d| self.root.join(d)).filter(|d| d.is_dir()),
        );
        dirs
    }
}

fn needs(bytes: &[u8]) -> Result<Needs, &'static str> {
    let no_elf = "it is not a 64-bit ELF file";
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| no_elf)?;
    let endian = file.endian();
    let mut needs = Needs::default();
    for header in file.elf_program_headers() {
        if let Ok(Some(interpreter)) = header.interpreter(endian, bytes) {
            let path = String::from_utf8_lossy(interpreter).into_owned();
            needs.loader = path.rsplit('/').next().map(str::to_owned);
        }
    }
    let dynamic = file
        .elf_section_table()
        .dynamic(endian, bytes)
        .map_err(|_| "its dynamic section lies outside the file")?;
    if let Some((entries, strings)) = dynamic {
        let strings = file
            .elf_section_table()
            .strings(endian, bytes, strings)
            .map_err(|_| "its dynamic strings lie outside the file")?;
        for entry in entries {
            if entry.tag(endian) == elf::DT_NEEDED {
                let name = entry.string(endian, strings).map_err(|_| "a library has no name")?;
                needs.libraries.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_finds_its_own_libraries() {
        let me = Program::new(std::env::current_exe().unwrap(), "/");
        let libraries = me.libraries().unwrap();
        assert!(libraries.keys().any(|name| name.starts_with("libc.so")), "{libraries:?}");
        let loader = me.loader().unwrap().unwrap();
        assert!(libraries[&loader].is_file(), "{loader}");
    }

    #[test]
    fn a_library_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        let err = Program::new(path, dir.path()).libraries().unwrap_err().to_string();
        assert!(err.contains("its library `") && err.contains("is not below"), "{err}");
    }

    #[test]
    fn a_text_is_no_program() {
        assert_eq!(needs(b"#!/bin/sh\n"), Err("it is not a 64-bit ELF file"));
    }
}
