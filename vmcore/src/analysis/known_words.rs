//! What the kernel's own words mean, where the kind of a panic says little, and what to do next.
//!
//! Sources: `kernel/{exit,panic}.c`, `init/{main,do_mounts}.c`, `arch/x86/kernel/traps.c`, `fs/{ext4,btrfs,jbd2}`, `drivers/watchdog`,
//! `lib/{list_debug,refcount,string_helpers}.c`, `mm/usercopy.c`, `net/core/skbuff.c`.

use crate::report::Finding;

/// Words of the kernel, what they mean, and the next step.
struct Words {
    phrase: &'static str,
    title: &'static str,
    next: &'static str,
}

const fn words(phrase: &'static str, title: &'static str, next: &'static str) -> Words {
    Words { phrase, title, next }
}

const BAD_CODE: &str = "Look at the instruction and its function: code that was overwritten, a module built for another CPU, or failing memory.";
const NO_INIT: &str = "Look at init= and root= on the command line, and whether the root filesystem is whole and has its libraries.";

/// Of panics of no kind of their own. The first that fits counts.
const PANICS: &[Words] = &[
    words(
        "Attempted to kill init",
        "Process 1 (init) ended, and the kernel can't go on without it.",
        "Look at the last lines of the log and at process 1: its program, its libraries and the root filesystem may be damaged or out of reach.",
    ),
    words(
        "Attempted to kill the idle task",
        "The kernel met an error in the idle task, which it can't do without.",
        "Look at the lines before the panic.",
    ),
    words(
        "Unable to mount root fs",
        "The kernel could not mount its root filesystem.",
        "Look at root= on the command line, and whether the boot loader loaded an initramfs with the driver of that disk (RHEL: dracut -f; Debian, Ubuntu: update-initramfs -u).",
    ),
    words("No working init found", "The kernel found no program to start as process 1.", NO_INIT),
    words("No init found", "The kernel found no program to start as process 1.", NO_INIT),
    words(
        "Requested init ",
        "The program that the command line names as process 1 can't be started.",
        NO_INIT,
    ),
    words(
        "stack-protector: ",
        "A function found the end of its stack frame overwritten: it, or what it called, wrote beyond an array.",
        "Look at the function that the message names, at its arrays, and at its module.",
    ),
    words(
        "panic forced after error",
        "A filesystem met an error, and is mounted with errors=panic.",
        "Look at the filesystem's lines before the panic, and check it (fsck) before it is mounted again.",
    ),
    words(
        "Watchdog Timer expired",
        "A watchdog timer ran out: the program that resets it did not get to do so.",
        "Look whether the machine was too busy, and at the cluster's or watchdog's daemon.",
    ),
    words(
        "invalid opcode",
        "The CPU met an instruction that it can't carry out, and no BUG() stands there.",
        BAD_CODE,
    ),
    words(
        "double fault",
        "An exception could not be handled: mostly a kernel stack is used up or its pointer is wrong.",
        "Look at the stack pointer and the call trace.",
    ),
    words("int3: ", "The CPU met a breakpoint that nobody has set.", BAD_CODE),
];

const WHO_OVERWRITES: &str = "Look at the first function behind the list's own in the call trace: whose entry it is, and who else removes, frees or overwrites it (slub_debug=FZP on the command line finds who writes to freed memory).";

/// What is said right before a `BUG()` or `WARN()`: the kernel found out that its data is wrong. The first that fits counts.
const FOUND_OUT: &[Words] = &[
    words(
        "list_del corruption",
        "A linked list is damaged: an entry was removed twice, freed while it was on the list, or overwritten.",
        WHO_OVERWRITES,
    ),
    words(
        "list_add ",
        "A linked list is damaged: an entry was added twice, freed while it was on the list, or overwritten.",
        WHO_OVERWRITES,
    ),
    words(
        "refcount_t: ",
        "A reference count went wrong: what it counts may be freed while it is in use, or never.",
        "Look at the first function behind the count's own in the call trace: whose object it is, and who gives back more than it took.",
    ),
    // Since 4.16 with a capital letter.
    words(
        "ernel memory exposure attempt",
        "More was about to be copied to user space than the object holds.",
        "Look at the function that copies to user space: its length, and whether its pointer is still good.",
    ),
    words(
        "ernel memory overwrite attempt",
        "More was about to be copied from user space than the object holds.",
        "Look at the function that copies from user space: its length, and whether its pointer is still good.",
    ),
    words(
        "detected buffer overflow",
        "More was about to be written to a buffer, or read from it, than it holds.",
        "Look at the function behind fortify_panic in the call trace: at the length of what it copies.",
    ),
    // Nothing is said before it: the place is all.
    words(
        "kernel BUG at mm/slub.c:",
        "The slab allocator found that an object was freed twice, is none of its own, or is damaged.",
        "Look at who called its function in the call trace, and who else frees that object (slub_debug=FZU on the command line names who freed it first).",
    ),
    words(
        "skb_over_panic",
        "More was about to be put into a packet's buffer than it has room for.",
        "Look at the function behind skb_put in the call trace, and at the driver of the device that the message names (dev:).",
    ),
    words(
        "skb_under_panic",
        "More was about to be put before a packet's data than its buffer has room for.",
        "Look at the function behind skb_push in the call trace, and at the device that the message names (dev:).",
    ),
];

