use super::*;
use vmcore::report::KernelModule;

const HOST: (&str, &str) = ("proc/sys/kernel/hostname", "db1\n");

fn joined(files: &[(&'static str, &str)]) -> Report {
    let mut report = Report::empty("kdt", "0", "vmcore");
    report.kernel.nodename = Some("db1.example.com".into());
    report.kernel.release = Some("6.1.0-9-amd64".into());
    report.modules.push(KernelModule {
        name: "my_mod".into(),
        version: Some("1.0".into()),
        ..KernelModule::default()
    });
    let mut all = vec![HOST];
    all.extend(files);
    join(&mut report, &HostBundle::of(&all));
    report
}

fn codes(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.code.as_str()).collect()
}

/// The finding of that code, which is the only one.
#[track_caller]
fn only(report: &Report, code: &str) -> Vec<String> {
    assert_eq!(codes(report), [code]);
    report.findings[0].evidence.clone()
}

#[test]
fn what_the_bundle_lacks_makes_no_finding_and_is_told() {
    let report = joined(&[]);
    assert_eq!(codes(&report), [""; 0]);
    let what: Vec<&str> = report.not_looked_at.iter().map(|skipped| skipped.what.as_str()).collect();
    for part in [
        "capture kernel",
        "kdump service",
        "panic_on_oops",
        "core_collector",
        "running kernel",
        "installed kernels",
        "modules on the disk",
    ] {
        assert!(what.contains(&format!("host bundle: {part}").as_str()), "{part}: {what:?}");
    }
}

#[test]
fn a_bundle_of_another_host_is_not_compared() {
    let mut report = Report::empty("kdt", "0", "vmcore");
    report.kernel.nodename = Some("guest".into());
    join(&mut report, &HostBundle::of(&[HOST, ("sys/kernel/kexec_crash_loaded", "0")]));
    assert_eq!(only(&report, "KD-HOST-OTHER")[0], "proc/sys/kernel/hostname:1: db1");
}

#[test]
fn a_host_without_a_capture_kernel_or_service_is_told_with_file_and_line() {
    let none = joined(&[
        ("sys/kernel/kexec_crash_loaded", "0\n"),
        ("sys/kernel/kexec_crash_size", "0\n"),
        ("proc/cmdline", "root=/dev/vda1\n"),
    ]);
    let evidence = only(&none, "KD-HOST-KDUMP-NOT-READY");
    assert_eq!(evidence[0], "sys/kernel/kexec_crash_loaded:1: 0");
    assert_eq!(evidence[2], "proc/cmdline:1: there is no crashkernel= in it");
    let stopped =
        joined(&[("sos_commands/kdump/kdumpctl_status", "kdump: x\nkdump: Kdump is not operational\n")]);
    assert_eq!(
        only(&stopped, "KD-HOST-KDUMP-NOT-READY"),
        ["sos_commands/kdump/kdumpctl_status:2: kdump: Kdump is not operational"]
    );
    let ready = joined(&[
        ("sys/kernel/kexec_crash_loaded", "1\n"),
        ("sos_commands/kdump/kdumpctl_status", "kdump: Kdump is operational\n"),
    ]);
    assert_eq!(codes(&ready), [""; 0]);
}

#[test]
fn settings_that_cost_the_next_dump_are_told() {
    let oops = joined(&[("sos_commands/kernel/sysctl_-a", "kernel.panic = 0\nkernel.panic_on_oops = 0\n")]);
    assert_eq!(
        only(&oops, "KD-HOST-OOPS-GOES-ON"),
        ["sos_commands/kernel/sysctl_-a:2: kernel.panic_on_oops = 0"]
    );
    for (line, filtered) in [
        ("core_collector makedumpfile -l --message-level 7 -d 31", true),
        ("core_collector makedumpfile -l -d31", true),
        ("core_collector makedumpfile -l -d 0", false),
        ("core_collector cp", false),
        ("#core_collector cp", true),
    ] {
        let report = joined(&[("etc/kdump.conf", line)]);
        assert_eq!(codes(&report).contains(&"KD-HOST-DUMP-UNFILTERED"), !filtered, "{line}");
    }
}

#[test]
fn the_dump_s_kernel_is_looked_for_among_the_installed_ones() {
    let own = "ii  linux-image-6.1.0-9-amd64 6.1.27-1 amd64 Linux\n";
    let newer = "ii  linux-image-6.1.0-10-amd64 6.1.38-1 amd64 Linux\n";
    let other = "ii  linux-image-6.1.0-11-rt-amd64 6.1.40-1 amd64 Linux\nrc  linux-image-6.1.0-12-amd64 6.1.50-1 amd64 Linux\n";
    let with = |list: &str| joined(&[("sos_commands/dpkg/dpkg_-l", list)]);
    assert_eq!(codes(&with(&format!("{own}{other}"))), [""; 0]);
    let evidence = only(&with(&format!("{newer}{own}")), "KD-HOST-KERNEL-NOT-NEWEST");
    assert!(evidence[1].starts_with("sos_commands/dpkg/dpkg_-l:1: ii"), "{evidence:?}");
    only(&with(newer), "KD-HOST-KERNEL-GONE");
    let rpm = joined(&[(
        "sos_commands/rpm/rpm_--nodigest_-qa",
        "kernel-core-5.14.0-503.el9.x86_64   Mon\nkernel-headers-6-1\n",
    )]);
    only(&rpm, "KD-HOST-KERNEL-GONE");
}

/// The kernel of a package.
fn package(name: &str) -> Option<Installed<'_>> {
    let (release, flavour) = rpm_kernel(name)?;
    let line = Line { file: "", number: 1, text: name };
    Some(Installed { release: release.to_owned(), version: release.to_owned(), flavour, line })
}

