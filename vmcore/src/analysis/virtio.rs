//! The virtio devices of a guest: whether a disk's old requests are with the host, or answered and not taken.

use std::collections::HashMap;

use super::block_io::{Now, STUCK_S, age};
use super::parts::{Clock, Context, Part};
use crate::addr::KVirtAddr;
use crate::kernel::{block, time, virtio};
use crate::report::{Address, Confidence, Finding, Severity, VirtioDevice, VirtioQueue};

/// Queues that a finding names.
const NAMED: usize = 8;
/// Why an answer in the ring of a crashed guest proves nothing.
const AFTER_THE_CRASH: &str =
    "a host goes on answering after the crash, so that its answers don't tell whether it had answered before";

/// A disk of `virtio_blk`.
struct Disk {
    name: String,
    /// For each old request its hardware queue and its age in seconds, the oldest first.
    old: Vec<(u32, f64)>,
}

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let (walk, missing) = match virtio::read(context.memory, context.description, context.limits) {
        Ok(found) => found,
        Err(why) => {
            let mut part = Part::default();
            part.skip("virtio", why);
            return part;
        }
    };
    let mut skipped: Vec<(String, String)> =
        missing.into_iter().map(|why| ("virtio".to_owned(), why)).collect();
    if !walk.end.is_complete() {
        skipped.push(("virtio".into(), format!("not all devices are shown: {}", walk.end)));
    }
    if !walk.items.is_empty() {
        let why = "they are registers of the host, which no dump of a guest has";
        skipped.push(("virtio: the devices' status bits".into(), why.into()));
    }
    let disks = match disks(context, &walk.items) {
        Ok(disks) => disks,
        Err(why) => {
            skipped.push(("virtio: which disk is whose".into(), why));
            HashMap::new()
        }
    };
    let crashed = context.kernel.facts().crash_time.is_some();
    let (mut devices, mut findings) = (Vec::new(), Vec::new());
    for device in &walk.items {
        let disk = disks.get(&device.kaddr);
        let shown = section(device, disk);
        let name = named(&shown);
        skipped.extend(device.gaps.iter().map(|why| (format!("virtio: {name}"), why.clone())));
        for queue in shown.queues.iter().filter(|queue| queue.packed) {
            let what = format!("virtio: {name}, queue {}", queue.index);
            skipped.push((
                what,
                "its ring is packed, and what the host has answered in it is not looked at".into(),
            ));
        }
        if let Some(disk) = disk {
            match stuck(&shown, disk, crashed) {
                Some(Ok(finding)) => findings.push(finding),
                Some(Err(why)) => skipped.push((format!("virtio: {name}"), why)),
                None => {}
            }
        }
        findings.extend(broken(&shown));
        devices.push(shown);
    }
    let mut part = Part::new(move |report| report.virtio = devices);
    part.findings = findings;
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

/// The disks by their `virtio_device`.
fn disks(
    context: &Context<'_>,
    devices: &[virtio::VirtioDevice],
) -> Result<HashMap<KVirtAddr, Disk>, String> {
    if !devices.iter().any(|device| device.driver.as_deref() == Some("virtio_blk")) {
        return Ok(HashMap::new());
    }
    let (memory, description) = (context.memory, context.description);
    let (types, gaps) = description.types_of(memory, &["virtio_blk"], context.limits);
    let time = time::read(memory, context.kernel.vmcoreinfo(), description, &mut Vec::new());
    let now = Now::new(time.as_ref().ok());
    let mut found = HashMap::new();
    let walk = block::read(memory, description, context.limits.walk_items)?;
    for disk in walk.items.into_iter().filter(|disk| disk.name.starts_with("vd")) {
        let device = virtio::of_disk(memory, &types, disk.private)
            .map_err(|why| gaps.first().cloned().unwrap_or(why))?;
        let requests = disk.requests.iter().flatten().filter(|request| !request.complete);
        let aged = requests.filter_map(|request| Some((request.hardware_queue, age(request, &now)?)));
        let mut old: Vec<(u32, f64)> = aged.filter(|(_, age)| *age >= STUCK_S).collect();
        old.sort_by(|a, b| b.1.total_cmp(&a.1));
        found.insert(device, Disk { name: disk.name, old });
    }
    Ok(found)
}

fn section(device: &virtio::VirtioDevice, disk: Option<&Disk>) -> VirtioDevice {
    VirtioDevice {
        name: device.name.clone(),
        driver: device.driver.clone(),
        kind: device.kind.map(str::to_owned),
        number: device.number,
        address: device.parent.clone(),
        disk: disk.map(|disk| disk.name.clone()),
        failed: device.failed,
        queues: device.queues.iter().map(queue).collect(),
        kaddr: Some(Address(device.kaddr.0)),
    }
}

fn queue(queue: &virtio::Queue) -> VirtioQueue {
    VirtioQueue {
        name: queue.name.clone(),
        index: queue.index,
        size: queue.size,
        free: queue.free,
        in_use: queue.size.saturating_sub(queue.free),
        with_host: queue.with_host,
        unseen: queue.unseen,
        last_used_idx: queue.last_used,
        packed: queue.packed,
        broken: queue.broken,
        kaddr: Some(Address(queue.kaddr.0)),
    }
}

/// `virtio0 (vda)`.
fn named(device: &VirtioDevice) -> String {
    let name = device.name.as_deref().unwrap_or("a virtio device");
    device.disk.as_ref().map_or_else(|| name.to_owned(), |disk| format!("{name} ({disk})"))
}

