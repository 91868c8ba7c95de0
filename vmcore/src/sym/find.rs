//! Where debuginfo for a dumped kernel is, or which package has it. Looks at no disk and asks no server: a [`Finder`] does.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::build_id::BuildId;
use super::dwarf::{Debuginfo, DebuginfoError};

/// What debuginfo is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The build id of the kernel or module in the dump.
    pub build_id: Option<&'a BuildId>,
    /// `uname -r` of the dumped kernel.
    pub release: Option<&'a str>,
    /// The module's name; `None` for the kernel itself.
    pub module: Option<&'a str>,
}

/// Somebody who finds debuginfo: on disk, or from a server.
pub trait Finder: fmt::Debug + Send + Sync {
    /// The file for it, or `None` where there is none. Whether it really belongs to the dump is checked by the caller.
    ///
    /// # Errors
    /// When somebody asked for a file that is of no use.
    fn find(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<Debuginfo>>, DebuginfoError>;
}

/// A release is a word of a file name: anything else in it came from damage, or is meant to do harm.
#[must_use]
pub fn is_release(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(plain)
}

/// The files that distributions have a kernel's debuginfo in, best first: by build id, then by release.
#[must_use]
pub fn kernel_paths(wanted: &Wanted<'_>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = wanted.build_id.map(by_build_id).into_iter().collect();
    if let Some(release) = wanted.release.filter(|r| is_release(r)) {
        paths.extend(
            [
                // RHEL, Fedora and their kin
                format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
                format!("/usr/lib/debug/usr/lib/modules/{release}/vmlinux"),
                // Debian, Ubuntu
                format!("/usr/lib/debug/boot/vmlinux-{release}"),
                format!("/usr/lib/debug/vmlinux-{release}"),
                // SUSE
                format!("/usr/lib/debug/boot/vmlinux-{release}.debug"),
                format!("/usr/lib/debug/usr/lib/modules/{release}/vmlinux.debug"),
                format!("/usr/lib/debug/lib/modules/{release}/vmlinux.debug"),
                // Kernels that were built here
                format!("/lib/modules/{release}/build/vmlinux"),
                format!("/lib/modules/{release}/vmlinux"),
                format!("/boot/vmlinux-{release}"),
            ]
            .map(PathBuf::from),
        );
    }
    paths
}

/// Directories with the modules' files of a release, best first; the files are somewhere below.
#[must_use]
pub fn module_folders(release: &str) -> Vec<PathBuf> {
    if !is_release(release) {
        return Vec::new();
    }
    let folders = [
        format!("/usr/lib/debug/lib/modules/{release}"),
        format!("/usr/lib/debug/usr/lib/modules/{release}"),
        format!("/lib/modules/{release}"),
    ];
    folders.map(PathBuf::from).into()
}

/// The module that a file name stands for: `virtio-blk.ko.debug` is `virtio_blk`, as the kernel calls it.
#[must_use]
pub fn module_name(file: &str) -> Option<String> {
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".debug" | ".zst").then(|| stem.replace('-', "_"))
}

fn by_build_id(id: &BuildId) -> PathBuf {
    let (first, rest) = id.split();
    PathBuf::from(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"))
}

/// A package that would have a kernel's debuginfo.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Package {
    /// Its name, with the version.
    pub name: String,
    /// What installs it.
    pub command: String,
    /// True where the kernel names its distribution; otherwise the shape of its release is all there is.
    pub sure: bool,
}

impl fmt::Display for Package {
    /// `probably in the package kernel-debuginfo-4.18.0-553.el8_10.x86_64 («dnf debuginfo-install …»)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probably = if self.sure { "" } else { "probably " };
        write!(f, "{probably}in the package {} («{}»)", self.name, self.command)
    }
}

/// The package with the debuginfo of a kernel: by `uname -r`, and by its banner or `uname -v` where there is one. `None` for a kernel that
/// looks like no distribution's.
#[must_use]
pub fn package(release: &str, banner: Option<&str>) -> Option<Package> {
    if !is_release(release) {
        return None;
    }
    let banner = banner.unwrap_or_default();
    red_hat(release, banner)
        .or_else(|| ubuntu(release, banner))
        .or_else(|| debian(release, banner))
        .or_else(|| suse(release, banner))
}

fn red_hat(release: &str, banner: &str) -> Option<Package> {
    let has = |tag: &str| {
        // `.el9_4`, `.el8uek`, `.fc41`, `.amzn2023`
        release
            .split('.')
            .any(|part| part.strip_prefix(tag).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())))
    };
    let (red_hat, fedora, amazon) = (has("el"), has("fc"), has("amzn"));
    if !red_hat && !fedora && !amazon {
        return None;
    }
    // `5.14.0-427.el9.x86_64+rt`: the flavour is part of the release, not of the version.
    let (version, flavour) = release.split_once('+').unwrap_or((release, ""));
    let kind = if release.contains("uek") {
        "-uek"
    } else if flavour.starts_with("rt") || version.contains(".rt") {
        "-rt"
    } else if flavour.starts_with("debug") {
        "-debug"
    } else if flavour.starts_with("64k") {
        "-64k"
    } else {
        ""
    };
    let name = format!("kernel{kind}-debuginfo-{version}");
    let command = if version.contains(".el7") || version.contains(".amzn2.") {
        format!("debuginfo-install kernel{kind}-{version}")
    } else {
        format!("dnf --enablerepo='*debug*' install {name}")
    };
    let known = [
        "redhat.com",
        "Red Hat",
        "centos.org",
        "rockylinux",
        "almalinux",
        "fedoraproject",
        "oracle.com",
        "amazon",
    ];
    Some(Package { name, command, sure: known.iter().any(|word| banner.contains(word)) })
}

