//! A real dump is filtered and written in every form; what comes out reads back frame by frame.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::fs::File;
use std::io;
use std::path::Path;

use vmcore::addr::{Pfn, PhysAddr};
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options as TriageOptions, triage};
use vmcore::error::PageError;
use vmcore::filter::{self, Class, Classes, Level, Selection, classify, left_out};
use vmcore::format::Codec;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::kernel::{Kernel, Options as KernelOptions};
use vmcore::limits::Limits;
use vmcore::progress::{Cancel, Quiet};
use vmcore::report::Finding;
use vmcore::write::{FileSink, FlatSink, Form, Options, Reuse, Sink, Texts, Written, cut, write};
use vmcore::xlat::KernelMemory;
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

fn real() -> Dump {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/data/panic-6.1.kdump");
    Dump::open(path, &OpenOptions::default()).unwrap()
}

fn kernel(dump: &Dump) -> Kernel<'_> {
    let subject = Subject::new(dump);
    Kernel::open(subject.memory, &subject.hints, KernelOptions::default().without_scan())
}

fn level(number: u8) -> Level {
    Level::new(number).unwrap()
}

fn classes(dump: &Dump, number: u8) -> Classes {
    let kernel = kernel(dump);
    let watch = (&Cancel::default(), &Quiet as _);
    classify(dump, kernel.memory(), kernel.vmcoreinfo(), None, level(number), &Limits::default(), watch)
        .unwrap()
}

fn options(form: Form, number: u8) -> Options {
    Options { jobs: 3, ..Options::new(form, level(number)) }
}

fn put(dump: &Dump, classes: &Classes, options: &Options, path: &Path, flat: bool) -> Written {
    let file = File::create_new(path).unwrap();
    let texts = Texts::of(dump);
    let direct = kernel(dump).facts().page_offset;
    let watch = (&Cancel::default(), &Quiet as _);
    if flat {
        write(dump, classes, &texts, direct, options, &mut FlatSink::new(&file), watch).unwrap()
    } else {
        write(dump, classes, &texts, direct, options, &mut FileSink(&file), watch).unwrap()
    }
}

/// Every frame that was kept has its bytes, and no other has any.
fn same(source: &Dump, classes: &Classes, copy: &Dump, zeros_are_left_out: bool) {
    assert_eq!(copy.end_pfn(), source.end_pfn());
    let (mut want, mut got) = (vec![0; 4096], vec![1; 4096]);
    for pfn in 0..source.end_pfn().0 {
        let kept = classes.kept.contains(pfn);
        let state = copy.state(Pfn(pfn));
        if kept {
            source.read_frame(Pfn(pfn), &mut want).unwrap();
            if zeros_are_left_out && want.iter().all(|byte| *byte == 0) {
                assert_eq!(state, PageState::Excluded, "pfn {pfn:#x}");
                continue;
            }
            copy.read_frame(Pfn(pfn), &mut got).unwrap();
            assert!(want == got, "pfn {pfn:#x} differs");
        } else {
            let there = source.state(Pfn(pfn)) != PageState::Hole;
            assert_eq!(state, if there { PageState::Excluded } else { PageState::Hole }, "pfn {pfn:#x}");
        }
    }
}

#[test]
fn every_codec_gives_back_every_page() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    for codec in Codec::ALL {
        let path = dir.path().join(codec.name());
        let written = put(&dump, &classes, &options(Form::Kdump(codec), 31), &path, false);
        assert_eq!(written.pages, classes.kept.len());
        assert_eq!(written.bytes, path.metadata().unwrap().len());
        let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
        same(&dump, &classes, &copy, false);
        assert!(copy.completeness().is_complete(), "{codec}");
        assert_eq!(copy.vmcoreinfo_raw().map(<[u8]>::to_vec), dump.vmcoreinfo_raw().map(<[u8]>::to_vec));
        assert_eq!(copy.prstatus().len(), dump.prstatus().len());
        assert_eq!(copy.facts().dump_level, Some(31));
    }
}

#[test]
fn a_flattened_stream_and_elf_give_back_every_page() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    for (name, form, flat) in
        [("flat", Form::Kdump(Codec::Lzo), true), ("elf", Form::Elf, false), ("flat-elf", Form::Elf, true)]
    {
        let path = dir.path().join(name);
        put(&dump, &classes, &options(form, 31), &path, flat);
        let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
        same(&dump, &classes, &copy, form == Form::Elf);
    }
}

