//! Takes passwords and private keys out of text, line by line, in the simple cases that sos knows too.
//!
//! It changes only text: what has a NUL byte in its first piece goes through untouched.

/// What stands in the place of a secret.
const STARS: &[u8] = b"********";
/// Longer lines are looked at in pieces of this size.
const LONGEST_LINE: usize = 256 << 10;
/// Words before `=` (or `:` in configuration) whose value is a secret.
const KEYS: [&[u8]; 7] = [b"password", b"passwd", b"passphrase", b"secret", b"token", b"api_key", b"apikey"];

/// A filter for one file or one command's output.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
    /// None until the first bytes have come.
    binary: Option<bool>,
    in_private_key: bool,
    /// `key: value` counts too, as in YAML; in logs it would hit plain words.
    colon: bool,
    /// `password …` at the start of a line is a boot loader's.
    boot_loader: bool,
    replaced: u64,
}

impl Scrub {
    /// A filter for the file or output at `path` inside the bundle.
    pub(crate) fn for_path(path: &[u8]) -> Self {
        let boot_loader = path.starts_with(b"boot/") || path.starts_with(b"etc/grub");
        Self { colon: path.starts_with(b"etc/"), boot_loader, ..Self::default() }
    }

    /// How many secrets it has replaced.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Takes `bytes` in, and appends what is ready to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if *self.binary.get_or_insert_with(|| bytes.contains(&0)) {
            out.extend_from_slice(bytes);
            return;
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.held.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.held.len() >= LONGEST_LINE {
                self.flush_line(out);
            }
        }
    }

    /// Appends what is left to `out`.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.flush_line(out);
        }
    }

    fn flush_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.held);
        let begins = line.starts_with(b"-----BEGIN ") && contains(&line, b"PRIVATE KEY-----");
        if begins && !self.in_private_key {
            self.in_private_key = true;
            self.replaced += 1;
            out.extend_from_slice(b"-----PRIVATE KEY REMOVED-----\n");
        }
        if self.in_private_key {
            self.in_private_key = !contains(&line, b"-----END ");
        } else {
            out.extend_from_slice(&self.line(line));
        }
    }

    fn line(&mut self, line: Vec<u8>) -> Vec<u8> {
        let line = self.url_passwords(line);
        let line = self.key_values(line);
        self.grub_passwords(line)
    }

    /// `scheme://user:secret@` and `iscsi:user:secret@`.
    fn url_passwords(&mut self, mut line: Vec<u8>) -> Vec<u8> {
        // Nearly all lines of a log end here: both searches below are for the few that may have a secret.
        if !line.contains(&b'@') {
            return line;
        }
        let mut from = 0;
        while let Some((at, len)) = find_first(&line, from, &[b"://".as_slice(), b"=iscsi:"]) {
            let start = at + len;
            let rest = line.get(start..).unwrap_or_default();
            let end = rest
                .iter()
                .position(|b| b.is_ascii_whitespace() || b"/\"'<>,".contains(b))
                .unwrap_or(rest.len());
            let authority = rest.get(..end).unwrap_or_default();
            from = start;
            let Some(host) = authority.iter().rposition(|b| *b == b'@') else { continue };
            let Some(colon) = authority.iter().take(host).position(|b| *b == b':') else { continue };
            if colon + 1 < host {
                line.splice(start + colon + 1..start + host, STARS.iter().copied());
                self.replaced += 1;
            }
        }
        line
    }

    /// `password=…`, `--db-token='…'`, and in configuration `secret: …`.
    fn key_values(&mut self, mut line: Vec<u8>) -> Vec<u8> {
        let may_have_value = line.contains(&b'=') || (self.colon && line.contains(&b':'));
        if !may_have_value {
            return line;
        }
        let mut from = 0;
        while let Some((at, len)) = find_first(&line, from, &KEYS) {
            from = at + len;
            let Some((start, end)) = self.value_after(&line, from) else { continue };
            if line.get(start..end) != Some(STARS) {
                line.splice(start..end, STARS.iter().copied());
                self.replaced += 1;
            }
            from = start + STARS.len();
        }
        line
    }

    /// Where the value begins and ends that follows a key ending at `at`.
    fn value_after(&self, line: &[u8], at: usize) -> Option<(usize, usize)> {
        let byte = |i: usize| line.get(i).copied();
        let blank = |i: usize| matches!(byte(i), Some(b' ' | b'\t'));
        let mut i = at;
        if matches!(byte(i), Some(b'"' | b'\'')) {
            i += 1;
        }
        while blank(i) {
            i += 1;
        }
        match byte(i) {
            Some(b'=') => {}
            Some(b':') if self.colon => {}
            _ => return None,
        }
        i += 1;
        while blank(i) {
            i += 1;
        }
        let quote = byte(i).filter(|b| matches!(b, b'"' | b'\''));
        if quote.is_some() {
            i += 1;
        }
        let ends = |b: &u8| match quote {
            Some(q) => *b == q || *b == b'\n',
            None => b.is_ascii_whitespace() || b",;&\"'".contains(b),
        };
        let rest = line.get(i..)?;
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        (len > 0).then_some((i, i + len))
    }

    /// `password root …`, `password_pbkdf2 root grub.pbkdf2…` of a boot loader.
    fn grub_passwords(&mut self, line: Vec<u8>) -> Vec<u8> {
        if !self.boot_loader {
            return line;
        }
        let text = line.trim_ascii();
        let begins = text.starts_with(b"password ") || text.starts_with(b"password_pbkdf2 ");
        let Some(last) = text.split(u8::is_ascii_whitespace).nth(1).filter(|_| begins) else { return line };
        let keep: &[u8] = if text.starts_with(b"password_pbkdf2 ") { last } else { b"" };
        self.replaced += 1;
        let word = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let mut out = [word, b" ", keep, if keep.is_empty() { b"" } else { b" " }, STARS].concat();
        if line.ends_with(b"\n") {
            out.push(b'\n');
        }
        out
    }
}

