//! Runs a program so that it ends: its own process group, nothing to read, SIGTERM, then SIGKILL for the whole
//! group, and if even that does not end it (D state), it is left behind.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::collect::{Body, Context, Entry, Harvest, epoch_seconds, status_of_no_answer, tailed_place};
use crate::error::is_no_space;
use crate::mangle::{mangle_command, relative_link};
use crate::outcome::{CommandRecord, ItemStatus};
use crate::plan::{BIN_DIRS, CommandItem};
use crate::reader::readable_before;
use crate::spec::Keep;
use crate::spool::{Intake, Taken};

/// How long the pipe may stay open after the program itself is gone (a daemon that it left holds it).
const AFTER_EXIT: Duration = Duration::from_millis(500);
/// How often a silent program is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// More arguments from a file than this are left out.
const MOST_ARGS: usize = 2048;

/// How a program ended.
#[derive(Debug)]
enum End {
    Exited(i32),
    Signalled(i32),
    /// It gave more than its cap, and was ended.
    Full,
    /// It did not end in its time, and was ended.
    TimedOut,
    /// It did not even go when it was killed.
    LeftBehind,
    Cancelled,
}

pub(super) fn collect(context: &mut Context<'_>, command: &CommandItem, harvest: &mut Harvest) -> ItemStatus {
    let mut argv = command.argv.clone();
    if let Some(path) = &command.args_from {
        match first_words(context, path) {
            Ok(words) if words.is_empty() => return ItemStatus::Absent(format!("{path} is empty")),
            Ok(words) => argv.extend(words),
            Err(status) => return status,
        }
    }
    let Some(each) = &command.each else {
        return run_one(context, command, &argv, &command.line, &command.file_name, harvest);
    };
    let limit = context.plan.options.limits.max_matches;
    let matches = match context.reader.glob(each, limit, context.file_deadline()) {
        Ok((paths, _, _)) => paths,
        Err(e) => return status_of_no_answer(&e, each),
    };
    let mut worst = ItemStatus::Absent(format!("nothing matches {each}"));
    for path in matches {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let Some(name) = plain_word(name) else {
            harvest
                .report
                .notes
                .push(format!("{} is no name for a command line", String::from_utf8_lossy(name)));
            continue;
        };
        let argv: Vec<String> = argv.iter().map(|word| word.replace("{}", name)).collect();
        let line = command.line.replace("{}", name);
        let status = run_one(context, command, &argv, &line, &mangle_command(&line), harvest);
        if worst_of(&status) > worst_of(&worst) {
            worst = status;
        }
        if context.is_over() {
            break;
        }
    }
    worst
}

fn worst_of(status: &ItemStatus) -> u8 {
    match status {
        ItemStatus::Absent(_) => 0,
        ItemStatus::Taken => 1,
        ItemStatus::Denied(_) => 2,
        ItemStatus::Failed(_) => 3,
        ItemStatus::TimedOut(_) | ItemStatus::NotReached(_) => 4,
        ItemStatus::NoSpace => 5,
    }
}

/// A name from the host that can't be taken for an option or for more than one word.
fn plain_word(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '+');
    (!name.starts_with('-') && name.chars().all(plain)).then_some(name)
}

fn first_words(context: &mut Context<'_>, path: &str) -> Result<Vec<String>, ItemStatus> {
    let mut text = Vec::new();
    let deadline = context.file_deadline();
    let answer = context.reader.read(path.as_bytes(), Keep::Head, 1 << 20, deadline, &mut |bytes| {
        text.extend_from_slice(bytes);
        Ok(true)
    });
    let answer = answer.map_err(|e| status_of_no_answer(&e, path))?;
    if answer.meta.is_none() {
        return Err(super::status_of(answer.verdict, answer.why));
    }
    let first = |line: &[u8]| plain_word(line.split(u8::is_ascii_whitespace).next()?).map(str::to_owned);
    Ok(text
        .split(|b| *b == b'\n')
        .filter_map(first)
        .filter(|word| !word.is_empty())
        .take(MOST_ARGS)
        .collect())
}

