//! `kdt triage`: the first analysis of one or many dumps.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use vmcore::analysis::several;
use vmcore::analysis::triage::{Options, Section, triage_followed};
use vmcore::report::{Completeness, Report, ReportError, Severity};

use super::followed::{Followed, Text};
use super::opened::Opened;
use super::{Context, Run, tool};
use crate::debuginfo::{Servers, Store};
use crate::discover::{self, DumpSet, Skipped};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::{self, HostBundle};
use crate::output::color::Painter;
use crate::output::progress::Whole;
use crate::output::report::{Look, Pages};
use crate::output::{file, html, human, json, report};

/// Analyse dumps: what the kernel died of, what is in the dump and what is not
///
/// A directory means every dump below it; files that are no dumps are passed over with a note. The parts of a
/// split set belong together, whatever their names are. Needs no debuginfo. With several dumps, one that can't be
/// used does not stop the others: its entry says why, and the exit code is 4, or 3 where none can be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dumps, or directories with dumps
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// human: a page for a person; json: the document kdt/triage/1, in an array where there are several dumps; html: one file for a
    /// browser, which needs no network
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: ReportFormat,
    /// Write the report to this file, which gets its name only when it is whole
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these parts, and all of them: kernel, log, panic, cpus, tasks, stacks, modules, blocked, console,
    /// runqueues, memory, slab, mounts, irqs, block_io, device_mapper, md, virtio, net, unix_sockets, softnet, workqueues,
    /// timers, cgroups, settings, trace, events
    #[expect(clippy::doc_markdown, reason = "the help is plain text")]
    #[arg(long, value_delimiter = ',', value_parser = section, value_name = "PART")]
    only: Vec<Section>,
    /// End with exit code 10 where a finding is at least: info, warning, error, critical
    #[arg(long, value_parser = severity, value_name = "SEVERITY")]
    fail_on: Option<Severity>,
    /// How many dumps are analysed at a time; as many as there are CPUs where it is not given
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    jobs: Option<usize>,
    /// The bundle of the host that crashed: the .tar.gz of kdt collect, or a directory into which it or a sos report was unpacked.
    /// Findings KD-HOST-… say what it and the dump tell together
    #[arg(long, value_name = "FILE|DIR")]
    host_bundle: Option<PathBuf>,
    #[command(flatten)]
    debuginfo: Debuginfo,
}

/// `--format` of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Text for a person.
    #[default]
    Human,
    /// A document with a version.
    Json,
    /// One file for a browser.
    Html,
}

/// What triage may use besides the dump.
#[derive(Debug, Default, clap::Args)]
pub struct Debuginfo {
    /// A vmlinux with debuginfo, or a directory with the modules' files: adds source lines, and stands in for types and symbols that the
    /// dump lacks. May be given several times; each dump takes the one of its own build
    #[arg(long, value_name = "FILE")]
    vmlinux: Vec<PathBuf>,
    /// Ask no debuginfod server, whatever `DEBUGINFOD_URLS` says
    #[arg(long)]
    no_debuginfod: bool,
}

impl Debuginfo {
    /// Who finds it.
    #[must_use]
    pub fn store(&self, context: &Context) -> Arc<Store> {
        let servers =
            (!self.no_debuginfod).then(|| Servers::from_variables(|name| std::env::var_os(name))).flatten();
        Arc::new(Store::new(self.vmlinux.clone(), context.cancel.clone()).with_servers(servers))
    }
}

fn section(word: &str) -> Result<Section, String> {
    let names: Vec<&str> = Section::ALL.iter().map(|section| section.name()).collect();
    Section::ALL
        .into_iter()
        .find(|section| section.name() == word)
        .ok_or_else(|| format!("the parts are {}", names.join(", ")))
}

fn severity(word: &str) -> Result<Severity, String> {
    [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical]
        .into_iter()
        .find(|severity| severity.word() == word)
        .ok_or_else(|| "the severities are info, warning, error, critical".to_owned())
}

