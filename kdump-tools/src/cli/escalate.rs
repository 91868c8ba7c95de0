//! `kdt escalate`: from the crash to a verified package, in one command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sosreport_lite::{Options, ReaderCommand};
use vmcore::report::Report;

use super::pack::{case_id, quoted};
use super::triage::{Triaged, analyse, is_damaged};
use super::{Context, Format, Run};
use crate::discover::{self, DumpSet};
use crate::escalate::{Analysis, Bundle, Crew, Escalated, Missing, Plan, Request, plan, run};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::{self, HostBundle};
use crate::output::color::Painter;
use crate::output::escape::escape;
use crate::output::table::Facts;
use crate::output::{html, human, json, report};
use crate::pack::{CaseId, Kind, shown_path};
use crate::size::Size;
use crate::transfer::{Destination, Receipt};

/// Dumps whose headline is shown; the report has them all.
const HEADLINES: usize = 4;
/// Missing things that are shown; the report and the journal have them all.
const MISSING: usize = 8;

/// The main job in one go: gather dumps and host, analyse, pack, verify, and send
///
/// Without --dump it takes the newest dump that kdump has written. What can't be had does not keep the rest from
/// being done: it is told, and the exit code is 4. A dump that can't be opened travels all the same. Interrupted, the
/// same command goes on where it stopped. The report travels in the first part, and stays beside the package.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The case: the parts are named after it
    #[arg(long, value_name = "ID", value_parser = case_id)]
    case: CaseId,
    /// A dump, or a directory with dumps; may be given more than once
    #[arg(long, value_name = "PATH", num_args = 1..)]
    dump: Vec<PathBuf>,
    /// The directory that becomes the package; kdt-CASE where it is not given
    #[arg(short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Send the package to a directory, also as `file:///directory`
    #[arg(long, value_name = "URL")]
    send: Option<String>,
    /// No part is longer than this
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    part_size: Size,
    /// How hard to compress, from 1 (fast) to 19 (small)
    #[arg(long, value_name = "N", default_value_t = 3)]
    level: i32,
    /// Threads that compress, and dumps that are analysed at a time; one for each CPU where it is not given
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Leave the facts of this host out
    #[arg(long)]
    no_collect: bool,
    /// The root of the host, where its dumps, its configuration and its facts are
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Begin even where the space seems not to do
    #[arg(long)]
    no_space_check: bool,
    /// Print the plan, with sizes and times, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// human: a screen for a person; json: the document kdt/escalate/1
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let send = self.send.as_deref().map(Destination::parse).transpose()?;
        let request = Request {
            out: self.output.clone().unwrap_or_else(|| PathBuf::from(format!("kdt-{}", self.case))),
            case: self.case.clone(),
            dumps: self.dump.clone(),
            part_size: self.part_size.bytes(),
            level: self.level,
            jobs: self.jobs,
            collect: !self.no_collect,
            send,
            root: self.root.clone(),
            check_space: !self.no_space_check,
        };
        let crew = Team { context, case: &self.case, root: &self.root, jobs: self.jobs };
        let plan = plan(&request, &crew)?;
        if self.dry_run {
            self.tell_plan(context, &plan)?;
            return Ok(Exit::Done);
        }
        let progress = context.output.display().piece(self.case.as_str());
        let escalated = run(&plan, &crew, &progress, &context.cancel)?;
        drop(progress);
        self.tell(context, &plan, &escalated)?;
        if let Some(failure) = &escalated.not_sent {
            return Err(failure.clone());
        }
        Ok(escalated.exit())
    }
}

/// The crew that knows dumps and hosts.
struct Team<'a> {
    context: &'a Context,
    case: &'a CaseId,
    root: &'a Path,
    jobs: Option<usize>,
}

impl Team<'_> {
    fn collect_plan(&self, into: &Path) -> Result<sosreport_lite::Plan, Failure> {
        let options = Options {
            case: Some(self.case.to_string()),
            out: into.to_owned(),
            root: self.root.to_owned(),
            reader: Some(ReaderCommand::this_program()),
            ..Options::default()
        };
        Ok(sosreport_lite::plan(&options)?)
    }
}

