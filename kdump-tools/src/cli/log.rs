//! `kdt log`: the kernel log, like `dmesg`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use vmcore::analysis;
use vmcore::analysis::budget::Budget;
use vmcore::kernel::printk::render::{self, Style};
use vmcore::kernel::printk::{KernelLog, LogRecord};
use vmcore::kernel::{self, Kernel};
use vmcore::limits::Limits;
use vmcore::report::{LogLine, Tool};

use super::opened::Opened;
use super::{Context, Format, Run};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::escape::escape_lines;
use crate::output::{file, json};

/// Show the kernel log of a dump, like dmesg
///
/// The text is that of `makedumpfile --dump-dmesg`. What is missing of the log is said on stderr, and the exit
/// code is then 4.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump; of a split set, all its parts
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// human: as dmesg; json: one document with a line for each record
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Only these levels: emerg, alert, crit, err, warn, notice, info, debug; `err+` is err and worse
    #[arg(short, long, value_delimiter = ',', value_parser = levels, value_name = "LIST")]
    level: Vec<Levels>,
    /// raw: seconds since boot; ctime and iso: the wall clock in UTC, where the dump tells when it crashed
    #[arg(long, value_enum, default_value_t, value_name = "STYLE")]
    time: Time,
    /// Show who wrote each record, T1 for a task and C1 for a CPU, as makedumpfile 1.7.8 does
    #[arg(long)]
    caller: bool,
    /// Only the last N records
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Write to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Time {
    #[default]
    Raw,
    Ctime,
    Iso,
}

/// Levels, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels(u8);

const NAMES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// `err`, `err+` (and worse), `+err` (and less bad), as dmesg takes them; numbers too.
fn levels(word: &str) -> Result<Levels, String> {
    let (word, rest) = match (word.strip_suffix('+'), word.strip_prefix('+')) {
        (Some(word), _) => (word, Some(true)),
        (None, Some(word)) => (word, Some(false)),
        (None, None) => (word, None),
    };
    let by_name = NAMES.iter().position(|name| *name == word || (word == "error" && *name == "err"));
    let by_number = || word.parse::<usize>().ok().filter(|n| *n < NAMES.len());
    let level = by_name.or_else(by_number).ok_or_else(|| format!("the levels are {}", NAMES.join(", ")))?;
    Ok(Levels((0..8_u8).fold(0, |mask, bit| {
        let wanted = match rest {
            None => usize::from(bit) == level,
            Some(true) => usize::from(bit) <= level,
            Some(false) => usize::from(bit) >= level,
        };
        if wanted { mask | 1 << bit } else { mask }
    })))
}

/// How long all memory is searched for VMCOREINFO where the dump has no note of it.
const SEARCH: Duration = Duration::from_mins(5);

/// The document `kdt/log/1`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    tool: Tool,
    path: String,
    records: usize,
    dropped: Option<u64>,
    lost: u64,
    unfinished: u64,
    complete: bool,
    end: String,
    lines: &'a [LogLine],
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let opened = Opened::open(&self.paths)?;
        let progress = context.output.display().piece(&opened.name());
        let subject = opened.subject();
        let budget = Budget::new(SEARCH, &progress, &context.cancel);
        let watched = kernel::Options::default().watched(budget.stop(), &budget);
        let kernel = Kernel::open(subject.memory, &subject.hints, watched);
        let log = kernel.log(&Limits::default());
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let log = log.map_err(|error| {
            let why = kernel.gaps().first().map(|gap| format!(" ({}: {})", gap.what, gap.why)).unwrap_or_default();
            Failure::new(
                Exit::Input,
                format!("{}: the kernel log can't be read: {error}{why}", opened.name()),
                "kdt info shows what the dump holds; if pages are lost, copy it again from the host that crashed",
            )
        })?;
        let boot = match self.time {
            Time::Raw => None,
            Time::Ctime | Time::Iso => Some(boot_time(&kernel, &log)?),
        };
        let chosen = self.choose(&log);
        match self.format {
            Format::Human if self.output.is_some() => {
                let mut text = Vec::new();
                self.write(&mut text, &chosen, boot, false).map_err(|e| Failure::internal(e.to_string()))?;
                self.save(&String::from_utf8_lossy(&text))?;
            }
            Format::Human => {
                let terminal = context.output.is_terminal();
                context.output.answer_with(|stdout| self.write(stdout, &chosen, boot, terminal))?;
            }
            Format::Json => {
                let lines: Vec<LogLine> = chosen.iter().map(|record| analysis::log::line(record)).collect();
                let document = document(&opened, &log, &lines);
                match &self.output {
                    Some(_) => self.save(&json::text(&document)?)?,
                    None => json::print(&context.output, &document)?,
                }
            }
        }
        Ok(tell_losses(context, &log))
    }
}

