//! Interrupts, timers, workqueues, settings and the trace in full.

use std::fmt::Write as _;

use vmcore::report::{PendingTimer, Report, Setting, Work};

use super::super::escape::escape;
use super::{Page, cut};

/// What stands where nothing is known.
const UNKNOWN: &str = "?";

impl Page {
    /// All interrupts that have a handler or came, one a line.
    pub(super) fn irq_table(&self, report: &Report) -> String {
        if report.irqs.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Interrupts");
        let _ = writeln!(out, "   IRQ       COUNT  CPUS      AT        OFF  CHIP              HANDLERS");
        for irq in &report.irqs {
            let count = irq.count.map_or_else(|| UNKNOWN.into(), |n| n.to_string());
            let off = irq.disable_depth.map_or_else(|| UNKNOWN.into(), |n| n.to_string());
            let line = format!(
                "  {:>4} {count:>11}  {:<8}  {:<8}  {off:>3}  {:<16}  {}",
                irq.irq,
                escape(irq.affinity.as_deref().unwrap_or(UNKNOWN)),
                escape(irq.effective_affinity.as_deref().unwrap_or("-")),
                escape(irq.chip.as_deref().unwrap_or(UNKNOWN)),
                escape(irq.name.as_deref().unwrap_or("-")),
            );
            self.row(&mut out, &line);
        }
        out
    }

    /// The pools of workers that have something to do, and the workqueues with work.
    pub(super) fn workqueue_table(&self, report: &Report) -> String {
        let mut out = String::new();
        if !report.worker_pools.is_empty() {
            out.push_str(&self.heading("Pools of kernel workers"));
        }
        let mut quiet = 0_usize;
        for pool in &report.worker_pools {
            if pool.busy.is_empty() && pool.pending.is_empty() {
                quiet += 1;
                continue;
            }
            let place = pool.cpu.map_or_else(|| "of no CPU".into(), |cpu| format!("of CPU {cpu}"));
            let number = |n: Option<u64>| n.map_or_else(|| UNKNOWN.into(), |n| n.to_string());
            let stalled = pool.stalled_s.map(|s| format!(", stands for {s:.1} s")).unwrap_or_default();
            let (all, idle) = (number(pool.nr_workers), number(pool.nr_idle));
            let _ = writeln!(out, "  pool {} {place}: {all} workers, {idle} idle{stalled}", pool.id);
            for worker in &pool.busy {
                let task = super::task_words(&worker.task).unwrap_or_else(|| UNKNOWN.into());
                self.row(&mut out, &format!("    runs   {} in {task}", work_words(&worker.work)));
            }
            for work in &pool.pending {
                self.row(&mut out, &format!("    waits  {}", work_words(work)));
            }
        }
        if quiet > 0 {
            let _ = writeln!(out, "  {quiet} pools have nothing to do");
        }
        let busy = |queue: &&vmcore::report::WorkQueue| {
            queue.pending.unwrap_or(0) > 0 || queue.active.unwrap_or(0) > 0
        };
        let queues: Vec<_> = report.workqueues.iter().filter(busy).collect();
        if !report.workqueues.is_empty() {
            out.push_str(&self.heading("Workqueues"));
            for queue in &queues {
                let number = |n: Option<u64>| n.map_or_else(|| UNKNOWN.into(), |n| n.to_string());
                let (waits, runs) = (number(queue.pending), number(queue.active));
                self.row(&mut out, &format!("  {}: {waits} wait, {runs} run", escape(&queue.name)));
            }
            let rest = report.workqueues.len().saturating_sub(queues.len());
            let _ = writeln!(out, "  {rest} workqueues have no work");
        }
        out
    }

    /// The timers of each CPU.
    pub(super) fn timer_table(&self, report: &Report) -> String {
        let mut out = String::new();
        for cpu in &report.timers {
            out.push_str(&self.heading(&format!("Timers of CPU {}", cpu.cpu)));
            for timer in cpu.wheel.iter().chain(&cpu.hrtimers) {
                self.row(&mut out, &timer_words(timer));
            }
        }
        out
    }

    /// Settings, BPF programs, livepatches.
    pub(super) fn settings_table(&self, report: &Report) -> String {
        let mut out = String::new();
        if !report.settings.is_empty() {
            out.push_str(&self.heading("Settings"));
        }
        for (name, setting) in &report.settings {
            let value = match setting {
                Setting::Number(number) => number.to_string(),
                Setting::Text(text) => escape(text).into_owned(),
            };
            let _ = writeln!(out, "  {:<34} {value}", escape(name));
        }
        if let Some(bpf) = &report.bpf {
            let count = |n: Option<u64>| n.map_or_else(|| UNKNOWN.into(), |n| n.to_string());
            let (maps, links) = (count(bpf.maps), count(bpf.links));
            out.push_str(&self.heading("BPF"));
            let _ = writeln!(out, "  {} programs, {maps} maps, {links} links", bpf.programs.len());
            for program in &bpf.programs {
                let uid = program.uid.map(|uid| format!(", loaded by uid {uid}")).unwrap_or_default();
                let (kind, name) = (escape(&program.kind), escape(&program.name));
                self.row(
                    &mut out,
                    &format!("  {}: {kind} {name} tag {}{uid}", program.id, escape(&program.tag)),
                );
            }
        }
        if !report.livepatches.is_empty() {
            out.push_str(&self.heading("Livepatches"));
        }
        for patch in &report.livepatches {
            let state = if patch.enabled { "enabled" } else { "disabled" };
            let moving = if patch.transition { ", in transition" } else { "" };
            let _ = writeln!(out, "  {}: {state}{moving}", escape(&patch.name));
        }
        out
    }

    /// The last events of the trace buffer.
    pub(super) fn trace_events(&self, report: &Report) -> String {
        let Some(trace) = &report.trace else { return String::new() };
        let mut out = self.heading("Trace");
        let _ = writeln!(out, "  {} events, {} older ones overwritten", trace.total, trace.overwritten);
        for event in &trace.events {
            let fields: Vec<String> = event
                .fields
                .iter()
                .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
                .collect();
            let (name, fields) = (escape(&event.name), fields.join(" "));
            self.row(
                &mut out,
                &format!("  {:.6} CPU {} pid {} {name}: {fields}", event.ts, event.cpu, event.pid),
            );
        }
        out
    }

    fn row(&self, out: &mut String, line: &str) {
        let _ = writeln!(out, "{}", cut(line.trim_end(), self.width.max(80)));
    }
}

fn work_words(work: &Work) -> String {
    let queue = work.workqueue.as_deref().map(|name| format!(" of {}", escape(name))).unwrap_or_default();
    format!("{}{queue}", escape(&work.function))
}

fn timer_words(timer: &PendingTimer) -> String {
    let due = timer.in_s.map_or_else(|| UNKNOWN.into(), |s| format!("{s:.3}"));
    let work = timer.work.as_deref().map(|work| format!(" for {}", escape(work))).unwrap_or_default();
    let late = if timer.deferrable { " (deferrable)" } else { "" };
    format!("  {:<9} {due:>12} s  {}{work}{late}", escape(&timer.clock), escape(&timer.function))
}
