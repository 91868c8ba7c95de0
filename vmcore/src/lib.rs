//! Reads Linux kernel memory dumps: opens them, translates addresses, and says what happened.
//!
//! Data flows one way, and a module uses only what stands before it:
//! `addr, limits, progress, error → raw → source → format → mem → xlat → sym → kernel → unwind → report → analysis → filter → scrub → write`.
//!
//! - [`Dump`] opens a dump of any container ([`Dump::open`], [`Dump::open_set`]), tells of itself
//!   ([`Facts`], [`Completeness`], registers, notes), and is the machine's [`PhysicalMemory`].
//! - [`addr`] has the typed addresses, [`error`] says why a file can't be opened and why a page is not there.
//! - [`sym`] has the kernel's own symbols and types, read from the dump itself; [`kernel::describe`] brings them together.
//! - [`mod@check`] decodes every page and says which are bad.
//! - [`distill`] plans which frames are enough for the analyses.
//! - [`scrub`] plans which bytes are erased, and proves that they are.
//! - [`unwind`] has the stacks of tasks and CPUs.
//! - [`source`] has bytes at an offset, [`format`](mod@format) what each format says of itself, [`raw`] the layouts.
//!
//! ```
//! use std::sync::Arc;
//! use vmcore::addr::PhysAddr;
//! use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};
//!
//! // The smallest ELF vmcore: a header, one program header, one page of memory at 1 MiB.
//! let mut file = vec![0u8; 0x1000];
//! file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
//! file[16] = 4; // ET_CORE
//! file[18] = 62; // EM_X86_64
//! file[32] = 64; // e_phoff
//! file[54] = 56; // e_phentsize
//! file[56] = 1; // e_phnum
//! file[64] = 1; // PT_LOAD
//! file[64 + 9] = 0x10; // p_offset 0x1000
//! file[64 + 26] = 0x10; // p_paddr 0x100000
//! file[64 + 33] = 0x10; // p_filesz 0x1000
//! file[64 + 41] = 0x20; // p_memsz 0x2000: the second page was left out
//! file.extend([b'K'; 0x1000]);
//!
//! let dump = Dump::from_source(Arc::new(file), "vmcore", &OpenOptions::default())?;
//! assert_eq!((dump.facts().format, dump.facts().arch.name()), ("elf", "x86_64"));
//! assert_eq!((dump.completeness().present_pages, dump.completeness().excluded_pages), (1, 1));
//!
//! let mut four = [0; 4];
//! dump.read(PhysAddr(0x10_0800), &mut four)?;
//! assert_eq!(&four, b"KKKK");
//! let left_out = PhysAddr(0x10_1000);
//! assert_eq!(dump.state(left_out.pfn(4096).unwrap()), PageState::Excluded);
//! assert!(dump.read(left_out, &mut four).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]
#![cfg_attr(
    test,
    expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tests build small inputs from numbers that fit"
    )
)]

pub mod addr;
pub mod analysis;
pub mod check;
pub mod distill;
pub mod error;
pub mod filter;
pub mod format;
pub mod kernel;
pub mod limits;
pub mod mem;
pub mod progress;
pub mod raw;
pub mod report;
pub mod scrub;
pub mod source;
pub mod sym;
pub mod unwind;
pub mod write;
pub mod xlat;

pub use mem::{Completeness, Dump, Facts, OpenOptions, PageState, PhysicalMemory};
