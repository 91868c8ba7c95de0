//! Machine code in words: the instruction at an address, those around it, and the memory that it uses.
//!
//! Code is decoded forward only, from where an instruction is known to begin: a function's start, or the instruction itself.
//! Written in Intel's syntax: the decoder has no other (`yaxpeax-x86` 2.2).

use std::fmt::Write as _;

use yaxpeax_arch::{AddressBase, LengthedInstruction};
use yaxpeax_x86::long_mode::{
    AbsoluteAddressFormatter, InstDecoder, Instruction, Opcode, Operand, RegSpec, register_class,
};

use crate::format::prstatus::Registers;
use crate::report::{Address, CodeLine};

/// `pause`.
const PAUSE: &[u8] = &[0xf3, 0x90];
/// An instruction has 15 bytes at most.
const LONGEST: u64 = 15;

/// One instruction, decoded.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    /// Where it is.
    pub(super) at: u64,
    bytes: Vec<u8>,
    instruction: Instruction,
}

/// Memory that an instruction uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryUse {
    /// As the instruction has it.
    pub(super) text: String,
    /// Its address; `None` where it hangs on what is not known.
    pub(super) address: Option<u64>,
    /// The registers that make up the address.
    pub(super) registers: Vec<&'static str>,
}

/// Decodes the instruction that begins at `bytes`.
pub(super) fn decode(bytes: &[u8], at: u64) -> Option<Decoded> {
    let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
    let length = 0_u64.wrapping_offset(instruction.len());
    let own = usize::try_from(length).ok().filter(|_| length > 0 && length <= LONGEST)?;
    Some(Decoded { at, bytes: bytes.get(..own)?.to_vec(), instruction })
}

/// Decodes from the first byte of `bytes` on, `most` instructions at most; ends early at what is no instruction.
pub(super) fn forward(mut bytes: &[u8], mut at: u64, most: usize) -> Vec<Decoded> {
    let mut found = Vec::new();
    while found.len() < most {
        let Some(one) = decode(bytes, at) else { break };
        let (next, rest) = (one.end(), bytes.get(one.bytes.len()..).unwrap_or_default());
        found.push(one);
        let Some(next) = next else { break };
        (at, bytes) = (next, rest);
    }
    found
}

/// The last `keep` instructions before `until`, decoded from the first byte of `bytes`, which a function begins with. Empty where
/// no instruction ends exactly at `until`: then `at` was not where one begins.
pub(super) fn before(bytes: &[u8], at: u64, until: u64, keep: usize) -> Vec<Decoded> {
    let all = forward(bytes, at, bytes.len());
    let inside: Vec<Decoded> = all.into_iter().take_while(|one| one.at < until).collect();
    if inside.last().and_then(Decoded::end) != Some(until) {
        return Vec::new();
    }
    let skip = inside.len().saturating_sub(keep);
    inside.into_iter().skip(skip).collect()
}

impl Decoded {
    fn end(&self) -> Option<u64> {
        self.at.checked_add(u64::try_from(self.bytes.len()).ok()?)
    }

    /// Its bytes in hexadecimal.
    pub(super) fn hex(&self) -> String {
        let mut text = String::new();
        for byte in &self.bytes {
            let blank = if text.is_empty() { "" } else { " " };
            // Writing to a `String` can't fail.
            let _ = write!(text, "{blank}{byte:02x}");
        }
        text
    }

    /// The instruction in words, with `name` for the addresses that it names.
    pub(super) fn text(&self, name: &dyn Fn(u64) -> Option<String>) -> String {
        if self.bytes == PAUSE {
            // The decoder writes it as the nop that it is on old processors.
            return "pause".into();
        }
        let mut text = AbsoluteAddressFormatter::new(self.at).display(&self.instruction).to_string();
        if let Some(value) = self.large_negative() {
            // Addresses of the kernel look like large negative numbers.
            let _ = write!(text, " ({value:#x})");
        }
        if let Some(name) = self.target().or(self.large_negative()).and_then(name) {
            let _ = write!(text, " <{name}>");
        }
        text
    }

