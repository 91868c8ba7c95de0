//! The sockets of TCP and UDP, from their hash tables.
//!
//! Facts: `include/net/inet_hashtables.h`, `include/net/udp.h`, `include/net/sock.h`, `net/ipv4/tcp_ipv4.c`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::describe::Description;
use super::hlist::{self, Flavour};
use super::value::{self, Layout, Maybe, Slot, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// Chains that a table may have, and how many heads are read at once.
const CHAINS: u64 = 1 << 26;
const AT_ONCE: u64 = 4096;
/// `AF_INET` and `AF_INET6`.
const INET: u16 = 2;
const INET6: u16 = 10;
/// By number: `TCP_ESTABLISHED` 1 to `TCP_BOUND_INACTIVE` 13.
const STATES: [&str; 14] = [
    "?",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSE",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "NEW-SYN-RECV",
    "BOUND",
];
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;

view! {
    /// `struct sock_common`.
    struct Common of "sock_common" {
        family: u16 = ["skc_family"],
        state: u8 = ["skc_state"],
        net: Option<KVirtAddr> = ["skc_net.net", "skc_net"],
        to: u32 = ["skc_daddr"],
        from: u32 = ["skc_rcv_saddr"],
        // In network order.
        to_port: u16 = ["skc_dport"],
        from_port: u16 = ["skc_num"],
        to6: Option<Vec<u8>> = ["skc_v6_daddr"],
        from6: Option<Vec<u8>> = ["skc_v6_rcv_saddr"],
    }
}
view! {
    /// `struct sock`.
    struct Sock of "sock" {
        received: Maybe<u32> = ["sk_backlog.rmem_alloc"],
        waiting: Maybe<u32> = ["sk_ack_backlog"],
        may_wait: Maybe<u32> = ["sk_max_ack_backlog"],
        sending: Maybe<u32> = ["sk_wmem_alloc"],
    }
}
view! {
    /// `struct tcp_sock`.
    struct Tcp of "tcp_sock" {
        received: u32 = ["rcv_nxt"],
        copied: u32 = ["copied_seq"],
        written: u32 = ["write_seq"],
        acknowledged: u32 = ["snd_una"],
    }
}

/// The protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Socket {
    /// Its `struct sock`, or the smaller structure that a connection has while it comes or goes.
    pub kaddr: KVirtAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its namespace (`struct net`).
    pub net: KVirtAddr,
    /// Its state, as `ss` names it.
    pub state: &'static str,
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// As `ss` shows Recv-Q.
    pub receive_queue: Option<u64>,
    /// As `ss` shows Send-Q.
    pub send_queue: Option<u64>,
}

struct Reader<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    common: Layout<Common>,
    socks: Option<Layout<Sock>>,
    tcp: Option<Layout<Tcp>>,
    limit: usize,
    stop: &'a dyn Fn() -> bool,
    walk: Walk<Socket>,
}

/// One hash table.
struct Table {
    protocol: Protocol,
    /// The first chain's head, how far they lie apart, and how many there are.
    first: KVirtAddr,
    step: u64,
    chains: u64,
    flavour: Flavour,
    /// The node in a socket.
    node: u64,
}

/// The sockets of TCP and UDP in these namespaces; which table could not be had is in the second part.
///
/// # Errors
/// Why none can be read.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    namespaces: &[KVirtAddr],
    limit: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(Walk<Socket>, Vec<String>), String> {
    let types = &description.types;
    let common = Layout::new(types).map_err(|e| e.to_string())?;
    let mut reader = Reader {
        memory,
        common,
        socks: Layout::new(types).ok(),
        tcp: Layout::new(types).ok(),
        limit,
        stop,
        walk: Walk::default(),
    };
    let mut gaps = Vec::new();
    let mut tables = Vec::new();
    // A namespace may have tables of its own (TCP since 6.1, UDP since 6.2).
    match places(memory, description, namespaces, "tcp_hashinfo", "ipv4.tcp_death_row.hashinfo") {
        Ok(all) => {
            for at in all {
                match tcp_tables(memory, types, at) {
                    Ok(found) => tables.extend(found),
                    Err(why) => gaps.push(format!("TCP: {why}")),
                }
            }
        }
        Err(why) => gaps.push(format!("TCP: {why}")),
    }
    match places(memory, description, namespaces, "udp_table", "ipv4.udp_table") {
        Ok(all) => {
            for at in all {
                match udp_table(memory, types, at) {
                    Ok(found) => tables.push(found),
                    Err(why) => gaps.push(format!("UDP: {why}")),
                }
            }
        }
        Err(why) => gaps.push(format!("UDP: {why}")),
    }
    for table in &tables {
        if !reader.table(table) {
            break;
        }
    }
    Ok((reader.walk, gaps))
}

