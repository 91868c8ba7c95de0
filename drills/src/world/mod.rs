//! The world in which a rehearsal plays: guests under QEMU.

pub mod guest;
pub mod qmp;

pub use guest::{Accel, Disk, Guest, GuestError, GuestSpec, OnPanic};
pub use qmp::{DumpFormat, Qmp, QmpError};
