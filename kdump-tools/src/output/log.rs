//! What the libraries trace, on stderr: warnings, and more with `-v`.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use super::Settings;
use super::escape::escape_lines;

/// Starts to listen. A second start in one process changes nothing.
pub fn start(settings: Settings) {
    let level = match (settings.quiet, settings.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let listener =
        fmt().with_max_level(level).without_time().with_target(settings.verbose > 1).with_ansi(false);
    // It fails where a listener is there already: that one stays.
    let _ = listener.with_writer(|| Escaping).try_init();
}

/// Escapes what comes from a dump before it reaches the terminal.
struct Escaping;

impl Write for Escaping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().lock().write_all(escape_lines(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
