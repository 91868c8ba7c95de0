//! The collector against real programs, real filesystems and a full disk.

#[cfg(test)]
mod bundle;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod common;
#[cfg(test)]
mod files;
