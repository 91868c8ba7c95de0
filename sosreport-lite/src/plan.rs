//! What a run will do: the specs fitted to one host. `--dry-run` prints it, and [`crate::run()`] carries it out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::CollectError;
use crate::limits::{Limits, human_size};
use crate::mangle::{mangle_command, name_part};
use crate::reader::ReaderCommand;
use crate::spec::{self, Keep, PluginSpec, Profile};

/// Where programs are looked for. Nothing else is ever run.
pub(crate) const BIN_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What to collect, from where, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// What happened on the host.
    pub profile: Profile,
    /// The support case, for the name of the bundle.
    pub case: Option<String>,
    /// A directory, or a new file whose name ends in `.tar.gz`.
    pub out: PathBuf,
    /// The root of the host: `/` for this one. For another root its files are read and no command is run.
    pub root: PathBuf,
    /// Also have the kernel log its blocked tasks (`w` to `/proc/sysrq-trigger`) before anything is read.
    pub sysrq: bool,
    /// How to start the process that reads files. `None` reads in threads of this process.
    pub reader: Option<ReaderCommand>,
    /// The bounds of the run.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Crash,
            case: None,
            out: PathBuf::from("."),
            root: PathBuf::from("/"),
            sysrq: false,
            reader: None,
            limits: Limits::default(),
        }
    }
}

/// One thing to collect.
#[derive(Clone, Debug)]
pub struct Item {
    /// The plugin, as sos has them: a directory under `sos_commands/`.
    pub plugin: String,
    /// What it is.
    pub source: Source,
    /// How long all of it may take.
    pub limit: Duration,
    /// How many bytes all of it may have.
    pub cap: u64,
    /// Which end is kept where it has more.
    pub keep: Keep,
    /// Names by which readers of the manifest find it.
    pub tags: Vec<String>,
    /// What it is good for.
    pub why: Option<String>,
    order: u32,
}

/// What kind of thing an item is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The output of a program.
    Command(CommandItem),
    /// Files that match a glob.
    Files {
        /// The glob, from the root of the host.
        glob: String,
        /// Globs of what is left out.
        exclude: Vec<String>,
    },
    /// Files read twice, so that their counters can be subtracted.
    Sample {
        /// The files.
        paths: Vec<String>,
        /// How long between the two readings.
        interval: Duration,
    },
    /// Files of `/proc/PID/task/TID/` of the threads in some states.
    Tasks {
        /// State letters as `ps` shows them.
        states: String,
        /// The files.
        files: Vec<String>,
    },
    /// A letter for `/proc/sysrq-trigger`.
    Sysrq(u8),
}

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct CommandItem {
    /// The program, as it was found.
    pub program: PathBuf,
    /// The words of the command line.
    pub argv: Vec<String>,
    /// The command line as people write it.
    pub line: String,
    /// The output's name under `sos_commands/<plugin>/`.
    pub file_name: String,
    /// The link at the top of the bundle.
    pub link: Option<String>,
    /// A glob: it runs once for each match, with `{}` replaced by its last component.
    pub each: Option<String>,
    /// A file: the first words of its lines are more arguments.
    pub args_from: Option<String>,
}

/// Something that the profile wants and this host does not have.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The plugin.
    pub plugin: String,
    /// The command line.
    pub what: String,
    /// Why it is left out.
    pub why: String,
}

/// A whole run, decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for.
    pub options: Options,
    /// The bundle's name: its top directory, and its file name without `.tar.gz`.
    pub name: String,
    /// The file that will be made.
    pub path: PathBuf,
    /// What will be collected, in this order.
    pub items: Vec<Item>,
    /// What will not, because this host does not have it.
    pub skipped: Vec<Skipped>,
}

/// Fits the built-in specs to the host.
///
/// # Errors
/// [`CollectError::Out`] where the bundle can't be put there, [`CollectError::Root`] where there is no such
/// root, [`CollectError::Spec`] for a mistake in a built-in spec.
pub fn plan(options: &Options) -> Result<Plan, CollectError> {
    plan_of(options, &spec::built_in()?)
}

/// Fits given spec text instead of the built-in one, so that tests choose what is run.
#[doc(hidden)]
pub fn plan_from_text(options: &Options, text: &str) -> Result<Plan, CollectError> {
    plan_of(options, &spec::parse("text", text)?)
}

