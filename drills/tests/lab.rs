//! The lab makes real dumps. Four guests are crashed where the cache is cold, and each of them once: kernel
//! 6.1 with a capture kernel, and from the host with and without VMCOREINFO; kernel 6.12 with a capture kernel.
//!
//! What is checked here is that the dumps are what their recipes say, by facts of the formats themselves; how
//! they are read is tested where they are read.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test program: its helpers stand outside of #[test] functions"
)]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use drills::cli::Environment;
use drills::lab::{KernelSpec, Lab, LabError, MadeDump, RecipeBook};

/// Makes a dump, or says why this machine cannot: then the test has nothing to check, unless
/// `KDT_REQUIRE_LAB` is set.
fn make(kernel: &str, recipe: &str, out: &Path) -> Option<MadeDump> {
    let made = Lab::open(Environment::of_this_process().lab_cache()).and_then(|lab| {
        let lab = lab.talk_to(|text| println!("lab: {text}"));
        lab.make_dump(&KernelSpec::named(kernel)?, RecipeBook::read()?.recipe(recipe)?, out)
    });
    let required = std::env::var_os("KDT_REQUIRE_LAB").is_some_and(|v| !v.is_empty());
    match made {
        Ok(made) => Some(made),
        Err(e) if e.is_missing_tool() && !required => {
            println!("SKIP lab {kernel} {recipe}: {e}; {}", e.hint());
            None
        }
        Err(e) => panic!("{kernel} {recipe}: {e}\nhint: {}", e.hint()),
    }
}

fn head(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().take(8192).read_to_end(&mut bytes).unwrap();
    bytes
}

fn holds(path: &Path, what: &[u8]) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes.windows(what.len()).any(|window| window == what)
}

/// The console and, where makedumpfile reads the dump, the log hold the mark of exactly this guest.
fn is_of_its_guest(made: &MadeDump) {
    let mark = format!("lab: mark {}", made.mark);
    assert!(holds(&made.console, mark.as_bytes()), "{}", made.console.display());
    if let Some(dmesg) = &made.dmesg {
        assert!(holds(dmesg, mark.as_bytes()), "{}", dmesg.display());
    }
}

fn kdump(kernel: &str) {
    let dir = tempfile::tempdir().unwrap();
    let Some(flat) = make(kernel, "kdump-flattened", dir.path()) else { return };
    assert!(flat.kernel_release.starts_with(&format!("{kernel}.")), "{}", flat.kernel_release);
    assert!(head(&flat.paths[0]).starts_with(b"makedumpfile\0\0\0\0"));
    let mut end = fs::read(&flat.paths[0]).unwrap();
    assert_eq!(end.split_off(end.len() - 16), [0xff; 16], "the stream ends at its mark");
    is_of_its_guest(&flat);

    let lzo = make(kernel, "kdump-lzo", dir.path()).unwrap();
    let zlib = make(kernel, "kdump-zlib", dir.path()).unwrap();
    for (made, level) in [(&lzo, 31_u32), (&zlib, 31)] {
        let bytes = head(&made.paths[0]);
        assert!(bytes.starts_with(b"KDUMP   "), "{}", made.paths[0].display());
        assert!(holds(&made.paths[0], format!("OSRELEASE={}\n", made.kernel_release).as_bytes()));
        // makedumpfile's diskdump_mod.h: the sub-header begins at block 1, its `dump_level` 8 bytes later.
        assert_eq!(bytes[4104..4108], level.to_le_bytes());
        is_of_its_guest(made);
    }
    assert!(zlib.dmesg.is_some(), "makedumpfile reads what it wrote");

    let split = make(kernel, "kdump-split", dir.path()).unwrap();
    assert_eq!(split.paths.len(), 3);
    for part in &split.paths {
        assert!(head(part).starts_with(b"KDUMP   "), "{}", part.display());
    }
    for recipe in ["kdump-elf", "kdump-vmcore"] {
        let made = make(kernel, recipe, dir.path()).unwrap();
        assert!(head(&made.paths[0]).starts_with(b"\x7fELF\x02\x01"), "{recipe}");
        is_of_its_guest(&made);
    }
    match make_or_codec(kernel, dir.path()) {
        Some(zstd) => is_of_its_guest(&zstd),
        None => println!("SKIP lab {kernel} kdump-zstd: no makedumpfile with zstd can be had here"),
    }
}

