//! What must not leave the house: which bytes of which frames hold it, found by the dumped kernel's own objects.
//!
//! [`plan`] walks the objects before anything is written and gives the bytes to erase ([`Blanks`]), frames that are not written at
//! all, and for each [`What`] an account: how much, and what could not be reached and why. Whoever writes erases each page as it is
//! read. [`search`] then looks for what must not be there any more. Nothing here says that something is clean whose objects
//! could not be found.

mod args;
mod blanks;
mod eraser;
mod files;
mod keys;
mod names;
mod neighbours;
mod net;
mod pipes;
mod search;
mod slabs;
mod text;
mod tty;
mod user;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use blanks::{Blanks, FILL};
pub use search::{Canary, Found, Hit, search};
pub use text::{Pattern, PatternError};

use crate::filter::Classes;
use crate::kernel::Kernel;
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::reader::Reader;
use crate::kernel::task;
use crate::limits::Limits;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use eraser::Eraser;

/// What is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// Memory of processes, page cache and free pages: not written at all.
    User,
    /// Arguments and environments of processes.
    Args,
    /// Payloads of keys.
    Keys,
    /// Data of network packets.
    Net,
    /// What was typed at, and sent to, terminals.
    Tty,
    /// Data in pipes.
    Pipes,
    /// Names of files.
    Names,
    /// Texts and patterns that somebody named.
    Strings,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Args, Self::Keys, Self::Net, Self::Tty, Self::Pipes, Self::Names, Self::Strings];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Args => "args",
            Self::Keys => "keys",
            Self::Net => "net",
            Self::Tty => "tty",
            Self::Pipes => "pipes",
            Self::Names => "names",
            Self::Strings => "strings",
        }
    }

    /// What it is never meant to reach, so that nobody believes that it does.
    #[must_use]
    pub fn limits(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "registers that processes had when they entered the kernel, on kernel stacks",
                "copies that the kernel itself holds: names of files, buffers of drivers",
            ],
            Self::Args => &[
                "copies elsewhere in the memory of processes: user erases those",
                "what was swapped out; the kernel's own command line",
            ],
            Self::Keys => &[
                "keys that drivers, filesystems and the crypto layer hold in their own objects",
                "descriptions and types of keys; keyrings; certificates, which are public",
            ],
            Self::Net => &[
                "packets in the rings of drivers that are not in a socket buffer yet",
                "old bytes of page fragments around those that are in use",
                "addresses and ports in sockets",
            ],
            Self::Tty => &["contents of the screen (virtual consoles, framebuffers)", "buffers of drivers"],
            Self::Pipes => &["what was spliced from a file stays in that file's page cache: user erases it"],
            Self::Names => &["names of processes (comm), of mounts and of devices"],
            Self::Strings => &[
                "a text that is cut in two by pages that are neighbours in a file only, which no process maps",
                "the same text in another form: compressed, encoded, in another character set",
            ],
        }
    }
}

/// What somebody wants erased.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By kind of object.
    pub what: BTreeSet<What>,
    /// Texts and patterns.
    pub patterns: Vec<Pattern>,
}

impl Wanted {
    /// True where nothing is to be erased.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.what.is_empty() && self.patterns.is_empty()
    }

    /// Erases the texts and patterns in what a dump says beside its pages. True where one was there.
    pub fn erase_in(&self, bytes: &mut [u8]) -> bool {
        let hits: Vec<_> =
            self.patterns.iter().flat_map(|pattern| pattern.hits(bytes).collect::<Vec<_>>()).collect();
        for hit in &hits {
            if let Some(bytes) = bytes.get_mut(hit.clone()) {
                bytes.fill(FILL);
            }
        }
        !hits.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = What> {
        let wants =
            |what: &What| self.what.contains(what) || (*what == What::Strings && !self.patterns.is_empty());
        What::ALL.into_iter().filter(wants)
    }
}

