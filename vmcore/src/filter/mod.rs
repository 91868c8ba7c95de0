//! Which pages of a dump are worth keeping: what each page was used for, in the dumped kernel's own words.
//!
//! [`classify`] looks at every `struct page` once and gives a [`Classes`]: the frames to keep at a [`Level`], and how many pages
//! each [`Class`] has. A page whose use can't be told with certainty is kept, and counted. Nothing here writes a dump.

mod class;
mod left_out;
mod level;
mod pages;
mod rules;
mod samples;
mod sections;
mod selection;

pub use class::{Class, Counts};
pub use left_out::{LeftOut, left_out};
pub use level::Level;
pub use pages::{Classes, FilterError, classify, frames};
pub use rules::Rules;
pub use samples::Samples;
pub use selection::Selection;
