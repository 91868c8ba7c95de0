//! The HTML report in a real browser: its script runs, its policy stops nothing of its own, and hostile text stays text.
//!
//! Where there is no chromium, the test says so in one line, `SKIP html: …`; with `KDT_REQUIRE_LAB=1` that is a failure.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kdump_tools::output::html::page;
use vmcore::report::{LogLine, Report};

fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|program| {
        let mut run = Command::new(program);
        run.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        run.status().is_ok_and(|status| status.success())
    });
    if found.is_none() {
        let required = std::env::var_os("KDT_REQUIRE_LAB").is_some_and(|value| value == "1");
        assert!(!required, "chromium is not installed, and KDT_REQUIRE_LAB is set");
        eprintln!("SKIP html: chromium is not installed");
    }
    found
}

/// The page's elements after its script has run, and what the browser said of it.
fn browse(program: &str, file: &Path, fragment: &str) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let mut run = Command::new(program);
    run.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
    ])
    .args(["--no-first-run", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0", "--dump-dom"])
    .arg(format!("--user-data-dir={}", profile.path().display()))
    .arg(format!("file://{}{fragment}", file.display()));
    let out = run.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    (String::from_utf8_lossy(&out.stdout).into_owned(), said)
}

#[track_caller]
fn assert_quiet(said: &str) {
    let console: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("CONSOLE") || line.contains("Content Security Policy"))
        .collect();
    assert_eq!(console, Vec::<&str>::new());
}

/// Rows of the log that are shown.
fn shown_log_rows(dom: &str) -> usize {
    let log = dom.split_once("<ol class=\"log\"").unwrap().1.split_once("</ol>").unwrap().0;
    log.split("<li ").skip(1).filter(|row| !row.split('>').next().unwrap().contains("hidden")).count()
}

#[test]
fn a_browser_shows_the_verdict_and_the_search_filters() {
    let Some(program) = chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.html");
    let dump = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump");
    let mut run = Command::new(env!("CARGO_BIN_EXE_kdt"));
    run.arg("triage").arg(dump).args(["--format", "html", "-o"]).arg(&file);
    assert!(run.status().unwrap().success());
    let (dom, said) = browse(program, &file, "");
    assert_quiet(&said);
    assert!(dom.contains("sysrq triggered crash"));
    // The script shows the search box.
    assert!(dom.contains("<form class=\"search\" role=\"search\">"));
    let all = shown_log_rows(&dom);
    let (dom, said) = browse(program, &file, "#q=kernel%20panic");
    assert_quiet(&said);
    let some = shown_log_rows(&dom);
    assert!(all > 100 && (1..10).contains(&some), "{some} of {all}");
}

#[test]
fn a_browser_takes_hostile_text_for_text() {
    let Some(program) = chromium() else { return };
    let evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u{202e}\"'></style>";
    let mut report = Report::empty("kdt", "0", evil);
    report.kernel.nodename = Some(evil.into());
    report.log.records = Some(1);
    report.log.lines.push(LogLine { ts: Some(1.0), level: Some(3), caller: None, text: evil.into() });
    report.skip(evil, evil);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.html");
    std::fs::write(&file, page(&[&report, &report])).unwrap();
    let (dom, said) = browse(program, &file, "");
    assert_quiet(&said);
    assert!(!dom.contains("<title>owned") && !dom.contains("<img"), "it ran");
    assert!(dom.contains("&lt;script&gt;document.title") && dom.contains("\\u{202e}"));
}
