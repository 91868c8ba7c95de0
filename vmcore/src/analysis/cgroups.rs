//! The control groups, and which of them are at their limit of memory.

use super::parts::{Clock, Context, Part};
use crate::kernel::cgroups;
use crate::report::{Address, Confidence, ControlGroup, Finding, Severity};

/// Groups that are shown.
const GROUPS: usize = 65_536;
/// Groups that a finding names.
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let limit = GROUPS.min(context.limits.walk_items);
    let walk = match cgroups::read(context.memory, context.description, limit, &|| clock.is_spent()) {
        Ok(walk) => walk,
        Err(why) => {
            let mut part = Part::default();
            part.skip("cgroups", why);
            return part;
        }
    };
    let finding = at_limit(&walk.items);
    let gaps: Vec<(String, String)> =
        walk.items.iter().filter_map(|g| Some((format!("cgroups: {}", g.path), g.gap.clone()?))).collect();
    let end = walk.end.clone();
    let groups: Vec<ControlGroup> = walk.items.into_iter().map(section).collect();
    let mut part = Part::new(move |report| report.cgroups = groups);
    part.findings.extend(finding);
    if clock.is_spent() {
        part.stopped("cgroups");
    } else if !end.is_complete() {
        part.skip("cgroups", format!("not all of them are shown: {end}"));
    }
    for (what, why) in gaps {
        part.skip(what, why);
    }
    part
}

fn section(group: cgroups::ControlGroup) -> ControlGroup {
    ControlGroup {
        path: group.path,
        hierarchy: group.hierarchy,
        kaddr: Some(Address(group.kaddr.0)),
        tasks: group.tasks,
        memory_current: group.memory.map(|memory| memory.current),
        memory_max: group.memory.and_then(|memory| memory.max),
        memory_max_events: group.memory.and_then(|memory| memory.max_events),
        oom_kills: group.memory.and_then(|memory| memory.oom_kills),
    }
}

fn at_limit(groups: &[cgroups::ControlGroup]) -> Option<Finding> {
    let full = |group: &&cgroups::ControlGroup| {
        group.memory.is_some_and(|memory| memory.max.is_some_and(|max| max > 0 && memory.current >= max))
    };
    let found: Vec<_> = groups.iter().filter(full).collect();
    let first = found.first()?;
    let killed = found.iter().any(|g| g.memory.and_then(|m| m.oom_kills).is_some_and(|n| n > 0));
    let title = match found.len() {
        1 => format!("The control group {} uses all the memory that it may.", first.path),
        n => format!("{n} control groups use all the memory that they may; the first is {}.", first.path),
    };
    let severity = if killed { Severity::Warning } else { Severity::Info };
    let mut finding = Finding::new("KD-CGROUP-AT-LIMIT", severity, Confidence::Certain, title);
    for group in found.iter().take(NAMED) {
        let memory = group.memory.unwrap_or_default();
        finding = finding.because(format!(
            "{} ({}): {} of {} bytes, {} met the limit, {} killed",
            group.path,
            group.hierarchy,
            memory.current,
            memory.max.unwrap_or_default(),
            memory.max_events.map_or_else(|| "an unknown number of times".into(), |n| format!("{n} times")),
            memory.oom_kills.map_or_else(|| "an unknown number".into(), |n| n.to_string()),
        ));
    }
    let at = Address(first.kaddr.0);
    Some(
        finding
            .next("Look at what runs in the group, and whether its memory.max is meant to be so low.")
            .by_hand_crash(format!("struct cgroup.subsys {at}"))
            .by_hand_drgn(format!(
                "container_of(Object(prog, \"struct cgroup\", address={at}).subsys[prog.constant(\"memory_cgrp_id\")], \"struct mem_cgroup\", \"css\").memory"
            )),
    )
}
