//! The sockets of `AF_UNIX`, from the table of each namespace.
//!
//! Facts: `net/unix/af_unix.c`, `include/net/af_unix.h`, `include/net/netns/unix.h`, `include/net/sock.h`.

use super::describe::Description;
use super::hlist::{self, Flavour};
use super::value::{self, Layout, Slot, read_number, view};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use crate::addr::KVirtAddr;
use crate::sym::btf::{Member, Types};
use crate::xlat::KernelMemory;

/// `UNIX_HASH_SIZE`: chains of a table, in every kernel since 2.6.
const CHAINS: usize = 512;
/// `AF_UNIX`.
const FAMILY: u16 = 1;
/// `sizeof(sun_path)`, and the family before it.
const NAME: usize = 108;
const FAMILY_BYTES: u32 = 2;
/// `TCP_ESTABLISHED`, `TCP_LISTEN`.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

view! {
    /// `struct sock`.
    struct Sock of "sock" {
        family: u16 = ["__sk_common.skc_family"],
        state: u8 = ["__sk_common.skc_state"],
        net: Option<KVirtAddr> = ["__sk_common.skc_net.net", "__sk_common.skc_net"],
        kind: u16 = ["sk_type"],
        queued: u32 = ["sk_receive_queue.qlen"],
        room: u32 = ["sk_max_ack_backlog"],
        socket: KVirtAddr = ["sk_socket"],
    }
}
view! {
    /// `struct unix_sock`.
    struct Unix of "unix_sock" {
        address: KVirtAddr = ["addr"],
        peer: KVirtAddr = ["peer"],
    }
}
view! {
    /// `struct unix_address`.
    struct Name of "unix_address" {
        len: u32 = ["len"],
        name: value::Place = ["name"],
    }
}

/// A socket of `AF_UNIX`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnixSocket {
    /// Its `struct sock`.
    pub kaddr: KVirtAddr,
    /// Its namespace (`struct net`).
    pub net: KVirtAddr,
    /// `stream`, `dgram`, `seqpacket`.
    pub kind: &'static str,
    /// Its state, as `ss` names it.
    pub state: &'static str,
    /// The path that it is bound to, or its abstract name after a `@`; `None` where it has none.
    pub path: Option<String>,
    /// Its inode, as `/proc/PID/fd` shows it; `None` for one that nobody has accepted.
    pub inode: Option<u64>,
    /// What nobody has read; of one that listens: connections that nobody has accepted.
    pub queued: u32,
    /// How many may wait before the next sender or caller has to.
    pub room: u32,
    /// The `struct sock` at the other end.
    pub peer: Option<KVirtAddr>,
}

struct Reader<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    socks: Layout<Sock>,
    unix: Layout<Unix>,
    names: Layout<Name>,
    node: u64,
    /// From a `struct socket` to the number of its inode.
    inode: Option<(u64, u64, Slot)>,
}

