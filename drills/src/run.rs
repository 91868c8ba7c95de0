//! Carries a scenario out: step by step, with the real binaries, within its time, leaving nothing behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::compare;
use crate::fault::{self, Flipped};
use crate::lab;
use crate::scenario::{Action, Expect, Scenario, Step, Vars};
use crate::verdict::{Outcome, SCHEMA, Status, StepResult, Verdict};

/// What a run needs beside its scenario.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The `kdt` that is tried.
    pub kdt: PathBuf,
    /// An empty directory for all that the run writes; the caller removes or keeps it.
    pub work: PathBuf,
    /// Where the lab keeps the packages that it downloads.
    pub lab_cache: PathBuf,
    /// Set from outside when somebody wants it to stop.
    pub stop: &'a AtomicBool,
}

/// Why a step did not pass.
enum Trouble {
    /// It saw something else than it must.
    Failed(String),
    /// The drill can't go on.
    Aborted(String),
    /// Somebody stopped it.
    Interrupted,
}

/// One run under way.
struct Run<'a> {
    setup: &'a Setup<'a>,
    seed: u64,
    deadline: Instant,
    vars: Vars,
    damage: Option<Flipped>,
}

/// Runs a scenario. Tells `on_step` before and after each step.
pub fn run(
    scenario: &Scenario,
    setup: &Setup<'_>,
    mut on_step: impl FnMut(&Step, Option<&StepResult>),
) -> Verdict {
    let begun = Instant::now();
    let mut run = Run {
        setup,
        seed: scenario.seed,
        deadline: begun + Duration::from_secs(scenario.max_minutes.saturating_mul(60)),
        vars: Vars::default(),
        damage: None,
    };
    run.vars.set("work", setup.work.to_string_lossy());
    run.vars.set("case", format!("drill-{}", scenario.id));
    let mut verdict = Verdict {
        schema: SCHEMA.into(),
        drill: scenario.id.clone(),
        version: scenario.version,
        title: scenario.title.clone(),
        seed: scenario.seed,
        started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        seconds: 0.0,
        status: Status::Passed,
        score: 0,
        of: scenario.steps.iter().map(|s| s.points).sum(),
        evidence_safe_after_s: None,
        steps: Vec::new(),
    };
    for step in &scenario.steps {
        let mut result = StepResult {
            name: step.name.clone(),
            role: step.role.clone(),
            points: step.points,
            outcome: Outcome::NotReached,
            seconds: 0.0,
            did: String::new(),
            saw: String::new(),
        };
        if verdict.status == Status::Passed {
            on_step(step, None);
            let started = Instant::now();
            let seen = run.step(step, &mut result.did);
            result.seconds = started.elapsed().as_secs_f64();
            match seen {
                Ok(saw) => {
                    result.outcome = Outcome::Passed;
                    result.saw = saw;
                    verdict.score += step.points;
                    if sends(step) {
                        verdict.evidence_safe_after_s = Some(begun.elapsed().as_secs_f64());
                    }
                }
                Err(trouble) => {
                    result.outcome = Outcome::Failed;
                    (verdict.status, result.saw) = match trouble {
                        Trouble::Failed(why) => (Status::Failed, why),
                        Trouble::Aborted(why) => (Status::Aborted, why),
                        Trouble::Interrupted => (Status::Interrupted, "stopped from outside".into()),
                    };
                }
            }
            on_step(step, Some(&result));
        }
        verdict.steps.push(result);
    }
    verdict.seconds = begun.elapsed().as_secs_f64();
    verdict
}

/// True for a step that brings the evidence into other hands.
fn sends(step: &Step) -> bool {
    matches!(&step.run, Action::Kdt(args) if args.iter().any(|a| a == "--send" || a == "send"))
}

/// What each step of a scenario would do, in the words of `--dry-run`.
#[must_use]
pub fn plan(scenario: &Scenario) -> Vec<String> {
    scenario.steps.iter().map(|step| format!("{:<11}  {}", step.role, describe(&step.run))).collect()
}

