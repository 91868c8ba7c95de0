//! The reading side: answers glob and read requests, one after the other, until its input ends.
//!
//! It runs in a process of its own (see [`super::serve_if_asked`]), because a read of a dead NFS server or of
//! a wedged driver may never come back, and only a process can be left behind without anybody waiting for it.

use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::FileType;

use crate::reader::deny::never_read;
use crate::reader::frame::{Meta, Tag, Verdict, end_payload, read_frame, write_frame};
use crate::reader::tree::{Found, Tree, is_absent};
use crate::spec::Keep;

/// One piece of a file.
const PIECE: usize = 64 << 10;

/// The first request's answer, by which the collector knows that it talks to a reader.
pub(crate) const GREETING: &str = "sosreport-lite reader 1";

/// Answers requests about the files below `root` until `input` ends.
pub(crate) fn serve(root: &Path, input: impl Read, output: impl Write) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut output = BufWriter::new(output);
    let tree = match Tree::open(root) {
        Ok(tree) => {
            write_frame(&mut output, Tag::End, &end_payload(Verdict::Complete, GREETING))?;
            tree
        }
        Err(e) => {
            write_frame(&mut output, Tag::End, &end_payload(Verdict::Failed, &e.to_string()))?;
            return output.flush();
        }
    };
    output.flush()?;
    while let Some((tag, payload)) = read_frame(&mut input)? {
        let (verdict, why) = match tag {
            Tag::Glob => glob(&tree, &payload, &mut output)?,
            Tag::Read => read(&tree, &payload, &mut output)?,
            Tag::Sysrq => sysrq(&tree, &payload),
            _ => (Verdict::Failed, "the request is not one that a reader knows".to_owned()),
        };
        write_frame(&mut output, Tag::End, &end_payload(verdict, &why))?;
        output.flush()?;
    }
    Ok(())
}

fn verdict_of(e: &io::Error) -> (Verdict, String) {
    let verdict = if is_absent(e) {
        Verdict::Absent
    } else if e.kind() == io::ErrorKind::PermissionDenied {
        Verdict::Denied
    } else {
        Verdict::Failed
    };
    (verdict, e.to_string())
}

fn glob(tree: &Tree, payload: &[u8], output: &mut impl Write) -> io::Result<(Verdict, String)> {
    let Some((limit, pattern)) = payload.split_first_chunk::<8>() else {
        return Ok((Verdict::Failed, "the request is cut".into()));
    };
    let limit = usize::try_from(u64::from_le_bytes(*limit)).unwrap_or(usize::MAX);
    let matches = tree.glob(pattern, limit);
    for path in &matches.paths {
        write_frame(output, Tag::Match, path)?;
    }
    Ok(match matches.unlisted {
        Some((dir, e)) => {
            let (verdict, why) = verdict_of(&e);
            (verdict, format!("/{} can't be listed: {why}", String::from_utf8_lossy(&dir)))
        }
        None if matches.limited => (Verdict::Truncated, format!("more than {limit} files match")),
        None => (Verdict::Complete, String::new()),
    })
}

fn read(tree: &Tree, payload: &[u8], output: &mut impl Write) -> io::Result<(Verdict, String)> {
    let Some((cap, rest)) = payload.split_first_chunk::<8>() else {
        return Ok((Verdict::Failed, "the request is cut".into()));
    };
    let Some((keep, path)) = rest.split_first() else {
        return Ok((Verdict::Failed, "the request is cut".into()));
    };
    let keep = if *keep == b't' { Keep::Tail } else { Keep::Head };
    match tree.find(path, false) {
        Ok(found) if found.kind() == FileType::Symlink => match found.target() {
            Ok(target) => write_frame(output, Tag::Link, &target)?,
            Err(e) => return Ok(verdict_of(&e)),
        },
        Ok(_) => {}
        Err(e) => return Ok(verdict_of(&e)),
    }
    let found = match tree.find(path, true) {
        Ok(found) => found,
        Err(e) => return Ok(verdict_of(&e)),
    };
    if let Some(why) = never_read(&found.canonical) {
        return Ok((Verdict::Refused, format!("/{}: {why}", String::from_utf8_lossy(&found.canonical))));
    }
    if found.kind() != FileType::RegularFile {
        return Ok((Verdict::Refused, format!("it is {}", kind_name(found.kind()))));
    }
    send_file(&found, u64::from_le_bytes(*cap), keep, output)
}

fn send_file(found: &Found, cap: u64, keep: Keep, output: &mut impl Write) -> io::Result<(Verdict, String)> {
    let mut file = match found.open() {
        Ok(file) => file,
        Err(e) => return Ok(verdict_of(&e)),
    };
    let meta = Meta {
        mode: found.stat.st_mode & 0o777,
        uid: found.stat.st_uid,
        gid: found.stat.st_gid,
        mtime: u64::try_from(found.stat.st_mtime).unwrap_or(0),
        canonical: found.canonical.clone(),
    };
    write_frame(output, Tag::Meta, &meta.to_payload())?;
    output.flush()?;
    let size = u64::try_from(found.stat.st_size).unwrap_or(0);
    let mut cut = false;
    if keep == Keep::Tail && size > cap {
        if let Err(e) = file.seek(SeekFrom::Start(size - cap)) {
            return Ok(verdict_of(&e));
        }
        cut = true;
    }
    // A file that grows meanwhile, or one of /proc that says it has no size, ends at the cap all the same; a
    // log that grows may end a little later, so that its last line is whole.
    let most = if keep == Keep::Tail { cap.saturating_add(PIECE as u64) } else { cap };
    let mut buf = vec![0; PIECE];
    let mut sent = 0_u64;
    loop {
        let got = match file.read(&mut buf) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(verdict_of(&e)),
        };
        let room = usize::try_from(most - sent).unwrap_or(usize::MAX);
        let piece = buf.get(..got.min(room)).unwrap_or_default();
        write_frame(output, Tag::Bytes, piece)?;
        sent += piece.len() as u64;
        if got > room {
            cut = true;
            break;
        }
    }
    Ok((if cut { Verdict::Truncated } else { Verdict::Complete }, String::new()))
}

fn sysrq(tree: &Tree, letter: &[u8]) -> (Verdict, String) {
    if !matches!(letter, b"w" | b"t" | b"l" | b"m") {
        return (Verdict::Refused, "only w, t, l and m leave the host as it is".into());
    }
    let written = tree.find(b"proc/sysrq-trigger", false).and_then(|found| found.write(letter));
    written.map_or_else(|e| verdict_of(&e), |()| (Verdict::Complete, String::new()))
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo, which may never answer",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a link",
        _ => "not a regular file",
    }
}
