//! VMCOREINFO: what the kernel wrote about itself, as `KEY=value` lines.
//!
//! The text is made by `kernel/vmcore_info.c` (until 6.8: `kernel/crash_core.c`) and by each architecture. It is copied into
//! a note as it stands, so it has the dumped kernel's own traps:
//!
//! - A value may hold `=`: lines are split at the first one.
//! - A key may occur twice: the first counts, as it does for makedumpfile and crash. [`Vmcoreinfo::duplicates`] names them.
//! - The kernel stops in mid line when its page is full (`vmcoreinfo_append_str` clips): the half line is left out, because half an
//!   address looks like an address. [`Vmcoreinfo::cut_line`] has it.
//! - `BUILD-ID` is garbage on stable kernels 5.15.168 and later, 6.1.113 to 6.1.118, 6.6.55 to 6.6.62, 6.10.14 and later, and 6.11.3 to
//!   6.11.9 (list: drgn, `drgn_program_parse_vmcoreinfo.inc.strswitch`): it never proves alone which debuginfo matches.

use std::collections::HashMap;

use crate::addr::KVirtAddr;

/// The most text that is looked at. The kernel writes one page.
const MAX_BYTES: usize = 1 << 20;

/// The smallest page that the kernel clips its text to.
const MIN_PAGE: usize = 4096;

/// One line of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What stands before the first `=`: `SYMBOL(_stext)`.
    pub key: String,
    /// What stands after it.
    pub value: String,
}

/// The parsed text.
#[derive(Clone, Debug, Default)]
pub struct Vmcoreinfo {
    entries: Vec<Entry>,
    by_key: HashMap<String, usize>,
    duplicates: Vec<String>,
    cut_line: Option<String>,
    strange_lines: usize,
}

impl Vmcoreinfo {
    /// Reads the text up to its first NUL. Any bytes are accepted: a line without `=` is counted and passed over.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..MAX_BYTES).unwrap_or(bytes);
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let mut parsed = Self::default();
        // The kernel clips at the end of a page and nowhere else: a last line without its newline is whole in a shorter text.
        let clipped =
            text.len() >= MIN_PAGE && text.len().is_multiple_of(MIN_PAGE) && text.last() != Some(&b'\n');
        let mut lines = text.split(|b| *b == b'\n').peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            if clipped && lines.peek().is_none() {
                parsed.cut_line = Some(line.into_owned());
                break;
            }
            match line.split_once('=') {
                Some((key, value)) if !key.is_empty() => parsed.push(key, value),
                _ => parsed.strange_lines = parsed.strange_lines.saturating_add(1),
            }
        }
        parsed
    }

    fn push(&mut self, key: &str, value: &str) {
        if self.by_key.contains_key(key) {
            self.duplicates.push(key.to_owned());
        } else {
            self.by_key.insert(key.to_owned(), self.entries.len());
        }
        self.entries.push(Entry { key: key.to_owned(), value: value.trim_end_matches('\r').to_owned() });
    }

    /// All lines in the order of the text, duplicates too.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// True where the text had no line of the form `KEY=value`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys that occur again after their first line, which is the one that counts.
    #[must_use]
    pub fn duplicates(&self) -> &[String] {
        &self.duplicates
    }

    /// The last line, where the kernel ran out of space in the middle of it. Keys that should follow it are missing too.
    #[must_use]
    pub fn cut_line(&self) -> Option<&str> {
        self.cut_line.as_deref()
    }

    /// How many lines are not of the form `KEY=value`. More than none means that the text is damaged.
    #[must_use]
    pub fn strange_lines(&self) -> usize {
        self.strange_lines
    }

    /// The value of a whole key, as it stands: `raw("SYMBOL(_stext)")`.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&str> {
        let at = *self.by_key.get(key)?;
        self.entries.get(at).map(|e| e.value.as_str())
    }

    /// `OSRELEASE`: what `uname -r` says.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.raw("OSRELEASE").filter(|v| !v.is_empty())
    }

    /// `BUILD-ID` in hexadecimal. See the module's text: on several kernels it is garbage.
    #[must_use]
    pub fn build_id(&self) -> Option<&str> {
        self.raw("BUILD-ID").filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// `PAGESIZE`, where it is a power of two that a kernel can have.
    #[must_use]
    pub fn page_size(&self) -> Option<u64> {
        self.raw("PAGESIZE")?
            .parse()
            .ok()
            .filter(|size: &u64| size.is_power_of_two() && (4096..=1 << 18).contains(size))
    }

    /// `CRASHTIME`: seconds since 1970, appended when the kernel crashes and not before.
    #[must_use]
    pub fn crash_time(&self) -> Option<u64> {
        self.raw("CRASHTIME")?.trim().parse().ok()
    }

    /// `KERNELOFFSET`: by how much KASLR moved the kernel's text; hexadecimal without `0x`.
    #[must_use]
    pub fn kaslr_offset(&self) -> Option<u64> {
        hex(self.raw("KERNELOFFSET")?)
    }

    /// `SYMBOL(name)`: where a variable or function of the kernel is.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<KVirtAddr> {
        hex(self.kind("SYMBOL", name)?).map(KVirtAddr)
    }

    /// `SIZE(name)`: bytes of a structure.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        self.kind("SIZE", name)?.trim().parse().ok()
    }

    /// `OFFSET(structure.member)`: bytes before the member.
    #[must_use]
    pub fn offset(&self, member: &str) -> Option<u64> {
        self.kind("OFFSET", member)?.trim().parse().ok()
    }

    /// `LENGTH(name)`: members of an array.
    #[must_use]
    pub fn length(&self, name: &str) -> Option<u64> {
        self.kind("LENGTH", name)?.trim().parse().ok()
    }

    /// `NUMBER(name)` as the kernel's `long`: most are signed decimals, some (`VMALLOC_START`) hexadecimal with `0x` and then two's
    /// complement.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let text = self.kind("NUMBER", name)?.trim();
        if text.starts_with("0x") || text.starts_with("0X") {
            return hex(text).map(u64::cast_signed);
        }
        text.parse::<i64>().ok().or_else(|| text.parse::<u64>().ok().map(u64::cast_signed))
    }

    /// [`Self::number`] for what is an address or a mask: the same bits without a sign.
    #[must_use]
    pub fn number_u64(&self, name: &str) -> Option<u64> {
        self.number(name).map(i64::cast_unsigned)
    }

    fn kind(&self, kind: &str, name: &str) -> Option<&str> {
        self.raw(&format!("{kind}({name})"))
    }
}

