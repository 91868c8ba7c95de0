//! Stacks in the words of the report.

use crate::report::{Address, Frame, FrameTrust};
use crate::unwind::{FrameKind, Stack, StackEnd, Trust, Unwinder};

/// The frames of a stack from number `from` on, innermost first.
pub(super) fn frames(unwinder: &Unwinder<'_>, stack: &Stack, from: usize) -> Vec<Frame> {
    let frame = |frame: &crate::unwind::Frame| {
        let symbol = unwinder.symbol(frame);
        let offset = symbol.as_ref().map(|at| at.offset);
        let module = symbol.as_ref().and_then(|at| at.symbol.module.as_deref()).map(str::to_owned);
        Frame {
            pc: Some(Address(frame.pc.0)),
            offset,
            module,
            symbol: symbol.map(|at| at.symbol.name),
            trust: trust(frame.trust),
            sure: frame.sure,
            sp: Some(Address(frame.sp.0)),
            file: None,
            line: None,
            inlined: false,
            stack: Some(frame.stack.name().into()),
            interrupted: matches!(frame.kind, FrameKind::Interrupted { .. }),
        }
    };
    stack.frames.iter().skip(from).map(frame).collect()
}

fn trust(trust: Trust) -> FrameTrust {
    match trust {
        Trust::Regs => FrameTrust::Regs,
        Trust::Orc => FrameTrust::Orc,
        Trust::Cfi => FrameTrust::Cfi,
        Trust::FramePointer => FrameTrust::Fp,
        Trust::Scan => FrameTrust::Scan,
    }
}

/// Why a stack ends although more would be expected; nothing where it came to its outermost frame. A CPU in user space has no
/// frame in the kernel, which is said too.
pub(super) fn end(stack: &Stack) -> Option<String> {
    match &stack.end {
        StackEnd::User { ip, .. } if stack.frames.is_empty() => {
            Some(format!("it ran in user space, at {ip:#x}"))
        }
        end if end.is_complete() => None,
        end => Some(end.to_string()),
    }
}
