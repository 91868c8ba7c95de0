//! Reads from a host bundle the few files that the rules ask for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use crate::exit::{Exit, Failure};

/// The longest file that is read; what is longer counts as missing.
const LONGEST: u64 = 16 << 20;
/// Bytes of a bundle, decompressed, that are looked through.
const MOST: u64 = 8 << 30;
/// Entries of a bundle.
const ENTRIES: usize = 2_000_000;

/// What each fact is read from, the first that is there. A name is the file's in the bundle, without the bundle's own directory.
pub(super) const FILES: &[&str] = &[
    "proc/sys/kernel/hostname",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/panic_on_oops",
    "proc/cmdline",
    "sys/kernel/kexec_crash_loaded",
    "sys/kernel/kexec_crash_size",
    "etc/hostname",
    "etc/kdump.conf",
    "etc/default/kdump-tools",
    "sos_commands/host/hostname",
    "sos_commands/kernel/uname_-a",
    "sos_commands/kernel/sysctl_-a",
    "sos_commands/kernel/modinfo_ALL_MODULES",
    "sos_commands/kdump/kdumpctl_status",
    "sos_commands/kdump/kdump-config_status",
    "sos_commands/kdump/kdump-config_show",
    "sos_commands/dpkg/dpkg_-l",
    "sos_commands/rpm/rpm_--nodigest_-qa",
];
/// sos has the same list of packages under a longer name.
const RPMS: &str = "sos_commands/rpm/sh_-c_rpm_--nodigest_-qa";

/// The files of a bundle that were there.
#[derive(Clone, Debug, Default)]
pub struct HostBundle {
    /// What was given.
    pub path: PathBuf,
    files: BTreeMap<&'static str, String>,
}

/// A line of a file in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The file.
    pub(super) file: &'static str,
    /// Which line, from 1.
    pub(super) number: usize,
    /// Its text, without blanks around it.
    pub(super) text: &'a str,
}

impl Line<'_> {
    /// As evidence: `etc/kdump.conf:3: core_collector cp`.
    pub(super) fn evidence(&self) -> String {
        format!("{}:{}: {}", self.file, self.number, self.text)
    }
}

impl HostBundle {
    /// Reads a bundle: the `.tar.gz` of `kdt collect`, or a directory into which it or a sos report was unpacked.
    ///
    /// # Errors
    /// It can't be read, or is no bundle.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let said = |error: &std::io::Error| Failure::io("read the host bundle", path, error);
        let mut bundle = Self { path: path.to_owned(), files: BTreeMap::new() };
        if std::fs::metadata(path).map_err(|error| said(&error))?.is_dir() {
            bundle.read_directory(path);
        } else {
            bundle.read_archive(path).map_err(|error| {
                Failure::new(
                    Exit::Input,
                    format!("{} can't be read as a host bundle: {error}", path.display()),
                    "name the .tar.gz that kdt collect wrote, or the directory into which a bundle or a sos report was unpacked",
                )
            })?;
        }
        if bundle.files.is_empty() {
            return Err(Failure::new(
                Exit::Input,
                format!("{} has none of the files of a host bundle", path.display()),
                "name the .tar.gz that kdt collect wrote, or the directory into which a bundle or a sos report was unpacked",
            ));
        }
        Ok(bundle)
    }

    /// A bundle of these files, for tests and for who has them at hand.
    #[must_use]
    pub fn of(files: &[(&'static str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Self { path: PathBuf::from("bundle"), files }
    }

    fn read_directory(&mut self, dir: &Path) {
        // The bundle's own directory, or the one that it was unpacked into.
        let below = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut roots: Vec<PathBuf> = below.filter(|path| path.join("sos_commands").is_dir()).collect();
        roots.sort_unstable();
        let root = if dir.join("sos_commands").is_dir() {
            dir.to_owned()
        } else {
            roots.into_iter().next().unwrap_or_else(|| dir.to_owned())
        };
        for name in FILES {
            let path = root.join(name);
            // A link of an unpacked bundle could lead anywhere on this host.
            let inside = path
                .canonicalize()
                .ok()
                .zip(root.canonicalize().ok())
                .is_some_and(|(path, root)| path.starts_with(root));
            if inside
                && let Ok(file) = File::open(&path)
                && file.metadata().is_ok_and(|meta| meta.is_file())
            {
                self.take(name, file);
            }
        }
        let rpm = std::fs::read_dir(root.join("sos_commands/rpm")).into_iter().flatten().flatten();
        for entry in
            rpm.filter(|entry| entry.file_name().to_string_lossy().starts_with("sh_-c_rpm_--nodigest_-qa"))
        {
            if let Ok(file) = File::open(entry.path()) {
                self.take("sos_commands/rpm/rpm_--nodigest_-qa", file);
            }
        }
    }

    fn read_archive(&mut self, path: &Path) -> std::io::Result<()> {
        let file = BufReader::new(File::open(path)?);
        let mut archive = tar::Archive::new(flate2::bufread::MultiGzDecoder::new(file).take(MOST));
        for entry in archive.entries()?.take(ENTRIES) {
            let entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path()?.into_owned();
            let inner: PathBuf =
                name.components().filter(|part| matches!(part, Component::Normal(_))).skip(1).collect();
            let Some(inner) = inner.to_str() else { continue };
            let known = FILES.iter().copied().find(|known| *known == inner);
            let known =
                known.or_else(|| inner.starts_with(RPMS).then_some("sos_commands/rpm/rpm_--nodigest_-qa"));
            if let Some(known) = known {
                self.take(known, entry);
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &'static str, content: impl Read) {
        let mut bytes = Vec::new();
        let whole = content.take(LONGEST + 1).read_to_end(&mut bytes).is_ok();
        if whole && u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST) {
            self.files.entry(name).or_insert_with(|| String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    /// The lines of a file; `None` where the bundle does not have it.
    pub(super) fn lines(&self, file: &'static str) -> Option<impl Iterator<Item = Line<'_>>> {
        let text = self.files.get(file)?;
        Some(text.lines().zip(1..).map(move |(line, number)| Line { file, number, text: line.trim() }))
    }

    /// The first line of a file that is not empty.
    pub(super) fn first(&self, file: &'static str) -> Option<Line<'_>> {
        self.lines(file)?.find(|line| !line.text.is_empty())
    }
}