impl Crew for Team<'_> {
    fn dumps(&self, paths: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, Failure> {
        let found = discover::discover(paths, &self.context.cancel)?;
        for skipped in found.skipped.iter().filter(|skipped| skipped.blind) {
            self.context.output.warn(&format!("{} {}", shown_path(&skipped.path), skipped.why));
        }
        Ok(found.sets.into_iter().map(|set| set.paths).collect())
    }

    fn analyse(
        &self,
        dumps: &[Vec<PathBuf>],
        bundle: &dyn Fn() -> Option<PathBuf>,
    ) -> Result<Analysis, Failure> {
        let sets: Vec<DumpSet> = dumps.iter().map(|paths| DumpSet { paths: paths.clone() }).collect();
        let mut done = analyse(self.context, &sets, &[], self.jobs)?;
        let bundle = bundle().map(|path| HostBundle::open(&path));
        for done in &mut done {
            match &bundle {
                Some(Ok(bundle)) => host::join(&mut done.report, bundle),
                Some(Err(failure)) => done.report.skip("host bundle", &failure.message),
                None => {}
            }
        }
        if self.context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let reports: Vec<&Report> = done.iter().map(|done| &done.report).collect();
        let json = match reports.as_slice() {
            [report] => json::text(report)?,
            reports => json::text(&reports)?,
        };
        Ok(Analysis {
            json,
            html: html::page(&reports),
            text: report::pages(
                &reports,
                &[],
                report::Look { width: 100, painter: Painter::default(), by_hand: true },
            ),
            headlines: done.iter().map(headline).collect(),
            missing: done.iter().flat_map(missing).collect(),
        })
    }

    fn collecting(&self, into: &Path) -> Result<String, Failure> {
        // The directory is made later; what is in it does not change what is collected.
        let there = into.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let plan = self.collect_plan(there)?;
        let limits = &plan.options.limits;
        let (items, most) = (human::plural(plan.items.len(), "item"), Size::from(limits.max_bytes));
        Ok(format!("{items} of this host, at most {most} and {} s", limits.max_time.as_secs()))
    }

    fn collect(&self, into: &Path) -> Result<Bundle, Failure> {
        let plan = self.collect_plan(into)?;
        let cancel = sosreport_lite::Cancel::from_flag(Arc::clone(&self.context.stop));
        let outcome = sosreport_lite::run(&plan, &sosreport_lite::Quiet, &cancel)?;
        if outcome.path.parent() != Some(into) {
            return Err(Failure::internal("the bundle is not where it was asked for"));
        }
        let mut missing = Vec::new();
        if outcome.is_partial() {
            let items = outcome.worth_telling();
            missing.extend(items.map(|item| {
                Missing::new(&item.what, &format!("{}: {}", item.status.word(), item.status.why()))
            }));
        }
        let _ = std::fs::remove_file(&outcome.digest_path);
        Ok(Bundle { summary: outcome.summary(), path: outcome.path, missing })
    }
}

/// What happened, in one line.
fn headline(done: &Triaged) -> String {
    let report = &done.report;
    let path = Path::new(&report.dump.path);
    let name =
        path.file_name().map_or_else(|| report.dump.path.clone(), |name| name.to_string_lossy().into_owned());
    let kernel =
        report.kernel.release.as_deref().map(|release| format!(", kernel {release}")).unwrap_or_default();
    match (&report.error, &report.panic) {
        (Some(error), _) => format!("{name}: not usable: {}", error.message),
        (None, Some(panic)) => format!("{name}{kernel}: {}: {}", panic.kind.word(), panic.message),
        (None, None) if report::is_untold(report) => {
            format!("{name}{kernel}: it crashed, and its log does not tell of what")
        }
        (None, None) => format!("{name}{kernel}: no panic was found in its log"),
    }
}

fn missing(done: &Triaged) -> Vec<Missing> {
    let report = &done.report;
    if let Some(error) = &report.error {
        return vec![Missing::new("the analysis of a dump", &error.message)];
    }
    if !is_damaged(&report.dump.completeness) {
        return Vec::new();
    }
    let state = &report.dump.completeness;
    let mut why = Vec::new();
    let counts = [
        (state.lost_pages, "lost"),
        (state.corrupt_pages, "corrupt"),
        (state.misplaced_pages, "perhaps those of other frames"),
    ];
    for (count, words) in counts {
        if let Some(count) = count.filter(|count| *count > 0) {
            why.push(format!("{} pages are {words}", human::count(count)));
        }
    }
    if let Some(at) = state.truncated_at {
        why.push(format!("the file ends at byte {at}, before it should"));
    }
    if state.incomplete_flag == Some(true) {
        why.push("its writer says that it stopped early".into());
    }
    vec![Missing::new(&format!("a part of {}", report.dump.path), &why.join(", "))]
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    case: &'a CaseId,
    dir: String,
    headlines: &'a [String],
    artifacts: usize,
    parts: usize,
    packed_bytes: u64,
    root_digest: String,
    kept_steps: &'a [&'static str],
    missing: &'a [Missing],
    receipt: Option<&'a Receipt>,
    not_sent: Option<&'a str>,
}

#[derive(Serialize)]
struct PlanDocument<'a> {
    schema: &'static str,
    dry_run: bool,
    case: &'a CaseId,
    dir: String,
    dumps: Vec<String>,
    steps: Vec<StepDocument<'a>>,
    missing: &'a [Missing],
}

#[derive(Serialize)]
struct StepDocument<'a> {
    name: &'a str,
    what: &'a str,
    seconds: Option<f64>,
}

