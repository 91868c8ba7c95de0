//! The arrays of md, and those that lack a member.

use super::device_mapper::below;
use super::parts::{Clock, Context, Part};
use crate::kernel::md::{self, Array};
use crate::report::{Address, Confidence, Finding, MdArray, MdMember, Severity};

/// Members that a finding names.
const NAMED: usize = 16;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let (walk, missing) = match md::read(context.memory, context.description, context.limits) {
        Ok(found) => found,
        Err(why) => {
            let mut part = Part::default();
            part.skip("md", why);
            return part;
        }
    };
    let mut skipped: Vec<(String, String)> = missing.into_iter().map(|why| ("md".to_owned(), why)).collect();
    if !walk.end.is_complete() {
        skipped.push(("md".into(), format!("not all arrays are shown: {}", walk.end)));
    }
    for array in &walk.items {
        skipped.extend(array.gaps.iter().map(|why| (format!("md: {}", array.disk.name), why.clone())));
    }
    let arrays: Vec<MdArray> = walk.items.iter().map(section).collect();
    let findings = arrays.iter().filter_map(degraded).collect();
    let mut part = Part::new(move |report| report.md = arrays);
    part.findings = findings;
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

fn section(array: &Array) -> MdArray {
    // Where nothing is recovered, the counts are those of the last time.
    let progress = array.progress.filter(|_| array.recovery.iter().any(|word| word == "running"));
    MdArray {
        device: array.disk.name.clone(),
        number: Some(format!("{}:{}", array.disk.major, array.disk.minor)),
        personality: array.personality.clone(),
        level: array.level,
        size_bytes: array.size_bytes,
        raid_disks: array.raid_disks,
        degraded: array.degraded,
        suspended: array.suspended,
        access: array.read_only.and_then(|access| {
            let word = match access {
                0 => "read-write",
                1 => "read-only",
                2 => "auto-read-only",
                _ => return None,
            };
            Some(word.to_owned())
        }),
        clean: array.clean,
        recovery: array.recovery.clone(),
        recovered_sectors: progress.map(|(done, _)| done),
        sectors_to_recover: progress.map(|(_, all)| all),
        superblock: array.superblock.clone(),
        flags: array.flags.clone(),
        members: array
            .members
            .iter()
            .map(|member| MdMember {
                device: below(&member.device),
                slot: member.slot,
                state: member.state.clone(),
                pending: member.pending,
                read_errors: member.read_errors,
                kaddr: Some(Address(member.kaddr.0)),
            })
            .collect(),
        kaddr: Some(Address(array.kaddr.0)),
    }
}

fn degraded(array: &MdArray) -> Option<Finding> {
    let broken = array.flags.iter().any(|flag| flag == "broken");
    if array.personality.is_none() || (array.degraded <= 0 && !broken) {
        return None;
    }
    let kind = array.personality.as_deref().unwrap_or("array");
    let (severity, title) = if broken {
        (Severity::Error, format!("{} ({kind}) has lost more members than it can do without.", array.device))
    } else {
        let lacks = format!(
            "{} ({kind}) lacks {} of its {} members.",
            array.device, array.degraded, array.raid_disks
        );
        (Severity::Warning, lacks)
    };
    let mut finding = Finding::new("KD-MD-DEGRADED", severity, Confidence::Certain, title);
    for member in array.members.iter().take(NAMED) {
        let slot = member.slot.map_or_else(|| "no place".into(), |slot| format!("place {slot}"));
        let state = if member.state.is_empty() { "spare".into() } else { member.state.join(" ") };
        finding =
            finding.because(format!("{} ({}): {slot}, {state}", member.device.name, member.device.number));
    }
    if !array.recovery.is_empty() {
        finding = finding.because(format!("recovery: {}", array.recovery.join(" ")));
    }
    if let Some((done, all)) = array.recovered_sectors.zip(array.sectors_to_recover) {
        finding = finding.because(format!("{done} of {all} sectors are recovered"));
    }
    if let Some(at) = array.kaddr {
        finding = finding
            .by_hand_crash("mod -s md_mod")
            .by_hand_crash(format!("struct mddev.degraded,recovery,suspended {at}"))
            .by_hand_drgn(format!("Object(prog, \"struct mddev\", address={at})"));
    }
    Some(finding.next("Look in the log for the errors of the member that is missing, and replace it: until then the array has less or no redundancy."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_does_not_run_is_not_degraded() {
        let mut array = MdArray { device: "md0".into(), raid_disks: 2, degraded: 1, ..MdArray::default() };
        assert_eq!(degraded(&array), None);
        array.personality = Some("raid1".into());
        assert_eq!(degraded(&array).unwrap().title, "md0 (raid1) lacks 1 of its 2 members.");
        array.flags = vec!["broken".into()];
        assert_eq!(degraded(&array).unwrap().severity, Severity::Error);
    }
}