/// The shared table, and those that namespaces have of their own.
fn places(
    memory: &KernelMemory<'_>,
    description: &Description,
    namespaces: &[KVirtAddr],
    shared: &'static str,
    own: &str,
) -> Result<BTreeSet<KVirtAddr>, String> {
    let shared = Variables::new(memory, &description.symbols).address(shared).map_err(|e| e.to_string())?;
    let mut found = BTreeSet::from([shared]);
    let member = description.types.structure("net").and_then(|net| net.member(own)).ok();
    // What is no pointer there is part of the namespace, and not a table.
    let pointer =
        member.filter(|m| m.ty().resolve().is_ok_and(|ty| ty.kind() == crate::sym::btf::Kind::Pointer));
    if let Some(member) = pointer {
        let at = |net: &KVirtAddr| memory.read_ptr(net.checked_add(member.offset())?).ok();
        found.extend(namespaces.iter().filter_map(at).filter(|at| !at.is_null()));
    }
    Ok(found)
}

/// A number or pointer in a structure, by its member's name.
fn number(
    memory: &KernelMemory<'_>,
    types: &Types,
    of: &str,
    at: KVirtAddr,
    path: &str,
) -> Result<u64, String> {
    let member = types.structure(of).and_then(|s| s.member(path)).map_err(|e| e.to_string())?;
    let slot = Slot::new(member).map_err(|e| e.to_string())?;
    value::read_number(memory, at, &slot).map_err(|e| e.to_string())
}

fn offset(types: &Types, of: &str, path: &str) -> Result<u64, String> {
    types
        .structure(of)
        .and_then(|s| s.member(path))
        .map(crate::sym::btf::Member::offset)
        .map_err(|e| e.to_string())
}

fn chains(mask: u64) -> Result<u64, String> {
    let count = mask.saturating_add(1);
    if count > CHAINS || !count.is_power_of_two() {
        return Err(format!("the table claims {count} chains"));
    }
    Ok(count)
}

fn tcp_tables(memory: &KernelMemory<'_>, types: &Types, at: KVirtAddr) -> Result<Vec<Table>, String> {
    let of = |path: &str| number(memory, types, "inet_hashinfo", at, path);
    let size =
        |name: &str| types.structure(name).map(crate::sym::btf::Struct::size).map_err(|e| e.to_string());
    let nulls = offset(types, "sock_common", "skc_nulls_node")?;
    let mut found = vec![Table {
        protocol: Protocol::Tcp,
        first: KVirtAddr(of("ehash")?)
            .checked_add(offset(types, "inet_ehash_bucket", "chain")?)
            .ok_or("the table is at the end of the address space")?,
        step: size("inet_ehash_bucket")?,
        chains: chains(of("ehash_mask")?)?,
        flavour: Flavour::Nulls,
        node: nulls,
    }];
    // Those that listen are linked by a node of their own up to 5.18 (commit cae3873c5b3a).
    let (head, flavour, node) = match offset(types, "inet_connection_sock", "icsk_listen_portaddr_node") {
        Ok(node) => (offset(types, "inet_listen_hashbucket", "head")?, Flavour::Plain, node),
        Err(_) => (offset(types, "inet_listen_hashbucket", "nulls_head")?, Flavour::Nulls, nulls),
    };
    let listening = KVirtAddr(of("lhash2")?);
    if !listening.is_null() {
        found.push(Table {
            protocol: Protocol::Tcp,
            first: listening.checked_add(head).ok_or("the table is at the end of the address space")?,
            step: size("inet_listen_hashbucket")?,
            chains: chains(of("lhash2_mask")?)?,
            flavour,
            node,
        });
    }
    Ok(found)
}

fn udp_table(memory: &KernelMemory<'_>, types: &Types, at: KVirtAddr) -> Result<Table, String> {
    let of = |path: &str| number(memory, types, "udp_table", at, path);
    let slot = types.structure("udp_hslot").map_err(|e| e.to_string())?;
    // A plain list since 4.10 (commit ca065d0cf80f).
    let head = offset(types, "udp_hslot", "head").or_else(|_| offset(types, "udp_hslot", "nulls_head"))?;
    Ok(Table {
        protocol: Protocol::Udp,
        first: KVirtAddr(of("hash")?)
            .checked_add(head)
            .ok_or("the table is at the end of the address space")?,
        step: slot.size(),
        chains: chains(of("mask")?)?,
        flavour: Flavour::Plain,
        node: offset(types, "sock_common", "skc_node")?,
    })
}

