//! Arguments and environments of processes: `mm_struct.arg_start` to `env_end`, through each process's page tables.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use crate::addr::{KVirtAddr, UVirtAddr};
use crate::error::MemError;
use crate::kernel::task::Tasks;
use crate::xlat::UserMemory;

/// Bytes of one process at most: the kernel allows less than this (`MAX_ARG_STRINGS` is cut by a quarter of the stack's limit).
const MOST: u64 = 64 << 20;

pub(super) fn erase(eraser: &mut Eraser<'_, '_>, tasks: &Tasks) -> Result<(), String> {
    if tasks.tasks.is_empty() {
        return Err("no task is found".into());
    }
    for lost in &tasks.lost {
        eraser.trouble("a task", &lost.to_string());
    }
    let all: BTreeSet<KVirtAddr> = tasks.tasks.iter().filter_map(|task| task.mm).collect();
    for mm in all {
        if eraser.cancel.is_cancelled() {
            return Ok(());
        }
        eraser.object();
        if let Err(why) = one(eraser, mm) {
            eraser.trouble(&format!("the process with the mm_struct at {mm}"), &why);
        }
    }
    Ok(())
}

fn one(eraser: &mut Eraser<'_, '_>, mm: KVirtAddr) -> Result<(), String> {
    let number = |name: &str| eraser.member(mm, "mm_struct", &[name]);
    let memory = eraser.source.memory;
    let ranges = [
        (number("arg_start")?, number("arg_end")?),
        // What lies behind the environment is the name of the program (AT_EXECFN), at the end of its page.
        (number("env_start")?, number("env_end")?),
    ];
    let user = UserMemory::new(memory, KVirtAddr(number("pgd")?)).map_err(|why| why.to_string())?;
    for (start, end) in ranges {
        let Some(len) = end.checked_sub(start).filter(|_| end < 1 << 63) else {
            return Err(format!("its arguments can't go from {start:#x} to {end:#x}"));
        };
        if len > MOST {
            return Err(format!("it claims {len} bytes of arguments"));
        }
        let mut at = start;
        while at < end {
            let left = end.saturating_sub(at);
            let to_next =
                eraser.source.page_size.saturating_sub(at.checked_rem(eraser.source.page_size).unwrap_or(0));
            let step = match user.translate(UVirtAddr(at)) {
                Ok((paddr, run)) => {
                    let here = run.min(left).max(1);
                    eraser.physical(paddr, here);
                    here
                }
                // Swapped out, or never touched: there is nothing in memory.
                Err(MemError::NotMapped { .. }) => {
                    let here = to_next.min(left).max(1);
                    eraser.note(|account| account.absent = account.absent.saturating_add(here));
                    here
                }
                Err(why) => return Err(why.to_string()),
            };
            at = at.saturating_add(step);
        }
    }
    Ok(())
}
