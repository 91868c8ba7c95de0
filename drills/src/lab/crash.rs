//! Crashes one guest, and keeps everything that it left: raw material for any number of dumps.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{LabError, file_error};
use super::image::Image;
use super::kernel::Kernel;
use super::kit::Kit;
use super::makedumpfile::Makedumpfile;
use super::recipe::{CrashSpec, HostState, How, KdtRun, Trigger};
use super::stream::{elf_len, flattened_len};
use crate::world::{Accel, Disk, DumpFormat, Guest, GuestSpec, OnPanic};

/// The overall time of one guest. On two idle cores a crash takes 20 seconds under TCG.
const LIMIT: Duration = Duration::from_mins(7);
const BOOT: Duration = Duration::from_mins(3);
const DUMP: Duration = Duration::from_mins(2);
/// How many lines of a failure go into an error.
const LAST_WORDS: usize = 40;
/// How large the disks are that take the dump. They are sparse files: only what is written takes space.
const DISK: u64 = 64 << 30;

/// The disk whose host does not answer.
const STUCK_DISK: u64 = 16 << 20;

/// What a crashed guest left, in one folder.
#[derive(Clone, Debug)]
pub struct Crash {
    dir: PathBuf,
}

impl Crash {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// All that the guest wrote to its serial console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// The flattened stream that the capture kernel wrote; only with kdump.
    #[must_use]
    pub fn stream(&self) -> PathBuf {
        self.dir.join("stream")
    }

    /// `/proc/vmcore`, byte for byte; only with kdump.
    #[must_use]
    pub fn vmcore(&self) -> PathBuf {
        self.dir.join("vmcore")
    }

    /// What `kdt filter` wrote in the capture kernel; only where the crash has it.
    #[must_use]
    pub fn kdt(&self, run: KdtRun) -> PathBuf {
        self.dir.join(format!("kdt-{}", run.word()))
    }

    /// What QEMU wrote in this format; only from the host.
    #[must_use]
    pub fn qemu(&self, format: &str) -> PathBuf {
        self.dir.join(format!("qemu-{format}"))
    }
}

/// What a guest is booted with.
pub(super) struct Boot<'a> {
    pub(super) qemu: &'a Path,
    pub(super) accel: Accel,
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Image,
    /// A word that the guest writes into its kernel log before it fails.
    pub(super) mark: &'a str,
    pub(super) makedumpfile: &'a Makedumpfile,
    /// A disk whose content is a cpio archive with a `kdt` and its libraries, for the capture kernel.
    pub(super) kdt: Option<&'a Path>,
    /// What its failure needs beyond that.
    pub(super) kit: &'a Kit,
}

/// Boots the guest, lets it fail, and fills `dir`.
pub(super) fn crash(boot: &Boot<'_>, spec: &CrashSpec, formats: &[&str], dir: &Path) -> Result<(), LabError> {
    match &spec.how {
        How::Kdump { crashkernel, makedumpfile, kdt } => {
            let makedumpfile = makedumpfile.join(",");
            let orders = format!(
                "panic=-1 crashkernel={crashkernel} lab.do=kdump lab.makedumpfile={makedumpfile} lab.kdt={}",
                kdt.join(",")
            );
            kdump(boot, spec, &orders, dir)
        }
        How::Host { state, vmcoreinfo } => host(boot, spec, *state, *vmcoreinfo, formats, dir),
    }
}

/// How long it takes to come from nothing to user space; `None` where it does not within `limit`.
pub(super) fn measure_boot(boot: &Boot<'_>, limit: Duration) -> Result<Option<Duration>, LabError> {
    let dir = tempfile::tempdir().map_err(file_error("make a folder in", "/tmp"))?;
    let spec = GuestSpec {
        cmdline: "panic=-1 lab.do=poweroff".to_owned(),
        memory_mib: 256,
        cpus: 1,
        limit,
        ..guest(boot, dir.path())
    };
    let started = std::time::Instant::now();
    let guest = Guest::start(&spec)?;
    Ok(guest.wait_console("lab: first kernel", limit).ok().map(|()| started.elapsed()))
}

