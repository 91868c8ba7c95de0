//! Packages: files of any size, compressed, cut into parts, listed with digests, and given back.
//!
//! A package is a folder with parts, `manifest.json` and `SHA256SUMS`; `docs/package.md` says every byte
//! of it. The parts one after the other are one zstd stream of one tar stream, so that the standard
//! tools alone give the files back: `cat CASE.part-* | zstd -dc | tar x`.
//!
//! | step | function |
//! |---|---|
//! | what would be packed, with sizes | [`plan`](plan()) → [`PackPlan`] |
//! | carry it out, or go on after a kill | [`pack`] |
//! | is every byte of a package right | [`verify`](verify()) |
//! | give the files back | [`unpack`](unpack()) |
//!
//! This module holds a few frames in memory and never a whole artifact, gives no file its final name
//! before its digest is right, and does not touch a source. It prints nothing.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod beneath;
mod compress;
mod damage;
mod digest;
mod error;
mod estimate;
mod journal;
mod kind;
mod layout;
mod manifest;
mod name;
mod package;
mod plan;
mod report;
mod run;
mod source;
mod stream;
mod unpack;
mod verify;

pub use digest::{Digest, Hasher, digest_file};
pub use error::PackError;
pub use estimate::{Estimate, estimate};
pub use kind::Kind;
pub use manifest::{Artifact, Hold, LeftOut, Manifest, Part, Tool};
pub use name::{ArtifactName, CaseId, shown, shown_path};
pub use package::{MANIFEST, Package, RECEIPT, SUMS};
pub use plan::{PackPlan, PackRequest, Planned, plan};
pub use report::read_artifact;
pub use run::{Packed, pack};
pub use unpack::{UnpackPlan, UnpackRequest, Unpacked, plan_unpack, unpack};
pub use verify::{Depth, Problem, Verdict, verify};