/// Says in a finding of the kind «other» what the kernel's sentence means, where it is known.
pub(super) fn explain(mut finding: Finding, message: &str) -> Finding {
    let Some(known) = known(PANICS, message) else { return finding };
    known.title.clone_into(&mut finding.title);
    finding.next = vec![known.next.to_owned()];
    finding.evidence.extend(exit_code(message));
    finding
}

/// The same of a `BUG()`.
pub(super) fn explain_bug(mut finding: Finding, message: &str) -> Finding {
    let Some(known) = known(FOUND_OUT, message) else { return finding };
    known.title.clone_into(&mut finding.title);
    finding.next.insert(0, known.next.to_owned());
    finding
}

/// The same of a `WARN()`, which ends a kernel only where a setting asks for that.
pub(super) fn explain_warning(mut finding: Finding, message: &str) -> Finding {
    let Some(known) = known(FOUND_OUT, message) else { return finding };
    finding.title = format!("{} {}", known.title, finding.title);
    finding.next.insert(0, known.next.to_owned());
    finding
}

fn known<'w>(all: &'w [Words], message: &str) -> Option<&'w Words> {
    all.iter().find(|words| message.contains(words.phrase))
}

/// What `exitcode=0x0000000b` says: as the status that `wait` gives, a signal in the low bits, else the program's own status above them.
fn exit_code(message: &str) -> Option<String> {
    let digits = message.split_once("exitcode=0x")?.1;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let code = u32::from_str_radix(digits.get(..end)?, 16).ok()?;
    Some(match code & 0x7f {
        0 => format!(
            "its exit code {code:#x} means that it ended by itself, with the status {}",
            code >> 8 & 0xff
        ),
        signal => {
            let name =
                SIGNALS.iter().find(|(number, _)| *number == signal).map(|(_, name)| format!(" ({name})"));
            format!("its exit code {code:#x} means that signal {signal}{} ended it", name.unwrap_or_default())
        }
    })
}

/// The signals that end programs most often.
const SIGNALS: &[(u32, &str)] = &[
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (15, "SIGTERM"),
    (31, "SIGSYS"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Confidence, Severity};

    fn told(message: &str) -> Finding {
        let message = format!("Kernel panic - not syncing: {message}");
        explain(
            Finding::new("KD-PANIC-OTHER", Severity::Critical, Confidence::Certain, "It panicked."),
            &message,
        )
    }

    #[test]
    fn the_exit_code_of_init_is_told_as_a_status_or_a_signal() {
        let last =
            |code: &str| told(&format!("Attempted to kill init! exitcode=0x{code}")).evidence.pop().unwrap();
        assert_eq!(last("0000000b"), "its exit code 0xb means that signal 11 (SIGSEGV) ended it");
        // With the bit of a core dump.
        assert_eq!(last("00000087"), "its exit code 0x87 means that signal 7 (SIGBUS) ended it");
        assert_eq!(last("00000100"), "its exit code 0x100 means that it ended by itself, with the status 1");
    }

    #[test]
    fn what_the_kernel_found_out_is_told_before_where_it_did() {
        let of = |next: &str| {
            Finding::new("KD-PANIC-BUG", Severity::Critical, Confidence::Certain, "It is BUG().").next(next)
        };
        let told = explain_bug(
            of("Look up the line."),
            "list_del corruption, ff15b4f4825eda00->next is LIST_POISON1 (dead000000000100)",
        );
        assert!(told.title.contains("removed twice") && told.next.len() == 2, "{told:?}");
        let told = explain_warning(of("Look up the line."), "refcount_t: underflow; use-after-free.");
        assert!(told.title.ends_with(" It is BUG()."), "{told:?}");
        assert_eq!(explain_bug(of("x"), "kernel BUG at fs/x.c:1!"), of("x"));
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        assert_eq!(told("something new").title, "It panicked.");
        assert!(told("VFS: Unable to mount root fs on unknown-block(0,0)").title.contains("root filesystem"));
    }
}
