//! What a dumped kernel knows of its machine and its modules, on a real crash of Debian's 6.1 and on damaged copies of its memory.

#[cfg(test)]
mod damaged;
#[cfg(test)]
mod handed_over;
#[cfg(test)]
mod ram;
#[cfg(test)]
mod real;
