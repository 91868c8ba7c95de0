//! A process's command line, from its own memory. Dump level 8 leaves that out, so that it is rarely in a filtered dump.

use super::value::{Layout, view};
use crate::addr::{KVirtAddr, UVirtAddr};
use crate::error::MemError;
use crate::xlat::{KernelMemory, UserMemory};

view! {
    /// `struct mm_struct`: a process's address space.
    pub(super) struct AddressSpace of "mm_struct" {
        pgd: KVirtAddr = ["pgd"],
        start: u64 = ["arg_start"],
        end: u64 = ["arg_end"],
    }
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cmdline {
    /// The task has no memory of its own: a kernel thread, or a process that has exited.
    None,
    /// The arguments. What is no UTF-8 is replaced.
    Arguments {
        /// One by one.
        list: Vec<String>,
        /// Why the end of them is missing, if it is.
        cut: Option<String>,
    },
    /// It can't be had, and why.
    Missing(String),
}

/// The command line of the process whose memory `mm` describes.
pub(super) fn read(
    memory: &KernelMemory<'_>,
    layout: &Layout<AddressSpace>,
    mm: KVirtAddr,
    most: usize,
) -> Cmdline {
    let space = match layout.read(memory, mm) {
        Ok(space) => space,
        Err(why) => return Cmdline::Missing(why.to_string()),
    };
    let user = match UserMemory::new(memory, space.pgd) {
        Ok(user) => user,
        Err(why) => return Cmdline::Missing(plain(&why)),
    };
    let Some(len) = space.end.checked_sub(space.start).filter(|_| space.end < 1 << 63) else {
        return Cmdline::Missing(format!("it can't end at {:#x} before it begins", space.end));
    };
    let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(most);
    let mut bytes = vec![0; wanted];
    let mut cut =
        (u64::try_from(wanted) != Ok(len)).then(|| format!("only {wanted} of {len} bytes are read"));
    if let Err((done, why)) = user.read(UVirtAddr(space.start), &mut bytes) {
        if done == 0 {
            return Cmdline::Missing(plain(&why));
        }
        bytes.truncate(done);
        cut = Some(plain(&why));
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    let text = |argument: &[u8]| String::from_utf8_lossy(argument).into_owned();
    let list = if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == 0).map(text).collect() };
    Cmdline::Arguments { list, cut }
}

/// A reason without the address, which is the process's and no kernel address.
fn plain(why: &MemError) -> String {
    match why {
        MemError::NotMapped { level, .. } => format!("its page is swapped out or was never there ({level})"),
        MemError::Table { level, source, .. } => format!("its {level} is unreadable: {source}"),
        MemError::Page { source, .. } => source.to_string(),
        MemError::OutOfRange { .. } => "it leaves the address space".into(),
    }
}
