//! The lab's recipes: `drills/lab/recipes.toml`, read.

use serde::{Deserialize, Serialize};

use super::error::LabError;

const RECIPES: &str = include_str!("../../lab/recipes.toml");

/// A kernel that the lab can boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSpec {
    /// The name on the command line.
    pub name: String,
    /// The Debian package, most often a meta package.
    pub package: String,
    /// How the kernel's release has to begin; empty for any.
    pub release: String,
    /// The suites to ask where this machine's sources do not have it.
    pub suites: Vec<String>,
}

impl KernelSpec {
    /// Reads a name from the recipes, or `SUITE/PACKAGE` for a kernel that they do not know, for example
    /// `trixie/linux-image-cloud-amd64`.
    ///
    /// # Errors
    /// [`LabError::Unknown`].
    pub fn named(name: &str) -> Result<Self, LabError> {
        if let Some((suite, package)) = name.split_once('/') {
            return Ok(Self {
                name: name.replace('/', "-"),
                package: package.to_owned(),
                release: String::new(),
                suites: vec![suite.to_owned()],
            });
        }
        let book = RecipeBook::read()?;
        let known = book.kernels.iter().map(|k| k.name.clone()).collect();
        let found = book.kernels.into_iter().find(|k| k.name == name);
        found.ok_or_else(|| LabError::Unknown { kind: "kernel", name: name.to_owned(), known })
    }
}

/// Where a newer makedumpfile comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakedumpfileSpec {
    /// The suites, best first.
    pub suites: Vec<String>,
}

/// A guest that fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashSpec {
    /// The name by which recipes ask for it.
    pub name: String,
    /// One sentence for `lab list`.
    pub about: String,
    /// How its memory becomes a file.
    pub how: How,
    /// The guest's memory.
    pub memory_mib: u32,
    /// The guest's CPUs.
    pub cpus: u32,
    /// What is added to QEMU's `-cpu max`, for example `la57=off`.
    #[serde(default)]
    pub cpu: String,
    /// What is added to the kernel command line.
    #[serde(default)]
    pub cmdline: String,
    /// What makes it fail.
    #[serde(default)]
    pub trigger: Trigger,
    /// Seconds after which the host sends it an NMI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nmi_after: Option<u64>,
    /// What the host tells QEMU's monitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorLine>,
    /// What its console must then say; empty for anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
}

/// A line for QEMU's monitor, while the guest fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorLine {
    /// Seconds after which it is told.
    pub after: u64,
    /// The line.
    pub line: String,
}

/// What makes a guest fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// `echo c > /proc/sysrq-trigger`.
    #[default]
    Sysrq,
    /// A file in memory that grows until nothing is left, with `vm.panic_on_oom=1`.
    Oom,
    /// Nothing inside: the host sends an NMI.
    Nmi,
    /// This word, written to the lab's own module (`drills/lab/module/lab_fail.c`), which fails that way.
    Module(String),
    /// This word likewise; it leaves tasks that wait, and `sysrq-c` follows.
    Held(String),
    /// Writers on a file system that is frozen.
    Frozen,
    /// `sysrq-c` with this many tasks, which wait in many ways.
    Crowd(u32),
    /// `sysrq-c` with secrets that are made from the mark, wherever secrets lie.
    Secrets,
    /// A block device that stands on others, or whose host does not answer, and tasks that wait for it.
    Storage(String),
    /// `sysrq-c` with a task for each thing that can be waited for.
    Waits,
    /// `sysrq-c` while an NFS server does not answer.
    Nfs,
    /// `sysrq-c` after much that the kernel survived.
    Earlier,
    /// Process 1 ends.
    InitExits,
    /// `sysrq-c` after a control group was out of memory.
    CgroupOom,
    /// `sysrq-c` with several network devices, and sockets that nobody reads.
    Net,
}

impl Trigger {
    /// The words that the guest's init knows it by, separated by commas.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Sysrq => "sysrq".to_owned(),
            Self::Oom => "oom".to_owned(),
            Self::Nmi => "nmi".to_owned(),
            Self::Module(word) => format!("module,{word}"),
            Self::Held(word) => format!("held,{word}"),
            Self::Frozen => "frozen".to_owned(),
            Self::Crowd(tasks) => format!("crowd,{tasks}"),
            Self::Secrets => "secrets".to_owned(),
            Self::Storage(word) => format!("storage,{word}"),
            Self::Waits => "waits".to_owned(),
            Self::Nfs => "nfs".to_owned(),
            Self::Earlier => "earlier".to_owned(),
            Self::InitExits => "init-exits".to_owned(),
            Self::CgroupOom => "cgroup-oom".to_owned(),
            Self::Net => "net".to_owned(),
        }
    }
}

