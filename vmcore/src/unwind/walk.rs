//! From frame to frame.

use super::orc::{Base, BpRule, Kind, Rule};
use super::stack::{NoWord, PT_REGS, Reader};
use super::tables::Answer;
use super::{Doubt, Frame, FrameKind, Stack, StackEnd, Trust, Unwinder};
use crate::addr::KVirtAddr;
use crate::format::prstatus::Registers;

/// Frames of one stack at most. A stack that recursion used up has about a thousand.
const FRAMES: usize = 4096;
/// Frames that most stacks have no more than.
const USUAL_FRAMES: usize = 32;

/// What is known of a frame.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) ip: u64,
    pub(super) sp: u64,
    pub(super) bp: Option<u64>,
    /// The registers that rules of the entry code reckon from.
    other: Option<Other>,
    /// True where `ip` is the instruction itself and no return address.
    pub(super) exact: bool,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    ax: u64,
    dx: u64,
    di: u64,
    r10: u64,
    r13: u64,
}

impl State {
    /// A frame of which no more is known than the return address, and where it was.
    pub(super) fn returned(ip: u64, sp: u64, bp: Option<u64>) -> Self {
        Self { ip, sp, bp, other: None, exact: false }
    }

    fn of(registers: &Registers) -> Self {
        Self {
            ip: registers.rip,
            sp: registers.rsp,
            bp: Some(registers.rbp),
            other: Some(Other {
                ax: registers.rax,
                dx: registers.rdx,
                di: registers.rdi,
                r10: registers.r10,
                r13: registers.r13,
            }),
            exact: true,
        }
    }

    /// The address that is looked up: for a return address that of the call.
    pub(super) fn looked_up(&self) -> u64 {
        if self.exact { self.ip } else { self.ip.wrapping_sub(1) }
    }
}

/// Where a step leads.
pub(super) enum Step {
    Frame(State, FrameKind),
    End(StackEnd),
}

/// Why a step can't be taken.
#[derive(Debug)]
pub(super) struct Failed {
    at: u64,
    why: String,
    readable: bool,
}

impl Failed {
    pub(super) fn new(at: u64, why: impl Into<String>) -> Self {
        Self { at, why: why.into(), readable: true }
    }

    fn end(self) -> StackEnd {
        let at = KVirtAddr(self.at);
        if self.readable { StackEnd::Inconsistent(at, self.why) } else { StackEnd::Unreadable(at, self.why) }
    }
}

impl From<NoWord> for Failed {
    fn from(why: NoWord) -> Self {
        match why {
            NoWord::Outside(at) => Self::new(at, "it is outside the stack"),
            NoWord::Unreadable(at, why) => Self { at, why, readable: false },
        }
    }
}

impl<'a> Unwinder<'a> {
    /// The stack of a task that does not run: `stack` is `task_struct.stack`, `sp` is `task_struct.thread.sp`.
    #[must_use]
    pub fn unwind_sleeping(&self, stack: KVirtAddr, sp: KVirtAddr) -> Stack {
        let nothing = |end| Stack { frames: Vec::new(), end, doubts: Vec::new() };
        if stack.is_null() {
            return nothing(StackEnd::Freed);
        }
        let Some(area) = self.shape.task(stack) else {
            let why = "no stack can be there".to_owned();
            return nothing(StackEnd::Inconsistent(stack, why));
        };
        if !area.holds(sp.0, self.switched.bytes) {
            let why = "it is outside the task's stack".to_owned();
            return nothing(StackEnd::Inconsistent(sp, why));
        }
        let mut reader = Reader::new(self.memory, vec![area]);
        match self.switched(&mut reader, sp.0) {
            Ok(state) => {
                // A task that has never run begins at the first instruction of `ret_from_fork`.
                let new = self.description.symbols.at(KVirtAddr(state.ip)).is_some_and(|at| at.offset == 0);
                let kind = if new {
                    FrameKind::Interrupted { saved_at: None, registers: None }
                } else {
                    FrameKind::Call
                };
                self.walk(reader, State { exact: new, ..state }, kind)
            }
            Err(why) => nothing(why.end()),
        }
    }

