//! `kdt similar`: whether a crash was seen before.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::triage::{Debuginfo, analyse_with};
use super::{Context, Format, Run, tool};
use crate::discover::DumpSet;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{json, similar as words};
use crate::similar::{self, SIMILAR_SCHEMA, Seen, Similar};

/// Look whether a crash was seen before, in a folder of reports
///
/// Reads the reports of `kdt triage --format json` below the folders, also those in packages of `kdt escalate`, and says when, on which
/// hosts and with which kernels the same crash was seen, whether it is one host each time, and which crashes are nearly the same.
/// docs/signature.md says what makes two crashes the same. Finding none is an answer: the exit code is 0 then too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The crash: a report (JSON), a package, or a dump, which is analysed first
    #[arg(value_name = "REPORT|DUMP")]
    subject: PathBuf,
    /// Folders with reports, or single reports
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// human: a page for a person; json: the document kdt/similar/1
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        for folder in &self.folders {
            std::fs::metadata(folder).map_err(|error| Failure::io("read", folder, &error))?;
        }
        let subjects = subjects(context, &self.subject)?;
        let (others, mut searched) = similar::search(&self.folders, &context.cancel)?;
        searched.folders = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        if others.is_empty() && searched.unreadable.is_empty() {
            context.output.note("there is no report of kdt triage --format json below the folders");
        }
        let partial = !searched.unreadable.is_empty();
        let subjects = subjects.iter().map(|subject| similar::compare(subject, &others)).collect();
        let answer = Similar { schema: SIMILAR_SCHEMA, tool: tool(), subjects, searched };
        match self.format {
            Format::Json => json::print(&context.output, &answer)?,
            Format::Human => context.output.answer(&words::text(
                &answer,
                context.output.width(),
                context.output.painter(),
            ))?,
        }
        for bad in &answer.searched.unreadable {
            context.output.warn(&format!("{} {}", bad.path, bad.why));
        }
        Ok(if partial { Exit::Partial } else { Exit::Done })
    }
}

/// The crash that is asked about, or the crashes where a report is of several dumps.
fn subjects(context: &Context, path: &Path) -> Result<Vec<Seen>, Failure> {
    let unusable = |why: String| {
        Failure::new(
            Exit::Input,
            format!("{} {why}", path.display()),
            "name a report that kdt triage --format json wrote, a package of kdt escalate, or a dump",
        )
    };
    if path.is_dir() {
        let (found, searched) = similar::search(&[path.to_owned()], &context.cancel)?;
        if let Some(bad) = searched.unreadable.first() {
            return Err(unusable(format!("has a report that can't be used: {} {}", bad.path, bad.why)));
        }
        return if found.is_empty() { Err(unusable("has no report in it".into())) } else { Ok(found) };
    }
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Failure::io("read", path, &error))?;
    file.take(4096).read_to_end(&mut head).map_err(|error| Failure::io("read", path, &error))?;
    if similar::is_report(&head) {
        return similar::read(path).map_err(unusable).map(Option::unwrap_or_default);
    }
    let sets = [DumpSet { paths: vec![path.to_owned()] }];
    let store = Debuginfo::default().store(context);
    let done = analyse_with(context, &sets, &[], None, &store)?;
    for note in store.take_notes() {
        context.output.warn(&note);
    }
    if context.cancel.is_cancelled() {
        return Err(Failure::interrupted());
    }
    done.into_iter()
        .map(|done| match done.failure {
            Some(failure) => Err(failure),
            None => Ok(Seen::of(path, &done.report)),
        })
        .collect()
}
