//! The livepatches: which are loaded, and whether one is just being applied.
//!
//! Facts: `include/linux/livepatch.h`, `kernel/livepatch/core.c`.

use super::reader::{Reader, note, note_end};
use super::value::{Layout, Maybe, view};
use super::{Gap, list};
use crate::addr::KVirtAddr;

/// Patches that are read.
const MOST: usize = 4096;

view! {
    struct Patch of "klp_patch" {
        module: KVirtAddr = ["mod"],
        enabled: bool = ["enabled"],
        replace: Maybe<bool> = ["replace"],
    }
}

view! {
    struct Owner of "module" {
        name: String = ["name"],
    }
}

/// A livepatch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Livepatch {
    /// The module that it is.
    pub name: String,
    /// It is in use.
    pub enabled: bool,
    /// Tasks are just being moved to it or from it.
    pub transition: bool,
    /// It takes the place of all earlier ones.
    pub replaces: Option<bool>,
}

/// All livepatches.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Livepatches {
    /// In the order in which they were loaded.
    pub patches: Vec<Livepatch>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads them. A kernel that can't be patched has none, and that is no gap.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Livepatches {
    let mut found = Livepatches::default();
    let Some(head) = reader.symbols.address("klp_patches") else { return found };
    let layouts = || {
        let text = |why: crate::sym::btf::TypeError| why.to_string();
        let patches = Layout::<Patch>::new(reader.types).map_err(text)?;
        let owners = Layout::<Owner>::new(reader.types).map_err(text)?;
        Ok::<_, String>((patches, owners, reader.offset("klp_patch", "list")?))
    };
    let (patches, owners, inside) = match layouts() {
        Ok(layouts) => layouts,
        Err(why) => {
            note(&mut found.gaps, "livepatches", why);
            return found;
        }
    };
    let moving =
        reader.symbols.address("klp_transition_patch").and_then(|at| reader.memory.read_ptr(at).ok());
    let walk = list::walk(reader.memory, head, MOST);
    note_end(&mut found.gaps, "livepatches", &walk.end);
    for node in walk.items {
        let kaddr = KVirtAddr(node.0.wrapping_sub(inside));
        let read = || {
            let patch = patches.read(reader.memory, kaddr)?;
            let owner = owners.read(reader.memory, patch.module)?;
            Ok::<_, super::value::ValueError>((patch, owner))
        };
        match read() {
            Ok((patch, owner)) => found.patches.push(Livepatch {
                name: owner.name,
                enabled: patch.enabled,
                transition: moving == Some(kaddr),
                replaces: patch.replace.value(),
            }),
            Err(why) => note(&mut found.gaps, "a livepatch", why),
        }
    }
    found
}
