//! What a host bundle and a dump tell together: is the host ready for its next crash, and does it still run what crashed?
//!
//! The rules sit here and not in `vmcore`, which knows no bundles. Each finding names the file in the bundle and the line. A file that the
//! bundle does not have makes no finding: it is told in `not_looked_at`.

mod bundle;

use std::cmp::Ordering;

use vmcore::report::{Confidence, Finding, Report, Severity};

pub use bundle::HostBundle;
use bundle::Line;

const MODINFO: &str = "sos_commands/kernel/modinfo_ALL_MODULES";
const DPKG: &str = "sos_commands/dpkg/dpkg_-l";
const RPM: &str = "sos_commands/rpm/rpm_--nodigest_-qa";
/// Modules that a finding names.
const NAMED: usize = 12;

/// Adds to the report what the bundle of the same host tells.
pub fn join(report: &mut Report, bundle: &HostBundle) {
    if report.error.is_some() {
        return;
    }
    let host = hostname(bundle);
    let (Some(line), Some(own)) = (host, report.kernel.nodename.clone()) else {
        report.skip(
            "host bundle",
            "the bundle or the dump does not tell its host, so it is not known whether they belong together",
        );
        return;
    };
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let (host, evidence) = line;
    if short(&host) != short(&own) {
        report.findings.push(
            Finding::new(
                "KD-HOST-OTHER",
                Severity::Info,
                Confidence::Certain,
                format!("The bundle is of {host}, and the dump is of {own}: they are not compared."),
            )
            .because(evidence)
            .because(format!("the dump's kernel calls its host {own}"))
            .next("Of a guest, collect the bundle in the guest: kdt collect."),
        );
        sort(report);
        report.skip("host bundle", "it is of another host");
        return;
    }
    ready(report, bundle);
    oops(report, bundle);
    collector(report, bundle);
    kernels(report, bundle);
    modules(report, bundle);
    sort(report);
}

fn sort(report: &mut Report) {
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

/// The host's name, and where it stands.
fn hostname(bundle: &HostBundle) -> Option<(String, String)> {
    for file in ["proc/sys/kernel/hostname", "sos_commands/host/hostname", "etc/hostname"] {
        if let Some(line) = bundle.first(file) {
            return Some((line.text.to_owned(), line.evidence()));
        }
    }
    let line = bundle.first("sos_commands/kernel/uname_-a")?;
    Some((line.text.split_whitespace().nth(1)?.to_owned(), line.evidence()))
}

fn lacks(report: &mut Report, what: &str, files: &[&str]) {
    report.skip(format!("host bundle: {what}"), format!("the bundle has no {}", files.join(" and no ")));
}

/// Whether the next crash would leave a dump.
fn ready(report: &mut Report, bundle: &HostBundle) {
    let mut why = Vec::new();
    let zero =
        |file: &'static str| bundle.first(file).map(|line| (line.text == "0").then(|| line.evidence()));
    match (zero("sys/kernel/kexec_crash_loaded"), zero("sys/kernel/kexec_crash_size")) {
        (None, None) => {
            lacks(
                report,
                "capture kernel",
                &["sys/kernel/kexec_crash_loaded", "sys/kernel/kexec_crash_size"],
            );
        }
        (loaded, size) => why.extend(loaded.flatten().into_iter().chain(size.flatten())),
    }
    let no_memory = why.iter().any(|line| line.contains("kexec_crash_size"));
    if no_memory
        && let Some(line) = bundle.first("proc/cmdline").filter(|line| !line.text.contains("crashkernel="))
    {
        why.push(format!("{}:{}: there is no crashkernel= in it", line.file, line.number));
    }
    let status = [
        "sos_commands/kdump/kdumpctl_status",
        "sos_commands/kdump/kdump-config_status",
        "sos_commands/kdump/kdump-config_show",
    ];
    let mut told = false;
    for file in status {
        let Some(lines) = bundle.lines(file) else { continue };
        told = true;
        let bad = |line: &Line<'_>| {
            let text = line.text.to_ascii_lowercase();
            text.contains("not operational")
                || text.contains("not ready to kdump")
                || text.contains("no crashkernel")
        };
        why.extend(lines.filter(bad).map(|line| line.evidence()));
    }
    if let Some(lines) = bundle.lines("etc/default/kdump-tools") {
        told = true;
        why.extend(
            lines
                .filter(|line| line.text.replace(['"', '\''], "") == "USE_KDUMP=0")
                .map(|line| line.evidence()),
        );
    }
    if !told {
        lacks(report, "kdump service", &status);
    }
    if why.is_empty() {
        return;
    }
    let mut finding = Finding::new(
        "KD-HOST-KDUMP-NOT-READY",
        Severity::Warning,
        Confidence::Certain,
        "The host is not ready for its next crash: it would leave no dump.",
    );
    finding.evidence = why;
    let step = if no_memory {
        "Reserve memory with crashkernel= on the kernel's command line, and boot."
    } else {
        "Start the kdump service, and look at why it does not run: kdumpctl status, or kdump-config show."
    };
    report.findings.push(finding.next(step));
}

