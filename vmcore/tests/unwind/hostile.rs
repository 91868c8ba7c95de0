//! The real crash with its memory changed underneath: every stack still ends, with a reason.

use std::collections::HashSet;

use fixtures::shuffle::Seed;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::kernel::describe::Description;
use vmcore::kernel::percpu::PerCpu;
use vmcore::limits::Limits;
use vmcore::mem::{PageState, PhysicalMemory};
use vmcore::unwind::Unwinder;
use vmcore::xlat::KernelMemory;

use crate::real;

/// A dump of which words change with the seed, and pages go missing.
struct Changed<'d> {
    dump: &'d dyn PhysicalMemory,
    seed: u64,
}

impl PhysicalMemory for Changed<'_> {
    fn page_size(&self) -> u64 {
        self.dump.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        self.dump.end_pfn()
    }

    fn state(&self, pfn: Pfn) -> PageState {
        self.dump.state(pfn)
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let pfn = Pfn(paddr.0 >> 12);
        if Seed(self.seed ^ pfn.0).below(12) == 0 {
            return Err(PageError::Hole { pfn });
        }
        self.dump.read(paddr, buf)?;
        let first = paddr.0 & !7;
        for word in (first..paddr.0 + buf.len() as u64).step_by(8) {
            let mut seed = Seed(self.seed.rotate_left(17) ^ word);
            if seed.below(40) == 0 {
                let bit = seed.below(64);
                let at = (word + bit / 8).checked_sub(paddr.0).and_then(|at| usize::try_from(at).ok());
                if let Some(byte) = at.and_then(|at| buf.get_mut(at)) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
        Ok(())
    }
}

#[test]
fn stacks_in_changed_memory_end_with_a_reason() {
    let dump = real::dump();
    let kernel = real::kernel(&dump);
    let limits = Limits::default();
    let description = Description::load(kernel.memory(), kernel.vmcoreinfo(), &limits);
    let cpus = PerCpu::read(kernel.memory(), &description.symbols, &limits).unwrap();
    let tasks = real::tasks(&kernel, &description);
    let mut reasons = HashSet::new();
    let mut guessed = 0;
    for seed in 1..40_u64 {
        let changed = Changed { dump: &dump, seed: seed << 32 };
        let memory = KernelMemory::new(&changed, kernel.memory().translation().clone());
        let unwinder = Unwinder::new(&memory, &description, &cpus, &limits);
        let sleeping = tasks.iter().map(|task| unwinder.unwind_sleeping(task.stack, task.sp));
        let running = dump.prstatus().iter().map(|s| unwinder.unwind_registers(&s.registers, s.cpu));
        for stack in sleeping.chain(running) {
            assert!(stack.frames.len() <= 4096 && stack.doubts.len() <= stack.frames.len());
            // Nothing on top of a guess looks sure.
            let first = stack.frames.iter().position(|frame| !frame.sure).unwrap_or(stack.frames.len());
            assert!(stack.frames.iter().skip(first).all(|frame| !frame.sure));
            guessed += usize::from(first < stack.frames.len());
            assert!(!(stack.is_complete() && first < stack.frames.len()));
            reasons.insert(std::mem::discriminant(&stack.end));
            assert!(unwinder.trouble(&stack).is_none_or(|t| t.frame < stack.frames.len()));
        }
    }
    assert!(guessed > 100, "{guessed} stacks needed a guess");
    assert!(reasons.len() >= 4, "{reasons:?}");
}
