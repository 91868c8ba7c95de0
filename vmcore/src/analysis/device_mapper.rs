//! Device-mapper: devices that hold I/O back, and multipath without a path.

use super::parts::{Clock, Context, Part};
use crate::kernel::device_mapper::{self, Suspension, Target};
use crate::kernel::{block_device, multipath};
use crate::report::{
    Address, Confidence, DmTarget, Finding, HeldIo, MappedDevice, Multipath, MultipathPath, Severity,
    UnderlyingDevice,
};

/// Held I/O that is shown of one device, and that a finding names.
const SHOWN: usize = 64;
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let read = device_mapper::read(context.memory, context.description, context.per_cpu, context.limits);
    let (walk, missing) = match read {
        Ok(found) => found,
        Err(why) => {
            let mut part = Part::default();
            part.skip("device_mapper", why);
            return part;
        }
    };
    let mut skipped: Vec<(String, String)> =
        missing.into_iter().map(|why| ("device_mapper".to_owned(), why)).collect();
    if !walk.end.is_complete() {
        skipped.push(("device_mapper".into(), format!("not all devices are shown: {}", walk.end)));
    }
    let (mut devices, mut findings) = (Vec::new(), Vec::new());
    for device in &walk.items {
        skipped.extend(
            device.gaps.iter().map(|why| (format!("device_mapper: {}", device.disk.name), why.clone())),
        );
        let shown = section(device);
        findings.extend(suspended(&shown));
        findings.extend(shown.targets.iter().filter_map(|target| paths(&shown, target.multipath.as_ref()?)));
        devices.push(shown);
    }
    let mut part = Part::new(move |report| report.device_mapper = devices);
    part.findings = findings;
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

fn section(device: &device_mapper::MappedDevice) -> MappedDevice {
    let held = device.deferred.as_ref();
    let shown = held.map(|walk| walk.items.iter().take(SHOWN)).into_iter().flatten();
    MappedDevice {
        device: device.disk.name.clone(),
        name: device.name.clone(),
        uuid: device.uuid.clone(),
        number: Some(format!("{}:{}", device.disk.major, device.disk.minor)),
        state: match device.suspension {
            Suspension::Active => "active",
            Suspension::Suspending => "suspending",
            Suspension::Suspended => "suspended",
        }
        .into(),
        kind: device.kind.clone(),
        in_flight: device.in_flight,
        deferred: held.and_then(|walk| u64::try_from(walk.items.len()).ok()),
        deferred_io: shown
            .map(|bio| HeldIo {
                kaddr: Some(Address(bio.kaddr.0)),
                op: bio.op.clone(),
                sector: bio.sector,
                bytes: u64::from(bio.bytes),
            })
            .collect(),
        requeued: device.requeued,
        open_count: device.opened,
        targets: device.targets.iter().map(target).collect(),
        devices: device.devices.iter().map(below).collect(),
        kaddr: Some(Address(device.kaddr.0)),
    }
}

pub(super) fn below(device: &block_device::BlockDevice) -> UnderlyingDevice {
    UnderlyingDevice { name: device.name.clone(), number: device.number.clone() }
}

fn target(target: &Target) -> DmTarget {
    DmTarget {
        kind: target.kind.clone(),
        start: target.start,
        sectors: target.sectors,
        device: target.linear.as_ref().map(|(device, _)| below(device)),
        device_sector: target.linear.as_ref().map(|(_, sector)| *sector),
        multipath: target.multipath.as_ref().map(|found| Multipath {
            kaddr: Some(Address(found.kaddr.0)),
            queue_if_no_path: found.queue_if_no_path,
            usable_paths: found.usable,
            queued: found.queued,
            paths: found.paths.iter().map(path).collect(),
        }),
    }
}

fn path(path: &multipath::Path) -> MultipathPath {
    MultipathPath {
        device: below(&path.device),
        group: path.group,
        state: if path.active { "active" } else { "failed" }.into(),
        bypassed: path.bypassed,
        current: path.current,
        failures: path.failures,
    }
}

/// `dm-0 (lab-linear)`.
fn named(device: &MappedDevice) -> String {
    device.name.as_ref().map_or_else(|| device.device.clone(), |name| format!("{} ({name})", device.device))
}

/// I/O by its number: `1 request`, `3 requests`.
fn counted(number: u64) -> String {
    if number == 1 { "1 request".into() } else { format!("{number} requests") }
}

fn by_hand(finding: Finding, device: &MappedDevice) -> Finding {
    let Some(at) = device.kaddr else { return finding };
    finding
        .by_hand_crash("mod -s dm_mod")
        .by_hand_crash(format!("struct mapped_device.flags,deferred {at}"))
        .by_hand_drgn(format!("Object(prog, \"struct mapped_device\", address={at})"))
}

