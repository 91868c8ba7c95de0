//! A manifest is written by a stranger: each lie in it is told, and none leads out of the folder.

use std::io::Read as _;

use serde_json::{Value, json};

use super::*;

/// What opening the package says after the manifest was changed, and made to agree with itself again where
/// the lie is not about the root digest.
fn said(desk: &Desk, change: impl FnOnce(&mut Value)) -> (String, u8) {
    let path = desk.package().join("manifest.json");
    let kept = fs::read(&path).unwrap();
    let mut manifest: Value = serde_json::from_slice(&kept).unwrap();
    change(&mut manifest);
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let error = verify(&desk.package(), Depth::Artifacts, &Quiet, &Cancel::default()).unwrap_err();
    let unpack = desk.unpack().unwrap_err();
    assert_eq!(error.to_string(), unpack.to_string());
    fs::write(&path, kept).unwrap();
    let text = error.to_string();
    let why = text.split("is not a usable package list: ").nth(1).unwrap_or(&text).to_owned();
    (why, error.exit().code())
}

fn desk() -> Desk {
    let desk = Desk::new();
    desk.pack(&[desk.file("a", &noise(1, 1000)), desk.file("b", &noise(2, 2 * MIB))]);
    desk
}

type Lie = fn(&mut Value);

#[test]
fn every_lie_is_told() {
    let desk = desk();
    let lies: [(Lie, &str); 24] = [
        (|m| m["schema"] = json!("kdt/package/2"), "it is of schema kdt/package/2, which a newer kdt writes"),
        (|m| m["schema"] = json!("\u{1b}[2J"), "its schema is "),
        (|m| m["codec"] = json!("xz"), "its codec is \"xz\", and only zstd is read"),
        (|m| m["encryption"] = json!({"age": []}), "its parts are encrypted or have parity"),
        (|m| m["parity"] = json!([[[]]]), "its parts are encrypted or have parity"),
        (|m| m["case"] = json!("../../x"), "it is not what schema kdt/package/1 says: a case is"),
        (|m| m["created"] = json!("x\ny"), "its time of creation is not a time"),
        (
            |m| m["artifacts"][0]["name"] = json!("../../etc/cron.d/x"),
            "the name of artifact 0 has '..' in it",
        ),
        (|m| m["artifacts"][0]["name"] = json!("/etc/x"), "the name of artifact 0 starts at the root"),
        (|m| m["artifacts"][0]["name"] = json!(""), "the name of artifact 0 is empty"),
        (|m| m["artifacts"][0]["name"] = json!("a\0"), "the name of artifact 0 has a NUL byte in it"),
        (
            |m| m["artifacts"][0]["name"] = json!(".kdt-unpack/1"),
            "the name of artifact 0, .kdt-unpack/1, is one that kdt keeps",
        ),
        (|m| m["artifacts"][0]["name_hex"] = json!("2e2e2f78"), "the name of artifact 0 has '..' in it"),
        (|m| m["artifacts"][0]["name_hex"] = json!("xx"), "the name of artifact 0 is not hexadecimal"),
        (|m| m["artifacts"][1]["name"] = json!("a"), "two artifacts are called a"),
        (|m| m["artifacts"][1]["name"] = json!("a/b"), "a is a file, and a folder too, of a/b"),
        (|m| m["artifacts"][0]["size"] = json!(-1), "it is not what schema kdt/package/1 says: "),
        (|m| m["artifacts"][0]["size"] = json!(u64::MAX), "its artifacts are longer than 2^64 bytes"),
        (|m| m["artifacts"][1]["offset"] = json!(7), "artifact 1 is said to be at 7 in the stream"),
        (
            |m| m["artifacts"][0]["sha256"] = json!("00"),
            "it is not what schema kdt/package/1 says: a sha256 is",
        ),
        (|m| m["parts"] = json!([]), "it lists no part"),
        (|m| m["parts"][0]["name"] = json!("/dev/sda"), "part 1 is called \"/dev/sda\", and must be called"),
        (|m| m["parts"][1]["stream_offset"] = json!(0), "02345678.part-0002-of-0003 is said to start at 0"),
        (
            |m| m["parts"][0]["holds"][0]["bytes"] = json!(u64::MAX),
            "02345678.part-0001-of-0003 is said to hold other",
        ),
    ];
    for (lie, due) in lies {
        let (why, exit) = said(&desk, lie);
        assert!(why.starts_with(due), "{why:?} is not {due:?}");
        assert_eq!(exit, 3, "{why}");
        assert!(!why.contains('\u{1b}'), "{why:?}");
    }
}

#[test]
fn a_duplicated_part_and_a_long_list_are_told() {
    let desk = desk();
    let (why, _) = said(&desk, |m| {
        let part = m["parts"][0].clone();
        m["parts"].as_array_mut().unwrap().push(part);
    });
    assert!(why.starts_with("part 1 is called \"02345678.part-0001-of-0003\", and must be called"), "{why}");
    let (why, _) = said(&desk, |m| {
        let part = m["parts"][0].clone();
        let parts = m["parts"].as_array_mut().unwrap();
        parts.extend(std::iter::repeat_n(part, 100_000));
    });
    assert!(why.contains("must be called 02345678.part-0001-of-100003"), "{why}");
}

#[test]
fn a_changed_digest_is_a_failed_verification() {
    let desk = desk();
    let (why, exit) = said(&desk, |m| {
        let other = m["artifacts"][1]["sha256"].clone();
        m["artifacts"][0]["sha256"] = other;
    });
    assert!(why.ends_with("it was changed after it was written"), "{why}");
    assert_eq!(exit, 5);
}

#[test]
fn what_is_no_manifest_says_so() {
    let desk = desk();
    let path = desk.package().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let said = || {
        let error = verify(&desk.package(), Depth::Artifacts, &Quiet, &Cancel::default()).unwrap_err();
        assert_eq!(error.exit().code(), 3, "{error}");
        error.to_string()
    };
    fs::write(&path, "").unwrap();
    assert!(said().ends_with("manifest.json is not a usable package list: it is empty"), "{}", said());
    for garbage in
        [&b"\0\xff"[..], b"[]", b"{}", b"\"x\"", &b"[".repeat(100_000), b"{\"schema\":\"kdt/package/1\"}"]
    {
        fs::write(&path, garbage).unwrap();
        assert!(said().contains("is not what schema kdt/package/1 says"), "{}", said());
    }
    for cut in (1..whole.len()).step_by(97) {
        fs::write(&path, &whole[..cut.min(whole.len() - 2)]).unwrap();
        said();
    }
    fs::remove_file(&path).unwrap();
    assert!(
        said().ends_with("it is not there, so the folder is no package, or not a whole one"),
        "{}",
        said()
    );
    fs::create_dir(&path).unwrap();
    assert!(said().ends_with("it is not a regular file"), "{}", said());
}

#[test]
fn a_part_that_grows_when_decompressed_is_stopped() {
    let desk = desk();
    let part = desk.part(2);
    let bomb = zstd::encode_all(std::io::repeat(0).take(64 * MIB), 1).unwrap();
    fs::write(part, bomb).unwrap();
    let verdict = desk.verify();
    let codes: Vec<&str> = verdict.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes[0], "part-short");
    assert!(verdict.problems.iter().any(|problem| problem.sentence.starts_with("b can't be given back")));
}
