//! The bundle's file: written as `NAME.tar.gz.partial` while items come in, then put into sos's order, read
//! back, and only then given its name.

mod members;
mod verify;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tar::{Builder, EntryType, Header};

use crate::archive::members::Members;
use crate::collect::{Body, Harvest};
use crate::error::{CollectError, is_no_space};
use crate::plan::Plan;

/// Held back on the disk, so that a full one still takes the manifest.
const RESERVE: u64 = 1 << 20;
/// How often what is written is also forced to the disk: the host may well go down again.
const SYNC: Duration = Duration::from_secs(2);

/// A small file that the collector itself makes.
#[derive(Debug)]
pub(crate) struct OwnFile {
    pub(crate) path: &'static str,
    pub(crate) text: Vec<u8>,
}

/// The bundle while items come in.
pub(crate) struct Bundle {
    builder: Builder<Members>,
    top: String,
    path: PathBuf,
    partial: PathBuf,
    /// Where the items begin, after the member with the version file.
    items_start: u64,
    reserve: Option<File>,
    contents: Contents,
    synced: Instant,
}

/// The names in the archive, so that each stands in it once.
#[derive(Debug, Default)]
struct Contents {
    dirs: BTreeSet<Vec<u8>>,
    names: BTreeSet<Vec<u8>>,
    bytes: u64,
}

/// A bundle that has its name.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) digest_path: PathBuf,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) entries: u64,
    pub(crate) content: u64,
}

impl Bundle {
    /// Begins the bundle of `plan`.
    pub(crate) fn create(plan: &Plan, version: &OwnFile) -> Result<Self, CollectError> {
        let partial = with_suffix(&plan.path, ".partial");
        let fail = |e| CollectError::write(&partial, e);
        let dir = directory_of(&plan.path);
        let reserve = reserve_space(dir).map_err(fail)?;
        let file = new_file(&partial).map_err(fail)?;
        let mut builder = Builder::new(Members::new(file).map_err(fail)?);
        let mut contents = Contents::default();
        let begun = put_own(&mut builder, &plan.name, &mut contents, std::slice::from_ref(version))
            .and_then(|()| builder.get_mut().commit());
        let items_start = match begun {
            Ok(at) => at,
            Err(e) => {
                builder.get_mut().seal();
                let _ = std::fs::remove_file(&partial);
                return Err(fail(e));
            }
        };
        let (top, path) = (plan.name.clone(), plan.path.clone());
        let synced = Instant::now();
        Ok(Self { builder, top, path, partial, items_start, reserve, contents, synced })
    }

