//! Mounts, open files, disks, network devices, sockets and control groups, each as a table.

use std::fmt::Write as _;

use vmcore::report::Report;

use super::super::escape::escape;
use super::Page;

/// The text, or a question mark where it is not known.
pub(super) fn known(text: Option<&str>) -> String {
    text.map_or_else(|| "?".into(), |text| escape(text).into())
}

pub(super) fn number<N: ToString>(value: Option<N>) -> String {
    value.map_or_else(|| "?".into(), |n| n.to_string())
}

impl Page {
    pub(super) fn mount_table(&self, report: &Report) -> String {
        let mut out = String::new();
        if !report.mounts.is_empty() {
            out.push_str(&self.heading("Mounts"));
        }
        for mount in &report.mounts {
            let frozen = mount.more.frozen.as_deref().filter(|state| *state != "unfrozen");
            let frozen = frozen.map(|state| format!("  [{}]", escape(state))).unwrap_or_default();
            let line = format!(
                "{} on {} type {} ({}){frozen}",
                known(mount.device.as_deref()),
                known(mount.path.as_deref()),
                known(mount.fstype.as_deref()),
                known(mount.options.as_deref()),
            );
            self.wrapped(&mut out, "  ", &line);
        }
        if !report.open_files.is_empty() {
            out.push_str(&self.heading("Open files of the task that panicked and of blocked tasks"));
        }
        for file in &report.open_files {
            let (path, kind) = (known(file.path.as_deref()), known(file.kind.as_deref()));
            let line = format!("pid {:<7} fd {:<4} {path} ({kind})", file.pid, file.fd);
            self.wrapped(&mut out, "  ", &line);
        }
        out
    }

    pub(super) fn block_table(&self, report: &Report) -> String {
        if report.block_io.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Disks");
        for queue in &report.block_io {
            let oldest = queue.oldest_s.map(|s| format!(", the oldest {s:.1} s old")).unwrap_or_default();
            let (device, flying) = (escape(&queue.device), number(queue.in_flight));
            let _ = writeln!(out, "  {device:<16} {flying} in flight{oldest}");
            for request in &queue.more.requests {
                let age = request.age_s.map_or_else(|| "?".into(), |s| format!("{s:.1}"));
                let line = format!(
                    "{}: sector {}, {} bytes, {age} s",
                    known(request.op.as_deref()),
                    number(request.sector),
                    number(request.bytes),
                );
                self.wrapped(&mut out, "      ", &line);
            }
        }
        out
    }

    pub(super) fn net_table(&self, report: &Report) -> String {
        let mut out = String::new();
        if !report.net.is_empty() {
            out.push_str(&self.heading("Network devices"));
        }
        for device in &report.net {
            let state = match device.up {
                Some(true) => "up",
                Some(false) => "down",
                None => "?",
            };
            let line = format!(
                "{:<16} {state:<4} mtu {}  {}",
                escape(&device.name),
                number(device.more.mtu),
                escape(&device.addresses.join(" ")),
            );
            self.wrapped(&mut out, "  ", &line);
        }
        if !report.sockets.is_empty() {
            out.push_str(&self.heading("Sockets"));
        }
        for socket in &report.sockets {
            let line = format!(
                "{} {:<12} {} -> {}  Recv-Q {} Send-Q {}",
                escape(&socket.protocol),
                escape(&socket.state),
                escape(&socket.local),
                escape(&socket.remote),
                number(socket.receive_queue),
                number(socket.send_queue),
            );
            self.wrapped(&mut out, "  ", &line);
        }
        out
    }

    pub(super) fn cgroup_table(&self, report: &Report) -> String {
        if report.cgroups.is_empty() {
            return String::new();
        }
        let mut out = self.heading("Control groups");
        for group in &report.cgroups {
            let memory = group.memory_current.map(|bytes| {
                let max = group.memory_max.map_or_else(|| "no limit".into(), |max| max.to_string());
                format!(", memory {bytes} of {max}")
            });
            let line = format!(
                "{} ({}): {} tasks{}",
                escape(&group.path),
                escape(&group.hierarchy),
                number(group.tasks),
                memory.unwrap_or_default(),
            );
            self.wrapped(&mut out, "  ", &line);
        }
        out
    }
}