fn oops(report: &mut Report, bundle: &HostBundle) {
    let (file, sysctl) = ("proc/sys/kernel/panic_on_oops", "sos_commands/kernel/sysctl_-a");
    let said = bundle.first(file).map(|line| (line.text.to_owned(), line.evidence())).or_else(|| {
        let line = bundle.lines(sysctl)?.find(|line| line.text.starts_with("kernel.panic_on_oops"))?;
        Some((line.text.split('=').nth(1)?.trim().to_owned(), line.evidence()))
    });
    match said {
        None => lacks(report, "panic_on_oops", &[file, sysctl]),
        Some((value, evidence)) if value == "0" => report.findings.push(
            Finding::new(
                "KD-HOST-OOPS-GOES-ON",
                Severity::Info,
                Confidence::Certain,
                "An oops does not take the host down as it is set now, so the next one leaves no dump.",
            )
            .because(evidence)
            .next(
                "Set kernel.panic_on_oops = 1 in /etc/sysctl.d where a dump of the first trouble is wanted.",
            ),
        ),
        Some(_) => {}
    }
}

/// Whether the next dump would hold pages that nobody needs.
fn collector(report: &mut Report, bundle: &HostBundle) {
    let setting = |file, begin: &'static str| {
        bundle.lines(file).map(|mut lines| {
            lines.find(|line| {
                line.text.strip_prefix(begin).is_some_and(|rest| rest.starts_with([' ', '\t', '=']))
            })
        })
    };
    let (conf, debian) =
        (setting("etc/kdump.conf", "core_collector"), setting("etc/default/kdump-tools", "MAKEDUMP_ARGS"));
    let line = match (conf, debian) {
        (None, None) => {
            return lacks(report, "core_collector", &["etc/kdump.conf", "etc/default/kdump-tools"]);
        }
        (conf, debian) => conf.flatten().or(debian.flatten()),
    };
    // Without the line the usual filter is used.
    let Some(line) = line else { return };
    let text = line.text.replace(['"', '\'', '='], " ");
    let words: Vec<&str> = text.split_whitespace().skip(1).collect();
    let level = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("-d") {
        Some("") => words.get(at + 1).copied(),
        Some(number) => Some(number),
        None => None,
    });
    let filters = level
        .is_some_and(|level| level.split(',').any(|one| one.parse::<u32>().is_ok_and(|level| level > 0)));
    if filters {
        return;
    }
    report.findings.push(
        Finding::new(
            "KD-HOST-DUMP-UNFILTERED",
            Severity::Info,
            Confidence::Certain,
            "The next dump would hold all memory: free pages, caches and users' data too.",
        )
        .because(line.evidence())
        .next("Use makedumpfile -l -d 31 there, unless all memory is wanted: the dump is smaller and sooner written."),
    );
}

/// An installed kernel, and the line that says so.
struct Installed<'a> {
    release: String,
    version: String,
    /// Kernels of two flavours are not newer or older than each other.
    flavour: String,
    line: Line<'a>,
}

impl Installed<'_> {
    /// True where a kernel that calls itself so is out of this package.
    fn is_of(&self, own: &str) -> bool {
        // Red Hat's flavours stand behind the package's release, `5.14.0-503.el9.x86_64+rt`; SUSE's stand for the end of it.
        let flavour = own.strip_prefix(&self.release).and_then(|rest| rest.strip_prefix('+'));
        let suse = own.strip_suffix("-default").and_then(|base| self.release.strip_prefix(base));
        own == self.release
            || flavour.is_some_and(|own| !self.flavour.is_empty() && own.starts_with(&self.flavour))
            || suse.is_some_and(|rest| self.flavour == "default" && rest.starts_with('.'))
    }
}

/// What stands between `kernel-` and the version in an RPM's name.
const RPM_WORDS: [&str; 8] = ["core", "default", "rt", "debug", "64k", "uek", "ml", "lt"];

