//! Which kernel is in the dump: gathered from its memory, its log and the file's header, in this order of trust.

use crate::analysis::log;
use crate::analysis::subject::Subject;
use crate::kernel::describe::Description;
use crate::kernel::printk::KernelLog;
use crate::kernel::{Kernel, Origin};
use crate::report::{Address, Confidence, Finding, KernelInfo, NotLookedAt, Severity, Symbols};
use crate::sym::kallsyms::Found;

/// What is known of the kernel, and what is not.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The report's part about it.
    pub kernel: KernelInfo,
    /// What could not be had, and why.
    pub not_looked_at: Vec<NotLookedAt>,
}

/// Gathers what is known of the kernel. Without a log, what only the log tells is left open, with its reason.
#[must_use]
pub fn identify(subject: &Subject<'_>, kernel: &Kernel<'_>, log: Option<&KernelLog>) -> Identity {
    let mut found = Identity::default();
    let facts = kernel.facts();
    let uts = kernel.uts();
    let header = &subject.header;
    let from_uts = |field: fn(&crate::kernel::uts::Uts) -> &String| {
        uts.as_ref().ok().map(field).filter(|s| !s.is_empty()).cloned()
    };
    found.kernel = KernelInfo {
        release: from_uts(|uts| &uts.release)
            .or_else(|| facts.release.clone())
            .or_else(|| header.release.clone()),
        version: from_uts(|uts| &uts.version).or_else(|| header.version.clone()),
        build_id: facts.build_id.clone(),
        nodename: from_uts(|uts| &uts.nodename).or_else(|| header.nodename.clone()),
        arch: from_uts(|uts| &uts.machine)
            .or_else(|| header.machine.clone())
            .or_else(|| subject.dump.arch.clone()),
        // Each note is a CPU's own; a header may count fewer.
        cpus: header.cpus.max(u64::try_from(subject.cpus.len()).ok()).filter(|n| *n > 0),
        memory_bytes: memory_bytes(subject),
        cmdline: log.and_then(command_line),
        boot_time: log.and_then(|log| log::boot_time(facts.crash_time, log)),
        crash_time: facts.crash_time.map(|s| std::time::Duration::from_secs(s).as_secs_f64()),
        uptime_s: log.and_then(log::uptime),
        kaslr_offset: facts.kaslr_offset.map(Address),
        taint: None,
        load_average: None,
        cpu_model: None,
        hypervisor: None,
    };
    for gap in kernel.gaps() {
        found.skip(&gap.what, &gap.why);
    }
    if let Err(error) = &uts
        && (found.kernel.nodename.is_none() || found.kernel.version.is_none())
    {
        found.skip("kernel.nodename, kernel.version", &error.to_string());
    }
    if facts.crash_time.is_none() {
        found.skip(
            "kernel.crash_time, kernel.boot_time",
            "the kernel did not note when it crashed (VMCOREINFO has no CRASHTIME)",
        );
    }
    match log {
        None => found
            .skip("kernel.cmdline, kernel.uptime_s", "they are read from the kernel log, which was not read"),
        Some(_) if found.kernel.cmdline.is_none() => {
            found.skip("kernel.cmdline", "the log no longer holds the line that tells it");
        }
        Some(_) => {}
    }
    found
}

impl Identity {
    fn skip(&mut self, what: &str, why: &str) {
        self.not_looked_at.push(NotLookedAt { what: what.into(), why: why.into() });
    }
}

fn memory_bytes(subject: &Subject<'_>) -> Option<u64> {
    subject.dump.completeness.announced_pages?.checked_mul(subject.memory.page_size())
}

/// The command line, as `setup_arch` (x86) and `start_kernel` print it early in the boot.
fn command_line(log: &KernelLog) -> Option<String> {
    let text = |prefix: &str| {
        log.records
            .iter()
            .find_map(|record| record.text_lossy().strip_prefix(prefix).map(|line| line.trim().to_owned()))
    };
    text("Command line: ").or_else(|| text("Kernel command line: "))
}

/// Where names and types come from.
#[must_use]
pub fn symbols(kernel: &Kernel<'_>, description: Option<&Description>) -> Symbols {
    if let Some(table) = description.and_then(|description| description.symbols.kernel()) {
        let modules = description.iter().flat_map(|description| description.symbols.modules());
        let count = modules.map(|module| module.iter().count()).fold(table.len(), usize::saturating_add);
        let source = match table.found() {
            Found::Vmcoreinfo => "kallsyms",
            Found::Scan => "kallsyms-scan",
        };
        return Symbols {
            source: Some(source.into()),
            count: u64::try_from(count).ok(),
            ..Symbols::default()
        };
    }
    if let Some(linked) = description.and_then(|description| description.symbols.linked()) {
        let count = u64::try_from(linked.len()).ok();
        return Symbols { source: Some("vmlinux".into()), count, ..Symbols::default() };
    }
    let info = kernel.vmcoreinfo();
    let count = info.entries().iter().filter(|entry| entry.key.starts_with("SYMBOL(")).count();
    Symbols {
        source: (count > 0).then(|| "vmcoreinfo".to_owned()),
        count: u64::try_from(count).ok().filter(|n| *n > 0),
        ..Symbols::default()
    }
}

/// What it means that the dump has no VMCOREINFO note.
#[must_use]
pub fn findings(kernel: &Kernel<'_>) -> Option<Finding> {
    let base = |severity, title: &str| {
        Finding::new("KD-NO-VMCOREINFO", severity, Confidence::Certain, title)
            .because("the dump has no VMCOREINFO note")
    };
    let next = "For a guest: start QEMU with -device vmcoreinfo, and load qemu_fw_cfg in the guest.";
    match kernel.origin() {
        Origin::Note => None,
        Origin::Memory { paddr, why, .. } => Some(
            base(
                Severity::Info,
                "The dump has no VMCOREINFO note; the kernel's own copy was found in memory.",
            )
            .because(format!("found at {paddr}: {why}"))
            .next(next),
        ),
        _ => {
            let mut finding = base(
                Severity::Error,
                "There is no VMCOREINFO, so neither the log nor any symbol of the kernel can be found.",
            );
            finding.evidence.extend(
                kernel.gaps().iter().filter(|gap| gap.what == "VMCOREINFO").map(|gap| gap.why.clone()),
            );
            Some(finding.next(next))
        }
    }
}
