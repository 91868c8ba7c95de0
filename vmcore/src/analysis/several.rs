//! What several reports tell together that none of them tells alone.

use std::collections::{BTreeMap, BTreeSet};

use super::signature;
use crate::report::{Confidence, Finding, Report, Severity};

/// The code of the finding that several dumps are of the same crash.
pub const SAME_CRASH: &str = "KD-SAME-CRASH";
/// Dumps that a finding names.
const NAMED: usize = 12;

/// Adds to each report what it has in common with the others.
pub fn compare(reports: &mut [&mut Report]) {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, report) in reports.iter().enumerate() {
        let telling = |s: &&crate::report::Signature| !s.frames.is_empty() || s.about.is_some();
        if let Some(signature) = report.signature.as_ref().filter(telling) {
            groups.entry(signature.hash.clone()).or_default().push(number);
        }
    }
    for (hash, members) in groups {
        let of: Vec<&Report> =
            members.iter().filter_map(|n| reports.get(*n).map(|report| &**report)).collect();
        let Some(finding) = same_crash(&hash, &of) else { continue };
        for number in members {
            if let Some(report) = reports.get_mut(number) {
                report.findings.push(finding.clone());
                report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            }
        }
    }
}

/// The same signature in several dumps. Two dumps of one crash (the same host at the same time) are no news.
fn same_crash(hash: &str, reports: &[&Report]) -> Option<Finding> {
    let mut crashes: BTreeSet<(Option<&str>, Option<u64>, &str)> = BTreeSet::new();
    for report in reports {
        let host = report.kernel.nodename.as_deref();
        let time = report.kernel.crash_time.map(f64::to_bits);
        // Without a time nothing but the file tells two crashes apart.
        let file = if host.is_some() && time.is_some() { "" } else { report.dump.path.as_str() };
        crashes.insert((host, time, file));
    }
    let count = crashes.len();
    if count < 2 {
        return None;
    }
    let hosts: BTreeSet<&str> =
        reports.iter().filter_map(|report| report.kernel.nodename.as_deref()).collect();
    let all_named = reports.iter().all(|report| report.kernel.nodename.is_some());
    let names: Vec<&str> = hosts.iter().copied().take(NAMED).collect();
    let place = match names.as_slice() {
        [] => "on hosts that the dumps do not name".to_owned(),
        [one] if all_named => format!("each time on {one}"),
        names => format!("on {}", names.join(", ")),
    };
    let sure = reports
        .iter()
        .filter_map(|report| report.signature.as_ref())
        .map(|signature| signature.confidence)
        .min();
    let confidence = match sure {
        Some(Confidence::Certain) => Confidence::Likely,
        _ => Confidence::Hint,
    };
    let title = format!("It is the same crash in {count} of the dumps, {place}.");
    let mut finding = Finding::new(SAME_CRASH, Severity::Info, confidence, title)
        .because(format!("the signature of each is {hash}"));
    for report in reports.iter().take(NAMED) {
        finding = finding.because(format!(
            "{}: host {}, kernel {}",
            report.dump.path,
            report.kernel.nodename.as_deref().unwrap_or("not known"),
            report.kernel.release.as_deref().unwrap_or("not known")
        ));
    }
    let kind = reports.iter().find_map(|report| report.signature.as_ref()).map(|signature| &signature.kind);
    let next = if hosts.len() == 1 && all_named {
        if kind.is_some_and(|kind| signature::may_be_hardware(kind)) {
            "It is one host: look at its hardware too, and at what only it runs."
        } else {
            "It is one host: look at what only it runs, and how it is set up."
        }
    } else {
        "It is not the hardware of one host: look for what these have in common, and for a fix in a newer kernel."
    };
    Some(finding.next(next).next("Look whether it was seen before: kdt similar REPORT FOLDER."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{SIGNATURE_VERSION, Signature};

    fn report(path: &str, host: &str, time: f64, frames: &[&str]) -> Report {
        let mut report = Report::empty("kdt", "0", path);
        report.kernel.nodename = Some(host.into());
        report.kernel.crash_time = Some(time);
        report.signature = Some(Signature {
            version: SIGNATURE_VERSION,
            kind: "bug".into(),
            module: None,
            frames: frames.iter().map(|name| (*name).to_owned()).collect(),
            about: None,
            hash: frames.concat(),
            confidence: Confidence::Certain,
        });
        report
    }

    fn titles(mut reports: Vec<Report>) -> Vec<Vec<String>> {
        compare(&mut reports.iter_mut().collect::<Vec<_>>());
        reports
            .into_iter()
            .map(|report| report.findings.into_iter().map(|finding| finding.title).collect())
            .collect()
    }

    #[test]
    fn each_dump_of_the_same_crash_says_so_and_others_do_not() {
        let found = titles(vec![
            report("a", "h1", 1.0, &["f"]),
            report("b", "h2", 2.0, &["f"]),
            report("c", "h1", 3.0, &["g"]),
        ]);
        assert_eq!(found[0], ["It is the same crash in 2 of the dumps, on h1, h2."]);
        assert_eq!(found[0], found[1]);
        assert!(found[2].is_empty());
    }

    #[test]
    fn hardware_is_named_only_for_what_hardware_can_do() {
        let next = |kind: &str| {
            let mut both = [report("a", "h1", 1.0, &["f"]), report("b", "h1", 2.0, &["f"])];
            for report in &mut both {
                report.signature.as_mut().unwrap().kind = kind.into();
            }
            compare(&mut both.iter_mut().collect::<Vec<_>>());
            both[0].findings[0].next[0].clone()
        };
        assert!(next("general-protection").contains("its hardware"));
        assert!(next("mce").contains("its hardware"));
        for kind in ["deadlock", "hung-task", "oom", "sysrq"] {
            assert!(!next(kind).contains("hardware"), "{kind}");
        }
    }

    #[test]
    fn one_host_each_time_is_said() {
        let found = titles(vec![report("a", "h1", 1.0, &["f"]), report("b", "h1", 2.0, &["f"])]);
        assert_eq!(found[0], ["It is the same crash in 2 of the dumps, each time on h1."]);
    }

    #[test]
    fn two_dumps_of_one_crash_and_dumps_without_a_stack_are_no_news() {
        assert!(
            titles(vec![report("a", "h1", 1.0, &["f"]), report("b", "h1", 1.0, &["f"])]).concat().is_empty()
        );
        assert!(titles(vec![report("a", "h1", 1.0, &[]), report("b", "h2", 2.0, &[])]).concat().is_empty());
    }
}