#[test]
fn a_set_of_parts_is_the_whole() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let mut paths = Vec::new();
    for range in cut(&classes, dump.end_pfn().0, 3) {
        let path = dir.path().join(format!("part{}", paths.len()));
        let part = Options { part: Some(range), ..options(Form::Kdump(Codec::Zstd), 31) };
        put(&dump, &classes, &part, &path, false);
        paths.push(path);
    }
    assert_eq!(paths.len(), 3);
    let copy = Dump::open_set(&paths, &OpenOptions::default()).unwrap();
    same(&dump, &classes, &copy, false);
}

#[test]
fn without_the_kernels_words_all_pages_stay_and_it_says_so() {
    let dump = real();
    let kernel = kernel(&dump);
    let watch = (&Cancel::default(), &Quiet as _);
    let limits = Limits::default();
    let classes =
        classify(&dump, kernel.memory(), &Vmcoreinfo::default(), None, level(31), &limits, watch).unwrap();
    assert_eq!(classes.kept.len(), dump.completeness().present_pages);
    assert!(classes.notes[0].contains("all") && classes.notes[0].contains("kept"), "{:?}", classes.notes);
}

#[test]
fn slab_without_a_mark_keeps_processes_and_cache() {
    let dump = real();
    let text = String::from_utf8_lossy(dump.vmcoreinfo_raw().unwrap())
        .replace("NUMBER(PG_slab)=", "NUMBER(PG_other)=");
    let kernel = kernel(&dump);
    let watch = (&Cancel::default(), &Quiet as _);
    let info = Vmcoreinfo::parse(text.as_bytes());
    let classes =
        classify(&dump, kernel.memory(), &info, None, level(31), &Limits::default(), watch).unwrap();
    for class in [Class::User, Class::Cache, Class::CachePrivate] {
        assert_eq!(classes.counts.get(class), 0);
    }
    assert!(classes.notes.iter().any(|note| note.contains("slab")), "{:?}", classes.notes);
}

#[test]
fn what_is_interrupted_says_so() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 1);
    let file = File::create_new(dir.path().join("x")).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let form = options(Form::Kdump(Codec::Lzo), 1);
    let outcome =
        write(&dump, &classes, &Texts::of(&dump), None, &form, &mut FileSink(&file), (&cancel, &Quiet));
    assert!(matches!(outcome, Err(vmcore::write::WriteError::Cancelled)));
}

/// A file on a disk with so much room.
struct Small<'f> {
    file: FileSink<'f>,
    room: u64,
}

impl Sink for Small<'_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let fits = self.room.saturating_sub(at).min(bytes.len() as u64);
        self.file.put(at, &bytes[..usize::try_from(fits).unwrap()])?;
        if fits < bytes.len() as u64 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn has_holes(&self) -> bool {
        true
    }

    fn finish(&mut self, len: u64) -> io::Result<()> {
        self.file.finish(len)
    }
}

fn put_small(dump: &Dump, classes: &Classes, options: &Options, path: &Path, room: u64) -> Written {
    let file = File::create_new(path).unwrap();
    let mut sink = Small { file: FileSink(&file), room };
    let (texts, watch) = (Texts::of(dump), (&Cancel::default(), &Quiet as _));
    write(dump, classes, &texts, None, options, &mut sink, watch).unwrap()
}

/// Present frames agree with the source, and there are as many as were written.
fn part_of(source: &Dump, classes: &Classes, copy: &Dump, written: &Written) {
    let (mut want, mut got) = (vec![0; 4096], vec![1; 4096]);
    let mut there = 0;
    for pfn in classes.kept.runs(0..source.end_pfn().0).flatten() {
        if copy.state(Pfn(pfn)) == PageState::Present {
            there += 1;
            source.read_frame(Pfn(pfn), &mut want).unwrap();
            copy.read_frame(Pfn(pfn), &mut got).unwrap();
            assert!(want == got, "pfn {pfn:#x} differs");
        } else {
            assert_eq!(copy.state(Pfn(pfn)), PageState::Lost, "pfn {pfn:#x}");
        }
    }
    assert_eq!(there, written.pages);
    assert_eq!(written.pages + written.no_room, classes.kept.len());
    assert!(!copy.completeness().is_complete());
}

#[test]
fn a_full_disk_leaves_a_dump_of_what_found_room() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    for (name, form) in [("lzo", Form::Kdump(Codec::Lzo)), ("raw", Form::Kdump(Codec::Raw))] {
        let path = dir.path().join(name);
        let room = 4_000_001;
        let written = put_small(&dump, &classes, &options(form, 31), &path, room);
        assert!(written.no_room > 0 && written.pages > 500, "{written:?}");
        // A page at most is wasted.
        assert!(
            room - written.bytes < 4096 && written.bytes == path.metadata().unwrap().len(),
            "{written:?}"
        );
        part_of(&dump, &classes, &Dump::open(&path, &OpenOptions::default()).unwrap(), &written);
    }
}

