//! Waits that no list of waiters tells of: for a grace period of RCU, which is behind readers and CPUs, and for another CPU's answer.

use std::cell::OnceCell;

use super::what;
use crate::addr::KVirtAddr;
use crate::analysis::cpus::Registers;
use crate::analysis::parts::Context;
use crate::analysis::{ipi, lockup};
use crate::kernel::rcu::{self, Rcu};
use crate::kernel::task::Task;

/// What a task waits for, and who is in its way.
#[derive(Clone, Debug)]
pub(super) struct Behind<'a> {
    /// A word for it, as in the report.
    pub(super) kind: &'static str,
    /// What it is known by in the kernel: `rcu_state`, or the call.
    pub(super) at: Option<KVirtAddr>,
    /// Its name.
    pub(super) name: Option<String>,
    /// The first who is in the way.
    pub(super) owner: Option<&'a Task>,
    /// To follow «waits for».
    pub(super) words: String,
    /// What it was concluded from.
    pub(super) proof: String,
    /// A line for crash that shows it.
    pub(super) crash: String,
}

fn named(task: &Task) -> String {
    format!("{} (pid {})", task.comm, task.pid)
}

/// The present grace period, once somebody is found to wait for one.
pub(super) struct Grace<'c, 'a> {
    context: &'c Context<'a>,
    state: OnceCell<Option<Rcu>>,
}

impl<'c, 'a> Grace<'c, 'a> {
    pub(super) fn new(context: &'c Context<'a>) -> Self {
        Self { context, state: OnceCell::new() }
    }

    /// Who holds up the grace period for which this task waits; nothing where none is under way.
    pub(super) fn behind(&self, why: what::Wait, symbols: &[String]) -> Option<Behind<'a>> {
        // SRCU has states of its own, and expedited grace periods have masks of their own.
        let other = |name: &String| name.contains("srcu") || name.contains("expedited");
        if why.kind() != "rcu" || symbols.iter().any(other) {
            return None;
        }
        let (context, limits) = (self.context, self.context.limits);
        let read = || rcu::read(context.memory, context.description, limits).ok();
        let rcu = self.state.get_or_init(read).as_ref().filter(|rcu| rcu.under_way)?;
        let readers: Vec<&'a Task> = rcu.tasks.iter().filter_map(|at| context.tasks.at(*at)).collect();
        let current = |cpu: &usize| Some((*cpu, context.tasks.current(*cpu)?));
        let cpus: Vec<(usize, &'a Task)> = rcu.cpus.iter().filter_map(current).collect();
        let count = readers.len().saturating_add(cpus.len());
        let (owner, words, proof) = match (readers.first(), cpus.first()) {
            (Some(task), _) => (
                *task,
                format!("{} to end its RCU reader", named(task)),
                "it is in the list of readers that the grace period under way waits for (gp_tasks)"
                    .to_owned(),
            ),
            (None, Some((cpu, task))) => (
                *task,
                format!("CPU {cpu}, which runs {}, to be seen outside of an RCU reader", named(task)),
                format!("the grace period under way has the bit of CPU {cpu} in qsmask"),
            ),
            (None, None) => return None,
        };
        let more = match count.saturating_sub(1) {
            0 => String::new(),
            n => format!(", and for {n} more"),
        };
        Some(Behind {
            kind: "rcu",
            at: Some(rcu.state),
            name: Some("rcu_state".into()),
            owner: Some(owner),
            words: format!("{words}{more}"),
            proof,
            crash: "p/x rcu_state.node[0].qsmask".into(),
        })
    }
}

/// The tasks that run and spin until another CPU has called a function for them.
pub(super) fn calls<'a>(context: &Context<'a>, registers: &Registers) -> Vec<(&'a Task, Behind<'a>)> {
    let reader = context.reader();
    // What could not be read of them is told with the lockups.
    let mut unused = Vec::new();
    let told = |waiting: ipi::Waiting| {
        let task = context.tasks.current(waiting.from)?;
        let function = reader.function(waiting.call.function);
        let cpu = waiting.call.cpu;
        let at = lockup::calls(context, registers, cpu).map(|calls| format!(", which is in {calls},"));
        let behind = Behind {
            kind: "cpu",
            at: Some(waiting.call.kaddr),
            owner: context.tasks.current(cpu).filter(|owner| owner.kaddr != task.kaddr),
            words: format!("CPU {cpu}{} to call {function}", at.unwrap_or_default()),
            name: Some(function),
            proof: format!(
                "the call is in the queue of CPU {cpu}, and CPU {} is in {}",
                waiting.from, waiting.at
            ),
            crash: format!("bt -c {cpu}"),
        };
        Some((task, behind))
    };
    let all = ipi::waiting(context, |cpu| lockup::calls(context, registers, cpu), &mut unused);
    all.into_iter().filter_map(told).collect()
}
