//! Debian packages, asked from apt: the name behind a meta package, its download, its unpacking.
//!
//! Nothing is installed. No version is named anywhere, because old versions vanish from the mirrors.
//! Suites that this machine does not list get a private state folder in the cache.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::cache::Cache;
use super::error::{LabError, file_error};
use super::process::{find_program, run};

const QUERY: Duration = Duration::from_mins(1);
const DOWNLOAD: Duration = Duration::from_mins(10);
/// How old the lists of a private suite may become.
const FRESH: Duration = Duration::from_hours(24);

/// One package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name, for example `linux-image-6.1.0-56-cloud-amd64`.
    pub name: String,
    /// Its version, for example `6.1.192-2`.
    pub version: String,
    /// The names of the packages that it depends on, without alternatives and versions.
    pub depends: Vec<String>,
}

/// apt, with the sources of this machine or with one suite of its own.
#[derive(Clone, Debug)]
pub struct Apt {
    cache: Cache,
    config: Option<PathBuf>,
}

impl Apt {
    /// With the sources that this machine has.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`] on a machine without apt.
    pub fn of_this_machine(cache: &Cache) -> Result<Self, LabError> {
        find_program("apt-get", "apt")?;
        find_program("dpkg-deb", "dpkg")?;
        Ok(Self { cache: cache.clone(), config: None })
    }

