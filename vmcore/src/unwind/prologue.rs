//! Call-frame information read off a function's own first instructions.
//!
//! Functions that the kernel keeps out of its ORC tables (`STACK_FRAME_NON_STANDARD`; `__crash_kexec` is one, and each panic that kdump
//! saw begins there) still push and allocate as the compiler does. What they pushed tells where the return address is, and the
//! call before that address must be one of this very function: only where both agree is it taken.

use super::Unwinder;
use super::stack::Reader;
use super::walk::State;
use crate::addr::KVirtAddr;
use crate::xlat::le;

/// Bytes of a function that are looked at.
const LOOKED_AT: usize = 96;

/// What a function's first instructions do to the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Prologue {
    /// Bytes below the return address.
    depth: u64,
    /// How far below the return address `rbp` was saved.
    saved_bp: Option<u64>,
    /// How far below the return address `rbp` points, where it was made the frame pointer.
    frame_pointer: Option<u64>,
}

impl Unwinder<'_> {
    /// The caller of a function whose first instructions tell where its return address is. Only for code that is past them.
    pub(super) fn by_prologue(&self, reader: &mut Reader<'_>, state: &State) -> Option<State> {
        let at = self.description.symbols.at(KVirtAddr(state.looked_up()))?;
        let start = at.symbol.address;
        let len = usize::try_from(at.offset).ok()?.min(LOOKED_AT);
        let mut code = vec![0; len];
        self.memory.read(start, &mut code).ok()?;
        let prologue = read(&code);
        let slot = match prologue.frame_pointer {
            Some(below) => state.bp?.checked_add(below)?,
            None => state.sp.checked_add(prologue.depth)?,
        };
        let ip = reader.word(slot).ok().filter(|ip| self.calls(*ip, start))?;
        let bp = match prologue.saved_bp {
            Some(below) => reader.word(slot.checked_sub(below)?).ok(),
            None => state.bp,
        };
        reader.advance(slot).then(|| State::returned(ip, slot.saturating_add(8), bp))
    }

    /// The next return address up the stack that a call of this very function stands before.
    pub(super) fn called_from(&self, reader: &mut Reader<'_>, state: &State) -> Option<State> {
        let start = self.description.symbols.at(KVirtAddr(state.looked_up()))?.symbol.address;
        let area = reader.area_of_pointer(state.sp)?;
        let mut slot = state.sp.max(reader.reached(&area).saturating_add(8)).checked_next_multiple_of(8)?;
        while area.holds(slot, 8) {
            if let Ok(ip) = reader.word(slot)
                && self.calls(ip, start)
            {
                return reader.advance(slot).then(|| State::returned(ip, slot.saturating_add(8), state.bp));
            }
            slot = slot.checked_add(8)?;
        }
        None
    }

    /// True where a call of exactly `function` stands before `ip`. Direct calls are patched to pass over the landing place for
    /// indirect ones, which has 4 bytes.
    fn calls(&self, ip: u64, function: KVirtAddr) -> bool {
        let mut code = [0; 5];
        let at = ip.checked_sub(5).map(KVirtAddr);
        if !self.is_text(ip) || at.is_none_or(|at| self.memory.read(at, &mut code).is_err()) {
            return false;
        }
        let [0xe8, a, b, c, d] = code else { return false };
        let called = ip.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])));
        called == function.0 || called == function.0.wrapping_add(4)
    }
}

/// Reads instructions until one that is not known, or that leads elsewhere.
fn read(code: &[u8]) -> Prologue {
    let mut found = Prologue::default();
    let (mut at, mut called) = (0_usize, false);
    while let Some(rest) = code.get(at..) {
        let push = |found: &mut Prologue| found.depth = found.depth.saturating_add(8);
        let len = match rest {
            // endbr64
            [0xf3, 0x0f, 0x1e, 0xfa, ..] => 4,
            // The tracer's call, before anything else, or what it was patched to.
            [0xe8, _, _, _, _, ..] if !called && found.depth == 0 => {
                called = true;
                5
            }
            [0x55, ..] => {
                push(&mut found);
                found.saved_bp = Some(found.depth);
                1
            }
            [0x50..=0x57, ..] => {
                push(&mut found);
                1
            }
            [0x41, 0x50..=0x57, ..] => {
                push(&mut found);
                2
            }
            // mov %rsp,%rbp
            [0x48, 0x89, 0xe5, ..] => {
                found.frame_pointer = Some(found.depth);
                3
            }
            // sub $n,%rsp
            [0x48, 0x83, 0xec, bytes, ..] => {
                found.depth = found.depth.saturating_add(u64::from(*bytes));
                4
            }
            [0x48, 0x81, 0xec, ..] => {
                found.depth = found.depth.saturating_add(u64::from(le::u32_at(rest, 3).unwrap_or_default()));
                7
            }
            // and $n,%rsp: from here on only the frame pointer knows.
            [0x48, 0x83, 0xe4, _, ..] if found.frame_pointer.is_some() => 4,
            // The stack protector's value: mov %gs:0x28,%rax
            [0x65, 0x48, 0x8b, ..] => match operand(rest.get(3..).unwrap_or_default()) {
                Some(len) => len.saturating_add(3),
                None => break,
            },
            // mov $n,%e..
            [0xb8..=0xbf, ..] => 5,
            [0x41, 0xb8..=0xbf, ..] => 6,
            _ => match nop(rest).or_else(|| plain(rest)) {
                Some(len) => len,
                None => break,
            },
        };
        at = at.saturating_add(len);
    }
    found
}

