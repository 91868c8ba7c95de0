//! Settings, BPF programs and livepatches in the words of the report.

use super::parts::{Clock, Context, Part};
use crate::kernel::sysctl::{self, Settings};
use crate::kernel::{bpf, livepatch};
use crate::report::{Bpf, BpfProgram, Confidence, Finding, Livepatch, Setting, Severity};

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let reader = context.reader();
    let settings = sysctl::read(reader);
    let programs = bpf::read(reader);
    let patches = livepatch::read(reader);
    let survived = context.log.is_some_and(|log| {
        let crashed = context.kernel.facts().crash_time.is_some();
        super::panic::events::survived_an_oops(log, crashed)
    });
    let findings = findings(&settings, survived);
    let gaps = [
        ("settings", settings.gaps.clone()),
        ("bpf", programs.as_ref().map(|bpf| bpf.gaps.clone()).unwrap_or_default()),
        ("livepatches", patches.gaps.clone()),
    ];
    let mut part = Part::new(move |report| {
        report.settings =
            settings.settings.into_iter().map(|(name, setting)| (name, value(setting))).collect();
        report.bpf = programs.map(|bpf| words(&bpf));
        report.livepatches = patches
            .patches
            .into_iter()
            .map(|patch| Livepatch { name: patch.name, enabled: patch.enabled, transition: patch.transition })
            .collect();
    });
    for (of, gaps) in gaps {
        part.gaps(of, &gaps);
    }
    part.findings = findings;
    part
}

fn value(setting: sysctl::Setting) -> Setting {
    match setting {
        sysctl::Setting::Number(number) => Setting::Number(number),
        sysctl::Setting::Text(text) => Setting::Text(text),
    }
}

fn words(found: &bpf::Bpf) -> Bpf {
    let count = |n: Option<usize>| n.and_then(|n| u64::try_from(n).ok());
    let one = |program: &bpf::BpfProgram| BpfProgram {
        id: program.id,
        kind: program.kind.clone(),
        name: program.name.clone(),
        tag: program.tag.clone(),
        uid: program.uid,
        jited: program.jited,
        instructions: program.instructions,
    };
    Bpf {
        programs: found.programs.iter().map(one).collect(),
        maps: count(found.maps),
        links: count(found.links),
    }
}

/// What makes the next crash leave less than it could. Only that is told; what a site prefers is its own matter.
/// That an oops does not end the kernel is most sites' choice, and a default: it is told where it has cost a dump.
fn findings(settings: &Settings, survived: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    let loaded = settings.number("kexec_crash_loaded");
    if loaded == Some(0) {
        let title = "No capture kernel is loaded: a crash of this kernel leaves no dump by itself.";
        let mut finding =
            Finding::new("KD-SETTINGS-NO-CAPTURE-KERNEL", Severity::Info, Confidence::Certain, title)
                .because("kexec_crash_loaded is 0");
        if let Some(size) = settings.number("kexec_crash_size") {
            finding = finding.because(format!("{size} bytes are reserved for one (crashkernel=)"));
        }
        all.push(
            finding
                .next("Set crashkernel= and load a capture kernel, unless the host dumps its guests.")
                .next("RHEL 9 and 10: kdumpctl reset-crashkernel --kernel=ALL (RHEL 8: grubby --update-kernel=ALL --args=crashkernel=auto), systemctl enable kdump, reboot; kdumpctl status tells. Debian, Ubuntu: apt install kdump-tools, reboot; kdump-config show tells.")
                .by_hand_crash("p kexec_crash_image")
                .by_hand_drgn("prog[\"kexec_crash_image\"]"),
        );
    }
    if survived && loaded == Some(1) && settings.number("kernel.panic_on_oops") == Some(0) {
        let title = "This dump is not of the first oops: the kernel was told to run on after one.";
        all.push(
            Finding::new("KD-SETTINGS-OOPS-GOES-ON", Severity::Info, Confidence::Certain, title)
                .because(
                    "kernel.panic_on_oops is 0, a capture kernel is loaded, and the log has an earlier oops",
                )
                .next("Set kernel.panic_on_oops = 1 where a dump of the first trouble is wanted: in a file of /etc/sysctl.d, then sysctl --system.")
                .by_hand_crash("p panic_on_oops")
                .by_hand_drgn("prog[\"panic_on_oops\"]"),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_costs_the_next_dump_is_told() {
        let with = |loaded, oops, survived| {
            let mut settings = Settings::default();
            let number = sysctl::Setting::Number;
            settings.settings.push(("kexec_crash_loaded".into(), number(loaded)));
            settings.settings.push(("kernel.panic_on_oops".into(), number(oops)));
            findings(&settings, survived).into_iter().map(|finding| finding.code).collect::<Vec<_>>()
        };
        assert_eq!(with(0, 0, true), ["KD-SETTINGS-NO-CAPTURE-KERNEL"]);
        assert_eq!(with(1, 0, true), ["KD-SETTINGS-OOPS-GOES-ON"]);
        assert_eq!(with(1, 0, false), [""; 0]);
        assert_eq!(with(1, 1, true), [""; 0]);
        assert!(findings(&Settings::default(), true).is_empty());
    }
}
