//! Stub.
use super::parts::{Clock, Context, Part};
pub(super) fn run(_context: &Context<'_>, _clock: &Clock) -> Part {
    Part::default()
}
