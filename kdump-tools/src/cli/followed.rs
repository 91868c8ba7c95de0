//! A triage on its way: its page is written as far as it is settled, and on a terminal a line tells of each analysis.

use vmcore::analysis::follow::{Ended, Follow, Stage};
use vmcore::analysis::triage::Section;
use vmcore::report::{Finding, Report};

use crate::output::dump;
use crate::output::live::Live;
use crate::output::report::{self, Look, Pages};

/// Where the pages of a text for a person go while the analyses run.
pub(super) struct Text<'a> {
    pub(super) pages: Pages<'a>,
    pub(super) only: &'a [Section],
    pub(super) look: Look,
}

impl Text<'_> {
    /// All of the page of dump `number`.
    pub(super) fn is_whole(&self, number: usize, report: &Report) {
        self.pages.is_whole(number, report::text(report, self.only, self.look));
    }
}

/// Follows the triage of one dump.
pub(super) struct Followed<'a> {
    pub(super) number: usize,
    pub(super) text: Option<&'a Text<'a>>,
    pub(super) live: Option<Live>,
}

impl Followed<'_> {
    fn say(&self, name: &str, text: &str) {
        if let Some(live) = &self.live {
            live.say(name, text);
        }
    }
}

impl Follow for Followed<'_> {
    fn reached(&self, stage: Stage, report: &Report) {
        if let Some(text) = self.text {
            text.pages.begins(self.number, report::beginning(report, stage, text.look));
        }
        if stage == Stage::Log {
            if report.kernel.release.is_some() {
                self.say("kernel", &dump::who(&report.kernel));
            }
            if self.text.is_none() {
                self.say("verdict", &report::verdict_in_short(report));
            }
        }
    }

    fn began(&self, section: Section) {
        self.say(section.name(), "runs");
    }

    fn ended(&self, section: Section, how: Ended, findings: &[Finding], _: &Report) {
        if how != Ended::LeftOut {
            self.say(section.name(), &words(how, findings));
        }
    }
}

/// `done: KD-HUNG-TASKS`.
fn words(how: Ended, findings: &[Finding]) -> String {
    let mut words = match how {
        Ended::Done => "done".to_owned(),
        Ended::Stopped => "stopped at budget".to_owned(),
        _ => "met a fault of its own".to_owned(),
    };
    for (at, finding) in findings.iter().enumerate() {
        let before = if at == 0 { ": " } else { " " };
        words.extend([before, finding.code.as_str(), " ", finding.title.as_str()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::report::{Confidence, Severity};

    #[test]
    fn a_line_says_how_an_analysis_ended_and_what_it_found() {
        let found = [Finding::new("KD-X", Severity::Error, Confidence::Certain, "It is x.")];
        assert_eq!(words(Ended::Done, &found), "done: KD-X It is x.");
        assert_eq!(words(Ended::Stopped, &[]), "stopped at budget");
        assert_eq!(words(Ended::Failed, &[]), "met a fault of its own");
    }
}
