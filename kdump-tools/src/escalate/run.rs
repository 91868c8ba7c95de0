//! Carries a plan out, or goes on with it.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use serde::{Deserialize, Serialize};
use vmcore::progress::{Cancel, Progress};

use super::journal::{Journal, Output, Said};
use super::plan::Plan;
use super::{Analysis, Bundle, Crew};
use crate::exit::{Exit, Failure};
use crate::output::file;
use crate::pack::{
    Depth, Kind, MANIFEST, Manifest, PackError, Package, digest_file, pack, plan as plan_pack, shown_path,
    verify,
};
use crate::transfer::{Destination, Receipt, plan_send, send};

/// The hidden folder for what is made on the way: reports and bundle, until they are in the package.
pub(super) const WORKSHOP: &str = ".kdt-escalate";
const REPORTS: [&str; 3] = ["report.json", "report.html", "report.txt"];

/// Something that an escalation should have and has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Missing {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Missing {
    /// What is missing, and why.
    #[must_use]
    pub fn new(what: &str, why: &str) -> Self {
        Self { what: what.to_owned(), why: why.to_owned() }
    }
}

/// What an escalation came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Escalated {
    /// The package's folder.
    pub dir: PathBuf,
    /// What it lists.
    pub manifest: Manifest,
    /// What happened, a line for each dump.
    pub headlines: Vec<String>,
    /// What is in the bundle, in one line.
    pub bundle: Option<String>,
    /// What is missing.
    pub missing: Vec<Missing>,
    /// The receiver's confirmation.
    pub receipt: Option<Receipt>,
    /// Why it was not sent, if it should have been.
    pub not_sent: Option<Failure>,
    /// Steps that an earlier run had done.
    pub kept: Vec<&'static str>,
}

impl Escalated {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.not_sent {
            Some(failure) => failure.exit,
            None if self.missing.is_empty() => Exit::Done,
            None => Exit::Partial,
        }
    }
}

/// Carries the plan out. Steps that an earlier run has done, and whose outputs still have their digests, are
/// not done again.
///
/// # Errors
/// The package can't be written, or is not what was written when it is read back; the folder belongs to another
/// escalation; it was cancelled. That a dump can't be analysed, the host not be collected or the package not be
/// sent is no error: it is told in the answer.
pub fn run(
    plan: &Plan,
    crew: &dyn Crew,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Escalated, Failure> {
    let out = &plan.request.out;
    let workshop = out.join(WORKSHOP);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&workshop);
    made.map_err(|e| Failure::io("make", &workshop, &e))?;
    let journal = Journal::open(out, plan.identity)?;
    if journal.is_of_another_plan() && out.join(MANIFEST).exists() {
        return Err(Failure::usage(
            format!("{} holds the package of another escalation", shown_path(out)),
            "name another directory with -o; nothing was written there",
        ));
    }
    let dumps = plan.evidence().iter().map(|path| shown_path(path)).collect::<Vec<_>>().join(", ");
    let note = format!("case {}, kdt {}: {dumps}", plan.request.case, env!("CARGO_PKG_VERSION"));
    journal.say(Said { step: "begin", result: "done", note, ..Said::default() })?;
    let work = Work { plan, crew, journal: &journal, workshop: &workshop, progress, cancel };
    let escalated = work.all()?;
    // The reports stay beside the package, for whoever stands at this machine.
    for name in REPORTS {
        let (from, to) = (workshop.join(name), out.join(name));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(|e| Failure::io("name", &to, &e))?;
        }
    }
    std::fs::remove_dir_all(&workshop).map_err(|e| Failure::io("remove", &workshop, &e))?;
    journal.say(Said {
        step: "end",
        result: "done",
        note: escalated.exit().meaning().into(),
        missing: escalated.missing.clone(),
        ..Said::default()
    })?;
    Ok(escalated)
}

struct Work<'a> {
    plan: &'a Plan,
    crew: &'a dyn Crew,
    journal: &'a Journal,
    workshop: &'a Path,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

