//! The network devices and sockets.

use std::collections::HashMap;

use super::parts::{Clock, Context, Part};
use crate::addr::KVirtAddr;
use crate::kernel::net as kernel_net;
use crate::kernel::socket::{self, Protocol};
use crate::report::{Address, Confidence, Finding, NetDetail, NetDevice, Severity, Socket};

/// Namespaces and devices that are shown.
const DEVICES: usize = 65_536;
/// Sockets that are shown.
const SOCKETS: usize = 16_384;
/// Sockets that a finding names.
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let (memory, description) = (context.memory, context.description);
    let mut skipped: Vec<(String, String)> = Vec::new();
    let spaces = match kernel_net::namespaces(memory, description, DEVICES) {
        Ok(walk) => {
            if !walk.end.is_complete() {
                skipped.push(("net".into(), format!("the namespaces are not all known: {}", walk.end)));
            }
            walk.items
        }
        Err(why) => {
            let mut part = Part::default();
            part.skip("net", why);
            return part;
        }
    };
    let mut devices = Vec::new();
    match kernel_net::devices(memory, description, &spaces, DEVICES) {
        Ok(walk) => {
            if !walk.end.is_complete() {
                skipped.push(("net".into(), format!("not all devices are shown: {}", walk.end)));
            }
            for device in walk.items {
                for why in &device.gaps {
                    skipped.push((format!("net: {}", device.name), why.clone()));
                }
                devices.push(section(device));
            }
        }
        Err(why) => skipped.push(("net".into(), why)),
    }
    let mut sockets = Vec::new();
    match socket::read(memory, description, &spaces, SOCKETS, &|| clock.is_spent()) {
        Ok((walk, gaps)) => {
            skipped.extend(gaps.into_iter().map(|why| ("sockets".to_owned(), why)));
            if !walk.end.is_complete() {
                skipped.push(("sockets".into(), format!("not all of them are shown: {}", walk.end)));
            }
            let numbers = numbers(context, &spaces);
            sockets.extend(walk.items.into_iter().map(|found| shown(&found, &numbers)));
        }
        Err(why) => skipped.push(("sockets".into(), why)),
    }
    let finding = full(&sockets);
    let mut part = Part::new(move |report| {
        report.net = devices;
        report.sockets = sockets;
    });
    part.findings.extend(finding);
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

/// The namespaces' inode numbers.
fn numbers(context: &Context<'_>, spaces: &[KVirtAddr]) -> HashMap<KVirtAddr, u32> {
    let number = |at: &KVirtAddr| Some((*at, kernel_net::number(context.memory, context.description, *at)?));
    spaces.iter().filter_map(number).collect()
}

fn shown(found: &socket::Socket, numbers: &HashMap<KVirtAddr, u32>) -> Socket {
    Socket {
        protocol: match found.protocol {
            Protocol::Tcp => "tcp".into(),
            Protocol::Udp => "udp".into(),
        },
        kaddr: Some(Address(found.kaddr.0)),
        state: found.state.into(),
        local: found.local.to_string(),
        remote: found.remote.to_string(),
        receive_queue: found.receive_queue,
        send_queue: found.send_queue,
        namespace: numbers.get(&found.net).copied(),
    }
}

/// Sockets that listen, and take no more connections until somebody accepts those that they have (`sk_acceptq_is_full`).
fn full(sockets: &[Socket]) -> Option<Finding> {
    let is_full = |socket: &&Socket| {
        let queues = socket.receive_queue.zip(socket.send_queue);
        socket.state == "LISTEN" && queues.is_some_and(|(wait, may)| wait > may)
    };
    let full: Vec<&Socket> = sockets.iter().filter(is_full).collect();
    let first = full.first()?;
    let title = if full.len() == 1 {
        format!(
            "Nobody accepts connections on {} (tcp): its queue is full, and it takes no more.",
            first.local
        )
    } else {
        format!(
            "Nobody accepts connections on {} TCP sockets: their queues are full, and they take no more.",
            full.len()
        )
    };
    let mut finding = Finding::new("KD-NET-ACCEPT-QUEUE-FULL", Severity::Warning, Confidence::Likely, title);
    for socket in full.iter().take(NAMED) {
        let (wait, may) = (socket.receive_queue.unwrap_or_default(), socket.send_queue.unwrap_or_default());
        finding = finding.because(format!("{}: {wait} connections wait, and {may} may", socket.local));
    }
    if let Some(at) = first.kaddr {
        finding = finding
            .by_hand_crash(format!("struct sock.sk_ack_backlog,sk_max_ack_backlog {at}"))
            .by_hand_drgn(format!("Object(prog, \"struct sock\", address={at}).sk_ack_backlog"));
    }
    Some(finding.next("Look at what the process behind that socket waits for, and whether it has too few threads for its callers."))
}

fn section(device: kernel_net::Device) -> NetDevice {
    let mac = |bytes: &Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    let counters = device.counters;
    NetDevice {
        name: device.name,
        up: Some(device.up),
        addresses: device.addresses,
        more: NetDetail {
            kaddr: Some(Address(device.kaddr.0)),
            namespace: device.namespace,
            ifindex: Some(device.index),
            carrier: device.carrier,
            mtu: device.mtu,
            mac: device.mac.as_ref().map(mac),
            driver: device.driver,
            rx_packets: counters.map(|c| c.rx),
            tx_packets: counters.map(|c| c.tx),
            rx_dropped: counters.map(|c| c.rx_dropped),
            tx_dropped: counters.map(|c| c.tx_dropped),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_full_where_more_wait_than_may() {
        let socket = |state: &str, receive_queue, send_queue| Socket {
            protocol: "tcp".into(),
            kaddr: None,
            state: state.into(),
            local: "192.0.2.7:80".into(),
            remote: "0.0.0.0:0".into(),
            receive_queue: Some(receive_queue),
            send_queue: Some(send_queue),
            namespace: None,
        };
        assert_eq!(full(&[socket("LISTEN", 2, 2), socket("ESTABLISHED", 3, 2)]), None);
        let found = full(&[socket("LISTEN", 3, 2)]).unwrap();
        assert!(found.title.contains("192.0.2.7:80"), "{}", found.title);
        assert_eq!(found.evidence, ["192.0.2.7:80: 3 connections wait, and 2 may"]);
    }
}
