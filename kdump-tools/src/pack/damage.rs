//! Where in a part the damage is. A digest says that a byte is wrong; the frames' own checksums say about
//! where.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use vmcore::progress::Cancel;
use zstd::stream::read::Decoder;

/// No frame of ours needs more than 8 MiB of window, so no decoder here allocates more.
pub(super) const WINDOW_LOG: u32 = 23;

/// The offset of the first frame that does not decode, and what the decoder said; `None` where all do,
/// or the file can't be read.
pub(super) fn first_bad_frame(path: &Path, cancel: &Cancel) -> Option<(u64, String)> {
    let mut input = Counted { inner: BufReader::with_capacity(1 << 20, File::open(path).ok()?), at: 0 };
    let mut sink = vec![0; 1 << 20];
    loop {
        let start = input.at;
        if input.fill_buf().ok()?.is_empty() || cancel.is_cancelled() {
            return None;
        }
        if let Err(e) = decode_frame(&mut input, &mut sink, cancel) {
            return Some((start, e.to_string()));
        }
    }
}

fn decode_frame(input: &mut Counted, sink: &mut [u8], cancel: &Cancel) -> io::Result<()> {
    let mut decoder = Decoder::with_buffer(input)?.single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    while decoder.read(sink)? > 0 && !cancel.is_cancelled() {}
    Ok(())
}

/// Counts what was taken of a file.
struct Counted {
    inner: BufReader<File>,
    at: u64,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buf)?;
        self.at = self.at.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        Ok(got)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.at = self.at.saturating_add(u64::try_from(amount).unwrap_or(u64::MAX));
    }
}
