//! The parts of the unwind tables, and of the code, that a reader may want for what lies on the stacks.
//!
//! The unwinder here begins at the registers of a fault, crash where the kernel stopped: it goes through the functions that
//! reported the fault too. Where it finds no entry it takes each word for a frame, without a warning.

use std::collections::BTreeSet;

use super::{Closure, STACK};
use crate::addr::KVirtAddr;
use crate::kernel::percpu::PerCpu;
use crate::kernel::task::Task;
use crate::unwind::{BLOCK, Unwinder};

/// Bytes of an address in the table, and of an entry (`struct orc_entry`).
const ADDRESS: u64 = 4;
const ENTRY: u64 = 6;

/// Bytes of code before an address on a stack that hold the call which put it there: no instruction is longer.
const CALL: u64 = 16;

/// Where the kernel's tables are.
struct Tables {
    text: u64,
    index: KVirtAddr,
    addresses: KVirtAddr,
    entries: KVirtAddr,
}

impl Closure<'_> {
    /// The words of these stacks that may be addresses of the kernel's code.
    pub(super) fn addresses_of_code(&self, stacks: &[(KVirtAddr, u64)]) -> BTreeSet<u64> {
        let symbols = &self.description.symbols;
        let mut found = BTreeSet::new();
        let Some((text, end)) = symbols.address("_stext").zip(symbols.address("_etext")) else {
            return found;
        };
        let mut bytes = Vec::new();
        for (stack, size) in stacks {
            if self.cancel.is_cancelled() {
                break;
            }
            bytes.resize(usize::try_from(*size).unwrap_or(0), 0);
            if self.memory.read(*stack, &mut bytes).is_ok() {
                let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
                found.extend(words.filter(|pc| (text.0..end.0).contains(pc)));
            }
        }
        found
    }

    /// Touches what the tables have for each of these addresses.
    pub(super) fn unwind_tables(&self, addresses: &BTreeSet<u64>) {
        let symbols = &self.description.symbols;
        let at = |name: &str| symbols.address(name);
        let found = (|| {
            Some(Tables {
                text: at("_stext")?.0,
                index: at("orc_lookup")?,
                addresses: at("__start_orc_unwind_ip")?,
                entries: at("__start_orc_unwind")?,
            })
        })();
        let Some(tables) = found else { return };
        let mut last = None;
        for pc in addresses {
            let block = pc.saturating_sub(tables.text).wrapping_div(BLOCK);
            if last.replace(block) != Some(block) {
                self.block_of_code(&tables, block);
            }
        }
    }

    /// Touches the code before each of these addresses, which tells whether a call has put it there, and where its function begins:
    /// from there on it is disassembled.
    pub(super) fn code(&self, addresses: &BTreeSet<u64>) {
        for pc in addresses {
            self.touch(KVirtAddr(pc.saturating_sub(CALL)), CALL.saturating_add(1));
            if let Some(at) = self.description.symbols.at(KVirtAddr(*pc)) {
                self.touch(at.symbol.address, pc.saturating_sub(at.symbol.address.0));
            }
        }
    }

    fn block_of_code(&self, tables: &Tables, block: u64) {
        let slot = |number: u64| tables.index.checked_add(number.checked_mul(4)?);
        let read = |number: u64| self.memory.read_u32(slot(number)?).ok().map(u64::from);
        let (Some(first), Some(last)) = (read(block), block.checked_add(1).and_then(read)) else { return };
        // The entry before the first one may reach into the block.
        let first = first.saturating_sub(1);
        let count = last.saturating_sub(first).saturating_add(1).min(BLOCK);
        for (table, each) in [(tables.addresses, ADDRESS), (tables.entries, ENTRY)] {
            if let Some(from) = first.checked_mul(each).and_then(|offset| table.checked_add(offset)) {
                self.touch(from, count.saturating_mul(each));
            }
        }
    }

    /// The stacks of these tasks, and those that CPUs have for interrupts and exceptions.
    pub(super) fn stacks(&self, tasks: &[Task], per_cpu: &PerCpu) -> Vec<(KVirtAddr, u64)> {
        let size = self.stack_size();
        let own = tasks.iter().filter_map(|task| Some((task.stack?, size)));
        let unwinder = Unwinder::new(self.memory, &self.description, per_cpu, self.limits);
        let of_cpus = per_cpu.possible().iter().flat_map(|cpu| unwinder.cpu_stacks(*cpu));
        own.chain(of_cpus.map(|(_, stack)| (stack.start, stack.end.0.saturating_sub(stack.start.0))))
            .collect()
    }

    /// Bytes of a task's stack.
    pub(super) fn stack_size(&self) -> u64 {
        let told =
            self.description.types.structure("thread_union").map_or(STACK, crate::sym::btf::Struct::size);
        told.clamp(STACK, super::LARGEST_STACK)
    }
}
