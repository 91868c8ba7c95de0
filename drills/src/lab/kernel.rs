//! Kernels out of Debian packages: unpacked into the cache, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::{Apt, Package};
use super::cache::{Cache, key};
use super::error::{LabError, file_error};
use super::recipe::KernelSpec;

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The package that it is from, with its version.
    pub package: Package,
    /// The boot image.
    pub image: PathBuf,
    /// Its folder below `lib/modules`.
    pub modules: PathBuf,
    /// Where the package came from, and what else belongs to it comes from.
    pub(super) apt: Apt,
}

impl Kernel {
    /// Takes the kernel from the cache, or from the mirror: first with this machine's sources, then with the
    /// suites that the spec names.
    ///
    /// # Errors
    /// [`LabError::Package`] where no source has a kernel of that release.
    pub fn fetch(cache: &Cache, spec: &KernelSpec, talk: &dyn Fn(&str)) -> Result<Self, LabError> {
        let mut why = String::new();
        // A kernel of any release means the one of its suite.
        let own = (!spec.release.is_empty()).then_some(None);
        for suite in own.into_iter().chain(spec.suites.iter().map(Some)) {
            match Self::from_suite(cache, spec, suite, talk) {
                Ok(kernel) => return Ok(kernel),
                Err(e @ LabError::MissingProgram { .. }) => return Err(e),
                Err(e) => {
                    let place = suite.map_or("this machine's sources", String::as_str);
                    if !why.is_empty() {
                        why.push_str("; ");
                    }
                    why.push_str(place);
                    why.push_str(": ");
                    why.push_str(&e.to_string());
                }
            }
        }
        Err(LabError::Package { package: spec.package.clone(), why })
    }

    fn from_suite(
        cache: &Cache,
        spec: &KernelSpec,
        suite: Option<&String>,
        talk: &dyn Fn(&str),
    ) -> Result<Self, LabError> {
        let apt = match suite {
            None => Apt::of_this_machine(cache)?,
            Some(suite) => Apt::of_suite(cache, suite)?,
        };
        let package = apt.resolve(&spec.package, "linux-image-")?;
        let release = package.name.trim_start_matches("linux-image-");
        if !release.starts_with(&spec.release) {
            return Err(LabError::Package {
                package: spec.package.clone(),
                why: format!("it stands for {}, not for a kernel {}*", package.name, spec.release),
            });
        }
        let entry = cache.entry("kernels", &key(&["kernel", &package.name, &package.version]), |dir| {
            talk(&format!("taking {} {}", package.name, package.version));
            // Some releases keep the image, the modules and the list of what is built in in packages of their own.
            let follow = |name: &str| {
                ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"]
                    .iter()
                    .any(|p| name.starts_with(p))
            };
            let unpacked = dir.join("root");
            apt.unpack(&package, &unpacked, follow, |root| parts(root).is_some())?;
            parts(&unpacked).map(|_| ()).ok_or_else(|| LabError::Package {
                package: package.name.clone(),
                why: "it has no boot image, or no modules".to_owned(),
            })
        })?;
        let (image, modules) = parts(&entry.join("root")).ok_or_else(|| LabError::Content {
            path: entry.clone(),
            why: "its boot image or its modules are gone".to_owned(),
        })?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { release, package, image, modules, apt })
    }

    /// The image's bytes.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn read_image(&self) -> Result<Vec<u8>, LabError> {
        fs::read(&self.image).map_err(file_error("read", &self.image))
    }
}

/// The boot image and the module folder of an unpacked kernel.
fn parts(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let list = |dir: PathBuf| {
        let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        paths
    };
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .flat_map(|dir| list(root.join(dir)))
        .find(|dir| dir.join("modules.builtin").is_file())?;
    let mut images = list(root.join("boot"));
    images.extend(list(modules.clone()));
    let image = images
        .into_iter()
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))?;
    Some((image, modules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_and_modules_are_found_wherever_debian_puts_them() {
        for lib in ["lib", "usr/lib"] {
            let dir = tempfile::tempdir().unwrap();
            let modules = dir.path().join(lib).join("modules/6.1.0-9-x");
            fs::create_dir_all(&modules).unwrap();
            fs::create_dir_all(dir.path().join("boot")).unwrap();
            fs::write(dir.path().join("boot/System.map-6.1.0-9-x"), "").unwrap();
            fs::write(dir.path().join("boot/vmlinuz-6.1.0-9-x"), "").unwrap();
            assert_eq!(parts(dir.path()), None);
            fs::write(modules.join("modules.builtin"), "").unwrap();
            let (image, found) = parts(dir.path()).unwrap();
            assert_eq!(image, dir.path().join("boot/vmlinuz-6.1.0-9-x"));
            assert_eq!(found, modules);
        }
    }
}