#[test]
fn a_full_disk_has_first_what_was_to_come_first() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    // The last frames, which the order of frames would put last, and of them every third one even before.
    let end = dump.end_pfn().0;
    let last: Vec<u64> = classes.kept.runs(0..end).flatten().collect();
    let (mut first, mut second) = (Selection::default(), Selection::default());
    for pfn in &last[last.len() - 300..] {
        second.insert(*pfn);
        if pfn % 3 == 0 {
            first.insert(*pfn);
        }
    }
    let whole = Options { first: vec![first, second.clone()], ..options(Form::Kdump(Codec::Lzo), 31) };
    let path = dir.path().join("part");
    let written = put_small(&dump, &classes, &whole, &path, 3_000_000);
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    assert!(written.no_room > 0);
    for pfn in second.runs(0..end).flatten() {
        assert_eq!(copy.state(Pfn(pfn)), PageState::Present, "pfn {pfn:#x}");
    }
    part_of(&dump, &classes, &copy, &written);
    // Where there is room, the order changes nothing of what is in the dump.
    let path = dir.path().join("whole");
    let written = put(&dump, &classes, &whole, &path, false);
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    same(&dump, &classes, &copy, false);
    assert!(written.no_room == 0 && copy.completeness().is_complete());
}

#[test]
fn a_full_disk_cuts_elf_and_its_header_says_so() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let path = dir.path().join("elf");
    let written = put_small(&dump, &classes, &options(Form::Elf, 30), &path, 4 << 20);
    assert!(written.no_room > 0 && written.pages > 100, "{written:?}");
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    assert!(!copy.completeness().is_complete());
}

#[test]
fn a_disk_without_room_for_the_headers_is_an_error() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let file = File::create_new(dir.path().join("x")).unwrap();
    let mut sink = Small { file: FileSink(&file), room: 5000 };
    let form = options(Form::Kdump(Codec::Lzo), 31);
    let watch = (&Cancel::default(), &Quiet as _);
    let outcome = write(&dump, &classes, &Texts::of(&dump), None, &form, &mut sink, watch);
    assert!(matches!(outcome, Err(vmcore::write::WriteError::Io { .. })), "{outcome:?}");
}

#[test]
fn a_stream_that_was_cut_can_be_read_as_far_as_it_goes() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let path = dir.path().join("flat");
    put(&dump, &classes, &options(Form::Kdump(Codec::Lzo), 31), &path, true);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(path.metadata().unwrap().len() / 2).unwrap();
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    assert!(!copy.completeness().is_complete());
    assert!(copy.vmcoreinfo_raw().is_some());
}

#[test]
fn an_elf_has_its_segments_in_the_order_of_frames_and_what_is_worth_most_first_in_the_file() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let kept: Vec<u64> = classes.kept.runs(0..u64::MAX).flatten().collect();
    let of = |frames: &[u64]| {
        let mut set = Selection::default();
        for pfn in frames {
            set.insert(*pfn);
        }
        set
    };
    // Every third frame of the last half, and some of which one is not kept.
    let half = kept.len() / 2;
    let late: Vec<u64> = kept[half..].iter().step_by(3).copied().collect();
    let sorted = Options {
        first: vec![of(&late), of(&[kept[1], kept[2], u64::from(u32::MAX)])],
        ..options(Form::Elf, 31)
    };
    let path = dir.path().join("elf");
    let written = put(&dump, &classes, &sorted, &path, false);
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    same(&dump, &classes, &copy, true);
    let segments = copy.segments();
    assert!(segments.windows(2).all(|pair| pair[0].paddr + pair[0].mem_size <= pair[1].paddr));
    assert!(segments.windows(2).any(|pair| pair[0].offset > pair[1].offset));

    // Cut in the middle it has all of the first frames, and lacks others.
    let len = path.metadata().unwrap().len();
    let first = segments.iter().map(|segment| segment.offset).min().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(first + (len - first) / 2).unwrap();
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    let zero = written.zero_pages;
    let lost = late.iter().filter(|pfn| copy.state(Pfn(**pfn)) == PageState::Lost).count();
    assert_eq!((lost, zero > 0), (0, true));
    assert!(copy.completeness().lost_pages > 0);
}

#[test]
fn a_limit_keeps_what_has_room_and_marks_the_rest() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let classes = classes(&dump, 31);
    let path = dir.path().join("short");
    let limited = Options { limit: Some(4_000_000), ..options(Form::Kdump(Codec::Zstd), 31) };
    let written = put(&dump, &classes, &limited, &path, false);
    assert!(path.metadata().unwrap().len() <= 4_000_000);
    assert!(written.cut_off > 0 && written.pages > 0);
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(copy.completeness().lost_pages, written.cut_off);
    assert_eq!(copy.completeness().present_pages, written.pages);
    assert!(copy.completeness().incomplete_flag);
}

