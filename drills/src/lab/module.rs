//! Which modules a guest's kernel needs, in which order: its own files decide, never its version.
//!
//! A kernel package has no `modules.dep` before it is installed, so that the dependencies are read where
//! `depmod` reads them: in each module's `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::{Object, ObjectSection};

use super::error::{LabError, file_error};
use super::process::{find_program, run};

/// How many folders deep modules lie.
const DEPTH: usize = 12;

/// A module, ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name as `lsmod` prints it.
    pub name: String,
    /// The ELF file, decompressed.
    pub elf: Vec<u8>,
}

/// The modules of one kernel: a folder such as `lib/modules/6.1.0-56-cloud-amd64`.
#[derive(Debug)]
pub struct ModuleTree {
    dir: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Lists the modules and what is built in.
    ///
    /// # Errors
    /// [`LabError::File`] where the folder cannot be read.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let mut files = BTreeMap::new();
        collect(&dir.join("kernel"), DEPTH, &mut files)?;
        let path = dir.join("modules.builtin");
        let builtin = fs::read_to_string(&path).map_err(file_error("read", &path))?;
        let builtin = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Self { dir: dir.to_owned(), files, builtin })
    }

    /// Whether the kernel has it, as a module or built in.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.builtin.contains(name) || self.files.contains_key(name)
    }

    /// The modules to load for `wanted`, dependencies first, without what is built in.
    ///
    /// # Errors
    /// [`LabError::Content`] where a module is neither there nor built in, or is not a module.
    pub fn choose(&self, wanted: &[&str]) -> Result<Vec<Module>, LabError> {
        let mut chosen = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.add(name, &mut seen, &mut chosen)?;
        }
        Ok(chosen)
    }

    fn add(&self, name: &str, seen: &mut BTreeSet<String>, chosen: &mut Vec<Module>) -> Result<(), LabError> {
        // `seen` before the dependencies: a circle of them ends here.
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            return Err(LabError::Content {
                path: self.dir.clone(),
                why: format!("the kernel has no module `{name}`, nor is it built in"),
            });
        };
        let elf = read_module(path)?;
        for dependency in
            dependencies(&elf).map_err(|why| LabError::Content { path: path.clone(), why: why.to_owned() })?
        {
            self.add(&dependency, seen, chosen)?;
        }
        chosen.push(Module { name: name.to_owned(), elf });
        Ok(())
    }
}

fn collect(dir: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> Result<(), LabError> {
    for entry in fs::read_dir(dir).map_err(file_error("list", dir))? {
        let path = entry.map_err(file_error("list", dir))?.path();
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, files)?;
            }
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/drivers/block/virtio-blk.ko.xz` is the module `virtio_blk`.
fn module_name(path: &Path) -> Option<String> {
    let (name, suffix) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(suffix, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

fn read_module(path: &Path) -> Result<Vec<u8>, LabError> {
    let (program, package) = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return fs::read(path).map_err(file_error("read", path)),
    };
    let program = find_program(program, package)?;
    run(Command::new(program).arg("-dc").arg(path), Duration::from_mins(1))
}

/// The modules that have to be loaded before this one.
fn dependencies(elf: &[u8]) -> Result<Vec<String>, &'static str> {
    let file = object::File::parse(elf).map_err(|_| "it is not an ELF file")?;
    let section = file.section_by_name(".modinfo").ok_or("it has no `.modinfo`, so it is no module")?;
    let modinfo = section.data().map_err(|_| "its `.modinfo` lies outside the file")?;
    Ok(parse_modinfo(modinfo))
}

/// `.modinfo` is a row of `key=value`, each ended by a zero byte.
fn parse_modinfo(modinfo: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for entry in modinfo.split(|b| *b == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        if let Some(list) = entry.strip_prefix("depends=") {
            names.extend(list.split(','));
        }
    }
    names.into_iter().filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF relocatable with a `.modinfo`: header, the strings, three section headers.
    fn module(depends: &str) -> Vec<u8> {
        let modinfo = format!("license=GPL\0depends={depends}\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 1;
        elf[18] = 62;
        elf[20] = 1;
        elf[52] = 64;
        elf[58] = 64;
        elf[60] = 3;
        elf[62] = 2;
        let modinfo_at = elf.len();
        elf.extend_from_slice(modinfo.as_bytes());
        let names_at = elf.len();
        elf.extend_from_slice(names);
        elf.resize(elf.len().next_multiple_of(8), 0);
        let sections_at = elf.len() as u64;
        elf[40..48].copy_from_slice(&sections_at.to_le_bytes());
        let mut section = |name: u32, kind: u32, at: usize, len: usize| {
            elf.extend_from_slice(&name.to_le_bytes());
            elf.extend_from_slice(&kind.to_le_bytes());
            elf.extend_from_slice(&[0; 16]);
            elf.extend_from_slice(&(at as u64).to_le_bytes());
            elf.extend_from_slice(&(len as u64).to_le_bytes());
            elf.extend_from_slice(&[0; 24]);
        };
        section(0, 0, 0, 0);
        section(1, 1, modinfo_at, modinfo.len());
        section(10, 3, names_at, names.len());
        elf
    }

    fn tree(dir: &Path) -> ModuleTree {
        let drivers = dir.join("kernel/drivers/virtio");
        fs::create_dir_all(&drivers).unwrap();
        fs::write(drivers.join("virtio-blk.ko"), module("virtio-ring,virtio")).unwrap();
        fs::write(drivers.join("virtio.ko"), module("virtio_ring")).unwrap();
        fs::write(drivers.join("virtio_ring.ko"), module("")).unwrap();
        fs::write(drivers.join("a.ko"), module("b")).unwrap();
        fs::write(drivers.join("b.ko"), module("a")).unwrap();
        fs::write(drivers.join("text.ko"), "not a module").unwrap();
        fs::write(dir.join("modules.builtin"), "kernel/drivers/virtio/virtio-pci.ko\n").unwrap();
        ModuleTree::open(dir).unwrap()
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|m| m.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_built_in_ones_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let chosen = tree(dir.path()).choose(&["virtio_pci", "virtio_blk"]).unwrap();
        assert_eq!(names(&chosen), ["virtio_ring", "virtio", "virtio_blk"]);
    }

    #[test]
    fn a_circle_of_dependencies_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(names(&tree(dir.path()).choose(&["a"]).unwrap()), ["b", "a"]);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let err = tree(dir.path()).choose(&["qemu_fw_cfg"]).unwrap_err().to_string();
        assert!(
            err.ends_with("is not usable: the kernel has no module `qemu_fw_cfg`, nor is it built in"),
            "{err}"
        );
    }

    #[test]
    fn a_file_that_is_no_module_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let err = tree(dir.path()).choose(&["text"]).unwrap_err().to_string();
        assert!(err.ends_with("text.ko is not usable: it is not an ELF file"), "{err}");
    }

    #[test]
    fn compressed_modules_have_the_same_names() {
        for file in ["x/virtio-blk.ko", "virtio_blk.ko.xz", "virtio-blk.ko.zst"] {
            assert_eq!(module_name(Path::new(file)).as_deref(), Some("virtio_blk"), "{file}");
        }
        assert_eq!(module_name(Path::new("modules.order")), None);
        assert_eq!(module_name(Path::new("x.ko.sig")), None);
    }
}