pub(super) fn jobs(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("it is a number from 1 to 1024".to_owned()),
    }
}

/// What became of one dump.
#[derive(Debug)]
pub struct Triaged {
    /// Its report; of a dump that can't be used, one that says why.
    pub report: Report,
    /// What stopped the analysis.
    pub failure: Option<Failure>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        // First: a long analysis should not end with a wrong name.
        let bundle = self.host_bundle.as_deref().map(HostBundle::open).transpose()?;
        let found = discover::discover(&self.paths, &context.cancel)?;
        tell_skipped(context, &found.skipped);
        if found.sets.is_empty() {
            let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Failure::new(
                Exit::Input,
                format!("there is no dump in {}", names.join(", ")),
                "name the dump itself: kdt info FILE says what a file is",
            ));
        }
        let store = self.debuginfo.store(context);
        let look = self.look(context);
        // A text for a person goes out as it grows; a document, and what goes to a file, is whole or not there.
        let text = (self.format == ReportFormat::Human && self.output.is_none()).then(|| Text {
            pages: Pages::new(found.sets.len(), report::rule(look), |piece| context.output.answer(piece)),
            only: &self.only,
            look,
        });
        let told = Told { text: text.as_ref(), bundle: bundle.as_ref() };
        let done = analyse_told(context, &found.sets, &self.only, self.jobs, &store, told)?;
        for note in store.take_notes() {
            context.output.warn(&note);
        }
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let sources: Vec<&Path> =
            found.sets.iter().flat_map(|set| &set.paths).map(PathBuf::as_path).collect();
        match text {
            Some(text) => {
                text.pages.end()?;
                let reports: Vec<&Report> = done.iter().map(|done| &done.report).collect();
                context.output.answer(&report::summary(&reports, look))?;
            }
            None => self.print(context, &done, look, &sources)?,
        }
        for failure in done.iter().filter_map(|done| done.failure.as_ref()) {
            context.output.failure(failure);
        }
        let blind = found.skipped.iter().any(|skipped| skipped.blind);
        Ok(exit_of(&done, blind, self.fail_on))
    }
}

/// Analyses all dumps, some of them at a time; the results stand in the order of the input.
///
/// # Errors
/// Only where the threads can't be started: a dump that can't be used is a result.
pub fn analyse(
    context: &Context,
    sets: &[DumpSet],
    only: &[Section],
    jobs: Option<usize>,
) -> Result<Vec<Triaged>, Failure> {
    analyse_with(context, sets, only, jobs, &Debuginfo::default().store(context))
}

/// The same with debuginfo.
///
/// # Errors
/// As [`analyse`].
pub fn analyse_with(
    context: &Context,
    sets: &[DumpSet],
    only: &[Section],
    jobs: Option<usize>,
    store: &Arc<Store>,
) -> Result<Vec<Triaged>, Failure> {
    analyse_told(context, sets, only, jobs, store, Told::default())
}

/// Who is told of reports as they come, and what is compared with each.
#[derive(Clone, Copy, Default)]
struct Told<'a> {
    text: Option<&'a Text<'a>>,
    bundle: Option<&'a HostBundle>,
}

fn analyse_told(
    context: &Context,
    sets: &[DumpSet],
    only: &[Section],
    jobs: Option<usize>,
    store: &Arc<Store>,
    told: Told<'_>,
) -> Result<Vec<Triaged>, Failure> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.unwrap_or(0))
        .build()
        .map_err(|error| Failure::internal(format!("the threads can't be started: {error}")))?;
    let whole = context.output.display().whole("dumps", sets.len());
    let mut done: Vec<Triaged> = pool.install(|| {
        sets.par_iter()
            .enumerate()
            .map(|(number, set)| {
                let one = AssertUnwindSafe(|| {
                    // Many dumps have a line each, one has a line for each of its parts.
                    let live = (sets.len() == 1).then(|| context.output.display().live()).flatten();
                    let follow = Followed { number, text: told.text, live };
                    analyse_one(context, set, only, &whole, store, &follow)
                });
                let bug =
                    |_| unusable(set, Failure::internal(format!("kdt ran into a bug with {}", set.name())));
                let mut done = panic::catch_unwind(one).unwrap_or_else(bug);
                if let Some(bundle) = told.bundle {
                    host::join(&mut done.report, bundle);
                }
                if let Some(text) = told.text.filter(|_| !context.cancel.is_cancelled()) {
                    text.is_whole(number, &done.report);
                }
                whole.done();
                done
            })
            .collect()
    });
    several::compare(&mut done.iter_mut().map(|done| &mut done.report).collect::<Vec<_>>());
    Ok(done)
}

