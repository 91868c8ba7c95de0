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

/// A program in which a person looks at a dump by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HandTool {
    /// The crash utility.
    Crash,
    /// drgn, with the names that its own prompt has imported.
    Drgn,
}

impl HandTool {
    /// Its name, as in the document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Drgn => "drgn",
        }
    }
}

/// A line that shows a person the same in another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// The program.
    pub tool: HandTool,
    /// What to type at its prompt.
    pub line: String,
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
    /// How a person sees the same in crash and drgn; empty where these can't show it.
    #[serde(default)]
    pub by_hand: Vec<ByHand>,
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
            by_hand: Vec::new(),
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

    /// The same with a line for crash that shows it. A line that would not stay one, because a name out of the dump has a control
    /// character, is left out.
    #[must_use]
    pub fn by_hand_crash(self, line: impl Into<String>) -> Self {
        self.by_hand(HandTool::Crash, line.into())
    }

    /// The same with a line for drgn's prompt that shows it, under the same condition.
    #[must_use]
    pub fn by_hand_drgn(self, line: impl Into<String>) -> Self {
        self.by_hand(HandTool::Drgn, line.into())
    }

    fn by_hand(mut self, tool: HandTool, line: String) -> Self {
        let one = ByHand { tool, line };
        if !one.line.contains(char::is_control) && !self.by_hand.contains(&one) {
            self.by_hand.push(one);
        }
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
    fn a_line_to_type_is_one_line_and_there_once() {
        let finding = Finding::new("KD-A", Severity::Info, Confidence::Hint, "a")
            .by_hand_crash("kmem -s dentry")
            .by_hand_crash("kmem -s dentry")
            .by_hand_drgn("find_slab_cache(\"a\nb\")");
        let lines: Vec<_> =
            finding.by_hand.iter().map(|hand| (hand.tool.word(), hand.line.as_str())).collect();
        assert_eq!(lines, [("crash", "kmem -s dentry")]);
    }

    #[test]
    fn a_finding_of_an_earlier_kdt_has_no_line_to_type() {
        let text =
            r#"{"code":"KD-A","severity":"info","title":"a","confidence":"hint","evidence":[],"next":[]}"#;
        assert!(serde_json::from_str::<Finding>(text).unwrap().by_hand.is_empty());
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
