//! Device-mapper, md, virtio, unix sockets and the packets of each CPU, each as a table.

use std::fmt::Write as _;

use vmcore::report::{DmTarget, MappedDevice, Report};

use super::super::escape::escape;
use super::Page;
use super::io::{known, number};

impl Page {
    pub(super) fn mapped_table(&self, report: &Report) -> String {
        if report.device_mapper.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Device-mapper");
        for device in &report.device_mapper {
            let line = format!(
                "{:<8} {} ({}) {}, {}{}",
                escape(&device.device),
                known(device.name.as_deref()),
                known(device.number.as_deref()),
                escape(&device.state),
                known(device.kind.as_deref()),
                held(device),
            );
            self.wrapped(&mut out, "  ", &line);
            for io in &device.deferred_io {
                let op = known(io.op.as_deref());
                let _ = writeln!(out, "      held back: {op}, sector {}, {} bytes", io.sector, io.bytes);
            }
            for target in &device.targets {
                self.wrapped(&mut out, "      ", &target_line(target));
                for path in target.multipath.iter().flat_map(|multipath| &multipath.paths) {
                    let current = if path.current { ", current" } else { "" };
                    let bypassed = if path.bypassed { ", its group is left out" } else { "" };
                    let _ = writeln!(
                        out,
                        "          path {} ({}), group {}: {}, failures: {}{current}{bypassed}",
                        escape(&path.device.name),
                        escape(&path.device.number),
                        path.group,
                        escape(&path.state),
                        path.failures,
                    );
                }
            }
            let below: Vec<String> =
                device.devices.iter().map(|below| format!("{} ({})", below.name, below.number)).collect();
            self.wrapped(&mut out, "      ", &format!("stands on {}", escape(&below.join(", "))));
        }
        out
    }

    pub(super) fn array_table(&self, report: &Report) -> String {
        if report.md.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Software RAID");
        for array in &report.md {
            let recovery = if array.recovery.is_empty() {
                String::new()
            } else {
                format!(", recovery {}", escape(&array.recovery.join(" ")))
            };
            let progress = array.recovered_sectors.zip(array.sectors_to_recover);
            let progress =
                progress.map(|(done, all)| format!(" ({done} of {all} sectors)")).unwrap_or_default();
            let suspended = if array.suspended.unwrap_or(0) > 0 { ", suspended" } else { "" };
            let line = format!(
                "{:<8} {}, {} members, {} missing, {}{suspended}{recovery}{progress}",
                escape(&array.device),
                known(array.personality.as_deref()),
                array.raid_disks,
                array.degraded,
                known(array.access.as_deref()),
            );
            self.wrapped(&mut out, "  ", &line);
            for member in &array.members {
                let place = member.slot.map_or_else(|| "no place".into(), |slot| format!("place {slot}"));
                let state = if member.state.is_empty() { "spare".into() } else { member.state.join(" ") };
                let line = format!(
                    "{} ({}): {place}, {}, {} pending, {} read errors",
                    escape(&member.device.name),
                    escape(&member.device.number),
                    escape(&state),
                    number(member.pending),
                    number(member.read_errors),
                );
                self.wrapped(&mut out, "      ", &line);
            }
        }
        out
    }

    pub(super) fn virtio_table(&self, report: &Report) -> String {
        if report.virtio.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Virtio devices");
        for device in &report.virtio {
            let disk = device.disk.as_ref().map(|disk| format!(", {}", escape(disk))).unwrap_or_default();
            let failed = if device.failed == Some(true) { ", failed" } else { "" };
            let kind = device.kind.clone().unwrap_or_else(|| format!("device {}", device.number));
            let line = format!(
                "{} {}, driver {}, at {}{disk}{failed}",
                known(device.name.as_deref()),
                escape(&kind),
                known(device.driver.as_deref()),
                known(device.address.as_deref()),
            );
            self.wrapped(&mut out, "  ", &line);
            for queue in &device.queues {
                let broken = if queue.broken == Some(true) { ", broken" } else { "" };
                let line = format!(
                    "queue {} {}: {} of {} descriptors in use, {} with the host, {} answered and not taken{broken}",
                    queue.index,
                    known(queue.name.as_deref()),
                    queue.in_use,
                    queue.size,
                    number(queue.with_host),
                    number(queue.unseen),
                );
                self.wrapped(&mut out, "      ", &line);
            }
        }
        out
    }

    /// Those that listen; of the others only how many there are.
    pub(super) fn unix_table(&self, report: &Report) -> String {
        if report.unix_sockets.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Unix sockets");
        let (listening, others): (Vec<_>, Vec<_>) =
            report.unix_sockets.iter().partition(|socket| socket.state == "LISTEN");
        for socket in &listening {
            let line = format!(
                "{:<9} {}: {} of {} waiting connections, inode {}",
                escape(&socket.kind),
                known(socket.path.as_deref()),
                socket.receive_queue,
                socket.backlog,
                number(socket.inode),
            );
            self.wrapped(&mut out, "  ", &line);
        }
        let unread = others.iter().filter(|socket| socket.receive_queue > 0).count();
        let line = format!(
            "{} that do not listen, {unread} of them with messages that nobody has read",
            others.len()
        );
        self.wrapped(&mut out, "  ", &line);
        out
    }

    pub(super) fn softnet_table(&self, report: &Report) -> String {
        if report.softnet.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Received packets");
        for cpu in &report.softnet {
            let _ = writeln!(
                out,
                "  CPU {:<4} {} processed, {} dropped, {} times out of time, {} waiting",
                cpu.cpu,
                cpu.processed,
                cpu.dropped,
                cpu.time_squeeze,
                number(cpu.backlog),
            );
        }
        out
    }
}

fn held(device: &MappedDevice) -> String {
    let count = |what: &str, value: Option<u64>| value.map(|n| format!(", {n} {what}")).unwrap_or_default();
    [
        count("in flight", device.in_flight),
        count("held back", device.deferred),
        count("to be sent again", device.requeued),
    ]
    .concat()
}

fn target_line(target: &DmTarget) -> String {
    let below = target.device.as_ref().map(|device| {
        format!(" on {} ({}) from sector {}", device.name, device.number, number(target.device_sector))
    });
    let paths = target.multipath.as_ref().map(|multipath| {
        let queue = if multipath.queue_if_no_path { ", queue_if_no_path" } else { "" };
        format!(" with {} usable paths of {}{queue}", multipath.usable_paths, multipath.paths.len())
    });
    let line = format!(
        "sectors {} to {}: {}{}{}",
        target.start,
        target.start.saturating_add(target.sectors),
        target.kind,
        below.unwrap_or_default(),
        paths.unwrap_or_default(),
    );
    escape(&line).into()
}
