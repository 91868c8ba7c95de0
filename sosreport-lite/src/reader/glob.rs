//! Globs over bytes, as a shell has them: `*`, `?`, `[a-z]`, `[!a]`; and `**` for any number of directories,
//! in lists of what is left out.

/// True if one path component matches a pattern without `/`. A leading dot has to be written.
pub(crate) fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    component(pattern, name)
}

/// True if a whole path matches; `**` stands for any number of components.
pub(crate) fn matches_path(pattern: &[u8], path: &[u8]) -> bool {
    let patterns: Vec<&[u8]> = pattern.split(|b| *b == b'/').collect();
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    components(&patterns, &parts)
}

fn components(patterns: &[&[u8]], parts: &[&[u8]]) -> bool {
    let Some((first, rest)) = patterns.split_first() else { return parts.is_empty() };
    if *first == b"**" {
        return (0..=parts.len()).any(|skip| components(rest, parts.get(skip..).unwrap_or_default()));
    }
    let Some((part, others)) = parts.split_first() else { return false };
    component(first, part) && components(rest, others)
}

/// True if a pattern component has anything but plain characters.
pub(crate) fn is_pattern(component: &[u8]) -> bool {
    component.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// Greedy match with one point to go back to: linear for each star, so hostile names cost little.
fn component(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(p..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            back = Some((p + 1, n));
            p += 1;
            continue;
        }
        let here = name.get(n);
        match (one(rest), here) {
            (None, None) => return true,
            (Some((test, len)), Some(byte)) if test.accepts(*byte) => {
                p += len;
                n += 1;
                continue;
            }
            _ => {}
        }
        match back {
            Some((after_star, from)) if from < name.len() => {
                p = after_star;
                n = from + 1;
                back = Some((after_star, from + 1));
            }
            _ => return false,
        }
    }
}

enum Test<'a> {
    Byte(u8),
    Any,
    Set { set: &'a [u8], negated: bool },
}

impl Test<'_> {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Byte(b) => *b == byte,
            Self::Any => true,
            Self::Set { set, negated } => in_set(set, byte) != *negated,
        }
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    while let Some((first, after)) = rest.split_first() {
        if let [b'-', last, tail @ ..] = after {
            if (*first..=*last).contains(&byte) {
                return true;
            }
            rest = tail;
        } else {
            if *first == byte {
                return true;
            }
            rest = after;
        }
    }
    false
}

/// The test for one byte at the start of a pattern, and how long it is written.
fn one(pattern: &[u8]) -> Option<(Test<'_>, usize)> {
    let (first, after) = pattern.split_first()?;
    if *first == b'?' {
        return Some((Test::Any, 1));
    }
    if *first == b'['
        && let Some(end) = after.iter().skip(1).position(|b| *b == b']').map(|i| i + 1)
        && let Some(body) = after.get(..end)
    {
        let negated = matches!(body.first(), Some(b'!' | b'^'));
        let set = if negated { body.get(1..).unwrap_or_default() } else { body };
        return Some((Test::Set { set, negated }, end + 2));
    }
    Some((Test::Byte(*first), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        let yes = [
            ("*", "a"),
            ("messages*", "messages-2026"),
            ("[0-9]*", "12"),
            ("a?c", "abc"),
            ("[!0-9]", "x"),
            ("*.conf", "a.conf"),
            ("a*b*c", "axxbyyc"),
            ("[", "["),
            (".x*", ".xy"),
            ("*", "\u{fffd}"),
        ];
        let no = [
            ("*", ".hidden"),
            ("[0-9]*", "self"),
            ("a?c", "ac"),
            ("*.conf", "a.conf~"),
            ("", "a"),
            ("a", ""),
            ("a*b", "ac"),
        ];
        for (pattern, name) in yes {
            assert!(matches_name(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!matches_name(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    #[test]
    fn two_stars_span_directories() {
        assert!(matches_path(b"etc/pki/**/private/**", b"etc/pki/tls/private/a.key"));
        assert!(matches_path(b"**/vmcore", b"vmcore"));
        assert!(!matches_path(b"**/vmcore", b"a/vmcore-dmesg.txt"));
        assert!(!matches_path(b"etc/*", b"etc/a/b"));
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_ends(pattern: Vec<u8>, name: Vec<u8>) {
            let _ = matches_name(&pattern, &name);
        }

        #[test]
        fn a_plain_name_matches_itself(name in "[a-zA-Z0-9_.-]{1,40}") {
            proptest::prop_assert!(matches_name(name.as_bytes(), name.as_bytes()));
        }
    }
}