/// zstd needs a makedumpfile newer than Debian 12's; that it cannot be had is no fault of the lab.
fn make_or_codec(kernel: &str, out: &Path) -> Option<MadeDump> {
    let lab = Lab::open(Environment::of_this_process().lab_cache()).unwrap();
    let book = RecipeBook::read().unwrap();
    let made = lab.make_dump(&KernelSpec::named(kernel).unwrap(), book.recipe("kdump-zstd").unwrap(), out);
    match made {
        Err(LabError::Codec { .. }) => None,
        made => Some(made.unwrap()),
    }
}

#[test]
fn kernel_6_1_captures_its_own_crash() {
    kdump("6.1");
}

/// Needs `KDT_LAB_KDT`, which `drills/lab/test.sh` sets: where it is not set, nothing is checked.
#[test]
fn kdt_collects_in_the_capture_kernel() {
    let environment = Environment::of_this_process();
    let Some(program) = environment.lab_kdt.as_ref().map(|kdt| fs::metadata(kdt).unwrap().len()) else {
        println!("SKIP lab kdump-kdt: KDT_LAB_KDT names no kdt");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::open(environment.lab_cache()).unwrap().collect_with(environment.lab_kdt);
    let (kernel, book) = (KernelSpec::named("6.1").unwrap(), RecipeBook::read().unwrap());
    let make = |recipe| lab.make_dump(&kernel, book.recipe(recipe).unwrap(), dir.path()).unwrap();
    let (file, stream, part) = (make("kdump-kdt"), make("kdump-kdt-flattened"), make("kdump-kdt-incomplete"));
    for made in [&file, &part] {
        assert!(head(&made.paths[0]).starts_with(b"KDUMP   "));
        is_of_its_guest(made);
    }
    assert!(head(&stream.paths[0]).starts_with(b"makedumpfile\0\0\0\0"));
    // `status` of the header: DUMP_DH_COMPRESSED_INCOMPLETE is 8.
    assert_eq!((head(&file.paths[0])[424] & 8, head(&part.paths[0])[424] & 8), (0, 8));
    let console = fs::read_to_string(&file.console).unwrap();
    let memory =
        console.lines().filter_map(|line| line.split_once("memory: ")?.1.split_once(" kB resident at most"));
    let memory: Vec<u64> = memory.map(|(kib, _)| kib.parse().unwrap()).collect();
    assert_eq!(memory.len(), 3);
    // The pages of its file count as resident too, and a program that is built for debugging is large.
    assert!(memory.iter().all(|kib| *kib << 10 <= (32 << 20) + program), "{memory:?} KiB");
    println!("kdt took {memory:?} KiB");
}

#[test]
fn kernel_6_12_captures_its_own_crash() {
    kdump("6.12");
}

#[test]
fn the_host_dumps_a_panicked_guest_with_and_without_vmcoreinfo() {
    let dir = tempfile::tempdir().unwrap();
    for (suffix, noted) in [("", true), ("-no-vmcoreinfo", false)] {
        let Some(elf) = make("6.1", &format!("host-elf{suffix}"), dir.path()) else { return };
        let flat = make("6.1", &format!("host-kdump-zlib{suffix}"), dir.path()).unwrap();
        assert!(head(&elf.paths[0]).starts_with(b"\x7fELF\x02\x01"));
        assert!(head(&flat.paths[0]).starts_with(b"makedumpfile\0\0\0\0"));
        // The guest's memory holds the text too; the note's header, in the first pages, does not lie there.
        let first = head(&elf.paths[0]);
        assert_eq!(first.windows(11).any(|w| w == b"VMCOREINFO\0"), noted, "host-elf{suffix}");
        is_of_its_guest(&elf);
    }
}

#[test]
fn no_guest_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    if make("6.1", "kdump-zlib", dir.path()).is_none() {
        return;
    }
    let me = std::process::id().to_string();
    let children: Vec<PathBuf> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| {
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            let mine = status.lines().any(|l| l.strip_prefix("PPid:").map(str::trim) == Some(me.as_str()));
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            mine && name.starts_with("qemu")
        })
        .collect();
    // Other tests of this program may be in the middle of a boot of theirs: theirs run in other folders, so
    // that only a guest whose folder is gone has been left behind.
    let left: Vec<_> = children
        .iter()
        .filter(|process| {
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            let console = words.split('\0').find_map(|w| w.strip_prefix("file:"));
            console.is_some_and(|path| !Path::new(path).exists())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
