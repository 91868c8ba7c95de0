//! What the kernel died of, by its own log.
//!
//! Only the kernel's own lines count: whoever may write to `/dev/kmsg` can print «Kernel panic», but not with the kernel's facility.
//! The earliest cause of the last incident names the kind, not the panic that an oops ends in. A kernel that
//! oopsed or warned and went on has not panicked.

mod code;
mod culprit;
pub(super) mod events;
pub(super) mod fault;
mod lines;
mod pointer;
mod printed;
pub(super) mod scene;
mod words;

pub(super) use pointer::Pointers;
pub use printed::{Printed, PrintedCode};

use crate::kernel::printk::{Caller, KernelLog};
use crate::report::{Address, Frame, Panic, PanicKind, TaskRef};
use words::{AfterOops, Word, word};

/// How many lines after a cause are looked at for the CPU, the task and the trace.
const STORY_LINES: usize = 200;
/// How far before a panic a sign of it can be, in time. The watchdogs print and panic in one go; a memory report takes a while on a slow console.
const SIGN_NS: u64 = 30_000_000_000;
/// How far before a panic a sign of it can be, in lines.
const SIGN_LINES: usize = 4000;
/// Lines of a higher level (`KERN_WARNING`) tell of no trouble.
const WARNING: u8 = 4;
/// What is wrong is said at this level (`KERN_ERR`) or a lower one. A warning that stands by only happens to be there: «module verification failed».
const ERROR: u8 = 3;
/// How many lines can stand between «cut here» and what it was printed for.
const CUT_LINES: usize = 6;
/// How many lines of evidence are kept.
const MAX_EVIDENCE: usize = 12;
/// How many frames of a trace are kept.
const MAX_FRAMES: usize = 128;

/// One line of the log as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The record's number.
    pub seq: u64,
    /// Its time in nanoseconds since boot.
    pub ts_ns: Option<u64>,
    /// Its level, 0 (emergency) to 7 (debug).
    pub level: Option<u8>,
    /// The line.
    pub text: String,
}

/// What the log tells of the end of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPanic {
    /// Which kind.
    pub kind: PanicKind,
    /// The kernel's sentence that says most: what it said right before a `BUG()` or `WARN()`, the oops's first line, or the panic's own
    /// where there was no oops.
    pub message: String,
    /// The `Kernel panic` line. An oops that kdump takes over from prints none.
    pub panic_line: Option<String>,
    /// The CPU that panicked.
    pub cpu: Option<u32>,
    /// The task that it ran.
    pub pid: Option<i64>,
    /// The task's name.
    pub comm: Option<String>,
    /// Where the instruction pointer was, where the kernel printed registers of its own code.
    pub instruction: Option<Frame>,
    /// The call trace as printed. [`crate::report::FrameTrust::Scan`] marks those with `?`.
    pub trace: Vec<Frame>,
    /// The lines from which this follows, oldest first.
    pub evidence: Vec<Evidence>,
    /// The number of the record that the incident begins with.
    pub first_seq: u64,
    /// The registers and the code that were printed.
    pub printed: Printed,
    /// The CPUs that RCU waits for, of a stall; the CPU that is locked up, where another one found that out.
    pub stalled: Vec<u32>,
}

impl LoggedPanic {
    /// The same as the document has it, the instruction as the innermost frame.
    #[must_use]
    pub fn to_report(&self) -> Panic {
        let task = (self.pid.is_some() || self.comm.is_some()).then(|| TaskRef {
            pid: self.pid,
            comm: self.comm.clone(),
            kaddr: None,
        });
        let backtrace = self.instruction.iter().chain(&self.trace).cloned().collect();
        Panic {
            cpu: self.cpu,
            task,
            backtrace,
            fault_address: self.fault_address().map(Address),
            first_bad_line: self.evidence.first().map(|line| line.text.clone()),
            ..Panic::new(self.kind, self.message.clone())
        }
    }

    /// The address that the kernel could not use, by its own message.
    #[must_use]
    pub fn fault_address(&self) -> Option<u64> {
        // Who found a mistake in its data may name an address, which nothing used.
        let found_out = matches!(self.kind, PanicKind::Bug | PanicKind::Warn);
        if found_out { None } else { printed::fault_address(&self.message) }
    }

    /// Whether the kernel could not use the memory at which the instruction pointer stood: what is there was never carried out.
    #[must_use]
    pub fn is_at_fault(&self, pc: u64) -> bool {
        self.fault_address() == Some(pc)
    }
}

