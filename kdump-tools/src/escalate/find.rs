//! Where this host's dumps are: what kdump's configuration says, and the newest dump there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::exit::plain_io;
use crate::pack::{shown, shown_path};

/// Where kdump writes when nothing else is configured.
const DEFAULT: &str = "/var/crash";
/// A configuration file of kdump is short; what is longer is none.
const CONFIG_BYTES: u64 = 1 << 20;

/// A dump that was found, with what kdump wrote beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundDump {
    /// Its files; more than one for a split set.
    pub files: Vec<PathBuf>,
    /// Logs of the crashed and of the capture kernel beside it.
    pub logs: Vec<PathBuf>,
    /// Where it was looked for, and why.
    pub why: String,
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The newest dump.
    pub newest: Option<FoundDump>,
    /// What the search saw and could not use, each in one sentence.
    pub notes: Vec<String>,
}

/// Finds the newest dump of the host whose root is `root`.
#[must_use]
pub fn find(root: &Path) -> Search {
    let mut search = Search::default();
    let mut places = configured(root, &mut search.notes);
    let default = below(root, DEFAULT);
    if !places.iter().any(|(place, _)| *place == default) {
        places.push((default, "where kdump writes by default".into()));
    }
    let mut newest: Option<(SystemTime, FoundDump)> = None;
    for (place, why) in places {
        for (time, files, logs) in dumps_in(&place, &mut search.notes) {
            if newest.as_ref().is_none_or(|(other, _)| time > *other) {
                newest = Some((
                    time,
                    FoundDump { files, logs, why: format!("the newest in {} ({why})", shown_path(&place)) },
                ));
            }
        }
    }
    search.newest = newest.map(|(_, dump)| dump);
    search
}

/// Files beside a dump that kdump wrote about the same crash.
pub(super) fn logs_beside(dump: &Path) -> Vec<PathBuf> {
    let Some(folder) = dump.parent() else { return Vec::new() };
    list(folder).map(|files| files.into_iter().filter(|path| is_log(path)).collect()).unwrap_or_default()
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The places that the configuration of kdump names, and which file says so.
fn configured(root: &Path, notes: &mut Vec<String>) -> Vec<(PathBuf, String)> {
    let mut places = Vec::new();
    // kdump-utils (RHEL, Fedora): kdump.conf(5).
    let mut path = None;
    let mut device = None;
    for line in config_lines(&below(root, "/etc/kdump.conf")) {
        let mut words = line.split_whitespace();
        let (Some(key), value) = (words.next(), words.next().unwrap_or_default()) else { continue };
        match key {
            "path" => path = Some(value.to_owned()),
            "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "minix" | "nfs" | "virtiofs" => device = Some(value.to_owned()),
            "ssh" => notes.push(format!("/etc/kdump.conf sends dumps to {} by ssh: look there, and name the dump with --dump", shown(value.as_bytes()))),
            "raw" => notes.push(format!("/etc/kdump.conf writes dumps to the device {}: copy it into a file, and name that with --dump", shown(value.as_bytes()))),
            _ => {}
        }
    }
    let configured = path.as_deref().unwrap_or(DEFAULT).to_owned();
    match device {
        Some(device) => match mounted_at(root, &device) {
            Some(mount) => places.push((below(&below(root, &mount), &configured), "as /etc/kdump.conf says".into())),
            None => notes.push(format!("/etc/kdump.conf writes dumps to {}, which is not mounted: mount it, or name the dump with --dump", shown(device.as_bytes()))),
        },
        None if path.is_some() => places.push((below(root, &configured), "as /etc/kdump.conf says".into())),
        None => {}
    }
    // Debian's kdump-tools, and SUSE's kdump.
    for (file, key) in
        [("/etc/default/kdump-tools", "KDUMP_COREDIR"), ("/etc/sysconfig/kdump", "KDUMP_SAVEDIR")]
    {
        for line in config_lines(&below(root, file)) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            let value = value.strip_prefix("file://").unwrap_or(value);
            if name.trim() == key && value.starts_with('/') {
                places.push((below(root, value), format!("as {file} says")));
            }
        }
    }
    places
}

