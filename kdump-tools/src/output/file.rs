//! An answer that goes to a file (`-o F`): it gets its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::Failure;

/// Writes `text` to `path`: under a temporary name beside it, forced to disk, then renamed. What is not a regular
/// file (a FIFO, `/dev/stdout`) is written to as it is. A file that is among `sources` is never replaced.
///
/// # Errors
/// Wrong use where `path` is a source or a directory; otherwise what the operating system says.
pub fn write(path: &Path, text: &str, sources: &[&Path]) -> Result<(), Failure> {
    let failure = |error: &io::Error| Failure::io("write", path, error);
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            return Err(Failure::usage(
                format!("{} is a directory, and the report is one file", path.display()),
                "name a file with -o",
            ));
        }
        Ok(meta) if meta.is_file() => {
            if let Some(source) = sources.iter().find(|source| is_same_file(&meta, source)) {
                return Err(Failure::usage(
                    format!("-o names {}, which is an input: a source is never changed", source.display()),
                    "choose another name with -o",
                ));
            }
        }
        Ok(_) => {
            let mut special = File::options().write(true).open(path).map_err(|e| failure(&e))?;
            return match special.write_all(text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failure(&error)),
                _ => Ok(()),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failure(&error)),
    }
    replace(path, text.as_bytes()).map_err(|e| failure(&e))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".kdt-").suffix(".tmp").tempfile_in(dir)?;
    file.write_all(bytes)?;
    // A temporary file is readable by its owner alone, and so stays the report: it holds what the dump held.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

fn is_same_file(meta: &fs::Metadata, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(other).is_ok_and(|other| other.dev() == meta.dev() && other.ino() == meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_report_replaces_an_older_one_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        write(&path, "old", &[]).unwrap();
        write(&path, "new", &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_source_is_not_replaced_even_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (source, link) = (dir.path().join("vmcore"), dir.path().join("link"));
        fs::write(&source, "dump").unwrap();
        fs::hard_link(&source, &link).unwrap();
        let failure = write(&link, "report", &[&source]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(fs::read_to_string(&source).unwrap(), "dump");
    }

    #[test]
    fn a_directory_or_a_place_that_is_not_there_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            write(dir.path(), "x", &[])
                .unwrap_err()
                .message
                .ends_with("is a directory, and the report is one file")
        );
        let failure = write(&dir.path().join("no/where"), "x", &[]).unwrap_err();
        assert!(failure.message.ends_with("no/where: No such file or directory"), "{failure}");
    }
}
