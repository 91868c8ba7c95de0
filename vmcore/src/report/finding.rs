//! Findings: what is worth a person's attention, how sure it is, and what to do next.

use serde::{Deserialize, Serialize};

/// How much a finding matters. The order is from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Makes the evidence or the host worse than it should be.
    Warning,
    /// Something broke, or part of the evidence is gone.
    Error,
    /// What the machine died of, or evidence that can't be used.
    Critical,
}

impl Severity {
    /// The word for it, as in the document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Other causes leave the same sign.
    Hint,
    /// Two signs agree.
    Likely,
    /// The kernel or the file itself says so.
    Certain,
}

impl Confidence {
    /// The word for it, as in the document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// One thing worth a person's attention. Each code has its entry in `docs/findings.md` and is never reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its stable name: `KD-DUMP-TRUNCATED`.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// What it was concluded from.
    pub evidence: Vec<String>,
    /// What to do next, the most useful first.
    pub next: Vec<String>,
}

impl Finding {
    /// A finding without evidence or next step yet.
    #[must_use]
    pub fn new(code: &str, severity: Severity, confidence: Confidence, title: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            severity,
            title: title.into(),
            confidence,
            evidence: Vec::new(),
            next: Vec::new(),
        }
    }

    /// The same with one more thing that it was concluded from.
    #[must_use]
    pub fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// The same with one more step to take.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_from_info_to_critical() {
        let mut all = [Severity::Critical, Severity::Info, Severity::Error, Severity::Warning];
        all.sort_unstable();
        assert_eq!(all, [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical]);
    }

    #[test]
    fn the_word_is_the_one_of_the_document() {
        for severity in [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical] {
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.word());
        }
        for confidence in [Confidence::Hint, Confidence::Likely, Confidence::Certain] {
            assert_eq!(serde_json::to_value(confidence).unwrap(), confidence.word());
        }
    }
}
