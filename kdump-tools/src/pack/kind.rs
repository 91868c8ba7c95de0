//! What an artifact is to the one who opens the case.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// `report.json`, `report.html`, `report.txt`: the first analysis. Travels first.
    Report,
    /// A memory dump.
    Vmcore,
    /// What a collector gathered of a host.
    HostBundle,
    /// Text that a kernel or a service wrote.
    Log,
    /// Anything else; also a kind that a later version of the format knows.
    #[serde(other)]
    Other,
}

impl Kind {
    /// The kind as the manifest writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Vmcore => "vmcore",
            Self::HostBundle => "host-bundle",
            Self::Log => "log",
            Self::Other => "other",
        }
    }

    /// Judges a file by its first bytes, and by its name where they say nothing.
    #[must_use]
    pub fn detect(file_name: &[u8], start: &[u8]) -> Self {
        if matches!(file_name, b"report.json" | b"report.html" | b"report.txt") {
            return Self::Report;
        }
        // Kdump-compressed, flattened, and an ELF file whose e_type, in either byte order, is ET_CORE.
        let elf_core = start.starts_with(b"\x7fELF") && matches!(start.get(16..18), Some([4, 0] | [0, 4]));
        if start.starts_with(b"KDUMP   ") || start.starts_with(b"makedumpfile\0") || elf_core {
            return Self::Vmcore;
        }
        let name = String::from_utf8_lossy(file_name).to_ascii_lowercase();
        let archive = [".tar", ".tgz", ".txz"].iter().any(|end| name.contains(end));
        if archive
            && ["sosreport", "scc_", "kdt-host", "host-bundle"].iter().any(|start| name.starts_with(start))
        {
            return Self::HostBundle;
        }
        if name.contains("dmesg")
            || name.contains("console")
            || [".log", ".log.gz"].iter().any(|end| name.ends_with(end))
        {
            return Self::Log;
        }
        if name == "vmcore" || name.starts_with("vmcore.") || name.starts_with("vmcore-incomplete") {
            return Self::Vmcore;
        }
        Self::Other
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn content_decides_before_the_name() {
        for (name, start, kind) in [
            ("report.json", &b"{}"[..], Kind::Report),
            ("dump.202611220607", b"KDUMP   \x06", Kind::Vmcore),
            ("x", b"makedumpfile\0\0\0", Kind::Vmcore),
            ("core.elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0", Kind::Vmcore),
            ("ls", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0", Kind::Other),
            ("vmcore", b"", Kind::Vmcore),
            ("vmcore-dmesg.txt", b"[    0.0]", Kind::Log),
            ("kexec-dmesg.log", b"", Kind::Log),
            ("sosreport-web1-2026.tar.xz", b"", Kind::HostBundle),
            ("notes.txt", b"", Kind::Other),
        ] {
            assert_eq!(Kind::detect(name.as_bytes(), start), kind, "{name}");
        }
    }
}
