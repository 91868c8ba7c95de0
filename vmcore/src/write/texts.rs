//! What a dump says beside its pages: notes, names, times.

use crate::format::diskdump::Utsname;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::kernel::Kernel;
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
    /// What `dump` says.
    #[must_use]
    pub fn of(dump: &Dump) -> Self {
        let facts = dump.facts();
        let cpus = facts.nr_cpus.unwrap_or_else(|| u32::try_from(dump.prstatus().len()).unwrap_or(1));
        let mut texts = Self {
            utsname: facts.utsname.clone().unwrap_or_default(),
            time: facts.timestamp.map_or((0, 0), |(s, us)| (s, us.into())),
            cpus: cpus.max(1),
            phys_base: facts.phys_base.unwrap_or(0),
            erased: facts.erase_info.clone().filter(|text| !text.is_empty()),
            ..Self::default()
        };
        for note in dump.notes().iter().filter(|note| !note.cut) {
            texts.add(&note.name, note.kind, &note.desc);
        }
        if let (None, Some(text)) = (texts.vmcoreinfo, dump.vmcoreinfo_raw()) {
            texts.add("VMCOREINFO", 0, text);
        }
        texts
    }

    /// What `dump` says, and what `kernel`, which was found in it, says of itself where the dump says nothing: a guest's dump
    /// may have neither names nor VMCOREINFO. Where the image has two kernels, this is about the one that crashed: its VMCOREINFO,
    /// and its CPUs' registers, take the place of the capture kernel's.
    #[must_use]
    pub fn told_by(dump: &Dump, kernel: &Kernel<'_>) -> Self {
        let mut texts = Self::of(dump);
        let facts = kernel.facts();
        let crashed = kernel.two_kernels().and_then(|two| two.handed_over.as_ref());
        let told = dump.vmcoreinfo_raw().map(Vmcoreinfo::parse).filter(|info| !info.is_empty());
        let own = kernel.vmcoreinfo();
        let same = told.as_ref().is_some_and(|told| told.entries() == own.entries());
        if (!same && !own.is_empty()) || crashed.is_some() {
            let notes = dump.notes().iter().filter(|note| !note.cut && note.name != "VMCOREINFO");
            let replaced = crashed.map(|crashed| crashed.notes.as_slice()).filter(|notes| !notes.is_empty());
            (texts.notes, texts.vmcoreinfo) = (Vec::new(), None);
            match replaced {
                Some(notes) => notes.iter().for_each(|note| texts.add(&note.name, note.kind, &note.desc)),
                None => notes.for_each(|note| texts.add(&note.name, note.kind, &note.desc)),
            }
            texts.add("VMCOREINFO", 0, text_of(own).as_bytes());
        }
        if let Ok(uts) = kernel.uts() {
            let names = &mut texts.utsname;
            for (name, told) in [
                (&mut names.sysname, &uts.sysname),
                (&mut names.nodename, &uts.nodename),
                (&mut names.release, &uts.release),
                (&mut names.version, &uts.version),
                (&mut names.machine, &uts.machine),
                (&mut names.domainname, &uts.domainname),
            ] {
                if name.is_empty() || crashed.is_some() {
                    name.clone_from(told);
                }
            }
        }
        if texts.time == (0, 0) {
            texts.time = (facts.crash_time.and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0);
        }
        texts.phys_base = facts.phys_base.unwrap_or(texts.phys_base);
        texts
    }

    /// Adds a note behind the others.
    pub fn add(&mut self, name: &str, kind: u32, desc: &[u8]) {
        let notes = &mut self.notes;
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
        if self.vmcoreinfo.is_none() && name == "VMCOREINFO" && !desc.is_empty() {
            self.vmcoreinfo = u64::try_from(at).ok().zip(u64::try_from(desc.len()).ok());
        }
    }
}

/// The text that the kernel wrote, line by line.
fn text_of(info: &Vmcoreinfo) -> String {
    info.entries().iter().fold(String::new(), |text, entry| text + &entry.key + "=" + &entry.value + "\n")
}
