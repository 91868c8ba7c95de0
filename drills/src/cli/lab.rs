//! `kdt-drill lab`: what the lab can make, and making it.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Environment, Failure};
use crate::lab::{KernelSpec, Lab, LabError, MadeDump, RecipeBook};

/// The words of `kdt-drill lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// The commands of `kdt-drill lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Lists the kernels and the recipes
    List,
    /// Makes dumps
    Make(MakeArgs),
}

/// The words of `kdt-drill lab make`.
#[derive(Debug, Args)]
pub struct MakeArgs {
    /// The kernel: a name from `lab list`, or SUITE/PACKAGE, such as trixie/linux-image-cloud-amd64
    #[arg(long, default_value = "6.1")]
    pub kernel: String,
    /// A recipe from `lab list`, or `all`; can be given several times
    #[arg(long, default_value = "kdump-zlib")]
    pub recipe: Vec<String>,
    /// The folder for the dumps
    #[arg(short, long, default_value = ".")]
    pub output: PathBuf,
    /// Prints what would be made, and makes nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs `kdt-drill lab`.
///
/// # Errors
/// [`Failure`].
pub(super) fn run(args: &LabArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        LabCommand::List => list(environment, out),
        LabCommand::Make(args) => make(args, environment, out),
    }
}

fn list(environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let book = RecipeBook::read()?;
    writeln!(out, "kernels")?;
    for kernel in &book.kernels {
        writeln!(out, "  {:32} {}", kernel.name, kernel.package)?;
    }
    writeln!(out, "  {:32} any other kernel package of a Debian suite", "SUITE/PACKAGE")?;
    for crash in &book.crashes {
        writeln!(out, "\n{} ({} MiB, {} CPUs): {}", crash.name, crash.memory_mib, crash.cpus, crash.about)?;
        for recipe in book.recipes.iter().filter(|r| r.crash == crash.name) {
            writeln!(out, "  {:32} {}", recipe.name, recipe.about)?;
        }
    }
    writeln!(out, "\ncache: {}", environment.lab_cache().display())?;
    Ok(())
}

fn make(args: &MakeArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let book = RecipeBook::read()?;
    let kernel = KernelSpec::named(&args.kernel)?;
    let mut recipes = Vec::new();
    for name in &args.recipe {
        if name == "all" {
            recipes.extend(book.recipes.iter());
        } else {
            recipes.push(book.recipe(name)?);
        }
    }
    if args.dry_run {
        for recipe in recipes {
            let stem = args.output.join(format!("{}-{}", kernel.name, recipe.name));
            writeln!(out, "{}.*  {} (crash {})", stem.display(), recipe.about, recipe.crash)?;
        }
        return Ok(());
    }
    let lab = Lab::open(environment.lab_cache())?.collect_with(environment.lab_kdt.clone()).talk_to(tell);
    for recipe in recipes {
        let made = lab.make_dump(&kernel, recipe, &args.output)?;
        report(&made, out)?;
    }
    Ok(())
}

fn report(made: &MadeDump, out: &mut dyn Write) -> Result<(), Failure> {
    for path in &made.paths {
        let size = std::fs::metadata(path).map_err(|source| LabError::File {
            what: "measure",
            path: path.clone(),
            source,
        })?;
        writeln!(out, "{}\t{}\t{}", path.display(), size.len(), made.kernel_release)?;
    }
    Ok(())
}

/// Progress, on stderr at once: a guest takes its time.
fn tell(text: &str) {
    // Nobody is left to tell where stderr is closed.
    let _ = writeln!(std::io::stderr(), "lab: {text}");
}