impl Reader<'_, '_> {
    /// False where the walk is to end.
    fn table(&mut self, table: &Table) -> bool {
        let mut from = 0_u64;
        while from < table.chains {
            if (self.stop)() {
                self.walk.lose(WalkEnd::Cancelled);
                return false;
            }
            let count = AT_ONCE.min(table.chains.saturating_sub(from));
            let place = from.checked_mul(table.step).and_then(|by| table.first.checked_add(by));
            let len = count.saturating_sub(1).saturating_mul(table.step).saturating_add(8);
            let (Some(start), Ok(len)) = (place, usize::try_from(len)) else { return true };
            let heads = self.memory.read_sparse(start, len);
            if let Some(missing) = heads.missing.first() {
                self.walk.lose(WalkEnd::unreadable(start, &missing.why));
            }
            for chain in 0..count {
                let by = chain.saturating_mul(table.step);
                let Some(first) = usize::try_from(by).ok().and_then(|at| heads.u64_at(at)) else { continue };
                // Most chains are empty, and need no second look.
                if first == 0 || (table.flavour == Flavour::Nulls && first & 1 == 1) {
                    continue;
                }
                let Some(head) = start.checked_add(by) else { continue };
                if !self.chain(table, head) {
                    return false;
                }
            }
            from = from.saturating_add(count);
        }
        true
    }

    fn chain(&mut self, table: &Table, head: KVirtAddr) -> bool {
        let chain = hlist::walk(self.memory, head, table.flavour, self.limit);
        if !chain.end.is_complete() {
            self.walk.lose(chain.end.clone());
        }
        for kaddr in chain.items.iter().filter_map(|node| node.checked_sub(table.node)) {
            match self.socket(table.protocol, kaddr) {
                Ok(socket) => {
                    if !self.walk.push(socket, self.limit) {
                        return false;
                    }
                }
                Err(why) => self.walk.lose(WalkEnd::Inconsistent(kaddr, why)),
            }
        }
        true
    }

    fn socket(&self, protocol: Protocol, kaddr: KVirtAddr) -> Result<Socket, String> {
        let common = self.common.read(self.memory, kaddr).map_err(|e| e.to_string())?;
        let address = |v4: u32, v6: &Option<Vec<u8>>| match common.family {
            INET => Some(IpAddr::V4(Ipv4Addr::from(v4.to_le_bytes()))),
            INET6 => Some(IpAddr::V6(Ipv6Addr::from(*v6.as_ref()?.first_chunk::<16>()?))),
            _ => None,
        };
        let local = address(common.from, &common.from6);
        let remote = address(common.to, &common.to6);
        let (Some(local), Some(remote)) = (local, remote) else {
            return Err(format!("the socket is of the family {}", common.family));
        };
        let state = match (protocol, common.state) {
            // As ss names a UDP socket that is not connected.
            (Protocol::Udp, 7) => "UNCONN",
            (_, state) => STATES.get(usize::from(state)).copied().unwrap_or("?"),
        };
        let (receive_queue, send_queue) = self.queues(protocol, kaddr, common.state);
        Ok(Socket {
            kaddr,
            protocol,
            net: common.net.unwrap_or_default(),
            state,
            local: SocketAddr::new(local, common.from_port),
            remote: SocketAddr::new(remote, u16::from_be(common.to_port)),
            receive_queue,
            send_queue,
        })
    }

    /// Recv-Q and Send-Q.
    fn queues(&self, protocol: Protocol, kaddr: KVirtAddr, state: u8) -> (Option<u64>, Option<u64>) {
        // These are no whole sockets.
        if protocol == Protocol::Tcp && matches!(state, TIME_WAIT | NEW_SYN_RECV) {
            return (None, None);
        }
        if protocol == Protocol::Tcp && state != LISTEN {
            let tcp = self.tcp.as_ref().and_then(|layout| layout.read(self.memory, kaddr).ok());
            let bytes =
                |to: u32, from: u32| u64::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or_default();
            return match tcp {
                Some(tcp) => {
                    (Some(bytes(tcp.received, tcp.copied)), Some(bytes(tcp.written, tcp.acknowledged)))
                }
                None => (None, None),
            };
        }
        let Some(sock) = self.socks.as_ref().and_then(|layout| layout.read(self.memory, kaddr).ok()) else {
            return (None, None);
        };
        let of = |value: &Maybe<u32>| value.as_ref().copied().map(u64::from);
        match protocol {
            Protocol::Tcp => (of(&sock.waiting), of(&sock.may_wait)),
            // One byte is the socket's own reference.
            Protocol::Udp => (of(&sock.received), of(&sock.sending).map(|n| n.saturating_sub(1))),
        }
    }
}
