//! Small dumps, byte by byte from offsets that are written out here: the reader's own structs would prove nothing.

use std::io::Write;

pub(crate) const PAGE: usize = 4096;

pub(crate) fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((name.len() as u32 + 1).to_le_bytes());
    out.extend((desc.len() as u32).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn prstatus(pid: u32, rip: u64) -> Vec<u8> {
    let mut desc = vec![0; 336];
    put(&mut desc, 32, &pid.to_le_bytes());
    put(&mut desc, 112 + 16 * 8, &rip.to_le_bytes());
    note("CORE", 1, &desc)
}

/// A page that compresses, and that no other number has.
pub(crate) fn page(number: u64) -> Vec<u8> {
    (0..PAGE as u64).map(|i| ((i / 64) ^ (number * 7 + 1)) as u8).collect()
}

/// One program header.
#[derive(Clone, Copy)]
pub(crate) struct Ph {
    pub kind: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub file_size: u64,
    pub mem_size: u64,
}

pub(crate) fn load(paddr: u64, offset: u64, file_size: u64, mem_size: u64) -> Ph {
    Ph { kind: 1, offset, vaddr: 0, paddr, file_size, mem_size }
}

/// Header and program headers of an ELF64 core of `x86_64`, the program headers at `phoff`.
pub(crate) fn elf(phoff: usize, headers: &[Ph]) -> Vec<u8> {
    let mut file = vec![0; 64];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &4u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 32, &(phoff as u64).to_le_bytes());
    put(&mut file, 52, &64u16.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &(headers.len().min(0xffff) as u16).to_le_bytes());
    for (i, ph) in headers.iter().enumerate() {
        let at = phoff + i * 56;
        put(&mut file, at, &ph.kind.to_le_bytes());
        put(&mut file, at + 8, &ph.offset.to_le_bytes());
        put(&mut file, at + 16, &ph.vaddr.to_le_bytes());
        put(&mut file, at + 24, &ph.paddr.to_le_bytes());
        put(&mut file, at + 32, &ph.file_size.to_le_bytes());
        put(&mut file, at + 40, &ph.mem_size.to_le_bytes());
        put(&mut file, at + 48, &0u64.to_le_bytes());
    }
    file
}

