//! What an escalation would do: looks at dumps, space and destination, and writes nothing.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::find::{FoundDump, find, logs_beside};
use super::{Crew, Missing};
use crate::exit::{Exit, Failure};
use crate::output::human;
use crate::pack::{CaseId, Digest, Estimate, PackRequest, estimate, plan as plan_pack, shown_path};
use crate::size::Size;
use crate::transfer::Destination;

/// Bytes a second that reading back and hashing comes to, where no better figure is at hand.
const READ_BACK: u64 = 500 << 20;
/// Bytes a second that an analysis passes over; most of a dump it never reads.
const ANALYSE: u64 = 1 << 30;
/// Room for reports, bundle and journal besides the dumps.
const BESIDES: u64 = 64 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The case.
    pub case: CaseId,
    /// Dumps, or directories with dumps; none means the newest that kdump has written.
    pub dumps: Vec<PathBuf>,
    /// The directory that becomes the package.
    pub out: PathBuf,
    /// No part is longer than this.
    pub part_size: u64,
    /// zstd's level.
    pub level: i32,
    /// Threads that compress.
    pub jobs: Option<usize>,
    /// Whether the host's facts are collected.
    pub collect: bool,
    /// Where to send the package.
    pub send: Option<Destination>,
    /// The root of the host, to look for its configuration and dumps.
    pub root: PathBuf,
    /// Whether to refuse where the space seems not to do.
    pub check_space: bool,
}

/// What will be done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// The dumps that travel.
    pub dumps: Vec<FoundDump>,
    /// The steps, in order, with what they are about.
    pub steps: Vec<Step>,
    /// What is already known to be missing.
    pub missing: Vec<Missing>,
    /// Tells this plan from one with other dumps or another case.
    pub(super) identity: Digest,
}

/// A step of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// collect, triage, pack, verify, send.
    pub name: &'static str,
    /// What it does, for people.
    pub what: String,
    /// About how long it takes; `None` where only a limit is known, which `what` then tells.
    pub time: Option<Duration>,
}

impl Plan {
    /// The files of all dumps.
    pub(super) fn dump_files(&self) -> Vec<Vec<PathBuf>> {
        self.dumps.iter().map(|dump| dump.files.clone()).collect()
    }

    /// What goes into the package besides reports and bundle: the dumps, and the logs beside them.
    pub(super) fn evidence(&self) -> Vec<PathBuf> {
        self.dumps.iter().flat_map(|dump| dump.files.iter().chain(&dump.logs)).cloned().collect()
    }

    pub(super) fn pack_request(&self, sources: Vec<PathBuf>) -> PackRequest {
        let Request { case, out, part_size, level, jobs, .. } = &self.request;
        PackRequest {
            case: Some(case.clone()),
            part_size: *part_size,
            level: *level,
            jobs: *jobs,
            ..PackRequest::new(sources, out.clone())
        }
    }
}

/// Finds the dumps and says what [`run`](super::run()) would do.
///
/// # Errors
/// A dump that is named is not there; there is neither a dump nor a bundle to send; a number is out of range;
/// the space does not do.
pub fn plan(request: &Request, crew: &dyn Crew) -> Result<Plan, Failure> {
    // Said before anything is looked for.
    PackRequest {
        part_size: request.part_size,
        level: request.level,
        ..PackRequest::new(Vec::new(), request.out.clone())
    }
    .check()?;
    let mut missing = Vec::new();
    let dumps = if request.dumps.is_empty() {
        let search = find(&request.root);
        if search.newest.is_none() {
            missing.push(Missing::new("a dump", "none was found where kdump writes"));
            missing.extend(search.notes.iter().map(|note| Missing::new("a dump", note)));
        }
        search.newest.into_iter().collect()
    } else {
        named(&request.dumps, crew)?
    };
    if dumps.is_empty() && !request.collect {
        let why: Vec<&str> = missing.iter().map(|missing| missing.why.as_str()).collect();
        return Err(Failure::new(
            Exit::Input,
            format!("there is nothing to escalate: {}", why.join("; ")),
            "name the dump with --dump, or leave --no-collect out",
        ));
    }
    let identity = identity(request, &dumps);
    let mut plan = Plan { request: request.clone(), dumps, steps: Vec::new(), missing, identity };
    let expected = expected(&plan)?;
    plan.steps = steps(&plan, expected, crew);
    check_room(&plan, expected)?;
    Ok(plan)
}

