//! Call traces in words: on a few lines for an overview, one frame a line for who reads on.

use std::fmt::Write as _;

use vmcore::report::Frame;

use super::super::escape::escape;

/// `schedule [module]`.
fn name(frame: &Frame) -> Option<String> {
    let symbol = frame.symbol.as_deref()?;
    let module = frame.module.as_deref().map(|module| format!(" [{}]", escape(module))).unwrap_or_default();
    Some(format!("{}{module}", escape(symbol)))
}

/// How a task gives up its CPU: the same for all, and no answer to where it waits.
const SCHEDULER: [&str; 3] = ["__schedule", "schedule", "schedule_preempt_disabled"];

/// `a < b < c`, innermost first: what was found for certain, and no more than `most` of it. The scheduler's own frames at
/// the top are left out, where there are others.
pub(super) fn chain(frames: &[Frame], most: usize) -> Option<String> {
    let scheduler = |frame: &Frame| frame.symbol.as_deref().is_some_and(|name| SCHEDULER.contains(&name));
    let inner = frames.iter().take_while(|frame| scheduler(frame)).count();
    let frames = frames.get(inner..).filter(|rest| !rest.is_empty()).unwrap_or(frames);
    let mut names = frames.iter().filter(|frame| frame.sure).filter_map(name);
    let shown: Vec<String> = names.by_ref().take(most).collect();
    if shown.is_empty() {
        return None;
    }
    let more = if names.next().is_some() { " < …" } else { "" };
    Some(format!("{}{more}", shown.join(" < ")))
}

/// One frame a line, numbered. Marks: `?` for a frame that is a guess or hangs on one, `==` where another stack begins.
pub(super) fn lines(frames: &[Frame], end: Option<&str>) -> String {
    let mut out = String::new();
    let mut stack = None;
    for (number, frame) in frames.iter().enumerate() {
        if frame.stack.is_some() && frame.stack != stack {
            if let Some(name) = frame.stack.as_deref().filter(|name| stack.is_some() || *name != "task") {
                let _ = writeln!(out, "     == on the {} stack", escape(name));
            }
            stack.clone_from(&frame.stack);
        }
        let _ = writeln!(out, "  {number:>3} {}", line(frame));
    }
    if let Some(end) = end {
        let _ = writeln!(out, "      ends here: {}", escape(end));
    }
    out
}

fn line(frame: &Frame) -> String {
    let mark = if frame.sure { "" } else { "? " };
    let place = match (name(frame), frame.pc) {
        (Some(name), _) => {
            let offset = frame.offset.filter(|_| !frame.inlined);
            let symbol = frame.symbol.as_deref().map(|s| escape(s).into_owned()).unwrap_or_default();
            let module = name.get(symbol.len()..).unwrap_or_default();
            let offset = offset.map(|offset| format!("+{offset:#x}")).unwrap_or_default();
            format!("{symbol}{offset}{module}")
        }
        (None, Some(pc)) => format!("{:#018x}", pc.0),
        (None, None) => "?".to_owned(),
    };
    let source = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("  {}:{line}", escape(file)),
        (Some(file), None) => format!("  {}", escape(file)),
        _ => String::new(),
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let hit = if frame.interrupted { "  <- interrupted here" } else { "" };
    format!("{mark}{place}{inlined}{source}{hit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::report::{Address, FrameTrust};

    fn frame(symbol: &str, trust: FrameTrust) -> Frame {
        Frame {
            pc: Some(Address(0xffff_ffff_8100_0010)),
            symbol: (!symbol.is_empty()).then(|| symbol.to_owned()),
            offset: Some(0x10),
            module: None,
            trust,
            sure: trust != FrameTrust::Scan,
            sp: None,
            file: None,
            line: None,
            inlined: false,
            stack: Some("task".into()),
            interrupted: false,
        }
    }

    #[test]
    fn an_overview_has_no_guesses_and_says_when_it_is_cut() {
        let frames = [
            ("a", FrameTrust::Regs),
            ("b", FrameTrust::Scan),
            ("c", FrameTrust::Orc),
            ("d", FrameTrust::Orc),
        ]
        .map(|(name, trust)| frame(name, trust));
        assert_eq!(chain(&frames, 9).as_deref(), Some("a < c < d"));
        assert_eq!(chain(&frames, 2).as_deref(), Some("a < c < …"));
        assert_eq!(chain(&frames[1..2], 2), None);
    }

    #[test]
    fn each_line_says_how_sure_it_is_and_where() {
        let mut frames =
            [frame("hit", FrameTrust::Regs), frame("seen", FrameTrust::Scan), frame("", FrameTrust::Orc)];
        frames[0].stack = Some("irq".into());
        frames[0].interrupted = true;
        frames[1].module = Some("virtio".into());
        frames[1].file = Some("drivers/x.c".into());
        frames[1].line = Some(12);
        assert_eq!(
            lines(&frames, Some("the page at 0x10 was left out")),
            "     == on the irq stack\n    0 hit+0x10  <- interrupted here\n     == on the task stack\n    1 ? seen+0x10 [virtio]  drivers/x.c:12\n    2 0xffffffff81000010\n      ends here: the page at 0x10 was left out\n"
        );
    }
}
