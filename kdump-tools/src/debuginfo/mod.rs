//! Finds debuginfo for a dump: in the files that were named, below `/usr/lib/debug`, and on debuginfod servers.
//!
//! None of it is needed, so nothing that goes wrong here stops an analysis but a file that somebody named and that is of no use.

mod disk;
mod server;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vmcore::analysis::subject::Subject;
use vmcore::kernel::describe::Description;
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::progress::Cancel;
use vmcore::sym::dwarf::{Debuginfo, DebuginfoError};
use vmcore::sym::find::{Finder, Wanted, package};

use crate::exit::{Exit, Failure};

pub use server::{Fetched, ServerError, Servers};

/// Where debuginfo is looked for, in this order.
#[derive(Debug)]
pub struct Store {
    /// Files, and directories with files, that somebody named. Where there are any, nothing else is looked at for the kernel.
    named: Vec<PathBuf>,
    /// What stands before `/usr/lib/debug`; `None` where the disk is not searched.
    root: Option<PathBuf>,
    servers: Option<Servers>,
    limits: Limits,
    cancel: Cancel,
    open: Mutex<HashMap<PathBuf, Arc<Debuginfo>>>,
    folders: Mutex<HashMap<PathBuf, Arc<HashMap<String, PathBuf>>>>,
    notes: Mutex<Vec<String>>,
}

impl Store {
    /// Files that somebody named, and this host's `/usr/lib/debug`.
    #[must_use]
    pub fn new(named: Vec<PathBuf>, cancel: Cancel) -> Self {
        Self {
            named,
            root: Some("/".into()),
            servers: None,
            limits: Limits::default(),
            cancel,
            open: Mutex::default(),
            folders: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// Another root instead of `/`.
    #[must_use]
    pub fn with_root(mut self, root: Option<PathBuf>) -> Self {
        self.root = root;
        self
    }

    /// Also asks these servers.
    #[must_use]
    pub fn with_servers(mut self, servers: Option<Servers>) -> Self {
        self.servers = servers;
        self
    }

    /// What went wrong without stopping anything, since it was last asked.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where somebody named files: whether the dump's own is among them. Looks at the kernel's symbols alone, and not for them in all memory.
    ///
    /// # Errors
    /// When a file is of no use, or of another kernel: both build ids are named, and the package that would be right.
    pub fn refuse(&self, subject: &Subject<'_>) -> Result<(), Failure> {
        if self.named.is_empty() {
            return Ok(());
        }
        let kernel = Kernel::open(subject.memory, &subject.hints, Options::default().without_scan());
        let info = kernel.vmcoreinfo();
        let known = Description::load_with(kernel.memory(), info, &self.limits, Some(self));
        let Some(error) = known.refused else { return Ok(()) };
        let version = kernel.uts().map(|uts| uts.version).ok();
        let package = info.release().and_then(|release| package(release, version.as_deref()));
        let hint = match package {
            Some(package) if error.is_other_kernel() => format!("the right one is {package}"),
            _ => error.hint(),
        };
        Err(Failure::new(Exit::Input, error.to_string(), hint))
    }

    fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Opens a file once, for all dumps.
    fn open(&self, path: &Path) -> Result<Arc<Debuginfo>, DebuginfoError> {
        let known = |open: &HashMap<PathBuf, Arc<Debuginfo>>| open.get(path).cloned();
        if let Some(file) = known(&self.open.lock().unwrap_or_else(PoisonError::into_inner)) {
            // A module is moved to where one dump has it: another dump needs its own.
            if !file.is_relocatable() {
                return Ok(file);
            }
        }
        let file = Arc::new(Debuginfo::open(path, &self.limits)?);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn is_wanted(file: &Debuginfo, wanted: &Wanted<'_>) -> bool {
        file.build_id().zip(wanted.build_id).is_some_and(|(theirs, ours)| theirs == ours)
    }

    /// The kernel's file among those that were named: the one of its build, or else the first.
    fn among_named(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<Debuginfo>>, DebuginfoError> {
        let mut first = None;
        let mut failed = None;
        for path in &self.named {
            let path = if path.is_dir() {
                match disk::kernel_in(path) {
                    Some(path) => path,
                    None => continue,
                }
            } else {
                path.clone()
            };
            match self.open(&path) {
                Ok(file) if Self::is_wanted(&file, wanted) => return Ok(Some(file)),
                Ok(file) if !file.is_relocatable() || self.named.len() == 1 => first = first.or(Some(file)),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (first, failed) {
            (_, Some(error)) => Err(error),
            (first, None) => Ok(first),
        }
    }

    /// The first of these files that is there and of the wanted build.
    fn of_build(
        &self,
        paths: impl IntoIterator<Item = PathBuf>,
        wanted: &Wanted<'_>,
    ) -> Option<Arc<Debuginfo>> {
        let root = self.root.as_ref()?;
        let there = paths.into_iter().map(|path| disk::below(root, &path)).filter(|path| path.is_file());
        for path in there {
            match self.open(&path) {
                Ok(file) if wanted.build_id.is_none() || Self::is_wanted(&file, wanted) => return Some(file),
                Ok(_) => {
                    self.note(format!("{} is of another build than the kernel in the dump", path.display()));
                }
                Err(error) => self.note(error.to_string()),
            }
        }
        None
    }

    fn module(&self, name: &str, wanted: &Wanted<'_>) -> Option<Arc<Debuginfo>> {
        let named = self.named.iter().filter(|path| path.is_dir()).cloned();
        let root = self.root.clone();
        let by_release = root.zip(wanted.release).map(|(root, release)| {
            let folders = vmcore::sym::find::module_folders(release);
            folders
                .into_iter()
                .map(move |folder| disk::below(&root, &folder))
                .filter(|folder| folder.is_dir())
        });
        for folder in named.chain(by_release.into_iter().flatten()) {
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            let files =
                folders.entry(folder.clone()).or_insert_with(|| Arc::new(disk::modules_below(&folder)));
            let path = files.get(name).cloned();
            drop(folders);
            if let Some(path) = path
                && let Ok(file) = self.open(&path)
                && (wanted.build_id.is_none() || file.build_id().is_none() || Self::is_wanted(&file, wanted))
            {
                return Some(file);
            }
        }
        None
    }

    fn fetched(&self, wanted: &Wanted<'_>) -> Option<Arc<Debuginfo>> {
        let (servers, id) = self.servers.as_ref().zip(wanted.build_id)?;
        match servers.fetch(id, &self.cancel) {
            Ok(Fetched::File(path)) => self.open(&path).map_err(|error| self.note(error.to_string())).ok(),
            Ok(Fetched::Nowhere) => None,
            Err(error) => {
                self.note(error.to_string());
                None
            }
        }
    }
}

impl Finder for Store {
    fn find(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<Debuginfo>>, DebuginfoError> {
        if let Some(name) = wanted.module {
            return Ok(self.module(name, wanted));
        }
        if let Some(file) = self.among_named(wanted)? {
            return Ok(Some(file));
        }
        let on_disk = self.of_build(vmcore::sym::find::kernel_paths(wanted), wanted);
        Ok(on_disk.or_else(|| self.fetched(wanted)))
    }
}
