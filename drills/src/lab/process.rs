//! Runs a program to its end, within a time limit, and keeps what it said.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::error::{LabError, file_error};

/// How much of what a program printed goes into an error.
const TAIL: usize = 400;

/// Where programs are looked for: the search path of Debian's root, because `kexec` lives in `sbin`.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Finds a program.
///
/// # Errors
/// [`LabError::MissingProgram`], which names the package.
pub(crate) fn find_program(program: &str, package: &'static str) -> Result<PathBuf, LabError> {
    PATH.iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| LabError::MissingProgram { program: program.to_owned(), package })
}

/// Runs a program that has to succeed, and gives what it printed on stdout.
///
/// # Errors
/// [`LabError::Command`] where it says no, [`LabError::CommandTime`] where it does not end in time.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Vec<u8>, LabError> {
    let ended = run_any(command, limit)?;
    succeed(command, ended)
}

/// As [`run`], with a file as its stdin.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with_input(
    command: &mut Command,
    input: File,
    limit: Duration,
) -> Result<Vec<u8>, LabError> {
    let ended = run_to_end(command, Stdio::from(input), limit)?;
    succeed(command, ended)
}

/// Runs a program whose answer may be no: its status, stdout and stderr.
///
/// # Errors
/// [`LabError::CommandTime`] where it does not end in time, [`LabError::File`] where it cannot be started.
pub(crate) fn run_any(
    command: &mut Command,
    limit: Duration,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), LabError> {
    run_to_end(command, Stdio::null(), limit)
}

fn succeed(
    command: &Command,
    (status, out, err): (ExitStatus, Vec<u8>, Vec<u8>),
) -> Result<Vec<u8>, LabError> {
    if status.success() {
        return Ok(out);
    }
    let said = if err.iter().all(u8::is_ascii_whitespace) { &out } else { &err };
    Err(LabError::Command { command: words(command), status: in_words(status), said: tail(said) })
}

fn run_to_end(
    command: &mut Command,
    input: Stdio,
    limit: Duration,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), LabError> {
    // Files rather than pipes: nobody has to empty them while the program runs.
    let temporary = || tempfile::tempfile().map_err(file_error("make a temporary file in", "/tmp"));
    let (mut out, mut err) = (temporary()?, temporary()?);
    let clone = |f: &File| f.try_clone().map_err(file_error("use", "/tmp"));
    let program = PathBuf::from(command.get_program());
    let mut child = command
        .stdin(input)
        .stdout(clone(&out)?)
        .stderr(clone(&err)?)
        .spawn()
        .map_err(file_error("run", &program))?;
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(file_error("wait for", &program))? {
            break status;
        }
        if Instant::now() >= end {
            // It may have ended by itself between the two calls; then there is nothing to stop.
            let _ = child.kill();
            let _ = child.wait();
            return Err(LabError::CommandTime { command: words(command), limit });
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok((status, read_back(&mut out)?, read_back(&mut err)?))
}

fn read_back(file: &mut File) -> Result<Vec<u8>, LabError> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(file_error("read back", "/tmp"))?;
    Ok(bytes)
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    if words.len() > 6 {
        words.truncate(6);
        words.push("…".to_owned());
    }
    words.join(" ")
}

fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// The last lines of `bytes`, in one line and printable.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut said = lines.join(" / ");
    if let Some((cut, _)) = said.char_indices().rev().nth(TAIL) {
        said = format!("…{}", &said[cut..]);
    }
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_no_is_quoted() {
        let err = run(Command::new("sh").args(["-c", "echo nope >&2; exit 3"]), Duration::from_secs(9));
        assert_eq!(
            err.unwrap_err().to_string(),
            "`sh -c echo nope >&2; exit 3` ends with exit status 3: nope"
        );
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        let started = Instant::now();
        let err = run(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(err, LabError::CommandTime { .. }), "{err}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let err = find_program("no-such-program", "no-such-package").unwrap_err();
        assert_eq!(err.to_string(), "the program `no-such-program` is not installed");
        assert!(err.hint().contains("apt-get install no-such-package"));
        assert!(err.is_missing_tool());
    }
}
