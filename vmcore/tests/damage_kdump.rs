//! Kdump-compressed dumps, damaged in every way that we could think of. Nothing panics, hangs or takes memory by a
//! header's word; what is undamaged is still there; what is missing is said.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use fixtures::bytes::Image;
use fixtures::codec::Codec;
use fixtures::kdump::Kdump;
use fixtures::machine::log::dmesg;
use fixtures::machine::{Built, Machine};
use fixtures::memory::Memory;
use fixtures::note::Note;
use support::{
    assert_no_wrong_bytes, bound_memory, exercise, hostile_values, log, open, opened_or_explained,
};
use vmcore::addr::Pfn;
use vmcore::error::PageError;

fn kdump(built: &Built, codec: Codec) -> Kdump {
    Kdump { notes: built.notes.clone(), phys_base: built.phys_base, cpus: 2, ..Kdump::of(codec) }
}

/// A dump of eight frames, for what is done at each of its bytes.
fn small() -> (Memory, Image) {
    let mut memory = Memory::new(4096).ram(0..8);
    memory.write(0x1000, &[0x11; 4096]);
    memory.write(0x2345, b"some text in the third frame");
    memory.exclude(5..6);
    let notes = vec![Note::vmcoreinfo("OSRELEASE=6.1.0\nPAGESIZE=4096\n")];
    let image =
        Kdump { notes, eraseinfo: Some("erase x 1\n".into()), ..Kdump::of(Codec::Zlib) }.build(&memory);
    (memory, image)
}

/// Whether the descriptor and the data of `pfn` both lie before `cut`.
fn is_before(image: &Image, pfn: u64, cut: u64) -> bool {
    let before = |name: &str| image.find(name).is_some_and(|mark| mark.end <= cut);
    before(&format!("desc {pfn:#x}"))
        && (before(&format!("page {pfn:#x}"))
            || (image.find(&format!("page {pfn:#x}")).is_none() && before("zero page")))
}

#[test]
fn cut_at_every_byte() {
    bound_memory(4096);
    let (memory, image) = small();
    let bytes = image.bytes();
    let end_of_data = image.find("eraseinfo").unwrap().start;
    for cut in 0..bytes.len() {
        let name = format!("cut at {cut:#x}");
        let Some(dump) = opened_or_explained(&name, bytes[..cut].to_vec()) else {
            assert!(cut < 4096 * 4, "{name}: headers and bitmaps are whole, and it does not open");
            continue;
        };
        let cut = cut as u64;
        let told = !dump.completeness().is_complete() || !dump.completeness().repairs.is_empty();
        assert!(told, "{name}: nothing says that it was cut: {:?}", dump.completeness());
        if cut < end_of_data {
            assert!(
                dump.completeness().lost_pages > 0 || dump.completeness().truncated_at.is_some(),
                "{name}"
            );
        }
        assert_no_wrong_bytes(&name, &dump, &memory, |pfn| is_before(&image, pfn, cut));
    }
}

#[test]
fn cut_at_and_beside_every_structure() {
    bound_memory(4096);
    let built = Machine::default().build();
    for codec in [Codec::Zlib, Codec::Raw] {
        let image = kdump(&built, codec).build(&built.memory);
        let bytes = image.bytes();
        for cut in image.cuts() {
            let name = format!("{} cut at {cut:#x}", codec.name());
            let Some(dump) = opened_or_explained(&name, bytes[..usize::try_from(cut).unwrap()].to_vec())
            else {
                continue;
            };
            assert!(!dump.completeness().is_complete(), "{name}");
            assert_no_wrong_bytes(&name, &dump, &built.memory, |pfn| is_before(&image, pfn, cut));
        }
    }
}

#[test]
fn cut_at_half_it_still_yields_its_log_where_the_pages_are_there() {
    let built = Machine::default().build();
    for codec in Codec::ALL {
        let mut memory = built.memory.clone();
        // Bulk behind what the log needs, as user space has it, so that half the file is that bulk.
        for pfn in 0x1400..0x1480 {
            memory.write(pfn * 4096, &fixtures::shuffle::Seed(pfn).bytes(4096));
        }
        memory.include(0x1400..0x1480);
        let image = kdump(&built, codec).build(&memory);
        let mut bytes = image.bytes();
        bytes.truncate(bytes.len() / 2);
        let dump = open(bytes).unwrap();
        assert!(dump.completeness().lost_pages > 50, "{}", codec.name());
        assert_eq!(log(&dump), Ok((dmesg(&built.lines), true)), "{}", codec.name());
    }
}

