//! A client of QEMU's machine protocol (QEMU: `docs/interop/qmp-spec`): one JSON document a line, over a
//! socket; a greeting, then commands with their answers, and events between them at any time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest line that is taken. QEMU's longest answer (`query-qmp-schema`) has about 200 KiB.
const LINE: usize = 4 << 20;
/// How many events are kept for [`Qmp::wait_event`].
const EVENTS: usize = 1000;
const ANSWER: Duration = Duration::from_secs(30);

/// Why QEMU's answer cannot be had, or is no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// Nothing listens there.
    #[error("cannot reach QEMU at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket ended in the middle.
    #[error("QEMU ended while `{waiting_for}` was expected of it")]
    Closed {
        /// What was being waited for.
        waiting_for: String,
    },
    /// Nothing came in time.
    #[error("QEMU has not said `{waiting_for}` within {limit:?}")]
    Time {
        /// What was being waited for.
        waiting_for: String,
        /// For how long.
        limit: Duration,
    },
    /// What came is not QMP.
    #[error("what answers is not QEMU: {why}")]
    Protocol {
        /// What is wrong with it.
        why: String,
    },
    /// QEMU understands the command, and says no.
    #[error("QEMU refuses `{command}`: {said}")]
    Refused {
        /// The command.
        command: String,
        /// Its `desc`.
        said: String,
    },
    /// This QEMU cannot write that format.
    #[error("this QEMU cannot write {format} dumps; it offers {}", offered.join(", "))]
    Format {
        /// What was asked for.
        format: String,
        /// What `query-dump-guest-memory-capability` lists.
        offered: Vec<String>,
    },
    /// The dump began and did not end well.
    #[error("QEMU's dump ends with {said}")]
    Dump {
        /// The status and error of `DUMP_COMPLETED`.
        said: String,
    },
    /// The socket itself.
    #[error("the talk with QEMU breaks off: {0}")]
    Io(#[from] io::Error),
}

/// A format of `dump-guest-memory`, by QEMU's name: `elf`, `kdump-zlib`, `kdump-lzo`, `win-dmp` and others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFormat(pub String);

/// A connection, past its greeting.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
    version: String,
}

impl Qmp {
    /// Connects, waits for the greeting, and leaves the negotiation of capabilities.
    ///
    /// # Errors
    /// [`QmpError::Connect`] where nothing listens before `limit` has passed; [`QmpError::Protocol`] where
    /// something else than QEMU does.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let end = Instant::now() + limit;
        // QEMU makes its socket some milliseconds after it was started.
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(source) if Instant::now() >= end => {
                    return Err(QmpError::Connect { path: path.to_owned(), source });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut qmp = Self { stream, received: Vec::new(), events: VecDeque::new(), version: String::new() };
        let greeting = qmp.next("greeting", limit, end)?;
        let Some(version) = greeting.pointer("/QMP/version/qemu") else {
            return Err(QmpError::Protocol { why: "its greeting names no QEMU version".to_owned() });
        };
        let part = |name: &str| version.get(name).and_then(Value::as_u64).unwrap_or(0);
        qmp.version = format!("{}.{}.{}", part("major"), part("minor"), part("micro"));
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// QEMU's version, as its greeting says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs a command, and gives its `return`. Events that come in between are kept.
    ///
    /// # Errors
    /// [`QmpError::Refused`] for a no, others for a broken connection.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_within(command, arguments, ANSWER)
    }

