//! What a drill showed: passed or failed, with the reason, the points, and the times that matter in earnest.

use serde::{Deserialize, Serialize};

/// Schema of the JSON report.
pub const SCHEMA: &str = "kdt/drill/1";

/// The outcome of one run of a drill; its report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// [`SCHEMA`].
    pub schema: String,
    /// Id of the scenario.
    pub drill: String,
    /// Version of the scenario.
    pub version: u32,
    /// Its title.
    pub title: String,
    /// Decided every choice.
    pub seed: u64,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// How it ended.
    pub status: Status,
    /// Points won.
    pub score: u32,
    /// Points that could be won.
    pub of: u32,
    /// From the first step to the evidence being safe in other hands, for the drills that send it.
    pub evidence_safe_after_s: Option<f64>,
    /// All steps, in order, those not reached included.
    pub steps: Vec<StepResult>,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every step passed.
    Passed,
    /// A step saw something else than it must.
    Failed,
    /// The drill itself could not go on: a program is missing, the time is up.
    Aborted,
    /// Somebody stopped it.
    Interrupted,
}

/// What one step saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepResult {
    /// What is true when it has passed.
    pub name: String,
    /// Who does it.
    pub role: String,
    /// What it is worth.
    pub points: u32,
    /// `passed`, `failed`, `not reached`.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// What was done, as a person would type it.
    pub did: String,
    /// What was seen: for a failure, the reason.
    pub saw: String,
}

/// How one step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All that it must see was seen.
    Passed,
    /// It was not.
    Failed,
    /// An earlier step ended the drill.
    NotReached,
}

impl Verdict {
    /// The report as a person reads it.
    #[must_use]
    pub fn human(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let status = match self.status {
            Status::Passed => "passed",
            Status::Failed => "FAILED",
            Status::Aborted => "ABORTED",
            Status::Interrupted => "INTERRUPTED",
        };
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "drill {} {status}: {} of {} points in {:.0} s\n",
            self.drill, self.score, self.of, self.seconds
        );
        for step in &self.steps {
            let mark = match step.outcome {
                Outcome::Passed => "ok  ",
                Outcome::Failed => "FAIL",
                Outcome::NotReached => " -  ",
            };
            let _ = writeln!(out, "  {mark} {:>5.1} s  {:<11}  {}", step.seconds, step.role, step.name);
            for line in step.saw.lines() {
                let _ = writeln!(out, "                             {line}");
            }
        }
        if let Some(s) = self.evidence_safe_after_s {
            let _ = writeln!(out, "\nfrom the panic to the evidence in other hands: {s:.0} s");
        }
        out
    }
}
