//! What makes two crashes the same.

use serde::{Deserialize, Serialize};

use super::Confidence;

/// The version of the rules by which signatures are made. Only those of one version can be compared.
pub const SIGNATURE_VERSION: u32 = 1;

/// What is left of a crash when all is taken away that differs from one time to the next: addresses, offsets, tasks, and what the
/// compiler appends to names. `docs/signature.md` has the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The version of the rules.
    pub version: u32,
    /// As `panic.kind`; `hang` where tasks that wait are what matters, however the dump was taken.
    pub kind: String,
    /// The module of the innermost frame; `null` for the kernel itself.
    pub module: Option<String>,
    /// The functions that matter, innermost first.
    pub frames: Vec<String>,
    /// What besides the functions tells this crash from others: of memory that ran out, what held it. `null` for most.
    pub about: Option<String>,
    /// A digest of all of the above, in hexadecimal.
    pub hash: String,
    /// `certain` where the stack was unwound, `likely` where its frames are those that the kernel printed or are not all sure, `hint`
    /// where no stack tells this crash from others of its kind: then the same hash says little.
    pub confidence: Confidence,
}
