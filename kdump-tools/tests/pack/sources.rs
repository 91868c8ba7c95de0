//! Sources that can't be packed are told before anything is written.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn refused(desk: &Desk, sources: &[PathBuf]) -> (String, u8) {
    let error = plan(&desk.request(sources)).unwrap_err();
    assert!(!error.hint().is_empty());
    (error.to_string(), error.exit().code())
}

#[test]
fn what_is_no_file_or_folder_is_refused() {
    let desk = Desk::new();
    let (said, exit) = refused(&desk, &[desk.path("nowhere")]);
    assert!(said.ends_with("nowhere can't be read: No such file or directory"), "{said}");
    assert_eq!(exit, 3);
    let (said, exit) = refused(&desk, &["/dev/null".into()]);
    assert_eq!(said, "/dev/null is a character device, not a file or a folder");
    assert_eq!(exit, 2);
    let (said, exit) = refused(&desk, &[]);
    assert_eq!((said.as_str(), exit), ("there is nothing to pack", 2));
    let (said, _) = refused(&desk, &[desk.path("in")]);
    assert_eq!(said, "there is nothing to pack");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let desk = Desk::new();
    let file = desk.file("a", b"a");
    let mut request = desk.request(&[file]);
    request.part_size = 1000;
    assert_eq!(plan(&request).unwrap_err().to_string(), "parts of 1000 B are too small");
    request.part_size = MIB;
    request.level = 99;
    assert_eq!(plan(&request).unwrap_err().to_string(), "there is no compression level 99");
}

#[test]
fn a_target_in_the_source_is_refused() {
    let desk = Desk::new();
    desk.file("a", b"a");
    let mut request = desk.request(&[desk.path("in")]);
    request.target = desk.path("in/package");
    let error = plan(&request).unwrap_err();
    assert!(error.to_string().starts_with("the package would lie in "), "{error}");
    assert_eq!(error.exit().code(), 2);
}

#[test]
fn a_package_is_never_written_over() {
    let desk = Desk::new();
    let file = desk.file("a", b"a");
    desk.pack(std::slice::from_ref(&file));
    let before = fs::read(desk.package().join("manifest.json")).unwrap();
    let error = pack(&plan(&desk.request(&[file])).unwrap(), true, &Quiet, &Cancel::default()).unwrap_err();
    assert!(error.to_string().ends_with("package holds a package already"), "{error}");
    assert_eq!(error.exit().code(), 2);
    assert_eq!(fs::read(desk.package().join("manifest.json")).unwrap(), before);
}

#[test]
fn a_stray_part_is_never_written_over() {
    let desk = Desk::new();
    let file = desk.file("a", b"a");
    fs::create_dir(desk.package()).unwrap();
    fs::write(desk.package().join("02345678.part-0001-of-0001"), "precious").unwrap();
    let error = pack(&plan(&desk.request(&[file])).unwrap(), true, &Quiet, &Cancel::default()).unwrap_err();
    assert!(error.to_string().ends_with("has a file 02345678.part-0001-of-0001 already"), "{error}");
    assert_eq!(names(&desk.package()), ["02345678.part-0001-of-0001"]);
}

/// What happens to a file.
type Change = fn(&std::path::Path);

#[test]
fn a_source_that_changes_between_plan_and_pack_is_told() {
    let desk = Desk::new();
    let file = desk.file("a", &noise(1, 5000));
    let changes: [(Change, &str); 3] = [
        (|path| fs::write(path, noise(2, 4000)).unwrap(), "it had 5000 bytes, and has 4000 now"),
        (|path| fs::write(path, noise(2, 6000)).unwrap(), "it had 5000 bytes, and has 6000 now"),
        (
            |path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                fs::write(path, noise(1, 5000)).unwrap();
            },
            "there is another file under its name now",
        ),
    ];
    for (change, why) in changes {
        fs::write(&file, noise(1, 5000)).unwrap();
        let planned = plan(&desk.request(std::slice::from_ref(&file))).unwrap();
        change(&file);
        let error = pack(&planned, true, &Quiet, &Cancel::default()).unwrap_err();
        assert!(error.to_string().ends_with(&format!("in/a changed while it was read: {why}")), "{error}");
        assert_eq!(error.exit().code(), 3);
        assert_eq!(names(&desk.package()), [""; 0]);
    }
}

#[test]
fn a_file_that_hides_its_length_is_told() {
    let desk = Desk::new();
    let planned = plan(&desk.request(&["/proc/version".into()])).unwrap();
    let error = pack(&planned, true, &Quiet, &Cancel::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/proc/version changed while it was read: it says that it has 0 bytes, and has more"
    );
}

#[test]
fn a_source_that_may_not_be_read_is_told() {
    let desk = Desk::new();
    let file = desk.file("a", b"a");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&file).is_ok() {
        eprintln!("skipped: root may read every file");
        return;
    }
    let (said, exit) = refused(&desk, &[file]);
    assert!(said.ends_with("in/a can't be read: Permission denied"), "{said}");
    assert_eq!(exit, 7);
}