#[test]
fn every_field_with_hostile_values() {
    bound_memory(4096);
    let built = Machine::default().build();
    let image = kdump(&built, Codec::Lzo).build(&built.memory);
    let bytes = image.bytes();
    let mut descriptors = 0;
    for mark in image.marks().iter().filter(|mark| mark.is_field() && mark.end - mark.start <= 8) {
        descriptors += u32::from(mark.name.starts_with("desc"));
        let at = usize::try_from(mark.start).unwrap()..usize::try_from(mark.end).unwrap();
        let truth = bytes[at].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        for value in hostile_values(truth, mark.end - mark.start) {
            let name = format!("{} = {value:#x}", mark.name);
            if let Some(dump) = opened_or_explained(&name, image.with(&mark.name, value).unwrap()) {
                exercise(&dump, 200);
            }
        }
    }
    assert!(descriptors > 80, "{descriptors}");
}

/// How a dump must answer.
enum Answer {
    /// It does not open; the sentence holds these words.
    Refused(&'static str),
    /// It opens, and says that it was cut: no page can be found.
    Nothing,
    /// It opens; reading frame 0x10 (a zero frame) or 0x1000 (text) gives this.
    Reads,
    /// It opens, and says of the frame 0x1000 that it is corrupt, in these words.
    Corrupt(&'static str),
    /// It opens, and says of the frame 0x1000 that it is lost.
    Lost,
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn one_line_per_way_a_file_can_be_wrong() {
    bound_memory(4096);
    let built = Machine::default().build();
    let image = kdump(&built, Codec::Zlib).build(&built.memory);
    // The text is noise, so its page is stored raw.
    let text = "desc 0x1000";
    let banner = "desc 0x1100";
    let field = |field: &str, value: u64| image.with(field, value).unwrap();
    let fields = |changes: &[(&str, u64)]| {
        let mut bytes = image.bytes();
        for (name, value) in changes {
            let mark = image.find(name).unwrap();
            let new = mark.endian.bytes(*value, usize::try_from(mark.end - mark.start).unwrap());
            bytes[usize::try_from(mark.start).unwrap()..usize::try_from(mark.end).unwrap()]
                .copy_from_slice(&new);
        }
        bytes
    };
    let len = image.len();
    let cases: Vec<(&str, Vec<u8>, &str, Answer)> = vec![
        ("page size 0", field("header.block_size", 0), text, Answer::Refused("page size")),
        ("page size 4097", field("header.block_size", 4097), text, Answer::Refused("page size")),
        ("page size 2^31", field("header.block_size", 1 << 31), text, Answer::Refused("page size")),
        ("a sub header past the end", field("header.sub_hdr_size", 0x7fff_ffff), text, Answer::Nothing),
        ("version 7", field("header.header_version", 7), text, Answer::Reads),
        ("data past the end", field(&format!("{text}.offset"), len + 1), text, Answer::Lost),
        (
            "data at the end of 64 bits",
            field(&format!("{text}.offset"), u64::MAX),
            text,
            Answer::Corrupt("points"),
        ),
        ("data that runs over the end", field(&format!("{text}.offset"), len - 100), text, Answer::Lost),
        (
            "no descriptor",
            fields(&[(&format!("{text}.offset"), 0), (&format!("{text}.size"), 0)]),
            text,
            Answer::Lost,
        ),
        ("size 0", field(&format!("{text}.size"), 0), text, Answer::Corrupt("0")),
        ("size above a page", field(&format!("{text}.size"), 4097), text, Answer::Corrupt("4097")),
        (
            "size at its maximum",
            field(&format!("{text}.size"), 0xffff_ffff),
            text,
            Answer::Corrupt("4294967295"),
        ),
        ("raw, and called zlib", field(&format!("{text}.flags"), 1), text, Answer::Corrupt("zlib")),
        ("raw, and called zstd", field(&format!("{text}.flags"), 0x20), text, Answer::Corrupt("Zstandard")),
        ("a codec of no name", field(&format!("{text}.flags"), 0x40), text, Answer::Corrupt("0x40")),
        ("two codecs at once", field(&format!("{text}.flags"), 0x3), text, Answer::Corrupt("0x3")),
        ("zlib, and called raw", field(&format!("{banner}.flags"), 0), banner, Answer::Corrupt("")),
        ("zlib, and called lzo", field(&format!("{banner}.flags"), 2), banner, Answer::Corrupt("LZO")),
        (
            "zlib, and called snappy",
            field(&format!("{banner}.flags"), 4),
            banner,
            Answer::Corrupt("not a page of 4096"),
        ),
        (
            "zlib, one byte short",
            field(&format!("{banner}.size"), image_size(&image, banner) - 1),
            banner,
            Answer::Corrupt("zlib"),
        ),
        ("notes past the end", field("sub.offset_note", len), text, Answer::Reads),
        ("notes of 2^63 bytes", field("sub.size_note", 1 << 63), text, Answer::Reads),
        ("notes at -1", field("sub.offset_note", u64::MAX), text, Answer::Reads),
        ("vmcoreinfo at -1", field("sub.offset_vmcoreinfo", u64::MAX), text, Answer::Reads),
        (
            "erase info past the end",
            fields(&[("sub.offset_eraseinfo", len), ("sub.size_eraseinfo", 64)]),
            text,
            Answer::Reads,
        ),
        ("a note name of 4 GiB", field("note 0.n_namesz", 0xffff_ffff), text, Answer::Reads),
        ("a note of 4 GiB", field("note 2.n_descsz", 0xffff_ffff), text, Answer::Reads),
        ("cpus at their maximum", field("header.nr_cpus", 0x7fff_ffff), text, Answer::Reads),
    ];
    for (name, bytes, desc, answer) in cases {
        let pfn = Pfn(u64::from_str_radix(desc.trim_start_matches("desc 0x"), 16).unwrap());
        let opened = open(bytes);
        let dump = match (opened, &answer) {
            (Err(why), Answer::Refused(words)) => {
                support::assert_readable(&why.to_string());
                assert!(why.to_string().contains(words), "{name}: {why}");
                continue;
            }
            (Err(why), _) => panic!("{name}: it should open, but {why}"),
            (Ok(_), Answer::Refused(_)) => panic!("{name}: it opened"),
            (Ok(dump), _) => dump,
        };
        if matches!(answer, Answer::Nothing) {
            assert!(dump.completeness().present_pages == 0 && !dump.completeness().is_complete(), "{name}");
            continue;
        }
        let mut page = [0; 4096];
        let read = dump.read_frame(pfn, &mut page);
        match (&read, &answer) {
            (Ok(_), Answer::Reads) => assert_eq!(Some(page.to_vec()), built.memory.truth(pfn.0), "{name}"),
            (Err(PageError::Lost { .. }), Answer::Lost) => {}
            (Err(why @ PageError::Corrupt { .. }), Answer::Corrupt(words)) => {
                assert!(why.to_string().contains(words), "{name}: {why}");
            }
            _ => panic!("{name}: {read:?}"),
        }
        if let Err(why) = read {
            support::assert_readable(&why.to_string());
        }
        exercise(&dump, 200);
        // Whatever happened to one page or note: the log's pages are sound, and so is the log.
        if dump.vmcoreinfo_raw().is_some() || dump.completeness().present_pages > 0 {
            assert_eq!(log(&dump).map(|(text, _)| text), Ok(dmesg(&built.lines)), "{name}");
        }
    }
}

fn image_size(image: &Image, desc: &str) -> u64 {
    let mark = image.find(&desc.replace("desc", "page")).unwrap();
    mark.end - mark.start
}

#[test]
fn bitmap_bits_without_descriptors_are_lost_frames_and_no_others() {
    let (memory, image) = small();
    let mut bytes = image.bytes();
    // Bitmap 2 claims frames that have no descriptor: all of the first 4096 · 8.
    let bitmap2 = image.find("bitmap2").unwrap();
    let (start, end) = (usize::try_from(bitmap2.start).unwrap(), usize::try_from(bitmap2.end).unwrap());
    bytes[start..end].fill(0xff);
    if let Some(dump) = opened_or_explained("bits without descriptor", bytes) {
        exercise(&dump, 40_000);
        assert_eq!(
            dump.completeness().announced_pages,
            dump.completeness().present_pages
                + dump.completeness().excluded_pages
                + dump.completeness().lost_pages
        );
    }
    // Bitmap 2 claims nothing: nothing is there, and no descriptor is read.
    let mut bytes = image.bytes();
    bytes[start..end].fill(0);
    if let Some(dump) = opened_or_explained("no bit at all", bytes) {
        assert_eq!(dump.completeness().present_pages, 0);
        exercise(&dump, 100);
    }
    // Bitmap 1 says that nothing is RAM, bitmap 2 has the frames nevertheless.
    let mut bytes = image.bytes();
    let bitmap1 = image.find("bitmap1").unwrap();
    bytes[usize::try_from(bitmap1.start).unwrap()..usize::try_from(bitmap1.end).unwrap()].fill(0);
    if let Some(dump) = opened_or_explained("stored, and not RAM", bytes) {
        assert_no_wrong_bytes("stored, and not RAM", &dump, &memory, |_| false);
        exercise(&dump, 100);
    }
}

#[test]
fn a_writer_that_stopped_early_left_zero_descriptors() {
    let built = Machine::default().build();
    let mut memory = built.memory.clone();
    memory.lose(0x1280..0x1300);
    let dump = open(kdump(&built, Codec::Zlib).build(&memory).bytes()).unwrap();
    assert!(dump.completeness().incomplete_flag);
    support::assert_same_memory("incomplete", &dump, &memory);
    // The same without the flag: descriptors of zero are lost frames all the same, and never a page at offset 0.
    let image = kdump(&built, Codec::Zlib).build(&memory);
    let dump = open(image.with("header.status", 1).unwrap()).unwrap();
    support::assert_same_memory("incomplete without the flag", &dump, &memory);
    // The flag without a lost frame.
    let dump =
        open(Kdump { incomplete: true, ..kdump(&built, Codec::Zlib) }.build(&built.memory).bytes()).unwrap();
    assert!(!dump.completeness().is_complete());
    support::assert_same_memory("the flag alone", &dump, &built.memory);
}

#[test]
fn a_dump_of_another_kind_with_the_right_signature() {
    bound_memory(4096);
    for filler in [0u8, 0xff, 0x20, 0x41] {
        for len in [8usize, 100, 464, 4096, 8192, 65536] {
            let mut bytes = vec![filler; len];
            bytes[..8].copy_from_slice(b"KDUMP   ");
            if let Some(dump) = opened_or_explained(&format!("{filler:#x} × {len}"), bytes) {
                exercise(&dump, 100);
            }
        }
    }
}

/// Found by fuzzing: a walk over what is stored went on through frames whose bits no file holds.
#[test]
fn a_highest_frame_far_behind_the_bitmaps_does_not_keep_a_walk_busy() {
    bound_memory(4096);
    let (memory, image) = small();
    let blocks = image.find("header.bitmap_blocks").unwrap();
    let blocks = usize::try_from(blocks.start).unwrap()..usize::try_from(blocks.end).unwrap();
    for frames in [1u64 << 32, 1 << 35, 1 << 36, u64::MAX] {
        let name = format!("{frames:#x} frames");
        let start = std::time::Instant::now();
        let mut bytes = image.with("sub.max_mapnr_64", frames).unwrap();
        // Bitmaps of a size to match are announced, and of course the file ends within them.
        let announced = u32::try_from(frames / 8 / 4096 * 2).unwrap_or(u32::MAX);
        bytes[blocks.clone()].copy_from_slice(&announced.to_le_bytes());
        if let Some(dump) = opened_or_explained(&name, bytes) {
            exercise(&dump, 100);
            assert_no_wrong_bytes(&name, &dump, &memory, |_| false);
        }
        assert!(start.elapsed().as_secs() < 20, "{name}: {:?}", start.elapsed());
    }
}

/// The same dump with one byte of the bitmap of stored frames changed.
fn with_changed_bitmap(image: &Image, at: u64, flip: u8) -> vmcore::Dump {
    let mut bytes = image.bytes();
    let bitmap = image.find("bitmap2").unwrap().start;
    bytes[usize::try_from(bitmap + at).unwrap()] ^= flip;
    open(bytes).unwrap()
}

#[test]
fn a_bitmap_that_is_not_the_descriptors_own_is_told() {
    // Frames that are zeros and that are not, so that both the zero page and a page of its own come first.
    for first in [&[0x11_u8; 4096], &[0; 4096]] {
        let mut memory = Memory::new(4096).ram(0..40_000);
        memory.write(0, first);
        for pfn in 1..40_000 {
            memory.write(pfn * 4096 + 7, &[u8::try_from(pfn % 200).unwrap() + 1; 16]);
        }
        memory.exclude(500..600);
        for codec in [Codec::Zlib, Codec::Lzo, Codec::Raw] {
            for kdump in [Kdump::of(codec), Kdump::qemu(codec)] {
                let image = kdump.build(&memory);
                assert!(open(image.bytes()).unwrap().completeness().is_complete());
                // One frame too few, too many, and several of either.
                for (at, flip) in [(0, 1), (10, 0x40), (65, 1), (4000, 0xff), (66, 0xff)] {
                    let dump = with_changed_bitmap(&image, at, flip);
                    let state = dump.completeness();
                    assert!(!state.is_complete() && state.misplaced_pages > 30_000, "{at} {flip}: {state:?}");
                    assert!(state.repairs.iter().any(|said| said.contains("the bitmap names")), "{state:?}");
                }
            }
        }
    }
}

#[test]
fn a_changed_bitmap_of_a_few_frames_is_told() {
    let (_, image) = small();
    for bit in 0..8 {
        let dump = with_changed_bitmap(&image, 0, 1 << bit);
        let state = dump.completeness();
        assert!(state.misplaced_pages > 0, "bit {bit}: {state:?}");
    }
}