fn suspended(device: &MappedDevice) -> Option<Finding> {
    if device.state == "active" {
        return None;
    }
    let held = device.deferred.unwrap_or_default();
    let what = if device.state == "suspended" { "is suspended" } else { "is being suspended" };
    let (severity, title) = if held == 0 {
        (Severity::Warning, format!("{} {what}, so that I/O to it waits; none does yet.", named(device)))
    } else {
        let waits = if held == 1 { "waits" } else { "wait" };
        (Severity::Error, format!("{} {what}, and {} to it {waits}.", named(device), counted(held)))
    };
    let mut finding = Finding::new("KD-DM-SUSPENDED", severity, Confidence::Certain, title);
    finding = finding.because(format!("its mapped_device says that it is {}", device.state));
    for io in device.deferred_io.iter().take(NAMED) {
        finding = finding.because(held_io(io));
    }
    if let Some(sent) = device.in_flight.filter(|sent| *sent > 0) {
        finding = finding.because(format!("{} more are with the devices below", counted(sent)));
    }
    let finding = finding
        .next("Find who suspended it and did not resume it: lvm, multipathd, a snapshot or backup job (`dmsetup info`).")
        .next("On a machine that still runs, `dmsetup resume NAME` lets the I/O go on.");
    Some(by_hand(finding, device))
}

fn held_io(io: &HeldIo) -> String {
    let op = io.op.as_deref().unwrap_or("I/O");
    let kaddr = io.kaddr.map(|at| format!(" at {at}")).unwrap_or_default();
    format!("held back: {op}{kaddr}, sector {}, {} bytes", io.sector, io.bytes)
}

fn paths(device: &MappedDevice, multipath: &Multipath) -> Option<Finding> {
    let failed = multipath.paths.iter().filter(|path| path.state == "failed").count();
    if failed == 0 && multipath.usable_paths > 0 {
        return None;
    }
    let all = multipath.paths.len();
    let queued = multipath.queued.unwrap_or_default().saturating_add(device.requeued.unwrap_or_default());
    let name = named(device);
    let (code, severity, title) = if multipath.usable_paths > 0 {
        let title = format!("{failed} of {all} paths of {name} have failed.");
        ("KD-MULTIPATH-PATH-FAILED", Severity::Warning, title)
    } else if multipath.queue_if_no_path {
        let title = if queued == 0 {
            format!("{name} has no usable path, and I/O to it waits for one without end.")
        } else {
            let waits = if queued == 1 { "waits" } else { "wait" };
            format!("{name} has no usable path, and {} to it {waits} for one without end.", counted(queued))
        };
        ("KD-MULTIPATH-NO-PATH", Severity::Error, title)
    } else {
        let title = format!("{name} has no usable path, and I/O to it fails.");
        ("KD-MULTIPATH-NO-PATH", Severity::Error, title)
    };
    let mut finding = Finding::new(code, severity, Confidence::Certain, title);
    for path in multipath.paths.iter().take(NAMED) {
        finding = finding.because(format!(
            "path {} ({}) of group {}: {}, failures: {}",
            path.device.name, path.device.number, path.group, path.state, path.failures
        ));
    }
    if multipath.usable_paths == 0 {
        let set = if multipath.queue_if_no_path { "is set" } else { "is not set" };
        finding = finding.because(format!("queue_if_no_path {set}"));
    }
    let finding = finding
        .next("Look in the log for when and why the paths failed, and at the switch, the controller and the array behind them.")
        .next("On a machine that still runs, `dmsetup message NAME 0 fail_if_no_path` lets the waiting I/O fail.");
    let finding = by_hand(finding, device);
    let Some(at) = multipath.kaddr else { return Some(finding) };
    Some(finding.by_hand_crash("mod -s dm_multipath").by_hand_crash(format!("struct multipath {at}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(state: &str, deferred: u64) -> MappedDevice {
        MappedDevice {
            device: "dm-3".into(),
            name: Some("data".into()),
            state: state.into(),
            deferred: Some(deferred),
            ..MappedDevice::default()
        }
    }

    #[test]
    fn a_suspended_device_is_an_error_only_where_io_waits() {
        assert_eq!(suspended(&device("active", 0)), None);
        assert_eq!(suspended(&device("suspended", 0)).unwrap().severity, Severity::Warning);
        let finding = suspended(&device("suspended", 1)).unwrap();
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(finding.title, "dm-3 (data) is suspended, and 1 request to it waits.");
    }

    #[test]
    fn a_multipath_is_judged_by_the_paths_that_are_left() {
        let path = |state: &str| MultipathPath { state: state.into(), ..MultipathPath::default() };
        let with = |usable_paths, queue_if_no_path, states: &[&str]| Multipath {
            usable_paths,
            queue_if_no_path,
            paths: states.iter().map(|state| path(state)).collect(),
            ..Multipath::default()
        };
        let code = |multipath: &Multipath| paths(&device("active", 0), multipath).map(|finding| finding.code);
        assert_eq!(code(&with(2, true, &["active", "active"])), None);
        assert_eq!(code(&with(1, true, &["active", "failed"])).as_deref(), Some("KD-MULTIPATH-PATH-FAILED"));
        assert_eq!(code(&with(0, true, &["failed", "failed"])).as_deref(), Some("KD-MULTIPATH-NO-PATH"));
        let fails = paths(&device("active", 0), &with(0, false, &["failed"])).unwrap();
        assert_eq!(fails.title, "dm-3 (data) has no usable path, and I/O to it fails.");
    }
}
