//! The consoles and their lock, for who asks.

use std::fmt::Write as _;

use vmcore::report::{Console, Consoles, Report};

use super::super::escape::escape;
use super::{Page, task_words};

impl Page {
    /// Who has the lock and who waits for it, then each console.
    pub(super) fn console(&self, report: &Report) -> String {
        let Some(consoles) = &report.console else { return String::new() };
        let mut out = self.heading("Consoles");
        self.wrapped(&mut out, "  ", &lock(consoles));
        for console in &consoles.consoles {
            let _ = writeln!(out, "  {}", one(console));
        }
        out
    }
}

fn lock(consoles: &Consoles) -> String {
    let held = match consoles.held {
        Some(true) => "console_sem is taken",
        Some(false) => "console_sem is free",
        None => "whether console_sem is taken is not known",
    };
    let owner = match (consoles.owner.as_ref().and_then(task_words), consoles.owner_sure, consoles.held) {
        (Some(task), true, _) => format!(", and {task} prints"),
        (Some(task), false, _) => format!(", and {task} seems to have it"),
        (None, _, Some(true)) => ", and the kernel does not record by whom".into(),
        (None, ..) => String::new(),
    };
    let waiters: Vec<String> = consoles.waiters.iter().map(ToString::to_string).collect();
    let waiters =
        if waiters.is_empty() { String::new() } else { format!("; pid {} waits for it", waiters.join(", ")) };
    let spins = if consoles.spinning == Some(true) { "; a CPU spins to take over" } else { "" };
    format!("{held}{owner}{waiters}{spins}")
}

fn one(console: &Console) -> String {
    let behind = match (console.behind, console.seq) {
        (Some(0), _) => ", has printed all of the log".to_owned(),
        (Some(1), _) => ", has 1 record of the log yet to print".to_owned(),
        (Some(count), _) => format!(", has {count} records of the log yet to print"),
        (None, Some(seq)) => format!(", is at record {seq}"),
        (None, None) => String::new(),
    };
    let dropped = console.dropped.filter(|count| *count > 0);
    let dropped = dropped.map(|count| format!(", and {count} were overwritten first")).unwrap_or_default();
    let state = if console.enabled == Some(false) { ", not enabled" } else { "" };
    let own = match (console.nbcon, console.owner_cpu) {
        (Some(true), Some(cpu)) => format!(", prints without that lock, owned by CPU {cpu}"),
        (Some(true), None) => ", prints without that lock".into(),
        _ => String::new(),
    };
    format!("{}{state}{behind}{dropped}{own}", escape(&console.name))
}
