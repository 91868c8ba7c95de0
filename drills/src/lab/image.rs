//! The guest's user space: an initramfs of busybox, kexec, makedumpfile and the modules that the kernel needs.
//!
//! Each program lies in a folder of its own with its own loader and libraries, so that a makedumpfile of a
//! newer Debian stands beside the kexec of this machine.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::cache::{Cache, key};
use super::cpio::CpioWriter;
use super::error::{LabError, file_error};
use super::kernel::Kernel;
use super::makedumpfile::Makedumpfile;
use super::module::ModuleTree;
use super::process::find_program;
use super::program::Program;

/// What the guest runs as process 1.
pub(super) const INIT: &str = include_str!("../../lab/init");

/// Without these the guest cannot reach its disks.
const NEEDED: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// With these it can do more: hand over its VMCOREINFO, tell QEMU of its panic.
const WELCOME: [&str; 2] = ["qemu_fw_cfg", "pvpanic_mmio"];

/// What a guest boots with.
#[derive(Clone, Debug)]
pub struct Image {
    /// For QEMU's `-initrd`.
    pub initramfs: PathBuf,
    /// A disk whose content is a cpio archive with `vmlinuz` and `initramfs`, for the capture kernel.
    pub boot_disk: PathBuf,
    /// Whether the guest can hand over its VMCOREINFO.
    pub has_fw_cfg: bool,
}

impl Image {
    /// Builds it for one kernel, or takes it from the cache.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`] for busybox or kexec, [`LabError::Content`] for a kernel without a module
    /// that the guest cannot do without.
    pub fn build(cache: &Cache, kernel: &Kernel, makedumpfile: &Makedumpfile) -> Result<Self, LabError> {
        let busybox = find_program("busybox", "busybox-static")?;
        let busybox = Program::new(busybox, "/");
        if busybox.loader()?.is_some() {
            return Err(LabError::MissingProgram {
                program: "busybox (static)".to_owned(),
                package: "busybox-static",
            });
        }
        let kexec = Program::new(find_program("kexec", "kexec-tools")?, "/");
        let tree = ModuleTree::open(&kernel.modules)?;
        let made_of = [
            "image",
            INIT,
            &kernel.package.name,
            &kernel.package.version,
            &makedumpfile.version,
            &fingerprint(&busybox.path)?,
            &fingerprint(&kexec.path)?,
            &fingerprint(&makedumpfile.program.path)?,
        ];
        let entry = cache.entry("images", &key(&made_of), |dir| {
            let initramfs = dir.join("initramfs");
            write_archive(&initramfs, |cpio| {
                user_space(cpio, &tree, &busybox.path, &[&kexec, &makedumpfile.program])
            })?;
            write_archive(&dir.join("boot"), |cpio| {
                add_bytes(cpio, "vmlinuz", 0o644, &kernel.read_image()?)?;
                add_file(cpio, "initramfs", 0o644, &initramfs)
            })
        })?;
        Ok(Self {
            initramfs: entry.join("initramfs"),
            boot_disk: entry.join("boot"),
            has_fw_cfg: tree.has("qemu_fw_cfg"),
        })
    }
}

/// A disk whose content is a cpio archive with this `kdt` and its libraries, and what it is made from, shortened.
///
/// # Errors
/// [`LabError::NoKdt`] where there is none; those of [`Program::libraries`].
pub(super) fn kdt_disk(cache: &Cache, kdt: Option<&Path>) -> Result<(PathBuf, String), LabError> {
    let path = kdt.filter(|path| path.is_file()).ok_or(LabError::NoKdt)?;
    let mut program = Program::new(path.to_owned(), "/");
    "kdt".clone_into(&mut program.name);
    let key = key(&["kdt", &fingerprint(path)?]);
    let entry = cache
        .entry("kits", &key, |dir| write_archive(&dir.join("disk"), |cpio| add_program(cpio, &program)))?;
    Ok((entry.join("disk"), key))
}

pub(super) type Cpio = CpioWriter<BufWriter<File>>;

