//! The last trace events in the words of the report.

use std::time::Duration;

use super::parts::{Clock, Context, Part};
use crate::kernel::trace::{self, Event};
use crate::report::{Trace, TraceEvent};

/// Events that are told.
const EVENTS: usize = 200;

pub(super) fn run(context: &Context<'_>, _: &Clock) -> Part {
    let reader = context.reader();
    let Some(found) = trace::read(reader, EVENTS) else {
        let mut part = Part::default();
        part.skip("trace", "the kernel has no trace buffer: no symbol global_trace is known");
        return part;
    };
    let gaps = found.gaps.clone();
    let trace = Trace {
        total: u64::try_from(found.total).unwrap_or(u64::MAX),
        overwritten: found.overwritten,
        events: found.events.into_iter().map(one).collect(),
    };
    let mut part = Part::new(move |report| report.trace = Some(trace));
    part.gaps("trace", &gaps);
    part
}

fn one(event: Event) -> TraceEvent {
    TraceEvent {
        ts: Duration::from_nanos(event.ts).as_secs_f64(),
        cpu: u32::try_from(event.cpu).unwrap_or(u32::MAX),
        pid: i64::from(event.pid),
        name: event.name.unwrap_or_else(|| event.kind.to_string()),
        fields: event.fields.into_iter().filter(|(name, _)| !name.starts_with("common_")).collect(),
    }
}