    fn switched(&self, reader: &mut Reader<'_>, sp: u64) -> Result<State, Failed> {
        let mut word = |place: u64| reader.word(sp.saturating_add(place));
        let (bp, r13) = (word(self.switched.bp)?, word(self.switched.r13)?);
        let ip = word(self.switched.ret_addr)?;
        let other = Other { ax: 0, dx: 0, di: 0, r10: 0, r13 };
        let sp = sp.saturating_add(self.switched.bytes);
        Ok(State { ip, sp, bp: Some(bp), other: Some(other), exact: false })
    }

    /// The stack of a CPU, from its registers. It may lead over several stacks of that CPU.
    ///
    /// Registers of user space give a stack without frames that ends in [`StackEnd::User`].
    #[must_use]
    pub fn unwind_registers(&self, registers: &Registers, cpu: usize) -> Stack {
        if registers.cs & 3 == 3 {
            let end = StackEnd::User { saved_at: KVirtAddr(0), ip: registers.rip, sp: registers.rsp };
            return Stack { frames: Vec::new(), end, doubts: Vec::new() };
        }
        let mut areas = self.shape.of_cpu(self.memory, self.cpus, cpu);
        let sp = registers.rsp;
        // The CPU may be between two tasks, so that its stack is not that of its current task. A stack pointer just below a stack
        // has overflowed, and is of that stack.
        let known = areas.iter().any(|a| a.holds(sp, 8) || a.end == sp || a.is_just_above(sp));
        if !known {
            areas.extend(self.shape.around(sp));
        }
        let kind = FrameKind::Interrupted { saved_at: None, registers: Some(Box::new(*registers)) };
        self.walk(Reader::new(self.memory, areas), State::of(registers), kind)
    }

    fn walk(&self, mut reader: Reader<'a>, start: State, kind: FrameKind) -> Stack {
        // Room for all frames of most stacks: growing meets the locks of the allocator that other threads hold.
        let mut frames: Vec<Frame> = Vec::with_capacity(USUAL_FRAMES);
        let mut doubts = Vec::new();
        let (mut state, mut kind, mut trust, mut sure) = (start, kind, Trust::Regs, true);
        let end = loop {
            frames.push(Frame {
                pc: KVirtAddr(state.ip),
                sp: KVirtAddr(state.sp),
                bp: state.bp.map(KVirtAddr),
                trust,
                sure,
                kind,
                stack: reader.kind(state.sp),
            });
            if frames.len() >= FRAMES {
                break StackEnd::Limit(FRAMES);
            }
            let (step, by) = match self.best(&mut reader, &state) {
                Ok(step) => step,
                Err(why) => {
                    let guess = self.guess(&mut reader, &state);
                    if guess.as_ref().is_none_or(|(_, by)| *by != Trust::Cfi) {
                        doubts.extend(why.as_ref().map(|why| Doubt {
                            frame: frames.len().saturating_sub(1),
                            why: format!("{}: {}", KVirtAddr(why.at), why.why),
                        }));
                    }
                    match guess {
                        Some((next, by)) => {
                            // Where frame pointers are all that the kernel has they are no guess.
                            sure &= by == Trust::Cfi || by == Trust::FramePointer && why.is_none();
                            (Step::Frame(next, FrameKind::Call), by)
                        }
                        None => match why {
                            Some(why) => break why.end(),
                            None => break self.end_without_tables(&state),
                        },
                    }
                }
            };
            match step {
                Step::End(end) => break end,
                Step::Frame(next, next_kind) => {
                    trust = match next_kind {
                        FrameKind::Interrupted { .. } => Trust::Regs,
                        FrameKind::Call => by,
                    };
                    (state, kind) = (next, next_kind);
                }
            }
        };
        Stack { frames, end, doubts }
    }

