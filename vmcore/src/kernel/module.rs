//! The modules that were loaded, as `lsmod` and `/sys/module` tell of them.
//!
//! [`read`] never fails: a module that can't be read is counted as lost, and each reason is a [`Gap`]. Their symbols are
//! [`crate::sym::modules`]' matter; where a module's memory is comes from there. Facts: `include/linux/module.h`, `kernel/module/`.

use std::collections::HashMap;

use super::describe::Description;
use super::params::{ParamLayouts, Parameter};
use super::taint::{Letters, Taint};
use super::value::{Layout, Maybe, Place, read_text, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use super::{Gap, list};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::TypeError;
use crate::sym::modules::ModuleSymbols;
use crate::xlat::KernelMemory;

/// Bytes of a version, or of a module's arguments.
const TEXT: usize = 4096;
/// Bytes of a build ID in `struct module`.
const BUILD_ID: usize = 20;
/// References that a live module has of its own (`MODULE_REF_BASE`).
const OWN_REFERENCES: i64 = 1;

view! {
    /// `struct module`.
    struct Object of "module" {
        state: u32 = ["state"],
        name: String = ["name"],
        version: Maybe<KVirtAddr> = ["version"],
        source_version: Maybe<KVirtAddr> = ["srcversion"],
        parameters: Maybe<KVirtAddr> = ["kp"],
        parameter_count: Maybe<u32> = ["num_kp"],
        taints: Maybe<u64> = ["taints"],
        arguments: Maybe<KVirtAddr> = ["args"],
        build_id: Maybe<Vec<u8>> = ["build_id"],
        users: Option<Place> = ["source_list"],
        references: Maybe<i32> = ["refcnt"],
    }
}

view! {
    /// `struct module_use`: one module that needs another.
    struct Use of "module_use" {
        user: KVirtAddr = ["source"],
    }
}

view! {
    /// `struct mod_unload_taint`: a module that tainted the kernel and is gone.
    struct Gone of "mod_unload_taint" {
        name: String = ["name"],
        taints: u64 = ["taints"],
        count: u64 = ["count"],
    }
}

/// Where a module is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModuleState {
    /// It is there for use.
    Live,
    /// Its `init` runs.
    Coming,
    /// It is being unloaded.
    Going,
    /// It is still being put together; `lsmod` does not show it.
    Unformed,
    /// None of these: the memory is damaged.
    Unknown(u32),
}

impl std::fmt::Display for ModuleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Coming => f.write_str("coming"),
            Self::Going => f.write_str("going"),
            Self::Unformed => f.write_str("unformed"),
            Self::Unknown(number) => write!(f, "unknown ({number})"),
        }
    }
}

/// One module.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Where its `struct module` is.
    pub kaddr: KVirtAddr,
    /// Where it is in its life.
    pub state: ModuleState,
    /// Where its text is; `None` where it is not known.
    pub base: Option<KVirtAddr>,
    /// Bytes of all its memory, as `lsmod` shows them; per-CPU memory is not counted.
    pub size: Option<u64>,
    /// How often it is in use, as `lsmod` shows it; `None` where it can't be read or the kernel does not unload modules.
    pub references: Option<i64>,
    /// The modules that need it, in the order in which `lsmod` shows them.
    pub used_by: Vec<String>,
    /// What it taints the kernel with.
    pub taint: Option<Taint>,
    /// `MODULE_VERSION`, where it has one.
    pub version: Option<String>,
    /// The hash over its sources, where it has one.
    pub source_version: Option<String>,
    /// Its build ID in hexadecimal; since 5.14.
    pub build_id: Option<String>,
    /// The arguments that it was loaded with.
    pub arguments: Option<String>,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// A module that tainted the kernel and was unloaded (`/sys/kernel/debug/modules/unloaded_tainted`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unloaded {
    /// Its name.
    pub name: String,
    /// What it tainted the kernel with.
    pub taint: Taint,
    /// How often it was unloaded.
    pub count: u64,
}

/// All modules, and what is missing of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Modules {
    /// The modules, the last loaded first, as `lsmod` lists them.
    pub modules: Vec<Module>,
    /// Why the walk over their list ended.
    pub end: WalkEnd,
    /// How many could not be read, or breaks in their list.
    pub lost: usize,
    /// The module that was unloaded last (`[last unloaded: …]` of an oops); `None` where none was or that is not known.
    pub last_unloaded: Option<String>,
    /// Unloaded modules that tainted the kernel; since 6.0, where it is built in.
    pub unloaded_tainted: Vec<Unloaded>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads all modules.
