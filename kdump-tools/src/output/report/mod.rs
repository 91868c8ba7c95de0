//! A triage report for a person: the verdict first, and all of it on a screen. What was asked for by name is shown in full.

mod blocked;
mod console;
mod devices;
mod fault;
mod frames;
mod io;
mod memory;
mod modules;
mod pages;
mod storage;
mod tasks;

pub(super) use fault::{operand_words, ran_by};
pub use pages::Pages;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vmcore::analysis::follow::Stage;
use vmcore::analysis::several::SAME_CRASH;
use vmcore::analysis::triage::{LEFT_OUT, Section};
use vmcore::report::{Cpu, Finding, LogLine, NotLookedAt, Panic, Report, Severity, TaskRef};

use crate::output::color::{Painter, Style};
use crate::output::dump;
use crate::output::escape::escape;
use crate::output::human;
use crate::output::progress::shorten;
use crate::output::table::{Facts, wrap};

/// Callers that an overview of the CPUs shows.
const CALLERS: usize = 6;
/// CPUs that are shown; a machine with more would push the rest off the screen.
const CPUS: usize = 8;
/// Kinds of earlier events that an overview shows.
const EVENTS: usize = 6;
/// Columns for a dump's name in the list of many.
const NAME: usize = 32;
/// Lines of the log that are shown before the panic's message.
const LOG_BEFORE: usize = 3;
/// Lines of the log that are shown from the panic's message on.
const LOG_AFTER: usize = 3;

/// How a report looks as text.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Its colours.
    pub painter: Painter,
    /// Whether each finding shows how the same is seen in crash and drgn. A person on the first screen has no prompt of these yet.
    pub by_hand: bool,
}

/// The findings that belong on the first screen.
const NOTEWORTHY: &[Severity] = &[Severity::Critical, Severity::Error, Severity::Warning];

