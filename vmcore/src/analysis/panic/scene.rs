//! The scene of a panic: the instruction, the registers and what they point to, and whose code it was.

use super::code::{self, Decoded};
use super::culprit;
use super::pointer::{self, Pointers};
use super::{LoggedPanic, from_log, lines};
use crate::addr::KVirtAddr;
use crate::analysis::cpus;
use crate::analysis::parts::{Clock, Context, Part};
use crate::format::prstatus::Registers;
use crate::report::{Address, CodeLine, FaultRegister, Instruction, Operand, PanicKind};
use crate::unwind::{FrameKind, TroubleKind};

/// Instructions that are shown before the one in question, and behind it.
const AROUND: usize = 4;
/// Bytes that are read from the instruction on.
const BEHIND: usize = 96;
/// Functions longer than this are not decoded from their start.
const FUNCTION: u64 = 256 << 10;
/// Registers that are shown; the others are numbers or segments.
const REGISTERS: usize = 18;
/// How far from a stack pointer a fault still is one of the stack's end.
const STACK_NEAR: u64 = 4096;

/// The analysis. It adds to the panic that the report has.
pub(in crate::analysis) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let (Some(panic), Some(log)) = (&context.report.panic, context.log) else { return Part::default() };
    let crashed = context.kernel.facts().crash_time.is_some();
    let Some(logged) = from_log(log, crashed) else { return Part::default() };
    let mut gaps: Vec<String> = Vec::new();
    let cpu = panic.cpu.and_then(|cpu| usize::try_from(cpu).ok());
    let pointers = Pointers::new(context, cpu);
    let state = state(context, cpu, &logged);
    let scene = Scene { context, logged: &logged, pointers: &pointers };
    let instruction = match &state {
        Some(state) => match scene.instruction(state) {
            Ok(found) => Some(found),
            Err(why) => {
                gaps.push(why);
                None
            }
        },
        None => None,
    };
    let registers = state.as_ref().map(|state| scene.registers(state)).unwrap_or_default();
    let culprit = culprit::culprit(context, panic, &logged);
    let mut part = Part::new(move |report| {
        if let Some(panic) = &mut report.panic {
            panic.instruction = instruction;
            panic.registers = registers;
            panic.culprit = culprit;
        }
    });
    for why in gaps {
        part.skip("panic.instruction", why);
    }
    part
}

/// The registers in question.
struct State {
    registers: Registers,
    /// Where the instruction is; `None` where the log names no place that the symbols know.
    pc: Option<u64>,
    /// True where the kernel faulted there, false where something else found the CPU there.
    faulted: bool,
}

/// Finds the registers: saved on the stack by the exception, handed to kdump by it, or printed. `None` where code called `panic` by itself:
/// then no instruction is in question.
fn state(context: &Context<'_>, cpu: Option<usize>, logged: &LoggedPanic) -> Option<State> {
    let faults = matches!(
        logged.kind,
        PanicKind::NullDeref
            | PanicKind::PageFault
            | PanicKind::GeneralProtection
            | PanicKind::Bug
            | PanicKind::Warn
            | PanicKind::DivideError
            | PanicKind::StackOverflow
    );
    if let Some((cpu, registers)) = cpu.and_then(|cpu| Some((cpu, cpus::noted(context, cpu)?))) {
        let stack = context.unwinder.unwind_registers(&registers, cpu);
        match context.unwinder.trouble(&stack) {
            Some(trouble) if trouble.kind != TroubleKind::Called => {
                let frame = stack.frames.get(trouble.frame)?;
                if let FrameKind::Interrupted { registers: Some(saved), .. } = &frame.kind {
                    let faulted = trouble.kind == TroubleKind::Exception;
                    return Some(State { registers: **saved, pc: Some(saved.rip), faulted });
                }
            }
            // No crash code is on the stack: an oops hands the registers of the fault itself to kdump.
            // Where its stack could not be followed that looks the same, so that the log has to name the same place.
            None if (faults || logged.kind == PanicKind::Other)
                && is_told(context, logged, registers.rip) =>
            {
                return Some(State { registers, pc: Some(registers.rip), faulted: true });
            }
            _ => {}
        }
    }
    let printed = logged.printed.general().filter(|_| faults)?;
    let pc = logged.instruction.as_ref().and_then(|frame| {
        let symbols = &context.description.symbols;
        let all = symbols.all(frame.symbol.as_deref()?);
        let of_module = |symbol: &&crate::sym::Symbol| symbol.module.as_deref() == frame.module.as_deref();
        let mut fitting = all.iter().filter(of_module);
        // A name that several functions have does not tell where.
        let (Some(only), None) = (fitting.next(), fitting.next()) else { return None };
        only.address.0.checked_add(frame.offset?)
    });
    Some(State { registers: Registers { rip: pc.unwrap_or_default(), ..printed }, pc, faulted: true })
}

