//! Reading files of the host in a way that ends: a second process reads, this one waits with a time limit.
//!
//! A read may hang in the kernel (NFS, FUSE, a wedged driver) where no signal reaches it, and a thread that
//! hangs there keeps its whole process from being reaped. So a [`ReaderCommand`] starts a process of its own;
//! if an answer does not come in time, that process is killed or, if it can't die, left behind.

pub(crate) mod deny;
pub(crate) mod frame;
pub(crate) mod glob;
mod serve;
pub(crate) mod tree;

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::reader::frame::{Meta, Tag, Verdict, parse_end, split_frame, write_frame};
use crate::spec::Keep;

/// The argument by which a program knows that it should be the reader.
const ARGUMENT: &str = "__sosreport-lite-reader";

/// How to start a process that answers as a reader.
#[derive(Clone, Debug)]
pub struct ReaderCommand {
    program: PathBuf,
}

impl ReaderCommand {
    /// This very program, whose `main` begins with [`serve_if_asked`].
    #[must_use]
    pub fn this_program() -> Self {
        Self { program: PathBuf::from("/proc/self/exe") }
    }

    /// Another program whose `main` begins with [`serve_if_asked`].
    #[must_use]
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self { program: path.into() }
    }
}

/// Becomes the reader, if the program was started to be one. To be called first in `main`:
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(code) = sosreport_lite::serve_if_asked(std::env::args_os()) {
///         return code;
///     }
///     ExitCode::SUCCESS // the program's own work
/// }
/// ```
#[must_use]
pub fn serve_if_asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != ARGUMENT {
        return None;
    }
    let root = PathBuf::from(args.next().unwrap_or_else(|| OsString::from("/")));
    // A collector that is gone closes the pipe: nobody is left to tell.
    let _ = serve::serve(&root, io::stdin().lock(), io::stdout().lock());
    Some(ExitCode::SUCCESS)
}

/// What a read brought beside the bytes.
#[derive(Debug)]
pub(crate) struct FileAnswer {
    /// The target, where the path names a link.
    pub(crate) link: Option<Vec<u8>>,
    /// Absent where the file could not even be opened.
    pub(crate) meta: Option<Meta>,
    pub(crate) verdict: Verdict,
    pub(crate) why: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The time was up; the reader has been left behind.
    TimedOut,
    /// The reader could not be started, or is gone.
    Broken(io::Error),
    /// The taker of the bytes failed: the disk of the bundle is full.
    Sink(io::Error),
}

/// What takes the bytes of a file; false says that nothing more is wanted.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<bool>;

/// The collector's side. It starts its reader when first asked, and a new one after each that hung.
#[derive(Debug)]
pub(crate) struct Reader {
    command: Option<ReaderCommand>,
    root: PathBuf,
    talk: Option<Talk>,
}

#[derive(Debug)]
struct Talk {
    child: Option<Child>,
    requests: PipeWriter,
    answers: PipeReader,
    buf: Vec<u8>,
    piece: Vec<u8>,
}

impl Reader {
    /// A reader of the host at `root`. Without a command it is a thread, which can be left behind too, but may
    /// keep this process from ending while it hangs.
    pub(crate) fn new(command: Option<ReaderCommand>, root: &Path) -> Self {
        Self { command, root: root.to_owned(), talk: None }
    }

    /// The files that match `pattern`, and how the list ended.
    pub(crate) fn glob(
        &mut self,
        pattern: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Vec<Vec<u8>>, Verdict, String), NoAnswer> {
        let mut request = u64::try_from(limit).unwrap_or(u64::MAX).to_le_bytes().to_vec();
        request.extend_from_slice(pattern.as_bytes());
        let mut paths = Vec::new();
        let (verdict, why) = self.ask(Tag::Glob, &request, deadline, &mut |tag, payload| {
            if tag == Tag::Match {
                paths.push(payload.to_vec());
            }
            Ok(true)
        })?;
        Ok((paths, verdict, why))
    }

    /// Reads the file at `path` into `sink`.
    pub(crate) fn read(
        &mut self,
        path: &[u8],
        keep: Keep,
        cap: u64,
        deadline: Instant,
        sink: Sink<'_>,
    ) -> Result<FileAnswer, NoAnswer> {
        let mut request = cap.to_le_bytes().to_vec();
        request.push(if keep == Keep::Tail { b't' } else { b'h' });
        request.extend_from_slice(path);
        let (mut link, mut meta) = (None, None);
        let (verdict, why) = self.ask(Tag::Read, &request, deadline, &mut |tag, payload| {
            match tag {
                Tag::Link => link = Some(payload.to_vec()),
                Tag::Meta => meta = Meta::parse(payload),
                Tag::Bytes => return sink(payload),
                _ => {}
            }
            Ok(true)
        })?;
        Ok(FileAnswer { link, meta, verdict, why })
    }

