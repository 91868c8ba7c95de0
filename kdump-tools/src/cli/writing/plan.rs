//! What a dump would be like at each level and in each codec: `kdt filter --plan`.

use std::fmt::Write as _;

use serde::Serialize;
use vmcore::filter::{Classes, Level};
use vmcore::format::Codec;
use vmcore::mem::{Dump, PhysicalMemory};
use vmcore::progress::Cancel;
use vmcore::report::Tool;
use vmcore::write::{self, Effort};

use crate::size::Size;

/// The document `kdt/plan/1`.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Plan {
    schema: &'static str,
    tool: Tool,
    path: String,
    page_size: u64,
    jobs: u64,
    classes: Vec<ClassPlan>,
    levels: Vec<LevelPlan>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ClassPlan {
    class: &'static str,
    pages: u64,
    bytes: u64,
    /// Pages that the estimates are made from, and how many of them are full of zeros.
    sampled: u64,
    sampled_zeros: u64,
}

#[derive(Debug, Serialize)]
struct LevelPlan {
    level: u8,
    pages: u64,
    bytes: u64,
    codecs: Vec<CodecPlan>,
}

#[derive(Debug, Serialize)]
struct CodecPlan {
    codec: &'static str,
    /// Estimated.
    bytes: u64,
    seconds: f64,
}

impl Plan {
    /// Looks at some pages of each class. `texts` is how many bytes of notes the dump gets.
    pub(in crate::cli) fn make(
        dump: &Dump,
        name: String,
        classes: &Classes,
        levels: &[Level],
        (jobs, texts): (usize, usize),
        cancel: &Cancel,
    ) -> Self {
        let page = dump.page_size();
        let samples = write::sample(dump, classes, &Codec::ALL, Effort::Fast, cancel);
        let bitmaps = dump.end_pfn().0.div_ceil(8).div_ceil(page) * page * 2;
        let fixed = bitmaps + 2 * page + u64::try_from(texts).unwrap_or(0).next_multiple_of(page);
        let levels = levels.iter().map(|level| {
            let kept = samples.iter().filter(|sample| !level.excludes(sample.class));
            let pages = kept.map(|sample| sample.pages).sum::<u64>();
            let codecs =
                write::at_level(&samples, *level, fixed, page).into_iter().map(|estimate| CodecPlan {
                    codec: estimate.codec.name(),
                    bytes: estimate.bytes,
                    seconds: estimate.time(jobs).as_secs_f64(),
                });
            LevelPlan { level: level.number(), pages, bytes: pages * page, codecs: codecs.collect() }
        });
        Self {
            schema: "kdt/plan/1",
            tool: crate::cli::tool(),
            path: name,
            page_size: page,
            jobs: u64::try_from(jobs).unwrap_or(1),
            levels: levels.collect(),
            classes: samples
                .iter()
                .map(|sample| ClassPlan {
                    class: sample.class.name(),
                    pages: sample.pages,
                    bytes: sample.pages * page,
                    sampled: sample.seen,
                    sampled_zeros: sample.zeros,
                })
                .collect(),
            notes: classes.notes.clone(),
        }
    }

    /// For a person.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text = format!("{:<14} {:>12} {:>12}\n", "class", "pages", "size");
        for class in &self.classes {
            let size = Size::from(class.bytes).to_string();
            let _ = writeln!(text, "{:<14} {:>12} {size:>12}", class.class, class.pages);
        }
        for level in &self.levels {
            let size = Size::from(level.bytes);
            let _ = writeln!(
                text,
                "level {:>2}: {} pages kept, {size} before compression",
                level.level, level.pages
            );
            for codec in &level.codecs {
                let size = Size::from(codec.bytes).to_string();
                let _ = writeln!(text, "  {:<8} about {size:>10}, {:.1} s", codec.codec, codec.seconds);
            }
        }
        let seen: u64 = self.classes.iter().map(|class| class.sampled).sum();
        let _ = writeln!(
            text,
            "Sizes and times are estimated from {seen} pages, {} threads; a disk that is slower than they are adds its own time.",
            self.jobs
        );
        text
    }
}
