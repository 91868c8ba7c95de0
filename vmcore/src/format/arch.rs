//! The dumped machine's architecture.

use std::fmt;

use object::elf;

/// The dumped machine's architecture, by the kernel's name for it (`uname -m`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// `x86_64`.
    X86_64,
    /// `aarch64`.
    Aarch64,
    /// `ppc64le`.
    Ppc64Le,
    /// `riscv64`.
    Riscv64,
    /// `loongarch64`.
    LoongArch64,
    /// Any other, as the dump names it.
    Other(String),
    /// The dump does not tell.
    Unknown,
}

impl Arch {
    /// By the name in a header's utsname.
    #[must_use]
    pub fn from_machine(name: &str) -> Self {
        match name {
            "" => Self::Unknown,
            "x86_64" => Self::X86_64,
            "aarch64" => Self::Aarch64,
            "ppc64le" => Self::Ppc64Le,
            "riscv64" => Self::Riscv64,
            "loongarch64" => Self::LoongArch64,
            other => Self::Other(other.into()),
        }
    }

    /// By `e_machine` of a little-endian ELF64 file.
    #[must_use]
    pub fn from_elf(machine: u16) -> Self {
        match elf::Machine(machine) {
            elf::EM_X86_64 => Self::X86_64,
            elf::EM_AARCH64 => Self::Aarch64,
            elf::EM_PPC64 => Self::Ppc64Le,
            elf::EM_RISCV => Self::Riscv64,
            elf::EM_LOONGARCH => Self::LoongArch64,
            _ => Self::Other(format!("ELF machine {machine}")),
        }
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Ppc64Le => "ppc64le",
            Self::Riscv64 => "riscv64",
            Self::LoongArch64 => "loongarch64",
            Self::Other(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// The page size that most of its kernels have, for dumps that do not tell.
    #[must_use]
    pub fn usual_page_size(&self) -> u64 {
        match self {
            Self::Ppc64Le => 65536,
            Self::LoongArch64 => 16384,
            _ => 4096,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
