//! Whether the pages of a dump decode, for a person.

use std::fmt::Write as _;

use vmcore::report::{CanaryHit, CanarySearch, Check, CheckVerdict, PageFault, PageRun};

use super::color::{Painter, Style};
use super::dump;
use super::escape::escape;
use super::human;
use super::table::Facts;
use crate::size::Size;

/// Runs of bad pages that are shown; the document has more.
const SHOWN: usize = 20;

/// The verdict, the counts, and the bad pages.
#[must_use]
pub fn text(check: &Check, width: usize, painter: Painter) -> String {
    let mut facts = Facts::new();
    let page_size = check.dump.page_size.unwrap_or(0);
    let words = |n: u64, what: &str| (n > 0).then(|| format!("{} {what}", human::pages(n, page_size)));
    facts.row("file", escape(&check.dump.path));
    facts.row("format", dump::format_words(&check.dump));
    facts.row("verdict", verdict(check.verdict, painter));
    let pages = &check.pages;
    facts.row("decoded", human::pages(pages.decoded, page_size));
    for codec in &check.codecs {
        let stored = Size::from(codec.stored_bytes);
        let mut text = format!("{} {} from {stored}", human::count(codec.decoded), escape(&codec.codec));
        if codec.corrupt > 0 {
            let _ = write!(text, ", {} corrupt", human::count(codec.corrupt));
        }
        facts.row("stored as", text);
    }
    facts.maybe("corrupt", words(pages.corrupt, "do not decode"));
    facts.maybe("unreadable", words(pages.unreadable, "can't be read from the disk"));
    facts.maybe("lost", words(pages.lost, "were cut off"));
    facts.maybe("left out", words(pages.excluded, "on purpose"));
    facts.row("complete", dump::missing_words(&check.dump.completeness, page_size));
    for repair in &check.dump.completeness.repairs {
        facts.row("repaired", escape(repair));
    }
    let shown = check.bad.first.iter().take(SHOWN);
    shown.for_each(|run| facts.row("bad", run_words(run)));
    let shown = u64::try_from(check.bad.first.len().min(SHOWN)).unwrap_or(u64::MAX);
    if check.bad.runs > shown
        && let Some(last) = &check.bad.last
    {
        let between = check.bad.runs.saturating_sub(shown).saturating_sub(1);
        if between > 0 {
            facts.row("bad", format!("{} more, and as the last:", human::count(between)));
        }
        facts.row("bad", run_words(last));
    }
    if let Some(digest) = &check.digest {
        facts.row("digest", format!("{} of {}", digest.sha256, human::pages(digest.pages, page_size)));
    }
    if let Some(search) = &check.canaries {
        facts.row("canaries", canaries(search, check.pages.lost, page_size, painter));
        facts.maybe(
            "found",
            (search.in_headers > 0)
                .then(|| format!("{} in names and notes of the header", search.in_headers)),
        );
        if let Some((why, more)) = search.borders_lost.split_first() {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            facts.row(
                "not looked",
                format!("across all borders of pages in virtual memory: {}{more}", escape(why)),
            );
        }
        for hit in search.hits.iter().take(SHOWN) {
            let CanaryHit { canary, pfn, offset } = hit;
            facts.row(
                "found",
                format!("canary {} at pfn {pfn:#x}, offset {offset:#x}", canary.saturating_add(1)),
            );
        }
    }
    facts.render(width, painter)
}

fn canaries(search: &CanarySearch, lost: u64, page_size: u64, painter: Painter) -> String {
    let looked = format!(
        "{} looked for in {} and across {} of them in virtual memory",
        search.canaries,
        human::pages(search.pages, page_size),
        human::plural(usize::try_from(search.borders).unwrap_or(usize::MAX), "border"),
    );
    let result = if search.count > 0 {
        painter.paint(Style::Bad, &format!("FOUND {} times", human::count(search.count)))
    } else if search.unreadable > 0 || lost > 0 {
        painter.paint(Style::Warn, "not found, but not all pages can be read")
    } else {
        painter.paint(Style::Good, "none is there")
    };
    format!("{result}: {looked}")
}

fn verdict(verdict: CheckVerdict, painter: Painter) -> String {
    match verdict {
        CheckVerdict::Clean => painter.paint(Style::Good, "clean: every page decodes"),
        CheckVerdict::Incomplete => {
            painter.paint(Style::Warn, "INCOMPLETE: what is there decodes, and something is not there")
        }
        CheckVerdict::Corrupt => painter.paint(Style::Bad, "CORRUPT: pages that are stored do not decode"),
        CheckVerdict::Unusable => painter.paint(Style::Bad, "not usable"),
    }
    .clone()
}

/// `pfn 0x10 at file offset 0x2000, corrupt (zlib): the zlib stream ends too early`.
fn run_words(run: &PageRun) -> String {
    let mut text = if run.pages == 1 && run.first_pfn == run.last_pfn {
        format!("pfn {:#x}", run.first_pfn)
    } else {
        format!("{} pages from pfn {:#x} to {:#x}", human::count(run.pages), run.first_pfn, run.last_pfn)
    };
    if let Some(at) = run.file_offset {
        let _ = write!(text, ", {}file offset {at:#x}", if run.pages == 1 { "" } else { "the first at " });
    }
    let _ = write!(text, ", {}", run.fault.word());
    if let Some(codec) = run.codec.as_deref().filter(|_| run.fault == PageFault::Corrupt) {
        let _ = write!(text, " ({})", escape(codec));
    }
    let _ = write!(text, ": {}", escape(&run.why));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_page_is_told_in_one_line() {
        let run = PageRun {
            first_pfn: 16,
            last_pfn: 16,
            pages: 1,
            fault: PageFault::Corrupt,
            codec: Some("zlib".into()),
            file_offset: Some(0x2000),
            why: "the zlib stream\x1b ends too early".into(),
        };
        assert_eq!(
            run_words(&run),
            "pfn 0x10, file offset 0x2000, corrupt (zlib): the zlib stream\\x1b ends too early"
        );
        let many = PageRun { last_pfn: 20, pages: 3, ..run };
        assert_eq!(
            run_words(&many),
            "3 pages from pfn 0x10 to 0x14, the first at file offset 0x2000, corrupt (zlib): \
             the zlib stream\\x1b ends too early"
        );
    }
}
