//! A real dump and debuginfo that is not its own.

use std::path::Path;
use std::sync::Arc;

use vmcore::analysis::subject::Subject;
use vmcore::kernel::describe::Description;
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::sym::build_id;
use vmcore::sym::dwarf::{Debuginfo, DebuginfoError};
use vmcore::sym::find::{Finder, Wanted};
use vmcore::{Dump, OpenOptions};

use super::build;

/// Gives the same file to everybody.
#[derive(Debug)]
struct One(Arc<Debuginfo>);

impl Finder for One {
    fn find(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<Debuginfo>>, DebuginfoError> {
        assert!(wanted.release.is_some_and(|release| release.starts_with("6.1.0-")));
        assert!(wanted.build_id.is_some(), "the kernel's notes are in the dump");
        Ok(Some(Arc::clone(&self.0)))
    }
}

#[test]
fn the_file_of_another_build_is_refused_with_both_ids() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build::kernel(dir.path(), "vmlinux", &[]) else { return };
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump");
    let dump = Dump::open(&dump, &OpenOptions::default()).unwrap();
    let kernel = Kernel::open(&dump, &Subject::new(&dump).hints, Options::default());
    let finder = One(Arc::new(build::open(&path)));
    let limits = Limits::default();
    let known = Description::load_with(kernel.memory(), kernel.vmcoreinfo(), &limits, Some(&finder));
    let own = build_id::of_kernel(kernel.memory(), &known.symbols).unwrap();
    assert_eq!(kernel.vmcoreinfo().build_id(), Some(own.to_string().as_str()));
    let theirs = finder.0.build_id().unwrap();
    let why = known.refused.unwrap().to_string();
    assert!(why.ends_with(&format!("its build id is {theirs}, the kernel in the dump has {own}")), "{why}");
    assert!(
        known.debuginfo.is_none() && known.types.kernel().is_some(),
        "the dump's own types are there all the same"
    );
}