impl Args {
    /// The records that the options ask for.
    fn choose<'l>(&self, log: &'l KernelLog) -> Vec<&'l LogRecord> {
        let mask = self.level.iter().fold(0, |mask, levels| mask | levels.0);
        let wanted = |record: &&LogRecord| {
            mask == 0 || record.level.is_some_and(|level| level < 8 && mask & (1 << level) != 0)
        };
        let mut chosen: Vec<&LogRecord> = log.records.iter().filter(wanted).collect();
        if let Some(tail) = self.tail {
            chosen.drain(..chosen.len().saturating_sub(tail));
        }
        chosen
    }

    fn save(&self, text: &str) -> Result<(), Failure> {
        let sources: Vec<&std::path::Path> = self.paths.iter().map(PathBuf::as_path).collect();
        self.output.as_deref().map_or(Ok(()), |path| file::write(path, text, &sources))
    }

    fn write(
        &self,
        out: &mut dyn Write,
        records: &[&LogRecord],
        boot: Option<f64>,
        terminal: bool,
    ) -> io::Result<()> {
        let mut style = Style::default();
        style.caller = self.caller;
        for record in records {
            let mut text = Vec::new();
            match boot {
                None => render::record(&mut text, record, style)?,
                Some(boot) => self.with_wall_clock(&mut text, record, style, boot)?,
            }
            if terminal {
                // makedumpfile lets \r, \v and \f through; on a terminal they would hide text.
                out.write_all(escape_lines(&String::from_utf8_lossy(&text)).as_bytes())?;
            } else {
                out.write_all(&text)?;
            }
        }
        Ok(())
    }

    /// The record behind its time of day. What `render` writes without a time is put below itself line by line.
    fn with_wall_clock(
        &self,
        out: &mut Vec<u8>,
        record: &LogRecord,
        style: Style,
        boot: f64,
    ) -> io::Result<()> {
        let Some(prefix) = record.ts_ns.and_then(|ns| self.time_of_day(ns, boot)) else {
            return render::record(out, record, style);
        };
        let mut text = Vec::new();
        render::record(&mut text, &LogRecord { ts_ns: None, ..record.clone() }, style)?;
        let mut lines = text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n');
        if text.is_empty() {
            return Ok(());
        }
        write!(out, "{prefix} ")?;
        out.extend_from_slice(lines.next().unwrap_or_default());
        for line in lines {
            write!(out, "\n{:width$} ", "", width = prefix.len())?;
            out.extend_from_slice(line);
        }
        out.push(b'\n');
        Ok(())
    }

    fn time_of_day(&self, ns: u64, boot: f64) -> Option<String> {
        let boot = jiff::SignedDuration::try_from_secs_f64(boot).ok()?;
        let since = jiff::SignedDuration::from_nanos(i64::try_from(ns).ok()?);
        let time = jiff::Timestamp::from_duration(boot.checked_add(since)?).ok()?;
        Some(match self.time {
            Time::Iso => time.strftime("%Y-%m-%dT%H:%M:%S,%6f+00:00").to_string(),
            _ => time.strftime("[%a %b %e %H:%M:%S %Y]").to_string(),
        })
    }
}

/// When the machine was booted, or why that is not known.
fn boot_time(kernel: &Kernel<'_>, log: &KernelLog) -> Result<f64, Failure> {
    analysis::log::boot_time(kernel.facts().crash_time, log).ok_or_else(|| {
        Failure::new(
            Exit::Input,
            "the dump does not tell when it crashed, so the wall clock of its log is not known",
            "use --time raw, which is seconds since boot",
        )
    })
}

fn document<'a>(opened: &Opened, log: &KernelLog, lines: &'a [LogLine]) -> Document<'a> {
    Document {
        schema: "kdt/log/1",
        tool: super::tool(),
        path: opened.name(),
        records: log.records.len(),
        dropped: log.dropped,
        lost: log.lost.count,
        unfinished: log.unfinished,
        complete: log.is_complete(),
        end: log.end.to_string(),
        lines,
    }
}

/// Says what is missing of the log; older records that a full ring overwrote are no loss of the dump.
fn tell_losses(context: &Context, log: &KernelLog) -> Exit {
    if log.is_complete() {
        return Exit::Done;
    }
    if log.lost.count > 0 {
        let why = log.lost.first_reason.as_deref().unwrap_or("the reason is not known");
        context.output.warn(&format!(
            "{} of the log are wholly or partly not in the dump; the first because {why}",
            crate::output::human::plural(usize::try_from(log.lost.count).unwrap_or(usize::MAX), "record")
        ));
    }
    if !log.end.is_complete() {
        context.output.warn(&format!("the log is not read to its end: {}", log.end));
    }
    Exit::Partial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_taken_as_dmesg_takes_them() {
        assert_eq!(levels("err"), Ok(Levels(0b0000_1000)));
        assert_eq!(levels("err+"), Ok(Levels(0b0000_1111)));
        assert_eq!(levels("+info"), Ok(Levels(0b1100_0000)));
        assert_eq!(levels("7"), Ok(Levels(0b1000_0000)));
        assert!(levels("loud").unwrap_err().contains("emerg, alert, crit"));
        assert!(levels("8").is_err());
    }

    #[test]
    fn a_record_of_several_lines_stays_below_its_time_of_day() {
        let args = Args {
            paths: Vec::new(),
            format: Format::Human,
            level: Vec::new(),
            time: Time::Iso,
            caller: false,
            tail: None,
            output: None,
        };
        let record =
            LogRecord { ts_ns: Some(1_500_000_000), text: b"one\ntwo".to_vec(), ..LogRecord::default() };
        let mut out = Vec::new();
        args.with_wall_clock(&mut out, &record, Style::default(), 1_000_000_000.0).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2001-09-09T01:46:41,500000+00:00 one\n                                 two\n"
        );
    }
}
