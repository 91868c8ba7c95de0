//! The lines that follow an oops or a panic: who ran where, and how it got there.

use crate::report::{Frame, FrameTrust};

/// `CPU: 0 PID: 1 Comm: init …`, and its older and newer forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) cpu: Option<u32>,
    pub(super) pid: Option<i64>,
    pub(super) comm: Option<String>,
}

/// Where the command name ends: what follows it on the line. With kdump loaded, that stands before the taint.
const AFTER_COMM: [&[&str]; 2] = [&[" Kdump: loaded "], &[" Not tainted", " Tainted: ", " Tainted ", " G  "]];

/// Reads `CPU: 0 UID: 0 PID: 1 Comm: init Kdump: loaded Not tainted 6.12…` (the UID since 6.12), and before 3.11
/// `Pid: 1, comm: init Not tainted 2.6.32…`.
pub(super) fn who(line: &str) -> Option<Who> {
    if let Some(rest) = line.strip_prefix("CPU: ") {
        let pid = after(rest, "PID: ")?;
        return Some(Who { cpu: number(rest), pid: number(pid), comm: after(pid, "Comm: ").map(comm) });
    }
    let rest = line.strip_prefix("Pid: ")?;
    Some(Who { cpu: None, pid: number(rest), comm: after(rest, "comm: ").map(comm) })
}

fn after<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split_once(key).map(|(_, rest)| rest)
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// A command name may hold blanks, and even the words that follow it: the last of them that can end it does.
fn comm(text: &str) -> String {
    // A name has 15 bytes at most.
    let ends = |stops: &[&str]| {
        stops.iter().flat_map(|stop| text.match_indices(stop)).map(|(at, _)| at).filter(|at| *at <= 15).max()
    };
    let end = AFTER_COMM.iter().find_map(|stops| ends(stops));
    let name =
        end.and_then(|at| text.get(..at)).unwrap_or_else(|| text.split(' ').next().unwrap_or_default());
    name.to_owned()
}

/// What a line can say of a CPU that is not said by [`who`]: `CPU#1 stuck`, `LOCKUP on cpu 2`.
pub(super) fn cpu_in(line: &str) -> Option<u32> {
    let rest =
        after(line, "CPU#").or_else(|| after(line, "LOCKUP on cpu ")).or_else(|| after(line, "cpu "))?;
    number(rest)
}

/// `watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1` (6.5 and later): the CPU that found it out, and the one that is locked up.
pub(super) fn hard_lockup(line: &str) -> Option<(u32, u32)> {
    let (before, locked) = line.split_once(": Watchdog detected hard LOCKUP on cpu ")?;
    Some((number(after(before, "CPU")?)?, number(locked)?))
}

/// `[insmod:412]` at the end of a soft lockup's line.
pub(super) fn task_in_brackets(line: &str) -> Option<(String, i64)> {
    let inner = line.trim_end().strip_suffix(']')?.rsplit_once('[')?.1;
    let (name, pid) = inner.rsplit_once(':')?;
    Some((name.to_owned(), pid.parse().ok()?))
}

/// The task of `INFO: task NAME:PID blocked for more than 120 seconds.` The name may hold colons.
pub(super) fn hung_task(line: &str) -> Option<(String, i64)> {
    let rest = line.strip_prefix("INFO: task ").or_else(|| line.strip_prefix("INFO: TASK "))?;
    let (who, _) = rest.rsplit_once(" blocked for more than")?;
    let (comm, pid) = who.rsplit_once(':')?;
    Some((comm.to_owned(), pid.parse().ok()?))
}