/// A crash with a capture kernel loaded and one recipe of it, both by the same name: a guest of 384 MiB with two
/// CPUs, unless it says otherwise, whose dump is compressed with zstd at level 31.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureSpec {
    name: String,
    about: String,
    trigger: Trigger,
    #[serde(default = "failure_memory")]
    memory_mib: u32,
    #[serde(default)]
    cmdline: String,
    nmi_after: Option<u64>,
    monitor: Option<MonitorLine>,
    says: String,
}

fn failure_memory() -> u32 {
    384
}

impl FailureSpec {
    fn expand(self) -> (CrashSpec, Recipe) {
        let words = |list: [&str; 3]| list.map(str::to_owned).to_vec();
        let recipe = Recipe {
            name: self.name.clone(),
            about: self.about.clone(),
            crash: self.name.clone(),
            output: Output::Makedumpfile {
                args: words(["-z", "-d", "31"]),
                needs: Some("zstd".to_owned()),
                extension: kdump_extension(),
            },
        };
        let crash = CrashSpec {
            name: self.name,
            about: self.about,
            how: How::Kdump {
                crashkernel: "128M".to_owned(),
                makedumpfile: words(["-l", "-d", "31"]),
                kdt: Vec::new(),
            },
            memory_mib: self.memory_mib,
            cpus: 2,
            cpu: String::new(),
            cmdline: self.cmdline,
            trigger: self.trigger,
            nmi_after: self.nmi_after,
            monitor: self.monitor,
            says: self.says,
        };
        (crash, recipe)
    }
}

/// How a guest's memory becomes a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum How {
    /// By a capture kernel inside it.
    Kdump {
        /// What the first kernel sets aside for it.
        crashkernel: String,
        /// What `makedumpfile -F` is told in the capture kernel.
        makedumpfile: Vec<String>,
        /// What `kdt filter` is told there beside it; empty for no `kdt`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kdt: Vec<String>,
    },
    /// By QEMU.
    Host {
        /// In which state the guest is then.
        state: HostState,
        /// Whether the guest hands its VMCOREINFO over first.
        vmcoreinfo: bool,
    },
}

/// The state of a guest whose memory the host writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// After its panic.
    Panicked,
    /// Healthy.
    Running,
    /// After its failure, which does not end it: tasks hang.
    Hung,
    /// After its panic, while its capture kernel runs.
    Capturing,
}

/// One dump of one crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name on the command line, and in the names of the files.
    pub name: String,
    /// One sentence for `lab list`.
    pub about: String,
    /// The [`CrashSpec`] that it is a dump of.
    pub crash: String,
    /// Which file of it.
    pub output: Output,
}

/// Which file of a crash a recipe gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Output {
    /// The flattened stream that the capture kernel wrote.
    Stream,
    /// That stream after `makedumpfile -R`.
    Rearranged,
    /// `/proc/vmcore`, byte for byte.
    Vmcore,
    /// `/proc/vmcore` after makedumpfile with these words.
    Makedumpfile {
        /// What makedumpfile is told.
        args: Vec<String>,
        /// A codec that not every makedumpfile is built with.
        needs: Option<String>,
        /// The file's last part.
        #[serde(default = "kdump_extension")]
        extension: String,
    },
    /// `/proc/vmcore` after `makedumpfile --split`.
    Split {
        /// What makedumpfile is told.
        args: Vec<String>,
        /// How many files.
        parts: u32,
    },
    /// What `kdt filter` wrote in the capture kernel.
    Kdt {
        /// Which of its dumps.
        what: KdtRun,
    },
    /// What QEMU wrote.
    Qemu {
        /// QEMU's name of the format.
        format: String,
    },
}

/// The dumps that `kdt filter` writes in the capture kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KdtRun {
    /// A file.
    File,
    /// A flattened stream.
    Stream,
    /// A file that there was no room for.
    Part,
}

