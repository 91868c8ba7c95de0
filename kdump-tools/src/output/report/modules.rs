//! The loaded modules: in a line, and as a table as `lsmod` has it.

use std::fmt::Write as _;

use vmcore::report::{KernelModule, Report};

use super::super::escape::escape;
use super::super::human;
use super::{Page, cut};

/// Tainting modules that a line names.
const NAMED: usize = 6;

/// `87, of which taint: nvidia (POE)`; nothing where no module is known.
pub(super) fn count(report: &Report) -> Option<String> {
    let all = u64::try_from(report.modules.len()).ok().filter(|n| *n > 0)?;
    let tainting = |module: &&KernelModule| module.taint.as_deref().is_some_and(|t| !t.is_empty());
    let words = |module: &KernelModule| {
        let letters = module.taint.as_deref().unwrap_or_default();
        format!("{} ({})", escape(&module.name), escape(letters))
    };
    let mut names: Vec<String> = report.modules.iter().filter(tainting).map(words).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let all = human::count(all);
    Some(if names.is_empty() { all } else { format!("{all}, of which taint: {}{more}", names.join(", ")) })
}

impl Page {
    /// All modules, one a line, with their parameters below.
    pub(super) fn module_table(&self, report: &Report) -> String {
        if report.modules.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Modules");
        let head = "  NAME                           SIZE  USES  STATE     TAINT  USED BY";
        let _ = writeln!(out, "{head}");
        for module in &report.modules {
            let size = module.size.map_or_else(|| "?".into(), |n| n.to_string());
            let uses = module.refcount.map_or_else(|| "?".into(), |n| n.to_string());
            let taint = match module.taint.as_deref() {
                None => "?".into(),
                Some("") => "-".into(),
                Some(letters) => escape(letters),
            };
            let line = format!(
                "  {:<24} {size:>10} {uses:>5}  {:<8}  {taint:<5}  {}",
                escape(&module.name),
                escape(module.state.as_deref().unwrap_or("?")),
                escape(&module.used_by.join(",")),
            );
            let _ = writeln!(out, "{}", cut(line.trim_end(), self.width.max(head.len())));
            let values: Vec<String> = module
                .parameters
                .iter()
                .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
                .collect();
            if !values.is_empty() {
                self.wrapped(&mut out, "      ", &values.join(" "));
            }
        }
        out
    }
}
