//! The stacks of tasks and CPUs, from nothing but the dump (`x86_64`).
//!
//! [`Unwinder::new`] never fails: what can't be had is a [`Gap`], and the next best way is taken. The ways, best first: the kernel's
//! own ORC tables ([`orc`]), the first instructions of a function that they leave out, frame pointers, and a scan for values that look like return addresses. Each [`Frame`] says by which
//! way it was found ([`Trust`]), and whether any step down to it was a guess ([`Frame::sure`]); each [`Stack`] says why it ended.
//! How it works is written in `docs/unwinding.md`.

mod guess;
pub mod orc;
mod prologue;
mod stack;
mod table;
mod tables;
mod trouble;
mod version;
mod walk;

use std::fmt;
use std::ops::Range;

use crate::addr::KVirtAddr;
use crate::format::prstatus::Registers;
use crate::kernel::Gap;
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::value::Slot;
use crate::limits::Limits;
use crate::sym::SymbolAt;
use crate::xlat::KernelMemory;

use orc::OrcVersion;
use stack::Shape;
use tables::Tables;

pub use stack::StackKind;
pub(crate) use table::BLOCK;
pub use trouble::{Trouble, TroubleKind, is_crash_code};

/// How a frame was found, the most trustworthy first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// From saved registers: of a note, of a task that was switched off its CPU, or of an interrupted one.
    Regs,
    /// By the kernel's ORC tables.
    Orc,
    /// By call-frame information that was read off the function's own first instructions, and confirmed by the call before the
    /// return address: it is one of that function.
    Cfi,
    /// By frame pointers.
    FramePointer,
    /// A value on the stack that looks like a return address.
    Scan,
}

/// In which state a frame was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// It called the frame before: its `pc` is the return address.
    Call,
    /// It is exactly at `pc`: interrupted there, or where the CPU was, or where a new task begins.
    Interrupted {
        /// Where the registers were saved on the stack; `None` where a note has them.
        saved_at: Option<KVirtAddr>,
        /// All registers, where all were saved.
        registers: Option<Box<Registers>>,
    },
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The instruction, or for [`FrameKind::Call`] the one that it returns to.
    pub pc: KVirtAddr,
    /// The stack pointer.
    pub sp: KVirtAddr,
    /// The frame pointer, where it is known.
    pub bp: Option<KVirtAddr>,
    /// How the frame was found.
    pub trust: Trust,
    /// False from the first guess on: a frame that was found in a sure way above a guess hangs on that guess.
    pub sure: bool,
    /// Called or interrupted.
    pub kind: FrameKind,
    /// On which stack it is.
    pub stack: StackKind,
}

/// Why a stack has no more frames.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackEnd {
    /// The outermost frame of a kernel thread or of an idle task, as the tables say.
    Outermost,
    /// It was entered from user space.
    User {
        /// Where the registers were saved.
        saved_at: KVirtAddr,
        /// The instruction in user space.
        ip: u64,
        /// The stack pointer in user space.
        sp: u64,
    },
    /// The task has ended: its stack was given back.
    Freed,
    /// What leads on is not in the dump, and why.
    Unreadable(KVirtAddr, String),
    /// What leads on can't be true, and why.
    Inconsistent(KVirtAddr, String),
    /// It stopped at this many frames.
    Limit(usize),
}

impl StackEnd {
    /// True where the stack has been followed to its outermost frame, or where there is none.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Outermost | Self::User { .. } | Self::Freed)
    }
}

impl fmt::Display for StackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outermost => f.write_str("the outermost frame"),
            Self::User { ip, .. } => write!(f, "entered from user space at {ip:#x}"),
            Self::Freed => f.write_str("the task has ended and has no stack"),
            Self::Unreadable(at, why) => write!(f, "it can't be followed at {at}: {why}"),
            Self::Inconsistent(at, why) => write!(f, "it is inconsistent at {at}: {why}"),
            Self::Limit(frames) => write!(f, "it stopped at the limit of {frames} frames"),
        }
    }
}

/// A place where the best way failed and another one was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Doubt {
    /// The frame whose caller could not be found the best way.
    pub frame: usize,
    /// Why not.
    pub why: String,
}

/// A stack: its frames, innermost first, and why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stack {
    /// The frames, innermost first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: StackEnd,
    /// Where guesses were needed.
    pub doubts: Vec<Doubt>,
}

impl Stack {
    /// True where all frames are there and none is a guess.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.end.is_complete() && self.frames.last().is_none_or(|frame| frame.sure)
    }
}

/// The best way that a dump allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The kernel's ORC tables, in this form.
    Orc(OrcVersion),
    /// Frame pointers, then a scan.
    FramePointer,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orc(version) => write!(f, "orc {version}"),
            Self::FramePointer => f.write_str("frame pointers"),
        }
    }
}

