//! The main job in one go: find the dumps, collect the host, analyse, pack, verify, send.
//!
//! [`plan()`] looks and writes nothing; [`run`] carries the [`Plan`] out. What is done is written into
//! `escalate.journal` beside the package, each line chained to the one before by its digest, so that the same
//! command goes on after any interruption and a reader can tell who did what to the evidence. One step that
//! fails does not keep the others from being done: what is missing is told at the end.
//!
//! This module prints nothing. It knows neither dump formats nor the collector: a [`Crew`] does that work.

mod find;
mod journal;
mod plan;
mod run;

use std::path::{Path, PathBuf};

pub use find::{FoundDump, Search, find};
pub use journal::{Entry, Journal, Output};
pub use plan::{Plan, Request, Step, plan};
pub use run::{Escalated, Missing, run};

/// Who does the parts of the work that need to know dumps and hosts.
pub trait Crew: Sync {
    /// Tells which of these files and directories are dumps; the files of a split set stand together.
    ///
    /// # Errors
    /// A path is not there, or it was cancelled.
    fn dumps(&self, paths: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, crate::exit::Failure>;

    /// Analyses the dumps. One that can't be used is an answer too. The host's bundle is collected meanwhile: `bundle` waits for it, and gives
    /// `None` where there is none.
    ///
    /// # Errors
    /// Nothing at all can be said: a bug, or it was cancelled.
    fn analyse(
        &self,
        dumps: &[Vec<PathBuf>],
        bundle: &dyn Fn() -> Option<PathBuf>,
    ) -> Result<Analysis, crate::exit::Failure>;

    /// What collecting would do, in one line.
    ///
    /// # Errors
    /// Why nothing can be collected.
    fn collecting(&self, into: &Path) -> Result<String, crate::exit::Failure>;

    /// Collects the host's facts into one new file in `into`.
    ///
    /// # Errors
    /// Why there is no bundle at all.
    fn collect(&self, into: &Path) -> Result<Bundle, crate::exit::Failure>;
}

/// What the analysis of all dumps says.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// The document for programs.
    pub json: String,
    /// The page for people who have a browser.
    pub html: String,
    /// The page for people.
    pub text: String,
    /// What happened, a line for each dump.
    pub headlines: Vec<String>,
    /// What the analysis lacks: dumps that can't be used, evidence that is gone.
    pub missing: Vec<Missing>,
}

/// What was collected of the host.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The file.
    pub path: PathBuf,
    /// What is in it, in one line.
    pub summary: String,
    /// What the host has and the bundle lacks.
    pub missing: Vec<Missing>,
}