fn plan_of(options: &Options, plugins: &[PluginSpec]) -> Result<Plan, CollectError> {
    let root_error = |source| CollectError::Root { path: options.root.clone(), source };
    let root = options.root.canonicalize().map_err(root_error)?;
    if !root.is_dir() {
        return Err(root_error(std::io::ErrorKind::NotADirectory.into()));
    }
    let options = Options { root, ..options.clone() };
    let name = bundle_name(&options);
    let path = bundle_path(&options.out, &name)?;
    let mut build =
        Build { options: &options, items: Vec::new(), skipped: Vec::new(), names: BTreeMap::new() };
    if options.sysrq && options.profile != Profile::Crash {
        build.sysrq();
    }
    for plugin in plugins {
        build.plugin(plugin);
    }
    let (mut items, skipped) = (build.items, build.skipped);
    // Stable: what has the same order stays as the specs have it.
    items.sort_by_key(|item| item.order);
    Ok(Plan { options, name, path, items, skipped })
}

struct Build<'a> {
    options: &'a Options,
    items: Vec<Item>,
    skipped: Vec<Skipped>,
    names: BTreeMap<String, BTreeSet<String>>,
}

const DEFAULT_ORDER: u32 = 50;

impl Build<'_> {
    fn wanted(&self, profiles: Option<&Vec<Profile>>) -> bool {
        let profile = self.options.profile;
        profile == Profile::Full || profiles.is_none_or(|list| list.contains(&profile))
    }

    fn sysrq(&mut self) {
        let why = "the kernel logs the stacks of blocked tasks";
        self.items.push(Item {
            plugin: "kernel".into(),
            source: Source::Sysrq(b'w'),
            limit: Duration::from_secs(10),
            cap: 0,
            keep: Keep::Head,
            tags: Vec::new(),
            why: Some(why.into()),
            order: 0,
        });
    }

    fn plugin(&mut self, plugin: &PluginSpec) {
        for command in &plugin.command {
            if self.wanted(command.profiles.as_ref()) {
                self.command(&plugin.name, command);
            }
        }
        for file in plugin.file.iter().filter(|f| self.wanted(f.profiles.as_ref())).collect::<Vec<_>>() {
            for glob in &file.paths {
                self.items.push(Item {
                    plugin: plugin.name.clone(),
                    source: Source::Files { glob: glob.clone(), exclude: file.exclude.clone() },
                    limit: file.limit_s.map_or(spec::FILES_TIME, Duration::from_secs),
                    cap: file.cap.map_or(spec::FILES_CAP, |s| s.0),
                    keep: file.keep,
                    tags: file.tags.clone(),
                    why: file.why.clone(),
                    order: file.order.unwrap_or(DEFAULT_ORDER),
                });
            }
        }
        for sample in plugin.sample.iter().filter(|s| self.wanted(s.profiles.as_ref())).collect::<Vec<_>>() {
            let interval = Duration::from_secs(sample.interval_s);
            self.items.push(Item {
                plugin: plugin.name.clone(),
                source: Source::Sample { paths: sample.paths.clone(), interval },
                limit: interval + spec::FILES_TIME,
                cap: sample.cap.map_or(spec::FILES_CAP, |s| s.0),
                keep: Keep::Head,
                tags: Vec::new(),
                why: sample.why.clone(),
                order: sample.order.unwrap_or(DEFAULT_ORDER),
            });
        }
        for tasks in plugin.tasks.iter().filter(|t| self.wanted(t.profiles.as_ref())).collect::<Vec<_>>() {
            self.items.push(Item {
                plugin: plugin.name.clone(),
                source: Source::Tasks { states: tasks.states.clone(), files: tasks.files.clone() },
                limit: tasks.limit_s.map_or(spec::FILES_TIME, Duration::from_secs),
                cap: tasks.cap.map_or(spec::FILES_CAP, |s| s.0),
                keep: Keep::Head,
                tags: Vec::new(),
                why: tasks.why.clone(),
                order: tasks.order.unwrap_or(DEFAULT_ORDER),
            });
        }
    }

    fn command(&mut self, plugin: &str, command: &spec::CommandSpec) {
        let skip = |why: String| Skipped { plugin: plugin.into(), what: command.run.clone(), why };
        let elsewhere = self.options.root != Path::new("/");
        if elsewhere && !command.in_root {
            let why = format!("a command tells of the running host, not of {}", self.options.root.display());
            self.skipped.push(skip(why));
            return;
        }
        let Some(mut argv) = spec::words(&command.run).filter(|words| !words.is_empty()) else { return };
        if elsewhere && let Some(path) = argv.last_mut() {
            let Some(inside) = below_root(&self.options.root, path) else {
                self.skipped.push(skip(format!("there is no {path} below {}", self.options.root.display())));
                return;
            };
            *path = inside;
        }
        let Some(program) = argv.first().and_then(|word| find_program(word)) else {
            let word = argv.first().cloned().unwrap_or_default();
            self.skipped.push(skip(format!("there is no program {word} on this host")));
            return;
        };
        if let Some(needs) = command.needs.as_ref().filter(|path| !elsewhere && !Path::new(path).exists()) {
            self.skipped.push(skip(format!("there is no {needs} on this host")));
            return;
        }
        let file_name = self.claim(plugin, &mangle_command(command.named.as_ref().unwrap_or(&command.run)));
        self.items.push(Item {
            plugin: plugin.into(),
            source: Source::Command(CommandItem {
                program,
                argv,
                line: command.run.clone(),
                file_name,
                link: command.link.clone(),
                each: command.each.clone(),
                args_from: command.args_from.clone(),
            }),
            limit: command.limit_s.map_or(spec::COMMAND_TIME, Duration::from_secs),
            cap: command.cap.map_or(spec::COMMAND_CAP, |s| s.0),
            keep: command.keep,
            tags: command.tags.clone(),
            why: command.why.clone(),
            order: command.order.unwrap_or(DEFAULT_ORDER),
        });
    }

    /// `name`, or `name.1`, `name.2`, … where the plugin has that already.
    fn claim(&mut self, plugin: &str, name: &str) -> String {
        let taken = self.names.entry(plugin.to_owned()).or_default();
        let mut unique = name.to_owned();
        let mut n = 0_u32;
        while !taken.insert(unique.clone()) {
            n += 1;
            unique = format!("{name}.{n}");
        }
        unique
    }
}

