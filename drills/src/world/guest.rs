//! One guest: a QEMU process with a serial console in a file and a QMP socket.
//!
//! A thread of its own starts QEMU, watches it, and ends it: when the [`Guest`] is dropped, when the time is
//! over, or (by the parent-death signal of `setpriv`) when this process itself is killed. The signal belongs
//! to the thread that started the process, which is why that thread stays as long as the guest.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::qmp::{Qmp, QmpError};

const POLL: Duration = Duration::from_millis(50);
/// The longest path that fits into a socket's address, less its final zero (Linux: `struct sockaddr_un`).
const SOCKET_PATH: usize = 107;
/// How much of the console goes into an error.
const TAIL_LINES: usize = 24;
/// How much of the console is searched at a time.
const CONSOLE: u64 = 8 << 20;

/// How a guest's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor. Inside another virtual machine it may be there and be slower than [`Accel::Tcg`].
    Kvm,
    /// By QEMU's translator: always there.
    Tcg,
}

impl Accel {
    /// QEMU's `-accel`.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }
}

/// What QEMU does when the guest panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// It keeps the memory, paused.
    Pause,
    /// Nothing; the guest's own kernel decides (a capture kernel, a reboot that ends QEMU).
    Leave,
}

/// A disk of a guest.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What the guest reads in `/sys/block/*/serial`.
    pub serial: String,
    /// The raw image.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether the host takes the first write and then lets hours pass before the next.
    pub stuck: bool,
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// How it runs.
    pub accel: Accel,
    /// The kernel image.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// Its command line, without `console=`.
    pub cmdline: String,
    /// Its memory.
    pub memory_mib: u32,
    /// Its CPUs.
    pub cpus: u32,
    /// What is added to `-cpu max`, for example `la57=off`; may be empty.
    pub cpu: String,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// QEMU's `-device`, for example `vmcoreinfo`.
    pub devices: Vec<String>,
    /// What a panic does.
    pub on_panic: OnPanic,
    /// The folder for the console, the socket and QEMU's own messages: `console`, `qmp`, `qemu.log`.
    pub dir: PathBuf,
    /// After this time it is ended, whatever it does.
    pub limit: Duration,
}

/// Why a guest does not do what is expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// QEMU cannot be started.
    #[error("cannot start the guest: {0}")]
    Start(io::Error),
    /// The folder's name is too long for a socket.
    #[error("the guest's socket {} has more than {SOCKET_PATH} bytes in its path", path.display())]
    SocketPath {
        /// The socket.
        path: PathBuf,
    },
    /// QEMU ended while something was expected of the guest.
    #[error("the guest ended ({status}) before `{waiting_for}`; QEMU says: {qemu}")]
    Ended {
        /// QEMU's exit status.
        status: String,
        /// What was being waited for.
        waiting_for: String,
        /// The end of what QEMU itself printed.
        qemu: String,
        /// The end of the console.
        console: String,
    },
    /// Something took too long.
    #[error("the guest has not come to `{waiting_for}` within {limit:?}")]
    Time {
        /// What was being waited for.
        waiting_for: String,
        /// For how long.
        limit: Duration,
        /// The end of the console.
        console: String,
    },
    /// The console cannot be read.
    #[error("cannot read the guest's console: {0}")]
    Console(io::Error),
}

impl GuestError {
    /// The next step.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Start(_) => "install QEMU with `apt-get install qemu-system-x86`".to_owned(),
            Self::SocketPath { .. } => "set TMPDIR to a shorter path".to_owned(),
            Self::Ended { console, .. } | Self::Time { console, .. } if !console.is_empty() => {
                format!("the console's last lines are:\n{console}")
            }
            _ => {
                "the console is empty: the guest's kernel has not started; see QEMU's words above".to_owned()
            }
        }
    }
}

