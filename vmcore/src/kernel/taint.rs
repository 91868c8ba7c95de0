//! What taints a kernel or a module, and the letters for it.
//!
//! The dumped kernel has its own table (`taint_flags` in `kernel/panic.c`), which also knows the letters that distributions add.
//! Where that can't be read, the letters of the mainline kernel serve; their bits have never been given a second meaning there.

use super::value::{Layout, view};
use super::variable::{VariableError, Variables};
use crate::addr::KVirtAddr;
use crate::sym::Symbols;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// The mainline kernel's letters in the order of their bits (`taint_flags`, 6.15). `G` stands for bit 0 not set.
pub const LETTERS: &str = "PFSRMBUDAWCIOELKXTNJ";
/// Flags that a mask has room for.
const MOST: u64 = 64;

view! {
    /// `struct taint_flag`: one bit's letters.
    struct Flag of "taint_flag" {
        set: u8 = ["c_true"],
        module: Option<bool> = ["module"],
    }
}

/// A taint mask and its letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// The mask, as `/proc/sys/kernel/tainted` shows it.
    pub mask: u64,
    /// The letters of its bits in the order of the bits, `?` for a bit whose letter is not known. Empty for a clean kernel.
    pub letters: String,
}

/// The letters of one kernel.
#[derive(Clone, Debug)]
pub struct Letters {
    flags: Vec<(char, bool)>,
    from_dump: bool,
}

impl Letters {
    /// The dumped kernel's own table, or the mainline kernel's where that can't be read; then also why.
    #[must_use]
    pub fn read(memory: &KernelMemory<'_>, symbols: &Symbols, types: &Types) -> (Self, Option<String>) {
        match own(memory, symbols, types) {
            Ok(flags) => (Self { flags, from_dump: true }, None),
            Err(why) => (Self::mainline(), Some(why)),
        }
    }

    /// The mainline kernel's letters. All of them may be a module's here.
    #[must_use]
    pub fn mainline() -> Self {
        Self { flags: LETTERS.chars().map(|letter| (letter, true)).collect(), from_dump: false }
    }

    /// True where the dumped kernel itself says so.
    #[must_use]
    pub fn from_dump(&self) -> bool {
        self.from_dump
    }

    /// The mask with its letters.
    #[must_use]
    pub fn of_kernel(&self, mask: u64) -> Taint {
        self.letters(mask, |_| true)
    }

    /// A module's mask with the letters that the kernel shows for modules (`lsmod`, `Modules linked in:`).
    #[must_use]
    pub fn of_module(&self, mask: u64) -> Taint {
        self.letters(mask, |module| module)
    }

    fn letters(&self, mask: u64, shown: impl Fn(bool) -> bool) -> Taint {
        let mut letters = String::new();
        for bit in (0..64_u32).filter(|bit| mask >> bit & 1 == 1) {
            match usize::try_from(bit).ok().and_then(|bit| self.flags.get(bit)) {
                Some((letter, module)) if shown(*module) => letters.push(*letter),
                Some(_) => {}
                None => letters.push('?'),
            }
        }
        Taint { mask, letters }
    }
}

/// The mask of letters as the mainline kernel prints them; `None` where one is not of it.
#[must_use]
pub fn mainline_mask(letters: &str) -> Option<u64> {
    letters.chars().try_fold(0, |mask, letter| {
        let bit = LETTERS.chars().position(|known| known == letter)?;
        Some(mask | 1_u64.checked_shl(u32::try_from(bit).ok()?)?)
    })
}

fn own(memory: &KernelMemory<'_>, symbols: &Symbols, types: &Types) -> Result<Vec<(char, bool)>, String> {
    let layout = Layout::<Flag>::new(types).map_err(|e| e.to_string())?;
    let at =
        Variables::new(memory, symbols).address("taint_flags").map_err(|e: VariableError| e.to_string())?;
    let room = symbols.symbol("taint_flags").and_then(|s| s.size);
    let room = room.ok_or("the end of taint_flags is not known")?;
    let count = room.checked_div(layout.size()).unwrap_or_default().min(MOST);
    let mut flags = Vec::new();
    for number in 0..count {
        let at = KVirtAddr(at.0.saturating_add(number.saturating_mul(layout.size())));
        let flag = layout.read(memory, at).map_err(|e| e.to_string())?;
        // Behind the table there is padding up to the next symbol.
        if !flag.set.is_ascii_alphabetic() {
            break;
        }
        // Newer kernels (seen with 7.2) show a module's flags as they are, and have no mark for those that are a module's.
        flags.push((char::from(flag.set), flag.module.unwrap_or(true)));
    }
    if flags.first().map(|f| f.0) != Some('P') {
        return Err("what is at taint_flags does not begin with the letter P".into());
    }
    Ok(flags)
}
