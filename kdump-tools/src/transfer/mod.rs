//! Brings a package elsewhere, part by part, and gets a receipt for it.
//!
//! A part is the unit: it is copied under a temporary name, read back, and named when its digest is right.
//! The manifest comes last, so that a folder with one is whole. What broke off is gone on with: parts that are
//! there are not copied again. This module prints nothing and never touches the package that it sends.

mod local;
mod receipt;

pub use local::{SendPlan, Sent, plan_send, send};
pub use receipt::Receipt;

use std::path::PathBuf;

use crate::pack::{PackError, shown};

/// Where a package can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// A folder that this machine sees: a disk, a network mount, a stick.
    Folder(PathBuf),
}

impl Destination {
    /// Understands `file:///folder`, `file:folder` and a plain path.
    ///
    /// # Errors
    /// Wrong use: the URL is of another kind, or names another machine.
    pub fn parse(text: &str) -> Result<Self, PackError> {
        let wrong = |what: String| PackError::WrongUse {
            what,
            hint: "name a folder, as file:///mnt/case or /mnt/case".into(),
        };
        let scheme = text.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        let is_scheme = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let rest = match &scheme {
            Some((scheme, rest)) if scheme == "file" => rest,
            // One letter is no scheme, and neither is what has a slash before its colon.
            Some((scheme, _)) if scheme.len() > 1 && is_scheme(scheme) => {
                return Err(wrong(format!(
                    "this kdt sends to folders only, and not by {}",
                    shown(scheme.as_bytes())
                )));
            }
            _ if text.is_empty() => return Err(wrong("the destination is empty".into())),
            _ => return Ok(Self::Folder(text.into())),
        };
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(rest) if rest.starts_with('/') => rest,
            Some(rest) => {
                rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).ok_or_else(|| {
                    let host = rest.split('/').next().unwrap_or_default();
                    wrong(format!(
                        "{} is another machine, which a file URL can't name",
                        shown(host.as_bytes())
                    ))
                })?
            }
        };
        let path = decoded(path).filter(|path| !path.is_empty() && !path.contains(&0));
        let path = path.ok_or_else(|| wrong("the destination names no folder".into()))?;
        Ok(Self::Folder(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(
            path,
        ))))
    }
}

/// Resolves `%20` and its like.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    bytes.extend(pieces.next()?.bytes());
    for piece in pieces {
        bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        bytes.extend(piece.get(2..)?.bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_understood_in_all_their_forms() {
        for (text, folder) in [
            ("/mnt/case", "/mnt/case"),
            ("case", "case"),
            ("./a:b", "./a:b"),
            ("file:/mnt/case", "/mnt/case"),
            ("file:case", "case"),
            ("file:///mnt/my%20case", "/mnt/my case"),
            ("FILE://localhost/mnt", "/mnt"),
        ] {
            assert_eq!(Destination::parse(text).unwrap(), Destination::Folder(folder.into()), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_sent_to_is_told() {
        for (text, why) in [
            ("sftp://host/dir", "this kdt sends to folders only, and not by sftp"),
            ("S3://bucket", "this kdt sends to folders only, and not by s3"),
            ("https://host", "this kdt sends to folders only, and not by https"),
            ("file://server/share", "server is another machine, which a file URL can't name"),
            ("file:", "the destination names no folder"),
            ("file:///a%zz", "the destination names no folder"),
            ("", "the destination is empty"),
        ] {
            let error = Destination::parse(text).unwrap_err();
            assert_eq!(error.to_string(), why, "{text}");
            assert_eq!(error.exit().code(), 2);
        }
    }
}
