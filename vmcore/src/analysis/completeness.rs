//! Findings about the dump itself: how much of the evidence is there, and whether that matters.

use crate::filter;
use crate::kernel::Kernel;
use crate::report::{Completeness, Confidence, DumpInfo, Finding, Severity};
use crate::sym::btf::Types;

/// What the state of the file means for whoever wants to read it, worst first.
#[must_use]
pub fn findings(dump: &DumpInfo) -> Vec<Finding> {
    let state = &dump.completeness;
    let mut found = Vec::new();
    found.extend(nothing_there(state));
    found.extend(truncated(state, dump));
    found.extend(incomplete(state));
    found.extend(corrupt(state));
    found.extend(misplaced(state));
    found.extend(repaired(state));
    found.sort_by_key(|finding: &Finding| std::cmp::Reverse(finding.severity));
    found
}

fn nothing_there(state: &Completeness) -> Option<Finding> {
    let empty = state.present_pages == Some(0) && state.announced_pages.is_some_and(|n| n > 0);
    empty.then(|| {
        Finding::new(
            "KD-DUMP-NO-PAGES",
            Severity::Critical,
            Confidence::Certain,
            "The dump has its header, and not one page of memory.",
        )
        .because(format!("{} pages are announced, none is in the file", state.announced_pages.unwrap_or(0)))
        .next("Look at the console log of the capture kernel: the writer was stopped before its first page.")
    })
}

fn truncated(state: &Completeness, dump: &DumpInfo) -> Option<Finding> {
    let lost = state.lost_pages.unwrap_or(0);
    if lost == 0 && state.truncated_at.is_none() {
        return None;
    }
    let of = state.announced_pages.map(|n| format!(" of {n}")).unwrap_or_default();
    let title = format!("The dump is cut off: {lost} pages{of} that it announces are lost.");
    let mut finding = Finding::new("KD-DUMP-TRUNCATED", Severity::Error, Confidence::Certain, title);
    if let Some(at) = state.truncated_at {
        finding = finding.because(format!("the file ends, or has a gap, at file offset {at:#x}"));
    }
    if let Some(size) = dump.size_bytes {
        finding = finding.because(format!("the file has {size} bytes"));
    }
    if lost > 0 {
        finding = finding.because(format!("{lost} pages lie past the end of what was given"));
    }
    if dump.container.iter().any(|container| container == "split") {
        finding = finding.next("Name all parts of the split set: each part holds a range of the memory.");
    }
    Some(
        finding
            .next("Compare size and checksum with the file on the host that crashed; copy it again if they differ.")
            .next("If the original is cut too: the dump target was full, or the host was reset while it wrote."),
    )
}

fn incomplete(state: &Completeness) -> Option<Finding> {
    (state.incomplete_flag == Some(true)).then(|| {
        Finding::new(
            "KD-DUMP-INCOMPLETE",
            Severity::Error,
            Confidence::Certain,
            "The program that wrote the dump marked it as incomplete.",
        )
        .because("the incomplete flag is set in the header")
        .next("Free space on the dump target, or raise the dump level, so that the next dump is whole.")
        .next("Read what is there all the same: kdt says of each answer what it lacks.")
    })
}

fn corrupt(state: &Completeness) -> Option<Finding> {
    let corrupt = state.corrupt_pages.filter(|n| *n > 0)?;
    Some(
        Finding::new(
            "KD-DUMP-CORRUPT",
            Severity::Error,
            Confidence::Certain,
            format!("{corrupt} of the pages that were read do not decode."),
        )
        .because("their bytes are in the file and their codec refuses them")
        .next("Compare the checksum with the file on the host that crashed; copy it again if they differ.")
        .next("If the original is damaged too, suspect the disk, or a bug in the writer's threads (--num-threads)."),
    )
}

fn misplaced(state: &Completeness) -> Option<Finding> {
    let misplaced = state.misplaced_pages.filter(|n| *n > 0)?;
    let mut finding = Finding::new(
        "KD-DUMP-MISPLACED",
        Severity::Critical,
        Confidence::Certain,
        "The dump's bitmap is damaged: behind the damage each page is taken for that of another frame.",
    );
    finding.evidence = state.repairs.iter().filter(|said| said.contains("descriptors")).cloned().collect();
    Some(
        finding
            .because(format!("any of {misplaced} pages can be another's, so that nothing here is certain"))
            .next("Compare size and checksum with the file on the host that crashed; copy it again if they differ.")
            .next("Believe the lines of the log first: what is computed from structures can be nonsense."),
    )
}

