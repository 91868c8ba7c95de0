//! A dump and its kernel in words: what `kdt info` and `kdt triage` both say.

use std::fmt::Write as _;

use vmcore::report::{Completeness, DumpInfo, KernelInfo, Taint, TaintFlag};

/// Modules that are named for a taint.
const TAINTING: usize = 4;

use super::escape::escape;
use super::human;
use super::table::Facts;
use crate::size::Size;

/// The lines about the file.
pub fn file(facts: &mut Facts, dump: &DumpInfo) {
    facts.row("file", escape(&dump.path));
    facts.row("format", format_words(dump));
    if let Some(level) = dump.dump_level {
        facts.row("dump level", human::dump_level(level));
    }
    completeness(facts, &dump.completeness, dump.page_size.unwrap_or(0));
}

/// `kdump-compressed in a flattened stream, lzo pages, x86_64, 21.3 MiB`.
#[must_use]
pub fn format_words(dump: &DumpInfo) -> String {
    let mut parts = vec![
        dump.format.as_deref().map_or_else(|| "no memory dump".into(), |name| escape(name).into_owned()),
    ];
    // The innermost container is the format itself.
    let around = dump.container.split_last().map_or(&[][..], |(_, around)| around);
    for container in around.iter().rev() {
        let words = match container.as_str() {
            "flattened" => "in a flattened stream".to_owned(),
            "split" => "in a split set".to_owned(),
            other => format!("in {}", escape(other)),
        };
        parts.push(words);
    }
    let mut words = vec![parts.join(" ")];
    if !dump.codec.is_empty() {
        words.push(format!("{} pages", escape(&dump.codec.join("+"))));
    }
    words.extend(dump.arch.as_deref().map(|arch| escape(arch).into_owned()));
    words.extend(
        dump.page_size.filter(|size| *size != 4096).map(|size| format!("pages of {}", Size::from(size))),
    );
    words.extend(dump.size_bytes.map(|bytes| Size::from(bytes).to_string()));
    words.extend(dump.made.as_deref().map(|made| escape(made).into_owned()));
    words.join(", ")
}

/// What is in the file and what is not, the five kinds apart.
pub fn completeness(facts: &mut Facts, state: &Completeness, page_size: u64) {
    let pages = |n: u64| human::pages(n, page_size);
    if let (Some(announced), Some(present)) = (state.announced_pages, state.present_pages) {
        let mut text = format!("{} of {} are in the file", human::count(present), pages(announced));
        if let Some(excluded) = state.excluded_pages.filter(|n| *n > 0) {
            let _ = write!(text, "; {} left out on purpose", human::count(excluded));
        }
        facts.row("memory", text);
    }
    facts.row("complete", missing_words(state, page_size));
    for repair in &state.repairs {
        facts.row("repaired", escape(repair));
    }
}

/// What is lost and corrupt, or that nothing is.
#[must_use]
pub fn missing_words(state: &Completeness, page_size: u64) -> String {
    let mut missing = Vec::new();
    if let Some(lost) = state.lost_pages.filter(|n| *n > 0) {
        missing.push(format!("{} lost", human::pages(lost, page_size)));
    }
    if let Some(at) = state.truncated_at {
        missing.push(format!("cut off at {at} bytes (file offset {at:#x})"));
    }
    if let Some(corrupt) = state.corrupt_pages.filter(|n| *n > 0) {
        missing.push(format!("{} corrupt", human::pages(corrupt, page_size)));
    }
    if let Some(misplaced) = state.misplaced_pages.filter(|n| *n > 0) {
        missing.push(format!("{} can be those of other frames", human::pages(misplaced, page_size)));
    }
    if state.incomplete_flag == Some(true) {
        missing.push("its writer marked it as incomplete".into());
    }
    if !missing.is_empty() {
        return format!("NO: {}", missing.join("; "));
    }
    if state.announced_pages.is_none() {
        return "not known".into();
    }
    "yes: all that it announces is there".into()
}

/// The file in as few lines as a screen with more on it affords.
pub fn file_in_short(facts: &mut Facts, dump: &DumpInfo) {
    facts.row("dump", format!("{}: {}", escape(&dump.path), format_words(dump)));
    let state = &dump.completeness;
    let mut words = Vec::new();
    words.extend(dump.dump_level.map(|level| format!("level {level}")));
    if let (Some(announced), Some(present)) = (state.announced_pages, state.present_pages) {
        words.push(format!("{} of {} pages present", human::count(present), human::count(announced)));
    }
    words.extend(
        state.excluded_pages.filter(|n| *n > 0).map(|n| format!("{} left out on purpose", human::count(n))),
    );
    facts.row("pages", words.join(", "));
    facts.row("complete", missing_words(state, dump.page_size.unwrap_or(0)));
    for repair in &state.repairs {
        facts.row("repaired", escape(repair));
    }
}

