//! Disks, network, control groups, mounts, files, timers, interrupts, workqueues, settings, run queues and BPF, by drgn and crash.

use super::compare_with_drgn;

#[test]
fn subsystems_are_those_of_drgn_and_crash_with_debuginfo() {
    compare_with_drgn("fixtures/foreign/subsystems.py", "differ", true);
}
