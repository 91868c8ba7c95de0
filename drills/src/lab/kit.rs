//! What a failure needs beyond the guest's own user space, on a disk of its own: the lab's module, built for the
//! guest's kernel; a program without libraries; the modules and the image of a file system.
//!
//! The disk's content is a cpio archive, with the order in which its modules are loaded in `order`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, key};
use super::error::{LabError, file_error};
use super::image::{Cpio, add_bytes, add_file, write_archive};
use super::kernel::Kernel;
use super::module::ModuleTree;
use super::newer;
use super::process::{find_program, run};
use super::recipe::Trigger;

const MODULE: &str = include_str!("../../lab/module/lab_fail.c");
const MODULE_MAKEFILE: &str = include_str!("../../lab/module/Makefile");
const TASKS: &str = include_str!("../../lab/module/lab_tasks.c");
const STORAGE: &str = include_str!("../../lab/module/lab_storage.c");
/// What the devices of `lab_storage` are made with; no more of them, for what is loaded is in the dump.
const STORAGE_MODULES: &[(&str, &[&str])] = &[
    ("dm-suspended", &["loop", "dm_mod"]),
    ("multipath", &["loop", "dm_multipath", "dm_round_robin"]),
    ("md-degraded", &["loop", "raid1"]),
    ("host", &[]),
];
const BUILD: Duration = Duration::from_mins(3);
/// The smallest ext4 that has room for a journal.
const FILE_SYSTEM: u64 = 8 << 20;

/// The disk, where a failure needs one.
#[derive(Clone, Debug, Default)]
pub(super) struct Kit {
    /// The disk's image.
    pub(super) disk: Option<PathBuf>,
    /// What it is made from, shortened.
    pub(super) key: Option<String>,
}

impl Kit {
    /// Builds it for one kernel and one way to fail, or takes it from the cache.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`] for what it is built with, [`LabError::Package`] where the mirror has no
    /// headers of this kernel, [`LabError::Command`] where it does not compile.
    pub(super) fn build(cache: &Cache, kernel: &Kernel, trigger: &Trigger) -> Result<Self, LabError> {
        let (kind, sources) = match trigger {
            Trigger::Sysrq | Trigger::Oom | Trigger::Nmi | Trigger::InitExits => return Ok(Self::default()),
            Trigger::Module(_) | Trigger::Held(_) => ("module", vec![MODULE, MODULE_MAKEFILE]),
            Trigger::Frozen => ("frozen", vec![TASKS]),
            Trigger::Crowd(_) | Trigger::Secrets | Trigger::CgroupOom => ("crowd", vec![TASKS]),
            Trigger::Net => ("net", vec![TASKS]),
            Trigger::Storage(_) => ("storage", vec![STORAGE]),
            Trigger::Waits => ("waits", vec![MODULE, MODULE_MAKEFILE]),
            Trigger::Nfs => ("nfs", Vec::new()),
            Trigger::Earlier => ("earlier", vec![MODULE, MODULE_MAKEFILE, TASKS]),
        };
        let modules: (&[&str], &[&str]) = match trigger {
            Trigger::Frozen => (&["loop", "ext4"], &[]),
            // Its options can't be known before the guest is to fail.
            Trigger::Waits | Trigger::Earlier => (&[], &["null_blk"]),
            Trigger::Nfs => (&["nfsv4"], &[]),
            Trigger::Net => (&["bridge", "veth", "dummy"], &[]),
            Trigger::Storage(word) => {
                (STORAGE_MODULES.iter().find(|(known, _)| known == word).map_or(&[], |(_, list)| *list), &[])
            }
            _ => (&[], &[]),
        };
        let mut made_of = vec!["kit", kind, &kernel.package.name, &kernel.package.version];
        made_of.extend(sources);
        made_of.extend(modules.0.iter().chain(modules.1));
        let key = key(&made_of);
        let entry = cache.entry("kits", &key, |dir| {
            // Beside the disk, so that a debugger finds what it needs of the module.
            match trigger {
                Trigger::Module(_) | Trigger::Held(_) | Trigger::Waits => build_module(kernel, dir)?,
                Trigger::Storage(_) => build_program(dir, "lab_storage", STORAGE)?,
                Trigger::Nfs => {}
                Trigger::Earlier => {
                    build_module(kernel, dir)?;
                    build_program(dir, "lab_tasks", TASKS)?;
                }
                Trigger::Frozen => {
                    build_program(dir, "lab_tasks", TASKS)?;
                    build_file_system(&dir.join("ext4"))?;
                }
                _ => build_program(dir, "lab_tasks", TASKS)?,
            }
            write_archive(&dir.join("disk"), |cpio| fill(cpio, kernel, modules, dir))
        })?;
        Ok(Self { disk: Some(entry.join("disk")), key: Some(key) })
    }
}

