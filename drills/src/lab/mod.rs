//! The lab: real kernels crash for real, and real dumps come out.
//!
//! [`Lab::make_dump`] is the whole of it. A [`Recipe`] names a crash and a format; the lab takes the kernel
//! and the tools from Debian packages, builds a guest, lets it fail under QEMU, and keeps what was left in
//! its cache, so that the next recipe of the same crash does not boot anything.
//!
//! ```no_run
//! use std::path::Path;
//! use drills::lab::{KernelSpec, Lab, RecipeBook};
//!
//! # fn main() -> Result<(), drills::lab::LabError> {
//! let lab = Lab::open("/var/cache/kdt-lab")?;
//! let book = RecipeBook::read()?;
//! let made = lab.make_dump(&KernelSpec::named("6.1")?, book.recipe("kdump-zlib")?, Path::new("."))?;
//! assert!(made.paths[0].is_file());
//! # Ok(())
//! # }
//! ```
//!
//! The lab prints nothing and reads no environment; [`Lab::talk_to`] hears what takes long.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub mod apt;
mod cache;
mod cpio;
mod crash;
mod error;
mod image;
mod kernel;
mod kit;
mod makedumpfile;
mod module;
mod newer;
pub(crate) mod process;
mod program;
mod recipe;
mod stream;

use crate::world::Accel;
pub use cache::Cache;
pub use cpio::CpioWriter;
pub use crash::Crash;
pub use error::LabError;
use error::file_error;
pub use image::Image;
pub use kernel::Kernel;
use kit::Kit;
pub use makedumpfile::Makedumpfile;
pub use module::{Module, ModuleTree};
pub use program::Program;
pub use recipe::{
    CrashSpec, HostState, How, KdtRun, KernelSpec, MakedumpfileSpec, Output, Recipe, RecipeBook, Trigger,
};

/// How long a guest may take to user space under KVM. TCG takes five seconds.
const KVM_PATIENCE: Duration = Duration::from_secs(8);

/// Where the lab works, and to whom it talks.
pub struct Lab {
    cache: Cache,
    /// The `kdt` for capture kernels.
    kdt: Option<PathBuf>,
    /// Where crashes are kept: the cache, unless a drill wants one of its own.
    crashes: Cache,
    talk: Box<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// A dump that the lab has made.
#[derive(Clone, Debug)]
pub struct MadeDump {
    /// The dump, or the parts of a split one in their order.
    pub paths: Vec<PathBuf>,
    /// All that the guest wrote to its serial console.
    pub console: PathBuf,
    /// The kernel log as makedumpfile reads it, where it can read the dump.
    pub dmesg: Option<PathBuf>,
    /// What `uname -r` said in the guest.
    pub kernel_release: String,
    /// The kernel's package and its version.
    pub kernel_package: String,
    /// The makedumpfile that took part.
    pub makedumpfile_version: String,
    /// What `qemu-system-x86_64 --version` says.
    pub qemu_version: String,
    /// The word that the guest wrote into its kernel log (`lab: mark WORD`) before it failed.
    pub mark: String,
    /// The recipe.
    pub recipe: Recipe,
}

/// A guest's parts, for drills that play on their own.
#[derive(Clone, Debug)]
pub struct Ingredients {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// What it says of itself.
    pub qemu_version: String,
    /// The kernel.
    pub kernel: Kernel,
    /// The tool inside the guest.
    pub makedumpfile: Makedumpfile,
    /// The guest's user space.
    pub image: Image,
    /// How the guest runs on this machine.
    pub accel: Accel,
}

impl Lab {
    /// Opens the lab with its cache in `root`.
    ///
    /// # Errors
    /// [`LabError::File`] where the folder cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LabError> {
        let cache = Cache::open(root)?;
        Ok(Self { crashes: cache.clone(), cache, kdt: None, talk: Box::new(|_| {}) })
    }

    /// Keeps crashes in `root` and not in the cache: guests are crashed anew, of the same packages.
    ///
    /// # Errors
    /// [`LabError::File`] where the folder cannot be made.
    pub fn crash_in(mut self, root: impl Into<PathBuf>) -> Result<Self, LabError> {
        self.crashes = Cache::open(root)?;
        Ok(self)
    }

    /// Says which `kdt` collects in capture kernels: a small one, as `drills/lab/static.sh` builds it, or a stripped one.
    #[must_use]
    pub fn collect_with(mut self, kdt: Option<PathBuf>) -> Self {
        self.kdt = kdt;
        self
    }