/// Two notes, three pages from 1 MiB on, of which the last was left out.
pub(crate) fn small_elf() -> Vec<u8> {
    let notes = [prstatus(77, 0x1234), note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\n")].concat();
    let mut file = elf(
        64,
        &[
            Ph { kind: 4, offset: 0x200, vaddr: 0, paddr: 0, file_size: notes.len() as u64, mem_size: 0 },
            load(0x10_0000, 0x1000, 0x2000, 0x3000),
        ],
    );
    put(&mut file, 0x200, &notes);
    put(&mut file, 0x1000, &[page(0), page(1)].concat());
    file
}

pub(crate) fn encode(flags: u32, page: &[u8]) -> Vec<u8> {
    match flags {
        1 => {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(page).unwrap();
            out.finish().unwrap()
        }
        2 => lzokay_native::compress(page).unwrap(),
        4 => snap::raw::Encoder::new().compress_vec(page).unwrap(),
        0x20 => zstd::bulk::compress(page, 1).unwrap(),
        _ => page.to_vec(),
    }
}

/// A kdump-compressed file: frames 0 to 63, of which `ram` are RAM and `stored` have pages.
#[derive(Clone)]
pub(crate) struct Kdump {
    pub version: i32,
    pub frames: u64,
    pub ram: Vec<u64>,
    pub stored: Vec<u64>,
    /// Stored in part, up to this count; the descriptors behind are empty.
    pub written: usize,
    pub flags: u32,
    pub status: u32,
    pub part: Option<(u64, u64)>,
    pub seconds: i64,
}

impl Kdump {
    pub(crate) const SUB: usize = PAGE;
    pub(crate) const BITMAPS: usize = 2 * PAGE;
    pub(crate) const DESCRIPTORS: usize = 4 * PAGE;

    pub(crate) fn new() -> Self {
        Self {
            version: 6,
            frames: 64,
            ram: (0..40).collect(),
            stored: (0..40).step_by(3).collect(),
            written: usize::MAX,
            flags: 1,
            status: 1,
            part: None,
            seconds: 1_700_000_000,
        }
    }

    /// The frames that the file has pages of.
    pub(crate) fn own(&self) -> Vec<u64> {
        let (start, end) = self.part.unwrap_or((0, u64::MAX));
        self.stored.iter().copied().filter(|n| (start..end).contains(n)).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut f = vec![0; Self::DESCRIPTORS];
        put(&mut f, 0, b"KDUMP   ");
        put(&mut f, 8, &self.version.to_le_bytes());
        for (i, text) in ["Linux", "host", "6.1.0-test", "#1", "x86_64", "(none)"].iter().enumerate() {
            put(&mut f, 12 + 65 * i, text.as_bytes());
        }
        put(&mut f, 408, &self.seconds.to_le_bytes());
        put(&mut f, 424, &self.status.to_le_bytes());
        put(&mut f, 428, &(PAGE as u32).to_le_bytes());
        put(&mut f, 432, &1u32.to_le_bytes());
        put(&mut f, 436, &2u32.to_le_bytes());
        put(&mut f, 440, &(self.frames as u32).to_le_bytes());
        put(&mut f, 460, &2u32.to_le_bytes());

        let s = Self::SUB;
        put(&mut f, s, &0x100_0000u64.to_le_bytes());
        put(&mut f, s + 8, &31u32.to_le_bytes());
        if let Some((start, end)) = self.part {
            put(&mut f, s + 12, &1u32.to_le_bytes());
            for (at, value) in [(16, start), (24, end), (80, start), (88, end)] {
                put(&mut f, s + at, &value.to_le_bytes());
            }
        }
        let info = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\n";
        let notes = [prstatus(5, 0xabc), note("VMCOREINFO", 0, info)].concat();
        let notes_at = s + 104;
        put(&mut f, notes_at, &notes);
        let info_at = notes_at + notes.len() - info.len().next_multiple_of(4);
        let erase_at = s + 3000;
        let erase = b"erase secret 8\n";
        put(&mut f, erase_at, erase);
        for (at, value) in [
            (32, info_at),
            (40, info.len()),
            (48, notes_at),
            (56, notes.len()),
            (64, erase_at),
            (72, erase.len()),
            (96, self.frames as usize),
        ] {
            put(&mut f, s + at, &(value as u64).to_le_bytes());
        }

        for (map, frames) in [(0, &self.ram), (1, &self.stored)] {
            for n in frames {
                f[Self::BITMAPS + map * PAGE + *n as usize / 8] |= 1 << (n % 8);
            }
        }
        let own = self.own();
        let mut data = Self::DESCRIPTORS + own.len() * 24;
        f.resize(data, 0);
        for (i, n) in own.iter().enumerate().take(self.written) {
            let stored = encode(self.flags, &page(*n));
            let at = Self::DESCRIPTORS + i * 24;
            put(&mut f, at, &(data as u64).to_le_bytes());
            put(&mut f, at + 8, &(stored.len() as u32).to_le_bytes());
            put(&mut f, at + 12, &self.flags.to_le_bytes());
            put(&mut f, data, &stored);
            data += stored.len();
        }
        f
    }
}

/// A file as a flattened stream of records of `size` bytes, with its end marker.
pub(crate) fn flatten(file: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0; 4096];
    put(&mut out, 0, b"makedumpfile");
    out[23] = 1;
    out[31] = 1;
    for (i, data) in file.chunks(size).enumerate() {
        out.extend(((i * size) as u64).to_be_bytes());
        out.extend((data.len() as u64).to_be_bytes());
        out.extend(data);
    }
    out.extend([0xff; 16]);
    out
}