/// Whether the log names the place of these registers as that of the fault.
fn is_told(context: &Context<'_>, logged: &LoggedPanic, pc: u64) -> bool {
    let (Some(told), Some(found)) = (&logged.instruction, context.description.symbols.at(KVirtAddr(pc)))
    else {
        return false;
    };
    told.symbol.as_deref() == Some(found.symbol.name.as_str()) && told.offset == Some(found.offset)
}

struct Scene<'s, 'c, 'a> {
    context: &'c Context<'a>,
    logged: &'s LoggedPanic,
    pointers: &'s Pointers<'c, 'a>,
}

impl Scene<'_, '_, '_> {
    fn name(&self, at: u64) -> Option<String> {
        self.context.description.symbols.at(KVirtAddr(at)).map(|found| pointer::short(&found))
    }

    fn instruction(&self, state: &State) -> Result<Instruction, String> {
        let place = state.pc.and_then(|pc| self.context.description.symbols.at(KVirtAddr(pc)));
        let end = place.as_ref().and_then(|at| at.symbol.address.0.checked_add(at.symbol.size?));
        let (before, own, after, source) = match self.of_memory(state, end) {
            Ok((before, own, after)) => (before, own, after, "memory"),
            Err(why) => match self.of_log(state) {
                Some((before, own, after)) => (before, own, after, "log"),
                None => return Err(why),
            },
        };
        let name = |at: u64| self.name(at);
        let line = |one: &Decoded| {
            let mut line = one.line(&name);
            // Without a place in memory, the addresses are those of nothing.
            line.pc = line.pc.filter(|_| state.pc.is_some());
            line
        };
        let lines = |all: &[Decoded]| all.iter().map(line).collect::<Vec<CodeLine>>();
        let written = line(&own);
        let module = place.as_ref().and_then(|at| at.symbol.module.as_deref()).map(str::to_owned);
        Ok(Instruction {
            pc: written.pc,
            offset: place.as_ref().map(|at| at.offset),
            symbol: place.map(|at| at.symbol.name),
            module,
            text: written.text,
            bytes: written.bytes,
            syntax: "intel".into(),
            source: source.into(),
            before: lines(&before),
            after: lines(&after),
            operands: self.operands(state, &own),
            note: self.note(state, &own),
        })
    }

    fn of_memory(
        &self,
        state: &State,
        end: Option<u64>,
    ) -> Result<(Vec<Decoded>, Decoded, Vec<Decoded>), String> {
        let pc = state.pc.ok_or("where the instruction is, the symbols do not tell")?;
        if self.logged.is_at_fault(pc) {
            return Err(format!("what is at {pc:#x} could not be carried out: no code is there"));
        }
        if pc >> 63 == 0 {
            return Err(format!("the instruction pointer {pc:#x} is no address of the kernel's code"));
        }
        let memory = self.context.memory;
        let sparse = memory.read_sparse(KVirtAddr(pc), BEHIND);
        let there = sparse.missing.first().map_or(BEHIND, |missing| missing.range.start);
        let bytes = sparse.bytes.get(..there).unwrap_or_default();
        let why = sparse.missing.first().map(|missing| missing.why.to_string());
        let mut behind = code::forward(bytes, pc, AROUND.saturating_add(1)).into_iter();
        let own = behind.next().ok_or_else(|| {
            why.unwrap_or_else(|| format!("what is at {pc:#x} is no instruction that can be decoded"))
        })?;
        // Behind the function's end there is padding, or another function.
        let after =
            behind.take_while(|one| end.is_none_or(|end| one.at < end) && !one.is_padding()).collect();
        Ok((self.before(pc), own, after))
    }

    /// The instructions before, from the function's start on: what lies before an instruction can't be told from behind.
    fn before(&self, pc: u64) -> Vec<Decoded> {
        let Some(found) = self.context.description.symbols.at(KVirtAddr(pc)) else { return Vec::new() };
        let Some(bytes) = usize::try_from(found.offset).ok().filter(|_| found.offset <= FUNCTION) else {
            return Vec::new();
        };
        let mut text = vec![0; bytes];
        match self.context.memory.read(found.symbol.address, &mut text) {
            Ok(()) => code::before(&text, found.symbol.address.0, pc, AROUND),
            Err(_) => Vec::new(),
        }
    }

    /// The same from the line `Code:`, which has some bytes before the instruction too.
    fn of_log(&self, state: &State) -> Option<(Vec<Decoded>, Decoded, Vec<Decoded>)> {
        if state.pc.is_some_and(|pc| self.logged.is_at_fault(pc)) {
            return None;
        }
        let printed = self.logged.printed.code.as_ref()?;
        let pc = state.pc.unwrap_or_default();
        let mut behind =
            code::forward(printed.bytes.get(printed.at..)?, pc, AROUND.saturating_add(1)).into_iter();
        let own = behind.next()?;
        let offset = self.logged.instruction.as_ref().and_then(|frame| usize::try_from(frame.offset?).ok());
        let start = offset.and_then(|offset| printed.at.checked_sub(offset));
        let before = start.and_then(|start| {
            let at = pc.checked_sub(u64::try_from(offset?).ok()?)?;
            Some(code::before(printed.bytes.get(start..printed.at)?, at, pc, AROUND))
        });
        Some((before.unwrap_or_default(), own, behind.collect()))
    }

    /// The memory that the instruction uses, what the kernel could not use first.
    fn operands(&self, state: &State, own: &Decoded) -> Vec<Operand> {
        let fault = self.logged.fault_address().filter(|_| state.faulted);
        let mut all: Vec<Operand> = own
            .memory(&state.registers, self.pointers.gs())
            .into_iter()
            .map(|used| Operand {
                points_to: used.address.and_then(|at| self.pointers.address(at)),
                // A wider access can fault in its middle, where a page ends.
                is_fault_address: used.address.zip(fault).map(|(at, fault)| fault.wrapping_sub(at) < 8),
                address: used.address.map(Address),
                text: used.text,
            })
            .collect();
        all.sort_by_key(|operand| operand.is_fault_address != Some(true));
        all
    }

    fn note(&self, state: &State, own: &Decoded) -> Option<String> {
        if let Some(trap) = own.trap() {
            let told = self.logged.evidence.iter().find_map(|line| lines::source_place(&line.text));
            return Some(match told {
                Some((what, place)) => format!("It is the {trap} of {what} at {place}."),
                None => format!(
                    "The kernel puts {trap} where BUG() and WARN() stand; the log does not tell at which line."
                ),
            });
        }
        if let Some((name, 0)) = own.divisor(&state.registers)
            && self.logged.kind == PanicKind::DivideError
        {
            return Some(format!("It divides by {name}, which is 0."));
        }
        if self.logged.kind == PanicKind::StackOverflow {
            let near = own.memory(&state.registers, None).into_iter().filter_map(|used| used.address);
            let mut near = near.filter(|at| at.abs_diff(state.registers.rsp) < STACK_NEAR);
            return near.next().map(|at| format!("It uses the stack at {at:#x}, which is used up."));
        }
        (!state.faulted).then(|| "The CPU was here when it was interrupted; it need not be at fault.".into())
    }

    fn registers(&self, state: &State) -> Vec<FaultRegister> {
        let known = |name: &str| name != "rip" || state.pc.is_some();
        let points_to = |name: &str, value: u64| match name {
            "rflags" => Some(flags(value)),
            _ => self.pointers.value(value),
        };
        state
            .registers
            .named()
            .into_iter()
            .take(REGISTERS)
            .filter(|(name, _)| known(name))
            .map(|(name, value)| FaultRegister {
                name: name.into(),
                value: Address(value),
                points_to: points_to(name, value),
            })
            .collect()
    }
}

fn flags(value: u64) -> String {
    if value >> 9 & 1 == 1 { "interrupts on".into() } else { "interrupts off".into() }
}