/// Where `BUG()` or `WARN()` stands, by the line that it prints: `kernel BUG at FILE:LINE!`, `WARNING: CPU: 1 PID: 2 at FILE:LINE f+0x1/0x2`,
/// since 6.19 `WARNING: FILE:LINE at f+0x1/0x2`. With it, which of the two it was.
pub(super) fn source_place(line: &str) -> Option<(&'static str, String)> {
    let is_place = |text: &str| {
        text.rsplit_once(':').is_some_and(|(file, line)| !file.is_empty() && line.parse::<u32>().is_ok())
    };
    let bug = line.strip_prefix("kernel BUG at ").or_else(|| line.strip_prefix("Kernel BUG at "));
    if let Some(rest) = bug {
        let place = rest.trim_end().trim_end_matches('!');
        return is_place(place).then(|| ("BUG()", place.to_owned()));
    }
    let rest = line.strip_prefix("WARNING: ")?;
    let candidates = [rest.split_once(" at ").map(|(_, place)| place), Some(rest)];
    let word = |text: &str| text.split_ascii_whitespace().next().unwrap_or_default().to_owned();
    let mut places = candidates.into_iter().flatten().map(word);
    places.find(|place| is_place(place)).map(|place| ("WARN()", place))
}

/// Where the instruction pointer is, of a line `RIP: 0010:f+0x1/0x2` (with addresses in brackets before 4.11), `EIP is at …` or, on arm64, `pc : …`.
/// `None` for one of user space.
pub(super) fn instruction(line: &str) -> Option<Frame> {
    if let Some(rest) = line.strip_prefix("RIP: ") {
        // The selector's low two bits are the privilege: 3 is user space.
        let selector = rest.split(':').next().and_then(|text| u16::from_str_radix(text.trim(), 16).ok());
        if selector.is_some_and(|cs| cs & 3 == 3) {
            return None;
        }
        return frame(rest.split_once(':')?.1, FrameTrust::Regs);
    }
    let rest = line.strip_prefix("EIP is at ").or_else(|| line.strip_prefix("pc : "))?;
    frame(rest, FrameTrust::Regs)
}

/// A line of a call trace. `?` means that the kernel's unwinder does not vouch for it.
pub(super) fn trace_frame(line: &str) -> Option<Frame> {
    let text = line.trim();
    if text.starts_with('<') || text.is_empty() {
        return None;
    }
    let trust = if text.contains("? ") {
        FrameTrust::Scan
    } else if text.starts_with("[<") {
        // Kernels that print addresses had frame pointers; ORC came with 4.14, three releases after the addresses went.
        FrameTrust::Fp
    } else {
        FrameTrust::Orc
    };
    frame(text, trust)
}

/// True for a line that belongs to a call trace without being a frame of it: `<TASK>`, `</IRQ>`, `<EOI>`.
pub(super) fn is_trace_mark(line: &str) -> bool {
    let text = line.trim();
    text.starts_with('<') && text.ends_with('>')
}

