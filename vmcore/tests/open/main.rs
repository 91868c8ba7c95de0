//! Opening dumps of every container, sound and damaged.
#![cfg(test)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the inputs are small numbers that fit"
)]

#[cfg(test)]
mod build;
#[cfg(test)]
mod check;
#[cfg(test)]
mod elf;
#[cfg(test)]
mod kdump;
#[cfg(test)]
mod set;