/// The report as text: an overview, or all of those parts that are named in `only`.
#[must_use]
pub fn text(report: &Report, only: &[Section], look: Look) -> String {
    let Look { width, painter, .. } = look;
    let page = Page::new(look);
    let mut out = page.verdict(report);
    if let Some(error) = &report.error {
        let _ = writeln!(out, "hint: {}", escape(&error.hint));
        return out;
    }
    // What a person needs first is on the first screen: what happened, what that means, what to do, who waits, where it was.
    if only.is_empty() {
        out.push_str(&page.findings("What it means, and what to do", &report.findings, NOTEWORTHY));
        out.push_str(&page.waits(report));
        out.push_str(&page.trace(report));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let mut facts = Facts::new();
    if only.is_empty() || only.contains(&Section::Kernel) {
        dump::kernel_in_short(&mut facts, &report.kernel);
    }
    dump::file_in_short(&mut facts, &report.dump);
    facts.maybe("tasks", tasks::count(report));
    facts.maybe("modules", modules::count(report));
    facts.maybe("memory", memory::in_short(report));
    facts.maybe("signature", signature(report));
    out.push_str(&facts.render(width, painter));
    if only.is_empty() {
        out.push_str(&page.overview(report));
    } else {
        for section in Section::ALL.iter().filter(|section| only.contains(section)) {
            out.push_str(&page.whole(*section, report));
        }
    }
    if only.is_empty() {
        out.push_str(&page.findings("Good to know", &report.findings, &[Severity::Info]));
    } else {
        let all = [NOTEWORTHY, &[Severity::Info]].concat();
        out.push_str(&page.findings("Findings", &report.findings, &all));
    }
    out.push_str(&page.not_looked_at(report, only));
    out
}

/// What [`text`] begins with, as far as a report that has come to this stage can tell it.
#[must_use]
pub fn beginning(report: &Report, stage: Stage, look: Look) -> String {
    Page::new(look).verdict_at(report, stage)
}

/// What stands between the pages of two dumps.
#[must_use]
pub fn rule(look: Look) -> String {
    format!("\n{}\n\n", "-".repeat(look.width))
}

/// All reports, each on its page, and a summary behind them where there are several.
#[must_use]
pub fn pages(reports: &[&Report], only: &[Section], look: Look) -> String {
    let pages: Vec<String> = reports.iter().map(|report| text(report, only, look)).collect();
    pages.join(&rule(look)) + &summary(reports, look)
}

/// What stands behind the pages of several dumps: each on a line, and what they tell together.
#[must_use]
pub fn summary(reports: &[&Report], look: Look) -> String {
    let Look { width, painter, .. } = look;
    if reports.len() < 2 {
        return String::new();
    }
    let unusable = reports.iter().filter(|report| report.error.is_some()).count();
    let head = painter.paint(Style::Strong, &summary_head(reports.len(), unusable));
    let mut out = format!("{}{head}\n", rule(look));
    for report in reports {
        let name = shorten(&escape(&report.dump.path), NAME);
        let line = format!("{name:NAME$}  {}", verdict_in_short(report));
        let _ = writeln!(out, "  {}", cut(&line, width.saturating_sub(2).max(20)));
    }
    // Each of them has it, and it is said once.
    let mut together: Vec<Finding> = Vec::new();
    for finding in reports.iter().flat_map(|report| &report.findings) {
        if finding.code == SAME_CRASH && !together.contains(finding) {
            together.push(finding.clone());
        }
    }
    let all = [NOTEWORTHY, &[Severity::Info]].concat();
    out.push_str(&Page::new(look).listed("What they tell together", &together, &all));
    out
}

fn summary_head(count: usize, unusable: usize) -> String {
    let all = human::plural(count, "dump");
    if unusable == 0 { format!("{all}:") } else { format!("{all}, {unusable} of them not usable:") }
}

/// What happened, in a word or two and the kernel's own.
#[must_use]
pub fn verdict_in_short(report: &Report) -> String {
    match (&report.error, &report.panic) {
        (Some(_), _) => "NOT USABLE".to_owned(),
        (None, Some(panic)) => format!("{}: {}", panic.kind.word(), escape(&panic.message)),
        (None, None) if is_untold(report) => "crashed, and its log does not tell of what".into(),
        (None, None) if report.log.records.is_some() => "no panic".into(),
        (None, None) => "no verdict".into(),
    }
}

/// True where the kernel crashed, and its log does not tell of what.
#[must_use]
pub fn is_untold(report: &Report) -> bool {
    report.findings.iter().any(|finding| finding.code == "KD-PANIC-UNTOLD")
}

struct Page {
    width: usize,
    painter: Painter,
    by_hand: bool,
}

impl Page {
    fn new(look: Look) -> Self {
        Self { width: look.width, painter: look.painter, by_hand: look.by_hand }
    }

    fn heading(&self, text: &str) -> String {
        format!("\n{}\n", self.painter.paint(Style::Strong, text))
    }

    /// What happened, in a few lines.
    fn verdict(&self, report: &Report) -> String {
        self.verdict_at(report, Stage::Scene)
    }

    /// As much of it as is known for good at this stage.
    fn verdict_at(&self, report: &Report, stage: Stage) -> String {
        // Who asked for other parts has no verdict to read.
        let left_out = |skipped: &NotLookedAt| skipped.what == "panic" && skipped.why == LEFT_OUT;
        if report.error.is_none() && report.not_looked_at.iter().any(left_out) {
            return String::new();
        }
        if let Some(error) = &report.error {
            return format!("{} {}\n", self.painter.paint(Style::Bad, "NOT USABLE:"), escape(&error.message));
        }
        match &report.panic {
            Some(panic) => {
                let label = format!("PANIC ({}):", panic.kind.word());
                let lines = wrap(&escape(&panic.message), self.width.saturating_sub(label.len() + 1).max(20));
                let mut out =
                    format!("{} {}\n", self.painter.paint(Style::Bad, &label), lines.join("\n       "));
                if let Some(place) = panic_place(panic).filter(|_| stage >= Stage::Tasks) {
                    let _ = writeln!(out, "       {place}");
                }
                if stage >= Stage::Scene {
                    self.scene_in_short(&mut out, panic);
                }
                out
            }
            None if is_untold(report) => {
                let words = "the kernel crashed, and its log does not tell of what.";
                format!("{} {words}\n", self.painter.paint(Style::Bad, "CRASHED:"))
            }
            None if report.log.records.is_some() => {
                let words = "the log shows no panic: a dump of a running or a hung machine?";
                format!("{} {words}\n", self.painter.paint(Style::Warn, "NO PANIC:"))
            }
            None => {
                let words = "the kernel log could not be read, so what happened is not known.";
                format!("{} {words}\n", self.painter.paint(Style::Warn, "NO VERDICT:"))
            }
        }
    }

    /// What stands behind the first screen.
    fn overview(&self, report: &Report) -> String {
        [self.cpus(report), self.events(report, EVENTS), self.blocked_tasks(report), self.log(report)]
            .concat()
    }

    /// All of one part.
    fn whole(&self, section: Section, report: &Report) -> String {
        match section {
            Section::Panic => format!("{}{}", self.scene(report), self.trace(report)),
            Section::Events => self.events(report, usize::MAX),
            Section::Log => self.whole_log(report),
            Section::Cpus => self.whole_cpus(report),
            Section::Tasks => self.task_table(report),
            Section::Stacks => self.stacks(report),
            Section::Modules => self.module_table(report),
            Section::Blocked => self.whole_blocked(report),
            Section::Console => self.console(report),
            Section::RunQueues => self.run_queues(report),
            Section::Irqs => self.irq_table(report),
            Section::WorkQueues => self.workqueue_table(report),
            Section::Timers => self.timer_table(report),
            Section::Settings => self.settings_table(report),
            Section::Trace => self.trace_events(report),
            Section::Mounts => self.mount_table(report),
            Section::BlockIo => self.block_table(report),
            Section::DeviceMapper => self.mapped_table(report),
            Section::Md => self.array_table(report),
            Section::Virtio => self.virtio_table(report),
            Section::Net => self.net_table(report),
            Section::UnixSockets => self.unix_table(report),
            Section::Softnet => self.softnet_table(report),
            Section::Cgroups => self.cgroup_table(report),
            Section::Memory => self.memory(report),
            Section::Slab => self.slab(report),
            // The facts at the top are all of it, and a part without words of its own has none to add.
            _ => String::new(),
        }
    }

    fn cpus(&self, report: &Report) -> String {
        if report.cpus.is_empty() {
            return String::new();
        }
        let mut out = self.heading("CPUs");
        let panicked = report.panic.as_ref().and_then(|panic| panic.cpu);
        // The one that panicked comes first, wherever it stands.
        let (first, others): (Vec<&Cpu>, Vec<&Cpu>) =
            report.cpus.iter().partition(|cpu| Some(cpu.cpu) == panicked);
        for cpu in first.into_iter().chain(others).take(CPUS) {
            let mark = if Some(cpu.cpu) == panicked { " <- panicked" } else { "" };
            let at = match (frames::chain(&cpu.backtrace, CALLERS), cpu.registers.get("rip")) {
                // Its callers are shown below.
                _ if Some(cpu.cpu) == panicked => String::new(),
                (Some(chain), _) => format!(": {chain}"),
                (None, Some(rip)) => format!(": at {:#018x}", rip.0),
                (None, None) => String::new(),
            };
            self.wrapped(&mut out, "  ", &format!("{}{at}{mark}", cpu_name(cpu)));
        }
        if let Some(more) = report.cpus.len().checked_sub(CPUS).filter(|n| *n > 0) {
            let _ = writeln!(out, "  and {more} more (--only cpus shows them all)");
        }
        out
    }

    /// Each CPU with its registers and its callers.
    fn whole_cpus(&self, report: &Report) -> String {
        let mut out = String::new();
        for cpu in &report.cpus {
            out.push_str(&self.heading(&cpu_name(cpu)));
            let registers: Vec<String> =
                cpu.registers.iter().map(|(name, value)| format!("{name} {:#018x}", value.0)).collect();
            if !registers.is_empty() {
                self.wrapped(&mut out, "  ", &registers.join("  "));
            }
            out.push_str(&frames::lines(&cpu.backtrace, cpu.backtrace_end.as_deref()));
        }
        out
    }

    /// The callers of the panic, from the trouble on, one a line.
    fn trace(&self, report: &Report) -> String {
        let Some(panic) = report.panic.as_ref().filter(|panic| !panic.backtrace.is_empty()) else {
            return String::new();
        };
        format!("{}{}", self.heading("Call trace, innermost first"), frames::lines(&panic.backtrace, None))
    }

    fn whole_log(&self, report: &Report) -> String {
        let mut out = self.heading("Log");
        for line in &report.log.lines {
            let _ = writeln!(out, "  {}", log_line(line));
        }
        out
    }

    /// A text that continues below itself, a little further in.
    fn wrapped(&self, out: &mut String, indent: &str, text: &str) {
        let lines = wrap(text, self.width.saturating_sub(indent.len() + 2).max(20));
        let _ = writeln!(out, "{indent}{}", lines.join(&format!("\n{indent}  ")));
    }

    fn log(&self, report: &Report) -> String {
        let Some((from, count)) = interesting_lines(report) else { return String::new() };
        let mut out =
            self.heading(if report.panic.is_some() { "Log, around the panic" } else { "Log, its end" });
        for line in report.log.lines.iter().skip(from).take(count) {
            let text = log_line(line);
            let _ = writeln!(out, "  {}", cut(&text, self.width.saturating_sub(2).max(20)));
        }
        out
    }

    /// The findings of these severities, in the order of the report; what several dumps tell together stands behind them all.
    fn findings(&self, heading: &str, findings: &[Finding], severities: &[Severity]) -> String {
        self.listed(heading, findings.iter().filter(|finding| finding.code != SAME_CRASH), severities)
    }

    fn listed<'f>(
        &self,
        heading: &str,
        findings: impl IntoIterator<Item = &'f Finding>,
        severities: &[Severity],
    ) -> String {
        let findings: Vec<_> =
            findings.into_iter().filter(|finding| severities.contains(&finding.severity)).collect();
        if findings.is_empty() {
            return String::new();
        }
        let mut out = self.heading(heading);
        for finding in findings {
            let severity = finding.severity.word();
            let style = match finding.severity {
                Severity::Critical | Severity::Error => Style::Bad,
                Severity::Warning => Style::Warn,
                Severity::Info => Style::Faint,
            };
            let head = format!("{} ({})", escape(&finding.code), finding.confidence.word());
            let pad = " ".repeat(8_usize.saturating_sub(severity.len()));
            let _ = writeln!(out, "  {}{pad}  {head}", self.painter.paint(style, severity));
            self.indented(&mut out, &escape(&finding.title));
            for step in &finding.next {
                self.indented(&mut out, &format!("next: {}", escape(step)));
            }
            for hand in finding.by_hand.iter().filter(|_| self.by_hand) {
                // Not wrapped: it is there to be copied.
                let line = format!("{:5} {}", hand.tool.word(), escape(&hand.line));
                let _ = writeln!(out, "            {}", self.painter.paint(Style::Faint, &line));
            }
        }
        out
    }

    /// What is not covered, the same reason said once.
    fn not_looked_at(&self, report: &Report, only: &[Section]) -> String {
        // Who asked for some parts knows that the others are left out.
        let asked = |skipped: &&NotLookedAt| only.is_empty() || skipped.why != LEFT_OUT;
        let skipped: Vec<&NotLookedAt> = report.not_looked_at.iter().filter(asked).collect();
        if skipped.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Not looked at");
        let mut order = Vec::new();
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for skipped in skipped {
            let list = by_reason.entry(&skipped.why).or_default();
            if list.is_empty() {
                order.push(skipped.why.as_str());
            }
            list.push(&skipped.what);
        }
        for why in order {
            let what = by_reason.get(why).map(|list| list.join(", ")).unwrap_or_default();
            let lines =
                wrap(&format!("{}: {}", escape(&what), escape(why)), self.width.saturating_sub(4).max(20));
            let _ = writeln!(out, "  {}", lines.join("\n    "));
        }
        out
    }

    fn indented(&self, out: &mut String, text: &str) {
        let lines = wrap(text, self.width.saturating_sub(12).max(20));
        let _ = writeln!(out, "            {}", lines.join("\n            "));
    }
}

