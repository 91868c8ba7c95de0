//! What the log says of memory that ran out: `mm/oom_kill.c` prints it.

use crate::kernel::printk::KernelLog;
use crate::report::Oom;

/// The last time that it did; `None` where the log tells of none.
pub(super) fn from_log(log: &KernelLog) -> Option<Oom> {
    let mut found = None;
    for record in &log.records {
        line(&record.text_lossy(), &mut found);
    }
    found
}

fn line(text: &str, found: &mut Option<Oom>) {
    if let Some((who, rest)) = text.split_once(" invoked oom-killer: ") {
        let field = |name: &str| rest.split_once(name).map(|(_, value)| value);
        // The names of the flags in parentheses may have commas in them one day; the first ", " ends the field.
        let until_comma = |value: &str| value.split(", ").next().unwrap_or_default().trim().to_owned();
        *found = Some(Oom {
            invoked_by: Some(who.to_owned()),
            gfp_mask: field("gfp_mask=").map(until_comma),
            order: field("order=").map(until_comma).and_then(|n| n.parse().ok()),
            ..Oom::default()
        });
    } else if let Some((_, rest)) = text.split_once("oom-kill:constraint=") {
        let oom = found.get_or_insert_default();
        oom.constraint = rest.split(',').next().map(str::to_owned);
        // A group's name may have commas in it; what follows it begins with the group of the task that was killed.
        let group = rest.split_once(",oom_memcg=").and_then(|(_, rest)| rest.split_once(",task_memcg="));
        oom.cgroup = group.map(|(path, _)| path.to_owned());
    } else if let Some((_, rest)) = text.split_once("Killed process ") {
        let oom = found.get_or_insert_default();
        let end = rest.find(')').and_then(|at| rest.get(..=at)).unwrap_or(rest);
        oom.killed = Some(end.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_and_who_was_killed_are_told() {
        let mut found = None;
        for text in [
            "dd invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task=eat,pid=99,uid=0",
            "Out of memory: Killed process 99 (eat) total-vm:100kB, anon-rss:0kB",
        ] {
            line(text, &mut found);
        }
        let oom = found.unwrap();
        assert_eq!(oom.invoked_by.as_deref(), Some("dd"));
        assert_eq!(oom.gfp_mask.as_deref(), Some("0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP)"));
        assert_eq!(oom.order, Some(0));
        assert_eq!(oom.constraint.as_deref(), Some("CONSTRAINT_NONE"));
        assert_eq!(oom.killed.as_deref(), Some("99 (eat)"));
        assert_eq!(oom.cgroup, None);
    }

    #[test]
    fn the_group_whose_limit_it_was_is_told() {
        let mut found = None;
        line(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,b,task_memcg=/a,b/c,task=tail,pid=160,uid=0",
            &mut found,
        );
        let oom = found.unwrap();
        assert_eq!(oom.constraint.as_deref(), Some("CONSTRAINT_MEMCG"));
        assert_eq!(oom.cgroup.as_deref(), Some("/a,b"));
    }

    #[test]
    fn a_log_without_it_tells_of_none() {
        let mut found = None;
        line("Kernel panic - not syncing: sysrq triggered crash", &mut found);
        assert_eq!(found, None);
    }
}