    /// Has the kernel write what the letter stands for into its log.
    pub(crate) fn sysrq(&mut self, letter: u8, deadline: Instant) -> Result<(Verdict, String), NoAnswer> {
        self.ask(Tag::Sysrq, &[letter], deadline, &mut |_, _| Ok(true))
    }

    fn ask(
        &mut self,
        tag: Tag,
        request: &[u8],
        deadline: Instant,
        take: &mut dyn FnMut(Tag, &[u8]) -> io::Result<bool>,
    ) -> Result<(Verdict, String), NoAnswer> {
        let result = self.try_ask(tag, request, deadline, take);
        if result.is_err() {
            self.leave_behind();
        }
        result
    }

    fn try_ask(
        &mut self,
        tag: Tag,
        request: &[u8],
        deadline: Instant,
        take: &mut dyn FnMut(Tag, &[u8]) -> io::Result<bool>,
    ) -> Result<(Verdict, String), NoAnswer> {
        if self.talk.is_none() {
            let mut talk = Talk::start(self.command.as_ref(), &self.root).map_err(NoAnswer::Broken)?;
            let greeting = talk.answer(deadline, &mut |_, _| Ok(true))?;
            if greeting != (Verdict::Complete, serve::GREETING.to_owned()) {
                return Err(NoAnswer::Broken(io::Error::other(greeting.1)));
            }
            self.talk = Some(talk);
        }
        let Some(talk) = &mut self.talk else {
            return Err(NoAnswer::Broken(io::ErrorKind::NotConnected.into()));
        };
        let mut frame = Vec::new();
        // Requests are far shorter than a pipe is deep, so this never waits for a reader that hangs.
        write_frame(&mut frame, tag, request)
            .and_then(|()| talk.requests.write_all(&frame))
            .map_err(NoAnswer::Broken)?;
        talk.answer(deadline, take)
    }

    /// Kills the reader, and does not wait for it: in D state it may never go.
    fn leave_behind(&mut self) {
        if let Some(Talk { child: Some(mut child), .. }) = self.talk.take() {
            let _ = child.kill();
            std::thread::sleep(Duration::from_millis(10));
            let _ = child.try_wait();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(Talk { child, requests, answers, .. }) = self.talk.take() else { return };
        drop((requests, answers));
        let Some(mut child) = child else { return };
        // Its input has ended, so it ends at once, unless it hangs.
        for _ in 0..50 {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
        let _ = child.kill();
    }
}

impl Talk {
    fn start(command: Option<&ReaderCommand>, root: &Path) -> io::Result<Self> {
        let (their_requests, requests) = io::pipe()?;
        let (answers, their_answers) = io::pipe()?;
        let child = if let Some(command) = command {
            let mut command = Command::new(&command.program);
            command.arg(ARGUMENT).arg(root).current_dir("/").env_clear();
            command.stdin(their_requests).stdout(their_answers).stderr(Stdio::null()).process_group(0);
            Some(command.spawn()?)
        } else {
            let root = OsString::from_vec(root.as_os_str().to_owned().into_vec());
            std::thread::Builder::new().name("reader".into()).spawn(move || {
                let _ = serve::serve(Path::new(&root), their_requests, their_answers);
            })?;
            None
        };
        Ok(Self { child, requests, answers, buf: Vec::new(), piece: vec![0; 128 << 10] })
    }

    fn answer(
        &mut self,
        deadline: Instant,
        take: &mut dyn FnMut(Tag, &[u8]) -> io::Result<bool>,
    ) -> Result<(Verdict, String), NoAnswer> {
        let mut wanted = true;
        loop {
            while let Some((tag, payload, used)) = split_frame(&self.buf).map_err(NoAnswer::Broken)? {
                if tag == Tag::End {
                    let end = parse_end(payload);
                    self.buf.drain(..used);
                    let (verdict, why) =
                        end.ok_or_else(|| NoAnswer::Broken(io::ErrorKind::InvalidData.into()))?;
                    let verdict =
                        if wanted || verdict != Verdict::Complete { verdict } else { Verdict::Truncated };
                    return Ok((verdict, why));
                }
                if wanted {
                    wanted = take(tag, payload).map_err(NoAnswer::Sink)?;
                }
                self.buf.drain(..used);
            }
            if !readable_before(&self.answers, deadline).map_err(NoAnswer::Broken)? {
                return Err(NoAnswer::TimedOut);
            }
            let got = self.answers.read(&mut self.piece).map_err(NoAnswer::Broken)?;
            if got == 0 {
                return Err(NoAnswer::Broken(io::Error::other("the reader process has ended")));
            }
            self.buf.extend_from_slice(self.piece.get(..got).unwrap_or_default());
        }
    }
}

/// True once the pipe has something to read or has ended; false when the deadline comes first.
pub(crate) fn readable_before(pipe: &PipeReader, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(pipe, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}
