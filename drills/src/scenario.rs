//! A drill as data: what is rehearsed, by whom, in which steps, and what must be seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One rehearsal, as written in `scenarios/*.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name by which it is run.
    pub id: String,
    /// Raised whenever a step or an expectation changes, so that two reports can be compared.
    pub version: u32,
    /// One sentence: what is rehearsed.
    pub title: String,
    /// The situation, as a colleague would tell it.
    pub story: String,
    /// Decides every "random" choice, so that a run can be repeated.
    pub seed: u64,
    /// After this long the drill is ended, whatever it is at.
    pub max_minutes: u64,
    /// In order; the first that fails ends the drill.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// One thing that is done, and what must be seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is true when it has passed.
    pub name: String,
    /// Who does it: `guest-admin`, `host-admin`, `support`.
    pub role: String,
    /// What it is worth; steps of the rehearsal's own machinery are worth nothing.
    #[serde(default)]
    pub points: u32,
    /// What is done.
    pub run: Action,
    /// What a command must answer.
    #[serde(default)]
    pub expect: Expect,
}

/// What a step does. Texts may name what earlier steps left, as `{vmcore}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Boots a throw-away guest, crashes it, takes its dump. Leaves `{vmcore}`, `{console}`, `{release}`.
    GuestCrash {
        /// Kernel line of the guest, as the lab names it: `6.1`.
        kernel: String,
        /// How the dump is taken, as the lab names it: `kdump-lzo`.
        recipe: String,
    },
    /// Runs the real `kdt` with these arguments.
    Kdt(Vec<String>),
    /// Flips one bit of one byte, both chosen by the seed. Leaves `{damaged}`, the file's name.
    FlipByte {
        /// The directory.
        within: String,
        /// How the file's name begins.
        name: String,
        /// How many of the matching files, in order of name, are spared.
        #[serde(default)]
        skip: usize,
    },
    /// Puts back what the last damage changed.
    UndoDamage,
    /// Looks below a directory for the file with this content. Leaves its path as `{received}`.
    SameBytes {
        /// The original.
        left: String,
        /// The directory.
        within: String,
    },
    /// Compares `kdt log` of a dump with what the guest's console printed up to its crash.
    LogAgrees {
        /// The console's log.
        console: String,
        /// The dump.
        dump: String,
    },
}

/// What a command must answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Exit codes that are right. None given: any.
    #[serde(default)]
    pub exit: Vec<i32>,
    /// Texts that stdout or stderr must contain.
    #[serde(default)]
    pub says: Vec<String>,
}

/// The scenarios that come with the product.
const BUILT_IN: &[&str] = &[include_str!("../scenarios/panic-kdump.toml")];

/// Reads a scenario from its text.
///
/// # Errors
/// Where and why the text is not a scenario.
pub fn parse(text: &str) -> Result<Scenario, toml::de::Error> {
    toml::from_str(text)
}

/// All scenarios that come with the product, by id.
#[must_use]
pub fn built_in() -> BTreeMap<String, Scenario> {
    // A built-in text that does not parse is caught by a test, not at three in the morning.
    BUILT_IN.iter().filter_map(|text| parse(text).ok()).map(|s| (s.id.clone(), s)).collect()
}

/// What earlier steps left for later ones, by name.
#[derive(Clone, Debug, Default)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// Leaves a value for later steps.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Puts the values in the place of their `{names}`.
    ///
    /// # Errors
    /// The name that no earlier step has left.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, tail)) = after.split_once('}') else {
                return Err(format!("«{text}» has an opening brace without a closing one"));
            };
            let Some(value) = self.0.get(name) else {
                return Err(format!("«{text}» needs {{{name}}}, and no earlier step has left it"));
            };
            out.push_str(before);
            out.push_str(value);
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_parses_and_has_an_id_of_its_own() {
        for text in BUILT_IN {
            parse(text).unwrap();
        }
        assert_eq!(built_in().len(), BUILT_IN.len());
    }

    #[test]
    fn every_built_in_scenario_is_worth_a_hundred_points() {
        for (id, scenario) in built_in() {
            let points: u32 = scenario.steps.iter().map(|s| s.points).sum();
            assert_eq!(points, 100, "{id}");
        }
    }

    #[test]
    fn a_name_that_no_step_left_is_said() {
        let mut vars = Vars::default();
        vars.set("case", "7");
        assert_eq!(vars.fill("a {case} b").unwrap(), "a 7 b");
        assert!(vars.fill("{vmcore}").unwrap_err().contains("no earlier step has left it"));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = BUILT_IN[0].replace("max_minutes", "max_minuets");
        assert!(parse(&text).unwrap_err().to_string().contains("max_minuets"));
    }
}