    /// Says to whom the lab tells what it is doing.
    #[must_use]
    pub fn talk_to(mut self, talk: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.talk = Box::new(talk);
        self
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Brings a guest's parts together without booting it.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`] or [`LabError::Package`] for what this machine lacks.
    pub fn ingredients(&self, kernel: &KernelSpec) -> Result<Ingredients, LabError> {
        let qemu = process::find_program("qemu-system-x86_64", "qemu-system-x86")?;
        process::find_program("setpriv", "util-linux")?;
        let version = process::run(Command::new(&qemu).arg("--version"), Duration::from_secs(20))?;
        let qemu_version = String::from_utf8_lossy(&version);
        let qemu_version = qemu_version.lines().next().unwrap_or_default().to_owned();
        let talk = self.talk.as_ref();
        // The installed programs before the downloads: what is missing is told at once.
        let book = RecipeBook::read()?;
        let makedumpfile = Makedumpfile::find(&self.cache, &book.makedumpfile, talk)?;
        let kernel = Kernel::fetch(&self.cache, kernel, talk)?;
        let image = Image::build(&self.cache, &kernel, &makedumpfile)?;
        let guest = crash::Boot {
            qemu: &qemu,
            accel: Accel::Kvm,
            kernel: &kernel,
            image: &image,
            mark: "",
            makedumpfile: &makedumpfile,
            kdt: None,
            kit: &Kit::default(),
        };
        let accel = self.accel(&guest, &qemu_version)?;
        Ok(Ingredients { qemu, qemu_version, kernel, makedumpfile, image, accel })
    }

    /// Makes the dump that `recipe` describes, with its console and its log beside it:
    /// `KERNEL-RECIPE.kdump`, `.console`, `.dmesg` and so on in the folder `out`.
    ///
    /// # Errors
    /// [`LabError`]; [`LabError::is_missing_tool`] tells what the machine lacks from what went wrong.
    pub fn make_dump(&self, kernel: &KernelSpec, recipe: &Recipe, out: &Path) -> Result<MadeDump, LabError> {
        let book = RecipeBook::read()?;
        let spec = book.crash(&recipe.crash)?;
        let parts = self.ingredients(kernel)?;
        if let Output::Makedumpfile { needs: Some(codec), .. } = &recipe.output {
            parts.makedumpfile.needs(codec)?;
        }
        let (crash, mark) = self.crash(&parts, spec, &book)?;
        fs::create_dir_all(out).map_err(file_error("make", out))?;
        let stem = out.join(format!("{}-{}", kernel.name, recipe.name));
        let paths = write_output(&parts.makedumpfile, &crash, &recipe.output, &stem)?;
        let console = with_extension(&stem, "console");
        copy(&crash.console(), &console)?;
        let dmesg = with_extension(&stem, "dmesg");
        let _ = fs::remove_file(&dmesg);
        // A flattened stream and a part of a split set have no log for makedumpfile; the whole has.
        let readable = match recipe.output {
            Output::Stream | Output::Split { .. } | Output::Kdt { what: KdtRun::Stream } => crash.vmcore(),
            _ => paths.first().cloned().unwrap_or_default(),
        };
        let dmesg = parts.makedumpfile.dmesg(&readable, &dmesg)?.map(|()| dmesg);
        Ok(MadeDump {
            paths,
            console,
            dmesg,
            kernel_release: parts.kernel.release,
            kernel_package: format!("{} {}", parts.kernel.package.name, parts.kernel.package.version),
            makedumpfile_version: parts.makedumpfile.version,
            qemu_version: parts.qemu_version,
            mark,
            recipe: recipe.clone(),
        })
    }

    /// The crash `spec` on these parts, from the cache or for real, and the mark in its log.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn crash(
        &self,
        parts: &Ingredients,
        spec: &CrashSpec,
        book: &RecipeBook,
    ) -> Result<(Crash, String), LabError> {
        let described = serde_json::to_string(spec)
            .map_err(|e| LabError::Content { path: "drills/lab/recipes.toml".into(), why: e.to_string() })?;
        // All formats that any recipe wants of this crash: the guest is booted once for all of them.
        let mut formats: Vec<&str> = book
            .recipes
            .iter()
            .filter(|r| r.crash == spec.name)
            .filter_map(|r| match &r.output {
                Output::Qemu { format } => Some(format.as_str()),
                _ => None,
            })
            .collect();
        formats.sort_unstable();
        formats.dedup();
        let package = &parts.kernel.package;
        let kit = Kit::build(&self.cache, &parts.kernel, &spec.trigger)?;
        let format_names = formats.join(" ");
        let mut made_of = vec![
            "crash",
            &described,
            &format_names,
            &package.name,
            &package.version,
            &parts.qemu_version,
            &parts.makedumpfile.version,
            image::INIT,
        ];
        made_of.extend(kit.key.as_deref());
        let kdt = match &spec.how {
            How::Kdump { kdt, .. } if !kdt.is_empty() => {
                Some(image::kdt_disk(&self.cache, self.kdt.as_deref())?)
            }
            _ => None,
        };
        made_of.extend(kdt.as_ref().map(|(_, key)| key.as_str()));
        let key = cache::key(&made_of);
        let entry = self.crashes.entry("crashes", &key, |dir| {
            (self.talk)(&format!("crashing a guest: {} on {}", spec.name, parts.kernel.release));
            let guest = crash::Boot {
                qemu: &parts.qemu,
                accel: parts.accel,
                kernel: &parts.kernel,
                image: &parts.image,
                mark: &key,
                makedumpfile: &parts.makedumpfile,
                kdt: kdt.as_ref().map(|(disk, _)| disk.as_path()),
                kit: &kit,
            };
            // A guest that is translated on a busy machine may fail by itself: it gets one more chance.
            match crash::crash(&guest, spec, &formats, dir) {
                Err(e @ (LabError::Guest(_) | LabError::NoDump { .. })) => {
                    (self.talk)(&format!("once more, because {e}"));
                    crash::crash(&guest, spec, &formats, dir)
                }
                done => done,
            }
        })?;
        Ok((Crash::at(entry), key))
    }