/// An action as a person would say it, its `{names}` not yet filled.
fn describe(action: &Action) -> String {
    match action {
        Action::GuestCrash { kernel, recipe } => {
            format!("boot a throw-away guest with kernel {kernel}, crash it, take its dump ({recipe})")
        }
        Action::Kdt(args) => format!("kdt {}", args.join(" ")),
        Action::FlipByte { within, name, skip } => {
            format!("flip one bit of file {} of {within}/{name}*", skip + 1)
        }
        Action::UndoDamage => "put back what was damaged".into(),
        Action::SameBytes { left, within } => format!("look below {within} for the bytes of {left}"),
        Action::LogAgrees { console, dump } => format!("compare the log of {dump} with {console}"),
    }
}

impl Run<'_> {
    fn step(&mut self, step: &Step, did: &mut String) -> Result<String, Trouble> {
        self.may_go_on()?;
        let action = describe(&step.run);
        *did = self.vars.fill(&action).unwrap_or(action);
        match &step.run {
            Action::GuestCrash { kernel, recipe } => self.guest_crash(kernel, recipe),
            Action::Kdt(args) => {
                let args = args.iter().map(|a| self.fill(a)).collect::<Result<Vec<_>, _>>()?;
                self.kdt(&args, &step.expect)
            }
            Action::FlipByte { within, name, skip } => self.flip(within, name, *skip),
            Action::UndoDamage => {
                let Some(damage) = self.damage.take() else {
                    return Err(Trouble::Aborted("nothing was damaged before".into()));
                };
                damage.undo().map_err(|e| io_trouble(&damage.path, &e))?;
                Ok(format!("byte {:#x} of {} is what it was", damage.at, damage.path.display()))
            }
            Action::SameBytes { left, within } => {
                let (left, within) = (PathBuf::from(self.fill(left)?), PathBuf::from(self.fill(within)?));
                let found = compare::find_same(&left, &within).map_err(|e| io_trouble(&within, &e))?;
                let Some(found) = found else {
                    return Err(Trouble::Failed(format!(
                        "no file below {} has the bytes of {}",
                        within.display(),
                        left.display()
                    )));
                };
                let len = fs::metadata(&found).map_err(|e| io_trouble(&found, &e))?.len();
                self.vars.set("received", found.to_string_lossy());
                Ok(format!("{len} bytes, all the same"))
            }
            Action::LogAgrees { console, dump } => self.log_agrees(console, dump),
        }
    }

    fn fill(&self, text: &str) -> Result<String, Trouble> {
        self.vars.fill(text).map_err(Trouble::Aborted)
    }

    fn may_go_on(&self) -> Result<(), Trouble> {
        if self.setup.stop.load(Ordering::Relaxed) {
            return Err(Trouble::Interrupted);
        }
        if Instant::now() >= self.deadline {
            return Err(Trouble::Aborted("the drill's time is up".into()));
        }
        Ok(())
    }

    fn guest_crash(&mut self, kernel: &str, recipe: &str) -> Result<String, Trouble> {
        let made = self.crash(kernel, recipe).map_err(|e| Trouble::Aborted(format!("{e}\n{}", e.hint())))?;
        let [dump] = made.paths.as_slice() else {
            return Err(Trouble::Aborted(format!(
                "recipe {recipe} makes {} files, not one",
                made.paths.len()
            )));
        };
        let len = fs::metadata(dump).map_err(|e| io_trouble(dump, &e))?.len();
        self.vars.set("vmcore", dump.to_string_lossy());
        self.vars.set("console", made.console.to_string_lossy());
        self.vars.set("release", made.kernel_release.clone());
        Ok(format!("kernel {}, dump of {len} bytes", made.kernel_release))
    }

    /// Packages come from the lab's cache; the crash is a new one, for a rehearsal with yesterday's dump is none.
    fn crash(&self, kernel: &str, recipe: &str) -> Result<lab::MadeDump, lab::LabError> {
        let book = lab::RecipeBook::read()?;
        let lab = lab::Lab::open(&self.setup.lab_cache)?.crash_in(self.setup.work.join("crashes"))?;
        lab.make_dump(&lab::KernelSpec::named(kernel)?, book.recipe(recipe)?, &self.setup.work.join("guest"))
    }

    fn flip(&mut self, within: &str, name: &str, skip: usize) -> Result<String, Trouble> {
        let (within, name) = (PathBuf::from(self.fill(within)?), self.fill(name)?);
        let mut files = fs::read_dir(&within)
            .and_then(|dir| dir.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| io_trouble(&within, &e))?;
        files.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name)));
        files.sort();
        let Some(victim) = files.get(skip) else {
            return Err(Trouble::Failed(format!(
                "{} has {} files named {name}*, the drill damages number {}",
                within.display(),
                files.len(),
                skip + 1
            )));
        };
        let flipped = fault::flip_byte(victim, self.seed).map_err(|e| io_trouble(victim, &e))?;
        let file = victim.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let saw = format!("one bit of byte {:#x} of {file} is wrong now", flipped.at);
        self.vars.set("damaged", file);
        self.damage = Some(flipped);
        Ok(saw)
    }

    fn log_agrees(&mut self, console: &str, dump: &str) -> Result<String, Trouble> {
        let console = PathBuf::from(self.fill(console)?);
        let printed = fs::read(&console).map_err(|e| io_trouble(&console, &e))?;
        // A console leaves out what is for debugging only (`console_loglevel` is 7 unless somebody changed it).
        let answer = self.run_kdt(&["log".into(), "--level".into(), "info+".into(), self.fill(dump)?])?;
        let got = compare::log_agreement(&answer.stdout, &String::from_utf8_lossy(&printed));
        if got.both == 0 || !got.only_console.is_empty() || !got.only_log.is_empty() {
            let lines = got.only_console.iter().map(|l| format!("only the console: {l}"));
            let lines = lines.chain(got.only_log.iter().map(|l| format!("only the log: {l}")));
            let shown: Vec<String> = lines.take(5).collect();
            return Err(Trouble::Failed(format!(
                "{} lines agree, {} only on the console, {} only in the log\n{}",
                got.both,
                got.only_console.len(),
                got.only_log.len(),
                shown.join("\n")
            )));
        }
        Ok(format!("all {} lines of the console, and {} that came after it", got.both, got.after_console))
    }

    fn kdt(&mut self, args: &[String], expect: &Expect) -> Result<String, Trouble> {
        let answer = self.run_kdt(args)?;
        let said = format!("{}\n{}", answer.stdout, answer.stderr);
        let code = answer.status.code();
        let mut wrong = Vec::new();
        if !expect.exit.is_empty() && !code.is_some_and(|c| expect.exit.contains(&c)) {
            wrong.push(format!("{}, expected {:?}", ended(answer.status), expect.exit));
        }
        for text in &expect.says {
            let text = self.fill(text)?;
            if !said.contains(&text) {
                wrong.push(format!("it does not say «{text}»"));
            }
        }
        if !wrong.is_empty() {
            return Err(Trouble::Failed(format!("{}\n{}", wrong.join("; "), tail(&said, 12))));
        }
        Ok(match code {
            Some(0) => String::new(),
            _ => format!("{}\n{}", ended(answer.status), tail(&answer.stderr, 4)),
        })
    }

    /// Runs the real binary, with its output in files so that nothing it says can block it.
    fn run_kdt(&self, args: &[String]) -> Result<Answer, Trouble> {
        let (out, err) = (self.setup.work.join("kdt.stdout"), self.setup.work.join("kdt.stderr"));
        let open = |path: &Path| File::create(path).map_err(|e| io_trouble(path, &e));
        let mut child = Command::new(&self.setup.kdt)
            .args(args)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(open(&out)?)
            .stderr(open(&err)?)
            .spawn()
            .map_err(|e| Trouble::Aborted(format!("{} can't be started: {e}", self.setup.kdt.display())))?;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(e) => return Err(Trouble::Aborted(format!("kdt can't be waited for: {e}"))),
            }
            if let Err(trouble) = self.may_go_on() {
                // Ours, so it may be ended; it is reaped below or by init.
                let _ = child.kill();
                let _ = child.wait();
                return Err(trouble);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |path: &Path| fs::read(path).map_err(|e| io_trouble(path, &e));
        Ok(Answer {
            status,
            stdout: String::from_utf8_lossy(&read(&out)?).into_owned(),
            stderr: String::from_utf8_lossy(&read(&err)?).into_owned(),
        })
    }
}

/// What one run of `kdt` answered.
struct Answer {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without an exit code".into(),
    }
}

fn io_trouble(path: &Path, error: &io::Error) -> Trouble {
    Trouble::Aborted(format!("{}: {error}", path.display()))
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
}
