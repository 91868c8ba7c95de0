//! Kernel headers of a suite that is newer than this machine: their programs want a newer libc than it has, and get that of their
//! suite; their options are those of a newer compiler, and this one gets those that it knows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{LabError, file_error};
use super::kernel::Kernel;
use super::program::Program;

const CC: &str = include_str!("../../lab/module/cc");
/// How many folders deep the programs lie.
const DEPTH: usize = 6;

/// Makes the programs of the headers in `root` run here, where they do not, and gives what `make` is to be told for that.
///
/// # Errors
/// Where their suite's libraries can't be had.
pub(super) fn words(kernel: &Kernel, root: &Path) -> Result<Vec<String>, LabError> {
    let mut programs = Vec::new();
    let lib = root.join("usr/lib");
    for entry in fs::read_dir(&lib).map_err(file_error("list", &lib))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("linux-kbuild-") {
            collect(&entry.path(), DEPTH, &mut programs)?;
        }
    }
    if programs.iter().all(|path| runs_here(path)) {
        return Ok(vec!["CC=gcc".to_owned()]);
    }
    let tools = root.join("tools");
    let pahole = kernel.apt.show("dwarves")?;
    let follow = |name: &str| name == "pahole" || name.starts_with("lib") || name.starts_with("zlib");
    kernel.apt.unpack(&pahole, &tools, follow, |_| false)?;
    for path in programs {
        // Some are for signing, and want more than is needed here.
        let own =
            path.with_file_name(format!("{}.own", path.file_name().unwrap_or_default().to_string_lossy()));
        if Program::new(path.clone(), &tools).libraries().is_ok() {
            fs::rename(&path, &own).map_err(file_error("name", &own))?;
            start(&Program::new(own, &tools), &path)?;
        }
    }
    let (cc, pahole) = (root.join("cc"), root.join("pahole"));
    write_program(&cc, CC)?;
    start(&Program::new(tools.join("usr/bin/pahole"), &tools), &pahole)?;
    Ok(vec![format!("CC={}", cc.display()), format!("PAHOLE={}", pahole.display())])
}

/// The programs below a folder that this machine's processor runs.
fn collect(dir: &Path, depth: usize, programs: &mut Vec<PathBuf>) -> Result<(), LabError> {
    for entry in fs::read_dir(dir).map_err(file_error("list", dir))?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().map_err(file_error("look at", entry.path()))?);
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, programs)?;
        } else if kind.is_file()
            && Program::new(path.clone(), "/").loader().is_ok_and(|loader| loader.is_some())
        {
            programs.push(path);
        }
    }
    Ok(())
}

/// False where its loader finds no libc that is new enough. It is asked as `ldd` asks it: the program does not run.
fn runs_here(program: &Path) -> bool {
    let out = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").env("LC_ALL", "C.UTF-8").output();
    out.is_ok_and(|out| {
        ![out.stdout, out.stderr].iter().any(|said| String::from_utf8_lossy(said).contains("`GLIBC_"))
    })
}

/// Makes `script`, which starts the program with its own loader and under the script's name: some look for others beside theirs.
fn start(program: &Program, script: &Path) -> Result<(), LabError> {
    let command = program.command()?;
    let mut words = vec![command.get_program().to_string_lossy().into_owned(), "--argv0 \"$0\"".to_owned()];
    words.extend(command.get_args().map(|arg| format!("'{}'", arg.to_string_lossy())));
    write_program(script, &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))
}

fn write_program(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(file_error("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(file_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the compiler's stand-in with a `gcc` that does not know one option.
    #[test]
    fn options_that_the_compiler_does_not_know_are_left_out_and_errors_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cc = dir.path().join("cc");
        write_program(&cc, CC).unwrap();
        let gcc = "#!/bin/sh\nfor arg; do case $arg in -fnew=*) echo \"gcc: error: unrecognized command-line option '$arg'\" >&2; \
                   exit 1 ;; -bad) echo 'a.c:1: error: bad' >&2; exit 4 ;; esac; done\nprintf '%s\\n' \"$@\"\n";
        write_program(&dir.path().join("gcc"), gcc).unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let run = |args: &[&str]| Command::new(&cc).args(args).env("PATH", &path).output().unwrap();
        let out = run(&["-c", "-fnew=16", "-DX=a b", "-e"]);
        assert!(out.status.success());
        assert_eq!(String::from_utf8_lossy(&out.stdout), "-c\n-DX=a b\n-e\n");
        let out = run(&["-fnew=16", "-bad"]);
        assert_eq!(out.status.code(), Some(4));
        assert_eq!(String::from_utf8_lossy(&out.stderr), "a.c:1: error: bad\n");
    }
}