/// The first `symbol+0xoffset/0xsize [module]` of a text.
fn frame(text: &str, trust: FrameTrust) -> Option<Frame> {
    let mut words = text.split_ascii_whitespace();
    let (symbol, offset) = words.by_ref().find_map(|word| {
        let (symbol, place) = word.split_once("+0x")?;
        let (offset, size) = place.split_once("/0x")?;
        let offset = u64::from_str_radix(offset, 16).ok()?;
        u64::from_str_radix(size, 16).ok()?;
        (!symbol.is_empty()).then_some((symbol, offset))
    })?;
    let module = words.next().and_then(|w| w.strip_prefix('[')).map(|w| w.trim_end_matches(']').to_owned());
    Some(Frame {
        pc: None,
        symbol: Some(symbol.to_owned()),
        offset: Some(offset),
        module: module.filter(|m| !m.starts_with('<')),
        trust,
        sure: trust != FrameTrust::Scan,
        sp: None,
        file: None,
        line: None,
        inlined: false,
        stack: None,
        interrupted: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(cpu: Option<u32>, pid: i64, comm: &str) -> Who {
        Who { cpu, pid: Some(pid), comm: Some(comm.to_owned()) }
    }

    #[test]
    fn who_ran_is_read_in_each_form_of_the_line() {
        let new = "CPU: 1 UID: 0 PID: 77 Comm: init Kdump: loaded Not tainted 6.12.117+deb12-cloud-amd64 #1  Debian";
        assert_eq!(who(new), Some(ran(Some(1), 77, "init")));
        assert_eq!(
            who("CPU: 3 PID: 4 Comm: kworker/3:1 Tainted: G           OE    4.18.0-553.el8.x86_64 #1"),
            Some(ran(Some(3), 4, "kworker/3:1"))
        );
        assert_eq!(
            who("CPU: 0 PID: 2 Comm: Web Content Not tainted 5.14.0 #1"),
            Some(ran(Some(0), 2, "Web Content"))
        );
        assert_eq!(
            who("Pid: 2034, comm: bash Not tainted 2.6.32-754.el6.x86_64 #1"),
            Some(ran(None, 2034, "bash"))
        );
        assert_eq!(who("CPU: 0 is up"), None);
    }

    #[test]
    fn a_command_name_can_contain_the_word_that_ends_it() {
        let line = "CPU: 0 PID: 9 Comm: x Not tainted Not tainted 6.1.0 #1";
        assert_eq!(who(line).and_then(|w| w.comm).as_deref(), Some("x Not tainted"));
        let line = "CPU: 0 PID: 9 Comm: a Kdump: loaded Not tainted 6.1.0 #1";
        assert_eq!(who(line).and_then(|w| w.comm).as_deref(), Some("a"));
    }

    #[test]
    fn frames_are_read_with_and_without_addresses_and_modules() {
        let frame = trace_frame("  sysrq_handle_crash+0x1a/0x20").unwrap();
        assert_eq!(
            (frame.symbol.as_deref(), frame.offset, frame.trust),
            (Some("sysrq_handle_crash"), Some(0x1a), FrameTrust::Orc)
        );
        let frame = trace_frame(" ? ext4_sync+0x4/0x100 [ext4]").unwrap();
        assert_eq!((frame.module.as_deref(), frame.trust), (Some("ext4"), FrameTrust::Scan));
        let frame = trace_frame(" [<ffffffff8119b6a5>] vfs_write+0xb5/0x1a0").unwrap();
        assert_eq!((frame.symbol.as_deref(), frame.trust), (Some("vfs_write"), FrameTrust::Fp));
        assert_eq!(trace_frame(" <TASK>"), None);
        assert_eq!(trace_frame("Code: 40 00 48"), None);
    }

    #[test]
    fn the_instruction_of_user_space_is_not_the_kernels() {
        assert_eq!(instruction("RIP: 0033:0x47b7a0"), None);
        let frame =
            instruction("RIP: 0010:[<ffffffff8140d9f6>]  [<ffffffff8140d9f6>] sysrq_handle_crash+0x16/0x20")
                .unwrap();
        assert_eq!(frame.symbol.as_deref(), Some("sysrq_handle_crash"));
        assert_eq!(
            instruction("RIP: 0010:lkdtm_BUG+0x5/0x10 [lkdtm]").unwrap().module.as_deref(),
            Some("lkdtm")
        );
    }

    #[test]
    fn a_hung_task_s_name_may_hold_colons() {
        let line = "INFO: task kworker/1:2:412 blocked for more than 120 seconds.";
        assert_eq!(hung_task(line), Some(("kworker/1:2".to_owned(), 412)));
        assert_eq!(hung_task("INFO: task"), None);
    }

    #[test]
    fn bug_and_warn_tell_where_they_stand() {
        let place = |line: &str| source_place(line).map(|(what, place)| format!("{what} {place}"));
        assert_eq!(place("kernel BUG at lib/list_debug.c:53!").as_deref(), Some("BUG() lib/list_debug.c:53"));
        let line = "WARNING: CPU: 1 PID: 153 at mm/slub.c:72 warn+0x11/0x20 [lab_fail]";
        assert_eq!(place(line).as_deref(), Some("WARN() mm/slub.c:72"));
        let line = "WARNING: mm/slub.c:72 at warn+0x11/0x20, CPU#1: sh/153";
        assert_eq!(place(line).as_deref(), Some("WARN() mm/slub.c:72"));
        assert_eq!(place("WARNING: something"), None);
    }

    #[test]
    fn a_lockup_names_its_cpu_and_task() {
        let line = "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:2:412]";
        assert_eq!(cpu_in(line), Some(1));
        assert_eq!(task_in_brackets(line), Some(("kworker/1:2".to_owned(), 412)));
        assert_eq!(cpu_in("NMI watchdog: Watchdog detected hard LOCKUP on cpu 12"), Some(12));
    }
}