/// Where one of `needles` stands first in `line` at or after `from`, in any case of letters, and its length.
fn find_first(line: &[u8], from: usize, needles: &[&[u8]]) -> Option<(usize, usize)> {
    let tail = line.get(from..)?;
    (0..tail.len()).find_map(|i| {
        let here = tail.get(i..)?;
        let first = here.first()?.to_ascii_lowercase();
        let begins = |n: &&&[u8]| n.first() == Some(&first);
        let is_here = |n: &&&[u8]| here.get(..n.len()).is_some_and(|h| h.eq_ignore_ascii_case(n));
        let hit = needles.iter().find(|n| begins(n) && is_here(n))?;
        Some((from + i, hit.len()))
    })
}

fn contains(line: &[u8], needle: &[u8]) -> bool {
    line.windows(needle.len()).any(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(path: &str, text: &[u8]) -> (String, u64) {
        let mut filter = Scrub::for_path(path.as_bytes());
        let mut out = Vec::new();
        for piece in text.chunks(7) {
            filter.push(piece, &mut out);
        }
        filter.finish(&mut out);
        (String::from_utf8_lossy(&out).into_owned(), filter.replaced())
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let table = [
            ("http_proxy=http://joe:s3cr3t@proxy:3128/\n", "http_proxy=http://joe:********@proxy:3128/\n"),
            (
                "ro netroot=iscsi:u:pw@10.0.0.1::3260::iqn quiet",
                "ro netroot=iscsi:u:********@10.0.0.1::3260::iqn quiet",
            ),
            ("mysqld --password=abc --port=3306\n", "mysqld --password=******** --port=3306\n"),
            ("GRUB2_PASSWORD=grub.pbkdf2.sha512.10000.AB\n", "GRUB2_PASSWORD=********\n"),
            ("a PASSWD = 'x y z' b\n", "a PASSWD = '********' b\n"),
            ("ssh root@backup.example.com\n", "ssh root@backup.example.com\n"),
            ("sshkey /root/.ssh/kdump_id_rsa\n", "sshkey /root/.ssh/kdump_id_rsa\n"),
            ("nfs my.server.com:/export/tmp\n", "nfs my.server.com:/export/tmp\n"),
            ("https://user@host/path\n", "https://user@host/path\n"),
            ("cgroup: token: 7 tasks\n", "cgroup: token: 7 tasks\n"),
        ];
        for (before, after) in table {
            assert_eq!(scrub("proc/cmdline", before.as_bytes()).0, after);
        }
    }

    #[test]
    fn a_boot_loader_keeps_its_users_and_loses_their_passwords() {
        for (before, after) in [
            ("password_pbkdf2 root grub.pbkdf2.X\n", "password_pbkdf2 root ********\n"),
            ("  password --md5 $1$abc\n", "password ********\n"),
        ] {
            assert_eq!(scrub("boot/grub2/grub.cfg", before.as_bytes()), (after.into(), 1));
            assert_eq!(scrub("etc/x.conf", before.as_bytes()), (before.into(), 0));
        }
    }

    #[test]
    fn a_colon_counts_in_configuration_only() {
        assert_eq!(scrub("etc/x.yaml", b"secret: abc\n"), ("secret: ********\n".into(), 1));
        assert_eq!(scrub("var/log/messages", b"secret: abc\n"), ("secret: abc\n".into(), 0));
    }

    #[test]
    fn a_private_key_goes_whole() {
        let text =
            b"a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\nbn==\n-----END OPENSSH PRIVATE KEY-----\nz\n";
        assert_eq!(scrub("etc/x", text), ("a\n-----PRIVATE KEY REMOVED-----\nz\n".into(), 1));
    }

    #[test]
    fn binary_goes_through_untouched() {
        let bytes = b"\0password=x\n";
        let mut out = Vec::new();
        let mut filter = Scrub::default();
        filter.push(bytes, &mut out);
        filter.finish(&mut out);
        assert_eq!(out, bytes);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_ends(bytes: Vec<u8>) {
            let mut out = Vec::new();
            let mut filter = Scrub::for_path(b"etc/x");
            filter.push(&bytes, &mut out);
            filter.finish(&mut out);
            proptest::prop_assert!(out.len() <= bytes.len() * 9 + 64);
        }

        #[test]
        fn plain_lines_stay(text in "[a-z0-9 /=.\n]{0,200}") {
            proptest::prop_assume!(!KEYS.iter().any(|k| text.as_bytes().windows(k.len()).any(|w| w == *k)));
            proptest::prop_assert_eq!(scrub("proc/x", text.as_bytes()).0, text);
        }
    }
}