    /// As the report has it.
    pub(super) fn line(&self, name: &dyn Fn(u64) -> Option<String>) -> CodeLine {
        CodeLine { pc: Some(Address(self.at)), bytes: self.hex(), text: self.text(name) }
    }

    /// True for what fills the room between functions.
    pub(super) fn is_padding(&self) -> bool {
        self.bytes == [0xcc]
    }

    /// The name of what `BUG()` and `WARN()` put there. In 7.2 a warning is `ud1`, whose operand names its arguments and is no memory.
    pub(super) fn trap(&self) -> Option<&'static str> {
        match self.instruction.opcode() {
            Opcode::UD0 => Some("ud0"),
            Opcode::UD1 => Some("ud1"),
            Opcode::UD2 => Some("ud2"),
            _ => None,
        }
    }

    /// The register that it divides by, as it is written, and its value; `None` for another instruction, or a divisor in memory.
    pub(super) fn divisor(&self, registers: &Registers) -> Option<(&'static str, u64)> {
        if !matches!(self.instruction.opcode(), Opcode::DIV | Opcode::IDIV) {
            return None;
        }
        (0..self.instruction.operand_count()).find_map(|number| match self.instruction.operand(number) {
            Operand::Register { reg } => {
                let bits = u32::from(reg.width()).checked_mul(8)?;
                let mask = u64::MAX.checked_shr(64_u32.checked_sub(bits)?)?;
                Some((reg.name(), value_of(registers, general(reg)?)? & mask))
            }
            _ => None,
        })
    }

    /// A constant that is an address of the kernel rather than a negative number.
    fn large_negative(&self) -> Option<u64> {
        let value =
            (0..self.instruction.operand_count()).find_map(|n| match self.instruction.operand(n) {
                Operand::ImmediateI32 { imm } if self.target().is_none() => Some(i64::from(imm)),
                Operand::ImmediateI64 { imm } => Some(imm),
                _ => None,
            })?;
        (value < -0x0010_0000).then_some(value.cast_unsigned())
    }

    /// Where a jump or call goes, or what an operand beside the instruction pointer names.
    fn target(&self) -> Option<u64> {
        let next = self.end()?;
        let instruction = &self.instruction;
        let goes =
            matches!(instruction.opcode(), Opcode::CALL | Opcode::JMP) || instruction.opcode().is_jcc();
        (0..instruction.operand_count()).find_map(|number| match instruction.operand(number) {
            Operand::ImmediateI8 { imm } if goes => next.checked_add_signed(i64::from(imm)),
            Operand::ImmediateI32 { imm } if goes => next.checked_add_signed(i64::from(imm)),
            Operand::Disp { base, disp } if base == RegSpec::RIP => next.checked_add_signed(i64::from(disp)),
            _ => None,
        })
    }

    /// The memory that it uses, with these registers; `gs` is the base of the per-CPU segment.
    pub(super) fn memory(&self, registers: &Registers, gs: Option<u64>) -> Vec<MemoryUse> {
        let instruction = &self.instruction;
        // They only compute an address, or do nothing with it.
        if matches!(instruction.opcode(), Opcode::LEA | Opcode::NOP) || self.trap().is_some() {
            return Vec::new();
        }
        let mut found: Vec<MemoryUse> =
            (0..instruction.operand_count()).filter_map(|n| self.operand(n, registers, gs)).collect();
        // What goes to the stack does so without an operand.
        if matches!(instruction.opcode(), Opcode::PUSH | Opcode::CALL | Opcode::PUSHF) {
            let address = Some(registers.rsp.wrapping_sub(8));
            found.push(MemoryUse { text: "[rsp - 0x8]".into(), address, registers: vec!["rsp"] });
        } else if matches!(instruction.opcode(), Opcode::POP | Opcode::RETURN | Opcode::POPF | Opcode::LEAVE)
        {
            let (text, address, register) = if instruction.opcode() == Opcode::LEAVE {
                ("[rbp]", registers.rbp, "rbp")
            } else {
                ("[rsp]", registers.rsp, "rsp")
            };
            found.push(MemoryUse { text: text.into(), address: Some(address), registers: vec![register] });
        }
        found
    }

    fn operand(&self, number: u8, registers: &Registers, gs: Option<u64>) -> Option<MemoryUse> {
        let operand = self.instruction.operand(number);
        let (base, index, scale, disp) = match operand {
            Operand::AbsoluteU32 { addr } => (None, None, 0, u64::from(addr)),
            Operand::AbsoluteU64 { addr } => (None, None, 0, addr),
            Operand::MemDeref { base } => (Some(base), None, 0, 0),
            Operand::Disp { base, disp } => (Some(base), None, 0, signed(disp)),
            Operand::MemIndexScale { index, scale } => (None, Some(index), scale, 0),
            Operand::MemIndexScaleDisp { index, scale, disp } => (None, Some(index), scale, signed(disp)),
            Operand::MemBaseIndexScale { base, index, scale } => (Some(base), Some(index), scale, 0),
            Operand::MemBaseIndexScaleDisp { base, index, scale, disp } => {
                (Some(base), Some(index), scale, signed(disp))
            }
            _ => return None,
        };
        let segment = self.instruction.segment_override_for_op(number).map(|segment| segment.to_string());
        let start = match segment.as_deref() {
            Some("gs") => gs,
            Some("fs") => None,
            _ => Some(0),
        };
        let value = |reg: Option<RegSpec>| match reg {
            None => Some(0),
            Some(RegSpec::RIP) => self.end(),
            // With 32-bit addressing the upper halves would not count; no kernel code has it.
            Some(reg) if reg.class() == register_class::Q => {
                general(reg).and_then(|name| value_of(registers, name))
            }
            Some(_) => None,
        };
        let scaled = value(index).map(|value| value.wrapping_mul(u64::from(scale)));
        let address = match (start, value(base), scaled) {
            (Some(start), Some(base), Some(index)) => {
                Some(start.wrapping_add(base).wrapping_add(index).wrapping_add(disp))
            }
            _ => None,
        };
        let names = [base, index].into_iter().flatten().filter_map(general).collect();
        let segment = segment.filter(|s| s == "gs" || s == "fs").map(|s| format!("{s}:")).unwrap_or_default();
        Some(MemoryUse { text: format!("{segment}{operand}"), address, registers: names })
    }
}

