//! What a fault was: a page fault by the error code that the CPU gave it (`x86_64`: `arch/x86/include/asm/trap_pf.h`), and what is at
//! the address.

use crate::addr::KVirtAddr;
use crate::kernel::describe::Description;
use crate::report::{Finding, PanicKind, Report};

/// Memory is there, and may not be used that way.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
/// A bit is set in a page table that must not be.
const RESERVED: u64 = 1 << 3;
/// The CPU wanted to carry out what is there.
const FETCH: u64 = 1 << 4;

/// What a fault means and what to do next, where its code says more than that nothing is mapped at the address.
#[must_use]
pub(in crate::analysis) fn meaning(code: u64, address: Option<u64>) -> Option<(&'static str, &'static str)> {
    let has = |bit: u64| code & bit != 0;
    let of_user = address? >> 63 == 0;
    if has(RESERVED) {
        return Some((
            "A page table is damaged: an entry has bits set that must not be.",
            "Look at the entries that the log prints behind PGD: one wrong bit points to the memory hardware, more to a write through a bad pointer.",
        ));
    }
    if !has(PRESENT) {
        return None;
    }
    Some(match (has(FETCH), has(WRITE), of_user) {
        (true, _, true) => (
            "The kernel called or jumped to memory of user space, which it must not carry out.",
            "Look at who called it, for a pointer to a function that was overwritten.",
        ),
        (true, _, false) => (
            "The kernel called or jumped to memory that holds no code.",
            "Look at who called it, for a pointer to a function that was never set right, or was freed or overwritten.",
        ),
        (false, _, true) => (
            "The kernel used memory of user space as if it were its own.",
            "Look at the function at RIP and its module: it lacks copy_from_user() or the like, or its pointer was overwritten.",
        ),
        (false, true, false) => (
            "The kernel wrote to memory that is read-only.",
            "Look at the function at RIP and at what is at that address: it changes a constant or code, or its pointer was overwritten.",
        ),
        (false, false, false) => return None,
    })
}

/// Says of a general protection fault that it was a poison which was used as an address: that tells of what was freed or removed.
pub(in crate::analysis) fn explain_poison(report: &mut Report) {
    let fault = report.panic.as_ref().filter(|panic| panic.kind == PanicKind::GeneralProtection);
    let operands = fault.and_then(|panic| panic.instruction.as_ref()).map(|code| code.operands.as_slice());
    let used = operands.unwrap_or_default().iter().filter(|operand| operand.is_fault_address != Some(false));
    let mut addresses = used.filter_map(|operand| operand.address);
    let Some(words) = addresses.find_map(|at| super::pointer::poison(at.0)) else { return };
    let own = |finding: &&mut Finding| finding.code == "KD-PANIC-GENERAL-PROTECTION";
    let Some(finding) = report.findings.iter_mut().find(own) else { return };
    finding.title = format!("The kernel used a poison as an address ({words}).");
    finding.next = vec![
        "Look at the function at RIP and its module: what its pointer was read from was freed, removed or never set; and at who did that while it was in use."
            .to_owned(),
    ];
}

/// Says of a page fault what is at the address, where that is the kernel's image or a module's.
pub(in crate::analysis) fn explain(report: &mut Report, description: Option<&Description>) {
    let Some(panic) = report.panic.as_ref().filter(|panic| panic.kind == PanicKind::PageFault) else {
        return;
    };
    let words = panic.fault_address.zip(description).and_then(|(at, all)| Some((at, what_is_at(all, at.0)?)));
    let Some((at, what)) = words else { return };
    let own = |finding: &&mut Finding| finding.code == "KD-PANIC-PAGE-FAULT";
    if let Some(finding) = report.findings.iter_mut().find(own) {
        finding.evidence.push(format!("at {at} is {what}"));
    }
}

fn what_is_at(description: &Description, at: u64) -> Option<String> {
    let (symbols, at) = (&description.symbols, KVirtAddr(at));
    let module = symbols.module_at(at);
    let image = symbols.address("_text").zip(symbols.address("_end")).map(|(start, end)| start..end);
    if module.is_none() && !image?.contains(&at) {
        return None;
    }
    let found = symbols.at(at)?;
    let what = match found.symbol.letter {
        't' | 'T' | 'w' | 'W' => "code",
        'r' | 'R' => "read-only data",
        '?' => "something",
        _ => "data",
    };
    let whose = module.map_or_else(|| "the kernel itself".to_owned(), |module| format!("module {module}"));
    Some(format!("{}, {what} of {whose}", super::pointer::short(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poison_that_was_used_as_an_address_is_told() {
        use crate::report::{Address, Confidence, Instruction, Operand, Panic, Severity};
        let told = |at: u64| {
            let operand = Operand {
                text: "[rax + 0x8]".into(),
                address: Some(Address(at)),
                points_to: None,
                is_fault_address: Some(true),
            };
            let mut report = Report::empty("kdt", "0", "x");
            let instruction = Instruction { operands: vec![operand], ..Instruction::default() };
            let panic = Panic::new(PanicKind::GeneralProtection, "general protection fault");
            report.panic = Some(Panic { instruction: Some(instruction), ..panic });
            let code = "KD-PANIC-GENERAL-PROTECTION";
            report.findings = vec![Finding::new(code, Severity::Critical, Confidence::Likely, "It faulted.")];
            explain_poison(&mut report);
            report.findings[0].title.clone()
        };
        assert!(told(0x6b6b_6b6b_6b6b_6b73).contains("POISON_FREE + 0x8"));
        assert_eq!(told(0x8000_0000_0000_1234), "It faulted.");
    }

    const KERNEL: Option<u64> = Some(0xffff_ffff_c051_c910);

    #[test]
    fn what_may_not_be_used_that_way_is_no_stale_pointer() {
        let title = |code, address| meaning(code, address).map(|(title, _)| title).unwrap_or_default();
        assert!(title(0x3, KERNEL).contains("read-only"));
        assert!(title(0x11, KERNEL).contains("holds no code"));
        assert!(title(0x11, Some(0x7fff_0000)).contains("user space"));
        assert!(title(0x1, Some(0x7fff_0000)).contains("user space"));
        assert!(title(0x9, KERNEL).contains("page table"));
    }

    #[test]
    fn where_nothing_is_mapped_the_code_says_no_more() {
        for code in [0x0, 0x2, 0x10] {
            assert_eq!(meaning(code, KERNEL), None);
        }
        assert_eq!(meaning(0x3, None), None);
    }
}
