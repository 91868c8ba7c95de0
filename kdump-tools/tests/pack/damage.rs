//! Each way a package can be damaged is named, and what is whole comes back all the same.

use super::*;

/// A package of a report, a small file and a dump over several parts.
fn desk() -> Desk {
    let desk = Desk::new();
    let files = [
        desk.file("report.txt", b"it crashed"),
        desk.file("small.log", &noise(2, 700)),
        desk.file("vmcore", &noise(1, 4 * MIB)),
    ];
    desk.pack(&files);
    desk
}

fn sentences(desk: &Desk) -> Vec<String> {
    desk.verify().problems.iter().map(|problem| format!("{}: {}", problem.code, problem.sentence)).collect()
}

#[test]
fn a_whole_package_has_no_problem() {
    let desk = desk();
    let verdict = desk.verify();
    assert_eq!(verdict.problems, []);
    assert_eq!(verdict.parts_right, verdict.package.manifest.parts.len());
    assert_eq!(verdict.artifacts_right, Some(3));
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let desk = desk();
    let part = desk.part(3);
    let length = std::fs::metadata(&part).unwrap().len();
    let quick = |desk: &Desk| verify(&desk.package(), Depth::Parts, &Quiet, &Cancel::default()).unwrap();
    for at in (0..16).chain((16..length).step_by(200_003)).chain(length - 8..length) {
        let index = usize::try_from(at).unwrap();
        change(&part, |bytes| bytes[index] ^= 0x10);
        let problem = quick(&desk).problems.remove(0);
        assert_eq!(problem.code, "part-damaged", "byte {at}");
        assert!(problem.sentence.starts_with("02345678.part-0003-of-"), "{}", problem.sentence);
        // The frame that is named is the one that the byte is in: no frame has more than 256 KiB here.
        if let Some(frame) = problem.at {
            assert!((frame..frame + (257 << 10)).contains(&at), "byte {at}, told {frame}");
        }
        change(&part, |bytes| bytes[index] ^= 0x10);
    }
    assert_eq!(quick(&desk).problems, []);
}

#[test]
fn damage_names_the_part_the_byte_and_the_file_that_is_lost() {
    let desk = desk();
    change(&desk.part(3), |bytes| bytes[300_000] ^= 1);
    let said = sentences(&desk);
    assert!(
        said[0].starts_with("part-damaged: 02345678.part-0003-of-0006 is damaged: what starts at byte 2580"),
        "{said:?}"
    );
    assert_eq!(
        said[1],
        "artifact-damaged: vmcore can't be given back: some of its bytes are in 02345678.part-0003-of-0006, which is damaged"
    );
    let done = desk.unpack().unwrap();
    assert_eq!(done.lost.len(), 1);
    assert_eq!(names(&desk.path("out")), ["report.txt", "small.log"]);
    assert_eq!(done.problems.len(), 1);
}

#[test]
fn a_missing_part_is_named_and_the_rest_comes_back() {
    let desk = desk();
    std::fs::remove_file(desk.part(4)).unwrap();
    assert_eq!(
        sentences(&desk),
        [
            "part-missing: 02345678.part-0004-of-0006 is missing",
            "artifact-damaged: vmcore can't be given back: some of its bytes are in 02345678.part-0004-of-0006, which is missing",
        ]
    );
    let done = desk.unpack().unwrap();
    assert_eq!(done.written.len(), 2);
    assert_eq!(done.lost[0].0.to_string(), "vmcore");
    assert_eq!(done.problems[0].code, "part-missing");
}

#[test]
fn a_cut_part_says_where_it_ends() {
    let desk = desk();
    change(&desk.part(2), |bytes| bytes.truncate(1000));
    let said = sentences(&desk);
    assert!(
        said[0].starts_with(
            "part-short: 02345678.part-0002-of-0006 is cut off: it ends at byte 1000, and has to have "
        ),
        "{said:?}"
    );
    // The small file lies before the cut only if its frame does: it shares one with the dump.
    assert!(said[1].contains("small.log can't be given back"), "{said:?}");
    change(&desk.part(2), Vec::clear);
    assert!(sentences(&desk)[0].contains("ends at byte 0"), "{:?}", sentences(&desk));
}

#[test]
fn bytes_behind_a_part_are_named_and_do_no_harm() {
    let desk = desk();
    let length = std::fs::metadata(desk.part(2)).unwrap().len();
    change(&desk.part(2), |bytes| bytes.extend(b"more"));
    assert_eq!(
        sentences(&desk),
        [format!(
            "part-long: 02345678.part-0002-of-0006 has 4 bytes too many from byte {length} on; what is before them is right"
        )]
    );
    let done = desk.unpack().unwrap();
    assert_eq!((done.written.len(), done.lost.len(), done.problems.len()), (3, 0, 1));
}