/// The release and the flavour of a kernel's RPM; `None` for one of its headers, modules and tools.
fn rpm_kernel(name: &str) -> Option<(&str, String)> {
    let mut rest = name.strip_prefix("kernel-")?;
    let mut flavour = Vec::new();
    while let Some((word, after)) = rest.split_once('-').filter(|(word, _)| RPM_WORDS.contains(word)) {
        if word != "core" {
            flavour.push(word);
        }
        rest = after;
    }
    rest.starts_with(|c: char| c.is_ascii_digit()).then(|| (rest, flavour.join("-")))
}

/// `None` where the bundle has no list of packages.
fn installed(bundle: &HostBundle) -> Option<Vec<Installed<'_>>> {
    let mut all = Vec::new();
    if let Some(lines) = bundle.lines(DPKG) {
        for line in lines {
            let words: Vec<&str> = line.text.split_whitespace().collect();
            let (Some(state), Some(name), Some(version)) = (words.first(), words.get(1), words.get(2)) else {
                continue;
            };
            let name = name.split(':').next().unwrap_or_default();
            let release =
                name.strip_prefix("linux-image-").map(|name| name.strip_prefix("unsigned-").unwrap_or(name));
            let Some(release) = release.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) else {
                continue;
            };
            if state.starts_with("ii") && !release.ends_with("-dbg") && !release.ends_with("-dbgsym") {
                let (release, flavour) = (release.to_owned(), flavour(release));
                all.push(Installed { release, version: (*version).to_owned(), flavour, line });
            }
        }
        return Some(all);
    }
    for line in bundle.lines(RPM)? {
        let Some(name) = line.text.split_whitespace().next() else { continue };
        let Some((release, flavour)) = rpm_kernel(name) else { continue };
        if !all.iter().any(|one: &Installed<'_>| one.release == release && one.flavour == flavour) {
            let (release, version) = (release.to_owned(), release.to_owned());
            all.push(Installed { release, version, flavour, line });
        }
    }
    Some(all)
}

/// What follows the version in Debian's releases: `cloud-amd64`.
fn flavour(release: &str) -> String {
    let words = release.split('-').filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    words.collect::<Vec<_>>().join("-")
}

fn kernels(report: &mut Report, bundle: &HostBundle) {
    let Some(own) = report.kernel.release.clone() else { return };
    let running = bundle
        .first("proc/sys/kernel/osrelease")
        .map(|line| (line.text.to_owned(), line.evidence()))
        .or_else(|| {
            let line = bundle.first("sos_commands/kernel/uname_-a")?;
            Some((line.text.split_whitespace().nth(2)?.to_owned(), line.evidence()))
        });
    match running {
        None => lacks(report, "running kernel", &["proc/sys/kernel/osrelease", "sos_commands/kernel/uname_-a"]),
        Some((running, evidence)) if running != own => report.findings.push(
            Finding::new(
                "KD-HOST-KERNEL-CHANGED",
                Severity::Info,
                Confidence::Certain,
                format!("The host runs {running} now, and what crashed was {own}."),
            )
            .because(evidence)
            .because(format!("the dump is of {own}"))
            .next("Do not take what the bundle says of modules and settings for that of the crash; the dump has its own."),
        ),
        Some(_) => {}
    }
    let Some(all) = installed(bundle) else {
        return lacks(report, "installed kernels", &[DPKG, RPM]);
    };
    if all.is_empty() {
        report.skip("host bundle: installed kernels", "its list of packages names no kernel");
        return;
    }
    // Packages of two flavours can have one release: the plain one goes first.
    let plain = all.iter().find(|one| one.flavour.is_empty() && one.is_of(&own));
    let Some(here) = plain.or_else(|| all.iter().find(|one| one.is_of(&own))) else {
        let names: Vec<&str> = all.iter().map(|one| one.release.as_str()).take(NAMED).collect();
        report.findings.push(
            Finding::new(
                "KD-HOST-KERNEL-GONE",
                Severity::Info,
                Confidence::Certain,
                format!("The kernel that crashed, {own}, is not installed on the host any more."),
            )
            .because(format!("{} names these kernels: {}", all.first().map(|one| one.line.file).unwrap_or_default(), names.join(", ")))
            .next("Take its debuginfo by the release, from the vendor's archive: it can't be installed beside it by the host's own package."),
        );
        return;
    };
    let newest = all
        .iter()
        .filter(|one| one.flavour == here.flavour)
        .max_by(|a, b| newer(&a.version, &b.version).then_with(|| newer(&a.release, &b.release)));
    if let Some(newest) = newest.filter(|newest| newer(&newest.version, &here.version) == Ordering::Greater) {
        report.findings.push(
            Finding::new(
                "KD-HOST-KERNEL-NOT-NEWEST",
                Severity::Info,
                Confidence::Certain,
                format!("A newer kernel than the one that crashed is installed on the host: {}.", newest.release),
            )
            .because(here.line.evidence())
            .because(newest.line.evidence())
            .next("Look in its changelog for a fix, and boot it: a newer kernel that is only installed helps nobody."),
        );
    }
}

