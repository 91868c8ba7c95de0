//! The mounts, and the open files of the tasks that matter.

use std::collections::{HashMap, HashSet};

use super::parts::{Clock, Context, Part};
use crate::addr::KVirtAddr;
use crate::kernel::{file, mount};
use crate::report::{Address, Confidence, Finding, Mount, MountDetail, OpenFile, Severity};

/// Mounts that are shown.
const MOUNTS: usize = 65_536;
/// Files of one task, and tasks whose files are shown.
const FILES: usize = 256;
const TASKS: usize = 64;
/// Pids that a finding names.
const NAMED: usize = 8;

pub(super) fn run(context: &Context<'_>, clock: &Clock) -> Part {
    let (mut mounts, mut findings, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    match mount::read(context.memory, context.description, MOUNTS.min(context.limits.walk_items)) {
        Ok(walk) => {
            if !walk.end.is_complete() {
                skipped.push(("mounts".to_owned(), format!("the list is not whole: {}", walk.end)));
            }
            let pids: HashMap<KVirtAddr, u32> =
                context.tasks.tasks.iter().map(|task| (task.kaddr, task.pid)).collect();
            let mut seen = HashSet::new();
            for found in &walk.items {
                if let Some(why) = &found.gap {
                    skipped.push((format!("mounts: the mount at {}", found.kaddr), why.clone()));
                }
                let mut waiting: Vec<u32> =
                    found.waiters.iter().filter_map(|at| pids.get(at).copied()).collect();
                waiting.sort_unstable();
                if found.is_frozen() && !found.waiters.is_empty() && seen.insert(found.sb) {
                    findings.push(frozen(found, &waiting));
                }
                mounts.push(section(found, waiting));
            }
        }
        Err(why) => skipped.push(("mounts".to_owned(), why)),
    }
    let files = open_files(context, clock, &mut skipped);
    let mut part = Part::new(move |report| {
        report.mounts = mounts;
        report.open_files = files;
    });
    part.findings = findings;
    for (what, why) in skipped {
        part.skip(what, why);
    }
    part
}

fn section(found: &mount::Mount, waiting_pids: Vec<u32>) -> Mount {
    Mount {
        device: found.device.clone(),
        path: found.path.clone(),
        fstype: found.fstype.clone(),
        options: (!found.options.is_empty()).then(|| found.options.join(",")),
        more: MountDetail {
            kaddr: Some(Address(found.kaddr.0)),
            super_block: (!found.sb.is_null()).then_some(Address(found.sb.0)),
            super_id: found.id_name.clone(),
            frozen: found.frozen.map(str::to_owned),
            waiting_pids,
        },
    }
}

fn frozen(found: &mount::Mount, waiting: &[u32]) -> Finding {
    let place = found.path.as_deref().unwrap_or("a place that is not known");
    let device = found.device.as_deref().unwrap_or("a file system");
    let count = found.waiters.len();
    let tasks = if count == 1 { "a task waits".to_owned() } else { format!("{count} tasks wait") };
    let state = found.frozen.unwrap_or_default();
    let pids: Vec<String> = waiting.iter().take(NAMED).map(u32::to_string).collect();
    Finding::new(
        "KD-FS-FROZEN",
        Severity::Error,
        Confidence::Certain,
        format!("{device} on {place} is frozen, and {tasks} to write to it."),
    )
    .because(format!("s_writers.frozen of the super_block at {} says «{state}»", found.sb))
    .because(format!("waiting: pid {}", if pids.is_empty() { "not known".into() } else { pids.join(", ") }))
    .next("Ask who froze it: fsfreeze, a snapshot of the volume or of the guest, a backup agent. fsfreeze -u thaws it.")
    .by_hand_crash(format!("struct super_block.s_writers {}", Address(found.sb.0)))
    .by_hand_drgn(format!("Object(prog, \"struct super_block\", address={}).s_writers.frozen", Address(found.sb.0)))
}

/// The files of the task that panicked and of those that are blocked.
fn open_files(context: &Context<'_>, clock: &Clock, skipped: &mut Vec<(String, String)>) -> Vec<OpenFile> {
    let mut found = Vec::new();
    let reader = match file::Reader::new(&context.description.types) {
        Ok(reader) => reader,
        Err(why) => {
            skipped.push(("open_files".into(), why.to_string()));
            return found;
        }
    };
    let panicked = context.report.panic.as_ref().and_then(|p| p.task.as_ref()).and_then(|task| task.pid);
    let mut wanted: Vec<_> = context
        .tasks
        .tasks
        .iter()
        .filter(|task| task.mm.is_some())
        .filter(|task| task.letter() == 'D' || Some(i64::from(task.pid)) == panicked)
        .collect();
    wanted.sort_by_key(|task| (Some(i64::from(task.pid)) != panicked, task.pid));
    if wanted.len() > TASKS {
        skipped.push((
            "open_files".into(),
            format!("those of {TASKS} tasks of {} that are blocked are shown", wanted.len()),
        ));
    }
    for task in wanted.into_iter().take(TASKS) {
        if clock.is_spent() {
            skipped.push((
                "open_files".into(),
                "stopped at budget: its time was up, and what is shown is not all".into(),
            ));
            break;
        }
        let walk = reader.of(context.memory, task.kaddr, FILES);
        if !walk.end.is_complete() {
            skipped.push((
                format!("open_files of pid {}", task.pid),
                format!("not all of them are shown: {}", walk.end),
            ));
        }
        found.extend(walk.items.into_iter().map(|file| OpenFile {
            pid: task.pid,
            fd: file.fd,
            path: file.path,
            kind: file.kind.map(str::to_owned),
            flags: file.flags.map(|flags| format!("{flags:#o}")),
            position: file.position,
            kaddr: Some(Address(file.kaddr.0)),
        }));
    }
    found
}
