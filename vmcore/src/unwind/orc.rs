//! What an ORC entry says, in each of the four forms that kernels have had.
//!
//! | form | kernels | type | signal | end | registers |
//! |---|---|---|---|---|---|
//! | 1 | 4.14 to 6.2 | bits 8–9: call, regs, partial regs | – | bit 10 | as they were first |
//! | 2 | 6.3 | the same | bit 10 | bit 11 | the same |
//! | 3 | 6.4 to 7.0, RHEL 9.6 and later | bits 8–10: undefined, end, call, regs, partial regs | bit 11 | a type | the same |
//! | 4 | 7.1 and later | the same as 3 | bit 11 | a type | renumbered |
//!
//! The stack pointer's register is in bits 0–3 and that of `rbp` in bits 4–7 of all of them. Facts:
//! `arch/x86/include/asm/orc_types.h`, kernel commits ffb1b4a41016, f902cfdd46ae, fb799447ae29.

use std::fmt;

use crate::raw::orc::OrcEntry;

/// The form of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrcVersion {
    /// 4.14 to 6.2.
    V1,
    /// 6.3.
    V2,
    /// 6.4 to 7.0.
    V3,
    /// 7.1 and later.
    V4,
}

impl OrcVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];
}

impl fmt::Display for OrcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
        })
    }
}

/// What is found at the address that an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: this code can't be unwound.
    Undefined,
    /// This is the outermost frame.
    End,
    /// The caller's stack pointer, with the return address below it.
    Call,
    /// A whole `struct pt_regs`.
    Regs,
    /// What the CPU itself pushes at an exception: `rip`, `cs`, `rflags`, `rsp`, `ss`.
    PartialRegs,
}

/// From what the address is reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// The stack pointer plus the offset.
    Sp,
    /// `rbp` plus the offset.
    Bp,
    /// The word that the stack pointer points at, plus the offset.
    SpIndirect,
    /// The word at `rbp` plus the offset.
    BpIndirect,
    /// `rax` itself.
    Ax,
    /// `rdx` itself.
    Dx,
    /// `rdi` itself.
    Di,
    /// `r10` itself.
    R10,
    /// `r13` itself.
    R13,
}

/// Where the caller's `rbp` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BpRule {
    /// It was not touched.
    Same,
    /// This many bytes from the caller's stack pointer.
    FromCaller(i16),
    /// This many bytes from the present `rbp`.
    FromBp(i16),
}

/// One entry, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What is found there.
    pub kind: Kind,
    /// From what it is reckoned; [`Base::Sp`] where nothing is.
    pub base: Base,
    /// Bytes from there.
    pub offset: i16,
    /// Where the caller's `rbp` is.
    pub bp: BpRule,
}

impl Rule {
    /// The rule of a function's first instruction: the return address is all that is on the stack.
    pub const FIRST_INSTRUCTION: Self =
        Self { kind: Kind::Call, base: Base::Sp, offset: 8, bp: BpRule::Same };

    const fn nothing(kind: Kind) -> Self {
        Self { kind, base: Base::Sp, offset: 0, bp: BpRule::Same }
    }
}

/// What an entry says in this form; `None` where no kernel of that form would write it.
#[must_use]
pub fn decode(version: OrcVersion, entry: OrcEntry) -> Option<Rule> {
    let flags = entry.flags.get();
    let (offset, bp_offset) = (entry.sp_offset.get(), entry.bp_offset.get());
    let empty = offset == 0 && bp_offset == 0;
    let sp_reg = flags & 0xf;
    let bp_reg = flags >> 4 & 0xf;
    // The highest bit that has a meaning, how the type is written, and whether it may be marked as a signal's.
    let (top, kind, signal) = match version {
        OrcVersion::V1 | OrcVersion::V2 => {
            let end_bit = if version == OrcVersion::V1 { 10 } else { 11 };
            if sp_reg == 0 {
                return match (empty, flags) {
                    (true, 0) => Some(Rule::nothing(Kind::Undefined)),
                    (true, end) if end == 1 << end_bit => Some(Rule::nothing(Kind::End)),
                    _ => None,
                };
            }
            let kind = match flags >> 8 & 3 {
                0 => Kind::Call,
                1 => Kind::Regs,
                2 => Kind::PartialRegs,
                _ => return None,
            };
            // Only an entry without a register is an end, so that the bit above all others is never set here.
            (end_bit, kind, version == OrcVersion::V2 && flags & 1 << 10 != 0)
        }
        OrcVersion::V3 | OrcVersion::V4 => {
            let kind = match flags >> 8 & 7 {
                0 => Kind::Undefined,
                1 => Kind::End,
                2 => Kind::Call,
                3 => Kind::Regs,
                4 => Kind::PartialRegs,
                _ => return None,
            };
            if matches!(kind, Kind::Undefined | Kind::End) {
                return (empty && flags & !0x700 == 0).then(|| Rule::nothing(kind));
            }
            (12, kind, flags & 1 << 11 != 0)
        }
    };
    // A call is never a signal's: its return address is looked up as one.
    if flags >> top != 0 || signal && kind == Kind::Call {
        return None;
    }
    let base = base(version, sp_reg)?;
    let bp = match (version, bp_reg) {
        (_, 0) if bp_offset == 0 => BpRule::Same,
        (OrcVersion::V4, 8) | (OrcVersion::V1 | OrcVersion::V2 | OrcVersion::V3, 1) => {
            BpRule::FromCaller(bp_offset)
        }
        (_, 4) => BpRule::FromBp(bp_offset),
        _ => return None,
    };
    Some(Rule { kind, base, offset, bp })
}

fn base(version: OrcVersion, register: u16) -> Option<Base> {
    Some(match (version, register) {
        (OrcVersion::V4, 1) => Base::Ax,
        (OrcVersion::V4, 2) => Base::Dx,
        (OrcVersion::V4, 3) => Base::Sp,
        (OrcVersion::V4, 4) => Base::Bp,
        (OrcVersion::V4, 5) => Base::Di,
        (OrcVersion::V4, 6) => Base::R10,
        (OrcVersion::V4, 7) => Base::R13,
        (OrcVersion::V4, 9) => Base::SpIndirect,
        (OrcVersion::V4, 10) => Base::BpIndirect,
        (OrcVersion::V4, _) => return None,
        (_, 2) => Base::Dx,
        (_, 3) => Base::Di,
        (_, 4) => Base::Bp,
        (_, 5) => Base::Sp,
        (_, 6) => Base::R10,
        (_, 7) => Base::R13,
        (_, 8) => Base::BpIndirect,
        (_, 9) => Base::SpIndirect,
        (_, 10) => Base::Ax,
        _ => return None,
    })
}