/// Runs one command line and puts its output into the harvest.
fn run_one(
    context: &Context<'_>,
    command: &CommandItem,
    argv: &[String],
    line: &str,
    file_name: &str,
    harvest: &mut Harvest,
) -> ItemStatus {
    let plugin = &context.item.plugin;
    let place = format!("sos_commands/{plugin}/{file_name}");
    let start = epoch_seconds();
    let mut record = CommandRecord {
        line: line.to_owned(),
        program: command.program.to_string_lossy().into_owned(),
        place: None,
        code: 127,
        truncated: false,
        scrubbed: 0,
        start,
        end: start,
    };
    let intake = Intake::new(&mut harvest.spool, place.as_bytes(), context.item.keep, context.item.cap);
    let ran = execute(&command.program, argv, context, intake);
    record.end = epoch_seconds();
    let (end, taken) = match ran {
        Ok(ran) => ran,
        Err(Failure::Start(e)) => {
            harvest.report.commands.push(record);
            let why = format!("{} can't be started: {e}", command.program.display());
            return if e.kind() == io::ErrorKind::PermissionDenied {
                ItemStatus::Denied(why)
            } else {
                ItemStatus::Failed(why)
            };
        }
        Err(Failure::Keep(e)) if is_no_space(&e) => {
            harvest.report.commands.push(record);
            return ItemStatus::NoSpace;
        }
        Err(Failure::Keep(e)) => {
            harvest.report.commands.push(record);
            return ItemStatus::Failed(format!("its output can't be kept: {e}"));
        }
    };
    let status = status_and_code(&end, context, &mut record);
    record.truncated = taken.truncated;
    record.scrubbed = taken.scrubbed;
    // As in sos, a program that is missing after all (a script's interpreter) leaves no file.
    if !matches!(end, End::Exited(126 | 127)) || taken.range.end > taken.range.start {
        record.place = Some(place.clone());
        put(harvest, plugin, file_name, &place, &taken, command.link.as_deref());
    }
    harvest.report.commands.push(record);
    status
}

fn status_and_code(end: &End, context: &Context<'_>, record: &mut CommandRecord) -> ItemStatus {
    let limit = context.item.limit.as_secs();
    let (code, status) = match end {
        End::Exited(code) => (*code, ItemStatus::Taken),
        End::Signalled(signal) => (-*signal, ItemStatus::Taken),
        End::Full => (0, ItemStatus::Taken),
        End::TimedOut => (124, ItemStatus::TimedOut(format!("it was ended after its {limit} s"))),
        End::LeftBehind => {
            let why = format!("it can't be ended after its {limit} s (D state), and is left behind");
            (124, ItemStatus::TimedOut(why))
        }
        End::Cancelled => (124, ItemStatus::NotReached("the run was interrupted".into())),
    };
    record.code = code;
    status
}

/// The output goes to its place; the kept end of a longer one goes to `sos_strings`, with a link in its place.
fn put(harvest: &mut Harvest, plugin: &str, file_name: &str, place: &str, taken: &Taken, link: Option<&str>) {
    let mtime = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let body = Body::File { range: taken.range.clone(), mode: 0o600, uid: 0, gid: 0, mtime };
    if taken.truncated {
        let strings = tailed_place(plugin, format!("{file_name}.tailed").as_bytes());
        let target = relative_link(place.as_bytes(), &strings);
        harvest.entries.push(Entry { path: strings, body });
        harvest.entries.push(Entry { path: place.as_bytes().to_vec(), body: Body::Link { target } });
    } else {
        harvest.entries.push(Entry { path: place.as_bytes().to_vec(), body });
    }
    if let Some(link) = link {
        let target = relative_link(link.as_bytes(), place.as_bytes());
        harvest.entries.push(Entry { path: link.as_bytes().to_vec(), body: Body::Link { target } });
    }
}

enum Failure {
    Start(io::Error),
    Keep(io::Error),
}

fn execute(
    program: &Path,
    argv: &[String],
    context: &Context<'_>,
    mut intake: Intake<'_>,
) -> Result<(End, Taken), Failure> {
    let (mut output, child) = spawn(program, argv).map_err(Failure::Start)?;
    let limits = &context.plan.options.limits;
    let mut running = Running { child, term_grace: limits.term_grace, reap_grace: limits.reap_grace };
    let end = match follow(&mut output, &running, context, &mut intake) {
        Ok(end) => end,
        Err(e) => {
            running.end(None);
            return Err(Failure::Keep(e));
        }
    };
    // What it says on its way out (a partial table, a last line) still counts.
    let mut sink = |bytes: &[u8]| intake.push(bytes).unwrap_or(false);
    let end = match end {
        Some(End::Exited(code)) => {
            running.end_rest();
            End::Exited(code)
        }
        Some(End::Signalled(signal)) => {
            running.end_rest();
            End::Signalled(signal)
        }
        Some(other) => {
            let last_words = matches!(other, End::TimedOut);
            let gone = running.end(last_words.then_some((&mut output, &mut sink)));
            if gone { other } else { End::LeftBehind }
        }
        None => End::LeftBehind,
    };
    let taken = intake.finish().map_err(Failure::Keep)?;
    Ok((end, taken))
}

