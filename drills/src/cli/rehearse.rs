//! `kdt drill list | show | run | report`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand, ValueEnum};

use crate::run::{self, Setup};
use crate::scenario::{self, Scenario};
use crate::verdict::{Outcome, Status, Verdict};

use super::{Environment, Failure};

/// The commands of a rehearsal.
#[derive(Debug, Subcommand)]
pub enum Rehearse {
    /// The drills there are
    List,
    /// What a drill does, step by step
    Show {
        /// Its name, as in `list`, or a file of your own
        drill: String,
    },
    /// Rehearse: throw-away guests only, nothing of this host is touched
    Run(RunArgs),
    /// The report of an earlier run
    Report {
        /// The drill's name; the newest report of all where none is given
        drill: Option<String>,
        /// Where the reports are [default: kdt/drills in your state folder]
        #[arg(long, value_name = "DIR")]
        reports: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
}

/// What `run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Its name, as in `list`, or a file of your own
    drill: String,
    /// Print the plan, do nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep all that the run wrote in this directory (it must be empty or not be there)
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Decide every choice by another number than the scenario's own
    #[arg(long)]
    seed: Option<u64>,
    /// The `kdt` to try [default: the one beside this program, else the one in PATH]
    #[arg(long, value_name = "FILE")]
    kdt: Option<PathBuf>,
    /// Where to leave the report [default: kdt/drills in your state folder]
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
    /// How to print the verdict
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// Schema `kdt/drill/1`.
    Json,
}

impl Rehearse {
    /// Carries the command out; the answer goes to `out`.
    ///
    /// # Errors
    /// What went wrong, its hint and its exit code.
    pub fn run(&self, environment: &Environment, out: &mut dyn Write) -> Result<u8, Failure> {
        match self {
            Self::List => {
                for (id, scenario) in scenario::built_in() {
                    writeln!(out, "{id:<16}  {}", scenario.title)?;
                }
                Ok(0)
            }
            Self::Show { drill } => {
                let scenario = find(drill)?;
                writeln!(out, "{} (version {}): {}\n", scenario.id, scenario.version, scenario.title)?;
                writeln!(out, "{}", scenario.story.trim())?;
                writeln!(out, "\nat most {} minutes, seed {}\n", scenario.max_minutes, scenario.seed)?;
                for (n, (step, plan)) in scenario.steps.iter().zip(run::plan(&scenario)).enumerate() {
                    writeln!(out, "{:>2}. {} ({} points)\n    {plan}", n + 1, step.name, step.points)?;
                    if !step.expect.exit.is_empty() {
                        writeln!(out, "    must end with exit code {:?}", step.expect.exit)?;
                    }
                    for text in &step.expect.says {
                        writeln!(out, "    must say «{text}»")?;
                    }
                }
                Ok(0)
            }
            Self::Run(args) => args.run(environment, out),
            Self::Report { drill, reports, format } => {
                let dir = reports.clone().map_or_else(|| default_reports(environment), Ok)?;
                print(&newest(&dir, drill.as_deref())?, *format, out)
            }
        }
    }
}

impl RunArgs {
    fn run(&self, environment: &Environment, out: &mut dyn Write) -> Result<u8, Failure> {
        let mut scenario = find(&self.drill)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let kdt = self.kdt.clone().map_or_else(|| find_kdt(environment), Ok)?;
        let reports = self.reports.clone().map_or_else(|| default_reports(environment), Ok)?;
        if self.dry_run {
            writeln!(out, "{} with {}, report in {}", scenario.id, kdt.display(), reports.display())?;
            for line in run::plan(&scenario) {
                writeln!(out, "  {line}")?;
            }
            return Ok(0);
        }
        // Without -o the directory, guest disks and all, is gone when this function ends, however it ends.
        let temporary = tempfile::Builder::new().prefix("kdt-drill-").tempdir();
        let temporary = temporary.map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
        let work = match &self.output {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(|e| Failure::file(dir, &e))?;
                if fs::read_dir(dir).map_err(|e| Failure::file(dir, &e))?.next().is_some() {
                    return Err(Failure::usage(
                        format!("{} is not empty", dir.display()),
                        "name an empty directory",
                    ));
                }
                dir.clone()
            }
            None => temporary.path().to_owned(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::Output)?;
        }
        let live = io::stderr().is_terminal();
        let setup = Setup { kdt, work, lab_cache: environment.lab_cache(), stop: &stop };
        let verdict = run::run(&scenario, &setup, |step, result| {
            // The talk: one line when a step begins, on a terminal only; a failed write to stderr has nobody to tell.
            if live && result.is_none() {
                let _ = writeln!(io::stderr(), "… {}", step.name);
            }
        });
        save(&verdict, &reports)?;
        print(&verdict, self.format, out)
    }
}