#[test]
fn pages_are_taken_over_as_they_are_stored_and_a_damaged_one_is_noticed() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let zlib = dir.path().join("zlib");
    let all = filter::frames(&dump, &Limits::default(), &Cancel::default()).unwrap();
    put(&dump, &all, &options(Form::Kdump(Codec::Zlib), 1), &zlib, false);
    let stored = std::fs::read(&zlib).unwrap();
    let copy = dir.path().join("copy");
    let over = Options { reuse: Reuse::All, share_zeros: true, ..options(Form::Kdump(Codec::Zlib), 0) };
    put(&Dump::open(&zlib, &OpenOptions::default()).unwrap(), &all, &over, &copy, false);
    assert!(std::fs::read(&copy).unwrap() == stored);

    // The last byte of the file is of the sum of the last page that is compressed.
    let mut damaged = stored;
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&zlib, damaged).unwrap();
    let damaged = Dump::open(&zlib, &OpenOptions::default()).unwrap();
    for (name, verify, unreadable) in [("looked at", true, 1), ("not looked at", false, 0)] {
        let over = Options { verify, ..over.clone() };
        let written = put(&damaged, &all, &over, &dir.path().join(name), false);
        assert_eq!(written.unreadable, unreadable, "{name}");
    }
}

/// A dump of which nine frames of ten are said to be left out, and can be read all the same.
struct SaidToBeGone<'a>(&'a Dump);

impl PhysicalMemory for SaidToBeGone<'_> {
    fn page_size(&self) -> u64 {
        self.0.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        self.0.end_pfn()
    }

    fn state(&self, pfn: Pfn) -> PageState {
        match self.0.state(pfn) {
            PageState::Present if !pfn.0.is_multiple_of(10) => PageState::Excluded,
            other => other,
        }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        self.0.read(paddr, buf)
    }

    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        self.0.next_present(pfn)
    }
}

fn overfiltered(dump: &Dump) -> Option<Finding> {
    let options = TriageOptions::new("test", "0");
    let report = triage(&Subject::new(dump), &options, &Quiet, &Cancel::default());
    report.findings.into_iter().find(|finding| finding.code == "KD-DUMP-OVERFILTERED")
}

#[test]
fn slab_that_a_writer_left_out_is_told_and_nothing_else_is() {
    let (dump, dir) = (real(), tempfile::tempdir().unwrap());
    let kernel = kernel(&dump);
    let all = SaidToBeGone(&dump);
    let memory = KernelMemory::new(&all, kernel.memory().translation().clone());
    let found = left_out(&memory, kernel.vmcoreinfo(), None).unwrap();
    assert!(found.slab.len() > 20, "{found:?}");
    assert!(found.looked_at > 10 * u64::try_from(found.slab.len()).unwrap(), "free pages are no slab");
    assert_eq!(left_out(kernel.memory(), kernel.vmcoreinfo(), None).unwrap().slab, []);
    assert_eq!(overfiltered(&dump), None);

    let mut classes = classes(&dump, 0);
    let kept: Vec<(Pfn, u64)> = classes
        .kept
        .runs(0..u64::MAX)
        .flatten()
        .filter(|pfn| !found.slab.contains(&Pfn(*pfn)))
        .map(|pfn| (Pfn(pfn), 1))
        .collect();
    classes.keep_only(&kept);
    let path = dir.path().join("overfiltered");
    put(&dump, &classes, &options(Form::Kdump(Codec::Lzo), 31), &path, false);
    let copy = Dump::open(&path, &OpenOptions::default()).unwrap();
    let finding = overfiltered(&copy).unwrap();
    // What was an ELF once has no page of zeros, be it slab or not.
    let (elf, again) = (dir.path().join("elf"), dir.path().join("again"));
    put(&dump, &self::classes(&dump, 31), &options(Form::Elf, 31), &elf, false);
    let elf = Dump::open(&elf, &OpenOptions::default()).unwrap();
    put(&elf, &self::classes(&elf, 31), &options(Form::Kdump(Codec::Lzo), 31), &again, false);
    let again = Dump::open(&again, &OpenOptions::default()).unwrap();
    let lacks = found.slab.iter().filter(|pfn| again.state(**pfn) == PageState::Excluded).count();
    assert!(lacks > 0, "no slab is full of zeros");
    assert_eq!(overfiltered(&again), None);

    let count = found.slab.len();
    assert!(finding.evidence[0].starts_with(&format!("{count} of ")), "{finding:?}");
}