/// A guest that runs, or has run. Dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    dir: PathBuf,
    pid: u32,
    end: Arc<Mutex<Option<ExitStatus>>>,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Guest {
    /// Starts it.
    ///
    /// # Errors
    /// [`GuestError::Start`] where there is no QEMU, [`GuestError::SocketPath`] for a folder with too long a
    /// name. That QEMU refuses the guest shows later, as [`GuestError::Ended`].
    pub fn start(spec: &GuestSpec) -> Result<Self, GuestError> {
        let socket = spec.dir.join("qmp");
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(GuestError::SocketPath { path: socket });
        }
        let mut command = command(spec).map_err(GuestError::Start)?;
        let end = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let deadline = Instant::now() + spec.limit;
        let ended = Arc::clone(&end);
        let keeper = std::thread::Builder::new()
            .name("guest".to_owned())
            .spawn(move || match command.spawn() {
                Err(e) => {
                    let _ = started.send(Err(e));
                }
                Ok(mut child) => {
                    let _ = started.send(Ok(child.id()));
                    let status = keep(&mut child, &stopped, deadline);
                    *ended.lock().unwrap_or_else(PoisonError::into_inner) = status;
                }
            })
            .map_err(GuestError::Start)?;
        let pid = start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it is gone")))
            .map_err(GuestError::Start)?;
        Ok(Self { dir: spec.dir.clone(), pid, end, stop: Some(stop), keeper: Some(keeper) })
    }

    /// The file with all that the guest wrote to its serial console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How QEMU ended, or `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        if self.keeper.as_ref().is_some_and(|k| !k.is_finished()) {
            return None;
        }
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the console holds `text`.
    ///
    /// # Errors
    /// [`GuestError::Ended`] or [`GuestError::Time`], each with the end of the console.
    pub fn wait_console(&self, text: &str, limit: Duration) -> Result<(), GuestError> {
        let deadline = Instant::now() + limit;
        let mut from = 0_u64;
        loop {
            // Asked before the console is read: what it wrote last is then surely in the file.
            let gone = self.keeper.as_ref().is_none_or(JoinHandle::is_finished);
            let (found, read) = find_from(&self.console(), from, text).map_err(GuestError::Console)?;
            if found {
                return Ok(());
            }
            from = from.max(read.saturating_sub(text.len() as u64));
            if gone {
                return Err(self.ended(text));
            }
            if Instant::now() >= deadline {
                return Err(GuestError::Time { waiting_for: text.to_owned(), limit, console: self.tail() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until QEMU has ended by itself.
    ///
    /// # Errors
    /// [`GuestError::Time`] where it has not.
    pub fn wait_exit(&self, limit: Duration) -> Result<(), GuestError> {
        let deadline = Instant::now() + limit;
        while !self.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                let waiting_for = "power off".to_owned();
                return Err(GuestError::Time { waiting_for, limit, console: self.tail() });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Connects to QEMU.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub fn qmp(&self) -> Result<Qmp, QmpError> {
        Qmp::connect(&self.dir.join("qmp"), Duration::from_secs(30))
    }

    /// The last lines of the console.
    #[must_use]
    pub fn tail(&self) -> String {
        last_lines(&self.console())
    }

    /// Ends it now, and waits until it is gone.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            // A thread that panicked has dropped its child's handle; nothing more can be done here.
            let _ = keeper.join();
        }
    }

    fn ended(&self, waiting_for: &str) -> GuestError {
        let status = self.exit_status().map_or_else(|| "killed".to_owned(), |s| s.to_string());
        let qemu = fs::read(self.dir.join("qemu.log")).unwrap_or_default();
        let qemu = crate::lab::process::tail(&qemu);
        GuestError::Ended {
            status,
            waiting_for: waiting_for.to_owned(),
            qemu: if qemu.is_empty() { "nothing".to_owned() } else { qemu },
            console: self.tail(),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Watches the child until it ends, the time is over, or the [`Guest`] is dropped.
fn keep(child: &mut Child, stopped: &mpsc::Receiver<()>, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        match stopped.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            _ => {
                // It may be gone already; then there is nothing to end.
                let _ = child.kill();
                return child.wait().ok();
            }
        }
    }
}

fn command(spec: &GuestSpec) -> io::Result<Command> {
    let log = File::create(spec.dir.join("qemu.log"))?;
    // An empty console, so that it can be read before QEMU opens it.
    File::create(spec.dir.join("console"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&spec.qemu);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-accel", spec.accel.option()]);
    let cpu = if spec.cpu.is_empty() { "max".to_owned() } else { format!("max,{}", spec.cpu) };
    command.args(["-cpu", &cpu, "-m", &format!("{}M", spec.memory_mib)]);
    command.args(["-smp", &spec.cpus.to_string()]);
    command.arg("-kernel").arg(&spec.kernel).arg("-initrd").arg(&spec.initramfs);
    command.args(["-append", &format!("console=ttyS0 {}", spec.cmdline)]);
    command.args(["-serial", &format!("file:{}", option(&spec.dir.join("console")))]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", option(&spec.dir.join("qmp")))]);
    for disk in &spec.disks {
        let (id, read_only) = (&disk.serial, if disk.read_only { "on" } else { "off" });
        command.args([
            "-drive",
            &format!(
                "id={id},file={},if=none,format=raw,cache=unsafe,readonly={read_only}{}",
                option(&disk.path),
                // By the byte: after a write of 64 KiB comes none for 18 hours.
                if disk.stuck { ",throttling.bps-write=1" } else { "" }
            ),
        ]);
        command.args(["-device", &format!("virtio-blk-pci,drive={id},serial={id}")]);
    }
    for device in &spec.devices {
        command.args(["-device", device]);
    }
    if spec.on_panic == OnPanic::Pause {
        command.args(["-action", "panic=pause"]);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// A path inside one of QEMU's options, where a comma is written twice.
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Whether `text` stands in the file past `from`, and how far the file was read.
fn find_from(path: &Path, from: u64, text: &str) -> io::Result<(bool, u64)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    let read = file.take(CONSOLE).read_to_end(&mut bytes)? as u64;
    let found = bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    Ok((found, from + read))
}

fn last_lines(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let text = lines.get(from..).unwrap_or_default().join("\n");
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A spec whose QEMU is a shell script.
    fn spec(dir: &Path, script: &str) -> GuestSpec {
        let qemu = dir.join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\nconsole={}/console\n{script}\n", dir.display())).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        GuestSpec {
            qemu,
            accel: Accel::Tcg,
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs"),
            cmdline: "quiet".to_owned(),
            memory_mib: 256,
            cpus: 2,
            cpu: String::new(),
            disks: Vec::new(),
            devices: Vec::new(),
            on_panic: OnPanic::Leave,
            dir: dir.to_owned(),
            limit: Duration::from_mins(1),
        }
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_guest_that_is_dropped_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::start(&spec(dir.path(), "echo up >$console; exec sleep 1000")).unwrap();
        guest.wait_console("up", Duration::from_secs(20)).unwrap();
        let pid = guest.pid();
        assert!(alive(pid));
        drop(guest);
        assert!(!alive(pid));
    }

    #[test]
    fn a_guest_past_its_time_is_gone_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "exec sleep 1000");
        spec.limit = Duration::from_millis(200);
        let guest = Guest::start(&spec).unwrap();
        guest.wait_exit(Duration::from_secs(20)).unwrap();
        assert!(!alive(guest.pid()));
    }

    #[test]
    fn an_early_end_quotes_qemu_and_the_console() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo 'Kernel panic' >$console; echo 'no such machine' >&2; exit 1";
        let guest = Guest::start(&spec(dir.path(), script)).unwrap();
        let err = guest.wait_console("login:", Duration::from_secs(20)).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the guest ended (exit status: 1) before `login:`; QEMU says: no such machine"
        );
        assert!(err.hint().ends_with("Kernel panic"), "{}", err.hint());
    }

    #[test]
    fn a_word_that_does_not_come_is_an_error_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::start(&spec(dir.path(), "exec sleep 1000")).unwrap();
        let err = guest.wait_console("login:", Duration::from_millis(100)).unwrap_err();
        assert_eq!(err.to_string(), "the guest has not come to `login:` within 100ms");
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "true");
        spec.dir = dir.path().join("x".repeat(110));
        assert!(matches!(Guest::start(&spec), Err(GuestError::SocketPath { .. })));
    }

    #[test]
    fn the_guest_is_started_as_it_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "printf '%s\\n' \"$@\" >$console; exec sleep 1000");
        spec.cpu = "la57=off".to_owned();
        spec.on_panic = OnPanic::Pause;
        spec.disks.push(Disk { serial: "boot".into(), path: "/a,b".into(), read_only: true, stuck: false });
        let guest = Guest::start(&spec).unwrap();
        guest.wait_console("panic=pause", Duration::from_secs(20)).unwrap();
        let words = fs::read_to_string(guest.console()).unwrap();
        for word in [
            "max,la57=off",
            "console=ttyS0 quiet",
            "id=boot,file=/a,,b,if=none,format=raw,cache=unsafe,readonly=on",
        ] {
            assert!(words.lines().any(|line| line == word), "{word} is not in\n{words}");
        }
    }
}
