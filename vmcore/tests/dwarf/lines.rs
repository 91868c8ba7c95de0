//! Source lines, compared with those that addr2line of binutils tells.

use std::process::Command;

use vmcore::addr::KVirtAddr;
use vmcore::sym::dwarf::{Lines, LinkedSymbols};

use super::build;

#[test]
fn inlined_functions_come_before_the_one_that_they_are_part_of() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build::kernel(dir.path(), "vmlinux", &[]) else { return };
    let file = build::open(&path);
    let slide = 0x1200_0000;
    let symbols = LinkedSymbols::load(&file, slide).unwrap();
    let outer = symbols.all("outer").remove(0);
    assert_eq!(outer.letter, 'T');
    let mut lines = Lines::new();
    lines.add_kernel(&file, slide).unwrap();
    let pcs: Vec<KVirtAddr> = (0..16).filter_map(|at| outer.address.checked_add(at)).collect();
    lines.prepare(pcs.iter().copied());
    let mut deepest = 0;
    for pc in &pcs {
        let frames = lines.frames(*pc);
        let told: Vec<String> = frames
            .iter()
            .flat_map(|l| {
                [l.function.clone().unwrap(), format!("{}:{}", l.file.clone().unwrap(), l.line.unwrap_or(0))]
            })
            .collect();
        let linked = format!("{:#x}", pc.0 - slide);
        let theirs =
            Command::new("addr2line").args(["-i", "-f", "-s", "-e"]).arg(&path).arg(&linked).output();
        let Ok(theirs) = theirs else { return println!("skipped: no addr2line") };
        let theirs = String::from_utf8(theirs.stdout).unwrap().replace(":?", ":0");
        let theirs: Vec<&str> = theirs.lines().map(|l| l.split(" (disc").next().unwrap()).collect();
        assert_eq!(told, theirs, "at {linked}");
        assert!(frames.last().is_some_and(|l| !l.inlined && l.function.as_deref() == Some("outer")));
        deepest = deepest.max(frames.len());
    }
    assert_eq!(deepest, 3, "inner in middle in outer");
    assert_eq!(symbols.at(pcs[3]).unwrap().name, "outer");
    assert!(lines.frames(KVirtAddr(0x1000)).is_empty() && Lines::new().frames(pcs[0]).is_empty());
}