#[must_use]
pub fn read(memory: &KernelMemory<'_>, description: &Description, limits: &Limits) -> Modules {
    let mut modules = Modules {
        modules: Vec::new(),
        end: WalkEnd::Complete,
        lost: 0,
        last_unloaded: None,
        unloaded_tainted: Vec::new(),
        gaps: Vec::new(),
    };
    let (letters, why) = Letters::read(memory, &description.symbols, &description.types);
    if let Some(why) = why {
        modules.gap("letters of distributions in the taint", &why);
    }
    let variables = Variables::new(memory, &description.symbols);
    let mut reader = Reader { memory, description, limits, letters, variables, modules };
    if let Err(why) = reader.list() {
        reader.modules.gap("modules", &why);
        reader.modules.end = WalkEnd::Inconsistent(KVirtAddr(0), why);
    }
    reader.last_unloaded();
    reader.unloaded_tainted();
    reader.modules
}

impl Modules {
    fn gap(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.gaps.push(Gap { what: what.into(), why: why.to_string() });
    }
}

struct Reader<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    description: &'a Description,
    limits: &'a Limits,
    letters: Letters,
    variables: Variables<'a, 'm>,
    modules: Modules,
}

/// What is settled once for all modules.
struct Layouts {
    object: Layout<Object>,
    /// Where `struct module` is in its list.
    inside: u64,
    uses: Result<(Layout<Use>, u64), TypeError>,
    parameters: Result<ParamLayouts, TypeError>,
}

impl Reader<'_, '_> {
    fn layouts(&self) -> Result<Layouts, TypeError> {
        let types = &self.description.types;
        let uses = || {
            let inside = types.structure("module_use")?.member("source_list")?.offset();
            Ok((Layout::new(types)?, inside))
        };
        Ok(Layouts {
            object: Layout::new(types)?,
            inside: types.structure("module")?.member("list")?.offset(),
            uses: uses(),
            parameters: ParamLayouts::new(types),
        })
    }

    fn list(&mut self) -> Result<(), String> {
        let layouts = self.layouts().map_err(|e| e.to_string())?;
        let head = self.variables.address("modules").map_err(|e| e.to_string())?;
        let walk = list::walk(self.memory, head, self.limits.modules);
        if !walk.end.is_complete() {
            self.modules.gap("the list of modules", &walk.end);
        }
        (self.modules.end, self.modules.lost) = (walk.end, walk.lost);
        let mut objects = Vec::new();
        for node in walk.items {
            let kaddr = KVirtAddr(node.0.wrapping_sub(layouts.inside));
            match layouts.object.read(self.memory, kaddr) {
                Ok(object) if object.name.is_empty() => {
                    self.lose(kaddr, &"it has no name");
                }
                Ok(object) => objects.push((kaddr, object)),
                Err(why) => self.lose(kaddr, &why),
            }
        }
        let names: HashMap<KVirtAddr, String> =
            objects.iter().map(|(kaddr, object)| (*kaddr, object.name.clone())).collect();
        for (kaddr, object) in objects {
            let module = self.module(&layouts, &names, kaddr, object);
            self.modules.modules.push(module);
        }
        Ok(())
    }

    fn lose(&mut self, kaddr: KVirtAddr, why: &dyn std::fmt::Display) {
        self.modules.lost = self.modules.lost.saturating_add(1);
        self.modules.gap(&format!("the module at {kaddr}"), why);
    }

    fn module(
        &mut self,
        layouts: &Layouts,
        names: &HashMap<KVirtAddr, String>,
        kaddr: KVirtAddr,
        object: Object,
    ) -> Module {
        let gaps = &mut self.modules.gaps;
        let mut gap = |what: &str, why: &dyn std::fmt::Display| {
            let what = format!("{what} of module {}", object.name);
            gaps.push(Gap { what, why: why.to_string() });
        };
        let symbols = self.description.symbols.modules().iter().find(|m| m.kaddr() == kaddr);
        if symbols.is_none() {
            gap("memory", &"its place can't be read");
        }
        let ranges = symbols.map(ModuleSymbols::ranges);
        let bytes = |r: &[std::ops::Range<u64>]| {
            r.iter().map(|r| r.end.saturating_sub(r.start)).fold(0, u64::saturating_add)
        };
        let mut text = |what: &str, at: &Maybe<KVirtAddr>| match at {
            Maybe::Absent => None,
            Maybe::Unreadable(why) => {
                gap(what, why);
                None
            }
            Maybe::Value(at) if at.is_null() => None,
            Maybe::Value(at) => {
                let read = read_text(self.memory, *at, TEXT).map_err(|why| gap(what, &why));
                read.ok().map(|text| text.trim_end().to_owned())
            }
        };
        let version = text("version", &object.version);
        let source_version = text("source version", &object.source_version);
        let arguments = text("arguments", &object.arguments);
        let taint = match object.taints {
            Maybe::Value(mask) => Some(self.letters.of_module(mask)),
            Maybe::Absent => None,
            Maybe::Unreadable(why) => {
                gap("taint", &why);
                None
            }
        };
        let references = match object.references {
            Maybe::Value(count) => Some(i64::from(count).saturating_sub(OWN_REFERENCES)),
            Maybe::Absent => None,
            Maybe::Unreadable(why) => {
                gap("references", &why);
                None
            }
        };
        let used_by = match (object.users, &layouts.uses) {
            (None, _) => Vec::new(),
            (Some(_), Err(why)) => {
                gap("users", why);
                Vec::new()
            }
            (Some(Place(head)), Ok((layout, inside))) => {
                let walk = list::walk(self.memory, head, self.limits.modules);
                if !walk.end.is_complete() {
                    gap("users", &walk.end);
                }
                users(self.memory, &walk, layout, *inside, names, &mut gap)
            }
        };
        let parameters = match (object.parameters, object.parameter_count, &layouts.parameters) {
            (Maybe::Value(at), Maybe::Value(count), Ok(known)) if count > 0 => {
                let (found, why) = known.read(self.memory, &self.description.symbols, at, u64::from(count));
                if let Some(why) = why {
                    gap("parameters", &why);
                }
                found
            }
            (Maybe::Value(_), Maybe::Value(count), Err(why)) if count > 0 => {
                gap("parameters", why);
                Vec::new()
            }
            (Maybe::Unreadable(why), ..) | (_, Maybe::Unreadable(why), _) => {
                gap("parameters", &why);
                Vec::new()
            }
            _ => Vec::new(),
        };
        let build_id =
            object.build_id.value().filter(|id| id.len() == BUILD_ID && id.iter().any(|b| *b != 0));
        Module {
            kaddr,
            state: state(object.state),
            base: ranges.and_then(<[_]>::first).map(|r| KVirtAddr(r.start)),
            size: ranges.map(bytes),
            references,
            used_by,
            taint,
            version,
            source_version,
            build_id: build_id.map(hex::encode),
            arguments,
            parameters,
            name: object.name,
        }
    }

