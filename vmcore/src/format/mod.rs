//! What each dump format says of itself: headers, notes, how a page is stored.
//!
//! Nothing here translates an address or knows a kernel type. Where a damaged header makes a guess necessary,
//! the guess is recorded as a sentence in the `repairs` of what was read.

mod arch;
mod codec;
pub mod detect;
pub mod diskdump;
pub mod elf;
pub mod lzo;
pub mod notes;
pub mod prstatus;
pub mod qemu_cpu;
pub mod vmcoreinfo;

pub use arch::Arch;
pub use codec::{Codec, decode};
pub use prstatus::{PrStatus, Registers};
pub use qemu_cpu::{QemuCpu, QemuSegment};