    fn execute_within(
        &mut self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command });
        if let (Some(object), false) = (request.as_object_mut(), arguments.is_null()) {
            object.insert("arguments".to_owned(), arguments);
        }
        self.stream.write_all(format!("{request}\n").as_bytes())?;
        let end = Instant::now() + limit;
        loop {
            let mut answer = self.next(command, limit, end)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let said = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(QmpError::Refused { command: command.to_owned(), said: said.to_owned() });
            }
            self.keep(answer);
        }
    }

    /// Waits for an event, also one that came before; the events before it are dropped.
    ///
    /// # Errors
    /// [`QmpError::Time`] where it does not come before `limit` has passed.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value, QmpError> {
        let end = Instant::now() + limit;
        loop {
            while let Some(event) = self.events.pop_front() {
                if event.get("event").and_then(Value::as_str) == Some(name) {
                    return Ok(event);
                }
            }
            let event = self.next(name, limit, end)?;
            self.keep(event);
        }
    }

    /// What QEMU says of its guest: `running`, `paused`, `guest-panicked` and so on.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn status(&mut self) -> Result<String, QmpError> {
        let status = self.execute("query-status", Value::Null)?;
        Ok(status.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The dump formats that this QEMU was built with.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn dump_formats(&mut self) -> Result<Vec<String>, QmpError> {
        let answer = self.execute("query-dump-guest-memory-capability", Value::Null)?;
        let formats = answer.get("formats").and_then(Value::as_array).into_iter().flatten();
        Ok(formats.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Lets QEMU write the guest's memory into `path`, and waits until it has.
    ///
    /// # Errors
    /// [`QmpError::Format`] where this QEMU does not offer the format, [`QmpError::Dump`] where it could not
    /// write, [`QmpError::Time`] where it takes longer than `limit`.
    pub fn dump_guest_memory(
        &mut self,
        path: &Path,
        format: &DumpFormat,
        limit: Duration,
    ) -> Result<(), QmpError> {
        let offered = self.dump_formats()?;
        if !offered.contains(&format.0) {
            return Err(QmpError::Format { format: format.0.clone(), offered });
        }
        self.events.clear();
        // Not `detach`: QEMU then sends DUMP_COMPLETED before it closes its file, and a dump that is asked for
        // right after it finds its own file closed (QEMU 7.2, dump/dump.c, dump_process: «failed to set
        // dump_bitmap»). Without it the answer comes last.
        self.execute_within(
            "dump-guest-memory",
            json!({
                "paging": false,
                "protocol": format!("file:{}", path.display()),
                "format": format.0,
            }),
            limit,
        )
        .map_err(|e| match e {
            QmpError::Refused { said, .. } => QmpError::Dump { said },
            other => other,
        })?;
        let event = self.wait_event("DUMP_COMPLETED", limit)?;
        let status = event.pointer("/data/result/status").and_then(Value::as_str).unwrap_or("no status");
        if status == "completed" && event.pointer("/data/error").is_none() {
            return Ok(());
        }
        let error = event.pointer("/data/error").and_then(Value::as_str).unwrap_or("no reason given");
        Err(QmpError::Dump { said: format!("{status}: {error}") })
    }

    fn keep(&mut self, event: Value) {
        if event.get("event").is_some() {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// The next line, as JSON.
    fn next(&mut self, waiting_for: &str, limit: Duration, end: Instant) -> Result<Value, QmpError> {
        loop {
            if let Some(newline) = self.received.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.received.drain(..=newline).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|e| QmpError::Protocol { why: format!("a line is not JSON ({e})") });
            }
            if self.received.len() > LINE {
                return Err(QmpError::Protocol { why: format!("a line has more than {LINE} bytes") });
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Time { waiting_for: waiting_for.to_owned(), limit });
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed { waiting_for: waiting_for.to_owned() }),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;

    /// A QEMU that greets, and then answers each request with the next lines. Gives back what it was asked.
    fn qemu(
        greeting: &'static str,
        answers: Vec<Vec<&'static str>>,
    ) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<Vec<Value>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(format!("{greeting}\n").as_bytes()).unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let Some(Ok(request)) = requests.next() else { break };
                asked.push(serde_json::from_str(&request).unwrap());
                for line in answer {
                    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
                }
            }
            asked
        });
        (dir, path, thread)
    }

    const OK: &str = r#"{"return": {}}"#;
    const FORMATS: &str = r#"{"return": {"formats": ["elf", "kdump-zlib", "win-dmp"]}}"#;

    fn limit() -> Duration {
        Duration::from_secs(10)
    }

    #[test]
    fn a_dump_asks_for_the_formats_first_and_waits_for_its_end() {
        let (_dir, path, thread) = qemu(
            GREETING,
            vec![
                vec![OK],
                vec![r#"{"event": "STOP", "timestamp": {}}"#, FORMATS],
                vec![
                    r#"{"event": "STOP"}"#,
                    r#"{"event": "DUMP_COMPLETED", "data": {"result": {"total": 9, "status": "completed", "completed": 9}}}"#,
                    OK,
                ],
            ],
        );
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        assert_eq!(qmp.version(), "7.2.22");
        qmp.dump_guest_memory(Path::new("/x/y"), &DumpFormat("elf".into()), limit()).unwrap();
        let asked = thread.join().unwrap();
        assert_eq!(asked[0], json!({ "execute": "qmp_capabilities" }));
        assert_eq!(asked[1], json!({ "execute": "query-dump-guest-memory-capability" }));
        assert_eq!(asked[2]["arguments"]["protocol"], "file:/x/y");
    }

    #[test]
    fn a_format_that_qemu_does_not_offer_is_refused_before_it_is_tried() {
        let (_dir, path, _thread) = qemu(GREETING, vec![vec![OK], vec![FORMATS]]);
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        let err = qmp.dump_guest_memory(Path::new("/x"), &DumpFormat("kdump-lzo".into()), limit());
        assert_eq!(
            err.unwrap_err().to_string(),
            "this QEMU cannot write kdump-lzo dumps; it offers elf, kdump-zlib, win-dmp"
        );
    }

    #[test]
    fn a_dump_that_fails_says_why() {
        let (_dir, path, _thread) = qemu(
            GREETING,
            vec![
                vec![OK],
                vec![FORMATS],
                vec![
                    OK,
                    r#"{"event": "DUMP_COMPLETED", "data": {"result": {"status": "failed"}, "error": "No space left on device"}}"#,
                ],
            ],
        );
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        let err = qmp.dump_guest_memory(Path::new("/x"), &DumpFormat("elf".into()), limit());
        assert_eq!(err.unwrap_err().to_string(), "QEMU's dump ends with failed: No space left on device");
    }

    #[test]
    fn a_refusal_carries_the_reason() {
        let (_dir, path, _thread) = qemu(
            GREETING,
            vec![
                vec![OK],
                vec![
                    r#"{"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}"#,
                ],
            ],
        );
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        let err = qmp.execute("nope", Value::Null).unwrap_err();
        assert_eq!(err.to_string(), "QEMU refuses `nope`: The command nope has not been found");
    }

    #[test]
    fn an_end_in_the_middle_is_told_from_silence() {
        let (_dir, path, thread) = qemu(GREETING, vec![vec![OK]]);
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        thread.join().unwrap();
        // Depending on who is faster, the request is refused by the system or meets the end.
        let err = qmp.execute("query-status", Value::Null).unwrap_err();
        assert!(matches!(err, QmpError::Closed { .. } | QmpError::Io(_)), "{err}");

        let (_dir, path, _thread) = qemu(GREETING, vec![vec![OK], vec![]]);
        let mut qmp = Qmp::connect(&path, limit()).unwrap();
        let err = qmp.wait_event("SHUTDOWN", Duration::from_millis(50)).unwrap_err();
        assert_eq!(err.to_string(), "QEMU has not said `SHUTDOWN` within 50ms");
    }

    #[test]
    fn something_else_than_qemu_is_not_taken_for_it() {
        for greeting in ["SSH-2.0-OpenSSH_9.2", "{\"hello\": 1}"] {
            let (_dir, path, _thread) = qemu(greeting, vec![]);
            let err = Qmp::connect(&path, limit()).unwrap_err().to_string();
            assert!(err.starts_with("what answers is not QEMU: "), "{err}");
        }
    }

    #[test]
    fn nobody_there_is_an_error_in_time() {
        let err = Qmp::connect(Path::new("/nonexistent/qmp"), Duration::from_millis(50)).unwrap_err();
        assert!(err.to_string().starts_with("cannot reach QEMU at /nonexistent/qmp"), "{err}");
    }
}