pub(super) fn write_archive(
    path: &Path,
    fill: impl FnOnce(&mut Cpio) -> Result<(), LabError>,
) -> Result<(), LabError> {
    let archive = File::create(path).map_err(file_error("make", path))?;
    let mut cpio = CpioWriter::new(BufWriter::new(archive));
    fill(&mut cpio)?;
    let out = cpio.finish().map_err(file_error("write", path))?;
    // A disk has whole sectors: QEMU rounds a raw image down to them.
    let archive =
        out.into_inner().map_err(std::io::IntoInnerError::into_error).map_err(file_error("write", path))?;
    let len = archive.metadata().map_err(file_error("measure", path))?.len();
    archive.set_len(len.next_multiple_of(4096)).map_err(file_error("write", path))
}

fn user_space(
    cpio: &mut Cpio,
    tree: &ModuleTree,
    busybox: &Path,
    programs: &[&Program],
) -> Result<(), LabError> {
    for dir in ["bin", "dev", "proc", "sys", "tmp", "run", "mnt", "modules", "programs"] {
        cpio.directory(dir, 0o755).map_err(file_error("write", "the initramfs"))?;
    }
    cpio.character_device("dev/console", 0o600, (5, 1)).map_err(file_error("write", "the initramfs"))?;
    add_bytes(cpio, "init", 0o755, INIT.as_bytes())?;
    add_file(cpio, "bin/busybox", 0o755, busybox)?;
    for program in programs {
        add_program(cpio, program)?;
    }
    let mut wanted = NEEDED.to_vec();
    wanted.extend(WELCOME.into_iter().filter(|name| tree.has(name)));
    let mut order = String::new();
    for module in tree.choose(&wanted)? {
        add_bytes(cpio, &format!("modules/{}.ko", module.name), 0o644, &module.elf)?;
        order.push_str(&module.name);
        order.push_str(".ko\n");
    }
    add_bytes(cpio, "modules/order", 0o644, order.as_bytes())
}

/// Adds `/programs/NAME` with its libraries, and `/bin/NAME`, which starts it.
fn add_program(cpio: &mut Cpio, program: &Program) -> Result<(), LabError> {
    let home = format!("programs/{}", program.name);
    cpio.directory(&home, 0o755).map_err(file_error("write", "the initramfs"))?;
    add_file(cpio, &format!("{home}/{}", program.name), 0o755, &program.path)?;
    for (name, path) in program.libraries()? {
        add_file(cpio, &format!("{home}/{name}"), 0o755, &path)?;
    }
    let start = match program.loader()? {
        Some(loader) => format!("/{home}/{loader} --library-path /{home} /{home}/{}", program.name),
        None => format!("/{home}/{}", program.name),
    };
    let script = format!("#!/bin/busybox sh\nexec {start} \"$@\"\n");
    add_bytes(cpio, &format!("bin/{}", program.name), 0o755, script.as_bytes())
}

pub(super) fn add_bytes(cpio: &mut Cpio, name: &str, permissions: u32, bytes: &[u8]) -> Result<(), LabError> {
    cpio.file(name, permissions, bytes.len() as u64, &mut &bytes[..])
        .map_err(file_error("write the initramfs with", name))
}

pub(super) fn add_file(cpio: &mut Cpio, name: &str, permissions: u32, path: &Path) -> Result<(), LabError> {
    let mut file = File::open(path).map_err(file_error("open", path))?;
    let len = file.metadata().map_err(file_error("measure", path))?.len();
    cpio.file(name, permissions, len, &mut file).map_err(file_error("put into the initramfs", path))
}

/// Tells one build of an installed program from the next, without reading it.
fn fingerprint(path: &Path) -> Result<String, LabError> {
    let meta = fs::metadata(path).map_err(file_error("find", path))?;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(format!("{} {} {:?}", path.display(), meta.len(), modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn init_is_a_script_that_the_shell_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        let mut file = File::create(&path).unwrap();
        file.write_all(INIT.as_bytes()).unwrap();
        let out = std::process::Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(INIT.starts_with("#!/bin/busybox sh\n"));
    }

    #[test]
    fn an_archive_fills_whole_sectors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot");
        write_archive(&path, |cpio| add_bytes(cpio, "x", 0o644, &[7; 5000])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len() % 4096, 0);
    }
}
