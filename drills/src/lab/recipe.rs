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
}

/// What makes a guest fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// `echo c > /proc/sysrq-trigger`.
    #[default]
    Sysrq,
    /// A file in memory that grows until nothing is left, with `vm.panic_on_oom=1`.
    Oom,
}

impl Trigger {
    /// The word that the guest's init knows it by.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sysrq => "sysrq",
            Self::Oom => "oom",
        }
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
    /// What QEMU wrote.
    Qemu {
        /// QEMU's name of the format.
        format: String,
    },
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
}

impl RecipeBook {
    /// Reads the recipes that this program was built with.
    ///
    /// # Errors
    /// [`LabError::Content`] for recipes that do not fit; a test keeps that from happening.
    pub fn read() -> Result<Self, LabError> {
        toml::from_str(RECIPES).map_err(|e| LabError::Content {
            path: "drills/lab/recipes.toml".into(),
            why: e.message().to_owned(),
        })
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
    fn a_kernel_of_another_suite_needs_no_recipe() {
        let kernel = KernelSpec::named("trixie/linux-image-cloud-amd64").unwrap();
        assert_eq!(
            (kernel.suites, kernel.package),
            (vec!["trixie".into()], "linux-image-cloud-amd64".into())
        );
        assert!(KernelSpec::named("2.4").is_err());
    }
}
