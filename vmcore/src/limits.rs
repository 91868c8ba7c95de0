//! Ceilings that every count, length and depth from a dump meets before it meets an allocator or a loop.

/// The ceilings of one opened dump. The defaults hold for every machine that a kernel can run on today;
/// they exist so that a damaged header costs an error and not the memory of the host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of ELF notes (all of them together) that are read.
    pub notes_bytes: u64,
    /// Program headers of one ELF file.
    pub segments: u64,
    /// Records of one flattened stream; each costs 24 bytes of memory.
    pub flattened_records: u64,
    /// Frames of the dumped machine, holes included: bounds the bitmaps that are read.
    pub frames: u64,
    /// CPUs of the dumped machine.
    pub cpus: usize,
    /// Bytes of the kernel log, text and descriptors.
    pub log_bytes: u64,
    /// Records of the kernel log.
    pub log_records: usize,
    /// Symbols of the kernel, and of one module.
    pub symbols: usize,
    /// Modules that were loaded.
    pub modules: usize,
    /// Bytes of BTF of the kernel, and of one module.
    pub btf_bytes: u64,
    /// Tasks of the dumped machine.
    pub tasks: usize,
    /// Bytes of one command line that are read; what is longer is cut, and said to be.
    pub cmdline_bytes: usize,
    /// Bytes of one section of debuginfo that has to be unpacked or relocated in memory.
    pub debuginfo_section_bytes: u64,
    /// Items of one walk over a list, tree or array of the kernel.
    pub walk_items: usize,
    /// Bytes of decoded pages that are kept for the next read.
    pub page_cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            notes_bytes: 64 << 20,
            segments: 4 << 20,
            flattened_records: 1 << 26,
            frames: 1 << 36,
            cpus: 8192,
            log_bytes: 1 << 30,
            log_records: 16 << 20,
            symbols: 1 << 20,
            modules: 16 << 10,
            btf_bytes: 64 << 20,
            tasks: 1 << 20,
            cmdline_bytes: 4096,
            debuginfo_section_bytes: 2 << 30,
            walk_items: 4 << 20,
            page_cache_bytes: 16 << 20,
        }
    }
}