/// Compares versions as people read them: numbers as numbers, the rest as text; `~` is before the end.
fn newer(a: &str, b: &str) -> Ordering {
    let pieces = |text: &str| {
        let mut all: Vec<String> = Vec::new();
        let mut digits = None;
        for c in text.chars() {
            if digits == Some(c.is_ascii_digit()) && c.is_ascii_alphanumeric() {
                if let Some(last) = all.last_mut() {
                    last.push(c);
                }
                continue;
            }
            digits = c.is_ascii_alphanumeric().then(|| c.is_ascii_digit());
            if c.is_ascii_alphanumeric() || c == '~' {
                all.push(c.to_string());
            }
        }
        all
    };
    let (a, b) = (pieces(a), pieces(b));
    for at in 0..a.len().max(b.len()) {
        let found = match (a.get(at), b.get(at)) {
            (Some(one), Some(_)) if one == "~" && b.get(at).is_none_or(|other| other != "~") => {
                Ordering::Less
            }
            (Some(_), Some(other)) if other == "~" && a.get(at).is_none_or(|one| one != "~") => {
                Ordering::Greater
            }
            (Some(one), Some(other)) => match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                // A number is newer than a word: 1.1 than 1.rc.
                (Ok(_), Err(_)) => Ordering::Greater,
                (Err(_), Ok(_)) => Ordering::Less,
                (Err(_), Err(_)) => one.cmp(other),
            },
            (Some(one), None) => {
                if one == "~" {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (None, Some(other)) => {
                if other == "~" {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (None, None) => Ordering::Equal,
        };
        if found != Ordering::Equal {
            return found;
        }
    }
    Ordering::Equal
}

/// Modules that were loaded in another version than the one which lies on the disk for the same kernel.
fn modules(report: &mut Report, bundle: &HostBundle) {
    let Some(lines) = bundle.lines(MODINFO) else { return lacks(report, "modules on the disk", &[MODINFO]) };
    let Some(own) = report.kernel.release.clone() else { return };
    let below = format!("/lib/modules/{own}/");
    let mut differ = Vec::new();
    let mut name: Option<String> = None;
    let mut compared = false;
    for line in lines {
        let Some((key, value)) = line.text.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "filename" => {
                // What is not of the dump's kernel says nothing of it.
                let file = value.contains(&below).then(|| value.rsplit('/').next().unwrap_or_default());
                name = file.and_then(|file| file.split(".ko").next()).map(|name| name.replace('-', "_"));
                compared |= name.is_some();
            }
            "version" => {
                let module =
                    name.as_ref().and_then(|name| report.modules.iter().find(|module| module.name == *name));
                if let Some((module, loaded)) =
                    module.and_then(|module| Some((module, module.version.as_ref()?)))
                    && loaded != value
                {
                    differ.push(format!("{} was loaded as {loaded}; {}", module.name, line.evidence()));
                }
            }
            _ => {}
        }
    }
    if !compared {
        report.skip("host bundle: modules on the disk", format!("its modinfo is not of {own}"));
    }
    if differ.is_empty() {
        return;
    }
    let count = differ.len();
    let title = if count == 1 {
        "A module was loaded in another version than the one on the disk now.".to_owned()
    } else {
        format!("{count} modules were loaded in other versions than those on the disk now.")
    };
    let mut finding = Finding::new("KD-HOST-MODULE-DIFFERS", Severity::Warning, Confidence::Certain, title);
    finding.evidence = differ.into_iter().take(NAMED).collect();
    report.findings.push(
        finding
            .next("Find out when they were replaced (dkms status, the package manager's log): the crash is of the old ones.")
            .next("Take debuginfo and source of the version that was loaded."),
    );
}

#[cfg(test)]
mod tests;
