//! The disks, and what their drivers have in flight.

use super::parts::{Clock, Context, Part};
use crate::kernel::{block, time};
use crate::report::{Address, BlockDetail, BlockQueue, BlockRequest, Confidence, Finding, Severity};

/// Disks that are shown, and requests of each.
const DISKS: usize = 65_536;
const REQUESTS: usize = 1024;
/// A request that is older than this (the usual time that SCSI and `NVMe` give it) is stuck.
pub(super) const STUCK_S: f64 = 30.0;
/// Requests that a finding names.
const NAMED: usize = 8;

/// What time it is on the clocks that requests are stamped with.
pub(super) struct Now {
    monotonic_s: Option<f64>,
    jiffies: Option<u64>,
    hz: Option<u64>,
}

impl Now {
    pub(super) fn new(time: Option<&time::Time>) -> Self {
        Self {
            monotonic_s: time.map(|time| time.uptime.saturating_sub(time.suspended).as_secs_f64()),
            jiffies: time.and_then(|time| time.jiffies),
            hz: time.and_then(|time| time.hz),
        }
    }
}

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let walk = match block::read(context.memory, context.description, DISKS) {
        Ok(walk) => walk,
        Err(why) => {
            let mut part = Part::default();
            part.skip("block_io", why);
            return part;
        }
    };
    let mut gaps = Vec::new();
    let info = context.kernel.vmcoreinfo();
    let time = time::read(context.memory, info, context.description, &mut gaps);
    let now = Now::new(time.as_ref().ok());
    let (mut queues, mut findings, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    if !walk.end.is_complete() {
        skipped.push(("block_io".to_owned(), format!("the list of disks is not whole: {}", walk.end)));
    }
    if let Err(why) = time {
        skipped.push(("block_io.oldest_s".to_owned(), format!("the time is not known: {why}")));
    }
    for device in walk.items {
        if clock.is_spent() {
            skipped.push((
                "block_io".into(),
                "stopped at budget: its time was up, and what is shown is not all".into(),
            ));
            break;
        }
        for why in &device.gaps {
            skipped.push((format!("block_io: {}", device.name), why.clone()));
        }
        let queue = section(&device, &now, &mut skipped);
        findings.extend(stuck(&queue));
        queues.push(queue);
    }
    let mut part = Part::new(move |report| report.block_io = queues);
    part.findings = findings;
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

fn section(device: &block::Device, now: &Now, skipped: &mut Vec<(String, String)>) -> BlockQueue {
    let mut requests: Vec<BlockRequest> = device
        .requests
        .iter()
        .flatten()
        .map(|request| BlockRequest {
            kaddr: Some(Address(request.kaddr.0)),
            op: request.op.clone(),
            sector: request.sector,
            bytes: Some(u64::from(request.bytes)),
            age_s: age(request, now),
            state: Some(if request.complete { "complete" } else { "in flight" }.into()),
            hardware_queue: request.hardware_queue,
            tag: i64::from(request.tag),
        })
        .collect();
    requests.sort_by(|a, b| b.age_s.unwrap_or(-1.0).total_cmp(&a.age_s.unwrap_or(-1.0)));
    let in_flight = device.requests.as_ref().and_then(|all| u64::try_from(all.len()).ok());
    if requests.len() > REQUESTS {
        skipped.push((
            format!("block_io: {}", device.name),
            format!("the oldest {REQUESTS} requests of {} are shown", requests.len()),
        ));
        requests.truncate(REQUESTS);
    }
    BlockQueue {
        device: device.name.clone(),
        in_flight,
        oldest_s: requests.first().and_then(|request| request.age_s),
        more: BlockDetail {
            kaddr: Some(Address(device.kaddr.0)),
            queue: Some(Address(device.queue.0)),
            number: Some(format!("{}:{}", device.major, device.minor)),
            size_bytes: device.size_bytes,
            frozen: device.freeze_depth.map(|depth| depth > 0),
            quiesced: device.quiesce_depth.map(|depth| depth > 0),
            requests,
        },
    }
}

/// By the clock where the kernel stamps requests, else by the deadline.
pub(super) fn age(request: &block::Request, now: &Now) -> Option<f64> {
    let stamp = if request.io_start_ns != 0 { request.io_start_ns } else { request.start_ns };
    if let Some(at) = now.monotonic_s.filter(|_| stamp != 0) {
        let stamp = std::time::Duration::from_nanos(stamp).as_secs_f64();
        // The clock can be a tick behind the stamp, and no more.
        return (stamp <= at + 10.0).then(|| (at - stamp).max(0.0));
    }
    let jiffies = now.jiffies?.checked_sub(request.started_jiffies?)?;
    let millis = jiffies.checked_mul(1000)?.checked_div(now.hz?)?;
    Some(std::time::Duration::from_millis(millis).as_secs_f64())
}

fn stuck(queue: &BlockQueue) -> Option<Finding> {
    let old = |request: &&BlockRequest| request.age_s.is_some_and(|age| age >= STUCK_S);
    let stuck: Vec<&BlockRequest> = queue.more.requests.iter().filter(old).collect();
    let oldest = stuck.first()?.age_s?;
    let words = if stuck.len() == 1 { "1 request".to_owned() } else { format!("{} requests", stuck.len()) };
    let mut finding = Finding::new(
        "KD-IO-STUCK",
        Severity::Error,
        Confidence::Likely,
        format!("{words} to {} did not come back; the oldest is {oldest:.0} s old.", queue.device),
    );
    for request in stuck.iter().take(NAMED) {
        let op = request.op.as_deref().unwrap_or("a request");
        let kaddr = request.kaddr.map(|at| format!("{:#x}", at.0)).unwrap_or_default();
        let place = request.sector.map_or_else(|| "no sector".into(), |sector| format!("sector {sector}"));
        finding = finding.because(format!(
            "{op} at {kaddr}: {place}, {} bytes, {:.1} s",
            request.bytes.unwrap_or_default(),
            request.age_s.unwrap_or_default()
        ));
    }
    if queue.more.quiesced == Some(true) {
        finding = finding.because("the queue is quiesced: the driver is given nothing");
    }
    if let Some(at) = stuck.first().and_then(|request| request.kaddr) {
        finding = finding.by_hand_crash("dev -d").by_hand_crash(format!("struct request {at}"));
        finding = finding.by_hand_drgn(format!("Object(prog, \"struct request\", address={at})"));
    }
    Some(finding.next("Look for the device's errors in the log, and at the storage behind it: path, controller, hypervisor."))
}