/// What it means that the dump left out pages which the kernel itself uses. `None` where nothing of that kind was found, or nothing
/// can be: who distils leaves out slab on purpose, and an ELF file has no place for pages of zeros.
pub(super) fn overfiltered(dump: &DumpInfo, kernel: &Kernel<'_>, types: Option<&Types>) -> Option<Finding> {
    let some = dump.completeness.excluded_pages > Some(0);
    if !some || dump.made.is_some() || dump.format.as_deref() != Some("kdump-compressed") {
        return None;
    }
    let found = match filter::left_out(kernel.memory(), kernel.vmcoreinfo(), types) {
        Ok(found) => found,
        Err(why) => {
            tracing::debug!("what was left out can't be looked at: {why}");
            return None;
        }
    };
    let first = found.slab.first()?;
    let count = found.slab.len();
    let of = found.looked_at;
    Some(
        Finding::new(
            "KD-DUMP-OVERFILTERED",
            Severity::Error,
            Confidence::Likely,
            "The dump left out pages of the kernel itself: the program that wrote it does not know this kernel.",
        )
        .because(format!("{count} of {of} pages left out that were looked at are slab, which no dump level leaves out (pfn {:#x} is the first)", first.0))
        .because("unless the dump was made from an ELF file that makedumpfile -E wrote, whose pages of zeros are lacking too, what lay in them is missing from every answer, here and in other tools: what is not found can have been there")
        .next("Update makedumpfile (kexec-tools) on that host to one that knows this kernel, or collect with kdt: core_collector kdt filter -l -d 31.")
        .next("Until then leave out less: dump level 17 keeps page cache and pages of processes, which slab is taken for."),
    )
}

/// Takes back what was said to be certain or likely of memory whose pages can be those of other frames.
pub(super) fn doubt<'a>(findings: impl Iterator<Item = &'a mut Finding>) {
    findings.for_each(|finding| finding.confidence = Confidence::Hint);
}

fn repaired(state: &Completeness) -> Option<Finding> {
    if state.repairs.is_empty() {
        return None;
    }
    let mut finding = Finding::new(
        "KD-DUMP-REPAIRED",
        Severity::Warning,
        Confidence::Certain,
        "The dump's own description of itself is damaged or odd, and was read around.",
    );
    finding.evidence.clone_from(&state.repairs);
    Some(finding.next(
        "Treat what other tools say of this dump with care: they may read the damaged part as it stands.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(state: Completeness) -> DumpInfo {
        DumpInfo { completeness: state, ..DumpInfo::default() }
    }

    fn whole() -> Completeness {
        Completeness {
            announced_pages: Some(100),
            present_pages: Some(60),
            excluded_pages: Some(40),
            lost_pages: Some(0),
            misplaced_pages: Some(0),
            incomplete_flag: Some(false),
            ..Completeness::default()
        }
    }

    fn codes(state: Completeness) -> Vec<String> {
        findings(&dump(state)).into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn pages_left_out_on_purpose_are_no_finding() {
        assert_eq!(findings(&dump(whole())), []);
    }

    #[test]
    fn pages_that_can_be_another_frame_s_come_before_all_else() {
        let state = Completeness { misplaced_pages: Some(60), lost_pages: Some(1), ..whole() };
        assert_eq!(codes(state), ["KD-DUMP-MISPLACED", "KD-DUMP-TRUNCATED"]);
    }

    #[test]
    fn a_cut_file_says_how_much_is_lost_and_where() {
        let state = Completeness { lost_pages: Some(10), truncated_at: Some(0x2000), ..whole() };
        let found = findings(&dump(state));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].title, "The dump is cut off: 10 pages of 100 that it announces are lost.");
        assert_eq!(found[0].evidence[0], "the file ends, or has a gap, at file offset 0x2000");
    }

    #[test]
    fn each_way_to_be_damaged_has_its_code_worst_first() {
        let state = Completeness {
            present_pages: Some(0),
            lost_pages: Some(100),
            corrupt_pages: Some(1),
            incomplete_flag: Some(true),
            repairs: vec!["the second bitmap was rebuilt".into()],
            ..whole()
        };
        assert_eq!(
            codes(state),
            [
                "KD-DUMP-NO-PAGES",
                "KD-DUMP-TRUNCATED",
                "KD-DUMP-INCOMPLETE",
                "KD-DUMP-CORRUPT",
                "KD-DUMP-REPAIRED"
            ]
        );
    }
}
