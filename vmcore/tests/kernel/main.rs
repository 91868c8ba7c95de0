//! A whole kernel in a few pages: found, translated, and its log read, from memory that `fixtures` builds by its own tables.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod log;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod open;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod translate;
