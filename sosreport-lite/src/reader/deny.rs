//! What is never read, whatever a spec or a link says: secrets, memory, and files that never end.

use crate::reader::glob::matches_path;

/// Globs over the path with all links resolved, and why.
const NEVER: [(&str, &str); 34] = [
    ("etc/shadow*", "it holds password hashes"),
    ("etc/gshadow*", "it holds password hashes"),
    ("etc/security/opasswd", "it holds password hashes"),
    ("etc/krb5.keytab", "it holds keys"),
    ("etc/ssh/*_key", "it is a private key"),
    ("etc/pki/**/private/**", "it is a private key"),
    ("etc/ssl/private/**", "it is a private key"),
    ("etc/NetworkManager/system-connections/**", "it holds wireless and VPN passwords"),
    ("etc/sssd/**", "it holds bind passwords"),
    ("etc/luks/**", "it holds keys"),
    ("etc/cryptsetup-keys.d/**", "it holds keys"),
    ("**/id_rsa*", "it is a private key"),
    ("**/id_dsa*", "it is a private key"),
    ("**/id_ecdsa*", "it is a private key"),
    ("**/id_ed25519*", "it is a private key"),
    ("**/kdump_id_*", "it is a private key"),
    ("**/*.keytab", "it holds keys"),
    ("**/.ssh/**", "it may be a private key"),
    ("root/**", "it is in a home directory"),
    ("home/**", "it is in a home directory"),
    ("dev/**", "it is a device"),
    ("tmp/**", "anybody may have put it there"),
    ("mnt/**", "it is on another filesystem"),
    ("media/**", "it is on another filesystem"),
    ("proc/kcore", "it is the memory of the kernel"),
    ("proc/kmsg", "reading it takes the messages away from the log daemon"),
    ("proc/vmcore", "it is a dump, not a fact about the host"),
    ("proc/kpage*", "it is a table of all memory"),
    ("proc/sysrq-trigger", "it acts on the kernel"),
    ("proc/[0-9]*/**/mem", "it is the memory of a process"),
    ("proc/[0-9]*/**/environ", "it holds secrets of a process"),
    ("sys/kernel/debug/tracing/**/trace_pipe*", "reading it never ends"),
    ("sys/kernel/tracing/**/trace_pipe*", "reading it never ends"),
    ("**/vmcore", "it is a dump, not a fact about the host"),
];

/// Why the file at `canonical` (all links resolved, without the first `/`) is never read, if it is.
pub(crate) fn never_read(canonical: &[u8]) -> Option<&'static str> {
    NEVER.iter().find(|(glob, _)| matches_path(glob.as_bytes(), canonical)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_endless_files_are_refused() {
        for path in [
            "etc/shadow",
            "etc/shadow-",
            "etc/ssh/ssh_host_rsa_key",
            "etc/pki/tls/private/a.key",
            "home/joe/notes",
            "root/.bashrc",
            "root/.ssh/kdump_id_rsa",
            "proc/kmsg",
            "proc/kcore",
            "proc/12/mem",
            "proc/12/task/13/mem",
            "proc/1/environ",
            "sys/kernel/debug/tracing/trace_pipe",
            "sys/kernel/tracing/per_cpu/cpu0/trace_pipe",
            "dev/sda",
            "var/crash/x/vmcore",
            "var/lib/x/id_rsa",
        ] {
            assert!(never_read(path.as_bytes()).is_some(), "{path}");
        }
    }

    #[test]
    fn what_specs_take_is_not_refused() {
        for path in [
            "etc/kdump.conf",
            "etc/ssh/sshd_config",
            "proc/meminfo",
            "proc/12/stack",
            "proc/12/task/13/status",
            "var/crash/127.0.0.1-2026-01-01-00:00:00/vmcore-dmesg.txt",
            "sys/kernel/kexec_crash_size",
            "sys/kernel/debug/tracing/trace",
            "run/log/x",
            "usr/lib/os-release",
        ] {
            assert_eq!(never_read(path.as_bytes()), None, "{path}");
        }
    }
}
