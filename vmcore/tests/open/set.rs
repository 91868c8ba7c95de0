//! Split sets: `makedumpfile --split`.

use std::path::PathBuf;

use tempfile::TempDir;
use vmcore::addr::Pfn;
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

use crate::build::{Kdump, flatten, page, small_elf};
use crate::check::read_all;

struct Set(TempDir);

impl Set {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn part(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn three(&self) -> [PathBuf; 3] {
        [(0, 10), (10, 30), (30, 64)].map(|(start, end)| {
            self.part(&format!("{start}"), &Kdump { part: Some((start, end)), ..Kdump::new() }.bytes())
        })
    }
}

fn open(paths: &[PathBuf]) -> Result<Dump, vmcore::error::OpenError> {
    Dump::open_set(paths, &OpenOptions::default())
}

fn all_pages() -> Vec<(u64, Vec<u8>)> {
    Kdump::new().stored.iter().map(|n| (*n, page(*n))).collect()
}

#[test]
fn parts_in_any_order_make_one_dump() {
    let set = Set::new();
    let [a, b, c] = set.three();
    for order in [[&a, &b, &c], [&c, &a, &b], [&b, &c, &a]] {
        let dump = open(&order.map(Clone::clone)).unwrap();
        assert_eq!(read_all(&dump), all_pages());
        assert_eq!(dump.facts().containers, ["split", "kdump"]);
        assert_eq!(dump.facts().parts, [0..10, 10..30, 30..64]);
        assert!(dump.completeness().is_complete());
        assert_eq!(dump.completeness().repairs, [""; 0]);
    }
}

#[test]
fn frames_of_a_missing_part_are_lost() {
    let set = Set::new();
    let [a, b, c] = set.three();
    let dump = open(&[c, a]).unwrap();
    assert_eq!(
        read_all(&dump),
        all_pages().into_iter().filter(|(n, _)| !(10..30).contains(n)).collect::<Vec<_>>()
    );
    assert_eq!((dump.state(Pfn(12)), dump.state(Pfn(13))), (PageState::Lost, PageState::Excluded));
    let err = dump.read_frame(Pfn(12), &mut [0; 4096]).unwrap_err();
    assert_eq!(err.to_string(), "pfn 0xc is lost: the part of the split set that has it was not given");
    // One part alone.
    let dump = Dump::open(&b, &OpenOptions::default()).unwrap();
    assert_eq!((dump.completeness().present_pages, dump.completeness().lost_pages), (6, 8));
    assert_eq!(
        dump.completeness().repairs,
        ["this is one part of a split set, with the frames 0xa to 0x1e; the stored frames outside are lost"]
    );
}

#[test]
fn a_part_named_twice_is_used_once_and_told() {
    let set = Set::new();
    let [a, b, c] = set.three();
    let dump = open(&[a.clone(), b, a.clone(), c]).unwrap();
    assert_eq!(read_all(&dump), all_pages());
    let name = a.display();
    assert_eq!(
        dump.completeness().repairs,
        [format!("{name} has the same frames as {name} and is not used")]
    );
}

#[test]
fn a_part_of_another_dump_is_named() {
    let set = Set::new();
    let [a, _, _] = set.three();
    for (other, why) in [
        (Kdump { seconds: 5, ..Kdump::new() }, "its time differs"),
        (Kdump { frames: 63, ..Kdump::new() }, "its number of frames differs"),
    ] {
        let other = set.part("other", &Kdump { part: Some((10, 30)), ..other }.bytes());
        assert_eq!(
            open(&[a.clone(), other.clone()]).unwrap_err().to_string(),
            format!("{}: does not belong to the same split set as {}: {why}", other.display(), a.display())
        );
    }
    let other = set.part("other", &Kdump { part: Some((5, 30)), ..Kdump::new() }.bytes());
    let err = open(&[a.clone(), other]).unwrap_err();
    assert!(
        err.to_string().ends_with("it has the frames 0x5 to 0x1e, and the other one 0x0 to 0xa"),
        "{err}"
    );
    assert!(err.hint().starts_with("name the parts of one dump only"));
    let whole = set.part("whole", &Kdump::new().bytes());
    let err = open(&[a.clone(), whole.clone()]).unwrap_err().to_string();
    assert_eq!(
        err,
        format!(
            "{}: is a whole kdump-compressed dump, and not a part of a split set, which kdt does not read",
            whole.display()
        )
    );
    let elf = set.part("elf", &small_elf());
    assert!(open(&[elf, a]).unwrap_err().to_string().contains("is an ELF vmcore, and not a part"));
    assert!(open(&[]).unwrap_err().to_string().contains("no file was named"));
}

/// makedumpfile splits by blocks of 1 GB of memory: of a small machine, all parts but one have no frames.
#[test]
fn parts_without_frames_are_no_duplicates() {
    let set = Set::new();
    let paths = [(0, 64), (64, 64), (64, 64)].map(|part| {
        let name = format!("{}-{}", part.0, set.0.path().read_dir().unwrap().count());
        set.part(&name, &Kdump { part: Some(part), ..Kdump::new() }.bytes())
    });
    let dump = open(&paths).unwrap();
    assert_eq!(read_all(&dump), all_pages());
    assert_eq!(dump.completeness().repairs, [""; 0]);
}

#[test]
fn parts_may_be_flattened_or_cut() {
    let set = Set::new();
    let [a, b, c] = set.three();
    let bytes = std::fs::read(&b).unwrap();
    let flat = set.part("flat", &flatten(&bytes, 500));
    let dump = open(&[a.clone(), flat, c.clone()]).unwrap();
    assert_eq!(read_all(&dump), all_pages());
    assert_eq!(dump.facts().containers, ["flattened", "split", "kdump"]);
    // Cut inside its bitmaps: those of another part serve.
    let cut = set.part("cut", &bytes[..Kdump::BITMAPS + 10]);
    let dump = open(&[cut.clone(), a, c]).unwrap();
    assert_eq!((dump.completeness().present_pages, dump.completeness().lost_pages), (8, 6));
    assert_eq!(read_all(&dump).len(), 8);
    let err = dump.read_frame(Pfn(12), &mut [0; 4096]).unwrap_err().to_string();
    assert!(err.ends_with(&format!("(in {})", cut.display())), "{err}");
}
