//! Collects the facts of a host that matter after a kernel crash.