fn guest(boot: &Boot<'_>, dir: &Path) -> GuestSpec {
    GuestSpec {
        qemu: boot.qemu.to_owned(),
        accel: boot.accel,
        kernel: boot.kernel.image.clone(),
        initramfs: boot.image.initramfs.clone(),
        cmdline: String::new(),
        memory_mib: 0,
        cpus: 1,
        cpu: String::new(),
        disks: Vec::new(),
        devices: Vec::new(),
        on_panic: OnPanic::Leave,
        dir: dir.to_owned(),
        limit: LIMIT,
    }
}

fn cmdline(boot: &Boot<'_>, spec: &CrashSpec, orders: &str) -> String {
    let trigger = spec.trigger.words();
    // On a busy host the capture kernel may take TCG's timer for a broken one, and panic.
    format!("no_timer_check {} lab.mark={} lab.trigger={trigger} {orders}", spec.cmdline, boot.mark)
}

fn kdump(boot: &Boot<'_>, spec: &CrashSpec, orders: &str, dir: &Path) -> Result<(), LabError> {
    let (stream, vmcore) = (dir.join("stream"), dir.join("vmcore"));
    let runs: Vec<_> = match boot.kdt {
        Some(_) => KdtRun::ALL.map(|run| (run, dir.join(format!("kdt-{}", run.word())))).to_vec(),
        None => Vec::new(),
    };
    for disk in [&stream, &vmcore].into_iter().chain(runs.iter().map(|(_, path)| path)) {
        let file = File::create(disk).map_err(file_error("make", disk))?;
        file.set_len(DISK).map_err(file_error("make", disk))?;
    }
    // The socket's path has to be short, wherever the cache lies.
    let work = tempfile::tempdir().map_err(file_error("make a folder in", "/tmp"))?;
    let mut disks = vec![
        disk("stream", &stream, false),
        disk("boot", &boot.image.boot_disk, true),
        disk("vmcore", &vmcore, false),
    ];
    disks.extend(boot.kdt.map(|kdt| disk("kdt", kdt, true)));
    disks.extend(runs.iter().map(|(run, path)| disk(&format!("kdt-{}", run.word()), path, false)));
    disks.extend(boot.kit.disk.as_ref().map(|kit| disk("kit", kit, true)));
    let machine = GuestSpec {
        cmdline: cmdline(boot, spec, orders),
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        cpu: spec.cpu.clone(),
        disks,
        ..guest(boot, work.path())
    };
    let mut guest = Guest::start(&machine)?;
    guest.wait_console("lab: crashing", BOOT)?;
    if let Some(seconds) = spec.nmi_after {
        std::thread::sleep(Duration::from_secs(seconds));
        guest.qmp()?.execute("inject-nmi", serde_json::json!({}))?;
    }
    if let Some(monitor) = &spec.monitor {
        std::thread::sleep(Duration::from_secs(monitor.after));
        let line = serde_json::json!({ "command-line": monitor.line });
        guest.qmp()?.execute("human-monitor-command", line)?;
    }
    guest.wait_console("lab: capture kernel", BOOT)?;
    guest.wait_console("lab: captured", if runs.is_empty() { DUMP } else { DUMP * 2 })?;
    // The console's last words come after that; the guest powers itself off.
    let end = guest.wait_exit(Duration::from_mins(1));
    let tail = guest.tail();
    guest.stop();
    end?;
    keep_console(work.path(), dir)?;
    let console = fs::read(dir.join("console")).map_err(file_error("read", dir.join("console")))?;
    for step in ["makedumpfile", "copy"] {
        if !holds(&console, &format!("lab: {step} ends with 0")) {
            let why = format!("in the capture kernel, {step} ends badly");
            return Err(LabError::NoDump { why, console: tail });
        }
    }
    let text = String::from_utf8_lossy(&console);
    for (run, path) in &runs {
        let name = run.word();
        if !text.contains(&format!("lab: kdt {name} ends with {}", run.exit())) {
            let why = format!("in the capture kernel, kdt {name} ends otherwise than with {}", run.exit());
            return Err(LabError::NoDump { why, console: tail });
        }
        let said =
            text.rsplit_once(&format!("lab: kdt {name} has ")).and_then(|(_, rest)| rest.split_once(' '));
        let said = said.and_then(|(bytes, _)| bytes.parse().ok());
        trim(path, &format!("what kdt {name} wrote is not whole"), &tail, |file| match run {
            KdtRun::Stream => flattened_len(file),
            KdtRun::File | KdtRun::Part => Ok(said),
        })?;
    }
    trim(&stream, "the flattened stream has no end mark", &tail, flattened_len)?;
    trim(&vmcore, "the copy of /proc/vmcore is not whole", &tail, elf_len)?;
    if spec.says.is_empty() || holds(&console, &spec.says) {
        return Ok(());
    }
    // What is said in an NMI or a double fault gets into the kernel log, but no more to the console.
    let path = work.path().join("dmesg");
    boot.makedumpfile.dmesg(&vmcore, &path)?;
    let log = fs::read(&path).unwrap_or_default();
    if holds(&log, &spec.says) {
        return Ok(());
    }
    let why = format!("it has failed, but without saying «{}»", spec.says);
    Err(LabError::NoDump { why, console: last_words(&String::from_utf8_lossy(&log)) })
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// The end of a kernel log.
fn last_words(log: &str) -> String {
    let mut lines: Vec<&str> = log.lines().rev().take(LAST_WORDS).collect();
    lines.reverse();
    lines.join("\n")
}

fn disk(serial: &str, path: &Path, read_only: bool) -> Disk {
    Disk { serial: serial.to_owned(), path: path.to_owned(), read_only, stuck: false }
}

/// Cuts a disk to the dump at its beginning.
fn trim(
    path: &Path,
    why: &str,
    console: &str,
    len: impl FnOnce(&File) -> std::io::Result<Option<u64>>,
) -> Result<(), LabError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(file_error("open", path))?;
    let len = len(&file)
        .map_err(file_error("read", path))?
        .ok_or_else(|| LabError::NoDump { why: why.to_owned(), console: console.to_owned() })?;
    file.set_len(len).map_err(file_error("cut", path))
}