/// One line of a record, with whose it is.
struct Line<'l> {
    seq: u64,
    ts_ns: Option<u64>,
    level: Option<u8>,
    caller: Option<Caller>,
    text: std::borrow::Cow<'l, str>,
    word: Word,
}

/// Says what the kernel died of; `None` where its log shows that it went on, or shows nothing.
///
/// `crashed` is whether something else says that it died: VMCOREINFO's `CRASHTIME`. It decides where an oops is the last thing in the log.
#[must_use]
pub fn from_log(log: &KernelLog, crashed: bool) -> Option<LoggedPanic> {
    let lines = kernel_lines(log);
    let panic_at = lines.iter().rposition(|line| matches!(line.word, Word::Panic(..)));
    // The first panic ends the kernel. A second one follows from it, or comes from another CPU at the same time.
    let panic_at = panic_at.map(|last| first_of_burst(&lines, last));
    let cause_at = match panic_at {
        Some(at) => cause_of(&lines, at),
        None => fatal_oops(&lines, crashed)?,
    };
    Some(tell(&lines, cause_at, panic_at))
}

/// The kernel's own lines. Records of several lines are taken apart.
fn kernel_lines(log: &KernelLog) -> Vec<Line<'_>> {
    let kernels = log.records.iter().filter(|r| !r.data_less && r.facility.is_none_or(|f| f == 0));
    let mut lines = Vec::new();
    for record in kernels {
        for text in record.text.split(|b| *b == b'\n') {
            let text = String::from_utf8_lossy(text);
            let word = word(&text);
            lines.push(Line {
                seq: record.seq,
                ts_ns: record.ts_ns,
                level: record.level,
                caller: record.caller,
                text,
                word,
            });
        }
    }
    lines
}