    /// The caller by the best way that the dump has. `Err(None)` where that is no way at all, and nothing failed.
    fn best(&self, reader: &mut Reader<'_>, state: &State) -> Result<(Step, Trust), Option<Failed>> {
        let Some(tables) = &self.tables else {
            let regs = encoded_registers(reader, state);
            return regs.map(|step| (step, Trust::FramePointer)).ok_or(None);
        };
        // A call through a bad pointer: all that has happened is that the return address was pushed. What is called can be data of
        // a module, for which a table has an entry all the same.
        if state.exact
            && !self.is_text(state.ip)
            && reader.word(state.sp).is_ok_and(|ip| self.follows_call(ip) == Some(true))
        {
            return self
                .follow(reader, state, Rule::FIRST_INSTRUCTION)
                .map(|s| (s, Trust::Orc))
                .map_err(Some);
        }
        match tables.at(state.looked_up()) {
            Answer::Rule(rule) => self.follow(reader, state, rule).map(|s| (s, Trust::Orc)).map_err(Some),
            Answer::None(why) => Err(Some(Failed::new(state.ip, why))),
            Answer::NotText => Err(Some(Failed::new(state.ip, "it is in no code that has ORC entries"))),
        }
    }

    fn follow(&self, reader: &mut Reader<'_>, state: &State, rule: Rule) -> Result<Step, Failed> {
        match rule.kind {
            Kind::Undefined => {
                return Err(Failed::new(state.ip, "its ORC entry says that it can't be unwound"));
            }
            Kind::End => return Ok(Step::End(StackEnd::Outermost)),
            Kind::Call | Kind::Regs | Kind::PartialRegs => {}
        }
        let target = target(reader, state, rule)?;
        match rule.kind {
            Kind::Regs => full_registers(reader, target),
            Kind::PartialRegs => partial_registers(reader, state, target),
            _ => self.return_address(reader, state, rule, target),
        }
    }

    fn return_address(
        &self,
        reader: &mut Reader<'_>,
        state: &State,
        rule: Rule,
        target: u64,
    ) -> Result<Step, Failed> {
        let slot = target.checked_sub(8).ok_or_else(|| Failed::new(target, "no stack can be there"))?;
        let ip = reader.word(slot)?;
        if !self.is_code(ip) {
            return Err(Failed::new(slot, format!("the return address {ip:#x} is in no code")));
        }
        let bp = match (rule.bp, state.bp) {
            (BpRule::Same, bp) => bp,
            (BpRule::FromCaller(offset), _) => {
                reader.word(target.wrapping_add_signed(i64::from(offset))).ok()
            }
            (BpRule::FromBp(offset), Some(bp)) => reader.word(bp.wrapping_add_signed(i64::from(offset))).ok(),
            (BpRule::FromBp(_), None) => None,
        };
        if !reader.advance(slot) {
            return Err(Failed::new(slot, "the stack leads back to where it was"));
        }
        Ok(Step::Frame(State::returned(ip, target, bp), FrameKind::Call))
    }

    /// The end of a stack whose frame pointers lead no further.
    fn end_without_tables(&self, state: &State) -> StackEnd {
        let name = self.description.symbols.at(KVirtAddr(state.looked_up())).map(|at| at.symbol.name);
        let outermost = ["ret_from_fork", "ret_from_fork_asm", "secondary_startup_64"];
        if name.is_some_and(|name| outermost.contains(&name.as_str())) {
            return StackEnd::Outermost;
        }
        StackEnd::Inconsistent(KVirtAddr(state.sp), "no frame pointer and no return address leads on".into())
    }
}

/// Kernels that unwind by frame pointers mark saved registers by an odd frame pointer (`ENCODE_FRAME_POINTER`).
fn encoded_registers(reader: &mut Reader<'_>, state: &State) -> Option<Step> {
    let at = state.bp.filter(|bp| bp & 7 == 1)?.checked_sub(1)?;
    full_registers(reader, at).ok()
}