/// What a queue of a disk is at, for a person.
fn told(queue: &VirtioQueue) -> String {
    let name = queue.name.as_deref().unwrap_or("without a name");
    format!(
        "queue {} ({name}): {} of {} descriptors in use, {} with the host, {} answered and not taken",
        queue.index,
        queue.in_use,
        queue.size,
        queue.with_host.map_or_else(|| "?".into(), |count| count.to_string()),
        queue.unseen.map_or_else(|| "?".into(), |count| count.to_string()),
    )
}

/// A finding on the disk's old requests, or why there can be none; `None` where no request is old.
fn stuck(device: &VirtioDevice, disk: &Disk, crashed: bool) -> Option<Result<Finding, String>> {
    let (_, oldest) = *disk.old.first()?;
    let concerned: Vec<&VirtioQueue> = device
        .queues
        .iter()
        .filter(|queue| disk.old.iter().any(|(number, _)| *number == queue.index))
        .collect();
    if concerned.is_empty() || concerned.iter().any(|queue| queue.with_host.is_none()) {
        return Some(Err("whether its old requests are with the host can't be told".into()));
    }
    let unseen = concerned.iter().any(|queue| queue.unseen.is_some_and(|count| count > 0));
    if unseen && crashed {
        return Some(Err(AFTER_THE_CRASH.into()));
    }
    let many = disk.old.len();
    let requests = if many == 1 { "1 request".to_owned() } else { format!("{many} requests") };
    let wait = if many == 1 { "waits" } else { "wait" };
    let mut finding = if unseen {
        // QEMU finishes all block I/O when it stops a guest (seen with 7.2's dump-guest-memory and a throttled disk), so that the
        // ring alone does not tell when the answer came.
        Finding::new(
            "KD-VIRTIO-UNSEEN-ANSWER",
            Severity::Warning,
            Confidence::Hint,
            format!(
                "{requests} to {} {wait} for up to {oldest:.0} s; the host's answer is there, and the guest has not taken it.",
                named(device)
            ),
        )
        .because("either the host answered only when it stopped the guest for the dump, or an interrupt is lost or late")
    } else {
        Finding::new(
            "KD-VIRTIO-HOST-SILENT",
            Severity::Error,
            Confidence::Likely,
            format!(
                "{requests} to {} {wait} for the host, up to {oldest:.0} s: the cause is outside this guest.",
                named(device)
            ),
        )
    };
    finding = finding.because(format!("{requests} older than {STUCK_S:.0} s, the oldest {oldest:.1} s"));
    for queue in concerned.iter().take(NAMED) {
        finding = finding.because(told(queue));
    }
    if let Some(at) = concerned.first().and_then(|queue| queue.kaddr) {
        finding = finding
            .by_hand_crash("mod -s virtio_ring")
            .by_hand_crash(format!("struct vring_virtqueue {at}"))
            .by_hand_drgn(format!("Object(prog, \"struct vring_virtqueue\", address={at})"));
    }
    let disk = "Look at this disk on the hypervisor: its image or volume, a full or throttled storage, a backup, a migration or a \
                snapshot that holds it.";
    finding = finding.next(disk);
    if unseen {
        finding = finding.next(
            "Look at the interrupts of that queue (`kdt triage --only irqs`): their counts, their CPUs, and whether that CPU had its \
             interrupts off.",
        );
    }
    Some(Ok(finding))
}

fn broken(device: &VirtioDevice) -> Option<Finding> {
    let broken: Vec<&VirtioQueue> = device.queues.iter().filter(|queue| queue.broken == Some(true)).collect();
    if broken.is_empty() {
        return None;
    }
    let mut finding = Finding::new(
        "KD-VIRTIO-BROKEN",
        Severity::Warning,
        Confidence::Hint,
        format!("The driver of {} has given up its queues.", named(device)),
    );
    for queue in broken.iter().take(NAMED) {
        finding = finding.because(format!("{}; it is marked broken", told(queue)));
    }
    Some(finding.next("Look in the log for what the driver says of it: a device that was taken away, or a host that broke the protocol."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(with_host: u32, unseen: u32) -> VirtioDevice {
        let queue = VirtioQueue {
            index: 1,
            size: 128,
            with_host: Some(with_host),
            unseen: Some(unseen),
            ..VirtioQueue::default()
        };
        VirtioDevice {
            name: Some("virtio2".into()),
            disk: Some("vda".into()),
            queues: vec![queue],
            ..VirtioDevice::default()
        }
    }

    fn disk(old: &[(u32, f64)]) -> Disk {
        Disk { name: "vda".into(), old: old.to_vec() }
    }

    #[test]
    fn who_has_to_act_decides_the_finding() {
        let code = |unseen, crashed| stuck(&device(3, unseen), &disk(&[(1, 60.0)]), crashed).unwrap();
        assert_eq!(code(0, false).unwrap().code, "KD-VIRTIO-HOST-SILENT");
        assert_eq!(code(2, false).unwrap().code, "KD-VIRTIO-UNSEEN-ANSWER");
        assert_eq!(code(0, true).unwrap().code, "KD-VIRTIO-HOST-SILENT");
        assert_eq!(code(2, true), Err(AFTER_THE_CRASH.to_owned()));
    }

    #[test]
    fn answers_that_are_on_their_way_are_no_finding() {
        assert_eq!(stuck(&device(1, 5), &disk(&[]), false), None);
    }

    #[test]
    fn one_request_is_told_as_one() {
        let title = |old: &[(u32, f64)]| stuck(&device(1, 0), &disk(old), false).unwrap().unwrap().title;
        let says =
            "1 request to virtio2 (vda) waits for the host, up to 61 s: the cause is outside this guest.";
        assert_eq!(title(&[(1, 61.0)]), says);
    }
}