/// `path` as it is below `root`, if no link on its way leads out of there.
fn below_root(root: &Path, path: &str) -> Option<String> {
    let inside = root.join(path.trim_start_matches('/')).canonicalize().ok()?;
    inside.starts_with(root).then(|| inside.to_str().map(str::to_owned))?
}

/// Where a program is, in the system's own directories only.
pub(crate) fn find_program(word: &str) -> Option<PathBuf> {
    if word.contains('/') {
        let path = PathBuf::from(word);
        return path.is_file().then_some(path);
    }
    BIN_DIRS.iter().map(|dir| Path::new(dir).join(word)).find(|path| path.is_file())
}

/// `sosreport-<shorthost>[-<case>]-YYYY-MM-DD-<7 letters>`, as sos names its archives.
fn bundle_name(options: &Options) -> String {
    let host = if options.root == Path::new("/") {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        std::fs::read_to_string(options.root.join("etc/hostname")).unwrap_or_default().trim().to_owned()
    };
    let host = name_part(host.split('.').next().unwrap_or_default());
    let host = if host.is_empty() { "host".to_owned() } else { host };
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let case = options.case.as_ref().map(|case| name_part(case)).filter(|case| !case.is_empty());
    let case = case.map_or_else(String::new, |case| format!("-{case}"));
    format!("sosreport-{host}{case}-{date}-{}", seven_letters())
}

/// Letters that differ from run to run. They only keep names apart; nothing secret hangs on them.
fn seven_letters() -> String {
    let mut seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut letters = String::new();
    for _ in 0..7 {
        letters.push(char::from(b'a' + u8::try_from(seed % 26).unwrap_or(0)));
        seed /= 26;
    }
    letters
}

fn bundle_path(out: &Path, name: &str) -> Result<PathBuf, CollectError> {
    let bad = |why: &str| Err(CollectError::Out { path: out.into(), why: why.into() });
    if out.is_dir() {
        return Ok(out.join(format!("{name}.tar.gz")));
    }
    if !out.to_string_lossy().ends_with(".tar.gz") {
        return bad("it is not a directory, and does not end in .tar.gz");
    }
    if out.symlink_metadata().is_ok() {
        return bad("it is there already, and nothing is overwritten");
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return bad("its directory is not there");
    }
    Ok(out.into())
}