#[test]
fn swapped_parts_are_told_which_is_which() {
    let desk = desk();
    let (one, two) = (desk.part(2), desk.part(3));
    let aside = desk.path("aside");
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&two, &one).unwrap();
    std::fs::rename(&aside, &two).unwrap();
    let said = verify(&desk.package(), Depth::Parts, &Quiet, &Cancel::default()).unwrap().problems;
    let said: Vec<&str> = said.iter().map(|problem| problem.sentence.as_str()).collect();
    // The lengths differ, so each is first seen as cut off or too long.
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|said| said.contains("02345678.part-000")), "{said:?}");
}

#[test]
fn parts_of_the_same_length_that_were_swapped_are_told() {
    let desk = Desk::new();
    // Frames of noise are equally long, so are the parts but for the first and the last.
    desk.pack(&[desk.file("vmcore", &noise(1, 6 * MIB))]);
    let (one, two) = (desk.part(2), desk.part(3));
    let aside = desk.path("aside");
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&two, &one).unwrap();
    std::fs::rename(&aside, &two).unwrap();
    let said = sentences(&desk);
    assert_eq!(
        said[0],
        "part-swapped: 02345678.part-0002-of-0007 holds the bytes of 02345678.part-0003-of-0007"
    );
    assert_eq!(
        said[1],
        "part-swapped: 02345678.part-0003-of-0007 holds the bytes of 02345678.part-0002-of-0007"
    );
}

#[test]
fn a_renamed_part_is_found_and_a_copy_is_named() {
    let desk = desk();
    let part = desk.part(3);
    std::fs::rename(&part, desk.package().join("02345678.part-0003-of-0006 (1)")).unwrap();
    assert!(sentences(&desk)[0].starts_with(
        "part-renamed: 02345678.part-0003-of-0006 is missing, but 02345678.part-0003-of-0006 (1) holds its bytes"
    ));
    std::fs::copy(desk.package().join("02345678.part-0003-of-0006 (1)"), &part).unwrap();
    assert_eq!(
        sentences(&desk),
        [
            "part-extra: 02345678.part-0003-of-0006 (1) is not in the manifest; it is a copy of 02345678.part-0003-of-0006"
        ]
    );
}

#[test]
fn a_part_of_another_package_is_named_and_a_note_is_no_problem() {
    let desk = desk();
    std::fs::write(desk.package().join("other.part-0001-of-0001"), "x").unwrap();
    std::fs::write(desk.package().join("notes.txt"), "x").unwrap();
    let verdict = desk.verify();
    assert_eq!(verdict.problems.len(), 1);
    assert_eq!(
        verdict.problems[0].sentence,
        "other.part-0001-of-0001 is not in the manifest, and looks like a part"
    );
    assert_eq!(verdict.strangers, ["notes.txt"]);
}

#[test]
fn digests_that_contradict_the_manifest_are_named() {
    let desk = desk();
    let sums = desk.package().join("SHA256SUMS");
    let text = std::fs::read_to_string(&sums).unwrap();
    std::fs::write(&sums, text.replacen(|c: char| c.is_ascii_hexdigit(), "x", 1)).unwrap();
    assert_eq!(
        sentences(&desk),
        ["sums-disagree: SHA256SUMS tells another digest of 02345678.part-0001-of-0006 than the manifest"]
    );
    std::fs::write(&sums, text.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(sentences(&desk), ["sums-disagree: SHA256SUMS does not name 02345678.part-0001-of-0006"]);
    std::fs::remove_file(&sums).unwrap();
    assert_eq!(sentences(&desk), ["sums-missing: SHA256SUMS is missing"]);
}

#[test]
fn a_folder_or_a_pipe_in_place_of_a_part_does_not_stop_the_look() {
    let desk = desk();
    let part = desk.part(2);
    std::fs::remove_file(&part).unwrap();
    std::fs::create_dir(&part).unwrap();
    assert!(
        sentences(&desk)[0].contains("can't be read: it is not a regular file"),
        "{:?}",
        sentences(&desk)
    );
    std::fs::remove_dir(&part).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&part).status().unwrap();
    assert!(made.success());
    assert!(
        sentences(&desk)[0].contains("can't be read: it is not a regular file"),
        "{:?}",
        sentences(&desk)
    );
}