fn analyse_one(
    context: &Context,
    set: &DumpSet,
    only: &[Section],
    whole: &Whole<'_>,
    store: &Arc<Store>,
    follow: &Followed<'_>,
) -> Triaged {
    if context.cancel.is_cancelled() {
        return unusable(set, Failure::interrupted());
    }
    let progress = whole.piece(&set.name());
    match Opened::open(&set.paths) {
        Err(failure) => unusable(set, failure),
        Ok(opened) => {
            if let Err(failure) = store.refuse(&opened.subject()) {
                return unusable(set, failure);
            }
            let mut options = Options::new(&tool().name, &tool().version);
            options.only = only.to_vec();
            options.debuginfo = Some(Arc::<Store>::clone(store));
            let report = triage_followed(&opened.subject(), &options, &progress, follow, &context.cancel);
            Triaged { report, failure: None }
        }
    }
}

/// The report of a dump that can't be used.
fn unusable(set: &DumpSet, failure: Failure) -> Triaged {
    let mut report = Report::empty(&tool().name, &tool().version, &set.name());
    let sizes = set.paths.iter().map(|path| std::fs::metadata(path).map(|meta| meta.len()));
    report.dump.size_bytes = sizes.sum::<Result<u64, _>>().ok();
    report.skip("everything", &failure.message);
    report.error = Some(ReportError { message: failure.message.clone(), hint: failure.hint.clone() });
    Triaged { report, failure: Some(failure) }
}

/// Files that are no dumps are counted, and named with `-v`; where a dump can hide is always named.
pub(super) fn tell_skipped(context: &Context, skipped: &[Skipped]) {
    let (blind, harmless): (Vec<&Skipped>, Vec<&Skipped>) = skipped.iter().partition(|skipped| skipped.blind);
    for skipped in blind {
        context.output.warn(&format!("{} {}", skipped.path.display(), skipped.why));
    }
    if context.output.settings().verbose > 0 {
        for skipped in harmless {
            context.output.note(&format!("passed over: {} {}", skipped.path.display(), skipped.why));
        }
    } else if !harmless.is_empty() {
        let count = human::plural(harmless.len(), "file");
        context.output.note(&format!("{count} passed over that are no dumps (-v names them)"));
    }
}

impl Args {
    fn look(&self, context: &Context) -> Look {
        let painter = if self.output.is_some() { Painter::default() } else { context.output.painter() };
        let by_hand = context.output.settings().verbose > 0;
        Look { width: context.output.width(), painter, by_hand }
    }

    fn print(
        &self,
        context: &Context,
        done: &[Triaged],
        look: Look,
        sources: &[&Path],
    ) -> Result<(), Failure> {
        let reports: Vec<&Report> = done.iter().map(|done| &done.report).collect();
        let text = match (self.format, reports.as_slice()) {
            (ReportFormat::Json, [report]) => json::text(report)?,
            (ReportFormat::Json, reports) => json::text(&reports)?,
            (ReportFormat::Html, reports) => html::page(reports),
            (ReportFormat::Human, reports) => report::pages(reports, &self.only, look),
        };
        match &self.output {
            Some(path) => file::write(path, &text, sources),
            None => context.output.answer(&text),
        }
    }
}

