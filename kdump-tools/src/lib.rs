//! kdt, the kernel-crash and memory-dump triage toolkit.
