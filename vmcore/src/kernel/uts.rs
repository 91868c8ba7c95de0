//! `init_uts_ns`: what `uname -a` says on the dumped machine.

use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::xlat::KernelMemory;

/// Bytes of each member of `struct new_utsname` (`__NEW_UTS_LEN` + 1).
const FIELD: usize = 65;

/// `struct new_utsname`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uts {
    /// Always `Linux`.
    pub sysname: String,
    /// The host name.
    pub nodename: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -v`: build number, configuration and date.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// The NIS domain name, mostly `(none)`.
    pub domainname: String,
}

/// Why there is no [`Uts`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UtsError {
    /// VMCOREINFO does not say where it is.
    #[error("VMCOREINFO has no SYMBOL(init_uts_ns)")]
    NoSymbol,
    /// It can't be read.
    #[error("init_uts_ns can't be read: {0}")]
    Unreadable(#[from] MemError),
    /// What is there is not a utsname.
    #[error("what is at {at}, where init_uts_ns should be, does not begin with «Linux»")]
    NotUts {
        /// Where.
        at: KVirtAddr,
    },
}

/// Reads the initial namespace's names.
///
/// # Errors
/// [`UtsError`], in each case for the whole structure.
pub fn read(memory: &KernelMemory<'_>, info: &Vmcoreinfo) -> Result<Uts, UtsError> {
    let symbol = info.symbol("init_uts_ns").ok_or(UtsError::NoSymbol)?;
    // Kernels before 4.17 do not export the offset. The names followed a 4-byte kref then, and come first since 5.11.
    let offsets = match info.offset("uts_namespace.name") {
        Some(offset) => vec![offset],
        None => vec![4, 0],
    };
    let mut first_error = None;
    for offset in offsets {
        let at = symbol.checked_add(offset).ok_or(UtsError::NotUts { at: symbol })?;
        let mut bytes = [0; FIELD * 6];
        match memory.read(at, &mut bytes) {
            Err(e) => {
                first_error.get_or_insert(UtsError::Unreadable(e));
            }
            Ok(()) => match parse(&bytes) {
                Some(uts) => return Ok(uts),
                None => {
                    first_error.get_or_insert(UtsError::NotUts { at });
                }
            },
        }
    }
    Err(first_error.unwrap_or(UtsError::NoSymbol))
}

fn parse(bytes: &[u8]) -> Option<Uts> {
    let mut fields = bytes.chunks(FIELD).map(|field| {
        let text = field.split(|b| *b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    });
    let sysname = fields.next().filter(|s| s == "Linux")?;
    Some(Uts {
        sysname,
        nodename: fields.next()?,
        release: fields.next()?,
        version: fields.next()?,
        machine: fields.next()?,
        domainname: fields.next()?,
    })
}
