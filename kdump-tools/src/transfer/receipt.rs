//! The receiver's word that a package arrived whole: `receipt.json`, schema `kdt/receipt/1`.

use serde::{Deserialize, Serialize};

use crate::pack::{CaseId, Digest, Manifest, Tool};

/// What the receiver confirms. It is written only after every part was read back and had its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// Always `kdt/receipt/1`.
    pub schema: String,
    /// The case.
    pub case: CaseId,
    /// The root digest of what arrived; it equals the one that the sender has.
    pub root_digest: Digest,
    /// How many parts arrived.
    pub parts: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// When, RFC 3339, UTC.
    pub received: String,
    /// Where to.
    pub at: String,
    /// What confirms it.
    pub tool: Tool,
}

impl Receipt {
    /// A receipt for all that the manifest lists.
    pub(super) fn new(manifest: &Manifest, at: String) -> Self {
        let now = jiff::Timestamp::now();
        Self {
            schema: "kdt/receipt/1".into(),
            case: manifest.case.clone(),
            root_digest: manifest.root_digest,
            parts: manifest.parts.len(),
            bytes: manifest.parts.iter().fold(0, |sum, part| sum.saturating_add(part.size)),
            received: now.round(jiff::Unit::Second).unwrap_or(now).to_string(),
            at,
            tool: Tool::this(),
        }
    }
}
