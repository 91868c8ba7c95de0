//! The sockets of `AF_UNIX`, and those that nobody serves.

use std::collections::HashMap;

use super::parts::{Clock, Context, Part};
use crate::addr::KVirtAddr;
use crate::kernel::net as kernel_net;
use crate::kernel::unix;
use crate::report::{Address, Confidence, Finding, Severity, UnixSocket};

/// Namespaces and sockets that are shown.
const NAMESPACES: usize = 65_536;
const SOCKETS: usize = 16_384;
/// Sockets that a finding names.
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let (memory, description) = (context.memory, context.description);
    let mut skipped = Vec::new();
    let found = kernel_net::namespaces(memory, description, NAMESPACES).and_then(|spaces| {
        if !spaces.end.is_complete() {
            skipped.push(format!("the namespaces are not all known: {}", spaces.end));
        }
        let walk = unix::read(memory, description, &spaces.items, SOCKETS, &|| clock.is_spent())?;
        let number = |at: &KVirtAddr| Some((*at, kernel_net::number(memory, description, *at)?));
        Ok((walk, spaces.items.iter().filter_map(number).collect::<HashMap<_, _>>()))
    });
    let (walk, numbers) = match found {
        Ok(found) => found,
        Err(why) => {
            let mut part = Part::default();
            part.skip("unix_sockets", why);
            return part;
        }
    };
    if !walk.end.is_complete() {
        skipped.push(format!("not all of them are shown: {}", walk.end));
    }
    let mut sockets: Vec<UnixSocket> = walk.items.iter().map(|socket| section(socket, &numbers)).collect();
    // Chains have no order that means anything.
    sockets.sort_by(|a, b| {
        (&a.path, a.inode, a.kaddr.map(|at| at.0)).cmp(&(&b.path, b.inode, b.kaddr.map(|at| at.0)))
    });
    let finding = full(&sockets);
    let mut part = Part::new(move |report| report.unix_sockets = sockets);
    part.findings.extend(finding);
    for why in skipped {
        part.skip("unix_sockets", why);
    }
    part
}

fn section(socket: &unix::UnixSocket, numbers: &HashMap<KVirtAddr, u32>) -> UnixSocket {
    UnixSocket {
        kind: socket.kind.into(),
        state: socket.state.into(),
        path: socket.path.clone(),
        inode: socket.inode,
        receive_queue: socket.queued,
        backlog: socket.room,
        namespace: numbers.get(&socket.net).copied(),
        peer: socket.peer.map(|at| Address(at.0)),
        kaddr: Some(Address(socket.kaddr.0)),
    }
}

/// Sockets that listen, and whose next caller has to wait (`unix_recvq_full`).
fn full(sockets: &[UnixSocket]) -> Option<Finding> {
    let listening = sockets.iter().filter(|socket| socket.state == "LISTEN");
    let full: Vec<&UnixSocket> = listening.filter(|socket| socket.receive_queue > socket.backlog).collect();
    let first = full.first()?;
    let name = |socket: &UnixSocket| socket.path.clone().unwrap_or_else(|| "a socket without a name".into());
    let title = if full.len() == 1 {
        format!("Nobody accepts connections on {}: its backlog is full, and callers wait.", name(first))
    } else {
        format!(
            "Nobody accepts connections on {} unix sockets: their backlogs are full, and callers wait.",
            full.len()
        )
    };
    let mut finding = Finding::new("KD-UNIX-BACKLOG-FULL", Severity::Warning, Confidence::Likely, title);
    for socket in full.iter().take(NAMED) {
        finding = finding.because(format!(
            "{}: {} connections wait, and {} may",
            name(socket),
            socket.receive_queue,
            socket.backlog
        ));
    }
    if let Some(at) = first.kaddr {
        finding = finding
            .by_hand_crash(format!("struct sock.sk_max_ack_backlog,sk_receive_queue {at}"))
            .by_hand_drgn(format!("Object(prog, \"struct sock\", address={at}).sk_receive_queue.qlen"));
    }
    Some(finding.next("Look at what the process behind that socket waits for."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_full_where_the_next_caller_waits() {
        let socket = |state: &str, receive_queue, backlog| UnixSocket {
            state: state.into(),
            path: Some("/run/x".into()),
            receive_queue,
            backlog,
            ..UnixSocket::default()
        };
        assert_eq!(full(&[socket("LISTEN", 5, 5), socket("ESTABLISHED", 9, 5)]), None);
        let finding = full(&[socket("LISTEN", 6, 5)]).unwrap();
        assert!(finding.title.contains("/run/x"), "{}", finding.title);
    }
}
