//! All symbols of a dump in one place: the kernel's, the modules', and the few that VMCOREINFO names.

use std::fmt;
use std::sync::Arc;

use super::Symbol;
use super::dwarf::LinkedSymbols;
use super::kallsyms::Kallsyms;
use super::modules::ModuleSymbols;
use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;

/// The symbols of a dump. Without any table it still knows those that VMCOREINFO names.
#[derive(Debug, Default)]
pub struct Symbols {
    named: Vec<(String, KVirtAddr)>,
    kernel: Option<Kallsyms>,
    /// A vmlinux's, where the kernel's own table can't be read.
    linked: Option<LinkedSymbols>,
    modules: Vec<ModuleSymbols>,
    /// Start, end and module of each range of module memory, ascending.
    ranges: Vec<(u64, u64, usize)>,
}

/// A symbol and how far behind its start an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolAt {
    /// The symbol.
    pub symbol: Symbol,
    /// Bytes from its start.
    pub offset: u64,
}

impl fmt::Display for SymbolAt {
    /// As the kernel prints `%pS`: `name+0x1c/0x40 [module]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.symbol.name, self.offset)?;
        if let Some(size) = self.symbol.size {
            write!(f, "/{size:#x}")?;
        }
        match &self.symbol.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

impl Symbols {
    /// The symbols that VMCOREINFO names, and the kernel's table where it could be read.
    #[must_use]
    pub fn new(info: &Vmcoreinfo, kernel: Option<Kallsyms>) -> Self {
        let name =
            |key: &str| key.strip_prefix("SYMBOL(").and_then(|k| k.strip_suffix(')')).map(str::to_owned);
        let named = info.entries().iter().filter_map(|e| {
            // SYMBOL(mem_section) is the array that the variable points at, not the variable, wherever that is a pointer
            // (VMCOREINFO_SYMBOL_ARRAY in kernel/vmcore_info.c; seen with 6.1): no symbol's place.
            let name = name(&e.key).filter(|n| n != "mem_section")?;
            let address = info.symbol(&name)?;
            Some((name, address))
        });
        Self { named: named.collect(), kernel, ..Self::default() }
    }

    /// Takes a vmlinux's symbols for the kernel's. They are asked only where the kernel's own table is missing.
    pub fn set_linked(&mut self, linked: LinkedSymbols) {
        self.linked = Some(linked);
    }

    /// The symbols of a vmlinux, where they stand for the kernel's own.
    #[must_use]
    pub fn linked(&self) -> Option<&LinkedSymbols> {
        self.linked.as_ref().filter(|_| self.kernel.is_none())
    }

    /// Adds the modules.
    pub fn add_modules(&mut self, modules: Vec<ModuleSymbols>) {
        self.modules.extend(modules);
        let of = |(number, module): (usize, &ModuleSymbols)| {
            let spans = module.ranges().iter().map(move |r| (r.start, r.end, number));
            spans.collect::<Vec<_>>()
        };
        self.ranges = self.modules.iter().enumerate().flat_map(of).collect();
        self.ranges.sort_unstable();
    }

    /// The kernel's own table.
    #[must_use]
    pub fn kernel(&self) -> Option<&Kallsyms> {
        self.kernel.as_ref()
    }

    /// The modules, with their symbols.
    #[must_use]
    pub fn modules(&self) -> &[ModuleSymbols] {
        &self.modules
    }

    /// The first symbol of that name: the kernel's before the modules'.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let kernel = self.kernel.as_ref().and_then(|k| k.symbol(name));
        let kernel = kernel.or_else(|| self.linked()?.all(name).into_iter().next());
        let named = || self.named.iter().find(|(n, _)| n == name).map(|(_, address)| bare(name, *address));
        kernel.or_else(named).or_else(|| self.modules.iter().find_map(|m| m.symbol(name)))
    }

    /// All symbols of that name, of the kernel and of modules.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<Symbol> {
        let mut found = self.kernel.as_ref().map(|k| k.all(name)).unwrap_or_default();
        found.extend(self.linked().map(|linked| linked.all(name)).unwrap_or_default());
        if found.is_empty() {
            found.extend(
                self.named.iter().filter(|(n, _)| n == name).map(|(_, address)| bare(name, *address)),
            );
        }
        found.extend(self.modules.iter().filter_map(|m| m.symbol(name)));
        found
    }

    /// Where a variable or function of the kernel is. For a per-CPU variable: before the CPU's offset is added.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<KVirtAddr> {
        self.symbol(name).map(|s| s.address)
    }

    /// The symbol that an address belongs to, and how far in it is.
    #[must_use]
    pub fn at(&self, address: KVirtAddr) -> Option<SymbolAt> {
        let symbol = match self.module_number(address) {
            Some(number) => self.modules.get(number)?.at(address)?,
            None => match &self.kernel {
                Some(kernel) => kernel.at(address)?,
                None => self.linked()?.at(address)?,
            },
        };
        let offset = address.0.checked_sub(symbol.address.0)?;
        Some(SymbolAt { symbol, offset })
    }

    /// The module whose memory an address is in, even where its symbols could not be read.
    #[must_use]
    pub fn module_at(&self, address: KVirtAddr) -> Option<&Arc<str>> {
        self.module_number(address).and_then(|n| self.modules.get(n)).map(ModuleSymbols::name)
    }

    fn module_number(&self, address: KVirtAddr) -> Option<usize> {
        let after = self.ranges.partition_point(|(start, ..)| *start <= address.0);
        let (_, end, number) = self.ranges.get(after.checked_sub(1)?)?;
        (address.0 < *end).then_some(*number)
    }
}

fn bare(name: &str, address: KVirtAddr) -> Symbol {
    Symbol { name: name.to_owned(), address, size: None, letter: '?', module: None, per_cpu: false }
}