/// Unwinds stacks. Shared by threads.
pub struct Unwinder<'a> {
    memory: &'a KernelMemory<'a>,
    description: &'a Description,
    cpus: &'a PerCpu,
    shape: Shape,
    switched: Switched,
    text: Vec<Range<u64>>,
    tables: Option<Tables<'a>>,
    how_sure: String,
    gaps: Vec<Gap>,
}

impl fmt::Debug for Unwinder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unwinder")
            .field("method", &self.method())
            .field("gaps", &self.gaps)
            .finish_non_exhaustive()
    }
}

/// Where a task that was switched off its CPU left its registers (`struct inactive_task_frame`).
#[derive(Debug)]
struct Switched {
    bytes: u64,
    bp: u64,
    r13: u64,
    ret_addr: u64,
}

impl Switched {
    fn new(description: &Description) -> Option<Self> {
        let of = description.types.structure("inactive_task_frame").ok()?;
        let place = |name: &str| of.member(name).ok().and_then(|m| Slot::new(m).ok()).map(|s| s.offset());
        Some(Self { bytes: of.size(), bp: place("bp")?, r13: place("r13")?, ret_addr: place("ret_addr")? })
    }
}

impl<'a> Unwinder<'a> {
    /// Finds out how this kernel's stacks are unwound.
    #[must_use]
    pub fn new(
        memory: &'a KernelMemory<'a>,
        description: &'a Description,
        cpus: &'a PerCpu,
        limits: &Limits,
    ) -> Self {
        let symbols = &description.symbols;
        let range = |from: &str, to: &str| Some(symbols.address(from)?.0..symbols.address(to)?.0);
        let text: Vec<_> =
            [range("_stext", "_etext"), range("_sinittext", "_einittext")].into_iter().flatten().collect();
        let switched = Switched::new(description);
        let mut this = Self {
            memory,
            description,
            cpus,
            shape: Shape::new(description),
            // r15, r14, r13, r12, rbx, rbp, return address: so since 4.9 (kernel commit 0100301bfdf5), but for 4.20 to 5.2,
            // whose kernels saved the flags too.
            switched: Switched { bytes: 56, bp: 40, r13: 16, ret_addr: 48 },
            text,
            tables: None,
            how_sure: String::new(),
            gaps: Vec::new(),
        };
        match switched {
            Some(switched) => this.switched = switched,
            None => this.gap(
                "stacks of sleeping tasks",
                "the types lack inactive_task_frame; its usual form is taken",
            ),
        }
        if this.text.is_empty() {
            this.gap("return addresses", "the bounds of the kernel's text are not known");
        }
        match Tables::find(memory, description, this.text.clone()) {
            Ok(tables) => this.choose_version(tables, limits),
            Err(why) => this.gap("exact stacks", &why),
        }
        if let Some(why) = this.tables.as_ref().and_then(Tables::modules_gap) {
            this.gap("exact stacks of modules", &why);
        }
        this
    }

    fn gap(&mut self, what: &str, why: &str) {
        self.gaps.push(Gap { what: what.into(), why: why.into() });
    }

    /// Bytes of a task's stack.
    #[must_use]
    pub fn stack_bytes(&self) -> u64 {
        self.shape.task_bytes
    }

    /// A CPU's own stacks and where they lie. That of the task which it runs is not among them.
    #[must_use]
    pub fn cpu_stacks(&self, cpu: usize) -> Vec<(StackKind, Range<KVirtAddr>)> {
        let areas = self.shape.of_cpu(self.memory, self.cpus, cpu);
        let own = areas.into_iter().filter(|area| area.kind != StackKind::Task);
        own.map(|area| (area.kind, KVirtAddr(area.start)..KVirtAddr(area.end))).collect()
    }

    /// What could not be had, and why.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The best way that this dump allows.
    #[must_use]
    pub fn method(&self) -> Method {
        self.tables.as_ref().map_or(Method::FramePointer, |tables| Method::Orc(tables.version))
    }

    /// From what the form of the ORC tables was told, in a sentence; empty without tables.
    #[must_use]
    pub fn how_sure(&self) -> &str {
        &self.how_sure
    }

    /// The function of a frame, and how far in it the frame is: for a return address that of the call, as the kernel prints it.
    /// A call that never returns may be a function's last instruction, with the return address already in the next one.
    #[must_use]
    pub fn symbol(&self, frame: &Frame) -> Option<SymbolAt> {
        let back = u64::from(frame.kind == FrameKind::Call);
        let mut found = self.description.symbols.at(frame.pc.checked_sub(back)?)?;
        found.offset = found.offset.checked_add(back)?;
        Some(found)
    }
}
