//! A real dump's memory, of which single bytes are changed and single pages taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use vmcore::addr::{KVirtAddr, Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::kernel::describe::Description;
use vmcore::kernel::hints::Hints;
use vmcore::kernel::percpu::PerCpu;
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::mem::PageState;
use vmcore::xlat::KernelMemory;
use vmcore::{Dump, OpenOptions, PhysicalMemory};

pub(crate) fn dump() -> Dump {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump");
    Dump::open(path, &OpenOptions::default()).unwrap()
}

/// The kernel of the dump, opened and described.
pub(crate) struct Opened<'d> {
    pub(crate) kernel: Kernel<'d>,
    pub(crate) description: Description,
    pub(crate) cpus: PerCpu,
}

pub(crate) fn open(dump: &Dump) -> Opened<'_> {
    let hints = Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        phys_base: dump.facts().phys_base,
        ..Hints::default()
    };
    let kernel = Kernel::open(dump, &hints, Options::default().without_scan());
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    Opened { kernel, description, cpus }
}

/// The memory of a dump, damaged.
pub(crate) struct Damaged<'d> {
    dump: &'d Dump,
    gone: BTreeSet<Pfn>,
    changed: BTreeMap<u64, u8>,
}

impl<'d> Damaged<'d> {
    pub(crate) fn new(dump: &'d Dump) -> Self {
        Self { dump, gone: BTreeSet::new(), changed: BTreeMap::new() }
    }

    /// The page of this address is left out.
    pub(crate) fn lose(&mut self, opened: &Opened<'_>, kaddr: KVirtAddr) {
        let mapping = opened.kernel.memory().translate(kaddr).unwrap();
        self.gone.insert(mapping.paddr.pfn(4096).unwrap());
    }

    /// The byte at this address has another value.
    pub(crate) fn change(&mut self, opened: &Opened<'_>, kaddr: KVirtAddr, value: u8) {
        let mapping = opened.kernel.memory().translate(kaddr).unwrap();
        self.changed.insert(mapping.paddr.0, value);
    }

    /// It by the addresses of the whole dump.
    pub(crate) fn memory(&self, opened: &Opened<'_>) -> KernelMemory<'_> {
        KernelMemory::new(self, opened.kernel.memory().translation().clone())
    }
}

impl PhysicalMemory for Damaged<'_> {
    fn page_size(&self) -> u64 {
        self.dump.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        self.dump.end_pfn()
    }

    fn state(&self, pfn: Pfn) -> PageState {
        if self.gone.contains(&pfn) { PageState::Excluded } else { self.dump.state(pfn) }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let last = paddr.0 + (buf.len() as u64).saturating_sub(1);
        if let Some(pfn) = (paddr.0 >> 12..=last >> 12).map(Pfn).find(|pfn| self.gone.contains(pfn)) {
            return Err(PageError::Excluded { pfn, level: 31 });
        }
        self.dump.read(paddr, buf)?;
        for (at, value) in self.changed.range(paddr.0..=last) {
            buf[usize::try_from(at - paddr.0).unwrap()] = *value;
        }
        Ok(())
    }
}
