//! Source lines for the backtraces of a report, and the functions that were inlined there: what only debuginfo tells.

use std::sync::Arc;

use crate::addr::KVirtAddr;
use crate::kernel::describe::Description;
use crate::report::{Address, Frame, FrameTrust, Report};
use crate::sym::dwarf::{Debuginfo, Lines, place_module};
use crate::sym::find::{Finder, Wanted};
use crate::sym::modules::ModuleSymbols;

/// Fills in file and line of every frame that debuginfo knows, and puts the inlined functions before the frame that they are part of. Frames
/// without an address (a log has none) are placed by their symbol.
///
/// The kernel's file is the description's; those of modules are asked from the finder, for the modules that have frames.
pub fn fill(
    report: &mut Report,
    description: &Description,
    finder: Option<&dyn Finder>,
    release: Option<&str>,
) {
    let pcs: Vec<KVirtAddr> =
        backtraces(report).flat_map(|b| b.iter()).filter_map(|f| at(f, description)).collect();
    let placed = finder.map(|finder| modules(&pcs, description, finder, release)).unwrap_or_default();
    let mut lines = Lines::new();
    if let Some((file, agreement)) = &description.debuginfo
        && let Err(why) = lines.add_kernel(file, agreement.slide)
    {
        report.skip("source lines", why.to_string());
    }
    for (file, module) in &placed {
        if let Err(why) = lines.add_module(file, module.ranges()) {
            report.skip(format!("source lines of {}", module.name()), why.to_string());
        }
    }
    if lines.is_empty() {
        return;
    }
    lines.prepare(pcs);
    for backtrace in backtraces(report) {
        let frames = std::mem::take(backtrace);
        *backtrace = frames.into_iter().flat_map(|frame| with_lines(frame, description, &lines)).collect();
    }
}

fn backtraces(report: &mut Report) -> impl Iterator<Item = &mut Vec<Frame>> {
    let panic = report.panic.iter_mut().map(|panic| &mut panic.backtrace);
    let cpus = report.cpus.iter_mut().map(|cpu| &mut cpu.backtrace);
    let tasks = report.tasks.iter_mut().map(|task| &mut task.backtrace);
    panic.chain(cpus).chain(tasks)
}

/// The address whose line is meant: of a call, the last byte of the call and not what comes after it.
fn at(frame: &Frame, description: &Description) -> Option<KVirtAddr> {
    let by_symbol = || {
        let all = description.symbols.all(frame.symbol.as_deref()?);
        let own: Vec<_> = all.iter().filter(|s| s.module.as_deref() == frame.module.as_deref()).collect();
        // A name that is there twice tells no address.
        let [one] = own.as_slice() else { return None };
        one.address.checked_add(frame.offset?)
    };
    let pc = frame.pc.map(|Address(pc)| KVirtAddr(pc)).or_else(by_symbol)?;
    let exact = frame.interrupted || frame.trust == FrameTrust::Regs;
    if exact { Some(pc) } else { pc.0.checked_sub(1).map(KVirtAddr) }
}

/// The debuginfo of the modules that these addresses are in, moved to where they were loaded.
fn modules<'d>(
    pcs: &[KVirtAddr],
    description: &'d Description,
    finder: &dyn Finder,
    release: Option<&str>,
) -> Vec<(Arc<Debuginfo>, &'d ModuleSymbols)> {
    let mut names: Vec<&str> =
        pcs.iter().filter_map(|pc| description.symbols.module_at(*pc)).map(|name| &**name).collect();
    names.sort_unstable();
    names.dedup();
    let find = |name: &&str| {
        let module = description.symbols.modules().iter().find(|m| &**m.name() == *name)?;
        let wanted = Wanted { build_id: None, release, module: Some(name) };
        let file = finder.find(&wanted).ok().flatten()?;
        place_module(&file, module).ok()?;
        Some((file, module))
    };
    names.iter().filter_map(find).collect()
}

fn with_lines(mut frame: Frame, description: &Description, lines: &Lines<'_>) -> Vec<Frame> {
    let found = at(&frame, description).map(|pc| lines.frames(pc)).unwrap_or_default();
    let Some((own, inlined)) = found.split_last() else { return vec![frame] };
    let inner = inlined.iter().map(|location| Frame {
        symbol: location.function.clone(),
        offset: None,
        file: location.file.clone(),
        line: location.line,
        inlined: true,
        ..frame.clone()
    });
    let mut frames: Vec<Frame> = inner.collect();
    frame.file.clone_from(&own.file);
    frame.line = own.line;
    frames.push(frame);
    frames
}