fn host(
    boot: &Boot<'_>,
    spec: &CrashSpec,
    state: HostState,
    vmcoreinfo: bool,
    formats: &[&str],
    dir: &Path,
) -> Result<(), LabError> {
    if vmcoreinfo && !boot.image.has_fw_cfg {
        return Err(LabError::Content {
            path: boot.kernel.modules.clone(),
            why: "the kernel has no `qemu_fw_cfg`, so that it cannot hand over its VMCOREINFO".to_owned(),
        });
    }
    let work = tempfile::tempdir().map_err(file_error("make a folder in", "/tmp"))?;
    let (order, sign) = match state {
        // The last line of a panic: all CPUs have stopped by then.
        HostState::Panicked => ("panic", "---[ end Kernel panic"),
        HostState::Running => ("idle", "lab: idle"),
        HostState::Hung => ("panic", spec.says.as_str()),
        HostState::Capturing => ("kdump", "lab: holding"),
    };
    let mut devices = vec!["pvpanic".to_owned()];
    if vmcoreinfo {
        devices.push("vmcoreinfo".to_owned());
    }
    let mut disks = Vec::new();
    if state == HostState::Capturing {
        disks.push(disk("boot", &boot.image.boot_disk, true));
    }
    disks.extend(boot.kit.disk.as_ref().map(|kit| disk("kit", kit, true)));
    let stuck = spec.trigger == Trigger::Storage("host".to_owned());
    if stuck {
        let path = work.path().join("stuck");
        let file = File::create(&path).map_err(file_error("make", &path))?;
        file.set_len(STUCK_DISK).map_err(file_error("make", &path))?;
        disks.push(Disk { stuck: true, ..disk("stuck", &path, false) });
    }
    let machine = GuestSpec {
        cmdline: cmdline(boot, spec, &format!("lab.do={order}")),
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        cpu: spec.cpu.clone(),
        devices,
        disks,
        on_panic: OnPanic::Pause,
        ..guest(boot, work.path())
    };
    let mut guest = Guest::start(&machine)?;
    let mut qmp = guest.qmp()?;
    match state {
        HostState::Panicked => {
            guest.wait_console("lab: crashing", BOOT)?;
            // pvpanic pauses the guest in the middle of its panic, before the last line of it.
            loop {
                if qmp.status()? == "guest-panicked" {
                    break;
                }
                match guest.wait_console(sign, Duration::from_millis(500)) {
                    Ok(()) => break,
                    Err(crate::world::GuestError::Time { .. }) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        HostState::Running | HostState::Hung | HostState::Capturing => {
            guest.wait_console(sign, BOOT)?;
            // It has to have run for some seconds, so that its own work is in its memory.
            std::thread::sleep(Duration::from_secs(5));
        }
    }
    // QEMU finishes all block I/O when it stops a guest, and it does that for a dump: what a stuck disk's memory is worth is read
    // before.
    let before = work.path().join("memory");
    if stuck {
        let bytes = u64::from(spec.memory_mib) << 20;
        let order = serde_json::json!({ "val": 0, "size": bytes, "filename": before });
        qmp.execute("pmemsave", order)?;
    }
    for format in formats {
        let path = dir.join(format!("qemu-{format}"));
        qmp.dump_guest_memory(&path, &DumpFormat((*format).to_owned()), DUMP)?;
        if stuck {
            put_back(&before, &path)?;
        }
    }
    guest.stop();
    keep_console(work.path(), dir)
}

/// Puts memory that was read before into a dump's ELF, segment by segment; what it does not have stays as it is.
fn put_back(memory: &Path, dump: &Path) -> Result<(), LabError> {
    let memory = fs::read(memory).map_err(file_error("read", memory))?;
    let mut image = fs::read(dump).map_err(file_error("read", dump))?;
    let word = |image: &[u8], at: usize, bytes: usize| -> Option<usize> {
        let mut wide = [0; 8];
        wide.get_mut(..bytes)?.copy_from_slice(image.get(at..at + bytes)?);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    };
    let headers = || Some((word(&image, 32, 8)?, word(&image, 54, 2)?, word(&image, 56, 2)?));
    let (first, size, count) = headers().ok_or_else(|| LabError::Content {
        path: dump.to_owned(),
        why: "it is no ELF, so that memory can't be put into it".to_owned(),
    })?;
    for number in 0..count {
        let at = first + number * size;
        let segment = || {
            Some((
                word(&image, at, 4)?,
                word(&image, at + 8, 8)?,
                word(&image, at + 24, 8)?,
                word(&image, at + 32, 8)?,
            ))
        };
        let Some((1, offset, start, bytes)) = segment() else { continue };
        let end = start.saturating_add(bytes).min(memory.len());
        let Some(from) = memory.get(start..end) else { continue };
        if let Some(to) = image.get_mut(offset..offset + from.len()) {
            to.copy_from_slice(from);
        }
    }
    fs::write(dump, image).map_err(file_error("write", dump))
}

fn keep_console(work: &Path, dir: &Path) -> Result<(), LabError> {
    let (from, to) = (work.join("console"), dir.join("console"));
    fs::copy(&from, &to).map(|_| ()).map_err(file_error("keep", &to))
}