    /// A bare name until 5.19; since 6.0 (kernel commit 6f1dae1d84b6) with its taint in brackets behind it.
    fn last_unloaded(&mut self) {
        let name_bytes = self
            .description
            .types
            .structure("module")
            .and_then(|module| Ok(module.member("name")?.size()?))
            .unwrap_or_default();
        let read = || -> Result<Option<String>, String> {
            let at = self.variables.address("last_unloaded_module").map_err(|e| e.to_string())?;
            let most = usize::try_from(name_bytes).unwrap_or_default().min(TEXT);
            let name = read_text(self.memory, at, most).map_err(|e| e.to_string())?;
            if name.is_empty() {
                return Ok(None);
            }
            let behind = at.checked_add(name_bytes).and_then(|at| read_text(self.memory, at, 32).ok());
            let taint =
                behind.filter(|text| text.starts_with('(') && text.ends_with(')')).unwrap_or_default();
            Ok(Some(format!("{name}{taint}")))
        };
        match read() {
            Ok(found) => self.modules.last_unloaded = found,
            Err(why) => self.modules.gap("the module unloaded last", &why),
        }
    }

    fn unloaded_tainted(&mut self) {
        // A kernel without it has no such list.
        let Ok(head) = self.variables.address("unloaded_tainted_modules") else { return };
        let types = &self.description.types;
        let settled = || {
            let inside = types.structure("mod_unload_taint")?.member("list")?.offset();
            Ok::<_, TypeError>((Layout::<Gone>::new(types)?, inside))
        };
        let (layout, inside) = match settled() {
            Ok(settled) => settled,
            Err(why) => return self.modules.gap("unloaded modules", &why),
        };
        let walk = list::walk(self.memory, head, self.limits.modules);
        if !walk.end.is_complete() {
            self.modules.gap("unloaded modules", &walk.end);
        }
        for node in walk.items {
            match layout.read(self.memory, KVirtAddr(node.0.wrapping_sub(inside))) {
                Ok(gone) => self.modules.unloaded_tainted.push(Unloaded {
                    name: gone.name,
                    taint: self.letters.of_module(gone.taints),
                    count: gone.count,
                }),
                Err(why) => self.modules.gap("an unloaded module", &why),
            }
        }
    }
}

/// The names of those who need a module. A user that is not in the list of modules is told by its address.
fn users(
    memory: &KernelMemory<'_>,
    walk: &Walk<KVirtAddr>,
    layout: &Layout<Use>,
    inside: u64,
    names: &HashMap<KVirtAddr, String>,
    gap: &mut impl FnMut(&str, &dyn std::fmt::Display),
) -> Vec<String> {
    let mut found = Vec::new();
    for node in &walk.items {
        match layout.read(memory, KVirtAddr(node.0.wrapping_sub(inside))) {
            Ok(one) => found.push(names.get(&one.user).cloned().unwrap_or_else(|| one.user.to_string())),
            Err(why) => gap("a user", &why),
        }
    }
    found
}

/// `enum module_state`; the numbers have been these since it exists.
fn state(number: u32) -> ModuleState {
    match number {
        0 => ModuleState::Live,
        1 => ModuleState::Coming,
        2 => ModuleState::Going,
        3 => ModuleState::Unformed,
        other => ModuleState::Unknown(other),
    }
}
