//! Packing that was stopped goes on where it stopped.

use std::sync::atomic::{AtomicU64, Ordering};

use vmcore::progress::Progress;

use super::*;

/// Asks for the stop once so many bytes are packed.
struct StopAfter {
    left: AtomicU64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn advance(&self, units: u64) {
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(units)));
        if before.unwrap() <= units {
            self.cancel.cancel();
        }
    }
}

fn pack_until(desk: &Desk, sources: &[PathBuf], bytes: u64) -> Result<Packed, PackError> {
    let cancel = Cancel::default();
    let stop = StopAfter { left: AtomicU64::new(bytes), cancel: cancel.clone() };
    pack(&plan(&desk.request(sources)).unwrap(), true, &stop, &cancel)
}

fn sources(desk: &Desk) -> Vec<PathBuf> {
    vec![
        desk.file("report.txt", b"it crashed"),
        desk.file("empty", b""),
        desk.file("a", &noise(1, 3 * MIB + 5)),
        desk.file("b", &noise(2, 4 * MIB)),
        desk.file("c", b"the last"),
    ]
}

#[test]
fn stopped_anywhere_it_makes_the_same_package() {
    let whole = Desk::new();
    let whole = whole.pack(&sources(&whole)).manifest;
    for bytes in [1, MIB, 2 * MIB, 3 * MIB, 5 * MIB, 13 * MIB / 2] {
        let desk = Desk::new();
        let sources = sources(&desk);
        let error = pack_until(&desk, &sources, bytes).unwrap_err();
        assert!(matches!(error, PackError::Cancelled), "{error}");
        assert_eq!(error.exit().code(), 130);
        // Nothing has its final name yet.
        assert!(
            names(&desk.package()).iter().all(|name| name == ".kdt-pack"),
            "{:?}",
            names(&desk.package())
        );
        let packed = desk.pack(&sources);
        assert!(packed.resumed_parts > 0, "the report was done before {bytes} bytes were");
        let digests = |manifest: &kdump_tools::pack::Manifest| {
            manifest.parts.iter().map(|part| part.sha256).collect::<Vec<_>>()
        };
        // The times of the files differ, and with them the headers; their bytes do not.
        assert_eq!(digests(&packed.manifest).len(), digests(&whole).len());
        assert_eq!(desk.verify().problems, []);
        assert!(!desk.package().join(".kdt-pack").exists());
        desk.unpack().unwrap();
        for source in &sources {
            let name = source.file_name().unwrap().to_str().unwrap();
            assert_eq!(desk.unpacked(name), fs::read(source).unwrap());
        }
    }
}

#[test]
fn a_damaged_leftover_is_made_anew() {
    let desk = Desk::new();
    let sources = sources(&desk);
    pack_until(&desk, &sources, 6 * MIB).unwrap_err();
    change(&desk.package().join(".kdt-pack/part-0003"), |bytes| bytes[1000] ^= 1);
    let packed = desk.pack(&sources);
    assert_eq!(packed.resumed_parts, 2);
    assert_eq!(desk.verify().problems, []);
}

#[test]
fn a_journal_that_was_cut_off_is_read_up_to_the_cut() {
    let whole = {
        let desk = Desk::new();
        pack_until(&desk, &sources(&desk), 6 * MIB).unwrap_err();
        fs::read(desk.package().join(".kdt-pack/journal")).unwrap().len()
    };
    for cut in (0..whole).step_by(61) {
        let desk = Desk::new();
        let sources = sources(&desk);
        pack_until(&desk, &sources, 6 * MIB).unwrap_err();
        change(&desk.package().join(".kdt-pack/journal"), |bytes| bytes.truncate(cut));
        desk.pack(&sources);
        assert_eq!(desk.verify().problems, [], "cut at {cut}");
    }
}