fn signed(disp: i32) -> u64 {
    i64::from(disp).cast_unsigned()
}

/// The 64-bit register that a general register is, or is the lower part of.
fn general(reg: RegSpec) -> Option<&'static str> {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];
    let wide = [register_class::Q, register_class::D, register_class::W, register_class::RB];
    // Without a REX prefix, 4 to 7 of the byte registers are the second bytes of the first four.
    let low = reg.class() == register_class::B && reg.num() < 4;
    (wide.contains(&reg.class()) || low).then(|| NAMES.get(usize::from(reg.num())).copied()).flatten()
}

/// A register's value by its name.
pub(super) fn value_of(registers: &Registers, name: &str) -> Option<u64> {
    registers.named().iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_NAME: &dyn Fn(u64) -> Option<String> = &|_| None;

    fn one(bytes: &[u8]) -> Decoded {
        decode(bytes, 0xffff_ffff_c000_0010).unwrap()
    }

    #[test]
    fn a_store_through_a_null_pointer_is_written_and_its_address_computed() {
        // movl $0x1,0x10(%rax)
        let store = one(&[0xc7, 0x40, 0x10, 1, 0, 0, 0]);
        assert_eq!(store.text(NO_NAME), "mov dword [rax + 0x10], 0x1");
        assert_eq!(store.hex(), "c7 40 10 01 00 00 00");
        let memory = store.memory(&Registers::default(), None);
        assert_eq!(
            memory,
            [MemoryUse { text: "[rax + 0x10]".into(), address: Some(0x10), registers: vec!["rax"] }]
        );
    }

    #[test]
    fn base_index_and_negative_offset_add_up() {
        // mov -0x8(%rdi,%rsi,8),%rax
        let load = one(&[0x48, 0x8b, 0x44, 0xf7, 0xf8]);
        let registers = Registers { rdi: 0x1000, rsi: 2, ..Registers::default() };
        let memory = load.memory(&registers, None);
        assert_eq!(memory[0].address, Some(0x1008));
        assert_eq!(memory[0].registers, ["rdi", "rsi"]);
    }

    #[test]
    fn the_per_cpu_segment_needs_its_base() {
        // mov %gs:0x28,%rdx
        let load = one(&[0x65, 0x48, 0x8b, 0x14, 0x25, 0x28, 0, 0, 0]);
        assert_eq!(load.memory(&Registers::default(), None)[0].address, None);
        assert_eq!(load.memory(&Registers::default(), Some(0x1000))[0].address, Some(0x1028));
    }

    #[test]
    fn what_only_computes_an_address_uses_no_memory() {
        // lea 0x10(%rax),%rdi; nopl 0x0(%rax)
        assert_eq!(one(&[0x48, 0x8d, 0x78, 0x10]).memory(&Registers::default(), None), []);
        assert_eq!(one(&[0x0f, 0x1f, 0x40, 0]).memory(&Registers::default(), None), []);
    }

    #[test]
    fn a_push_uses_the_word_below_the_stack_pointer() {
        let registers = Registers { rsp: 0x2000, ..Registers::default() };
        assert_eq!(one(&[0x53]).memory(&registers, None)[0].address, Some(0x1ff8));
    }

    #[test]
    fn a_divisor_counts_by_its_own_width() {
        // idiv %ecx
        let registers = Registers { rcx: 0x7_0000_0000, ..Registers::default() };
        assert_eq!(one(&[0xf7, 0xf9]).divisor(&registers), Some(("ecx", 0)));
        assert_eq!(one(&[0x53]).divisor(&registers), None);
    }

    #[test]
    fn a_constant_that_is_an_address_is_written_as_one() {
        // mov $0xffffffffc04ec218,%rdi; pause
        let text = one(&[0x48, 0xc7, 0xc7, 0x18, 0xc2, 0x4e, 0xc0]).text(NO_NAME);
        assert!(text.ends_with("(0xffffffffc04ec218)"), "{text}");
        assert_eq!(one(&[0xf3, 0x90]).text(NO_NAME), "pause");
    }

    #[test]
    fn a_call_names_where_it_goes() {
        let call = decode(&[0xe8, 0x0b, 0, 0, 0], 0x1000).unwrap();
        let name = |at: u64| (at == 0x1010).then(|| "f+0x0".to_owned());
        assert_eq!(call.text(&name), "call 0x1010 <f+0x0>");
    }

    #[test]
    fn instructions_before_one_are_decoded_from_the_function_s_start_or_not_at_all() {
        // push %rbx; mov %rdi,%rbx; ud2
        let code = [0x53, 0x48, 0x89, 0xfb, 0x0f, 0x0b];
        let found: Vec<u64> = before(&code, 0x100, 0x104, 8).iter().map(|one| one.at).collect();
        assert_eq!(found, [0x100, 0x101]);
        assert_eq!(before(&code, 0x100, 0x104, 1).len(), 1);
        assert!(before(&code, 0x100, 0x103, 8).is_empty(), "the middle of an instruction");
        assert_eq!(one(&[0x0f, 0x0b]).trap(), Some("ud2"));
        let warning = one(&[0x67, 0x48, 0x0f, 0xb9, 0x3a]);
        assert_eq!((warning.trap(), warning.memory(&Registers::default(), None)), (Some("ud1"), Vec::new()));
    }

    #[test]
    fn what_is_cut_is_no_instruction() {
        assert!(decode(&[0x48, 0x8b], 0).is_none());
        assert!(decode(&[], 0).is_none());
        assert!(decode(&[0x90], u64::MAX).unwrap().target().is_none());
    }

    proptest::proptest! {
        #[test]
        fn hostile_code_never_panics(bytes: Vec<u8>, at: u64, gs: u64) {
            let registers = Registers { rsp: at, rdi: gs, ..Registers::default() };
            for one in forward(&bytes, at, 64) {
                let _ = (one.text(NO_NAME), one.memory(&registers, Some(gs)), one.divisor(&registers));
            }
            let _ = before(&bytes, at, at.wrapping_add(7), 4);
        }
    }
}