    /// KVM, if a guest gets to its user space under it in good time; measured once for each boot of this
    /// machine and each QEMU. `/dev/kvm` alone says little: inside another virtual machine it may be slow or
    /// broken.
    fn accel(&self, boot: &crash::Boot<'_>, version: &str) -> Result<Accel, LabError> {
        let open = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if open.is_err() {
            return Ok(Accel::Tcg);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let entry = self.cache.entry("accel", &cache::key(&[version, &boot_id]), |dir| {
            (self.talk)("measuring KVM");
            let word = if let Some(time) = crash::measure_boot(boot, KVM_PATIENCE)? {
                (self.talk)(&format!("KVM boots a guest in {:.1} s", time.as_secs_f64()));
                "kvm"
            } else {
                (self.talk)("KVM is there but too slow or broken; using TCG");
                "tcg"
            };
            let path = dir.join("accel");
            fs::write(&path, word).map_err(file_error("write", &path))
        })?;
        let word = fs::read_to_string(entry.join("accel")).unwrap_or_default();
        Ok(if word == "kvm" { Accel::Kvm } else { Accel::Tcg })
    }
}

/// Writes the dump that `output` describes, beginning its name with `stem`.
fn write_output(
    tool: &Makedumpfile,
    crash: &Crash,
    output: &Output,
    stem: &Path,
) -> Result<Vec<PathBuf>, LabError> {
    let fresh = |extension: &str| {
        let path = with_extension(stem, extension);
        // makedumpfile does not write over a file that is there.
        let _ = fs::remove_file(&path);
        path
    };
    let one = |path: PathBuf| Ok(vec![path]);
    match output {
        Output::Stream => {
            let path = fresh("flat");
            copy(&crash.stream(), &path)?;
            one(path)
        }
        Output::Rearranged => {
            let path = fresh("kdump");
            let stream = crash.stream();
            let input = fs::File::open(&stream).map_err(file_error("open", &stream))?;
            process::run_with_input(tool.command()?.arg("-R").arg(&path), input, Duration::from_mins(5))?;
            one(path)
        }
        Output::Vmcore => {
            let path = fresh("vmcore");
            copy(&crash.vmcore(), &path)?;
            one(path)
        }
        Output::Kdt { what } => {
            let path = fresh(if *what == KdtRun::Stream { "flat" } else { "kdump" });
            copy(&crash.kdt(*what), &path)?;
            one(path)
        }
        Output::Makedumpfile { args, extension, .. } => {
            let path = fresh(extension);
            tool.convert(args, &crash.vmcore(), &[&path])?;
            one(path)
        }
        Output::Split { args, parts } => {
            let paths: Vec<PathBuf> = (1..=*parts).map(|n| fresh(&format!("kdump.{n}"))).collect();
            let mut args = args.clone();
            args.push("--split".to_owned());
            let to: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
            tool.convert(&args, &crash.vmcore(), &to)?;
            Ok(paths)
        }
        Output::Qemu { format } => {
            let path = fresh(if format == "elf" { "elf" } else { "flat" });
            copy(&crash.qemu(format), &path)?;
            one(path)
        }
    }
}

/// Adds to the name, also where it has dots: `6.1-kdump-lzo` and `kdump` make `6.1-kdump-lzo.kdump`.
fn with_extension(stem: &Path, extension: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// Copies a file and keeps its holes.
fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto", "--"]).arg(from).arg(to);
    process::run(&mut cp, Duration::from_mins(5)).map(|_| ())
}
