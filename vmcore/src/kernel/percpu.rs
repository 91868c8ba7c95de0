//! Per-CPU variables: which CPUs there are, and where each one's copy is.
//!
//! A copy is at the variable's address plus `__per_cpu_offset[cpu]`, whether the section is linked at 0 (`x86_64` before 6.15) or
//! like any other. Facts: `include/asm-generic/percpu.h`, `kernel/cpu.c`.

use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::Symbols;
use crate::xlat::{KernelMemory, le};

/// Why per-CPU variables can't be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PerCpuError {
    /// The symbols are missing.
    #[error("no symbol {name} is known")]
    NoSymbol {
        /// The symbol.
        name: &'static str,
    },
    /// It is not in the dump.
    #[error("{name} can't be read at {at}: {why}")]
    Unreadable {
        /// The symbol.
        name: &'static str,
        /// Where it is.
        at: KVirtAddr,
        /// Why.
        why: String,
    },
    /// There is no such CPU.
    #[error("cpu {cpu} does not exist: the kernel has room for {room}")]
    NoCpu {
        /// The CPU.
        cpu: usize,
        /// How many there can be.
        room: usize,
    },
}

/// The CPUs of a dump and their offsets.
#[derive(Clone, Debug, Default)]
pub struct PerCpu {
    offsets: Vec<u64>,
    possible: Vec<usize>,
    present: Option<Vec<usize>>,
    online: Option<Vec<usize>>,
}

impl PerCpu {
    /// Reads the offsets and the CPU masks.
    ///
    /// # Errors
    /// When neither the offsets nor the mask of possible CPUs can be had. The other masks may be missing.
    pub fn read(memory: &KernelMemory<'_>, symbols: &Symbols, limits: &Limits) -> Result<Self, PerCpuError> {
        // Before 4.5 the masks were reached through pointers; no kernel with BTF does that.
        let mask = |name: &'static str| mask(memory, symbols, name, limits);
        let possible = mask("__cpu_possible_mask");
        let present = mask("__cpu_present_mask").ok();
        let online = mask("__cpu_online_mask").ok();
        let Some(table) = symbols.symbol("__per_cpu_offset") else {
            // A kernel for one CPU (or tables that can't be read) has no offsets: its per-CPU variables are variables.
            if symbols.kernel().is_some() && possible.is_err() {
                return Ok(Self { offsets: vec![0], possible: vec![0], present: None, online: None });
            }
            return Err(PerCpuError::NoSymbol { name: "__per_cpu_offset" });
        };
        let possible = possible?;
        let room = possible.last().map_or(0, |last| last.saturating_add(1));
        let sparse = memory.read_sparse(table.address, room.saturating_mul(8));
        if let Some(missing) = sparse.missing.first().filter(|m| m.range.len() == sparse.bytes.len()) {
            return Err(PerCpuError::Unreadable {
                name: "__per_cpu_offset",
                at: table.address,
                why: missing.why.to_string(),
            });
        }
        let (offsets, _) = sparse.bytes.as_chunks::<8>();
        let offsets = offsets.iter().map(|b| u64::from_le_bytes(*b)).collect();
        Ok(Self { offsets, possible, present, online })
    }

    /// The CPUs that can exist.
    #[must_use]
    pub fn possible(&self) -> &[usize] {
        &self.possible
    }

    /// The CPUs that are plugged in, where that is known.
    #[must_use]
    pub fn present(&self) -> Option<&[usize]> {
        self.present.as_deref()
    }

    /// The CPUs that the kernel runs on, where that is known. A panic takes the others offline on some machines.
    #[must_use]
    pub fn online(&self) -> Option<&[usize]> {
        self.online.as_deref()
    }

    /// What is added to a per-CPU address for this CPU.
    ///
    /// # Errors
    /// When there is no such CPU.
    pub fn offset(&self, cpu: usize) -> Result<u64, PerCpuError> {
        self.offsets.get(cpu).copied().ok_or(PerCpuError::NoCpu { cpu, room: self.offsets.len() })
    }

    /// Where this CPU's copy of a per-CPU variable (or of what a `__percpu` pointer points at) is.
    ///
    /// # Errors
    /// When there is no such CPU.
    pub fn address(&self, variable: KVirtAddr, cpu: usize) -> Result<KVirtAddr, PerCpuError> {
        // Offsets are differences and may be «negative».
        self.offset(cpu).map(|offset| KVirtAddr(variable.0.wrapping_add(offset)))
    }

    /// Where each possible CPU's copy of a variable is, by name.
    ///
    /// # Errors
    /// When the symbol is not known.
    pub fn variable(
        &self,
        symbols: &Symbols,
        name: &'static str,
    ) -> Result<Vec<(usize, KVirtAddr)>, PerCpuError> {
        let at = symbols.address(name).ok_or(PerCpuError::NoSymbol { name })?;
        Ok(self.possible.iter().filter_map(|cpu| Some((*cpu, self.address(at, *cpu).ok()?))).collect())
    }
}

/// The numbers of the bits that are set in a `struct cpumask` variable.
fn mask(
    memory: &KernelMemory<'_>,
    symbols: &Symbols,
    name: &'static str,
    limits: &Limits,
) -> Result<Vec<usize>, PerCpuError> {
    let symbol = symbols.symbol(name).ok_or(PerCpuError::NoSymbol { name })?;
    let most = limits.cpus.div_ceil(8);
    let bytes = symbol.size.and_then(|s| usize::try_from(s).ok()).unwrap_or(8).min(most);
    let mut words = vec![0_u8; bytes & !7];
    let unreadable =
        |e: crate::error::MemError| PerCpuError::Unreadable { name, at: symbol.address, why: e.to_string() };
    memory.read(symbol.address, &mut words).map_err(unreadable)?;
    let mut found = Vec::new();
    for (number, at) in (0..words.len()).step_by(8).enumerate() {
        let word = le::u64_at(&words, at).unwrap_or_default();
        let base = number.saturating_mul(64);
        found.extend((0..64_usize).filter(|bit| word >> bit & 1 == 1).map(|bit| base.saturating_add(bit)));
    }
    Ok(found)
}