fn spawn(program: &Path, argv: &[String]) -> io::Result<(PipeReader, Child)> {
    let (output, theirs) = io::pipe()?;
    // Reads below must never wait, whatever the program does with its end.
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut command = Command::new(program);
    command.args(argv.iter().skip(1)).current_dir("/").env_clear();
    command.env("PATH", BIN_DIRS.join(":")).env("LC_ALL", "C").env("LANG", "C").env("HOME", "/root");
    command.env("SYSTEMD_PAGER", "").env("PAGER", "cat").env("TERM", "dumb");
    command.stdin(Stdio::null()).stderr(theirs.try_clone()?).stdout(theirs).process_group(0);
    let child = command.spawn()?;
    // `command` still holds our copies of the pipe's writing end; with it the pipe would never end.
    drop(command);
    Ok((output, child))
}

/// Takes the output until the program ends, its time is up, or nothing more is wanted.
fn follow(
    output: &mut PipeReader,
    running: &Running,
    context: &Context<'_>,
    intake: &mut Intake<'_>,
) -> io::Result<Option<End>> {
    let mut buf = vec![0; 64 << 10];
    let mut open = true;
    let mut exited: Option<(End, Instant)> = None;
    loop {
        let now = Instant::now();
        if exited.is_none() {
            exited = running.exited().map(|end| (end, now + AFTER_EXIT));
        }
        if let Some((end, patience)) = exited.take() {
            if !open || now >= patience {
                return Ok(Some(end));
            }
            exited = Some((end, patience));
        } else if context.cancel.load(Ordering::Relaxed) {
            return Ok(Some(End::Cancelled));
        } else if now >= context.deadline {
            return Ok(Some(End::TimedOut));
        }
        if !open {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        let patience = exited.as_ref().map_or(context.deadline, |(_, patience)| *patience);
        if !readable_before(output, patience.min(now + LOOK))? {
            continue;
        }
        match output.read(&mut buf) {
            Ok(0) => open = false,
            Ok(got) => {
                if !intake.push(buf.get(..got).unwrap_or_default())? {
                    return Ok(Some(End::Full));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Where a program that is being ended still speaks, and who takes it.
type LastWords<'a> = (&'a mut PipeReader, &'a mut dyn FnMut(&[u8]) -> bool);

/// A started program and its process group.
struct Running {
    child: Child,
    term_grace: Duration,
    reap_grace: Duration,
}

impl Running {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// How it ended, without taking the last trace of it away: while that is there, the number of its process
    /// group belongs to nobody else, and can be killed safely.
    fn exited(&self) -> Option<End> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.pid()?), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signalled(signal.unwrap_or(0)),
        })
    }

    fn kill_group(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // A group that is gone already is what we want.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Ends what the program left in its group after it ended itself, and reaps it.
    fn end_rest(&mut self) {
        self.kill_group(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Ends the program: SIGTERM, some patience, SIGKILL. False if it is still there after all.
    fn end(&mut self, mut last_words: Option<LastWords<'_>>) -> bool {
        self.kill_group(Signal::TERM);
        if !self.gone_within(self.term_grace, &mut last_words) {
            self.kill_group(Signal::KILL);
            if !self.gone_within(self.reap_grace, &mut last_words) {
                return false;
            }
        }
        self.end_rest();
        true
    }

    fn gone_within(&self, grace: Duration, last_words: &mut Option<LastWords<'_>>) -> bool {
        let until = Instant::now() + grace;
        let mut buf = vec![0; 16 << 10];
        loop {
            if let Some((output, sink)) = last_words {
                // The pipe does not wait; what is there is taken, at most one buffer a turn.
                if let Ok(got @ 1..) = output.read(&mut buf) {
                    sink(buf.get(..got).unwrap_or_default());
                }
            }
            if self.exited().is_some() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