    /// The unfinished file.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// How many bytes of content it has.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.contents.bytes
    }

    /// Takes an item in, wholly or not at all.
    pub(crate) fn add(&mut self, harvest: &mut Harvest) -> io::Result<()> {
        let mut added = Vec::new();
        let bytes = self.contents.bytes;
        let result = self.try_add(harvest, &mut added).and_then(|()| self.builder.get_mut().commit());
        if let Err(e) = result {
            self.builder.get_mut().roll_back()?;
            for name in &added {
                self.contents.names.remove(name);
                self.contents.dirs.remove(name);
            }
            self.contents.bytes = bytes;
            return Err(e);
        }
        harvest.report.bytes = self.contents.bytes - bytes;
        if self.synced.elapsed() >= SYNC {
            self.builder.get_ref().file().sync_data()?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    fn try_add(&mut self, harvest: &mut Harvest, added: &mut Vec<Vec<u8>>) -> io::Result<()> {
        for entry in &harvest.entries {
            let Some(path) = self.contents.free_name(&entry.path) else { continue };
            if path != entry.path {
                let (old, new) = (String::from_utf8_lossy(&entry.path), String::from_utf8_lossy(&path));
                for command in &mut harvest.report.commands {
                    if command.place.as_deref() == Some(&*old) {
                        command.place = Some(new.clone().into_owned());
                    }
                }
            }
            if !put_dirs(&mut self.builder, &self.top, &mut self.contents, &path, added)? {
                continue;
            }
            let full = [self.top.as_bytes(), b"/", &path].concat();
            let full = Path::new(OsStr::from_bytes(&full));
            let mut header = Header::new_gnu();
            match &entry.body {
                Body::File { range, mode, uid, gid, mtime } => {
                    let size = range.end - range.start;
                    set(&mut header, EntryType::Regular, *mode, *mtime);
                    header.set_uid(u64::from(*uid));
                    header.set_gid(u64::from(*gid));
                    header.set_size(size);
                    self.builder.append_data(&mut header, full, harvest.spool.reader(range))?;
                    self.contents.bytes += size;
                }
                Body::Link { target } => {
                    set(&mut header, EntryType::Symlink, 0o777, now());
                    header.set_size(0);
                    self.builder.append_link(&mut header, full, Path::new(OsStr::from_bytes(target)))?;
                }
            }
            self.contents.names.insert(path.clone());
            added.push(path);
        }
        Ok(())
    }

    /// Puts the manifest and the logs in, first in the file if the disk has room for a second copy of the items,
    /// else last; reads the file back, and gives it its name.
    pub(crate) fn finish(mut self, own: &[OwnFile]) -> Result<Finished, CollectError> {
        let assembling = with_suffix(&self.path, ".assembling");
        let ready = match self.assemble(own, &assembling) {
            Ok(()) => {
                // What stays of the unfinished file has no use any more.
                self.builder.get_mut().seal();
                assembling.clone()
            }
            Err(e) => {
                let _ = std::fs::remove_file(&assembling);
                if !is_no_space(&e) {
                    self.builder.get_mut().seal();
                    return Err(CollectError::write(&assembling, e));
                }
                self.append_own(own)?;
                self.partial.clone()
            }
        };
        let checked = verify::read_back(&ready)?;
        let entries = (self.contents.names.len() + self.contents.dirs.len()) as u64;
        if checked.entries != entries {
            let why = format!("{entries} records were written, {} are there", checked.entries);
            return Err(CollectError::Verify { path: ready, why });
        }
        let digest_path = with_suffix(&self.path, ".sha256");
        self.write_digest(&digest_path, &checked.sha256)?;
        give_name(&ready, &self.path).map_err(|e| CollectError::write(&self.path, e))?;
        if ready != self.partial {
            // The bundle has its name: that its first form can't be removed is no reason to say otherwise.
            let _ = std::fs::remove_file(&self.partial);
        }
        sync_dir(&self.path).map_err(|e| CollectError::write(&self.path, e))?;
        let content = self.contents.bytes;
        Ok(Finished { digest_path, sha256: checked.sha256, size: checked.size, entries, content })
    }

    fn write_digest(&self, digest_path: &Path, sha256: &str) -> Result<(), CollectError> {
        let name = self.path.file_name().unwrap_or_default();
        let line = [sha256.as_bytes(), b"  ", name.as_bytes(), b"\n"].concat();
        let temporary = with_suffix(digest_path, ".partial");
        let written = (|| {
            let mut file = new_file(&temporary)?;
            file.write_all(&line)?;
            file.sync_all()?;
            give_name(&temporary, digest_path)
        })();
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            CollectError::write(digest_path, e)
        })
    }

    /// The final order: version, manifest, logs, then the items.
    fn assemble(&mut self, own: &[OwnFile], to: &Path) -> io::Result<()> {
        let items_end = self.builder.get_mut().commit()?;
        let mut contents = Contents::default();
        let mut head = Builder::new(Members::new(new_file(to)?)?);
        let put = put_own(&mut head, &self.top, &mut contents, own).and_then(|()| head.get_mut().commit());
        let mut file = head.get_ref().file().try_clone()?;
        head.get_mut().seal();
        put?;
        let mut items = File::open(&self.partial)?;
        items.seek(SeekFrom::Start(self.items_start))?;
        io::copy(&mut items.take(items_end - self.items_start), &mut file)?;
        let mut end = Members::new(file)?;
        end.write_all(&[0; 1024])?;
        end.commit()?;
        end.file().sync_all()?;
        self.contents.names.append(&mut contents.names);
        self.contents.dirs.append(&mut contents.dirs);
        self.contents.bytes += contents.bytes;
        Ok(())
    }

    /// The order of a full disk: the manifest and the logs come last.
    fn append_own(&mut self, own: &[OwnFile]) -> Result<(), CollectError> {
        self.reserve = None;
        let fail = |e| CollectError::write(&self.partial, e);
        let rest: Vec<&OwnFile> =
            own.iter().filter(|f| !self.contents.names.contains(f.path.as_bytes())).collect();
        for file in rest {
            put_own(&mut self.builder, &self.top, &mut self.contents, std::slice::from_ref(file))
                .map_err(fail)?;
        }
        self.builder.finish().map_err(fail)?;
        self.builder.get_mut().commit().map_err(fail)?;
        self.builder.get_mut().seal();
        self.builder.get_ref().file().sync_all().map_err(fail)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // An unfinished file keeps what is whole, and gets no end mark: it is not all there was to be.
        let _ = self.builder.get_mut().roll_back();
        self.builder.get_mut().seal();
    }
}