fn ubuntu(release: &str, banner: &str) -> Option<Package> {
    let flavours = [
        "-generic",
        "-lowlatency",
        "-aws",
        "-azure",
        "-gcp",
        "-kvm",
        "-oracle",
        "-generic-hwe",
        "-ibm",
        "-gke",
    ];
    let sure = banner.contains("Ubuntu");
    (sure || flavours.iter().any(|flavour| release.ends_with(flavour)) && !banner.contains("Debian")).then(
        || {
            let name = format!("linux-image-{release}-dbgsym");
            Package { command: format!("apt install {name}, from ddebs.ubuntu.com"), name, sure }
        },
    )
}

fn debian(release: &str, banner: &str) -> Option<Package> {
    let sure = banner.contains("Debian") || banner.contains("debian.org");
    let machines = ["amd64", "arm64", "686", "686-pae", "ppc64el", "s390x", "riscv64"];
    let shaped = machines.iter().any(|machine| release.ends_with(&format!("-{machine}")));
    shaped.then(|| {
        let name = format!("linux-image-{release}-dbg");
        Package { command: format!("apt install {name}"), name, sure }
    })
}

fn suse(release: &str, banner: &str) -> Option<Package> {
    let (version, flavour) = release.rsplit_once('-')?;
    let known = ["default", "preempt", "azure", "kvmsmall", "debug", "vanilla", "64kb", "longterm"];
    known.contains(&flavour).then(|| {
        let name = format!("kernel-{flavour}-debuginfo-{version}");
        Package {
            command: format!("zypper install kernel-{flavour}-debuginfo={version}"),
            name,
            sure: banner.contains("SUSE"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(release: &str, banner: &str) -> String {
        package(release, Some(banner)).map(|p| p.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_package_is_told_by_the_shape_of_the_release() {
        let mockbuild = "(mockbuild@x86-64-01.build.eng.rdu2.redhat.com)";
        assert_eq!(
            told("4.18.0-553.el8_10.x86_64", mockbuild),
            "in the package kernel-debuginfo-4.18.0-553.el8_10.x86_64 \
             («dnf --enablerepo='*debug*' install kernel-debuginfo-4.18.0-553.el8_10.x86_64»)"
        );
        assert_eq!(
            told("3.10.0-1160.el7.x86_64", ""),
            "probably in the package kernel-debuginfo-3.10.0-1160.el7.x86_64 («debuginfo-install kernel-3.10.0-1160.el7.x86_64»)"
        );
        assert!(told("5.14.0-427.el9.x86_64+rt", "").contains("kernel-rt-debuginfo-5.14.0-427.el9.x86_64 "));
        assert!(told("5.15.0-100.96.32.el9uek.x86_64", "").contains("kernel-uek-debuginfo-"));
        assert!(
            told("6.12.9-200.fc41.x86_64", "").contains("probably in the package kernel-debuginfo-6.12.9")
        );
        assert!(
            told("6.1.0-44-cloud-amd64", "#1 SMP Debian 6.1.164-1")
                .starts_with("in the package linux-image-6.1.0-44-cloud-amd64-dbg")
        );
        assert!(
            told("6.8.0-40-generic", "#40-Ubuntu SMP")
                .starts_with("in the package linux-image-6.8.0-40-generic-dbgsym")
        );
        assert!(
            told("5.15.0-1053-aws", "")
                .starts_with("probably in the package linux-image-5.15.0-1053-aws-dbgsym")
        );
        assert!(
            told("5.14.21-150500.55.7-default", "").contains("kernel-default-debuginfo-5.14.21-150500.55.7")
        );
        assert_eq!(
            told("6.9.1", "#1 SMP PREEMPT_DYNAMIC"),
            "",
            "a kernel that somebody built has no package"
        );
    }

    #[test]
    fn a_release_that_is_no_word_makes_no_path() {
        for bad in ["", "../../etc", "6.1/x", "6.1 x", "x6", "6.1\0"] {
            let wanted = Wanted { release: Some(bad), ..Wanted::default() };
            assert!(kernel_paths(&wanted).is_empty() && module_folders(bad).is_empty(), "{bad:?}");
            assert_eq!(package(bad, None), None);
        }
        let id: BuildId = "abcdef".parse().unwrap();
        let wanted = Wanted { build_id: Some(&id), release: Some("6.1.0-44-amd64"), module: None };
        let paths = kernel_paths(&wanted);
        assert_eq!(paths.first(), Some(&PathBuf::from("/usr/lib/debug/.build-id/ab/cdef.debug")));
        assert!(paths.contains(&PathBuf::from("/usr/lib/debug/boot/vmlinux-6.1.0-44-amd64")));
    }

    #[test]
    fn a_module_file_names_its_module() {
        assert_eq!(module_name("virtio-blk.ko.debug").as_deref(), Some("virtio_blk"));
        assert_eq!(module_name("ext4.ko").as_deref(), Some("ext4"));
        assert_eq!((module_name("modules.dep"), module_name("x.ko.sig")), (None, None));
    }
}
