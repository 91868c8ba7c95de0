//! The registers and the code that the kernel printed with an oops.

use crate::format::prstatus::Registers;

/// What the lines of an oops tell of the CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// The registers by name, as far as they were printed.
    pub registers: Vec<(String, u64)>,
    /// The bytes around the instruction.
    pub code: Option<PrintedCode>,
    /// The error code of a fault, as the CPU gave it.
    pub error_code: Option<u64>,
}

/// The bytes of a `Code:` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrintedCode {
    /// All of them.
    pub bytes: Vec<u8>,
    /// The number of the byte at which the instruction begins: the one in angle brackets.
    pub at: usize,
}

/// Bytes of a `Code:` line at most; the kernel prints 64.
const CODE: usize = 256;
/// Registers at most.
const REGISTERS: usize = 64;

impl Printed {
    /// Takes what a line has: `RAX: 0000000000000000 RBX: …`, `RSP: 0018:ff7f… EFLAGS: 00000246`, `Code: 55 48 <0f> 0b`. A register that was printed before keeps its value.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("Code: ") {
            if self.code.is_none() {
                self.code = code(rest);
            }
            return;
        }
        self.error_code = self.error_code.or_else(|| error_code(line));
        let mut words = line.split_ascii_whitespace().peekable();
        // Only a line that begins with a register is one of registers.
        if !words.peek().and_then(|word| word.strip_suffix(':')).is_some_and(is_register) {
            return;
        }
        while let Some(word) = words.next() {
            let Some(name) = word.strip_suffix(':').filter(|name| is_register(name)) else { continue };
            let Some(value) = words.peek() else { break };
            let value = value.rsplit(':').next().unwrap_or_default();
            let Ok(value) = u64::from_str_radix(value, 16) else { continue };
            let name = if name == "EFLAGS" { "rflags".to_owned() } else { name.to_ascii_lowercase() };
            if self.registers.len() < REGISTERS && !self.registers.iter().any(|(own, _)| *own == name) {
                self.registers.push((name, value));
            }
        }
    }

    /// All general registers, where all were printed. The instruction pointer is not among them: the kernel prints it as a name.
    #[must_use]
    pub fn general(&self) -> Option<Registers> {
        let of = |name: &str| self.registers.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
        Some(Registers {
            rax: of("rax")?,
            rbx: of("rbx")?,
            rcx: of("rcx")?,
            rdx: of("rdx")?,
            rsi: of("rsi")?,
            rdi: of("rdi")?,
            rbp: of("rbp")?,
            rsp: of("rsp")?,
            r8: of("r08")?,
            r9: of("r09")?,
            r10: of("r10")?,
            r11: of("r11")?,
            r12: of("r12")?,
            r13: of("r13")?,
            r14: of("r14")?,
            r15: of("r15")?,
            rflags: of("rflags")?,
            ..Registers::default()
        })
    }
}

fn is_register(name: &str) -> bool {
    name == "EFLAGS" || name.len() == 3 && name.starts_with('R') && name != "RIP"
}

fn code(text: &str) -> Option<PrintedCode> {
    let mut found = PrintedCode::default();
    let mut at = None;
    for word in text.split_ascii_whitespace().take(CODE) {
        let bare = word.trim_start_matches('<').trim_end_matches('>');
        // «Unable to access opcode bytes», or a line that was cut.
        let byte = u8::from_str_radix(bare, 16).ok().filter(|_| bare.len() == 2)?;
        if word.starts_with('<') {
            at = Some(found.bytes.len());
        }
        found.bytes.push(byte);
    }
    Some(PrintedCode { at: at?, ..found })
}

/// Of `Oops: 0003 [#1] PREEMPT SMP` (`Oops: Oops: 0003 [#1]` since 6.9); other architectures have other words there.
fn error_code(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Oops: ")?;
    let (code, _) = rest.strip_prefix("Oops: ").unwrap_or(rest).split_once(" [#")?;
    u64::from_str_radix(code, 16).ok()
}

/// The address that an oops's first line names: what could not be used.
pub(super) fn fault_address(message: &str) -> Option<u64> {
    let phrases =
        ["non-canonical address ", "address: ", "virtual address ", " dereference at ", " request at "];
    let rest = phrases.iter().find_map(|phrase| message.split_once(phrase))?.1.trim_start();
    if rest.starts_with("(null)") {
        return Some(0);
    }
    let rest = rest.strip_prefix("0x").unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    u64::from_str_radix(rest.get(..end)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_and_code_are_read_and_the_first_value_stays() {
        let mut printed = Printed::default();
        for line in [
            "RSP: 0018:ff7f9e0180423b00 EFLAGS: 00000246",
            "RAX: 0000000000000000 RBX: 0000000000000001 RCX: c0000000ffffefff",
            "RDX: 0000000000000002 RSI: 00000000ffffefff RDI: 0000000000000001",
            "RBP: 0000000000000003 R08: 0000000000000000 R09: ff7f9e01804239a0",
            "R10: 0000000000000003 R11: ffffffffb70d2328 R12: 000000000000000b",
            "R13: 0000000010e4c8f0 R14: ff27dc9554340800 R15: 0000000000000000",
            "RAX: 0000000000000077",
            "Code: 55 48 <0f> 0b",
        ] {
            printed.read(line);
        }
        let found = printed.general().unwrap();
        assert_eq!((found.rsp, found.rflags, found.rax), (0xff7f_9e01_8042_3b00, 0x246, 0));
        assert_eq!((found.r8, found.r14), (0, 0xff27_dc95_5434_0800));
        assert_eq!(printed.code, Some(PrintedCode { bytes: vec![0x55, 0x48, 0x0f, 0x0b], at: 2 }));
    }

    #[test]
    fn what_is_no_code_and_no_register_is_left() {
        let mut printed = Printed::default();
        printed.read("Code: Unable to access opcode bytes at 0xffffffffc04defe2.");
        printed.read("Modules linked in: RAX: 1");
        assert_eq!(printed, Printed::default());
        assert_eq!(printed.general(), None);
    }

    #[test]
    fn the_error_code_is_that_of_a_page_fault_only() {
        let of = |line: &str| {
            let mut printed = Printed::default();
            printed.read(line);
            printed.error_code
        };
        assert_eq!(of("Oops: 0003 [#1] PREEMPT SMP NOPTI"), Some(3));
        assert_eq!(of("Oops: Oops: 0011 [#1] PREEMPT SMP NOPTI"), Some(0x11));
        assert_eq!(
            of("Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]"),
            None
        );
        assert_eq!(of("Internal error: Oops: 9600004f [#1] SMP"), None);
    }

    #[test]
    fn the_address_is_read_in_the_words_of_each_kernel() {
        for (line, address) in [
            ("BUG: kernel NULL pointer dereference, address: 0000000000000010", Some(0x10)),
            ("BUG: unable to handle kernel NULL pointer dereference at           (null)", Some(0)),
            ("BUG: unable to handle kernel paging request at ffffffffdeadbeef", Some(0xffff_ffff_dead_beef)),
            ("BUG: unable to handle page fault for address: ffffc90000123000", Some(0xffff_c900_0012_3000)),
            (
                "general protection fault, probably for non-canonical address 0x8000000000001234: 0000 [#1] SMP",
                Some(0x8000_0000_0000_1234),
            ),
            ("general protection fault: 0000 [#1] SMP", None),
            ("BUG: TASK stack guard page was hit at 000000006d3ba3ee (stack is 1..2)", None),
        ] {
            assert_eq!(fault_address(line), address, "{line}");
        }
    }
}
