//! `kdt info`: what a file is, whatever it is.

use std::path::PathBuf;

use vmcore::analysis::identity;
use vmcore::error::{OpenError, OpenErrorKind};
use vmcore::kernel::{self, Kernel};
use vmcore::report::{DumpInfo, INFO_SCHEMA, Info, KernelInfo, ReportError};

use super::opened::Opened;
use super::triage::is_damaged;
use super::{Context, Format, Run, tool};
use crate::discover::{self, DumpSet};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{info, json};

/// Say what a file is: format, kernel, how much of it is there
///
/// Reads a few pages only. A file that is no dump is named all the same, with exit code 3; a dump that lacks
/// something that it announces ends with 4.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Any files; the parts of a split set are recognised and taken together
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// human: lines for a person; json: the document kdt/info/1, in an array where there are several files
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

impl Run for Args {
    fn run(self, context: &Context) -> Outcome {
        let mut infos = Vec::new();
        let mut exits = Vec::new();
        for set in discover::named(&self.paths) {
            if context.cancel.is_cancelled() {
                return Err(Failure::interrupted());
            }
            match Opened::try_open(&set.paths) {
                Ok(opened) => {
                    let info = describe(&opened);
                    exits.push(if is_damaged(&info.dump.completeness) { Exit::Partial } else { Exit::Done });
                    infos.push(info);
                }
                Err(error) => {
                    let failure = Failure::from(&error);
                    context.output.failure(&failure);
                    exits.push(failure.exit);
                    infos.push(name_only(&set, &error, &failure));
                }
            }
        }
        match (self.format, infos.as_slice()) {
            (Format::Json, [info]) => json::print(&context.output, info)?,
            (Format::Json, infos) => json::print(&context.output, &infos)?,
            (Format::Human, infos) => {
                let (width, painter) = (context.output.width(), context.output.painter());
                let texts: Vec<String> = infos.iter().map(|info| info::text(info, width, painter)).collect();
                context.output.answer(&texts.join("\n"))?;
            }
        }
        Ok(exit_of(&exits))
    }
}

/// All alike: that code; some usable and some not, or a damaged one among them: a part.
fn exit_of(exits: &[Exit]) -> Exit {
    let first = exits.first().copied().unwrap_or(Exit::Input);
    if exits.iter().all(|exit| *exit == first) {
        first
    } else if exits.iter().any(|exit| matches!(exit, Exit::Done | Exit::Partial)) {
        Exit::Partial
    } else {
        Exit::Input
    }
}

/// What can be said of a dump from its headers and a few pages.
fn describe(opened: &Opened) -> Info {
    let subject = opened.subject();
    let kernel = Kernel::open(subject.memory, &subject.hints, kernel::Options::default().without_scan());
    let identity = identity::identify(&subject, &kernel, None);
    Info {
        schema: INFO_SCHEMA.into(),
        tool: tool(),
        what: opened.what(),
        usable: true,
        kernel: identity.kernel,
        split: opened.split(),
        notes: opened.notes(),
        not_looked_at: identity.not_looked_at,
        error: None,
        dump: subject.dump,
    }
}

/// What can be said of a file that is no usable dump.
fn name_only(set: &DumpSet, error: &OpenError, failure: &Failure) -> Info {
    let size_bytes =
        set.paths.first().and_then(|path| std::fs::metadata(path).ok()).filter(std::fs::Metadata::is_file);
    Info {
        schema: INFO_SCHEMA.into(),
        tool: tool(),
        what: what(error),
        usable: false,
        dump: DumpInfo {
            path: set.name(),
            size_bytes: size_bytes.map(|meta| meta.len()),
            ..DumpInfo::default()
        },
        kernel: KernelInfo::default(),
        split: None,
        notes: Vec::new(),
        not_looked_at: Vec::new(),
        error: Some(ReportError { message: failure.message.clone(), hint: failure.hint.clone() }),
    }
}

fn what(error: &OpenError) -> String {
    match &error.kind {
        OpenErrorKind::Empty => "an empty file".into(),
        OpenErrorKind::NotAFile { what }
        | OpenErrorKind::NotADump { what, .. }
        | OpenErrorKind::Unsupported { what, .. } => what.clone(),
        OpenErrorKind::Damaged { what, .. } => format!("{what}, damaged"),
        _ => "not known: it can't be read".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_fare_differently_are_a_part_of_the_work() {
        assert_eq!(exit_of(&[Exit::Done]), Exit::Done);
        assert_eq!(exit_of(&[Exit::Input, Exit::Input]), Exit::Input);
        assert_eq!(exit_of(&[Exit::Input, Exit::Done]), Exit::Partial);
        assert_eq!(exit_of(&[Exit::Partial, Exit::Done]), Exit::Partial);
        assert_eq!(exit_of(&[Exit::Input, Exit::NotPermitted]), Exit::Input);
    }
}
