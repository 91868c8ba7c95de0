//! The `QEMU` notes of a guest's dump: control registers and descriptor tables, with which a dump without
//! VMCOREINFO can still be translated.

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::Arch;
use super::notes::Note;
use crate::raw::qemu::CpuState;

/// A segment register or a descriptor table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QemuSegment {
    /// Selector.
    pub selector: u32,
    /// Limit.
    pub limit: u32,
    /// Descriptor flags.
    pub flags: u32,
    /// Base address.
    pub base: u64,
}

/// What QEMU tells of one x86 CPU beyond `NT_PRSTATUS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QemuCpu {
    /// The CPU: the place of the note among its kind.
    pub cpu: usize,
    /// The instruction pointer.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// The flags.
    pub rflags: u64,
    /// Protection and paging switches.
    pub cr0: u64,
    /// The address of the last page fault.
    pub cr2: u64,
    /// The page-table root, with the PCID in the low 12 bits.
    pub cr3: u64,
    /// Feature switches; bit 12 is 5-level paging.
    pub cr4: u64,
    /// The code segment.
    pub cs: QemuSegment,
    /// The interrupt table.
    pub idt: QemuSegment,
    /// The segment table.
    pub gdt: QemuSegment,
    /// Its base is the per-CPU area while the CPU is in the kernel.
    pub gs: QemuSegment,
    /// The thread pointer of user space.
    pub fs: QemuSegment,
    /// The task state segment.
    pub tr: QemuSegment,
    /// The other GS base; only newer notes have it.
    pub kernel_gs_base: Option<u64>,
}

/// The CPUs' states, from all notes of a dump, in file order, `limit` of them at most; a sentence per oddity.
#[must_use]
pub fn from_notes(notes: &[Note], arch: &Arch, limit: usize) -> (Vec<QemuCpu>, Vec<String>) {
    let mut repairs = Vec::new();
    let mut list = Vec::new();
    if *arch != Arch::X86_64 {
        return (list, repairs);
    }
    for (cpu, note) in notes.iter().filter(|note| note.is("QEMU", 0)).enumerate() {
        if list.len() >= limit {
            repairs.push(format!("there are more than {limit} QEMU notes; the others are left out"));
            break;
        }
        let Ok((raw, rest)) = CpuState::read_from_prefix(&note.desc) else {
            repairs.push(format!(
                "the QEMU note at file offset {:#x} has {} bytes, fewer than any version of it; it is left out",
                note.at,
                note.desc.len(),
            ));
            continue;
        };
        // The note's own size says whether the field is there; what lies behind is not looked at.
        let has_kernel_gs =
            usize::try_from(raw.size.get()).is_ok_and(|size| size >= size_of::<CpuState>().saturating_add(8));
        let kernel_gs_base =
            U64::read_from_prefix(rest).ok().filter(|_| has_kernel_gs).map(|(base, _)| base.get());
        let [_, _, _, _, _, _, rsp, .., rip, rflags] = raw.regs.map(U64::get);
        let [cs, _, _, fs, gs, _, _, tr, gdt, idt] = raw.segments.map(|segment| QemuSegment {
            selector: segment.selector.get(),
            limit: segment.limit.get(),
            flags: segment.flags.get(),
            base: segment.base.get(),
        });
        let [cr0, _, cr2, cr3, cr4] = raw.cr.map(U64::get);
        list.push(QemuCpu {
            cpu,
            rip,
            rsp,
            rflags,
            cr0,
            cr2,
            cr3,
            cr4,
            cs,
            idt,
            gdt,
            gs,
            fs,
            tr,
            kernel_gs_base,
        });
    }
    (list, repairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(len: usize, size: u32) -> Note {
        let mut desc = vec![0; len];
        desc[0] = 1;
        desc[4..8].copy_from_slice(&size.to_le_bytes());
        let mut put = |at: usize, value: u64| {
            if let Some(to) = desc.get_mut(at..at + 8) {
                to.copy_from_slice(&value.to_le_bytes());
            }
        };
        put(8 + 6 * 8, 0x5959);
        put(8 + 16 * 8, 0x1111);
        put(152 + 4 * 24 + 16, 0x6666);
        put(152 + 9 * 24 + 16, 0xfe00);
        put(392 + 3 * 8, 0x1000);
        put(392 + 4 * 8, 0x1020);
        put(432, 0x7777);
        Note { name: "QEMU".into(), kind: 0, desc, at: 0x300, cut: false }
    }

    #[test]
    fn control_registers_are_found_whatever_the_size() {
        for (len, size, kernel_gs) in
            [(432, 432, None), (440, 440, Some(0x7777)), (440, 432, None), (432, 440, None)]
        {
            let (list, repairs) = from_notes(&[note(len, size)], &Arch::X86_64, 8);
            assert_eq!(repairs, [""; 0]);
            let cpu = list[0];
            assert_eq!((cpu.rsp, cpu.rip, cpu.cr3, cpu.cr4), (0x5959, 0x1111, 0x1000, 0x1020));
            assert_eq!((cpu.gs.base, cpu.idt.base, cpu.kernel_gs_base), (0x6666, 0xfe00, kernel_gs));
        }
    }

    #[test]
    fn a_short_note_is_named_and_left_out() {
        let (list, repairs) = from_notes(&[note(431, 432)], &Arch::X86_64, 8);
        assert_eq!(list, []);
        assert_eq!(
            repairs,
            [
                "the QEMU note at file offset 0x300 has 431 bytes, fewer than any version of it; it is left out"
            ]
        );
    }
}
