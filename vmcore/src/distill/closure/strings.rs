//! Constant strings that something kept points at: names of filesystems, devices, interrupts. A vmlinux has them too, but who reads
//! memory reads them in the dump.

use std::collections::HashSet;

use super::super::Reason;
use super::Closure;
use crate::addr::{KVirtAddr, Pfn};
use crate::mem::PhysicalMemory;

/// A string that is longer is none that names something.
const LONGEST: usize = 128;

impl Closure<'_> {
    /// Touches each string among the kernel's constants that a word of a kept page points at.
    pub(super) fn strings(&self) {
        let symbols = &self.description.symbols;
        let Some((start, end)) = symbols.address("__start_rodata").zip(symbols.address("__end_rodata"))
        else {
            return;
        };
        // Most of the kernel's own data is read by nobody: what is, the analyses have read.
        let kept =
            self.why.iter().filter(|(reason, _)| **reason != Reason::KernelData).flat_map(|(_, runs)| runs);
        let mut page = vec![0; usize::try_from(self.recorder.page_size()).unwrap_or(0)];
        let mut found = HashSet::new();
        for pfn in kept.flat_map(|(first, count)| first.0..first.0.saturating_add(*count)) {
            if self.cancel.is_cancelled() {
                return;
            }
            let at = Pfn(pfn).start(self.recorder.page_size());
            if at.is_none_or(|at| self.recorder.read(at, &mut page).is_err()) {
                continue;
            }
            let words = page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            found.extend(words.filter(|word| (start.0..end.0).contains(word)));
        }
        for at in found {
            if let Some(bytes) = self.string(KVirtAddr(at)) {
                self.touch(KVirtAddr(at), bytes);
            }
        }
    }

    /// How many bytes the string there has, with its end; `None` where there is none.
    fn string(&self, at: KVirtAddr) -> Option<u64> {
        let mut bytes = [0; LONGEST];
        // Read past the notes: what is no string is not kept.
        let from = self.memory.translate(at).ok()?;
        let most = usize::try_from(from.run).unwrap_or(LONGEST).min(LONGEST);
        let bytes = bytes.get_mut(..most)?;
        self.recorder.beneath().read(from.paddr, bytes).ok()?;
        let len = bytes.iter().position(|byte| *byte == 0)?;
        let text = bytes.get(..len)?.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n'));
        (len > 0 && text).then(|| u64::try_from(len).unwrap_or(0).saturating_add(1))
    }
}