/// Prints a verdict, and turns it into an exit code.
fn print(verdict: &Verdict, format: Format, out: &mut dyn Write) -> Result<u8, Failure> {
    match format {
        Format::Human => write!(out, "{}", verdict.human())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, verdict).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(match verdict.status {
        Status::Passed => 0,
        Status::Failed => 5,
        Status::Aborted if verdict.steps.iter().any(|s| s.outcome == Outcome::Passed) => 4,
        Status::Aborted => 3,
        Status::Interrupted => 130,
    })
}

/// A drill by name, or from a file.
fn find(drill: &str) -> Result<Scenario, Failure> {
    if let Some(scenario) = scenario::built_in().remove(drill) {
        return Ok(scenario);
    }
    let path = Path::new(drill);
    if !path.exists() {
        return Err(Failure::usage(
            format!("there is no drill «{}»", drill.escape_debug()),
            "kdt drill list names them",
        ));
    }
    let text = fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?;
    scenario::parse(&text).map_err(|e| {
        Failure::input(
            format!("{} is not a scenario: {}", path.display(), e.to_string().trim()),
            "take drills/scenarios/panic-kdump.toml as an example",
        )
    })
}

/// The `kdt` beside this program, else the one in `PATH`.
fn find_kdt(environment: &Environment) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("kdt")));
    let path = environment.path.clone().unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join("kdt")).collect();
    beside.into_iter().chain(in_path).find(|p| p.is_file()).ok_or_else(|| {
        Failure::input(
            "no kdt is beside this program or in PATH".into(),
            "build it, or name it with --kdt FILE",
        )
    })
}

/// Where reports are kept.
fn default_reports(environment: &Environment) -> Result<PathBuf, Failure> {
    let state = environment.xdg_state_home.as_ref().map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(environment.home.as_ref()?).join(".local/state")));
    state.map(|dir| dir.join("kdt/drills")).ok_or_else(|| {
        Failure::usage(
            "neither XDG_STATE_HOME nor HOME is set".into(),
            "say where reports go with --reports DIR",
        )
    })
}

/// Leaves the report where `report` finds it, under its final name only when it is whole.
fn save(verdict: &Verdict, dir: &Path) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut file, verdict)?;
        file.as_file().sync_all()?;
        let name = format!("{}-{}.json", verdict.started.replace(':', ""), verdict.drill);
        file.persist(dir.join(name)).map_err(|e| e.error)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(|e| Failure::file(dir, &e))
}

/// The newest report, of one drill or of all.
fn newest(dir: &Path, drill: Option<&str>) -> Result<Verdict, Failure> {
    let mut found: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Failure::file(dir, &e)),
    };
    found.retain(|p| p.extension().is_some_and(|e| e == "json"));
    found.sort();
    for path in found.iter().rev() {
        let text = fs::read(path).map_err(|e| Failure::file(path, &e))?;
        let Ok(verdict) = serde_json::from_slice::<Verdict>(&text) else { continue };
        if drill.is_none_or(|d| d == verdict.drill) {
            return Ok(verdict);
        }
    }
    Err(Failure::input(
        format!("{} has no report{}", dir.display(), drill.map(|d| format!(" of «{d}»")).unwrap_or_default()),
        "run the drill first: kdt drill run NAME",
    ))
}
