//! What the dumped kernel says of itself, brought together: its symbols, its types, its modules' symbols and types.
//!
//! [`Description::load`] never fails: what can't be had is a [`Gap`] with its reason, and everything else is there.

use std::sync::Arc;

use rayon::prelude::*;

use super::value::{self, Layout, view};
use super::walk::WalkEnd;
use super::{Gap, list};
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::sym::Symbols;
use crate::sym::btf::{self, Btf, BtfError, BtfSource, Types};
use crate::sym::build_id;
use crate::sym::dwarf::{self, Agreement, Debuginfo, DebuginfoError, LinkedSymbols};
use crate::sym::find::{Finder, Wanted};
use crate::sym::kallsyms;
use crate::sym::modules::{ModuleLayout, ModuleSymbols};
use crate::xlat::KernelMemory;

/// The kernel's description of itself.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Description {
    /// All symbols.
    pub symbols: Symbols,
    /// All types that are loaded; a module's come with [`Description::load_module_types`].
    pub types: Types,
    /// How the kernel's types were found; `None` where there are none.
    pub types_from: Option<BtfSource>,
    /// Modules that have types of their own, with their place and length.
    pub module_types: Vec<(String, KVirtAddr, u64)>,
    /// Why the walk over the list of modules ended.
    pub modules_end: Option<WalkEnd>,
    /// The kernel's debuginfo, where there is some that belongs to it.
    pub debuginfo: Option<(Arc<Debuginfo>, Agreement)>,
    /// Debuginfo that was found and does not belong to this kernel, or is of no use.
    pub refused: Option<DebuginfoError>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

view! {
    /// `struct btf_module`: a module's types in the list of all.
    struct BtfModule of "btf_module" {
        btf: KVirtAddr = ["btf"],
    }
}

view! {
    /// `struct btf`: a table of types that the kernel has loaded.
    struct BtfObject of "btf" {
        data: KVirtAddr = ["data"],
        bytes: u32 = ["data_size"],
        name: String = ["name"],
    }
}

impl Description {
    /// Reads symbols, types and modules.
    #[must_use]
    pub fn load(memory: &KernelMemory<'_>, info: &Vmcoreinfo, limits: &Limits) -> Self {
        Self::load_with(memory, info, limits, None)
    }

    /// The same with debuginfo, where the finder has some: it stands in for symbols or types that the dump does not tell.
    #[must_use]
    pub fn load_with(
        memory: &KernelMemory<'_>,
        info: &Vmcoreinfo,
        limits: &Limits,
        finder: Option<&dyn Finder>,
    ) -> Self {
        let mut this = Self::default();
        let table = match kallsyms::load(memory, info, limits) {
            Ok(table) => {
                this.gaps
                    .extend(table.notes().iter().map(|why| Gap { what: "symbols".into(), why: why.clone() }));
                Some(table)
            }
            Err(why) => {
                this.gap("symbols", &why);
                None
            }
        };
        this.symbols = Symbols::new(info, table);
        if let Some(finder) = finder {
            this.find_debuginfo(memory, info, finder);
        }
        match btf::load_kernel_btf(memory, &this.symbols, info.symbol("_stext"), limits) {
            Ok((types, from)) => {
                if let Some(why) = types.damage() {
                    this.gap("types", &why);
                }
                this.types = Types::new(Arc::new(types));
                this.types_from = Some(from);
            }
            Err(why) => this.types_of_debuginfo(&why),
        }
        this.find_modules(memory, limits);
        this.find_module_types(memory, limits);
        this
    }

    fn find_debuginfo(&mut self, memory: &KernelMemory<'_>, info: &Vmcoreinfo, finder: &dyn Finder) {
        let own = build_id::of_kernel(memory, &self.symbols);
        let told = info.build_id().and_then(|text| text.parse().ok());
        let id = own.or(told);
        let wanted = Wanted { build_id: id.as_ref(), release: info.release(), module: None };
        let checked = |file: Arc<Debuginfo>| {
            let agreement = dwarf::check(&file, memory, &self.symbols, info)?;
            Ok((file, agreement))
        };
        match finder.find(&wanted).and_then(|found| found.map(checked).transpose()) {
            Ok(found) => self.debuginfo = found,
            Err(why) => {
                self.gap("debuginfo", &why);
                self.refused = Some(why);
            }
        }
        if let (None, Some((file, agreement))) = (self.symbols.kernel(), &self.debuginfo) {
            match LinkedSymbols::load(file, agreement.slide) {
                Ok(linked) => self.symbols.set_linked(linked),
                Err(why) => self.gap("symbols of the vmlinux", &why),
            }
        }
    }

    fn types_of_debuginfo(&mut self, why: &BtfError) {
        let Some((file, _)) = &self.debuginfo else { return self.gap("types", why) };
        match dwarf::types::load(file) {
            Ok(types) => {
                if let Some(why) = types.damage() {
                    self.gap("types", &why);
                }
                self.types = Types::new(Arc::new(types));
                self.types_from = Some(BtfSource::Dwarf);
            }
            Err(also) => {
                self.gap("types", why);
                self.gap("types of the vmlinux", &also);
            }
        }
    }

    fn gap(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.gaps.push(Gap { what: what.into(), why: why.to_string() });
    }

