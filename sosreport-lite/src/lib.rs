//! Collects the facts of a host that matter after a kernel crash, into one `.tar.gz` in the layout of `sos report`.
//!
//! What to collect is data: the spec files under `src/specs/`. [`plan()`] fits them to a host and touches
//! nothing; [`run()`] carries the [`Plan`] out. Nothing that the host does keeps a run from ending: each program
//! is ended with its whole process group when its time is up, each file is read by a process that may be left
//! behind, and what came until then is in the bundle.
//!
//! | item | what it is |
//! |---|---|
//! | [`Options`], [`Profile`], [`Limits`] | what is asked for |
//! | [`Plan`], [`Item`], [`Skipped`] | what will be done, printed by `--dry-run` |
//! | [`Progress`], [`Cancel`] | what a caller sees and says meanwhile |
//! | [`Outcome`], [`ItemReport`], [`ItemStatus`] | what was done |
//! | [`CollectError`] | why there is no bundle at all |
//! | [`ReaderCommand`], [`serve_if_asked`] | the process that reads files |
//!
//! ```
//! use sosreport_lite::{Cancel, Options, Quiet, plan, run};
//!
//! # let host = tempfile::tempdir()?;
//! # std::fs::create_dir(host.path().join("etc"))?;
//! # std::fs::write(host.path().join("etc/kdump.conf"), "path /var/crash\n")?;
//! # let out = tempfile::tempdir()?;
//! let options = Options { root: host.path().into(), out: out.path().into(), ..Options::default() };
//! let plan = plan(&options)?;
//! println!("{}", plan.describe());
//! let outcome = run(&plan, &Quiet, &Cancel::default())?;
//! assert!(outcome.path.ends_with(format!("{}.tar.gz", plan.name)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod collect;
mod error;
mod limits;
mod mangle;
mod manifest;
mod outcome;
mod plan;
mod progress;
mod reader;
mod run;
mod scrub;
mod spec;
mod spool;

pub use error::CollectError;
pub use limits::{Limits, human_size, parse_size};
pub use mangle::mangle_command;
pub use outcome::{CommandRecord, FileRecord, ItemReport, ItemStatus, Outcome};
pub use plan::{CommandItem, Item, Options, Plan, Skipped, Source, plan, plan_from_text};
pub use progress::{Cancel, Progress, Quiet};
pub use reader::{ReaderCommand, serve_if_asked};
pub use run::run;
pub use spec::{Keep, Profile};
