//! The loaded BPF programs, and how many maps and links there are.
//!
//! Facts: `include/linux/bpf.h`, `kernel/bpf/syscall.c`. All are numbered in trees of their own.

use super::reader::{Reader, note, note_end};
use super::value::{Layout, Maybe, view};
use super::{Gap, idr};
use crate::addr::KVirtAddr;

/// Programs that are read.
const MOST: usize = 1 << 18;

view! {
    struct Program of "bpf_prog" {
        kind: u32 = ["type"],
        tag: Vec<u8> = ["tag"],
        jited: Maybe<u32> = ["jited_len"],
        instructions: Maybe<u32> = ["len"],
        aux: KVirtAddr = ["aux"],
        function: Maybe<KVirtAddr> = ["bpf_func"],
    }
}

view! {
    struct Aux of "bpf_prog_aux" {
        id: u32 = ["id"],
        name: String = ["name"],
        load_time: Maybe<u64> = ["load_time"],
        user: Maybe<KVirtAddr> = ["user"],
    }
}

view! {
    struct User of "user_struct" {
        uid: u32 = ["uid"],
    }
}

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BpfProgram {
    /// Its number.
    pub id: u64,
    /// Its type as the kernel names it, without `BPF_PROG_TYPE_`: `kprobe`, `xdp`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The hash over its instructions, in hexadecimal.
    pub tag: String,
    /// Who loaded it.
    pub uid: Option<u32>,
    /// When, in nanoseconds since boot.
    pub load_time_ns: Option<u64>,
    /// Bytes of its machine code; 0 where it is interpreted.
    pub jited: Option<u32>,
    /// Instructions that it has.
    pub instructions: Option<u32>,
    /// Where its code begins.
    pub function: Option<KVirtAddr>,
}

/// What of BPF is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Bpf {
    /// The programs, by ascending number.
    pub programs: Vec<BpfProgram>,
    /// How many maps there are.
    pub maps: Option<usize>,
    /// How many links there are.
    pub links: Option<usize>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// Reads the programs. A kernel without BPF has none, and that is no gap.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Option<Bpf> {
    let programs = reader.symbols.address("prog_idr")?;
    let mut found = Bpf::default();
    let layouts = || {
        let (types, text) = (reader.types, |why: crate::sym::btf::TypeError| why.to_string());
        let idr = idr::Layout::new(types).map_err(text)?;
        Ok::<_, String>((
            idr,
            Layout::<Program>::new(types).map_err(text)?,
            Layout::<Aux>::new(types).map_err(text)?,
        ))
    };
    let (idr, objects, auxes) = match layouts() {
        Ok(layouts) => layouts,
        Err(why) => {
            note(&mut found.gaps, "BPF programs", why);
            return Some(found);
        }
    };
    let users = Layout::<User>::new(reader.types).ok();
    let walk = idr.entries(reader.memory, programs, MOST);
    note_end(&mut found.gaps, "BPF programs", &walk.end);
    for (id, kaddr) in walk.items {
        let read = || {
            let object = objects.read(reader.memory, kaddr)?;
            let aux = auxes.read(reader.memory, object.aux)?;
            Ok::<_, super::value::ValueError>((object, aux))
        };
        match read() {
            Ok((object, aux)) => {
                if u64::from(aux.id) != id {
                    let why = format!("it says that its number is {}", aux.id);
                    note(&mut found.gaps, &format!("BPF program {id}"), why);
                }
                let user = users.as_ref().zip(aux.user.value().filter(|at| !at.is_null()));
                found.programs.push(BpfProgram {
                    id,
                    kind: kind(reader, object.kind),
                    name: aux.name,
                    tag: hex::encode(object.tag),
                    uid: user.and_then(|(layout, at)| Some(layout.read(reader.memory, at).ok()?.uid)),
                    load_time_ns: aux.load_time.value(),
                    jited: object.jited.value(),
                    instructions: object.instructions.value(),
                    function: object.function.value().filter(|at| !at.is_null()),
                });
            }
            Err(why) => note(&mut found.gaps, &format!("BPF program {id}"), why),
        }
    }
    let mut count = |name: &str, what: &str| {
        let walk = idr.entries(reader.memory, reader.symbols.address(name)?, MOST);
        note_end(&mut found.gaps, what, &walk.end);
        walk.end.is_complete().then_some(walk.items.len())
    };
    let (maps, links) = (count("map_idr", "BPF maps"), count("link_idr", "BPF links"));
    (found.maps, found.links) = (maps, links);
    Some(found)
}

fn kind(reader: Reader<'_, '_>, number: u32) -> String {
    let name = |number: u32| {
        let kinds = reader.types.enumeration("bpf_prog_type").ok()?;
        let name = kinds.name_of(i64::from(number))?;
        Some(name.strip_prefix("BPF_PROG_TYPE_").unwrap_or(name).to_ascii_lowercase())
    };
    name(number).unwrap_or_else(|| number.to_string())
}
