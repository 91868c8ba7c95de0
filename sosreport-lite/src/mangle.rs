//! Names inside the bundle, after the rules of sos (4.12, `sos/report/plugins/__init__.py`, `_mangle_command`).

/// The longest file name that Linux filesystems take.
const NAME_MAX: usize = 255;

/// The file name under `sos_commands/<plugin>/` for a command line.
///
/// The directory of a system program goes (`/usr/sbin/`), each run of characters outside `[\w\-./]` becomes
/// one `_`, `/` becomes `.`, spaces, dots, underscores and dashes go from both ends, and the name is cut to
/// what a filesystem takes.
#[must_use]
pub fn mangle_command(line: &str) -> String {
    let line = strip_bin_dir(line);
    let mut name = String::with_capacity(line.len());
    let mut in_run = false;
    for c in line.chars() {
        if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/') {
            name.push(if c == '/' { '.' } else { c });
            in_run = false;
        } else if !in_run {
            name.push('_');
            in_run = true;
        }
    }
    let name = name.trim_matches([' ', '.', '_', '-']);
    let mut end = name.len().min(NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.split_at(end).0.to_owned()
}

/// Without the leading `/bin/`, `/sbin/`, `/usr/bin/` or `/usr/sbin/`.
fn strip_bin_dir(line: &str) -> &str {
    for dir in ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"] {
        if let Some(rest) = line.strip_prefix(dir) {
            return rest;
        }
    }
    line
}

/// The target of a relative link at `from` to `to`, both counted from the top of the bundle.
#[must_use]
pub(crate) fn relative_link(from: &[u8], to: &[u8]) -> Vec<u8> {
    let from_dirs: Vec<&[u8]> = from.split(|b| *b == b'/').collect();
    let to_parts: Vec<&[u8]> = to.split(|b| *b == b'/').collect();
    let from_dirs = from_dirs.split_last().map_or(&[] as &[&[u8]], |(_, dirs)| dirs);
    let common = from_dirs
        .iter()
        .zip(to_parts.iter().take(to_parts.len().saturating_sub(1)))
        .take_while(|(a, b)| a == b)
        .count();
    let mut parts: Vec<&[u8]> = from_dirs.iter().skip(common).map(|_| b"..".as_slice()).collect();
    parts.extend(to_parts.iter().skip(common));
    parts.join(&b'/')
}

/// The name under `sos_strings/<plugin>/` of the kept end of a file: `var.log.messages.tailed`.
#[must_use]
pub(crate) fn tailed_name(path: &[u8]) -> Vec<u8> {
    let mut name: Vec<u8> = path.iter().map(|b| if *b == b'/' { b'.' } else { *b }).collect();
    let suffix = b".tailed";
    let from = name.len().saturating_sub(NAME_MAX - suffix.len());
    name.drain(..from);
    name.extend_from_slice(suffix);
    name
}

/// A host name or case id as a part of a file name: all but letters, digits, dash and dot becomes `_`.
#[must_use]
pub(crate) fn name_part(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' })
        .take(64)
        .collect();
    clean.trim_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_named_as_sos_names_them() {
        let table = [
            ("uname -a", "uname_-a"),
            ("/usr/bin/uname -a", "uname_-a"),
            ("/sbin/lsmod", "lsmod"),
            ("/bin/ps auxwwwm", "ps_auxwwwm"),
            ("dmesg -T", "dmesg_-T"),
            ("journalctl --no-pager --boot -1", "journalctl_--no-pager_--boot_-1"),
            ("ls -lanR /var/crash", "ls_-lanR_.var.crash"),
            ("df -al -x autofs", "df_-al_-x_autofs"),
            ("/opt/vendor/bin/tool --x", "opt.vendor.bin.tool_--x"),
            ("sh -c 'rpm -qa | sort'", "sh_-c_rpm_-qa_sort"),
            ("ethtool -S eth0:1", "ethtool_-S_eth0_1"),
            ("ps axo pid,ppid,wchan:20", "ps_axo_pid_ppid_wchan_20"),
            ("  x  ", "x"),
            ("---", ""),
        ];
        for (line, name) in table {
            assert_eq!(mangle_command(line), name, "{line}");
        }
    }

    #[test]
    fn long_command_is_cut_at_a_character() {
        let name = mangle_command(&format!("x{}", "é".repeat(300)));
        assert!(name.len() <= 255 && name.len() >= 254, "{}", name.len());
    }

    #[test]
    fn links_are_relative() {
        let table: [(&[u8], &[u8], &[u8]); 4] = [
            (b"uname", b"sos_commands/kernel/uname_-a", b"sos_commands/kernel/uname_-a"),
            (
                b"var/log/messages",
                b"sos_strings/logs/var.log.messages.tailed",
                b"../../sos_strings/logs/var.log.messages.tailed",
            ),
            (b"etc/os-release", b"usr/lib/os-release", b"../usr/lib/os-release"),
            (b"etc/a/b", b"etc/a/c", b"c"),
        ];
        for (from, to, link) in table {
            assert_eq!(relative_link(from, to), link);
        }
    }

    #[test]
    fn case_and_host_are_safe_in_a_file_name() {
        assert_eq!(name_part("03512345"), "03512345");
        assert_eq!(name_part("../../etc/x"), "_.._etc_x");
        assert_eq!(name_part("a b\nc"), "a_b_c");
    }

    proptest::proptest! {
        #[test]
        fn mangled_name_is_one_path_component(line in ".*") {
            let name = mangle_command(&line);
            proptest::prop_assert!(!name.contains('/') && name.len() <= 255 && name != "." && name != "..");
        }
    }
}
