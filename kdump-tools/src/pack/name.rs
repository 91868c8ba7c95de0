//! The names in a package: the case, and the artifacts. Both end up as file names on another machine.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Longest name of an artifact, folders included. Linux takes no longer path in one call.
const NAME_BYTES: usize = 4095;
/// Longest name of one file or folder in it. Linux file systems take no longer one.
const COMPONENT_BYTES: usize = 255;

/// The name of a case: the start of each part's file name, so it is held to letters that every file
/// system and every upload form takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CaseId(String);

impl CaseId {
    /// Takes letters, digits, `.`, `_` and `-`, at most 64 of them; the first is a letter or digit.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let fits = text.len() <= 64
            && first.is_ascii_alphanumeric()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// A case named after a folder, where nobody gave a better name: what does not fit becomes `-`.
    #[must_use]
    pub fn from_folder(folder: &Path) -> Self {
        let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let fitting = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let text: String = name.chars().map(fitting).take(64).collect();
        let text = text.trim_start_matches(['.', '_', '-']);
        Self::new(text).unwrap_or_else(|| Self("evidence".into()))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What part `number` of `of` is called.
    #[must_use]
    pub fn part_name(&self, number: usize, of: usize) -> String {
        format!("{self}.part-{number:04}-of-{of:04}")
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CaseId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
            .ok_or("a case is at most 64 letters, digits, '.', '_' and '-', the first a letter or digit")
    }
}

impl From<CaseId> for String {
    fn from(case: CaseId) -> Self {
        case.0
    }
}

/// The name of an artifact in a package: a relative path of any bytes that a file name can have, which
/// leads nowhere but down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactName(Vec<u8>);

impl ArtifactName {
    /// Takes the name, or says what is wrong with it.
    ///
    /// # Errors
    /// The reason, to stand after «the name … »: it is empty, absolute, has `..` in it, is too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("is empty");
        }
        if bytes.first() == Some(&b'/') {
            return Err("starts at the root of the file system");
        }
        if bytes.len() > NAME_BYTES {
            return Err("is longer than 4095 bytes");
        }
        if bytes.contains(&0) {
            return Err("has a NUL byte in it");
        }
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" => return Err("has an empty folder name in it"),
                b"." => return Err("has '.' for a folder name in it"),
                b".." => return Err("has '..' in it, which leads out of the folder"),
                long if long.len() > COMPONENT_BYTES => {
                    return Err("has a file or folder name longer than 255 bytes in it");
                }
                _ => {}
            }
        }
        Ok(Self(bytes))
    }

    /// The name of the file at `path` with `folders` of the folders above it.
    #[must_use]
    pub fn of_path(path: &Path, folders: usize) -> Option<Self> {
        let named = |component: Component<'_>| match component {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        };
        let mut components: Vec<Vec<u8>> =
            path.components().rev().filter_map(named).take(folders.saturating_add(1)).collect();
        components.reverse();
        Self::new(components.join(&b'/')).ok()
    }

    /// The bytes of the name, `/` between folders.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a relative path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The name of the file itself, without folders.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The names of the folders above it, outermost first.
    pub fn folders(&self) -> impl Iterator<Item = &[u8]> {
        let folders = self.0.len().saturating_sub(self.file_name().len().saturating_add(1));
        self.0.get(..folders).unwrap_or_default().split(|b| *b == b'/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// A file name as it may be shown to a person: whatever steers a terminal is written as `\x1b`.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Besides the control characters, the marks that turn the direction of writing.
            if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A path as it may be shown to a person.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused_with_the_reason() {
        let why = |name: &[u8]| ArtifactName::new(name.to_vec()).unwrap_err();
        assert_eq!(why(b""), "is empty");
        assert_eq!(why(b"/etc/passwd"), "starts at the root of the file system");
        assert_eq!(why(b"../x"), "has '..' in it, which leads out of the folder");
        assert_eq!(why(b"a/../../x"), "has '..' in it, which leads out of the folder");
        assert_eq!(why(b"a//b"), "has an empty folder name in it");
        assert_eq!(why(b"a/"), "has an empty folder name in it");
        assert_eq!(why(b"./a"), "has '.' for a folder name in it");
        assert_eq!(why(b"a\0b"), "has a NUL byte in it");
        assert_eq!(why(&[b'a'; 256]), "has a file or folder name longer than 255 bytes in it");
        assert_eq!(why(&b"a/".repeat(2048)), "is longer than 4095 bytes");
    }

    #[test]
    fn odd_names_are_taken_as_they_are() {
        for name in [&b"vmcore"[..], b"a b", b"line\nbreak", b"\xff\xfe", b"...", b"-rf", b"a/b/c"] {
            assert_eq!(ArtifactName::new(name.to_vec()).unwrap().as_bytes(), name);
        }
        let deep = ArtifactName::new(b"a/b/c".to_vec()).unwrap();
        assert_eq!(deep.file_name(), b"c");
        assert_eq!(deep.folders().collect::<Vec<_>>(), [b"a", b"b"]);
        let flat = ArtifactName::new(b"c".to_vec()).unwrap();
        assert_eq!(flat.folders().count(), 0);
    }

    #[test]
    fn names_can_not_steer_the_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\xff\n\xc3\xa9"), "a\\u{1b}[2Jb\\xff\\né");
    }

    #[test]
    fn case_names_are_what_every_upload_form_takes() {
        for good in ["02345678", "TS-1.2_x", "a"] {
            assert!(CaseId::new(good).is_some(), "{good}");
        }
        for bad in ["", "a/b", "..", ".a", "-a", "a b", "é", &"x".repeat(65)] {
            assert!(CaseId::new(bad).is_none(), "{bad}");
        }
        assert_eq!(CaseId::from_folder(Path::new("/tmp/my case")).as_str(), "my-case");
        assert_eq!(CaseId::from_folder(Path::new("/")).as_str(), "evidence");
        assert_eq!(CaseId::new("c").unwrap().part_name(1, 7), "c.part-0001-of-0007");
    }
}