    fn find_modules(&mut self, memory: &KernelMemory<'_>, limits: &Limits) {
        let Some(types) = self.types.kernel().cloned() else {
            return self.gap("symbols of modules", &"they can't be found without the kernel's types");
        };
        let Some(head) = self.symbols.address("modules") else {
            return self.gap("symbols of modules", &"the kernel has no symbol «modules»");
        };
        let layout = match ModuleLayout::new(&types) {
            Ok(layout) => layout,
            Err(why) => return self.gap("symbols of modules", &why),
        };
        let inside = match types.structure("module").and_then(|m| m.member("list")) {
            Ok(member) => member.offset(),
            Err(why) => return self.gap("symbols of modules", &why),
        };
        let walk = list::walk(memory, head, limits.modules);
        let read = |node: &KVirtAddr| {
            let kaddr = KVirtAddr(node.0.wrapping_sub(inside));
            ModuleSymbols::read(memory, &layout, kaddr, limits)
        };
        let mut found = Vec::new();
        for module in walk.items.par_iter().map(read).collect::<Vec<_>>() {
            match module {
                Ok(module) => {
                    if let Some(why) = module.gap() {
                        self.gap(&format!("symbols of module {}", module.name()), &why);
                    }
                    found.push(module);
                }
                Err(why) => self.gap("symbols of a module", &why),
            }
        }
        if !walk.end.is_complete() {
            self.gap("the list of modules", &walk.end);
        }
        self.modules_end = Some(walk.end);
        self.symbols.add_modules(found);
    }

    fn find_module_types(&mut self, memory: &KernelMemory<'_>, limits: &Limits) {
        // Kernels before 5.11 have no types for modules, and no such list.
        let Some(head) = self.symbols.address("btf_modules") else { return };
        let settled = || {
            let inside = self.types.structure("btf_module")?.member("list")?.offset();
            Ok::<_, btf::TypeError>((
                inside,
                Layout::<BtfModule>::new(&self.types)?,
                Layout::<BtfObject>::new(&self.types)?,
            ))
        };
        let (inside, modules, objects) = match settled() {
            Ok(settled) => settled,
            Err(why) => return self.gap("types of modules", &why),
        };
        let walk = list::walk(memory, head, limits.modules);
        let read = |node: &KVirtAddr| -> Result<(String, KVirtAddr, u64), value::ValueError> {
            let module = modules.read(memory, KVirtAddr(node.0.wrapping_sub(inside)))?;
            let object = objects.read(memory, module.btf)?;
            Ok((object.name, object.data, u64::from(object.bytes)))
        };
        for found in walk.items.iter().map(read).collect::<Vec<_>>() {
            match found {
                Ok(found) => self.module_types.push(found),
                Err(why) => self.gap("types of a module", &why),
            }
        }
        if !walk.end.is_complete() {
            self.gap("the list of modules' types", &walk.end);
        }
    }

    /// Adds the types of one module, by its name; nothing happens where they are loaded already.
    ///
    /// # Errors
    /// When the module has no types, or they can't be read.
    pub fn load_module_types(
        &mut self,
        memory: &KernelMemory<'_>,
        name: &str,
        limits: &Limits,
    ) -> Result<(), BtfError> {
        if self.types.modules().iter().any(|(n, _)| n == name) {
            return Ok(());
        }
        let table = self.module_table(memory, name, limits)?;
        self.types.add_module(name.to_owned(), table);
        Ok(())
    }

    /// The kernel's types with those of these modules beside them, for a walk through structures that may be a module's. A module
    /// that is not loaded adds nothing: its code is in the kernel itself, or nowhere. The second part says which module is loaded and
    /// has no types that can be read.
    #[must_use]
    pub fn types_of(
        &self,
        memory: &KernelMemory<'_>,
        modules: &[&str],
        limits: &Limits,
    ) -> (Types, Vec<String>) {
        let (mut types, mut gaps) = (self.types.clone(), Vec::new());
        for name in modules {
            let loaded = self.symbols.modules().iter().any(|module| module.name().as_ref() == *name);
            let described = self.module_types.iter().any(|(known, ..)| known == name);
            if types.modules().iter().any(|(known, _)| known == name) || !(loaded || described) {
                continue;
            }
            match self.module_table(memory, name, limits) {
                Ok(table) => {
                    if let Some(why) = table.damage() {
                        gaps.push(format!("the types of module {name}: {why}"));
                    }
                    types.add_module((*name).to_owned(), table);
                }
                Err(why) => gaps.push(format!("the types of module {name}: {why}")),
            }
        }
        (types, gaps)
    }

    fn module_table(
        &self,
        memory: &KernelMemory<'_>,
        name: &str,
        limits: &Limits,
    ) -> Result<Arc<Btf>, BtfError> {
        let none = |why: &str| BtfError::Unreadable { why: why.to_owned() };
        let base =
            self.types.kernel().cloned().ok_or_else(|| none("the kernel's own types are not known"))?;
        let found = self.module_types.iter().find(|(n, ..)| n == name);
        let (_, at, len) = found.ok_or_else(|| none("the module has none"))?;
        btf::load_module_btf(memory, *at, *len, &base, limits).map(Arc::new)
    }
}
