//! The kernel's description of itself: symbols, types, modules, structures and containers, in memory that the tests compose.

#[cfg(test)]
mod btf;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod kallsyms;
#[cfg(test)]
mod modules;
#[cfg(test)]
mod ram;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sheaves;
#[cfg(test)]
mod values;