/// The kernel in as few lines as a screen with more on it affords.
pub fn kernel_in_short(facts: &mut Facts, kernel: &KernelInfo) {
    facts.row("kernel", who(kernel));
    facts.maybe("version", kernel.version.as_deref().map(escape));
    facts.maybe("cmdline", kernel.cmdline.as_deref().map(escape));
    let tainted = kernel.taint.as_ref().map(|taint| match taint.letters.as_str() {
        "" => "not tainted".to_owned(),
        letters => format!("tainted {}", escape(letters)),
    });
    let when: Vec<String> = when(kernel).into_iter().chain(tainted).collect();
    if let Some(taint) = &kernel.taint {
        facts.maybe("taint", taint_words(taint));
    }
    facts.maybe("time", (!when.is_empty()).then(|| when.join(", ")));
}

/// `O out-of-tree module (lab_fail); E …`.
fn taint_words(taint: &Taint) -> Option<String> {
    let words = |flag: &TaintFlag| {
        let names: Vec<_> = flag.modules.iter().take(TAINTING).map(|name| escape(name)).collect();
        let more = if flag.modules.len() > TAINTING { ", …" } else { "" };
        let names = if names.is_empty() { String::new() } else { format!(" ({}{more})", names.join(", ")) };
        format!("{} {}{names}", escape(&flag.letter), escape(&flag.meaning))
    };
    (!taint.flags.is_empty()).then(|| taint.flags.iter().map(words).collect::<Vec<_>>().join("; "))
}

/// `crashed 2026-11-22 06:17:02 UTC`, `up 13.3 s`.
fn when(kernel: &KernelInfo) -> Vec<String> {
    let crashed = kernel.crash_time.and_then(human::utc).map(|time| format!("crashed {time}"));
    crashed.into_iter().chain(kernel.uptime_s.map(|s| format!("up {}", human::duration(s)))).collect()
}

/// `6.1.0-56-cloud-amd64 on host7 (x86_64, 2 CPUs, 255.5 MiB of RAM)`.
#[must_use]
pub fn who(kernel: &KernelInfo) -> String {
    let mut who =
        kernel.release.as_deref().map_or_else(|| "release not known".into(), |r| escape(r).into_owned());
    if let Some(node) = kernel.nodename.as_deref() {
        who.push_str(" on ");
        who.push_str(&escape(node));
    }
    let mut machine = Vec::new();
    machine.extend(kernel.arch.as_deref().map(|arch| escape(arch).into_owned()));
    machine.extend(kernel.cpus.map(|n| human::plural(usize::try_from(n).unwrap_or(usize::MAX), "CPU")));
    machine.extend(kernel.memory_bytes.map(|bytes| format!("{} of RAM", Size::from(bytes))));
    if !machine.is_empty() {
        let _ = write!(who, " ({})", machine.join(", "));
    }
    who
}

/// The lines about the kernel.
pub fn kernel(facts: &mut Facts, kernel: &KernelInfo) {
    facts.row("kernel", who(kernel));
    facts.maybe("version", kernel.version.as_deref().map(escape));
    facts.maybe("command line", kernel.cmdline.as_deref().map(escape));
    let when = when(kernel);
    facts.maybe("time", (!when.is_empty()).then(|| when.join(", ")));
    facts.maybe(
        "KASLR",
        kernel.kaslr_offset.map(|offset| match offset.0 {
            0 => "off (offset 0x0)".to_owned(),
            _ => format!("offset {offset}"),
        }),
    );
    facts.maybe("build id", kernel.build_id.as_deref().map(escape));
    facts.maybe(
        "tainted",
        kernel.taint.as_ref().map(|taint| match taint.letters.as_str() {
            "" => "no".to_owned(),
            letters => escape(letters).into_owned(),
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_dump_is_called_whole_only_when_that_is_known() {
        let mut state = Completeness::default();
        assert_eq!(missing_words(&state, 4096), "not known");
        state.announced_pages = Some(10);
        assert_eq!(missing_words(&state, 4096), "yes: all that it announces is there");
    }

    #[test]
    fn each_kind_of_loss_has_its_own_words() {
        let state = Completeness {
            announced_pages: Some(1000),
            lost_pages: Some(256),
            corrupt_pages: Some(1),
            misplaced_pages: Some(2),
            incomplete_flag: Some(true),
            truncated_at: Some(0x1000),
            ..Completeness::default()
        };
        assert_eq!(
            missing_words(&state, 4096),
            "NO: 256 pages (1 MiB) lost; cut off at 4096 bytes (file offset 0x1000); 1 page (4 KiB) corrupt; \
             2 pages (8 KiB) can be those of other frames; its writer marked it as incomplete"
        );
    }

    #[test]
    fn a_format_is_told_from_the_inside_out() {
        let dump = DumpInfo {
            format: Some("kdump-compressed".into()),
            container: vec!["split".into(), "flattened".into(), "kdump".into()],
            codec: vec!["lzo".into()],
            arch: Some("x86_64".into()),
            page_size: Some(4096),
            size_bytes: Some(3 << 20),
            ..DumpInfo::default()
        };
        assert_eq!(
            format_words(&dump),
            "kdump-compressed in a flattened stream in a split set, lzo pages, x86_64, 3 MiB"
        );
    }
}