    /// With the suite `suite` of the Debian mirror that this machine uses, and with nothing else.
    ///
    /// # Errors
    /// [`LabError::Package`] where this machine has no Debian source, [`LabError::Command`] where the mirror
    /// does not answer.
    pub fn of_suite(cache: &Cache, suite: &str) -> Result<Self, LabError> {
        let machine = Self::of_this_machine(cache)?;
        let _lock = cache.lock(&format!("suite-{suite}"))?;
        let dir = cache.root().join("suites").join(suite);
        let config = dir.join("apt.conf");
        let apt = Self { cache: cache.clone(), config: Some(config.clone()) };
        let updated = fs::metadata(dir.join("updated")).and_then(|m| m.modified());
        let age = updated.ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(apt);
        }
        let mirror = machine.debian_mirror()?;
        for sub in ["lists/partial", "archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(file_error("make", &sub))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(file_error("write", &path))
        };
        write(
            "sources.list",
            format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main\n"),
        )?;
        write("status", String::new())?;
        let d = dir.display();
        write(
            "apt.conf",
            format!(
                "Dir::State::Lists \"{d}/lists\";\nDir::Cache \"{d}\";\nDir::Etc::SourceList \"{d}/sources.list\";\n\
                 Dir::Etc::SourceParts \"-\";\nDir::State::Status \"{d}/status\";\nAcquire::Languages \"none\";\n\
                 APT::Sandbox::User \"\";\n"
            ),
        )?;
        run(apt.command("apt-get").args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]), DOWNLOAD)?;
        run(apt.command("apt-cache").args(["--quiet=2", "gencaches"]), DOWNLOAD)?;
        write("updated", String::new())?;
        Ok(apt)
    }

    /// What apt knows about one package, in the version that it would install.
    ///
    /// # Errors
    /// [`LabError::Package`] where apt does not know it.
    pub fn show(&self, package: &str) -> Result<Package, LabError> {
        let out =
            run(self.command("apt-cache").args(["show", "--no-all-versions", "--quiet=2", package]), QUERY)
                .map_err(|e| LabError::Package { package: package.to_owned(), why: apt_says(&e) })?;
        parse_show(&String::from_utf8_lossy(&out)).ok_or_else(|| LabError::Package {
            package: package.to_owned(),
            why: "apt's answer has no version".to_owned(),
        })
    }

    /// The package itself that a meta package stands for: the one among its dependencies whose name goes on
    /// as `stem` does. A package that is no meta package stands for itself.
    ///
    /// # Errors
    /// [`LabError::Package`] where apt does not know one of the two.
    pub fn resolve(&self, meta: &str, stem: &str) -> Result<Package, LabError> {
        let package = self.show(meta)?;
        match package.depends.iter().find(|d| d.starts_with(stem)) {
            Some(real) => self.show(&real.clone()),
            None => Ok(package),
        }
    }

    /// Downloads and unpacks packages into one folder, beginning with `first`: level by level their
    /// dependencies that `follow` accepts, until `enough` is content.
    ///
    /// # Errors
    /// [`LabError::Package`] for a package that cannot be had, [`LabError::Command`] for a broken one.
    pub fn unpack(
        &self,
        first: &Package,
        into: &Path,
        follow: impl Fn(&str) -> bool,
        enough: impl Fn(&Path) -> bool,
    ) -> Result<(), LabError> {
        let mut level = VecDeque::from([first.clone()]);
        let mut seen = BTreeSet::from([first.name.clone()]);
        while !level.is_empty() {
            for package in &level {
                let deb = self.download(package)?;
                run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into), DOWNLOAD)?;
            }
            if enough(into) {
                break;
            }
            let mut next = VecDeque::new();
            for name in level.iter().flat_map(|p| &p.depends) {
                if follow(name) && seen.insert(name.clone()) {
                    next.push_back(self.show(name)?);
                }
            }
            level = next;
        }
        Ok(())
    }

    /// The package's file in the cache, downloaded where it is not there yet.
    fn download(&self, package: &Package) -> Result<PathBuf, LabError> {
        let key = super::cache::key(&[&package.name, &package.version]);
        let entry = self.cache.entry("packages", &key, |dir| {
            let wanted = format!("{}={}", package.name, package.version);
            let sandbox = ["-q", "-o", "APT::Sandbox::User=", "download"];
            run(self.command("apt-get").args(sandbox).arg(&wanted).current_dir(dir), DOWNLOAD)
                .map_err(|e| LabError::Package { package: wanted.clone(), why: apt_says(&e) })?;
            Ok(())
        })?;
        let files = fs::read_dir(&entry).map_err(file_error("list", &entry))?;
        files
            .filter_map(|f| f.ok().map(|f| f.path()))
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .ok_or_else(|| LabError::Content { path: entry, why: "it has no .deb".to_owned() })
    }

    /// The address of the Debian archive from which this machine takes its packages, in apt's own words.
    fn debian_mirror(&self) -> Result<String, LabError> {
        let format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)";
        let out = run(
            self.command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]),
            QUERY,
        )?;
        let text = String::from_utf8_lossy(&out);
        let mirror = text.lines().find_map(|line| line.strip_prefix("Debian|Debian|main|"));
        mirror.map(str::to_owned).ok_or_else(|| LabError::Package {
            package: "debian-archive".to_owned(),
            why: "this machine's apt sources have no Debian archive".to_owned(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(config) = &self.config {
            command.env("APT_CONFIG", config);
            // Reading a suite's lists takes seconds, so their parsed form is kept; Debian's container images
            // forbid that in apt.conf.d, which only options on the command line outrank.
            command.args(["-o", "Dir::Cache::pkgcache=pkgcache.bin"]);
            command.args(["-o", "Dir::Cache::srcpkgcache=srcpkgcache.bin"]);
        }
        command
    }
}

fn apt_says(error: &LabError) -> String {
    match error {
        LabError::Command { said, .. } => said.clone(),
        other => other.to_string(),
    }
}

/// Reads the first paragraph of `apt-cache show`.
fn parse_show(text: &str) -> Option<Package> {
    let paragraph = text.split("\n\n").next()?;
    let field = |name: &str| {
        paragraph
            .lines()
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).map(str::trim))
    };
    let depends = [field("Pre-Depends"), field("Depends")]
        .into_iter()
        .flatten()
        .flat_map(|list| list.split(','))
        .filter_map(|entry| entry.split('|').next())
        .filter_map(|entry| entry.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect();
    Some(Package { name: field("Package")?.to_owned(), version: field("Version")?.to_owned(), depends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_lose_versions_architectures_and_alternatives() {
        let text = "Package: makedumpfile\nVersion: 1:1.7.8-1\nPre-Depends: a\n\
                    Depends: perl:any, libc6 (>= 2.38), default-x | x, zlib1g (>= 1:1.2.0)\n\nPackage: other\n";
        let package = parse_show(text).unwrap();
        assert_eq!(package.name, "makedumpfile");
        assert_eq!(package.version, "1:1.7.8-1");
        assert_eq!(package.depends, ["a", "perl", "libc6", "default-x", "zlib1g"]);
    }

    #[test]
    fn an_answer_without_version_is_no_package() {
        assert_eq!(parse_show("Package: virtual\n"), None);
        assert_eq!(parse_show(""), None);
    }

    #[test]
    fn a_package_that_apt_does_not_know_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let Ok(apt) = Apt::of_this_machine(&cache) else {
            println!("SKIP a_package_that_apt_does_not_know_is_named: apt is not installed");
            return;
        };
        let err = apt.show("linux-image-no-such-kernel").unwrap_err();
        assert!(err.to_string().starts_with("the Debian package `linux-image-no-such-kernel` cannot be had"));
        assert!(err.is_missing_tool());
    }
}