/// The sockets of these namespaces, up to `limit` of them.
///
/// # Errors
/// Why none can be read.
pub fn read(
    memory: &KernelMemory<'_>,
    description: &Description,
    namespaces: &[KVirtAddr],
    limit: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Walk<UnixSocket>, String> {
    let types = &description.types;
    let settle = || -> Result<Reader<'_, '_>, crate::sym::btf::TypeError> {
        let offset = |of: &str, path: &str| types.structure(of)?.member(path).map(Member::offset);
        let inode = || {
            let in_alloc = offset("socket_alloc", "socket").ok()?;
            let inode = offset("socket_alloc", "vfs_inode").ok()?;
            Some((in_alloc, inode, Slot::new(types.structure("inode").ok()?.member("i_ino").ok()?).ok()?))
        };
        Ok(Reader {
            memory,
            socks: Layout::new(types)?,
            unix: Layout::new(types)?,
            names: Layout::new(types)?,
            node: offset("sock", "__sk_common.skc_node")?,
            inode: inode(),
        })
    };
    let reader = settle().map_err(|why| why.to_string())?;
    let mut walk = Walk::default();
    for table in tables(memory, description, types, namespaces)? {
        let heads = memory.read_sparse(table, CHAINS.saturating_mul(8));
        if let Some(missing) = heads.missing.first() {
            walk.lose(WalkEnd::unreadable(table, &missing.why));
        }
        for chain in 0..CHAINS {
            if stop() {
                walk.lose(WalkEnd::Cancelled);
                return Ok(walk);
            }
            let by = chain.saturating_mul(8);
            // Most chains are empty.
            if heads.u64_at(by).is_none_or(|first| first == 0) {
                continue;
            }
            let Some(head) = u64::try_from(by).ok().and_then(|by| table.checked_add(by)) else { continue };
            let found = hlist::walk(memory, head, Flavour::Plain, limit);
            if !found.end.is_complete() {
                walk.lose(found.end.clone());
            }
            for kaddr in found.items.iter().filter_map(|at| at.checked_sub(reader.node)) {
                match reader.socket(kaddr) {
                    Ok(socket) => {
                        if !walk.push(socket, limit) {
                            return Ok(walk);
                        }
                    }
                    Err(why) => walk.lose(WalkEnd::Inconsistent(kaddr, why)),
                }
            }
        }
    }
    Ok(walk)
}

/// The tables: each namespace has its own since 6.0, before that there was one for all.
fn tables(
    memory: &KernelMemory<'_>,
    description: &Description,
    types: &Types,
    namespaces: &[KVirtAddr],
) -> Result<Vec<KVirtAddr>, String> {
    let own = types.structure("net").and_then(|net| net.member("unx.table.buckets"));
    if let Ok(own) = own {
        let at = |net: &KVirtAddr| memory.read_ptr(net.checked_add(own.offset())?).ok();
        return Ok(namespaces.iter().filter_map(at).filter(|at| !at.is_null()).collect());
    }
    let shared = Variables::new(memory, &description.symbols).address("unix_socket_table");
    shared.map(|at| vec![at]).map_err(|why| why.to_string())
}

impl Reader<'_, '_> {
    fn socket(&self, kaddr: KVirtAddr) -> Result<UnixSocket, String> {
        let sock = self.socks.read(self.memory, kaddr).map_err(|why| why.to_string())?;
        if sock.family != FAMILY {
            return Err(format!("the socket is of the family {}", sock.family));
        }
        let unix = self.unix.read(self.memory, kaddr).map_err(|why| why.to_string())?;
        Ok(UnixSocket {
            kaddr,
            net: sock.net.unwrap_or_default(),
            kind: match sock.kind {
                1 => "stream",
                2 => "dgram",
                5 => "seqpacket",
                _ => "?",
            },
            state: match sock.state {
                ESTABLISHED => "ESTABLISHED",
                LISTEN => "LISTEN",
                _ => "UNCONN",
            },
            path: self.name(unix.address)?,
            inode: self.inode(sock.socket),
            queued: sock.queued,
            room: sock.room,
            peer: Some(unix.peer).filter(|at| !at.is_null()),
        })
    }

    fn name(&self, address: KVirtAddr) -> Result<Option<String>, String> {
        if address.is_null() {
            return Ok(None);
        }
        let view = self.names.read(self.memory, address).map_err(|why| why.to_string())?;
        let len = usize::try_from(view.len.saturating_sub(FAMILY_BYTES)).unwrap_or(NAME).min(NAME);
        let at = view.name.0.checked_add(u64::from(FAMILY_BYTES)).ok_or("its name is at no address")?;
        let mut bytes = vec![0_u8; len];
        self.memory.read(at, &mut bytes).map_err(|why| why.to_string())?;
        Ok(name(&bytes))
    }

    fn inode(&self, socket: KVirtAddr) -> Option<u64> {
        let (in_alloc, inode, number) = self.inode.as_ref().filter(|_| !socket.is_null())?;
        let at = socket.checked_sub(*in_alloc)?.checked_add(*inode)?;
        read_number(self.memory, at, number).ok()
    }
}

/// A path ends with its NUL; an abstract name begins with one and is as long as it is, and others in it are shown as `@` as `ss` does.
fn name(bytes: &[u8]) -> Option<String> {
    let shown = match bytes.split_first()? {
        (0, rest) => {
            let rest: Vec<u8> = rest.iter().map(|byte| if *byte == 0 { b'@' } else { *byte }).collect();
            format!("@{}", String::from_utf8_lossy(&rest))
        }
        _ => String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned(),
    };
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn paths_end_with_their_nul_and_abstract_names_begin_with_one() {
        assert_eq!(name(b"/run/x\0").as_deref(), Some("/run/x"));
        assert_eq!(name(b"\0a\0b").as_deref(), Some("@a@b"));
        assert_eq!(name(b""), None);
    }
}