impl Args {
    fn tell_plan(&self, context: &Context, plan: &Plan) -> Result<(), Failure> {
        let dumps: Vec<String> =
            plan.dumps.iter().flat_map(|dump| &dump.files).map(|path| shown_path(path)).collect();
        if self.format == Format::Json {
            let steps = plan.steps.iter().map(|step| StepDocument {
                name: step.name,
                what: &step.what,
                seconds: step.time.map(|time| time.as_secs_f64()),
            });
            return json::print(
                &context.output,
                &PlanDocument {
                    schema: "kdt/escalate/1",
                    dry_run: true,
                    case: &self.case,
                    dir: shown_path(&plan.request.out),
                    dumps,
                    steps: steps.collect(),
                    missing: &plan.missing,
                },
            );
        }
        let mut facts = Facts::new();
        for dump in &plan.dumps {
            let files: Vec<String> = dump.files.iter().map(|path| shown_path(path)).collect();
            facts.row("dump", format!("{} ({})", files.join(", "), dump.why));
        }
        for step in &plan.steps {
            let time = step.time.map(|time| format!(" (about {})", human::duration(time.as_secs_f64())));
            facts.row(step.name, format!("{}{}", step.what, time.unwrap_or_default()));
        }
        for Missing { what, why, .. } in &plan.missing {
            facts.row("missing", format!("{what}: {why}"));
        }
        context.output.answer(&facts.render(context.output.width(), context.output.painter()))?;
        context.output.answer("Nothing was written: without --dry-run, this is done.\n")
    }

    fn tell(&self, context: &Context, plan: &Plan, done: &Escalated) -> Result<(), Failure> {
        let manifest = &done.manifest;
        let packed_bytes = manifest.parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
        if self.format == Format::Json {
            return json::print(
                &context.output,
                &Document {
                    schema: "kdt/escalate/1",
                    case: &self.case,
                    dir: shown_path(&done.dir),
                    headlines: &done.headlines,
                    artifacts: manifest.artifacts.len(),
                    parts: manifest.parts.len(),
                    packed_bytes,
                    root_digest: manifest.root_digest.to_string(),
                    kept_steps: &done.kept,
                    missing: &done.missing,
                    receipt: done.receipt.as_ref(),
                    not_sent: done.not_sent.as_ref().map(|failure| failure.message.as_str()),
                },
            );
        }
        let mut facts = Facts::new();
        facts.row("case", self.case.as_str());
        for line in done.headlines.iter().take(HEADLINES) {
            facts.row("happened", escape(line));
        }
        if done.headlines.len() > HEADLINES {
            facts.row(
                "happened",
                format!("and {} dumps more: see the report", done.headlines.len() - HEADLINES),
            );
        }
        let parts = human::plural(manifest.parts.len(), "part");
        facts.row(
            "package",
            format!("{}: {parts}, {}, read back and right", shown_path(&done.dir), Size::from(packed_bytes)),
        );
        facts.row("in it", inventory(done));
        facts.maybe("host", done.bundle.as_deref());
        facts.row("root digest", manifest.root_digest.to_string());
        facts.row("report", shown_path(&done.dir.join("report.txt")));
        if !done.kept.is_empty() {
            facts.row("kept", format!("{}: done by an earlier run", done.kept.join(", ")));
        }
        for Missing { what, why, .. } in done.missing.iter().take(MISSING) {
            let text = format!("{what}: {why}");
            facts.row("missing", escape(&text));
        }
        if done.missing.len() > MISSING {
            facts
                .row("missing", format!("and {} things more: see the journal", done.missing.len() - MISSING));
        }
        if let (Some(receipt), Some(Destination::Folder(to))) = (&done.receipt, &plan.request.send) {
            facts.row("sent", format!("to {}, received {}", receipt.at, receipt.received));
            facts.row("next", format!("there: kdt unpack {} -o OUT", quoted(to)));
        } else {
            let dir = quoted(&done.dir);
            facts.row("next", format!("kdt send {dir} URL; there: kdt verify DIR, kdt unpack DIR -o OUT"));
        }
        context.output.answer(&facts.render(context.output.width(), context.output.painter()))
    }
}

/// `2 reports, 1 vmcore (25 MiB), 1 host-bundle (300 KiB)`.
fn inventory(done: &Escalated) -> String {
    let mut kinds: std::collections::BTreeMap<Kind, (usize, u64)> = std::collections::BTreeMap::new();
    for artifact in &done.manifest.artifacts {
        let (count, bytes) = kinds.entry(artifact.kind).or_default();
        *count += 1;
        *bytes = bytes.saturating_add(artifact.size);
    }
    let texts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, (count, bytes))| {
            format!("{} ({})", human::plural(count, kind.as_str()), Size::from(bytes))
        })
        .collect();
    texts.join(", ")
}