#[test]
fn other_files_begin_anew() {
    let desk = Desk::new();
    let mut sources = sources(&desk);
    pack_until(&desk, &sources, 6 * MIB).unwrap_err();
    fs::write(&sources[2], noise(9, 2 * MIB)).unwrap();
    assert_eq!(desk.pack(&sources).resumed_parts, 0);
    assert_eq!(desk.verify().problems, []);
    desk.unpack().unwrap();
    assert_eq!(desk.unpacked("a"), noise(9, 2 * MIB));
    sources.clear();
}

#[test]
fn stopped_while_the_parts_get_their_names_it_finishes() {
    let desk = Desk::new();
    let sources = sources(&desk);
    let packed = desk.pack(&sources);
    let manifest = fs::read(desk.package().join("manifest.json")).unwrap();
    // The state after some of the renames, made from what a finished run and a journal look like.
    for named in [0, 1, 5, packed.manifest.parts.len()] {
        let copy = Desk::new();
        fs::remove_dir_all(copy.path("in")).unwrap();
        let target = copy.package();
        let workshop = target.join(".kdt-pack");
        fs::create_dir_all(&workshop).unwrap();
        let request = PackRequest { target: target.clone(), ..desk.request(&sources) };
        let planned = plan(&request).unwrap();
        // A run that is stopped at once leaves the journal's first line; the others are these.
        let mut lines = vec![begin_line(&desk, &planned, &packed.manifest.created)];
        let mut start = 0;
        for (index, part) in packed.manifest.parts.iter().enumerate() {
            let end = part.stream_offset + part.stream_bytes;
            let ended = packed.manifest.artifacts.iter().enumerate().filter(|(_, artifact)| {
                let last = artifact.offset + artifact.size;
                last <= end && (last > start || start == 0)
            });
            let finished: Vec<_> = ended.map(|(at, artifact)| (at, artifact.sha256)).collect();
            let line = serde_json::json!({"did": "part", "size": part.size, "sha256": part.sha256, "stream_end": end, "finished": finished});
            lines.push(line.to_string());
            start = end;
            let to = if index < named {
                target.join(&part.name)
            } else {
                workshop.join(format!("part-{:04}", index + 1))
            };
            fs::copy(desk.package().join(&part.name), to).unwrap();
        }
        lines.push(serde_json::json!({"did": "end", "parts": packed.manifest.parts.len()}).to_string());
        fs::write(workshop.join("journal"), lines.join("\n") + "\n").unwrap();
        let again = pack(&planned, true, &Quiet, &Cancel::default()).unwrap();
        assert_eq!(again.manifest, packed.manifest, "{named} named");
        assert_eq!(fs::read(target.join("manifest.json")).unwrap(), manifest);
        assert_eq!(copy.verify().problems, []);
    }
}

/// The first line of a journal of this plan, taken from a run that is stopped after it.
fn begin_line(desk: &Desk, planned: &kdump_tools::pack::PackPlan, created: &str) -> String {
    let aside = desk.path("aside");
    let mut planned = planned.clone();
    planned.target.clone_from(&aside);
    let cancel = Cancel::default();
    let stop = StopAfter { left: AtomicU64::new(2 * MIB), cancel: cancel.clone() };
    pack(&planned, true, &stop, &cancel).unwrap_err();
    let journal = fs::read_to_string(aside.join(".kdt-pack/journal")).unwrap();
    fs::remove_dir_all(aside).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    line["created"] = created.into();
    line.to_string()
}

#[test]
fn two_at_once_are_refused() {
    let desk = Desk::new();
    let sources = sources(&desk);
    pack_until(&desk, &sources, 6 * MIB).unwrap_err();
    let journal = fs::File::open(desk.package().join(".kdt-pack/journal")).unwrap();
    journal.lock().unwrap();
    let error = pack(&plan(&desk.request(&sources)).unwrap(), true, &Quiet, &Cancel::default()).unwrap_err();
    assert!(error.to_string().starts_with("another kdt is packing into "), "{error}");
    journal.unlock().unwrap();
    desk.pack(&sources);
}
