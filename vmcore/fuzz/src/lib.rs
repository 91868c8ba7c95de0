//! What each fuzz target does with its input. The same functions are run on a stable compiler by `vmcore/tests/replay.rs`,
//! over the corpus and over mutations of it.
//!
//! A target asserts nothing about what comes out, but that it comes out: no panic, no hang, no memory by a header's word.

use std::io;
use std::sync::Arc;

use vmcore::addr::{KVirtAddr, Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::format::{Arch, Codec, notes as note_list};
use vmcore::kernel::hints::{Control, Hints};
use vmcore::kernel::printk::render::Style;
use vmcore::kernel::{Kernel, Options};
use vmcore::limits::Limits;
use vmcore::source::{Flattened, ReadAt};
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

/// What a target does with its input.
pub type Entry = fn(&[u8]);

/// The targets by name, for who runs them all.
pub const TARGETS: &[(&str, Entry)] = &[
    ("open", open),
    ("notes", notes),
    ("flattened", flattened),
    ("page", page),
    ("log", log),
    ("vmcoreinfo", vmcoreinfo),
    ("panic_text", panic_text),
    ("orc", orc),
];

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let rest = self.0.get(start..).unwrap_or_default();
        let count = buf.len().min(rest.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

/// A whole file: it is opened, some of its frames are read, and its kernel is looked for.
pub fn open(data: &[u8]) {
    let Ok(dump) = Dump::from_source(Arc::new(Bytes(data.to_vec())), "input", &OpenOptions::default()) else {
        return;
    };
    let mut page = vec![0; usize::try_from(dump.page_size()).unwrap_or(0)];
    let mut next = dump.next_present(Pfn(0));
    for _ in 0..64 {
        let Some(pfn) = next else { break };
        let _ = dump.read_frame(pfn, &mut page);
        next = pfn.checked_add(1).and_then(|pfn| dump.next_present(pfn));
    }
    let hints = Hints {
        machine: Some(dump.facts().arch.name().to_owned()),
        vmcoreinfo: dump.vmcoreinfo_raw(),
        control: dump.qemu_cpus().iter().map(|cpu| Control { cr3: cpu.cr3, cr4: cpu.cr4 }).collect(),
        phys_base: dump.facts().phys_base,
        segments: dump
            .segments()
            .iter()
            .map(|s| (KVirtAddr(s.vaddr), PhysAddr(s.paddr), s.mem_size))
            .collect(),
    };
    read_kernel(&Kernel::open(&dump, &hints, Options::default()));
}

fn read_kernel(kernel: &Kernel<'_>) {
    let _ = kernel.uts();
    if let Ok(log) = kernel.log(&Limits::default()) {
        let _ = log.write_to(&mut io::sink(), Style::default());
        let _ = vmcore::analysis::panic::from_log(&log, true);
    }
}

/// A region of ELF notes, and the registers in it.
pub fn notes(data: &[u8]) {
    let notes = note_list::parse(data, 0x1000);
    let arch = Arch::from_machine("x86_64");
    let _ = vmcore::format::prstatus::from_notes(&notes.list, &arch, 64);
    let _ = vmcore::format::qemu_cpu::from_notes(&notes.list, &arch, 64);
}

/// A flattened stream: its index, and reads all over it.
pub fn flattened(data: &[u8]) {
    let Ok(flat) = Flattened::index(Arc::new(Bytes(data.to_vec())), &Limits::default()) else { return };
    let mut buf = [0; 512];
    let len = flat.len();
    for at in [0, 1, len / 3, len / 2, len.saturating_sub(100), len, u64::MAX - 5] {
        let _ = flat.read_at(at, &mut buf);
    }
    open(data);
}

/// One stored page: the first byte chooses the codec.
pub fn page(data: &[u8]) {
    let Some((flags, stored)) = data.split_first() else { return };
    let Some(codec) = Codec::from_flags(u32::from(*flags & 0x3f)) else { return };
    let mut page = [0; 4096];
    let _ = vmcore::format::decode(codec, stored, &mut page);
}

/// The memory of a machine with changes to it: for each change the low bits of a frame, an offset and eight bytes.
/// The first byte chooses the generation of the log.
pub fn log(data: &[u8]) {
    use fixtures::machine::Machine;
    use fixtures::machine::log::LogKind;
    static MACHINES: std::sync::OnceLock<Vec<fixtures::machine::Built>> = std::sync::OnceLock::new();
    let Some((kind, changes)) = data.split_first() else { return };
    let machines = MACHINES.get_or_init(|| LogKind::ALL.map(|kind| Machine::with_log(kind).build()).into());
    let Some(mut built) = machines.get(usize::from(*kind % 3)).cloned() else { return };
    let frames: Vec<u64> = built.memory.stored().map(|(pfn, _)| pfn).collect();
    for change in changes.chunks_exact(11) {
        let [frame, high, low, value @ ..] = change else { break };
        let Some(pfn) = frames.get(usize::from(*frame) % frames.len().max(1)) else { break };
        let offset = u64::from(*high) << 8 | u64::from(*low);
        built.memory.write(pfn * 4096 + (offset & 0xff8), value);
    }
    let hints = Hints {
        machine: Some("x86_64".to_owned()),
        vmcoreinfo: Some(built.vmcoreinfo.as_bytes()),
        phys_base: Some(built.phys_base),
        ..Hints::default()
    };
    let memory = Machinery(built.memory.clone());
    read_kernel(&Kernel::open(&memory, &hints, Options::default()));
}

/// A machine's memory, without a dump around it.
struct Machinery(fixtures::memory::Memory);

impl PhysicalMemory for Machinery {
    fn page_size(&self) -> u64 {
        self.0.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        Pfn(self.0.max_mapnr())
    }

    fn state(&self, pfn: Pfn) -> PageState {
        use fixtures::memory::Frame;
        match self.0.frame(pfn.0) {
            Frame::Hole => PageState::Hole,
            Frame::Excluded => PageState::Excluded,
            Frame::Lost => PageState::Lost,
            Frame::Zero | Frame::Bytes(_) => PageState::Present,
        }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let (mut at, mut rest) = (paddr.0, buf);
        while !rest.is_empty() {
            let (pfn, start) = (Pfn(at / 4096), usize::try_from(at % 4096).unwrap_or(0));
            let (now, later) = rest.split_at_mut(rest.len().min(4096 - start));
            match self.0.frame(pfn.0) {
                fixtures::memory::Frame::Bytes(page) => {
                    now.copy_from_slice(page.get(start..start + now.len()).unwrap_or_default());
                }
                fixtures::memory::Frame::Zero => now.fill(0),
                _ => return Err(PageError::Excluded { pfn, level: 31 }),
            }
            at = at.wrapping_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }
}

/// The text of VMCOREINFO, and a kernel that is opened with it.
pub fn vmcoreinfo(data: &[u8]) {
    let info = Vmcoreinfo::parse(data);
    let _ = (info.release(), info.build_id(), info.page_size(), info.crash_time(), info.kaslr_offset());
    let _ = (info.symbol("prb"), info.number_u64("phys_base"), info.cut_line());
    let memory = Machinery(fixtures::machine::Machine::default().build().memory);
    let hints = Hints { vmcoreinfo: Some(data), ..Hints::default() };
    read_kernel(&Kernel::open(&memory, &hints, Options::default().without_scan()));
}

/// The text of a kernel log, one record a line, as what the panic is told from.
pub fn panic_text(data: &[u8]) {
    use vmcore::kernel::printk::{Generation, KernelLog, LogRecord, LostRecords};
    let records: Vec<LogRecord> = (0u64..)
        .zip(data.split(|byte| *byte == b'\n'))
        .map(|(seq, text)| LogRecord { seq, ts_ns: Some(seq), text: text.to_vec(), ..LogRecord::default() })
        .collect();
    let log = KernelLog {
        generation: Generation::Ring,
        records,
        dropped: None,
        unfinished: 0,
        lost: LostRecords::default(),
        end: vmcore::kernel::walk::WalkEnd::Complete,
    };
    for crashed in [true, false] {
        let _ = vmcore::analysis::panic::from_log(&log, crashed).map(|panic| panic.to_report());
    }
}

/// Unwinding tables and stacks with changes to them: for each change the number of a piece, an offset and eight bytes. The first
/// byte chooses the form of the tables.
pub fn orc(data: &[u8]) {
    use fixtures::orc::{Form, scene};
    use vmcore::format::prstatus::Registers;
    use vmcore::kernel::describe::Description;
    use vmcore::kernel::percpu::PerCpu;
    use vmcore::unwind::Unwinder;
    use vmcore::xlat::{KernelMemory, Linear, Translation};
    const IMAGE: u64 = 0xffff_ffff_8000_0000;
    const DIRECT: u64 = 0xffff_8880_0000_0000;
    let Some((form, changes)) = data.split_first() else { return };
    let Some(form) = Form::ALL.get(usize::from(*form % 4)) else { return };
    let mut scene = scene(*form);
    for change in changes.chunks_exact(11) {
        let [piece, high, low, value @ ..] = change else { break };
        let count = scene.pieces.len().max(1);
        let Some((_, bytes)) = scene.pieces.get_mut(usize::from(*piece) % count) else { break };
        let offset = usize::from(*high) << 8 | usize::from(*low);
        let at = offset % bytes.len().max(1);
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    }
    let mut memory = fixtures::memory::Memory::new(4096).ram(0..0x1500);
    for (at, bytes) in &scene.pieces {
        memory.write(at.wrapping_sub(if *at >= IMAGE { IMAGE } else { DIRECT }), bytes);
    }
    memory.exclude_untouched();
    let memory = Machinery(memory);
    let translation = Translation {
        tables: None,
        text: Some(Translation::x86_64_text(0)),
        direct: Some(Linear { start: KVirtAddr(DIRECT), paddr: PhysAddr(0), len: 1 << 30 }),
    };
    let memory = KernelMemory::new(&memory, translation);
    let info = Vmcoreinfo::parse(scene.vmcoreinfo.as_bytes());
    let mut description = Description::default();
    description.symbols = vmcore::sym::Symbols::new(&info, None);
    let cpus = PerCpu::default();
    let unwinder = Unwinder::new(&memory, &description, &cpus, &Limits::default());
    for (stack, sp) in scene.sleeping {
        let _ = unwinder.trouble(&unwinder.unwind_sleeping(KVirtAddr(stack), KVirtAddr(sp)));
    }
    let [rip, rsp, rbp] = scene.running;
    let registers = Registers { rip, rsp, rbp, cs: 0x10, ..Registers::default() };
    let _ = unwinder.trouble(&unwinder.unwind_registers(&registers, 0));
}