/// The code to end with: `docs/exit-codes.md` says which goes first.
#[must_use]
pub fn exit_of(done: &[Triaged], blind: bool, fail_on: Option<Severity>) -> Exit {
    let failures: Vec<Exit> =
        done.iter().filter_map(|done| done.failure.as_ref()).map(|failure| failure.exit).collect();
    if failures.contains(&Exit::Internal) {
        return Exit::Internal;
    }
    if failures.len() == done.len() {
        let first = failures.first().copied().unwrap_or(Exit::Input);
        return if failures.iter().all(|exit| *exit == first) { first } else { Exit::Input };
    }
    let worst = done.iter().filter_map(|done| done.report.worst()).max();
    if fail_on.is_some() && worst >= fail_on {
        return Exit::Findings;
    }
    if blind || !failures.is_empty() || done.iter().any(|done| is_partial(&done.report)) {
        return Exit::Partial;
    }
    Exit::Done
}

/// True where part of the evidence is gone.
fn is_partial(report: &Report) -> bool {
    is_damaged(&report.dump.completeness)
        || report.findings.iter().any(|finding| {
            matches!(finding.code.as_str(), "KD-LOG-LOST" | "KD-LOG-UNREADABLE" | "KD-DUMP-OVERFILTERED")
        })
}

/// True where the file lacks something that it announces.
#[must_use]
pub fn is_damaged(state: &Completeness) -> bool {
    let some = |n: Option<u64>| n.is_some_and(|n| n > 0);
    some(state.lost_pages)
        || some(state.misplaced_pages)
        || some(state.corrupt_pages)
        || state.truncated_at.is_some()
        || state.incomplete_flag == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::report::{Confidence, Finding};

    fn good() -> Triaged {
        Triaged { report: Report::empty("kdt", "0", "good"), failure: None }
    }

    fn bad(exit: Exit) -> Triaged {
        unusable(&DumpSet { paths: vec!["bad".into()] }, Failure::new(exit, "bad is bad", "mend it"))
    }

    fn with(severity: Severity) -> Triaged {
        let mut one = good();
        one.report.findings.push(Finding::new("KD-X", severity, Confidence::Certain, "x"));
        one
    }

    #[test]
    fn one_bad_dump_among_good_ones_is_a_part_of_the_work() {
        assert_eq!(exit_of(&[good()], false, None), Exit::Done);
        assert_eq!(exit_of(&[good(), bad(Exit::Input)], false, None), Exit::Partial);
        assert_eq!(exit_of(&[bad(Exit::Input)], false, None), Exit::Input);
        assert_eq!(exit_of(&[bad(Exit::NotPermitted)], false, None), Exit::NotPermitted);
        assert_eq!(exit_of(&[bad(Exit::NotPermitted), bad(Exit::Input)], false, None), Exit::Input);
        assert_eq!(exit_of(&[good(), bad(Exit::Internal)], false, None), Exit::Internal);
        assert_eq!(exit_of(&[good()], true, None), Exit::Partial);
    }

    #[test]
    fn findings_count_from_the_asked_severity_on() {
        assert_eq!(exit_of(&[with(Severity::Warning)], false, Some(Severity::Warning)), Exit::Findings);
        assert_eq!(exit_of(&[with(Severity::Warning)], false, Some(Severity::Error)), Exit::Done);
        assert_eq!(exit_of(&[with(Severity::Critical)], false, None), Exit::Done);
        assert_eq!(exit_of(&[good()], false, Some(Severity::Info)), Exit::Done);
    }

    #[test]
    fn evidence_that_is_gone_makes_it_a_part() {
        let mut cut = good();
        cut.report.dump.completeness.lost_pages = Some(1);
        assert_eq!(exit_of(&[cut], false, None), Exit::Partial);
        let mut whole = good();
        whole.report.dump.completeness.lost_pages = Some(0);
        whole.report.dump.completeness.excluded_pages = Some(9);
        assert_eq!(exit_of(&[whole], false, None), Exit::Done);
    }
}