impl KdtRun {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::File, Self::Stream, Self::Part];

    /// The word for it: of the disk `kdt-WORD`, and on the console.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Stream => "stream",
            Self::Part => "part",
        }
    }

    /// How `kdt` has to end.
    #[must_use]
    pub fn exit(self) -> u8 {
        if self == Self::Part { 8 } else { 0 }
    }
}

fn kdump_extension() -> String {
    "kdump".to_owned()
}

/// All that `recipes.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeBook {
    /// The kernels.
    #[serde(rename = "kernel")]
    pub kernels: Vec<KernelSpec>,
    /// Where makedumpfile comes from.
    pub makedumpfile: MakedumpfileSpec,
    /// The guests that fail.
    #[serde(rename = "crash")]
    pub crashes: Vec<CrashSpec>,
    /// The dumps.
    #[serde(rename = "recipe")]
    pub recipes: Vec<Recipe>,
    /// Crashes with one recipe each; [`Self::read`] turns them into both.
    #[serde(rename = "failure", default)]
    failures: Vec<FailureSpec>,
}

impl RecipeBook {
    /// Reads the recipes that this program was built with.
    ///
    /// # Errors
    /// [`LabError::Content`] for recipes that do not fit; a test keeps that from happening.
    pub fn read() -> Result<Self, LabError> {
        let mut book: Self = toml::from_str(RECIPES).map_err(|e| LabError::Content {
            path: "drills/lab/recipes.toml".into(),
            why: e.message().to_owned(),
        })?;
        for failure in std::mem::take(&mut book.failures) {
            let (crash, recipe) = failure.expand();
            book.crashes.push(crash);
            book.recipes.push(recipe);
        }
        Ok(book)
    }

    /// The recipe `name`.
    ///
    /// # Errors
    /// [`LabError::Unknown`].
    pub fn recipe(&self, name: &str) -> Result<&Recipe, LabError> {
        self.recipes.iter().find(|r| r.name == name).ok_or_else(|| LabError::Unknown {
            kind: "recipe",
            name: name.to_owned(),
            known: self.recipes.iter().map(|r| r.name.clone()).collect(),
        })
    }

    /// The crash `name`.
    ///
    /// # Errors
    /// [`LabError::Unknown`].
    pub fn crash(&self, name: &str) -> Result<&CrashSpec, LabError> {
        self.crashes.iter().find(|c| c.name == name).ok_or_else(|| LabError::Unknown {
            kind: "crash",
            name: name.to_owned(),
            known: self.crashes.iter().map(|c| c.name.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_recipe_fits_its_crash() {
        let book = RecipeBook::read().unwrap();
        for recipe in &book.recipes {
            let crash = book.crash(&recipe.crash).unwrap();
            let from_host = matches!(crash.how, How::Host { .. });
            assert_eq!(
                matches!(recipe.output, Output::Qemu { .. }),
                from_host,
                "{} asks {} for what it does not leave",
                recipe.name,
                crash.name
            );
        }
    }

    #[test]
    fn names_are_there_once() {
        let book = RecipeBook::read().unwrap();
        let names: BTreeSet<_> = book.recipes.iter().map(|r| &r.name).collect();
        assert_eq!(names.len(), book.recipes.len());
        let names: BTreeSet<_> = book.crashes.iter().map(|r| &r.name).collect();
        assert_eq!(names.len(), book.crashes.len());
    }

    #[test]
    fn a_recipe_that_is_not_there_lists_those_that_are() {
        let err = RecipeBook::read().unwrap().recipe("kdump-zip").unwrap_err();
        assert_eq!(err.to_string(), "the lab has no recipe `kdump-zip`");
        assert!(err.hint().contains("kdump-zlib, kdump-zstd"), "{}", err.hint());
    }

    #[test]
    fn a_failure_says_how_it_is_known() {
        for crash in RecipeBook::read().unwrap().crashes {
            let by_itself = !matches!(crash.trigger, Trigger::Sysrq | Trigger::Oom);
            assert_eq!(by_itself, !crash.says.is_empty(), "{}", crash.name);
        }
    }

    #[test]
    fn a_kernel_of_another_suite_needs_no_recipe() {
        let kernel = KernelSpec::named("trixie/linux-image-cloud-amd64").unwrap();
        assert_eq!(
            (kernel.suites, kernel.package),
            (vec!["trixie".into()], "linux-image-cloud-amd64".into())
        );
        assert!(KernelSpec::named("2.4").is_err());
    }
}