/// The dumps that the user named, each with the logs beside it.
fn named(paths: &[PathBuf], crew: &dyn Crew) -> Result<Vec<FoundDump>, Failure> {
    for path in paths {
        if let Err(e) = std::fs::metadata(path) {
            return Err(Failure::io("read", path, &e));
        }
    }
    let sets = crew.dumps(paths)?;
    if sets.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| shown_path(path)).collect();
        return Err(Failure::new(
            Exit::Input,
            format!("there is no dump in {}", names.join(", ")),
            "name the dump itself: kdt info FILE says what a file is",
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    let dumps = sets.into_iter().map(|files| {
        // Two dumps in one folder have the same logs beside them.
        let logs = files.first().map(|file| logs_beside(file)).unwrap_or_default();
        let logs = logs.into_iter().filter(|log| !files.contains(log) && seen.insert(log.clone())).collect();
        FoundDump { files, logs, why: "as named".into() }
    });
    Ok(dumps.collect())
}

/// The same for the same case and dumps; other dumps in the same folder are another escalation.
fn identity(request: &Request, dumps: &[FoundDump]) -> Digest {
    let mut text = format!("{} {} {} {}\n", request.case, request.part_size, request.level, request.collect);
    for file in dumps.iter().flat_map(|dump| dump.files.iter().chain(&dump.logs)) {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let stamp = std::fs::metadata(file)
            .map(|meta| (meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
            .ok();
        let _ = writeln!(text, "{:?} {stamp:?}", path.as_os_str().as_bytes());
    }
    Digest::of(text.as_bytes())
}

/// What packing the dumps will come to.
fn expected(plan: &Plan) -> Result<Option<Estimate>, Failure> {
    let evidence = plan.evidence();
    if evidence.is_empty() {
        return Ok(None);
    }
    Ok(Some(estimate(&plan_pack(&plan.pack_request(evidence))?)?))
}

fn steps(plan: &Plan, expected: Option<Estimate>, crew: &dyn Crew) -> Vec<Step> {
    let Request { out, collect, send, part_size, .. } = &plan.request;
    let mut steps = Vec::new();
    if *collect {
        let what = crew
            .collecting(&out.join(super::run::WORKSHOP))
            .unwrap_or_else(|failure| format!("can't be done: {failure}"));
        steps.push(Step { name: "collect", what, time: None });
    }
    let bytes = expected.map_or(0, |expected| expected.input_bytes);
    let packed = expected.map_or(0, |expected| expected.packed_bytes);
    let rate = |bytes: u64, rate: u64| Some(Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1)));
    let dumps = human::plural(plan.dumps.len(), "dump");
    steps.push(Step {
        name: "triage",
        what: format!("analyse {dumps} ({})", Size::from(bytes)),
        time: rate(bytes, ANALYSE),
    });
    let parts = expected.map_or(2, |expected| expected.parts.saturating_add(1));
    let parts = human::plural(usize::try_from(parts).unwrap_or(usize::MAX), "part");
    let files = human::plural(plan.evidence().len(), "file");
    let what = format!(
        "{files} of the crash ({}), report and bundle into {}: about {} in {parts} of at most {}",
        Size::from(bytes),
        shown_path(out),
        Size::from(packed),
        Size::from(*part_size)
    );
    steps.push(Step { name: "pack", what, time: expected.map(|expected| expected.time) });
    steps.push(Step {
        name: "verify",
        what: "read everything back from the disk and compare".into(),
        time: rate(bytes.saturating_add(packed), READ_BACK),
    });
    if let Some(Destination::Folder(to)) = send {
        let what =
            format!("copy about {} to {}, read it back, write a receipt", Size::from(packed), shown_path(to));
        steps.push(Step { name: "send", what, time: rate(packed.saturating_mul(2), READ_BACK) });
    }
    steps
}

fn check_room(plan: &Plan, expected: Option<Estimate>) -> Result<(), Failure> {
    let Request { out, check_space, .. } = &plan.request;
    // A package that is being gone on with has taken its room already; packing itself looks again.
    if !*check_space || out.exists() {
        return Ok(());
    }
    let need = expected.map_or(0, |expected| expected.packed_bytes).saturating_add(BESIDES);
    let Some(free) = free_space(out) else { return Ok(()) };
    if need <= free {
        return Ok(());
    }
    let error = crate::pack::PackError::TooSmall { path: out.clone(), free, need, about: true };
    Err(error.into())
}

/// Bytes free where a path is or will be.
fn free_space(path: &Path) -> Option<u64> {
    let whole = std::path::absolute(path).ok()?;
    let room = whole.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}