/// `78e1e9353cc845ad281151f49741bd4a, likely`: what `kdt similar` and a bug tracker know the crash by.
fn signature(report: &Report) -> Option<String> {
    let signature = report.signature.as_ref()?;
    Some(format!("{}, {}", signature.hash, signature.confidence.word()))
}

/// `CPU 0, init (pid 1)`.
fn panic_place(panic: &Panic) -> Option<String> {
    let cpu = panic.cpu.map(|cpu| format!("on CPU {cpu}"));
    let task = panic.task.as_ref().and_then(task_words).map(|task| format!("in {task}"));
    let words: Vec<String> = cpu.into_iter().chain(task).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn task_words(task: &TaskRef) -> Option<String> {
    match (&task.comm, task.pid) {
        (Some(comm), Some(pid)) => Some(format!("{} (pid {pid})", escape(comm))),
        (Some(comm), None) => Some(escape(comm).into_owned()),
        (None, Some(pid)) => Some(format!("pid {pid}")),
        (None, None) => None,
    }
}

/// `CPU 1, init (pid 1)`.
fn cpu_name(cpu: &Cpu) -> String {
    let task = cpu.task.as_ref().and_then(task_words).map(|task| format!(", {task}")).unwrap_or_default();
    format!("CPU {}{task}", cpu.cpu)
}

/// Which lines of the log are shown: some before the panic's message and some from there on, else the last ones.
/// The first line to show, and how many.
fn interesting_lines(report: &Report) -> Option<(usize, usize)> {
    let lines = &report.log.lines;
    if lines.is_empty() {
        return None;
    }
    let wanted = LOG_BEFORE + LOG_AFTER;
    let tail = (lines.len().saturating_sub(wanted), wanted);
    let Some(panic) = &report.panic else { return Some(tail) };
    let first = panic.message.lines().next().unwrap_or_default();
    // The last one: an earlier, milder trouble may have used the same words.
    let found = lines.iter().rposition(|line| !first.is_empty() && line.text.contains(first));
    Some(found.map_or(tail, |at| (at.saturating_sub(LOG_BEFORE), wanted)))
}

fn log_line(line: &LogLine) -> String {
    let text = escape(&line.text);
    match line.ts {
        Some(ts) => {
            // dmesg cuts off below the microsecond, where formatting would round.
            let ts = std::time::Duration::try_from_secs_f64(ts).unwrap_or_default();
            format!("[{:5}.{:06}] {text}", ts.as_secs(), ts.subsec_micros())
        }
        None => text.into_owned(),
    }
}

/// A line that does not break the screen's shape.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{head}…")
}