/// The length of an instruction that does nothing: patched in where the tracer's call or a landing place for indirect calls was.
fn nop(code: &[u8]) -> Option<usize> {
    let prefixes = code.iter().take_while(|byte| **byte == 0x66).count();
    match code.get(prefixes..)? {
        [0x90, ..] => prefixes.checked_add(1),
        [0x0f, 0x1f, rest @ ..] => prefixes.checked_add(2)?.checked_add(operand(rest)?),
        _ => None,
    }
}

/// The length of a move, an arithmetic instruction between registers, or a comparison, none of which move the stack pointer.
fn plain(code: &[u8]) -> Option<usize> {
    let (prefix, code) = match code {
        [0x40..=0x4f, rest @ ..] => (1_usize, rest),
        _ => (0, code),
    };
    let (opcode, rest) = code.split_first()?;
    let modrm = rest.first()?;
    let immediate = match opcode {
        // add, or, and, sub, xor, cmp, test, mov, lea
        0x01 | 0x03 | 0x09 | 0x0b | 0x21 | 0x23 | 0x29 | 0x2b | 0x31 | 0x33 | 0x39 | 0x3b | 0x85 | 0x89
        | 0x8b | 0x8d => 0,
        0xc7 => 4,
        _ => return None,
    };
    // One that writes the stack pointer or the frame pointer is none of these.
    let (register, to) = (modrm >> 3 & 7, modrm & 7);
    let writes_register = matches!(opcode, 0x03 | 0x0b | 0x23 | 0x2b | 0x33 | 0x8b | 0x8d);
    let written = if writes_register { Some(register) } else { (modrm >> 6 == 3).then_some(to) };
    if matches!(written, Some(4 | 5)) && !matches!(opcode, 0x39 | 0x3b | 0x85) {
        return None;
    }
    Some(prefix.saturating_add(1).saturating_add(operand(rest)?).saturating_add(immediate))
}

/// The length of an operand that begins with its `ModRM` byte.
pub(super) fn operand(code: &[u8]) -> Option<usize> {
    let (modrm, rest) = code.split_first()?;
    let (mode, register) = (modrm >> 6, modrm & 7);
    let sib = mode != 3 && register == 4;
    let no_base = mode == 0 && (register == 5 || sib && rest.first().is_some_and(|s| s & 7 == 5));
    let displacement = match mode {
        1 => 1,
        2 => 4,
        0 if no_base => 4,
        _ => 0,
    };
    Some(1_usize.saturating_add(usize::from(sib)).saturating_add(displacement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prologue_of_a_function_without_frame_pointer_is_what_it_pushes_and_allocates() {
        // __crash_kexec of 6.1: call __fentry__; push %rbx; mov $1,%edx; sub $0xb0,%rsp; mov %gs:0x28,%rax
        let code = [
            0xe8, 1, 2, 3, 4, 0x53, 0xba, 1, 0, 0, 0, 0x48, 0x81, 0xec, 0xb0, 0, 0, 0, 0x65, 0x48, 0x8b,
            0x04, 0x25, 0x28, 0, 0, 0, 0xeb, 0x10,
        ];
        assert_eq!(read(&code), Prologue { depth: 0xb8, ..Prologue::default() });
    }

    #[test]
    fn a_frame_pointer_is_counted_from_where_it_was_set() {
        // endbr64; push %rbp; mov %rsp,%rbp; push %r14; sub $0x50,%rsp
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x41, 0x56, 0x48, 0x83, 0xec, 0x50, 0xcc];
        let expected = Prologue { depth: 0x60, saved_bp: Some(8), frame_pointer: Some(8) };
        assert_eq!(read(&code), expected);
    }

    #[test]
    fn what_moves_the_stack_pointer_otherwise_ends_it() {
        // mov %rdi,%rsp; push %rbx
        assert_eq!(read(&[0x48, 0x89, 0xfc, 0x53]), Prologue::default());
        // 6.12 in memory: nopw (%rax), the landing place; nopl 0(%rax,%rax,1); push %rbx. 5.10: data16 … xchg %ax,%ax; push %rbp
        assert_eq!(read(&[0x66, 0x0f, 0x1f, 0, 0x0f, 0x1f, 0x44, 0, 0, 0x53]).depth, 8);
        assert_eq!(read(&[0x66, 0x66, 0x66, 0x66, 0x90, 0x55]).saved_bp, Some(8));
        // A jump: what follows may belong to another path.
        assert_eq!(read(&[0x53, 0xeb, 0x02, 0x53]), Prologue { depth: 8, ..Prologue::default() });
    }
}