impl Contents {
    /// The name under which `path` can stand: another command's output of the same name gets a number, as in
    /// sos; a file that is there already is not taken twice.
    fn free_name(&self, path: &[u8]) -> Option<Vec<u8>> {
        if !self.names.contains(path) && !self.dirs.contains(path) {
            return Some(path.to_vec());
        }
        if !path.starts_with(b"sos_commands/") {
            return None;
        }
        (1..10_000_u32).map(|n| [path, format!(".{n}").as_bytes()].concat()).find(|p| !self.names.contains(p))
    }
}

/// Puts the directories above `path` in. False if one of them is a file or a link in this bundle: unpacking
/// would go through it.
fn put_dirs(
    builder: &mut Builder<Members>,
    top: &str,
    contents: &mut Contents,
    path: &[u8],
    added: &mut Vec<Vec<u8>>,
) -> io::Result<bool> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
    let above: Vec<&[u8]> = ends.filter_map(|end| path.get(..end)).collect();
    if above.iter().any(|dir| contents.names.contains(*dir)) {
        return Ok(false);
    }
    for dir in above {
        if contents.dirs.insert(dir.to_vec()) {
            added.push(dir.to_vec());
            put_dir(builder, &[top.as_bytes(), b"/", dir, b"/"].concat())?;
        }
    }
    Ok(true)
}

fn put_dir(builder: &mut Builder<Members>, path: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    set(&mut header, EntryType::Directory, 0o755, now());
    header.set_size(0);
    builder.append_data(&mut header, Path::new(OsStr::from_bytes(path)), io::empty())
}

fn put_own(
    builder: &mut Builder<Members>,
    top: &str,
    contents: &mut Contents,
    files: &[OwnFile],
) -> io::Result<()> {
    if contents.dirs.insert(Vec::new()) {
        put_dir(builder, format!("{top}/").as_bytes())?;
    }
    for file in files {
        put_dirs(builder, top, contents, file.path.as_bytes(), &mut Vec::new())?;
        let mut header = Header::new_gnu();
        set(&mut header, EntryType::Regular, 0o644, now());
        header.set_size(file.text.len() as u64);
        builder.append_data(&mut header, format!("{top}/{}", file.path), file.text.as_slice())?;
        contents.names.insert(file.path.as_bytes().to_vec());
        contents.bytes += file.text.len() as u64;
    }
    Ok(())
}

fn set(header: &mut Header, kind: EntryType, mode: u32, mtime: u64) {
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A bundle is for its owner only, as sos has it.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// An unnamed file that holds [`RESERVE`] bytes of the disk.
fn reserve_space(dir: &Path) -> io::Result<Option<File>> {
    let mut file = tempfile::tempfile_in(dir)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(io::ErrorKind::StorageFull.into()),
        // Some filesystems can't reserve: bytes take space as well.
        Err(_) => io::copy(&mut io::repeat(0x55).take(RESERVE), &mut file).map(|_| Some(file)),
    }
}

/// Gives a file its final name, never over another file.
fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, rustix::fs::RenameFlags::NOREPLACE) {
        // Filesystems such as old NFS do not know the flag; a second name does the same.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}