impl Item {
    /// What it is, in the words of its spec.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.source {
            Source::Command(command) => command.line.clone(),
            Source::Files { glob, .. } => glob.clone(),
            Source::Sample { paths, interval } => {
                format!("two readings, {} s apart, of {}", interval.as_secs(), paths.join(" "))
            }
            Source::Tasks { states, files } => {
                format!("{} of threads in state {states}", files.join(" "))
            }
            Source::Sysrq(letter) => format!("sysrq {}", char::from(*letter)),
        }
    }

    /// Where in the bundle it will be.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.source {
            Source::Command(command) => format!("sos_commands/{}/{}", self.plugin, command.file_name),
            Source::Files { glob, .. } => glob.trim_start_matches('/').to_owned(),
            Source::Sample { .. } => format!("sos_strings/{}/samples/", self.plugin),
            Source::Tasks { .. } => "proc/PID/task/TID/".to_owned(),
            Source::Sysrq(_) => "the kernel log".to_owned(),
        }
    }
}

impl Plan {
    /// The most that the run may need in the output's filesystem, if nothing compresses: content waiting, the
    /// unfinished bundle, and its copy in the final order.
    #[must_use]
    pub fn most_space(&self) -> u64 {
        let caps = self.items.iter().map(|item| item.cap).fold(0, u64::saturating_add);
        let content = caps.min(self.options.limits.max_bytes);
        let waiting = self.items.iter().map(|item| item.cap.saturating_mul(2)).max().unwrap_or(0);
        content.saturating_mul(2).saturating_add(waiting)
    }

    /// The plan for people, as `--dry-run` prints it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let limits = &self.options.limits;
        let _ = writeln!(text, "bundle    {}", self.path.display());
        let _ = writeln!(
            text,
            "profile   {}: {} items, at most {} s, at most {} of content",
            self.options.profile.name(),
            self.items.len(),
            limits.max_time.as_secs(),
            human_size(limits.max_bytes),
        );
        for item in &self.items {
            let _ = writeln!(
                text,
                "{:<14} {} -> {}  ({} s, {}{})",
                item.plugin,
                item.what(),
                item.place(),
                item.limit.as_secs(),
                human_size(item.cap),
                if item.keep == Keep::Tail { ", the end is kept" } else { "" },
            );
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "{:<14} {} is left out: {}", skipped.plugin, skipped.what, skipped.why);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_command_twice_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { out: dir.path().into(), ..Options::default() };
        let text = "[[plugin]]\nname = \"x\"\n[[plugin.command]]\nrun = \"true -a\"\n[[plugin.command]]\nrun = \"/usr/bin/true -a\"\n";
        let places: Vec<String> =
            plan_from_text(&options, text).unwrap().items.iter().map(Item::place).collect();
        assert_eq!(places, ["sos_commands/x/true_-a", "sos_commands/x/true_-a.1"]);
    }

    #[test]
    fn another_root_runs_no_command_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { out: dir.path().into(), root: dir.path().into(), ..Options::default() };
        let plan = plan(&options).unwrap();
        let commands = plan.items.iter().filter(|item| matches!(item.source, Source::Command(_)));
        assert_eq!(commands.count(), 0);
        assert!(plan.skipped.iter().any(|s| s.what == "uname -a" && s.why.contains("not of")));
        assert!(plan.name.starts_with("sosreport-host-2"), "{}", plan.name);
    }

    #[test]
    fn the_name_has_host_case_date_and_seven_letters() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "db1.example.com\n").unwrap();
        let root = dir.path().to_path_buf();
        let options = Options { out: root.clone(), root, case: Some("0351/2".into()), ..Options::default() };
        let name = plan(&options).unwrap().name;
        let rest = name.strip_prefix("sosreport-db1-0351_2-").unwrap();
        let (date, letters) = rest.rsplit_once('-').unwrap();
        assert_eq!((date.len(), letters.len()), (10, 7));
        assert!(letters.bytes().all(|b| b.is_ascii_lowercase()));
    }

    #[test]
    fn a_place_that_can_not_take_the_bundle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("old.tar.gz");
        std::fs::write(&there, "x").unwrap();
        for (out, words) in [
            (there, "is there already"),
            (dir.path().join("x.zip"), "does not end in .tar.gz"),
            (dir.path().join("no/x.tar.gz"), "its directory is not there"),
        ] {
            let err = plan(&Options { out, ..Options::default() }).unwrap_err();
            assert!(err.to_string().contains(words), "{err}");
        }
    }
}