fn config_lines(path: &Path) -> Vec<String> {
    if fs::metadata(path).map_or(true, |meta| !meta.is_file() || meta.len() > CONFIG_BYTES) {
        return Vec::new();
    }
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Where a device, `UUID=…`, `LABEL=…` or network export is mounted.
fn mounted_at(root: &Path, device: &str) -> Option<String> {
    let by = |kind: &str, name: &str| fs::canonicalize(below(root, "/dev/disk").join(kind).join(name)).ok();
    let wanted = match device.split_once('=') {
        Some(("UUID", name)) => by("by-uuid", name.trim_matches('"'))?,
        Some(("LABEL", name)) => by("by-label", name.trim_matches('"'))?,
        Some(("PARTUUID", name)) => by("by-partuuid", name.trim_matches('"'))?,
        _ => fs::canonicalize(below(root, device)).unwrap_or_else(|_| device.into()),
    };
    let mounts = fs::read(below(root, "/proc/mounts")).unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts).into_owned();
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (source, target) = (words.next()?, words.next()?);
        let real = fs::canonicalize(source).unwrap_or_else(|_| source.into());
        // The kernel writes a blank in a name as \040 (fs/proc_namespace.c, mangle()).
        (real == wanted || source == device).then(|| target.replace("\\040", " "))
    })
}

fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

type Candidate = (SystemTime, Vec<PathBuf>, Vec<PathBuf>);

/// The dumps in the folders of a place, and in the place itself.
fn dumps_in(place: &Path, notes: &mut Vec<String>) -> Vec<Candidate> {
    let entries = match list(place) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            notes.push(format!("{} can't be read: {}", shown_path(place), plain_io(&e)));
            return Vec::new();
        }
    };
    let mut found: Vec<Candidate> = Vec::new();
    found.extend(dump_of(&entries));
    for folder in entries.iter().filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("kdump-test-") {
            notes.push(format!("{} is of a test of kdump, and is passed over", shown_path(folder)));
            continue;
        }
        match list(folder) {
            Ok(files) => match dump_of(&files) {
                Some(dump) => found.push(dump),
                None if files.iter().any(|path| is_log(path)) => {
                    notes.push(format!("{} has a log of a crash, and no dump", shown_path(folder)));
                }
                None => {}
            },
            Err(e) => notes.push(format!("{} can't be read: {}", shown_path(folder), plain_io(&e))),
        }
    }
    found
}

/// The dump among the files of one folder. A whole one goes before one that its writer left unfinished.
fn dump_of(files: &[PathBuf]) -> Option<Candidate> {
    let is_file = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let named = |path: &&PathBuf| dump_rank(&path.file_name().unwrap_or_default().to_string_lossy());
    let ranked: Vec<(&PathBuf, u8)> =
        files.iter().filter(is_file).filter_map(|path| named(&path).map(|rank| (path, rank))).collect();
    let best = ranked.iter().map(|(_, rank)| *rank).min()?;
    let dumps: Vec<PathBuf> =
        ranked.iter().filter(|(_, rank)| *rank == best).map(|(path, _)| (*path).clone()).collect();
    let time = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let newest = dumps.iter().filter_map(time).max()?;
    let logs = files.iter().filter(|path| is_log(path)).cloned().collect();
    Some((newest, dumps, logs))
}

/// 0 for a dump's name, 1 for that of an unfinished one.
fn dump_rank(name: &str) -> Option<u8> {
    // kdump-utils: vmcore, vmcore.flat, vmcore-incomplete (kdump.sh). Debian: dump.<time>, dump-incomplete
    // (kdump-config). makedumpfile --split: names of the user's choice, vmcore1, vmcore2 by custom.
    let text = [".txt", ".log", ".status", ".console"].iter().any(|end| name.ends_with(end));
    if text || name.contains("dmesg") {
        return None;
    }
    let unfinished = name.contains("incomplete");
    let is_dump = name.starts_with("vmcore") || name.starts_with("dump.") || name.starts_with("dump-");
    is_dump.then_some(u8::from(unfinished))
}

fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let known =
        name.starts_with("vmcore-dmesg") || name.starts_with("kexec-dmesg") || name.starts_with("dmesg.");
    known && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A file that was written so many seconds after 1970.
        fn file(&self, path: &str, text: &str, seconds: u64) -> PathBuf {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            path
        }

        fn newest(&self) -> Option<Vec<String>> {
            let found = find(self.0.path()).newest?;
            let name = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().display().to_string();
            Some(found.files.iter().chain(&found.logs).map(name).collect())
        }
    }

    #[test]
    fn the_newest_dump_is_found_with_its_logs() {
        let host = Host::new();
        host.file("var/crash/127.0.0.1-2026-11-20-00:00:00/vmcore", "old", 1000);
        host.file("var/crash/127.0.0.1-2026-11-22-06:07:36/vmcore", "new", 2000);
        host.file("var/crash/127.0.0.1-2026-11-22-06:07:36/vmcore-dmesg.txt", "log", 2000);
        host.file("var/crash/127.0.0.1-2026-11-22-06:07:36/kexec-dmesg.log", "log", 2000);
        host.file("var/crash/kdump-test-17/vmcore", "test", 9000);
        let folder = "var/crash/127.0.0.1-2026-11-22-06:07:36";
        assert_eq!(
            host.newest().unwrap(),
            ["vmcore", "kexec-dmesg.log", "vmcore-dmesg.txt"].map(|name| format!("{folder}/{name}"))
        );
    }

    #[test]
    fn the_dumps_of_debian_and_unfinished_ones_are_found() {
        let host = Host::new();
        host.file("var/crash/202611220607/dump.202611220607", "new", 2000);
        host.file("var/crash/202611220607/dmesg.202611220607", "log", 2000);
        assert_eq!(
            host.newest().unwrap(),
            ["var/crash/202611220607/dump.202611220607", "var/crash/202611220607/dmesg.202611220607"]
        );
        host.file("var/crash/later/vmcore-incomplete", "cut", 3000);
        host.file("var/crash/later/vmcore-dmesg-incomplete.txt", "cut", 3000);
        assert_eq!(host.newest().unwrap()[0], "var/crash/later/vmcore-incomplete");
    }

    #[test]
    fn the_path_of_the_configuration_is_looked_at_too() {
        let host = Host::new();
        host.file("etc/kdump.conf", "# path /wrong\npath /srv/dumps\ncore_collector makedumpfile -l\n", 0);
        host.file("srv/dumps/a/vmcore.flat", "x", 5);
        assert_eq!(host.newest().unwrap(), ["srv/dumps/a/vmcore.flat"]);
        let host = Host::new();
        host.file("etc/default/kdump-tools", "KDUMP_COREDIR=\"/data/crash\"\n", 0);
        host.file("data/crash/b/dump.1", "x", 5);
        assert_eq!(host.newest().unwrap(), ["data/crash/b/dump.1"]);
        let host = Host::new();
        host.file("etc/kdump.conf", "ext4 /dev/vdz1\npath /\n", 0);
        host.file("proc/mounts", "/dev/vdz1 /mnt/my\\040disk ext4 rw 0 0\n", 0);
        host.file("mnt/my disk/c/vmcore", "x", 5);
        assert_eq!(host.newest().unwrap(), ["mnt/my disk/c/vmcore"]);
    }

    #[test]
    fn what_can_not_be_seen_from_here_is_told() {
        let host = Host::new();
        host.file("etc/kdump.conf", "ssh kdump@vault\n", 0);
        host.file("var/crash/x/vmcore-dmesg.txt", "log only", 0);
        let search = find(host.0.path());
        assert_eq!(search.newest, None);
        assert!(
            search.notes[0].starts_with("/etc/kdump.conf sends dumps to kdump@vault by ssh"),
            "{:?}",
            search.notes
        );
        assert!(search.notes[1].ends_with("x has a log of a crash, and no dump"), "{:?}", search.notes);
    }
}
