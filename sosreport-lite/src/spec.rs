//! What can be collected, as data: the files under `src/specs/`, one per area, and what their keys mean.
//!
//! This module knows the text of the specs and nothing of the host; [`mod@crate::plan`] fits them to a host.

use std::time::Duration;

use serde::Deserialize;

use crate::error::CollectError;
use crate::limits::parse_size;

/// What happened on the host, which decides what matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The kernel crashed and the host is up again.
    #[default]
    Crash,
    /// The host, or something on it, hangs now.
    Hang,
    /// All that the specs know.
    Full,
}

impl Profile {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Full => "full",
        }
    }
}

/// Which end of something too long is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The beginning: right for tables, which name what comes first.
    #[default]
    Head,
    /// The end: right for logs, whose last lines matter.
    Tail,
}

/// One spec file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    plugin: Vec<PluginSpec>,
}

/// What one plugin (a directory under `sos_commands/`) collects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginSpec {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) command: Vec<CommandSpec>,
    #[serde(default)]
    pub(crate) file: Vec<FileSpec>,
    #[serde(default)]
    pub(crate) sample: Vec<SampleSpec>,
    #[serde(default)]
    pub(crate) tasks: Vec<TasksSpec>,
}

/// What all kinds of specs share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandSpec {
    /// The command line: words, and `'…'` for a word with spaces.
    pub(crate) run: String,
    /// The command line to name the output after, where it differs (sos names some by hand).
    #[serde(rename = "as")]
    pub(crate) named: Option<String>,
    /// The link at the top of the bundle.
    pub(crate) link: Option<String>,
    /// A path that has to exist for the command to make sense.
    pub(crate) needs: Option<String>,
    /// True if its last word is a path that can be looked at below another root as well.
    #[serde(default)]
    pub(crate) in_root: bool,
    /// A glob: the command runs once for each match, with `{}` replaced by its last component.
    pub(crate) each: Option<String>,
    /// A file: the first word of each of its lines is one more argument.
    pub(crate) args_from: Option<String>,
    #[serde(default)]
    pub(crate) keep: Keep,
    pub(crate) cap: Option<Size>,
    pub(crate) limit_s: Option<u64>,
    pub(crate) order: Option<u32>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    pub(crate) profiles: Option<Vec<Profile>>,
    pub(crate) why: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSpec {
    /// Globs, each from the root of the host.
    pub(crate) paths: Vec<String>,
    /// Globs of what is left out.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    #[serde(default)]
    pub(crate) keep: Keep,
    /// How many bytes all matches of one glob may have together.
    pub(crate) cap: Option<Size>,
    pub(crate) limit_s: Option<u64>,
    pub(crate) order: Option<u32>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    pub(crate) profiles: Option<Vec<Profile>>,
    pub(crate) why: Option<String>,
}

/// Files that are read twice, some seconds apart, so that their counters can be subtracted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleSpec {
    pub(crate) paths: Vec<String>,
    pub(crate) interval_s: u64,
    pub(crate) cap: Option<Size>,
    pub(crate) order: Option<u32>,
    pub(crate) profiles: Option<Vec<Profile>>,
    pub(crate) why: Option<String>,
}

/// Files of `/proc/PID/task/TID/` for the threads in one of `states`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TasksSpec {
    /// Letters as `ps` shows them.
    pub(crate) states: String,
    pub(crate) files: Vec<String>,
    pub(crate) cap: Option<Size>,
    pub(crate) limit_s: Option<u64>,
    pub(crate) order: Option<u32>,
    pub(crate) profiles: Option<Vec<Profile>>,
    pub(crate) why: Option<String>,
}

/// A size as specs write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Size(pub(crate) u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_size(&text).map(Self).ok_or_else(|| format!("«{text}» is not a size such as 64KiB or 25MiB"))
    }
}

/// How long a command may take where its spec says nothing.
pub(crate) const COMMAND_TIME: Duration = Duration::from_secs(20);
/// How long all files of a glob may take where its spec says nothing.
pub(crate) const FILES_TIME: Duration = Duration::from_secs(20);
/// How much a command may say where its spec says nothing.
pub(crate) const COMMAND_CAP: u64 = 4 << 20;
/// How much the files of a glob may have where its spec says nothing.
pub(crate) const FILES_CAP: u64 = 4 << 20;