#[test]
fn flavours_of_red_hat_and_suse_are_known_by_their_packages() {
    let el9 = "5.14.0-503.el9.x86_64";
    let is_of = |name: &str, own: &str| package(name).is_some_and(|one| one.is_of(own));
    for name in ["kernel", "kernel-core", "kernel-debug-core", "kernel-rt-core", "kernel-64k-core"] {
        let plain = !name.contains("debug") && !name.contains("rt") && !name.contains("64k");
        let name = format!("{name}-{el9}");
        assert!(!plain || is_of(&name, el9), "{name}");
        for flavour in ["debug", "rt", "64k"] {
            assert_eq!(
                is_of(&name, &format!("{el9}+{flavour}")),
                name.contains(flavour),
                "{name} +{flavour}"
            );
        }
    }
    assert!(is_of("kernel-rt-core-4.18.0-553.rt7.342.el8.x86_64", "4.18.0-553.rt7.342.el8.x86_64"));
    assert!(is_of("kernel-default-5.14.21-150400.24.11.1.x86_64", "5.14.21-150400.24.11-default"));
    for other in ["kernel-headers", "kernel-modules-core", "kernel-tools", "kernel-rt-devel", "kernel-doc"] {
        assert!(package(&format!("{other}-{el9}")).is_none(), "{other}");
    }
}

#[test]
fn another_running_kernel_is_told() {
    only(&joined(&[("proc/sys/kernel/osrelease", "6.1.0-10-amd64\n")]), "KD-HOST-KERNEL-CHANGED");
    assert_eq!(codes(&joined(&[("proc/sys/kernel/osrelease", "6.1.0-9-amd64\n")])), [""; 0]);
}

#[test]
fn a_module_that_was_replaced_is_told_and_one_of_another_kernel_is_not_compared() {
    let of = |release: &str, version: &str| {
        joined(&[(
            "sos_commands/kernel/modinfo_ALL_MODULES",
            &format!(
                "filename:       /lib/modules/{release}/extra/my-mod.ko.xz\nversion:        {version}\n"
            ),
        )])
    };
    let evidence = only(&of("6.1.0-9-amd64", "1.1"), "KD-HOST-MODULE-DIFFERS");
    assert_eq!(
        evidence[0],
        "my_mod was loaded as 1.0; sos_commands/kernel/modinfo_ALL_MODULES:2: version:        1.1"
    );
    assert_eq!(codes(&of("6.1.0-9-amd64", "1.0")), [""; 0]);
    assert_eq!(codes(&of("6.1.0-10-amd64", "1.1")), [""; 0]);
}

#[test]
fn versions_are_compared_as_numbers() {
    for (old, new) in [
        ("6.1.9-1", "6.1.10-1"),
        ("6.1.0-9-amd64", "6.1.0-10-amd64"),
        ("6.1~rc1", "6.1"),
        ("5.14.0-70.el9", "5.14.0-503.el9"),
        ("6.1", "6.1.1"),
    ] {
        assert_eq!((newer(old, new), newer(new, old)), (Ordering::Less, Ordering::Greater), "{old} {new}");
    }
    assert_eq!(newer("6.1-1", "6.1-1"), Ordering::Equal);
}

#[test]
fn each_code_is_on_the_page_of_findings() {
    let page = include_str!("../../../docs/findings.md");
    let codes: Vec<&str> = include_str!("mod.rs").split('"').filter(|word| word.starts_with("KD-")).collect();
    assert!(codes.len() >= 8, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("### {code}\n")), "docs/findings.md has no {code}");
    }
}

#[test]
fn an_archive_and_an_unpacked_folder_tell_the_same_and_another_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("sosreport-db1");
    std::fs::create_dir_all(root.join("sos_commands")).unwrap();
    std::fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
    std::fs::write(root.join("proc/sys/kernel/hostname"), "db1\n").unwrap();
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    archive.append_dir_all("sosreport-db1", &root).unwrap();
    let path = dir.path().join("b.tar.gz");
    std::fs::write(&path, archive.into_inner().unwrap().finish().unwrap()).unwrap();
    for place in [path.as_path(), root.as_path(), dir.path()] {
        assert_eq!(hostname(&HostBundle::open(place).unwrap()).unwrap().0, "db1", "{}", place.display());
    }
    let other = dir.path().join("other");
    std::fs::write(&other, "no archive").unwrap();
    assert_eq!(HostBundle::open(&other).unwrap_err().exit, Exit::Input);
}

use crate::exit::Exit;