/// Puts what was built into the archive, and the kernel's own modules: those to be loaded, and those that the guest's init loads later.
fn fill(
    cpio: &mut Cpio,
    kernel: &Kernel,
    (modules, later): (&[&str], &[&str]),
    dir: &Path,
) -> Result<(), LabError> {
    let mut order = String::new();
    let tree = ModuleTree::open(&kernel.modules)?;
    let all: Vec<&str> = modules.iter().chain(later).copied().filter(|name| tree.has(name)).collect();
    for module in tree.choose(&all)? {
        let is_later = later.contains(&module.name.as_str());
        let file = format!("{}{}.ko", if is_later { "later-" } else { "" }, module.name);
        add_bytes(cpio, &file, 0o644, &module.elf)?;
        if !is_later {
            order.push_str(&file);
            order.push('\n');
        }
    }
    if dir.join("ext4").is_file() {
        add_file(cpio, "ext4", 0o600, &dir.join("ext4"))?;
    }
    if dir.join("lab_fail.ko").is_file() {
        add_file(cpio, "lab_fail.ko", 0o644, &dir.join("lab_fail.ko"))?;
        order.push_str("lab_fail.ko\n");
    }
    for program in ["lab_tasks", "lab_storage"] {
        if dir.join(program).is_file() {
            add_file(cpio, program, 0o755, &dir.join(program))?;
        }
    }
    add_bytes(cpio, "order", 0o644, order.as_bytes())
}

/// Builds the module out of the kernel's own header packages, none of which is installed.
fn build_module(kernel: &Kernel, dir: &Path) -> Result<(), LabError> {
    let make = find_program("make", "make")?;
    find_program("gcc", "gcc")?;
    // Kernels that come with their BTF want the module's too.
    find_program("pahole", "dwarves")?;
    let headers = kernel.apt.show(&kernel.package.name.replacen("-image-", "-headers-", 1))?;
    let root = dir.join("headers");
    let follow = |name: &str| ["linux-headers-", "linux-kbuild-"].iter().any(|p| name.starts_with(p));
    kernel.apt.unpack(&headers, &root, follow, |_| false)?;
    let sources = root.join("usr/src");
    let own = sources.join(&headers.name);
    // The package's own Makefile includes this one by the path that it would have where it is installed.
    let common = fs::read_dir(&sources)
        .map_err(file_error("list", &sources))?
        .flatten()
        .map(|entry| entry.path().join("Makefile"))
        .find(|path| path.is_file() && !path.starts_with(&own))
        .ok_or_else(|| LabError::Package {
            package: headers.name.clone(),
            why: "what it depends on has no Makefile".to_owned(),
        })?;
    let work = dir.join("build");
    fs::create_dir(&work).map_err(file_error("make", &work))?;
    for (name, text) in [("lab_fail.c", MODULE), ("Makefile", MODULE_MAKEFILE)] {
        fs::write(work.join(name), text).map_err(file_error("write", work.join(name)))?;
    }
    let mut command = Command::new(make);
    command.arg("-C").arg(&own).arg("-f").arg(&common).arg(format!("M={}", work.display())).arg("modules");
    // The headers name the compiler of their own release (gcc-10 for 5.10), which need not be here: this machine's does.
    command.args(newer::words(kernel, &root)?);
    // Newer ones have no other way to say where their configuration is, and say it by the path that it would have.
    let makefile = own.join("Makefile");
    if fs::read_to_string(&makefile).map_err(file_error("read", &makefile))?.contains("KBUILD_OUTPUT") {
        command.arg(format!("KBUILD_OUTPUT={}", own.display()));
    }
    // A make that started this program has told its own children what does not concern this one.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS").env("LC_ALL", "C.UTF-8");
    run(&mut command, BUILD)?;
    let (built, module) = (work.join("lab_fail.ko"), dir.join("lab_fail.ko"));
    fs::rename(&built, &module).map_err(file_error("keep", &built))?;
    for gone in [root, work] {
        fs::remove_dir_all(&gone).map_err(file_error("remove", &gone))?;
    }
    Ok(())
}

fn build_program(dir: &Path, name: &str, text: &str) -> Result<(), LabError> {
    let gcc = find_program("gcc", "gcc")?;
    let source = dir.join(format!("{name}.c"));
    fs::write(&source, text).map_err(file_error("write", &source))?;
    let mut command = Command::new(gcc);
    command.args(["-static", "-Os", "-s", "-pthread", "-o"]).arg(dir.join(name)).arg(&source);
    run(&mut command, BUILD).map(|_| ())
}

fn build_file_system(image: &Path) -> Result<(), LabError> {
    let mke2fs = find_program("mke2fs", "e2fsprogs")?;
    let file = fs::File::create(image).map_err(file_error("make", image))?;
    file.set_len(FILE_SYSTEM).map_err(file_error("make", image))?;
    run(Command::new(mke2fs).args(["-q", "-F", "-t", "ext4"]).arg(image), BUILD).map(|_| ())
}
