//! What a dump says beside its pages: notes, names, times.

use crate::format::diskdump::Utsname;
use crate::mem::Dump;

/// What a dump says beside its pages.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The notes, one behind the other, as they are written.
    pub notes: Vec<u8>,
    /// Which bytes of [`Self::notes`] are the VMCOREINFO text: where, and how many.
    pub vmcoreinfo: Option<(u64, u64)>,
    /// The machine's names.
    pub utsname: Utsname,
    /// Seconds and microseconds since 1970.
    pub time: (i64, i64),
    /// CPUs.
    pub cpus: u32,
    /// How far the kernel lies from its link address.
    pub phys_base: u64,
    /// The text that names what was erased.
    pub erased: Option<String>,
}

impl Texts {
    /// What `dump` says. A kernel that was looked into tells more: [`Self::utsname`] and the rest can be set.
    #[must_use]
    pub fn of(dump: &Dump) -> Self {
        let facts = dump.facts();
        let mut notes = Vec::new();
        let mut vmcoreinfo = None;
        let add = |notes: &mut Vec<u8>, name: &str, kind: u32, desc: &[u8]| {
            let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
            notes.extend(size(name.len().saturating_add(1)));
            notes.extend(size(desc.len()));
            notes.extend(kind.to_le_bytes());
            notes.extend(name.as_bytes());
            notes.push(0);
            notes.resize(notes.len().next_multiple_of(4), 0);
            let at = notes.len();
            notes.extend(desc);
            notes.resize(notes.len().next_multiple_of(4), 0);
            at
        };
        let place = |at: usize, len: usize| Some((u64::try_from(at).ok()?, u64::try_from(len).ok()?));
        for note in dump.notes().iter().filter(|note| !note.cut) {
            let at = add(&mut notes, &note.name, note.kind, &note.desc);
            if vmcoreinfo.is_none() && note.name == "VMCOREINFO" && !note.desc.is_empty() {
                vmcoreinfo = place(at, note.desc.len());
            }
        }
        if let (None, Some(text)) = (vmcoreinfo, dump.vmcoreinfo_raw()) {
            let at = add(&mut notes, "VMCOREINFO", 0, text);
            vmcoreinfo = place(at, text.len());
        }
        let cpus = facts.nr_cpus.unwrap_or_else(|| u32::try_from(dump.prstatus().len()).unwrap_or(1));
        Self {
            notes,
            vmcoreinfo,
            utsname: facts.utsname.clone().unwrap_or_default(),
            time: facts.timestamp.map_or((0, 0), |(s, us)| (s, us.into())),
            cpus: cpus.max(1),
            phys_base: facts.phys_base.unwrap_or(0),
            erased: facts.erase_info.clone().filter(|text| !text.is_empty()),
        }
    }
}
