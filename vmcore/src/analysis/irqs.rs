//! The interrupts in the words of the report.

use super::parts::{Clock, Context, Part};
use crate::kernel::irq::{self, Interrupt};
use crate::report::{Confidence, Finding, Irq, Severity};

/// The kernel switches an interrupt off when of 100000 of it all but 100 were nobody's.
const NOBODYS: u32 = 99_900;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let reader = context.reader();
    let found = irq::read(reader);
    let irqs: Vec<Irq> = found.interrupts.iter().map(one).collect();
    let odd: Vec<Finding> = found.interrupts.iter().filter_map(spurious).collect();
    let mut part = Part::new(move |report| report.irqs = irqs);
    part.gaps("irqs", &found.gaps);
    part.findings = odd;
    part
}

fn one(interrupt: &Interrupt) -> Irq {
    let names: Vec<&str> = interrupt.handlers.iter().map(|handler| handler.name.as_str()).collect();
    let counts = interrupt.counts.iter().flatten().filter(|(_, count)| *count > 0);
    Irq {
        irq: interrupt.number,
        name: (!names.is_empty()).then(|| names.join(", ")),
        count: interrupt.total(),
        per_cpu: counts.filter_map(|(cpu, count)| Some((u32::try_from(*cpu).ok()?, *count))).collect(),
        hwirq: interrupt.hwirq,
        chip: interrupt.chip.clone(),
        flow: interrupt.flow.clone(),
        handlers: interrupt.handlers.iter().filter_map(|handler| handler.function.clone()).collect(),
        affinity: interrupt.affinity.as_deref().map(cpu_list),
        effective_affinity: interrupt.effective.as_deref().map(cpu_list),
        disable_depth: interrupt.depth,
        unhandled: interrupt.unhandled,
        state: interrupt.flags.clone(),
    }
}

/// An interrupt with a handler that the kernel gave up on.
fn spurious(interrupt: &Interrupt) -> Option<Finding> {
    let count = interrupt.unhandled.filter(|count| *count >= NOBODYS)?;
    let name = interrupt.handlers.first()?.name.clone();
    Some(
        Finding::new(
            "KD-IRQ-NOBODY-CARED",
            Severity::Info,
            Confidence::Likely,
            format!(
                "Interrupt {} ({name}) comes without any handler saying that it is its own.",
                interrupt.number
            ),
        )
        .because(format!("{count} of the last 100000 were not handled"))
        .next("Look in the log for «nobody cared», and at the device that shares this interrupt.")
        .by_hand_crash(format!("irq {}", interrupt.number))
        .by_hand_drgn(format!("irq_to_desc({}).irqs_unhandled", interrupt.number)),
    )
}

/// Ascending numbers as the kernel writes them: `0-3,8`.
pub(super) fn cpu_list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let word = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(word).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_as_the_kernel_does() {
        assert_eq!(cpu_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(cpu_list(&[]), "");
    }
}
