//! Where no table leads on: the function's own code, frame pointers, then a scan of the stack.

use super::stack::Reader;
use super::walk::State;
use super::{Trust, Unwinder};
use crate::addr::KVirtAddr;

/// The longest call instruction.
const CALL: u64 = 7;

impl Unwinder<'_> {
    /// The next frame by the function's own code, by frame pointers, or the next value that looks like a return address.
    pub(super) fn guess(&self, reader: &mut Reader<'_>, state: &State) -> Option<(State, Trust)> {
        if let Some(next) = self.by_prologue(reader, state) {
            return Some((next, Trust::Cfi));
        }
        // In a kernel with ORC tables `rbp` is a register like any other: it may be the frame pointer of a function further out.
        if self.tables.is_some()
            && let Some(next) = self.called_from(reader, state)
        {
            return Some((next, Trust::Scan));
        }
        let by_pointer = self.frame_pointer(reader, state).map(|next| (next, Trust::FramePointer));
        by_pointer.or_else(|| self.scan(reader, state).map(|next| (next, Trust::Scan)))
    }

    /// `rbp` points at the caller's `rbp`, with the return address above it.
    fn frame_pointer(&self, reader: &mut Reader<'_>, state: &State) -> Option<State> {
        let bp = state.bp.filter(|bp| bp.is_multiple_of(8))?;
        let slot = bp.checked_add(8)?;
        let area = reader.area(bp, 16)?;
        if area.holds(state.sp, 8) && bp < state.sp || slot <= reader.reached(&area) {
            return None;
        }
        let ip = reader.word(slot).ok().filter(|ip| self.follows_call(*ip) == Some(true))?;
        let caller = reader.word(bp).ok()?;
        let sp = slot.checked_add(8)?;
        reader.advance(slot).then(|| State::returned(ip, sp, Some(caller)))
    }

    /// The next word up the stack that is a return address: it is in code, and a call stands before it.
    fn scan(&self, reader: &mut Reader<'_>, state: &State) -> Option<State> {
        let area = reader.area_of_pointer(state.sp)?;
        let from = state.sp.max(area.start).max(reader.reached(&area).saturating_add(8));
        let mut slot = from.checked_next_multiple_of(8)?;
        while area.holds(slot, 8) {
            if let Ok(ip) = reader.word(slot)
                && self.follows_call(ip).is_some_and(|sure| sure || self.is_text(ip))
            {
                return reader.advance(slot).then(|| State::returned(ip, slot.saturating_add(8), None));
            }
            slot = slot.checked_add(8)?;
        }
        None
    }

    /// True in the code of the kernel and its modules.
    pub(super) fn is_text(&self, ip: u64) -> bool {
        if self.text.iter().any(|range| range.contains(&ip)) {
            return true;
        }
        let symbols = &self.description.symbols;
        let at = KVirtAddr(ip);
        // Of a module its code and its data are told apart by its symbols only.
        symbols.module_at(at).is_some()
            && symbols.at(at).is_none_or(|s| matches!(s.symbol.letter, 't' | 'T' | 'w' | 'W' | '?'))
    }

    /// True where a return address can lead: known code, or any that a call stands in, as that of BPF programs and trampolines.
    pub(super) fn is_code(&self, ip: u64) -> bool {
        self.is_text(ip) || self.follows_call(ip) == Some(true)
    }

    /// Whether a call stands before an address; `None` where that can't be: no code can be there, or what is there is no call.
    /// `Some(false)` where the code itself is not in the dump.
    pub(super) fn follows_call(&self, ip: u64) -> Option<bool> {
        // Both the direct map and user space are never run by the kernel; its code lives in the last gigabytes.
        let start = ip.checked_sub(CALL).filter(|start| *start >= 0xffff_8000_0000_0000)?;
        let text = self.is_text(ip.wrapping_sub(1));
        if !text && !(0xffff_ffff_8000_0000..=0xffff_ffff_ffdf_ffff).contains(&ip) {
            return None;
        }
        let mut code = [0_u8; 7];
        if self.memory.read(KVirtAddr(start), &mut code).is_err() {
            return text.then_some(false);
        }
        if let [_, _, 0xe8, a, b, c, d] = code {
            let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
            if self.is_text(ip.wrapping_add_signed(distance)) || !text {
                return Some(true);
            }
        }
        let indirect = (2..=code.len()).any(|len| {
            let call = code.len().checked_sub(len).and_then(|at| code.get(at..));
            call.is_some_and(is_indirect_call)
        });
        indirect.then_some(true)
    }
}

/// True where these bytes are exactly one `call` through a register or memory (`ff /2`).
fn is_indirect_call(code: &[u8]) -> bool {
    let [0xff, operand @ ..] = code else { return false };
    operand.first().is_some_and(|modrm| modrm >> 3 & 7 == 2)
        && super::prologue::operand(operand) == Some(operand.len())
}