/// The account of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Which.
    pub what: What,
    /// Objects of the kernel, or hits of a text, that were looked at.
    pub objects: u64,
    /// Pieces of memory that are erased.
    pub ranges: u64,
    /// Bytes that are erased.
    pub bytes: u64,
    /// Pages of which something is erased.
    pub pages: u64,
    /// Pages that are not written at all.
    pub left_out: u64,
    /// Bytes of these objects that the new dump does not have anyhow.
    pub absent: u64,
    /// What could not be reached, and why: sentences, the first of them.
    pub not_scrubbed: Vec<String>,
    /// How many such things there are.
    pub not_scrubbed_count: u64,
}

/// What is erased, and what not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The bytes.
    pub blanks: Arc<Blanks>,
    /// An account for each kind that was asked for.
    pub accounts: Vec<Account>,
    /// Beginnings of what is erased, which must not be found in the new dump.
    pub samples: Vec<Canary>,
}

impl Plan {
    /// True where all that was asked for could be reached.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.accounts.iter().all(|account| account.not_scrubbed_count == 0)
    }

    /// The text that names what was erased, one line for each kind, in the form of makedumpfile's: `erase WHAT SIZE`.
    #[must_use]
    pub fn erase_info(&self) -> String {
        let size = |account: &Account| account.bytes;
        self.accounts.iter().fold(String::new(), |text, account| {
            let partly = if account.not_scrubbed_count == 0 { "" } else { ".partly" };
            text + &format!("erase kdt.{}{partly} {}\n", account.what.name(), size(account))
        })
    }
}

/// Finds what is to be erased among the kept frames of `classes`; those that are not to be written at all are taken out of them.
/// Where `cancel` is asked for, the plan is not whole, and says so.
#[must_use]
pub fn plan(
    dump: &Dump,
    kernel: &Kernel<'_>,
    classes: &mut Classes,
    wanted: &Wanted,
    limits: &Limits,
    (cancel, progress): (&Cancel, &dyn Progress),
) -> Plan {
    progress.step("find what is to be erased", None);
    let memory = kernel.memory();
    let description = Description::load(memory, kernel.vmcoreinfo(), limits);
    let (per_cpu, cpus) = match PerCpu::read(memory, &description.symbols, limits) {
        Ok(per_cpu) => (per_cpu, None),
        Err(why) => (PerCpu::default(), Some(why.to_string())),
    };
    let page_size = dump.page_size();
    let source = Reader::new(memory, &description, &per_cpu, limits, page_size);
    let tasks = task::read(memory, &description, &per_cpu, limits);
    let mut left_out = Vec::new();
    if wanted.what.contains(&What::User) {
        left_out.push(user::leave_out(dump, kernel, &source, classes, (cancel, progress)));
    }
    let mut eraser = Eraser::new(source, &classes.kept, dump, cancel);
    let mut freed = false;
    for what in wanted.all() {
        eraser.begin(what);
        if let (Some(why), true) = (&cpus, what != What::Strings) {
            eraser.trouble("CPUs", why);
        }
        let done = match what {
            What::User => {
                if let Some(left) = left_out.pop() {
                    user::account(&mut eraser, left);
                }
                Ok(())
            }
            What::Args => args::erase(&mut eraser, &tasks),
            What::Keys => keys::erase(&mut eraser),
            What::Net => net::erase(&mut eraser),
            What::Tty => tty::erase(&mut eraser, &tasks),
            What::Pipes => {
                pipes::erase(&mut eraser, &tasks);
                Ok(())
            }
            What::Names => names::erase(&mut eraser),
            What::Strings => text::erase(&mut eraser, &wanted.patterns, &tasks, progress),
        };
        if let Err(why) = done {
            eraser.trouble("all of it", &why);
        }
        // Once for all whose objects come from these caches: in the account of the first.
        if matches!(what, What::Keys | What::Net | What::Tty)
            && !std::mem::replace(&mut freed, true)
            && let Err(why) = slabs::erase_free(&mut eraser)
        {
            eraser.trouble("freed objects", &why);
        }
        if cancel.is_cancelled() {
            eraser.trouble("the rest", "it was interrupted");
        }
    }
    eraser.finish()
}
