//! Global variables of the kernel by their names: numbers, pointers, texts.

use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::sym::Symbols;
use crate::xlat::KernelMemory;

/// Why a variable can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// The kernel has none of that name, or its symbols are not known.
    #[error("no symbol {name} is known")]
    NoSymbol {
        /// The name.
        name: &'static str,
    },
    /// Several files of the kernel have a variable of that name of their own.
    #[error("the kernel has {count} symbols {name}, and nothing tells which is meant")]
    Ambiguous {
        /// The name.
        name: &'static str,
        /// How many.
        count: usize,
    },
    /// It is not in the dump.
    #[error("{name} can't be read at {at}: {source}")]
    Unreadable {
        /// The name.
        name: &'static str,
        /// Where it is, or what it points at.
        at: KVirtAddr,
        /// Why.
        source: MemError,
    },
    /// What it holds can't be.
    #[error("{name} holds {found}")]
    Implausible {
        /// The name.
        name: &'static str,
        /// What it holds.
        found: String,
    },
}

/// Reads variables of one dump.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    symbols: &'a Symbols,
}

impl<'a, 'm> Variables<'a, 'm> {
    /// The variables of the kernel whose symbols these are.
    #[must_use]
    pub fn new(memory: &'a KernelMemory<'m>, symbols: &'a Symbols) -> Self {
        Self { memory, symbols }
    }

    /// Where a variable is.
    ///
    /// # Errors
    /// Where the kernel itself (not a module) has none of that name, or several at different places.
    pub fn address(self, name: &'static str) -> Result<KVirtAddr, VariableError> {
        let all = self.symbols.all(name);
        let mut own = all.iter().filter(|s| s.module.is_none()).map(|s| s.address);
        let first = own.next().ok_or(VariableError::NoSymbol { name })?;
        let count = own.filter(|at| *at != first).count();
        if count > 0 {
            return Err(VariableError::Ambiguous { name, count: count.saturating_add(1) });
        }
        Ok(first)
    }

    /// A variable of 4 bytes, unsigned.
    ///
    /// # Errors
    /// Where it is not known or not in the dump.
    pub fn u32(self, name: &'static str) -> Result<u32, VariableError> {
        let at = self.address(name)?;
        self.memory.read_u32(at).map_err(|source| VariableError::Unreadable { name, at, source })
    }

    /// An `int`.
    ///
    /// # Errors
    /// As [`Variables::u32`].
    pub fn i32(self, name: &'static str) -> Result<i32, VariableError> {
        self.u32(name).map(u32::cast_signed)
    }

    /// An `unsigned long`.
    ///
    /// # Errors
    /// As [`Variables::u32`].
    pub fn u64(self, name: &'static str) -> Result<u64, VariableError> {
        let at = self.address(name)?;
        self.memory.read_u64(at).map_err(|source| VariableError::Unreadable { name, at, source })
    }

    /// The text that a `char *` points at, at most `max` bytes of it; `None` for a null pointer. What is no UTF-8 is replaced.
    ///
    /// # Errors
    /// As [`Variables::u32`], for the pointer and for the text.
    pub fn text(self, name: &'static str, max: usize) -> Result<Option<String>, VariableError> {
        let at = KVirtAddr(self.u64(name)?);
        if at.is_null() {
            return Ok(None);
        }
        let bytes = self.memory.read_cstr(at, max);
        let bytes = bytes.map_err(|source| VariableError::Unreadable { name, at, source })?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
