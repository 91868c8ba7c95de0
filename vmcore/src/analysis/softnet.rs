//! The packets that each CPU received, and whether many were dropped there.

use super::parts::{Clock, Context, Part};
use crate::kernel::softnet;
use crate::report::{Confidence, Finding, Severity, Softnet};

/// Drops that are worth a word: this many, and one in so many of the packets.
const MANY: u64 = 1000;
const SHARE: u64 = 1000;
/// CPUs that a finding names.
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let walk = match softnet::read(context.memory, context.description, context.per_cpu) {
        Ok(walk) => walk,
        Err(why) => {
            let mut part = Part::default();
            part.skip("softnet", why);
            return part;
        }
    };
    let cpus: Vec<Softnet> = walk.items.iter().filter_map(section).collect();
    let finding = dropped(&cpus);
    let mut part = Part::new(move |report| report.softnet = cpus);
    part.findings.extend(finding);
    if !walk.end.is_complete() {
        part.skip("softnet", format!("not all CPUs are shown: {}", walk.end));
    }
    part
}

fn section(cpu: &softnet::Softnet) -> Option<Softnet> {
    Some(Softnet {
        cpu: u32::try_from(cpu.cpu).ok()?,
        processed: cpu.processed,
        dropped: cpu.dropped,
        time_squeeze: cpu.squeezed,
        backlog: cpu.backlog,
    })
}

fn dropped(cpus: &[Softnet]) -> Option<Finding> {
    let many = |cpu: &&Softnet| {
        let (dropped, processed) = (u64::from(cpu.dropped), u64::from(cpu.processed));
        dropped >= MANY && dropped.saturating_mul(SHARE) >= processed
    };
    let concerned: Vec<&Softnet> = cpus.iter().filter(many).collect();
    let all: u64 = concerned.iter().map(|cpu| u64::from(cpu.dropped)).sum();
    concerned.first()?;
    let mut finding = Finding::new(
        "KD-NET-BACKLOG-DROPS",
        Severity::Info,
        Confidence::Hint,
        format!("{all} received packets were dropped because a CPU's backlog was full."),
    );
    for cpu in concerned.iter().take(NAMED) {
        finding = finding.because(format!(
            "CPU {}: {} dropped, {} processed, {} times out of time",
            cpu.cpu, cpu.dropped, cpu.processed, cpu.time_squeeze
        ));
        finding = finding
            .by_hand_crash(format!("p softnet_data:{}", cpu.cpu))
            .by_hand_drgn(format!("per_cpu(prog[\"softnet_data\"], {})", cpu.cpu));
    }
    Some(finding.next("Look at how receive work is spread over CPUs (RPS, interrupt affinity) and at net.core.netdev_max_backlog; the counts are of the whole uptime."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_drops_among_many_packets_are_no_finding() {
        let cpu = |dropped, processed| Softnet { processed, dropped, ..Softnet::default() };
        assert_eq!(dropped(&[cpu(999, 0), cpu(2000, 4_000_000_000)]), None);
        assert_eq!(dropped(&[cpu(1000, 500_000)]).unwrap().code, "KD-NET-BACKLOG-DROPS");
    }
}
