//! What the kernel's own variables say of its machine, in the words of the report. They are asked before the log, which forgets.

use crate::kernel::machine::Machine;
use crate::report::{NotLookedAt, Report, Taint};

/// Fills what the machine tells into the report, over what the log and the file's header told.
pub(super) fn fill(report: &mut Report, machine: &Machine) {
    let kernel = &mut report.kernel;
    let count = |cpus: &Vec<usize>| u64::try_from(cpus.len()).ok();
    if let Some(cpus) = &machine.cpus {
        // Those that a panic took offline are still present.
        kernel.cpus = cpus.present.as_ref().map_or_else(|| count(&cpus.possible), count).or(kernel.cpus);
    }
    kernel.cmdline = machine.cmdline.clone().or_else(|| kernel.cmdline.take());
    if let Some(time) = &machine.time {
        kernel.uptime_s = Some(time.uptime.as_secs_f64());
        kernel.boot_time = Some(time.booted.as_secs_f64());
    }
    if let Some(taint) = &machine.taint {
        kernel.taint =
            Some(Taint { mask: Some(taint.mask), letters: taint.letters.clone(), flags: Vec::new() });
    }
    kernel.load_average = machine.load;
    kernel.cpu_model.clone_from(&machine.cpu_model);
    // The kernel's word for «none» is an answer too, but not the name of one.
    kernel.hypervisor = machine.hypervisor.as_deref().filter(|name| *name != "NATIVE").map(str::to_lowercase);
    let known = |what: &str| match what {
        "kernel.cmdline" => machine.cmdline.is_some(),
        "kernel.cmdline, kernel.uptime_s" => machine.cmdline.is_some() && machine.time.is_some(),
        "kernel.taint" => machine.taint.is_some(),
        _ => false,
    };
    report.not_looked_at.retain(|skipped| !known(&skipped.what));
    let gap = |gap: &crate::kernel::Gap| NotLookedAt {
        what: format!("kernel: {}", gap.what),
        why: gap.why.clone(),
    };
    report.not_looked_at.extend(machine.gaps.iter().map(gap));
}
