//! Modules' own symbols, with the layouts of `struct module` before and after 6.4.

use std::sync::Arc;

use fixtures::btf::Btf as Builder;
use vmcore::addr::KVirtAddr;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::limits::Limits;
use vmcore::sym::Symbols;
use vmcore::sym::btf::Btf;
use vmcore::sym::modules::{ModuleLayout, ModuleSymbols};

use crate::ram::{DIRECT, Ram};

const MODULE: u64 = DIRECT + 0x10_000;
const TABLE: u64 = DIRECT + 0x11_000;
const SYMTAB: u64 = DIRECT + 0x12_000;
const STRTAB: u64 = DIRECT + 0x13_000;
const TYPETAB: u64 = DIRECT + 0x14_000;
const CODE: u64 = 0xffff_ffff_c010_0000;
const DATA: u64 = 0xffff_ffff_c020_0000;

/// `struct module` with `mem[]` (6.4) or `core_layout` (4.5).
fn types(new: bool) -> Arc<Btf> {
    let mut b = Builder::default();
    let int = b.int("unsigned int", 4, false);
    let char_ = b.int("char", 1, true);
    let name = b.array(char_, 56);
    let pointer = b.pointer(0);
    let mut members = vec![("name", name, 0, 0), ("kallsyms", pointer, 64 * 8, 0)];
    if new {
        let mem = b.structure("module_memory", 16, &[("base", pointer, 0, 0), ("size", int, 64, 0)]);
        let mem = b.array(mem, 7);
        members.push(("mem", mem, 128 * 8, 0));
    } else {
        let part = b.structure("module_layout", 32, &[("base", pointer, 0, 0), ("size", int, 64, 0)]);
        members.push(("core_layout", part, 128 * 8, 0));
        members.push(("init_layout", part, 160 * 8, 0));
    }
    b.structure("module", 256, &members);
    let table = [
        ("symtab", pointer, 0, 0),
        ("num_symtab", int, 64, 0),
        ("strtab", pointer, 128, 0),
        ("typetab", pointer, 192, 0),
    ];
    b.structure("mod_kallsyms", 32, &table);
    Arc::new(Btf::parse(b.finish(None)).unwrap())
}

fn ram(new: bool) -> Ram {
    let mut ram = Ram::default();
    ram.put(MODULE, &[0; 4096]);
    ram.put(MODULE, b"faulty_driver\0");
    ram.put_u64(MODULE + 64, TABLE);
    ram.put_u64(MODULE + 128, CODE);
    ram.put_u64(MODULE + 136, 0x2000);
    if new {
        ram.put_u64(MODULE + 144, DATA);
        ram.put_u64(MODULE + 152, 0x1000);
    }
    let mut names = vec![0];
    let mut symbols = vec![0_u8; 24];
    let mut letters = vec![0];
    let all = [
        ("cleanup_module", CODE + 0x400, 1_u16, b'T'),
        ("$x", CODE + 0x120, 1, b't'),
        ("fault_write", CODE + 0x100, 1, b't'),
        ("printk", 0, 0, b'U'),
        ("fault_init", CODE + 0x200, 1, b't'),
        ("fault_alias", CODE + 0x200, 1, b't'),
        ("state", DATA + 0x10, 3, b'd'),
    ];
    for (name, value, section, letter) in all {
        let at = u32::try_from(names.len()).unwrap();
        symbols.extend_from_slice(&at.to_le_bytes());
        symbols.extend_from_slice(&[0, 0]);
        symbols.extend_from_slice(&section.to_le_bytes());
        symbols.extend_from_slice(&value.to_le_bytes());
        symbols.extend_from_slice(&[0; 8]);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        letters.push(letter);
    }
    ram.put_u64(TABLE, SYMTAB);
    ram.put_u64(TABLE + 8, 8);
    ram.put_u64(TABLE + 16, STRTAB);
    ram.put_u64(TABLE + 24, TYPETAB);
    ram.put(SYMTAB, &symbols);
    ram.put(STRTAB, &names);
    ram.put(TYPETAB, &letters);
    ram
}

fn read(ram: &Ram, new: bool) -> Result<ModuleSymbols, String> {
    let layout = ModuleLayout::new(&types(new)).unwrap();
    ModuleSymbols::read(&ram.memory(), &layout, KVirtAddr(MODULE), &Limits::default())
        .map_err(|e| e.to_string())
}

#[test]
fn both_layouts_give_the_same_symbols() {
    for new in [true, false] {
        let module = read(&ram(new), new).unwrap();
        assert_eq!(&**module.name(), "faulty_driver");
        assert_eq!((module.len(), module.gap(), module.ranges().len()), (6, None, if new { 2 } else { 1 }));
        let mut symbols = Symbols::new(&Vmcoreinfo::default(), None);
        symbols.add_modules(vec![module]);
        let at = |address| symbols.at(KVirtAddr(address)).map(|s| s.to_string());
        // The mark `$x` is no function; of aliases the first counts; what was undefined is not the module's.
        assert_eq!(at(CODE + 0x1a0), Some("fault_write+0xa0/0x100 [faulty_driver]".into()));
        assert_eq!(at(CODE + 0x210), Some("fault_init+0x10/0x200 [faulty_driver]".into()));
        // The last function ends with the module's memory.
        assert_eq!(at(CODE + 0x1fff), Some("cleanup_module+0x1bff/0x1c00 [faulty_driver]".into()));
        assert_eq!(at(CODE + 0x2000), None);
        assert_eq!(at(CODE), None, "no symbol is before the first");
        assert_eq!(symbols.module_at(KVirtAddr(CODE)).map(|m| &**m), Some("faulty_driver"));
        assert_eq!(at(DATA + 0x18), new.then(|| "state+0x8/0xff0 [faulty_driver]".into()));
        assert_eq!(symbols.symbol("printk"), None);
        let found = symbols.symbol("fault_alias").unwrap();
        assert_eq!((found.letter, found.to_string()), ('t', "fault_alias [faulty_driver]".into()));
    }
}

#[test]
fn a_module_without_its_table_keeps_its_name_and_memory() {
    let mut without = ram(true);
    without.lose(TABLE);
    let module = read(&without, true).unwrap();
    assert!(module.is_empty() && module.gap().unwrap().contains("was left out when the dump was made"));
    assert_eq!(module.ranges().len(), 2);
    let mut without = ram(true);
    without.lose(STRTAB);
    assert!(
        read(&without, true).unwrap().gap().unwrap().starts_with("names of the module's symbols are missing")
    );
}

#[test]
fn what_is_no_module_is_refused() {
    let mut nameless = ram(true);
    nameless.put(MODULE, &[0; 8]);
    assert_eq!(
        read(&nameless, true).unwrap_err(),
        format!("what is at kaddr {MODULE:#x} is no module: it has no name")
    );
    let mut huge = ram(true);
    huge.put(MODULE + 136, &[0xff; 4]);
    assert!(read(&huge, true).unwrap_err().ends_with("its memory can't be that large"));
    let mut many = ram(true);
    many.put(TABLE + 8, &[0xff; 4]);
    assert_eq!(read(&many, true).unwrap().gap(), Some("the module can't have 4294967295 symbols"));
    let mut gone = ram(true);
    gone.lose(MODULE);
    assert!(read(&gone, true).unwrap_err().contains("can't be read"));
}
