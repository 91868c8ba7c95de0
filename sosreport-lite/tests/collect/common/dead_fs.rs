//! A real filesystem whose files open and then never answer: a FUSE server that leaves each read without a
//! reply. Who reads them sits in D state, and not even SIGKILL ends it, until the connection is gone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const DIRECT_IO: u32 = 1;

/// Mounted until it goes.
pub(crate) struct DeadFs {
    at: PathBuf,
    read_seen: Arc<AtomicBool>,
}

impl DeadFs {
    /// Mounts it at `at`; `None`, with the reason told, where that is not possible.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let device = match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(e) => {
                println!("SKIPPED: /dev/fuse can't be opened: {e}");
                return None;
            }
        };
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::empty()).unwrap();
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other");
        let mounted =
            Command::new("mount").args(["-i", "-t", "fuse", "-o", &options, "dead"]).arg(at).output();
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC).unwrap();
        match mounted {
            Ok(output) if output.status.success() => {
                let read_seen = Arc::new(AtomicBool::new(false));
                let seen = read_seen.clone();
                std::thread::spawn(move || serve(device, &seen));
                Some(Self { at: at.into(), read_seen })
            }
            Ok(output) => {
                println!("SKIPPED: FUSE can't be mounted: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(e) => {
                println!("SKIPPED: there is no mount program: {e}");
                None
            }
        }
    }
}

impl DeadFs {
    /// True once a read has reached the server: from then on not even a signal ends its reader.
    pub(crate) fn has_seen_a_read(&self) -> bool {
        self.read_seen.load(Ordering::Relaxed)
    }
}

impl Drop for DeadFs {
    fn drop(&mut self) {
        // -f ends the connection: those in D state come back with an error, and the server's read ends.
        let _ = Command::new("umount").arg("-f").arg(&self.at).output();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn serve(mut device: File, read_seen: &AtomicBool) {
    let mut buf = vec![0; 1 << 20];
    while let Ok(got) = device.read(&mut buf) {
        let word = |at: usize| u32::from_le_bytes(buf[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(buf[at..at + 8].try_into().unwrap());
        assert!(got >= 40);
        let (opcode, unique, node) = (word(4), long(8), long(16));
        let reply = match opcode {
            INIT => init(),
            LOOKUP => entry(),
            GETATTR => [&1_u64.to_le_bytes()[..], &[0; 8], &attributes(node)].concat(),
            OPEN => [&7_u64.to_le_bytes()[..], &DIRECT_IO.to_le_bytes(), &[0; 4]].concat(),
            OPENDIR => [&8_u64.to_le_bytes()[..], &[0; 8]].concat(),
            READ => {
                read_seen.store(true, Ordering::Relaxed);
                continue;
            }
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => {
                // ENOSYS
                let _ = device.write(&header(0, -38, unique));
                continue;
            }
        };
        let _ = device.write(&[header(reply.len(), 0, unique), reply].concat());
    }
}

fn header(len: usize, error: i32, unique: u64) -> Vec<u8> {
    let len = u32::try_from(len + 16).unwrap();
    [&len.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes()].concat()
}

fn init() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7_u32, 31, 0, 0, 0, 65_536, 1] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(64, 0);
    out
}

fn entry() -> Vec<u8> {
    let mut out = Vec::new();
    for long in [2_u64, 0, 1, 1] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&attributes(2));
    out
}

fn attributes(node: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for long in [node, 4096, 8, 0, 0, 0] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    let mode = if node == 1 { 0o40_755 } else { 0o100_755 };
    for word in [0_u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}
