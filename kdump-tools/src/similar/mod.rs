//! Whether a crash was seen before: the document `kdt/similar/1`, made from reports of triage.
//!
//! [`search`] reads the reports below folders, [`compare`] finds those of the same crash and of crashes that are nearly the same.
//! Nothing here prints.

mod read;

use std::collections::BTreeMap;

use serde::Serialize;
use vmcore::analysis::signature::{NEAR, similarity};
use vmcore::report::{Signature, Tool};

pub use read::{Seen, is_report, parse, read, search};

/// The name and version of the document's layout.
pub const SIMILAR_SCHEMA: &str = "kdt/similar/1";

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Similar {
    /// Always [`SIMILAR_SCHEMA`].
    pub schema: &'static str,
    /// The program that made it.
    pub tool: Tool,
    /// The crashes that were asked about.
    pub subjects: Vec<Subject>,
    /// What was looked through.
    pub searched: Searched,
}

/// One crash that was asked about, and where it was seen before.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// What was given.
    pub path: String,
    /// The host.
    pub host: Option<String>,
    /// Its kernel.
    pub release: Option<String>,
    /// When it crashed, in seconds since 1970.
    pub crash_time: Option<f64>,
    /// By what it is known; `null` where nothing tells it from others.
    pub signature: Option<Signature>,
    /// How many reports of this very crash were found; they are counted in no group.
    pub itself: usize,
    /// The others, the most alike first.
    pub groups: Vec<Group>,
    /// All of the same signature, this one included, taken together; `null` where the signature says too little for that.
    pub history: Option<History>,
}

/// How alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// The same signature.
    Exact,
    /// Nearly the same.
    Near,
    /// The same kind of trouble, and no stack in either that would tell whether it is the same.
    KindOnly,
}

/// Crashes with one signature.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// How alike they are to the one asked about.
    #[serde(rename = "match")]
    pub kind: Match,
    /// The same as a number from 0 to 1; see `docs/signature.md`.
    pub similarity: f64,
    /// Their signature.
    pub signature: Signature,
    /// When and where.
    pub history: History,
    /// The crashes, the latest first.
    pub crashes: Vec<Crash>,
}

/// When and where crashes happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct History {
    /// How many.
    pub count: usize,
    /// The hosts, with how many on each; those that the reports do not name are not in it.
    pub hosts: BTreeMap<String, usize>,
    /// The kernels, likewise.
    pub kernels: BTreeMap<String, usize>,
    /// The first time that is known.
    pub first_seen: Option<f64>,
    /// The last time that is known.
    pub last_seen: Option<f64>,
}

/// One crash.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Crash {
    /// The reports of it.
    pub reports: Vec<String>,
    /// The dump, by the name that it had.
    pub dump: String,
    /// The host.
    pub host: Option<String>,
    /// Its kernel.
    pub release: Option<String>,
    /// When, in seconds since 1970.
    pub crash_time: Option<f64>,
}

/// What was looked through.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Searched {
    /// The folders.
    pub folders: Vec<String>,
    /// Files whose names could be those of reports.
    pub files: usize,
    /// Reports that were read.
    pub reports: usize,
    /// Those of them that no signature can be made of: no panic and no hang.
    pub without_signature: usize,
    /// What could not be read, and why.
    pub unreadable: Vec<Unreadable>,
}

/// A report that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Which.
    pub path: String,
    /// Why.
    pub why: String,
}

impl History {
    fn add(&mut self, host: Option<&str>, release: Option<&str>, crash_time: Option<f64>) {
        self.count = self.count.saturating_add(1);
        for (map, name) in [(&mut self.hosts, host), (&mut self.kernels, release)] {
            if let Some(name) = name {
                let count = map.entry(name.to_owned()).or_default();
                *count = count.saturating_add(1);
            }
        }
        if let Some(time) = crash_time {
            self.first_seen = Some(self.first_seen.map_or(time, |first| first.min(time)));
            self.last_seen = Some(self.last_seen.map_or(time, |last| last.max(time)));
        }
    }

    /// The host, where several crashes are all on one.
    #[must_use]
    pub fn only_host(&self) -> Option<&str> {
        let (name, count) = self.hosts.first_key_value()?;
        (self.count > 1 && *count == self.count).then_some(name)
    }
}

/// Whether a signature tells crashes apart.
#[must_use]
pub fn tells(signature: &Signature) -> bool {
    !signature.frames.is_empty() || signature.about.is_some()
}

/// Where one crash was seen before among `others`.
#[must_use]
pub fn compare(subject: &Seen, others: &[Seen]) -> Subject {
    let mut itself = 0;
    let mut groups: BTreeMap<String, (Signature, f64, Vec<Crash>)> = BTreeMap::new();
    // Each crash once, however many reports there are of it.
    let mut known: Vec<&Seen> = Vec::new();
    let own = subject.signature.as_ref();
    for other in others {
        if other.is_same_crash(subject) || other.path == subject.path && other.dump == subject.dump {
            itself += 1;
            continue;
        }
        let Some((own, signature)) = own.zip(other.signature.as_ref()) else { continue };
        let alike = similarity(own, signature);
        if alike < NEAR {
            continue;
        }
        let group =
            groups.entry(signature.hash.clone()).or_insert_with(|| (signature.clone(), alike, Vec::new()));
        let path = other.path.display().to_string();
        if let Some(twin) = known.iter().find(|one| one.is_same_crash(other)) {
            let same = |crash: &&mut Crash| crash.host == twin.host && crash.crash_time == twin.crash_time;
            if let Some(crash) = group.2.iter_mut().find(same) {
                crash.reports.push(path);
                continue;
            }
        }
        known.push(other);
        group.2.push(Crash {
            reports: vec![path],
            dump: other.dump.clone(),
            host: other.host.clone(),
            release: other.release.clone(),
            crash_time: other.crash_time,
        });
    }
    let mut groups: Vec<Group> = groups
        .into_values()
        .map(|(signature, similarity, mut crashes)| {
            let mut history = History::default();
            for crash in &crashes {
                history.add(crash.host.as_deref(), crash.release.as_deref(), crash.crash_time);
            }
            crashes.sort_by(|a, b| {
                b.crash_time
                    .unwrap_or(0.0)
                    .total_cmp(&a.crash_time.unwrap_or(0.0))
                    .then_with(|| a.reports.cmp(&b.reports))
            });
            let same = own.is_some_and(|own| own.hash == signature.hash);
            let kind = if same && tells(&signature) {
                Match::Exact
            } else if same {
                Match::KindOnly
            } else {
                Match::Near
            };
            Group { kind, similarity, signature, history, crashes }
        })
        .collect();
    groups.sort_by(|a, b| {
        a.kind
            .cmp(&b.kind)
            .then(b.similarity.total_cmp(&a.similarity))
            .then_with(|| a.signature.hash.cmp(&b.signature.hash))
    });
    let history = own.filter(|own| tells(own)).map(|_| {
        let mut all = History::default();
        all.add(subject.host.as_deref(), subject.release.as_deref(), subject.crash_time);
        for crash in groups.iter().filter(|group| group.kind == Match::Exact).flat_map(|group| &group.crashes)
        {
            all.add(crash.host.as_deref(), crash.release.as_deref(), crash.crash_time);
        }
        all
    });
    Subject {
        path: subject.path.display().to_string(),
        host: subject.host.clone(),
        release: subject.release.clone(),
        crash_time: subject.crash_time,
        signature: subject.signature.clone(),
        itself,
        groups,
        history,
    }
}

#[cfg(test)]
mod tests;
