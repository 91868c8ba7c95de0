//! What a run did: one report for each item, and the whole.

use std::path::PathBuf;
use std::time::Duration;

/// How one item came out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemStatus {
    /// It is in the bundle.
    Taken,
    /// This host does not have it, which is normal.
    Absent(String),
    /// It is not permitted: not root, or a lockdown.
    Denied(String),
    /// It is there and could not be read.
    Failed(String),
    /// It did not end in its time. What came until then is in the bundle.
    TimedOut(String),
    /// The disk of the bundle is full.
    NoSpace,
    /// The time of the whole run, or the size of the whole bundle, was used up before it.
    NotReached(String),
}

impl ItemStatus {
    /// One word for lists.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Absent(_) => "absent",
            Self::Denied(_) => "not permitted",
            Self::Failed(_) => "failed",
            Self::TimedOut(_) => "timed out",
            Self::NoSpace => "no space",
            Self::NotReached(_) => "not reached",
        }
    }

    /// Why, where there is more to say.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Taken => "",
            Self::NoSpace => "the disk of the bundle is full",
            Self::Absent(why)
            | Self::Denied(why)
            | Self::Failed(why)
            | Self::TimedOut(why)
            | Self::NotReached(why) => why,
        }
    }
}

/// One run of one program.
#[derive(Clone, Debug)]
pub struct CommandRecord {
    /// The command line.
    pub line: String,
    /// The program's own path.
    pub program: String,
    /// Where its output is in the bundle; `None` where there is none.
    pub place: Option<String>,
    /// What it returned; 124 where it ran out of time, as `timeout` has it.
    pub code: i32,
    /// True if there was more output than is kept.
    pub truncated: bool,
    /// How many secrets were taken out.
    pub scrubbed: u64,
    /// When it began, in seconds since 1970.
    pub start: f64,
    /// When it ended.
    pub end: f64,
}

/// One file that was copied.
#[derive(Clone, Debug)]
pub struct FileRecord {
    /// Its path on the host.
    pub path: String,
    /// Where it is in the bundle.
    pub place: String,
    /// How many bytes are kept.
    pub bytes: u64,
    /// True if there was more.
    pub truncated: bool,
    /// How many secrets were taken out.
    pub scrubbed: u64,
}

/// What became of one item.
#[derive(Clone, Debug)]
pub struct ItemReport {
    /// Its index in the plan.
    pub index: usize,
    /// The plugin.
    pub plugin: String,
    /// What it is, in the words of its spec.
    pub what: String,
    /// How it came out.
    pub status: ItemStatus,
    /// The programs it ran.
    pub commands: Vec<CommandRecord>,
    /// The files it copied.
    pub files: Vec<FileRecord>,
    /// What could not be had within it, each in one sentence.
    pub notes: Vec<String>,
    /// How many bytes of content it has in the bundle.
    pub bytes: u64,
    /// When it began, in seconds since 1970.
    pub start: f64,
    /// How long it took.
    pub took: Duration,
}

/// A bundle that was made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The bundle.
    pub path: PathBuf,
    /// The file beside it with its digest, as `sha256sum -c` reads it.
    pub digest_path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its size on disk.
    pub size_bytes: u64,
    /// The size of what is in it.
    pub content_bytes: u64,
    /// How many files, links and directories are in it.
    pub entries: u64,
    /// What became of each item, in the order of the plan.
    pub items: Vec<ItemReport>,
    /// True if the run was root's, who may read all.
    pub as_root: bool,
    /// How long it took.
    pub took: Duration,
    /// Things that did not keep the bundle from being made, each in one sentence.
    pub notes: Vec<String>,
}

impl Outcome {
    /// How many items came out so that `test` holds.
    fn count(&self, test: impl Fn(&ItemStatus) -> bool) -> usize {
        self.items.iter().filter(|item| test(&item.status)).count()
    }

    /// How many items are in the bundle.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::Taken))
    }

    /// How many items this host does not have.
    #[must_use]
    pub fn absent(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::Absent(_)))
    }

    /// How many items could not be read.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::Failed(_)))
    }

    /// How many items are not permitted.
    #[must_use]
    pub fn denied(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::Denied(_)))
    }

    /// How many items did not end in their time.
    #[must_use]
    pub fn timed_out(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::TimedOut(_)))
    }

    /// How many items the run did not reach or had no space for.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.count(|s| matches!(s, ItemStatus::NoSpace | ItemStatus::NotReached(_)))
    }

    /// True if the bundle lacks something that this host has: exit code 4. What a host does not have, and a
    /// file that even root can't read, are normal.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.timed_out() + self.left_out() > 0 || (!self.as_root && self.denied() > 0)
    }

    /// The items that a person should know about, in the order of the plan.
    pub fn worth_telling(&self) -> impl Iterator<Item = &ItemReport> {
        self.items.iter().filter(|item| match &item.status {
            ItemStatus::Taken | ItemStatus::Absent(_) => false,
            ItemStatus::Denied(_) => !self.as_root,
            _ => true,
        })
    }

    /// The outcome in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("{} items taken", self.taken())];
        for (count, words) in [
            (self.absent(), "not on this host"),
            (self.timed_out(), "timed out"),
            (self.denied(), "not permitted"),
            (self.failed(), "unreadable"),
            (self.left_out(), "left out"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {words}"));
            }
        }
        parts.join(", ")
    }
}