/// A hexadecimal number, with or without `0x`.
fn hex(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // `from_str_radix` would also take a sign.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_key_is_read_in_its_own_base() {
        let info = Vmcoreinfo::parse(
            b"OSRELEASE=6.1.0-40-cloud-amd64\nBUILD-ID=00ff\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff82a1b3c0\nOFFSET(uts_namespace.name)=4\n\
              SIZE(list_head)=16\nLENGTH(zone.free_area)=11\nNUMBER(phys_base)=-1048576\nNUMBER(VMALLOC_START)=0xffffc90000000000\n\
              KERNELOFFSET=1a000000\nCRASHTIME=1763790000\n",
        );
        assert_eq!(info.release(), Some("6.1.0-40-cloud-amd64"));
        assert_eq!(info.build_id(), Some("00ff"));
        assert_eq!(info.page_size(), Some(4096));
        assert_eq!(info.symbol("init_uts_ns"), Some(KVirtAddr(0xffff_ffff_82a1_b3c0)));
        assert_eq!(info.offset("uts_namespace.name"), Some(4));
        assert_eq!(info.size("list_head"), Some(16));
        assert_eq!(info.length("zone.free_area"), Some(11));
        assert_eq!(info.number("phys_base"), Some(-0x10_0000));
        assert_eq!(info.number_u64("VMALLOC_START"), Some(0xffff_c900_0000_0000));
        assert_eq!(info.kaslr_offset(), Some(0x1a00_0000));
        assert_eq!(info.crash_time(), Some(1_763_790_000));
        assert_eq!(info.symbol("no_such"), None);
    }

    #[test]
    fn a_value_keeps_its_own_equal_signs() {
        let info = Vmcoreinfo::parse(b"OSRELEASE=6.1=x\n");
        assert_eq!(info.release(), Some("6.1=x"));
    }

    #[test]
    fn of_two_equal_keys_the_first_counts_and_the_second_is_named() {
        let info = Vmcoreinfo::parse(b"KERNELOFFSET=1000\nKERNELOFFSET=2000\n");
        assert_eq!(info.kaslr_offset(), Some(0x1000));
        assert_eq!(info.duplicates(), ["KERNELOFFSET"]);
        assert_eq!(info.entries().len(), 2);
    }

    #[test]
    fn a_line_that_the_end_of_the_page_cuts_is_left_out_and_told() {
        let mut page = b"OSRELEASE=6.1\n".to_vec();
        page.resize(4096 - 20, b'#');
        page.extend_from_slice(b"\nSYMBOL(x)=ffffffff8");
        page.truncate(4096);
        let info = Vmcoreinfo::parse(&page);
        assert_eq!(info.symbol("x"), None);
        assert_eq!(info.cut_line(), Some("SYMBOL(x)=ffffffff8"));
        assert_eq!(info.release(), Some("6.1"));
    }

    #[test]
    fn a_last_line_without_newline_counts_in_a_text_shorter_than_a_page() {
        let info = Vmcoreinfo::parse(b"OSRELEASE=6.1\nPAGESIZE=4096");
        assert_eq!(info.page_size(), Some(4096));
        assert_eq!(info.cut_line(), None);
    }

    #[test]
    fn what_follows_a_nul_is_not_text() {
        let info = Vmcoreinfo::parse(b"OSRELEASE=6.1\n\0PAGESIZE=4096\n");
        assert_eq!(info.page_size(), None);
    }

    #[test]
    fn impossible_values_are_not_values() {
        let info = Vmcoreinfo::parse(b"PAGESIZE=4095\nSYMBOL(a)=-1\nSYMBOL(b)=10000000000000000\nOFFSET(c.d)=-4\nBUILD-ID=xyz\nno equal sign\n=x\n");
        assert_eq!(info.page_size(), None);
        assert_eq!(info.symbol("a"), None);
        assert_eq!(info.symbol("b"), None);
        assert_eq!(info.offset("c.d"), None);
        assert_eq!(info.build_id(), None);
        assert_eq!(info.strange_lines(), 2);
    }

    proptest! {
        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let info = Vmcoreinfo::parse(&bytes);
            let _ = (info.release(), info.kaslr_offset(), info.number("phys_base"), info.symbol("prb"));
        }
    }
}