/// What the steps before packing gave: what they say, and the files that travel.
#[derive(Default)]
struct Gathered {
    headlines: Vec<String>,
    bundle: Option<String>,
    missing: Vec<Missing>,
    kept: Vec<&'static str>,
    files: Vec<PathBuf>,
}

/// What one step gave, in this run or an earlier one.
struct Done {
    note: String,
    files: Vec<PathBuf>,
    missing: Vec<Missing>,
    kept: bool,
}

impl Work<'_> {
    fn all(&self) -> Result<Escalated, Failure> {
        let mut gathered = self.gather()?;
        let (manifest, kept) = self.pack(&gathered)?;
        if kept {
            gathered.kept.push("pack");
        }
        self.verify()?;
        let (receipt, not_sent) = self.send()?;
        Ok(Escalated {
            dir: self.plan.request.out.clone(),
            manifest,
            headlines: gathered.headlines,
            bundle: gathered.bundle,
            missing: gathered.missing,
            receipt,
            not_sent,
            kept: gathered.kept,
        })
    }

    /// Collects and analyses, both at once: one waits for the host, the other computes.
    fn gather(&self) -> Result<Gathered, Failure> {
        self.progress.step(if self.plan.request.collect { "collect and analyse" } else { "analyse" }, None);
        let (collected, analysed) = thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let collecting = scope.spawn(move || {
                let collected = self.plan.request.collect.then(|| self.collect());
                let files = collected.as_ref().and_then(|done| done.as_ref().ok()).map(|done| &done.files);
                // Nobody listens where an earlier run has analysed already.
                let _ = tell.send(files.and_then(|files| files.first().cloned()));
                collected
            });
            let analysed = self.analyse(&|| told.recv().ok().flatten());
            let collected = collecting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (collected, analysed)
        });
        self.check_cancel()?;
        let mut gathered = Gathered { missing: self.plan.missing.clone(), ..Gathered::default() };
        match collected {
            Some(Ok(done)) => {
                if done.kept {
                    gathered.kept.push("collect");
                }
                gathered.bundle = Some(done.note);
                gathered.files.extend(done.files);
                gathered.missing.extend(done.missing);
            }
            Some(Err(failure)) => gathered.missing.push(Missing::new("the host bundle", &failure.message)),
            None => {}
        }
        match analysed {
            Ok(done) => {
                if done.kept {
                    gathered.kept.push("triage");
                }
                gathered.headlines = done.note.lines().map(str::to_owned).collect();
                gathered.missing.extend(done.missing);
                gathered.files.extend(done.files);
            }
            Err(failure) => gathered.missing.push(Missing::new("the analysis", &failure.message)),
        }
        Ok(gathered)
    }

    /// True where the package is made, by an earlier run.
    fn is_packed(&self) -> bool {
        let out = &self.plan.request.out;
        out.join(MANIFEST).exists() && !out.join(".kdt-pack").exists()
    }

    fn check_cancel(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(PackError::Cancelled.into()) } else { Ok(()) }
    }

    /// A step of an earlier run, if all that it made is still what it was.
    fn earlier(&self, step: &'static str) -> Result<Option<Done>, Failure> {
        let Some(entry) = self.journal.done(step) else { return Ok(None) };
        let mut files = Vec::new();
        for output in &entry.outputs {
            // Once it is over, the reports lie beside the package, and the bundle only in it.
            let name = Path::new(&output.path).file_name().unwrap_or_default();
            let here = [self.workshop.join(name), self.plan.request.out.join(name)];
            let whole = here.into_iter().find(|path| self.digest(path) == Some((output.size, output.sha256)));
            match whole {
                Some(path) => files.push(path),
                None if self.package_has(output) => {}
                None => return Ok(None),
            }
        }
        self.journal.say(Said {
            step,
            result: "kept",
            note: entry.note.clone(),
            outputs: entry.outputs,
            missing: entry.missing.clone(),
        })?;
        Ok(Some(Done { note: entry.note, files, missing: entry.missing, kept: true }))
    }

    fn digest(&self, path: &Path) -> Option<(u64, crate::pack::Digest)> {
        digest_file(&mut File::open(path).ok()?, &|| self.cancel.is_cancelled()).ok()
    }

    fn package_has(&self, output: &Output) -> bool {
        Package::open(&self.plan.request.out).is_ok_and(|package| {
            package.manifest.artifacts.iter().any(|artifact| artifact.sha256 == output.sha256)
        })
    }

    fn output(path: &Path) -> Result<Output, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Not stopped by a cancel: what is made already shall be known to the next run.
        let found = File::open(path)
            .and_then(|mut file| digest_file(&mut file, &|| false))
            .map_err(|e| Failure::io("read", path, &e))?;
        Ok(Output::new(format!("{WORKSHOP}/{name}"), found.0, found.1))
    }

    /// Runs a step, and writes down what came of it.
    fn step(
        &self,
        step: &'static str,
        work: impl FnOnce() -> Result<(String, Vec<PathBuf>, Vec<Missing>), Failure>,
    ) -> Result<Done, Failure> {
        if let Some(earlier) = self.earlier(step)? {
            return Ok(earlier);
        }
        if self.is_packed() {
            // What comes now would not be in the package any more.
            let why = self
                .journal
                .failure(step)
                .unwrap_or_else(|| "it was not there when the package was made".into());
            return Err(Failure::new(Exit::Partial, why, "name another directory with -o to begin anew"));
        }
        match work() {
            Ok((note, files, missing)) => {
                let outputs = files.iter().map(|path| Self::output(path)).collect::<Result<Vec<_>, _>>()?;
                self.journal.say(Said {
                    step,
                    result: "done",
                    note: note.clone(),
                    outputs,
                    missing: missing.clone(),
                })?;
                Ok(Done { note, files, missing, kept: false })
            }
            Err(failure) => {
                let note = failure.message.clone();
                self.journal.say(Said { step, result: "failed", note, ..Said::default() })?;
                Err(failure)
            }
        }
    }

    fn collect(&self) -> Result<Done, Failure> {
        self.step("collect", || {
            let Bundle { path, summary, missing } = self.crew.collect(self.workshop)?;
            Ok((summary, vec![path], missing))
        })
    }

    fn analyse(&self, bundle: &dyn Fn() -> Option<PathBuf>) -> Result<Done, Failure> {
        self.step("triage", || {
            let Analysis { json, html, text, headlines, missing } =
                self.crew.analyse(&self.plan.dump_files(), bundle)?;
            self.check_cancel()?;
            let mut page = format!("case {}\n\n{text}", self.plan.request.case);
            for dump in &self.plan.dumps {
                for path in dump.files.iter().chain(&dump.logs) {
                    let _ = writeln!(page, "in this package: {} ({})", shown_path(path), dump.why);
                }
            }
            for Missing { what, why } in self.plan.missing.iter().chain(&missing) {
                let _ = writeln!(page, "missing: {what}: {why}");
            }
            let [json_name, html_name, text_name] = REPORTS.map(|name| self.workshop.join(name));
            file::write(&json_name, &json, &[])?;
            file::write(&html_name, &html, &[])?;
            file::write(&text_name, &page, &[])?;
            Ok((headlines.join("\n"), vec![json_name, html_name, text_name], missing))
        })
    }

    /// Packs, or takes the package that an earlier run has made.
    fn pack(&self, gathered: &Gathered) -> Result<(Manifest, bool), Failure> {
        let out = &self.plan.request.out;
        if self.is_packed() {
            let package = Package::open(out)?;
            let root = package.manifest.root_digest;
            let told = self.journal.done("pack");
            // A kill between the manifest and the journal's line leaves a package that the journal does not know.
            let ours = match &told {
                Some(entry) => entry.outputs.first().is_some_and(|output| output.sha256 == root),
                None => self.holds_reports(&package.manifest),
            };
            if !ours {
                return Err(Failure::usage(
                    format!("{} holds another package", shown_path(out)),
                    "name another directory with -o; nothing was written there",
                ));
            }
            let outputs = vec![Output::new(MANIFEST, package_bytes(&package.manifest), root)];
            self.journal.say(Said {
                step: "pack",
                result: "kept",
                note: format!("root digest {root}"),
                outputs,
                ..Said::default()
            })?;
            return Ok((package.manifest, true));
        }
        let mut sources = gathered.files.clone();
        sources.extend(self.plan.evidence());
        let plan = plan_pack(&self.plan.pack_request(sources))?;
        let packed = pack(&plan, self.plan.request.check_space, self.progress, self.cancel);
        match packed {
            Ok(packed) => {
                let root = packed.manifest.root_digest;
                let outputs = vec![Output::new(MANIFEST, package_bytes(&packed.manifest), root)];
                let note = format!("root digest {root}");
                self.journal.say(Said { step: "pack", result: "done", note, outputs, ..Said::default() })?;
                Ok((packed.manifest, false))
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.journal.say(Said {
                    step: "pack",
                    result: "failed",
                    note: failure.message.clone(),
                    ..Said::default()
                })?;
                Err(failure)
            }
        }
    }

    fn holds_reports(&self, manifest: &Manifest) -> bool {
        let told = self.journal.done("triage").map(|entry| entry.outputs).unwrap_or_default();
        let mut reports =
            manifest.artifacts.iter().filter(|artifact| artifact.kind == Kind::Report).peekable();
        reports.peek().is_some()
            && reports.all(|report| told.iter().any(|output| output.sha256 == report.sha256))
    }

    /// Reads the package back from the disk. A package that is not what was written must not leave.
    fn verify(&self) -> Result<(), Failure> {
        let out = &self.plan.request.out;
        forget(out);
        let verdict = verify(out, Depth::Artifacts, self.progress, self.cancel)?;
        let Some(problem) = verdict.problems.first() else {
            let note = format!("{} parts right", verdict.parts_right);
            return self.journal.say(Said { step: "verify", result: "done", note, ..Said::default() });
        };
        self.journal.say(Said {
            step: "verify",
            result: "failed",
            note: problem.sentence.clone(),
            ..Said::default()
        })?;
        Err(Failure::new(
            Exit::Verify,
            format!("the package in {} is not what was written: {}", shown_path(out), problem.sentence),
            "see the kernel log for disk errors, and run the command again with another directory for -o",
        ))
    }

    fn send(&self) -> Result<(Option<Receipt>, Option<Failure>), Failure> {
        let Some(destination) = &self.plan.request.send else { return Ok((None, None)) };
        let Destination::Folder(to) = destination;
        let sent = plan_send(&self.plan.request.out, destination, self.plan.request.check_space)
            .and_then(|plan| send(&plan, self.progress, self.cancel));
        match sent {
            Ok(sent) => {
                let outputs = vec![Output::new(shown_path(to), sent.receipt.bytes, sent.receipt.root_digest)];
                self.journal.say(Said {
                    step: "send",
                    result: "done",
                    note: sent.summary(),
                    outputs,
                    ..Said::default()
                })?;
                Ok((Some(sent.receipt), None))
            }
            Err(PackError::Cancelled) => Err(PackError::Cancelled.into()),
            Err(error) => {
                let failure = Failure::from(error);
                self.journal.say(Said {
                    step: "send",
                    result: "failed",
                    note: failure.message.clone(),
                    ..Said::default()
                })?;
                Ok((None, Some(failure)))
            }
        }
    }
}

fn package_bytes(manifest: &Manifest) -> u64 {
    manifest.parts.iter().fold(0, |sum, part| sum.saturating_add(part.size))
}

/// Asks the kernel to drop what it remembers of the files, so that they are read from the disk.
fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(file) = File::open(entry.path()) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}