fn target(reader: &mut Reader<'_>, state: &State, rule: Rule) -> Result<u64, Failed> {
    let offset = i64::from(rule.offset);
    let unknown =
        |name: &str| Failed::new(state.ip, format!("its ORC entry needs {name}, which is not known"));
    let bp = || state.bp.ok_or_else(|| unknown("rbp"));
    let other = |name: &str| state.other.ok_or_else(|| unknown(name));
    Ok(match rule.base {
        Base::Sp => state.sp.wrapping_add_signed(offset),
        Base::Bp => bp()?.wrapping_add_signed(offset),
        Base::SpIndirect => reader.word(state.sp)?.wrapping_add_signed(offset),
        Base::BpIndirect => reader.word(bp()?.wrapping_add_signed(offset))?,
        Base::Ax => other("rax")?.ax,
        Base::Dx => other("rdx")?.dx,
        Base::Di => other("rdi")?.di,
        Base::R10 => other("r10")?.r10,
        Base::R13 => other("r13")?.r13,
    })
}

/// A whole `struct pt_regs`: its 21 words are an ABI, in this order since the first `x86_64` kernel.
fn full_registers(reader: &mut Reader<'_>, at: u64) -> Result<Step, Failed> {
    if reader.area(at, PT_REGS).is_none() {
        return Err(Failed::new(at, "saved registers should be there, and it is outside the stack"));
    }
    let mut words = [0; 21];
    for (place, word) in (0_u64..).step_by(8).zip(&mut words) {
        *word = reader.word(at.wrapping_add(place))?;
    }
    let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, ..] = words;
    let [.., rip, cs, rflags, rsp, ss] = words;
    // Kernels with FRED keep more than the selectors in these two words.
    let (cs, ss) = (cs & 0xffff, ss & 0xffff);
    let registers = Registers {
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
        ..Registers::default()
    };
    interrupted(reader, at, State::of(&registers), cs, Some(Box::new(registers)))
}

/// What the CPU pushes itself. The other registers are still what they were.
fn partial_registers(reader: &mut Reader<'_>, state: &State, at: u64) -> Result<Step, Failed> {
    if reader.area(at, 40).is_none() {
        return Err(Failed::new(at, "saved registers should be there, and it is outside the stack"));
    }
    let mut word = |place: u64| reader.word(at.wrapping_add(place));
    let (ip, cs, sp) = (word(0)?, word(8)?, word(24)?);
    let next = State { ip, sp, bp: state.bp, other: state.other, exact: true };
    interrupted(reader, at, next, cs, None)
}

fn interrupted(
    reader: &mut Reader<'_>,
    at: u64,
    state: State,
    cs: u64,
    registers: Option<Box<Registers>>,
) -> Result<Step, Failed> {
    if !reader.advance(at) {
        return Err(Failed::new(at, "the stack leads back to where it was"));
    }
    let saved_at = KVirtAddr(at);
    if cs & 3 == 3 {
        return Ok(Step::End(StackEnd::User { saved_at, ip: state.ip, sp: state.sp }));
    }
    // The kernel's code segment is 0x10, under Xen 0xe030: in ring 0, and never none.
    if cs & 3 != 0 && cs & 3 != 1 || cs == 0 {
        return Err(Failed::new(at, format!("saved registers with the code segment {cs:#x} can't be")));
    }
    let known =
        reader.areas.iter().any(|a| a.holds(state.sp, 8) || a.end == state.sp || a.is_just_above(state.sp));
    if !known {
        return Err(Failed::new(
            at,
            format!("the saved stack pointer {:#x} is on no stack of this CPU", state.sp),
        ));
    }
    Ok(Step::Frame(state, FrameKind::Interrupted { saved_at: Some(saved_at), registers }))
}