/// Going back from the last panic, the first one without a sign of life between.
fn first_of_burst(lines: &[Line<'_>], last: usize) -> usize {
    let mut first = last;
    for at in (last.saturating_sub(SIGN_LINES)..last).rev() {
        let Some(line) = lines.get(at) else { break };
        if !within(lines, at, last) {
            break;
        }
        if matches!(line.word, Word::Panic(..)) {
            first = at;
        }
    }
    first
}

/// Whether two lines are so close in time that one can be about the other. Without times, the lines' distance has to do.
fn within(lines: &[Line<'_>], early: usize, late: usize) -> bool {
    let ts = |at: usize| lines.get(at).and_then(|l| l.ts_ns);
    match (ts(early), ts(late)) {
        (Some(a), Some(b)) => b.saturating_sub(a) <= SIGN_NS,
        _ => late.saturating_sub(early) <= 400,
    }
}

/// Whether two lines were printed without anything between them: 10 ms.
fn in_one_go(lines: &[Line<'_>], early: usize, late: usize) -> bool {
    let ts = |at: usize| lines.get(at).and_then(|l| l.ts_ns);
    matches!((ts(early), ts(late)), (Some(a), Some(b)) if b.saturating_sub(a) <= 10_000_000)
}

/// The line that a panic follows from, or the panic's own.
fn cause_of(lines: &[Line<'_>], panic_at: usize) -> usize {
    let Some(Word::Panic(kind, after_oops)) = lines.get(panic_at).map(|l| l.word) else { return panic_at };
    let oops_at = last_oops_before(lines, panic_at);
    if after_oops == AfterOops::Yes {
        // An oops of last week, survived, is not why init was killed today.
        let recent = oops_at.filter(|at| within(lines, *at, panic_at));
        return recent.map_or(panic_at, |at| sysrq_before(lines, at).unwrap_or(at));
    }
    // A stack overflow or the like can panic in the middle of an oops's own report: no end of the trace stands between.
    if kind == PanicKind::Other
        && let Some(at) = oops_at
        && !ended_between(lines, at, panic_at)
        && within(lines, at, panic_at)
    {
        return at;
    }
    first_sign(lines, panic_at, kind).unwrap_or(panic_at)
}

/// The first sign of a kind in the time before a panic; of those that repeat while the machine lives on, the last.
fn first_sign(lines: &[Line<'_>], panic_at: usize, kind: PanicKind) -> Option<usize> {
    let from = panic_at.saturating_sub(SIGN_LINES);
    let mut candidates = (from..panic_at).rev().take_while(|at| within(lines, *at, panic_at)).filter(|at| {
        lines.get(*at).is_some_and(|l| {
            l.word == Word::Sign(kind) || kind == PanicKind::Warn && words::is_report(&l.text, l.word)
        })
    });
    match kind {
        // One round of the detector prints all tasks, and an error's record has many lines: the first of them is the cause.
        PanicKind::HungTask | PanicKind::Mce => candidates.last(),
        _ => candidates.next(),
    }
}

fn last_oops_before(lines: &[Line<'_>], at: usize) -> Option<usize> {
    let last = lines.get(..at)?.iter().rposition(|line| matches!(line.word, Word::Oops(_)))?;
    Some(first_line_of_oops(lines, last))
}

fn ended_between(lines: &[Line<'_>], early: usize, late: usize) -> bool {
    lines.get(early..late).unwrap_or_default().iter().any(|line| line.word == Word::EndTrace)
}

/// An oops has several telling lines, and can oops again: all without an end of the trace between them are one incident.
fn first_line_of_oops(lines: &[Line<'_>], last: usize) -> usize {
    let mut first = last;
    for at in (last.saturating_sub(SIGN_LINES)..last).rev() {
        let Some(line) = lines.get(at) else { break };
        match line.word {
            Word::EndTrace => break,
            Word::Oops(_) if within(lines, at, first) => first = at,
            _ => {}
        }
    }
    first
}

/// Before 5.0, sysrq-c followed a null pointer on purpose: the request is the cause then.
fn sysrq_before(lines: &[Line<'_>], oops_at: usize) -> Option<usize> {
    let from = oops_at.saturating_sub(8);
    let at = (from..oops_at)
        .rev()
        .find(|at| lines.get(*at).is_some_and(|l| l.word == Word::Sign(PanicKind::Sysrq)))?;
    within(lines, at, oops_at).then_some(at)
}

/// The last oops, if nothing shows that the kernel survived it: kdump takes over before the end of the trace is printed.
fn fatal_oops(lines: &[Line<'_>], crashed: bool) -> Option<usize> {
    let oops_at = last_oops_before(lines, lines.len());
    let fatal = oops_at.filter(|at| !ended_between(lines, *at, lines.len()));
    if let Some(at) = fatal {
        // Without CRASHTIME, lines of a later hour tell that it went on, whatever became of the end of the trace.
        let last = lines.len().saturating_sub(1);
        if crashed || within(lines, at, last) {
            return Some(sysrq_before(lines, at).unwrap_or(at));
        }
    }
    // The kernel died and its last words are not in the log. Who asked for the crash had said so; any other trouble can have been survived.
    last_sign(lines)
        .filter(|at| crashed && lines.get(*at).is_some_and(|line| line.word == Word::Sign(PanicKind::Sysrq)))
}

/// The last sign of trouble in the log's last seconds. A warning is none.
fn last_sign(lines: &[Line<'_>]) -> Option<usize> {
    let last = lines.len().checked_sub(1)?;
    let grave = |at: &usize| {
        lines.get(*at).is_some_and(|l| matches!(l.word, Word::Sign(kind) if kind != PanicKind::Warn))
    };
    (last.saturating_sub(SIGN_LINES)..=last).rev().take_while(|at| within(lines, *at, last)).find(grave)
}

/// The line of the last trouble in the log's last seconds, of which the kernel need not have died.
#[must_use]
pub fn last_trouble(log: &KernelLog) -> Option<String> {
    let lines = kernel_lines(log);
    let line = lines.get(last_sign(&lines)?)?;
    Some(line.text.trim_end().to_owned())
}

/// Puts together what the lines from the cause on say.
fn tell(lines: &[Line<'_>], cause_at: usize, panic_at: Option<usize>) -> LoggedPanic {
    let text = |at: usize| lines.get(at).map(|l| l.text.trim_end().to_owned()).unwrap_or_default();
    let cause_word = lines.get(cause_at).map_or(Word::Nothing, |l| l.word);
    let own_kind = match cause_word {
        Word::Panic(kind, _) | Word::Oops(kind) | Word::Sign(kind) => kind,
        // Of what only a setting made a panic, the panic tells the kind.
        Word::EndTrace | Word::Nothing => match panic_at.and_then(|at| lines.get(at)).map(|l| l.word) {
            Some(Word::Panic(kind, _)) => kind,
            _ => PanicKind::Other,
        },
    };
    let (kind, kind_at) = refine(lines, cause_at, own_kind);
    let is_oops = matches!(cause_word, Word::Oops(_));
    // A sysrq, an exhausted memory, a failing machine: the panic's sentence says more than the sign before it.
    let sign_says_more = matches!(
        kind,
        PanicKind::SoftLockup
            | PanicKind::HardLockup
            | PanicKind::HungTask
            | PanicKind::RcuStall
            | PanicKind::Warn
    );
    let said_at =
        matches!(kind, PanicKind::Bug | PanicKind::Warn).then(|| said_before(lines, kind_at)).flatten();
    let own_at = if is_oops || sign_says_more { kind_at } else { panic_at.unwrap_or(cause_at) };
    let message_at = said_at.unwrap_or(own_at);
    // The one who panicked is named after the oops or the lockup itself, but for detectors that run in a task of their own.
    let in_own_context = is_oops
        || matches!(kind, PanicKind::SoftLockup | PanicKind::HardLockup | PanicKind::Warn | PanicKind::Sysrq);
    let story_at = if in_own_context { cause_at } else { panic_at.unwrap_or(cause_at) };
    let mut panic = LoggedPanic {
        kind,
        message: text(message_at),
        panic_line: panic_at.map(text),
        cpu: None,
        pid: None,
        comm: None,
        instruction: None,
        trace: Vec::new(),
        evidence: Vec::new(),
        first_seq: 0,
        printed: Printed::default(),
        stalled: Vec::new(),
    };
    story(lines, story_at, &mut panic);
    if kind == PanicKind::SoftLockup || kind == PanicKind::HardLockup {
        let line = text(cause_at);
        panic.cpu = panic.cpu.or_else(|| lines::cpu_in(&line));
        if panic.pid.is_none()
            && let Some((comm, pid)) = lines::task_in_brackets(&line)
        {
            (panic.comm, panic.pid) = (Some(comm), Some(pid));
        }
    }
    // With the buddy detector (6.5 and later) another CPU finds it out, and panics; the locked one only prints its trace.
    if kind == PanicKind::HardLockup
        && let Some((own, locked)) = lines::hard_lockup(&text(cause_at)).filter(|(own, locked)| own != locked)
    {
        panic.stalled = vec![locked];
        if panic.cpu != Some(own) {
            panic.cpu = Some(own);
            (panic.pid, panic.comm) = (None, None);
        }
    }
    // A kernel that panics for the second time prints neither registers nor trace: the record's own caller is left.
    if panic.cpu.is_none() && panic.pid.is_none() {
        match lines.get(story_at).and_then(|line| line.caller) {
            Some(Caller::Task(pid)) => panic.pid = Some(i64::from(pid)),
            Some(Caller::Cpu(cpu)) => panic.cpu = Some(cpu),
            None => {}
        }
    }
    if kind == PanicKind::RcuStall {
        panic.stalled = stalled(lines, cause_at);
    }
    panic.evidence = evidence(lines, &[Some(cause_at), Some(kind_at), said_at, panic_at]);
    panic.first_seq = panic.evidence.iter().map(|line| line.seq).min().unwrap_or_default();
    panic
}

/// The first lines of an oops can be less telling than a later one of it: `Oops: 0000 [#1]` before the cause, or
/// `invalid opcode` after `kernel BUG at`.
fn refine(lines: &[Line<'_>], cause_at: usize, kind: PanicKind) -> (PanicKind, usize) {
    if kind != PanicKind::Other {
        return (kind, cause_at);
    }
    let end = cause_at.saturating_add(STORY_LINES).min(lines.len());
    for at in cause_at..end {
        match lines.get(at).map(|l| l.word) {
            Some(Word::Oops(better)) if better != PanicKind::Other => return (better, at),
            Some(Word::EndTrace | Word::Panic(..)) if at != cause_at => break,
            _ => {}
        }
    }
    (kind, cause_at)
}

/// Reads who ran where from the lines after `from`, passing over what other CPUs print in between.
fn story(lines: &[Line<'_>], from: usize, panic: &mut LoggedPanic) {
    let speaker = lines.get(from).and_then(|l| l.caller);
    let mut in_trace = false;
    let mut named = false;
    let mut traced = false;
    for line in lines.iter().skip(from).take(STORY_LINES) {
        if speaker.is_some() && line.caller.is_some() && line.caller != speaker {
            continue;
        }
        if line.word == Word::EndTrace {
            break;
        }
        let text = line.text.as_ref();
        if let Some(who) = lines::who(text) {
            if named {
                // The report of the next CPU, or of a second oops.
                break;
            }
            named = true;
            (panic.cpu, panic.pid, panic.comm) = (who.cpu, who.pid, who.comm);
        }
        if panic.instruction.is_none() && !traced {
            panic.instruction = lines::instruction(text);
        }
        if !in_trace && !traced {
            panic.printed.read(text);
        }
        if text.trim_start().starts_with("Call Trace:") || text.trim_start().starts_with("Call trace:") {
            in_trace = !traced;
            continue;
        }
        if in_trace {
            match lines::trace_frame(text) {
                Some(frame) if panic.trace.len() < MAX_FRAMES => panic.trace.push(frame),
                Some(_) => {}
                None if lines::is_trace_mark(text) => {}
                None => {
                    in_trace = false;
                    traced = true;
                }
            }
        }
    }
}

/// The CPUs of a stall: the lines behind its first begin with a CPU's number and a few marks (`rcu: \t1-....: (885 ticks this GP)`).
fn stalled(lines: &[Line<'_>], cause_at: usize) -> Vec<u32> {
    let mut found = Vec::new();
    for line in lines.iter().skip(cause_at.saturating_add(1)).take(STORY_LINES) {
        let text = line.text.strip_prefix("rcu:").unwrap_or(&line.text).trim_start();
        let Some((number, rest)) = text.split_once('-') else { continue };
        if rest.starts_with(['.', '!', '?', 'O', 'o', 'N', 'D']) && rest.contains(" this GP") {
            found.extend(number.parse::<u32>().ok().filter(|cpu| !found.contains(cpu)));
        }
    }
    found
}

/// What is wrong, where the kernel says it right before a `BUG()` or `WARN()`: ahead of its «cut here» (`list_del corruption. …`), or
/// behind that (`refcount_t: underflow; …`). Some find it out with a warning of their own first (`__fortify_report` since 6.9).
fn said_before(lines: &[Line<'_>], at: usize) -> Option<usize> {
    let cut_here = cut_here(lines, at)?;
    let said =
        |i: &usize| lines.get(*i).is_some_and(|l| !l.text.trim().is_empty() && same_speaker(lines, *i, at));
    if let Some(behind) = (cut_here.saturating_add(1)..at).find(said) {
        return Some(behind);
    }
    let ahead = cut_here.checked_sub(1).filter(said).filter(|i| in_one_go(lines, *i, cut_here))?;
    if lines.get(ahead).is_some_and(|l| l.word != Word::EndTrace) {
        return tells(lines, ahead, at, ERROR).then_some(ahead);
    }
    let is_bug = lines.get(at).is_some_and(|l| l.word == Word::Oops(PanicKind::Bug));
    let warned = |i: &usize| lines.get(*i).is_some_and(|l| l.word == Word::Sign(PanicKind::Warn));
    let warning = (ahead.saturating_sub(STORY_LINES)..ahead).rev().find(warned).filter(|_| is_bug)?;
    said_before(lines, warning)
}

/// The `------------[ cut here ]------------` that was printed for a line.
fn cut_here(lines: &[Line<'_>], at: usize) -> Option<usize> {
    let before = at.saturating_sub(CUT_LINES);
    (before..at).rev().find(|i| lines.get(*i).is_some_and(|l| l.text.starts_with("------------[ cut here ]")))
}

/// Whether two lines can be of the same task or CPU; older kernels do not tell.
fn same_speaker(lines: &[Line<'_>], a: usize, b: usize) -> bool {
    let caller = |at: usize| lines.get(at).and_then(|l| l.caller);
    caller(a).zip(caller(b)).is_none_or(|(a, b)| a == b)
}

/// Whether a line belongs to what comes right behind it, and is of that level or a graver one.
fn tells(lines: &[Line<'_>], at: usize, cause: usize, level: u8) -> bool {
    in_one_go(lines, at, cause) && lines.get(at).is_some_and(|l| l.level.is_none_or(|own| own <= level))
}

/// The lines that matter, in order: the cause, what the kernel printed just before it, the panic.
fn evidence(lines: &[Line<'_>], marks: &[Option<usize>]) -> Vec<Evidence> {
    let mut at: Vec<usize> = marks.iter().flatten().copied().collect();
    if let Some(cause) = at.first().copied() {
        let cut_here = cut_here(lines, cause);
        // What is no trouble by its level only happens to stand there.
        let first = cut_here
            .map(|i| i.saturating_sub(usize::from(tells(lines, i.saturating_sub(1), cause, WARNING))));
        at.extend(first.into_iter().flat_map(|i| i..cause).filter(|i| Some(*i) != cut_here));
    }
    at.sort_unstable();
    at.dedup();
    at.truncate(MAX_EVIDENCE);
    at.into_iter()
        .filter_map(|i| lines.get(i))
        .map(|l| Evidence { seq: l.seq, ts_ns: l.ts_ns, level: l.level, text: l.text.trim_end().to_owned() })
        .collect()
}

#[cfg(test)]
mod tests;
