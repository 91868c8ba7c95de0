//! What a panic was at, to the instruction, and what the log told before it.

use serde::{Deserialize, Serialize};

use super::{Address, TaskRef};

/// The instruction at which a CPU faulted, or at which a watchdog found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Where it is; `null` where only the log's bytes are known.
    pub pc: Option<Address>,
    /// Its function.
    pub symbol: Option<String>,
    /// Bytes from the function's start.
    pub offset: Option<u64>,
    /// Its module; `null` for the kernel itself.
    pub module: Option<String>,
    /// The instruction in words.
    pub text: String,
    /// Its bytes in hexadecimal, with blanks between.
    pub bytes: String,
    /// How it is written: `intel`.
    pub syntax: String,
    /// Where its bytes are from: `memory`, or `log` (the line `Code:`).
    pub source: String,
    /// The instructions before it, decoded forward from the function's start; empty where that start is not known or not in the dump.
    pub before: Vec<CodeLine>,
    /// The instructions behind it.
    pub after: Vec<CodeLine>,
    /// The memory that it uses; the operand at the address of the fault first.
    pub operands: Vec<Operand>,
    /// What else is to say of it.
    pub note: Option<String>,
}

/// One instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLine {
    /// Where it is.
    pub pc: Option<Address>,
    /// Its bytes in hexadecimal, with blanks between.
    pub bytes: String,
    /// The instruction in words.
    pub text: String,
}

/// A place in memory that an instruction uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operand {
    /// As the instruction has it: `[rax + 0x18]`.
    pub text: String,
    /// The address that it makes with the registers.
    pub address: Option<Address>,
    /// What is there.
    pub points_to: Option<String>,
    /// Whether it is the address that the kernel's message names (CR2); `null` where either is not known.
    pub is_fault_address: Option<bool>,
}

/// A register at the fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRegister {
    /// Its name.
    pub name: String,
    /// What was in it.
    pub value: Address,
    /// What that points to; `null` for what is a mere number, or not known.
    pub points_to: Option<String>,
}

/// Where a panic came from. It is the place, which need not be the cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// The task.
    pub task: Option<TaskRef>,
    /// The module; `null` for the kernel itself, or where the function is not known.
    pub module: Option<String>,
    /// The function.
    pub function: Option<String>,
    /// How sure that is.
    pub confidence: super::Confidence,
    /// From what it follows.
    pub because: String,
}

/// Events of one kind that the log tells of before the last incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The kind: `oops`, `warning`, `hardware-error`, `io-error`, …
    pub kind: String,
    /// How many of them.
    pub count: u64,
    /// When the first was, in seconds since boot.
    pub first_s: Option<f64>,
    /// When the last was.
    pub last_s: Option<f64>,
    /// The functions that they were in, each once, in order of time.
    pub functions: Vec<String>,
    /// The first one's line.
    pub line: String,
}

/// What one taint letter means for this kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaintFlag {
    /// The letter.
    pub letter: String,
    /// What it means.
    pub meaning: String,
    /// The loaded modules that carry it.
    pub modules: Vec<String>,
    /// Since when, where the log tells; in seconds since boot.
    pub since_s: Option<f64>,
    /// The line that tells it.
    pub line: Option<String>,
}
