//! Debuginfo from servers: asked in order, checked, kept, and never waited for longer than allowed.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kdump_tools::debuginfo::{Fetched, Servers, Store};
use vmcore::limits::Limits;
use vmcore::progress::Cancel;
use vmcore::sym::build_id::BuildId;
use vmcore::sym::dwarf::Debuginfo;
use vmcore::sym::find::{Finder, Wanted};

/// How a server answers.
enum Answer {
    Status(u16),
    File(Vec<u8>),
    /// Half of it, and then no more.
    Half(Vec<u8>),
    Silence,
}

struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
}

fn serve(answer: Answer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut first = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut first).unwrap();
            assert!(first.starts_with("GET /buildid/") && first.contains("/debuginfo HTTP/1.1"), "{first}");
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            count.fetch_add(1, Ordering::SeqCst);
            let head = |status: u16, len: usize| {
                format!("HTTP/1.1 {status} x\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")
            };
            let _ = match &answer {
                Answer::Status(status) => stream.write_all(head(*status, 0).as_bytes()),
                Answer::File(bytes) => {
                    stream.write_all(head(200, bytes.len()).as_bytes()).and_then(|()| stream.write_all(bytes))
                }
                Answer::Half(bytes) => stream
                    .write_all(head(200, bytes.len()).as_bytes())
                    .and_then(|()| stream.write_all(&bytes[..bytes.len() / 2])),
                Answer::Silence => {
                    silent.push(stream);
                    Ok(())
                }
            };
        }
    });
    Server { url, asked }
}

fn servers(cache: &Path, urls: &[&Server]) -> Servers {
    let urls: Vec<&str> = urls.iter().map(|server| server.url.as_str()).collect();
    let urls = format!("ima:enforcing {}/", urls.join(" "));
    let cache = cache.to_owned();
    Servers::from_variables(move |name| match name {
        "DEBUGINFOD_URLS" => Some(OsString::from(&urls)),
        "DEBUGINFOD_CACHE_PATH" => Some(cache.clone().into()),
        "DEBUGINFOD_TIMEOUT" => Some("1".into()),
        _ => None,
    })
    .unwrap()
}

/// A file with debuginfo and its build id; `None` where this host has no compiler.
fn debuginfo(dir: &Path) -> Option<(BuildId, Vec<u8>)> {
    let (source, path) = (dir.join("a.c"), dir.join("a.out"));
    std::fs::write(&source, "struct s { int a; } s; int main(void) { return s.a; }").unwrap();
    let options = ["-g", "-Wl,--build-id=sha1", "-nostdlib", "-Wl,-e,main", "-static"];
    let built = Command::new("gcc").args(options).arg(&source).arg("-o").arg(&path).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no gcc");
        return None;
    }
    let id = Debuginfo::open(&path, &Limits::default()).unwrap().build_id().unwrap().clone();
    Some((id, std::fs::read(&path).unwrap()))
}

fn cached(cache: &Path, id: &BuildId) -> PathBuf {
    cache.join(id.to_string()).join("debuginfo")
}

/// Nothing half-done is left beside what has its name.
fn left(cache: &Path, id: &BuildId) -> usize {
    std::fs::read_dir(cache.join(id.to_string())).map_or(0, Iterator::count)
}

#[test]
fn the_first_server_that_has_it_gives_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let Some((id, bytes)) = debuginfo(dir.path()) else { return };
    let cache = dir.path().join("cache");
    let (without, with, never) =
        (serve(Answer::Status(404)), serve(Answer::File(bytes.clone())), serve(Answer::Status(500)));
    let servers = servers(&cache, &[&without, &with, &never]);
    let path = cached(&cache, &id);
    assert_eq!(servers.fetch(&id, &Cancel::default()).unwrap(), Fetched::File(path.clone()));
    assert_eq!(
        servers.fetch(&id, &Cancel::default()).unwrap(),
        Fetched::File(path.clone()),
        "from the cache"
    );
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let asked = [&without, &with, &never].map(|server| server.asked.load(Ordering::SeqCst));
    assert_eq!((asked, left(&cache, &id)), ([1, 1, 0], 1));
    let store = Store::new(Vec::new(), Cancel::default()).with_root(None).with_servers(Some(servers));
    let wanted = Wanted { build_id: Some(&id), ..Wanted::default() };
    assert_eq!(store.find(&wanted).unwrap().unwrap().build_id(), Some(&id));
}

#[test]
fn what_no_server_has_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let id: BuildId = "00112233445566778899aabbccddeeff00112233".parse().unwrap();
    let server = serve(Answer::Status(404));
    for _ in 0..2 {
        assert_eq!(servers(&cache, &[&server]).fetch(&id, &Cancel::default()).unwrap(), Fetched::Nowhere);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    assert_eq!(std::fs::metadata(cached(&cache, &id)).unwrap().len(), 0, "as elfutils' client notes it");
}

#[test]
fn a_server_that_fails_is_named_with_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let Some((id, bytes)) = debuginfo(dir.path()) else { return };
    let other: BuildId = "00112233445566778899aabbccddeeff00112233".parse().unwrap();
    let cases = [
        (Answer::Status(500), &id, "answers with HTTP status 500"),
        (Answer::File(bytes.clone()), &other, "gave a file with build id"),
        (Answer::File(b"<html>no</html>\n".to_vec()), &id, "gave a file that is a web page"),
        (Answer::Half(bytes), &id, "broke off: "),
        (Answer::Silence, &id, "can't be asked: timeout"),
    ];
    for (number, (answer, id, what)) in cases.into_iter().enumerate() {
        let cache = dir.path().join(number.to_string());
        let server = serve(answer);
        let error = servers(&cache, &[&server]).fetch(id, &Cancel::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("debuginfo was not fetched: {} {what}", server.url)), "{error}");
        assert_eq!(left(&cache, id), 0, "{what}: nothing is kept of it, and it is asked again");
    }
    let gone = Server { url: "http://127.0.0.1:1".into(), asked: Arc::default() };
    let error = servers(&dir.path().join("gone"), &[&gone]).fetch(&id, &Cancel::default()).unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:1 can't be asked: "), "{error}");
}

#[test]
fn without_a_server_or_a_home_nobody_is_asked() {
    let none = |_: &str| None;
    assert!(Servers::from_variables(none).is_none());
    let no_home =
        |name: &str| (name == "DEBUGINFOD_URLS").then(|| OsString::from("https://debuginfod.example"));
    assert!(Servers::from_variables(no_home).is_none());
    let no_server = |name: &str| (name != "DEBUGINFOD_TIMEOUT").then(|| OsString::from("/nowhere"));
    assert!(Servers::from_variables(no_server).is_none());
}