/// The spec files that are built in.
const BUILT_IN: [(&str, &str); 6] = [
    ("kernel.toml", include_str!("specs/kernel.toml")),
    ("kdump.toml", include_str!("specs/kdump.toml")),
    ("logs.toml", include_str!("specs/logs.toml")),
    ("tasks.toml", include_str!("specs/tasks.toml")),
    ("storage.toml", include_str!("specs/storage.toml")),
    ("host.toml", include_str!("specs/host.toml")),
];

/// All plugins of the built-in specs.
pub(crate) fn built_in() -> Result<Vec<PluginSpec>, CollectError> {
    let mut plugins = Vec::new();
    for (file, text) in BUILT_IN {
        plugins.extend(parse(file, text)?);
    }
    Ok(plugins)
}

/// The plugins of one spec file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<PluginSpec>, CollectError> {
    let spec: SpecFile = toml::from_str(text)
        .map_err(|e| CollectError::Spec { file: file.into(), why: e.message().trim().to_owned() })?;
    let bad = |why: String| CollectError::Spec { file: file.into(), why };
    for plugin in &spec.plugin {
        let clean = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if plugin.name.is_empty() || !plugin.name.chars().all(clean) {
            return Err(bad(format!("«{}» is not a plugin name", plugin.name)));
        }
        for command in &plugin.command {
            if words(&command.run).is_none_or(|w| w.is_empty()) {
                return Err(bad(format!("«{}» is not a command line", command.run)));
            }
        }
        let globs =
            plugin.file.iter().flat_map(|f| &f.paths).chain(plugin.sample.iter().flat_map(|s| &s.paths));
        for glob in globs {
            if !glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
                return Err(bad(format!("«{glob}» is not a path from the root of the host")));
            }
        }
    }
    Ok(spec.plugin)
}

/// The words of a command line, with `'…'` around words that have spaces; `None` where a quote stays open.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_specs_parse_and_name_what_matters() {
        let plugins = built_in().unwrap();
        let commands: Vec<&str> = plugins.iter().flat_map(|p| &p.command).map(|c| c.run.as_str()).collect();
        for needed in ["uname -a", "lsmod", "dmesg", "kdumpctl status", "journalctl --no-pager --boot -1"] {
            assert!(commands.contains(&needed), "{needed}");
        }
        let paths: Vec<&str> =
            plugins.iter().flat_map(|p| &p.file).flat_map(|f| &f.paths).map(String::as_str).collect();
        for needed in
            ["/etc/kdump.conf", "/proc/cmdline", "/var/crash/*/vmcore-dmesg.txt", "/sys/fs/pstore/*"]
        {
            assert!(paths.contains(&needed), "{needed}");
        }
        assert!(
            !paths
                .iter()
                .any(|p| p.ends_with("/vmcore") || p.starts_with("/var/crash/") && p.ends_with("/*")),
            "dumps are listed, not taken"
        );
    }

    #[test]
    fn words_know_quotes() {
        assert_eq!(words("sh -c 'rpm -qa | sort'").unwrap(), ["sh", "-c", "rpm -qa | sort"]);
        assert_eq!(words("lsof ''").unwrap(), ["lsof", ""]);
        assert_eq!(words("oops 'open"), None);
    }

    #[test]
    fn a_wrong_key_is_named() {
        let err = parse("x.toml", "[[plugin]]\nname = \"x\"\nfiles = []\n").unwrap_err().to_string();
        assert!(err.contains("x.toml") && err.contains("files"), "{err}");
        for bad in [
            "[[plugin]]\nname = \"a/b\"\n",
            "[[plugin]]\nname = \"x\"\n[[plugin.command]]\nrun = \"a 'b\"\n",
            "[[plugin]]\nname = \"x\"\n[[plugin.file]]\npaths = [\"etc/x\"]\n",
            "[[plugin]]\nname = \"x\"\n[[plugin.file]]\npaths = [\"/etc/../x\"]\n",
            "[[plugin]]\nname = \"x\"\n[[plugin.file]]\npaths = [\"/etc/x\"]\ncap = \"much\"\n",
        ] {
            assert!(parse("x.toml", bad).is_err(), "{bad}");
        }
    }
}
