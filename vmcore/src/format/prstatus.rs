//! `NT_PRSTATUS` notes: each CPU's registers at the crash.

use zerocopy::FromBytes;

use super::Arch;
use super::notes::{NT_PRSTATUS, Note};
use crate::raw::elf::PrStatusX86;

/// The registers of one `x86_64` CPU, by the kernel's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl Registers {
    /// Names and values, in the order in which people read them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 27] {
        [
            ("rip", self.rip),
            ("rsp", self.rsp),
            ("rbp", self.rbp),
            ("rflags", self.rflags),
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
            ("orig_rax", self.orig_rax),
            ("cs", self.cs),
            ("ss", self.ss),
            ("ds", self.ds),
            ("es", self.es),
            ("fs", self.fs),
            ("gs", self.gs),
            ("fs_base", self.fs_base),
            ("gs_base", self.gs_base),
        ]
    }
}

/// One CPU's `NT_PRSTATUS` note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrStatus {
    /// The CPU: in QEMU's dumps as the note says, otherwise the place of the note among its kind. The kernel writes
    /// none for a CPU that did not answer, so that with fewer notes than CPUs the place is not the number.
    pub cpu: usize,
    /// The note says for which CPU it is: QEMU writes the CPU's index + 1 where the kernel writes a pid.
    pub cpu_certain: bool,
    /// The pid of the task that ran there; `None` in QEMU's dumps.
    pub pid: Option<u32>,
    /// The registers.
    pub registers: Registers,
}

/// The CPUs' registers, from all notes of a dump, in file order, `limit` of them at most.
///
/// Notes of another size than `x86_64`'s are left out, each with a sentence.
#[must_use]
pub fn from_notes(notes: &[Note], arch: &Arch, limit: usize) -> (Vec<PrStatus>, Vec<String>) {
    let mut repairs = Vec::new();
    let mut list = Vec::new();
    if *arch != Arch::X86_64 {
        return (list, repairs);
    }
    let by_qemu = notes.iter().any(|note| note.is("QEMU", 0));
    for (place, note) in notes.iter().filter(|note| note.is("CORE", NT_PRSTATUS)).enumerate() {
        if list.len() >= limit {
            repairs.push(format!("there are more than {limit} register notes; the others are left out"));
            break;
        }
        let Ok(raw) = PrStatusX86::read_from_bytes(&note.desc) else {
            repairs.push(format!(
                "the register note at file offset {:#x} has {} bytes and not {}; it is left out",
                note.at,
                note.desc.len(),
                size_of::<PrStatusX86>(),
            ));
            continue;
        };
        let index = raw.pr_pid.get().checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let cpu = if by_qemu { index } else { None };
        list.push(PrStatus {
            cpu: cpu.unwrap_or(place),
            cpu_certain: cpu.is_some(),
            pid: (!by_qemu).then(|| raw.pr_pid.get()),
            registers: registers(&raw),
        });
    }
    (list, repairs)
}

fn registers(raw: &PrStatusX86) -> Registers {
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        rflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    ] = raw.pr_reg.map(zerocopy::little_endian::U64::get);
    Registers {
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        rflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn prstatus_desc(pid: u32, rip: u64, rsp: u64) -> Vec<u8> {
        let mut desc = vec![0; 336];
        desc[32..36].copy_from_slice(&pid.to_le_bytes());
        desc[112..120].copy_from_slice(&15u64.to_le_bytes());
        desc[112 + 16 * 8..112 + 17 * 8].copy_from_slice(&rip.to_le_bytes());
        desc[112 + 19 * 8..112 + 20 * 8].copy_from_slice(&rsp.to_le_bytes());
        desc
    }

    fn note(desc: Vec<u8>) -> Note {
        Note { name: "CORE".into(), kind: NT_PRSTATUS, desc, at: 0x200, cut: false }
    }

    #[test]
    fn registers_have_their_names() {
        let notes = [note(prstatus_desc(1234, 0xffff_ffff_8100_0000, 0xffff_c900_0000_3f00))];
        let (list, repairs) = from_notes(&notes, &Arch::X86_64, 8);
        assert_eq!(repairs, [""; 0]);
        assert_eq!((list[0].cpu, list[0].cpu_certain, list[0].pid), (0, false, Some(1234)));
        assert_eq!(list[0].registers.rip, 0xffff_ffff_8100_0000);
        assert_eq!(list[0].registers.rsp, 0xffff_c900_0000_3f00);
        assert_eq!(list[0].registers.r15, 15);
        assert_eq!(list[0].registers.named()[1], ("rsp", 0xffff_c900_0000_3f00));
    }

    #[test]
    fn qemu_names_the_cpu_where_the_kernel_names_a_task() {
        let qemu = Note { name: "QEMU".into(), kind: 0, desc: Vec::new(), at: 0, cut: false };
        let (list, _) = from_notes(&[note(prstatus_desc(3, 0, 0)), qemu], &Arch::X86_64, 8);
        assert_eq!((list[0].cpu, list[0].cpu_certain, list[0].pid), (2, true, None));
    }

    #[test]
    fn a_note_of_the_wrong_size_is_named_and_left_out() {
        let notes = [note(vec![0; 144]), note(prstatus_desc(0, 7, 0))];
        let (list, repairs) = from_notes(&notes, &Arch::X86_64, 8);
        assert_eq!((list.len(), list[0].cpu), (1, 1));
        assert_eq!(
            repairs,
            ["the register note at file offset 0x200 has 144 bytes and not 336; it is left out"]
        );
        let (list, repairs) = from_notes(&[notes[1].clone(), notes[1].clone()], &Arch::X86_64, 1);
        assert_eq!((list.len(), repairs.len()), (1, 1));
    }
}
