//! The scene of a panic for a person: the instruction, the registers that matter, whose code it was, and what came before.

use std::fmt::Write as _;

use vmcore::report::{CodeLine, Culprit, Event, Instruction, Operand, Panic, Report};

use super::{Page, task_words};
use crate::output::escape::escape;

/// Columns for an instruction's bytes.
const BYTES: usize = 30;

/// How a function came to run beside a task: by the task itself, or in an interrupt, with which the task need not have to do.
#[must_use]
pub(in crate::output) fn ran_by(panic: &Panic, culprit: &Culprit) -> &'static str {
    let own = panic.backtrace.iter().find(|frame| frame.symbol == culprit.function);
    let in_interrupt =
        culprit.function.is_some() && own.is_some_and(|frame| frame.stack.as_deref() == Some("irq"));
    if in_interrupt { "in an interrupt that came upon" } else { "run by" }
}

/// `[rax + 0x10] is at 0x10: NULL + 0x10, which the kernel could not use.` Not escaped.
#[must_use]
pub(in crate::output) fn operand_words(operand: &Operand) -> String {
    let at = match operand.address {
        Some(address) => format!("is at {:#x}", address.0),
        None => "hangs on what is not known".into(),
    };
    let what = operand.points_to.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
    let fault = match operand.is_fault_address {
        Some(true) => "; the kernel names that address",
        Some(false) => "; the kernel names another address",
        None => "",
    };
    format!("{} {at}{what}{fault}.", operand.text)
}

impl Page {
    /// Two or three lines below the verdict.
    pub(super) fn scene_in_short(&self, out: &mut String, panic: &Panic) {
        let indent = "       ";
        if let Some(code) = &panic.instruction {
            let text = format!("at {}: {}", place(code), escape(&code.text));
            self.wrapped(out, indent, &text);
            if let Some(operand) = code.operands.first() {
                self.wrapped(out, indent, &escape(&operand_words(operand)));
            } else if let Some(note) = &code.note {
                self.wrapped(out, indent, &escape(note));
            }
        }
        if let Some(culprit) = &panic.culprit {
            let mut words = Vec::new();
            words.extend(culprit.function.as_ref().map(|function| escape(function).into_owned()));
            words.extend(match (&culprit.module, &culprit.function) {
                (Some(module), _) => Some(format!("in module {}", escape(module))),
                (None, Some(_)) => Some("in the kernel itself".into()),
                (None, None) => None,
            });
            let task = culprit.task.as_ref().and_then(task_words);
            let how = ran_by(panic, culprit);
            words.extend(task.map(|task| if words.is_empty() { task } else { format!("{how} {task}") }));
            self.wrapped(out, indent, &format!("from {} ({})", words.join(" "), culprit.confidence.word()));
        }
    }

    /// The instruction with those around it, and all registers.
    pub(super) fn scene(&self, report: &Report) -> String {
        let Some(panic) = &report.panic else { return String::new() };
        let mut out = String::new();
        if let Some(code) = &panic.instruction {
            let source = if code.source == "log" { ", by the log's Code: line" } else { "" };
            out.push_str(&self.heading(&format!("Instruction (Intel syntax{source})")));
            for line in &code.before {
                code_line(&mut out, "  ", line);
            }
            let own = CodeLine { pc: code.pc, bytes: code.bytes.clone(), text: code.text.clone() };
            code_line(&mut out, "=>", &own);
            for line in &code.after {
                code_line(&mut out, "  ", line);
            }
            for operand in &code.operands {
                self.wrapped(&mut out, "  ", &escape(&operand_words(operand)));
            }
            if let Some(note) = &code.note {
                self.wrapped(&mut out, "  ", &escape(note));
            }
        }
        if !panic.registers.is_empty() {
            out.push_str(&self.heading("Registers there"));
        }
        for register in &panic.registers {
            let what = register.points_to.as_deref().map(escape).unwrap_or_default();
            let line = format!("  {:<6} {:#018x}  {what}", escape(&register.name), register.value.0);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if let Some(culprit) = &panic.culprit {
            out.push_str(&self.heading("Where it came from"));
            let mut short = String::new();
            self.scene_in_short(&mut short, &Panic { instruction: None, ..panic.clone() });
            self.wrapped(&mut out, "  ", &format!("{}: {}.", short.trim(), escape(&culprit.because)));
        }
        out
    }

    /// What the log told before the end, `most` kinds of it.
    pub(super) fn events(&self, report: &Report, most: usize) -> String {
        if report.events.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Earlier in the log");
        for event in report.events.iter().take(most) {
            self.wrapped(&mut out, "  ", &event_words(event));
        }
        if let Some(more) = report.events.len().checked_sub(most).filter(|n| *n > 0) {
            let _ = writeln!(out, "  and {more} more kinds (--only events shows them all)");
        }
        out
    }
}

fn event_words(event: &Event) -> String {
    let seconds = |s: f64| format!("{s:.3} s");
    let when = match (event.first_s, event.last_s) {
        (Some(first), Some(last)) if event.count > 1 => format!(", {} to {}", seconds(first), seconds(last)),
        (Some(first), _) => format!(", {}", seconds(first)),
        _ => String::new(),
    };
    let functions: Vec<_> = event.functions.iter().map(|name| escape(name)).collect();
    let functions =
        if functions.is_empty() { String::new() } else { format!(", in {}", functions.join(", ")) };
    format!("{} x {}{when}{functions}: {}", event.count, escape(&event.kind), escape(&event.line))
}

/// `null_deref+0xc [lab_fail]`.
fn place(code: &Instruction) -> String {
    let symbol = match (&code.symbol, code.offset, code.pc) {
        (Some(symbol), Some(offset), _) => format!("{}+{offset:#x}", escape(symbol)),
        (_, _, Some(pc)) => format!("{:#x}", pc.0),
        _ => "a place that is not known".into(),
    };
    let module = code.module.as_ref().map(|module| format!(" [{}]", escape(module))).unwrap_or_default();
    format!("{symbol}{module}")
}

fn code_line(out: &mut String, mark: &str, line: &CodeLine) {
    let at = line.pc.map(|pc| format!("{:#018x}  ", pc.0)).unwrap_or_default();
    let _ = writeln!(out, "  {mark} {at}{:<BYTES$} {}", escape(&line.bytes), escape(&line.text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::report::Address;

    #[test]
    fn an_operand_says_where_it_is_and_whether_the_kernel_names_it() {
        let mut operand = Operand {
            text: "[rax + 0x10]".into(),
            address: Some(Address(0x10)),
            points_to: Some("NULL + 0x10".into()),
            is_fault_address: Some(true),
        };
        assert_eq!(
            operand_words(&operand),
            "[rax + 0x10] is at 0x10: NULL + 0x10; the kernel names that address."
        );
        (operand.address, operand.points_to, operand.is_fault_address) = (None, None, None);
        assert_eq!(operand_words(&operand), "[rax + 0x10] hangs on what is not known.");
    }

    #[test]
    fn an_event_is_one_line_with_its_count_and_its_times() {
        let event = Event {
            kind: "oops".into(),
            count: 2,
            first_s: Some(1.0),
            last_s: Some(2.5),
            functions: vec!["f".into(), "g".into()],
            line: "BUG: x\x1b[2J".into(),
        };
        let words = event_words(&event);
        assert!(words.starts_with("2 x oops, 1.000 s to 2.500 s, in f, g: BUG: x"), "{words}");
        assert!(!words.contains('\x1b'));
    }
}
