//! Stacks: ORC tables in every form, over memory that the tests compose, and of a real crash.

#[cfg(test)]
mod forms;
#[cfg(test)]
mod hostile;
#[cfg(test)]
#[path = "../symbols/ram.rs"]
mod ram;
#[cfg(test)]
mod real;
#[cfg(test)]
mod slab;
