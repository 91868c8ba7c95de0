//! The symbol table in each form that kernels have, whole and damaged.

use std::fmt::Write;

use fixtures::kallsyms::{Addresses, Form, Symbol, Table};
use proptest::prelude::*;
use vmcore::addr::KVirtAddr;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::limits::Limits;
use vmcore::sym::Symbols;
use vmcore::sym::kallsyms::{self, Encoding, Found, Kallsyms, LengthForm};

use crate::ram::{Ram, TEXT};

const STEXT: u64 = TEXT + 0x0100_0000;
/// Behind 8 MiB of text that is not there: far enough that the search must look on.
const AT: u64 = STEXT + 0x0100_0008;

/// Whether lengths are long, markers wide, addresses last, sequences there: as 4.18, 5.10, 6.1, 6.12, 6.15 and 7.0 have it, as
/// kernels with absolute addresses do, and as 7.2 does.
const FORMS: [Form; 8] = [
    form(Addresses::PerCpuAbsolute, [false, true, false, false]),
    form(Addresses::PerCpuAbsolute, [false, false, false, false]),
    form(Addresses::PerCpuAbsolute, [true, false, false, true]),
    form(Addresses::PerCpuAbsolute, [true, false, true, true]),
    form(Addresses::BaseRelative, [true, false, true, true]),
    form(Addresses::PlaceRelative, [true, false, true, true]),
    form(Addresses::Absolute, [false, false, false, false]),
    Form { tight: true, ..form(Addresses::PlaceRelative, [true, false, true, true]) },
];

const fn form(addresses: Addresses, traits: [bool; 4]) -> Form {
    let [long_lengths, wide_markers, addresses_last, sequences] = traits;
    Form { addresses, long_lengths, wide_markers, addresses_last, sequences, tight: false }
}

/// Per-CPU symbols where the form has them at zero, then text and data; aliases, and one name of 140 tokens.
fn symbols(form: Form) -> Vec<Symbol> {
    let mut all: Vec<Symbol> = Vec::new();
    let per_cpu = if form.addresses == Addresses::PerCpuAbsolute { 0 } else { STEXT + 0x0400_0000 };
    let mut percpu_symbols = vec![(per_cpu, b'A', "__per_cpu_start".to_owned())];
    percpu_symbols.extend((0..200).map(|i| (per_cpu + 0x40 * i, b'A', format!("percpu_{i}"))));
    percpu_symbols.push((per_cpu + 0x4000, b'A', "__per_cpu_end".into()));
    if per_cpu == 0 {
        all.append(&mut percpu_symbols);
    }
    all.push((STEXT, b'T', "_stext".into()));
    all.push((STEXT, b'T', "_text".into()));
    all.push((STEXT + 0x10, b't', "twice".into()));
    for i in 1..3000 {
        all.push((STEXT + 0x100 * i, b'T', format!("sys_task_struct_{i}")));
    }
    all.push((STEXT + 0x100_000, b't', "x".repeat(140)));
    all.push((STEXT + 0x100_010, b't', "twice".into()));
    all.push((STEXT + 0x0200_0000, b'D', "init_task".into()));
    all.push((STEXT + 0x0200_2000, b'B', "_end".into()));
    all.append(&mut percpu_symbols);
    all
}

fn table(form: Form) -> (Table, Vec<Symbol>, Ram) {
    let symbols = symbols(form);
    let table = Table::new(AT, &symbols, STEXT, form);
    let mut ram = Ram::default();
    ram.put(AT, &table.bytes);
    (table, symbols, ram)
}

fn info(table: &Table, form: Form) -> Vmcoreinfo {
    let mut text = table.vmcoreinfo(AT, form);
    writeln!(text, "SYMBOL(_stext)={STEXT:x}").unwrap();
    Vmcoreinfo::parse(text.as_bytes())
}

fn check(found: &Kallsyms, symbols: &[Symbol], form: Form) {
    assert_eq!(found.len(), symbols.len(), "{form:?}");
    let got: Vec<Symbol> = found.iter().map(|s| (s.address.0, s.letter as u8, s.name)).collect();
    assert_eq!(got, symbols, "{form:?}");
    assert_eq!(found.notes(), [""; 0], "{form:?}");
    let encoding = match found.encoding() {
        Encoding::Absolute => Addresses::Absolute,
        Encoding::PerCpuAbsolute { .. } => Addresses::PerCpuAbsolute,
        Encoding::BaseRelative { .. } => Addresses::BaseRelative,
        Encoding::PlaceRelative { .. } => Addresses::PlaceRelative,
    };
    assert_eq!(encoding, form.addresses);
    let expected = if form.long_lengths { LengthForm::OneOrTwoBytes } else { LengthForm::OneByte };
    assert_eq!(found.length_form(), expected, "{form:?}");
}

#[test]
fn every_form_is_read_where_vmcoreinfo_names_it() {
    for form in FORMS {
        let (table, symbols, ram) = table(form);
        let found = kallsyms::load(&ram.memory(), &info(&table, form), &Limits::default()).unwrap();
        assert_eq!(found.found(), Found::Vmcoreinfo);
        check(&found, &symbols, form);
    }
}

#[test]
fn every_form_is_found_by_its_shape() {
    for form in FORMS {
        let (_, symbols, ram) = table(form);
        let found = kallsyms::scan(&ram.memory(), Some(KVirtAddr(STEXT)), &Limits::default()).unwrap();
        assert_eq!(found.found(), Found::Scan);
        check(&found, &symbols, form);
    }
}

#[test]
fn it_is_found_without_knowing_where_the_text_is() {
    let (_, symbols, ram) = table(FORMS[1]);
    check(&kallsyms::scan(&ram.memory(), None, &Limits::default()).unwrap(), &symbols, FORMS[1]);
}

#[test]
fn an_address_belongs_to_the_nearest_symbol_below() {
    let (table, _, ram) = table(FORMS[3]);
    let info = info(&table, FORMS[3]);
    let symbols =
        Symbols::new(&info, Some(kallsyms::load(&ram.memory(), &info, &Limits::default()).unwrap()));
    let at = |address: u64| symbols.at(KVirtAddr(address)).map(|s| s.to_string());
    assert_eq!(at(STEXT + 0x2ff), Some("sys_task_struct_2+0xff/0x100".into()));
    // Of aliases the first counts, as in the kernel's own backtraces.
    assert_eq!(at(STEXT), Some("_stext+0x0/0x10".into()));
    assert_eq!(at(STEXT - 1), None);
    // The last symbol has no size, and does not own the rest of the address space.
    assert_eq!(at(STEXT + 0x0200_2008), Some("_end+0x8".into()));
    assert_eq!(at(STEXT + 0x1000_0000), None);
    assert_eq!(at(0x40), None, "a per-CPU symbol has no address of its own");
}

#[test]
fn a_name_finds_all_that_have_it() {
    let (table, _, ram) = table(FORMS[3]);
    let found = kallsyms::load(&ram.memory(), &info(&table, FORMS[3]), &Limits::default()).unwrap();
    let twice: Vec<u64> = found.all("twice").iter().map(|s| s.address.0).collect();
    assert_eq!(twice, [STEXT + 0x10, STEXT + 0x100_010]);
    assert_eq!(found.symbol("no_such_symbol"), None);
    let percpu = found.symbol("percpu_3").unwrap();
    assert!(percpu.per_cpu);
    assert_eq!((percpu.address.0, percpu.size), (0xc0, Some(0x40)));
    assert_eq!(found.per_cpu_section(), Some((KVirtAddr(0), KVirtAddr(0x4000))));
    assert_eq!(found.aliases(KVirtAddr(STEXT)).len(), 2);
    assert_eq!(found.symbol(&"x".repeat(140)).unwrap().address.0, STEXT + 0x100_000);
}

#[test]
fn a_page_that_is_missing_costs_the_symbols_on_it_and_is_told() {
    let form = FORMS[3];
    let (table, symbols, mut ram) = table(form);
    ram.lose(AT + table.names as u64 + 0x2800);
    let found = kallsyms::load(&ram.memory(), &info(&table, form), &Limits::default()).unwrap();
    assert!(found.len() > 2000 && found.len() < symbols.len(), "{}", found.len());
    assert_eq!(found.announced(), symbols.len());
    assert!(
        found.notes().iter().any(|n| n.contains("names of symbols are not in the dump")),
        "{:?}",
        found.notes()
    );
    for symbol in found.iter() {
        assert!(symbols.contains(&(symbol.address.0, symbol.letter as u8, symbol.name)));
    }
    let (_, _, mut ram) = self::table(form);
    ram.lose(AT + table.addresses as u64 + 0x1800);
    let found = kallsyms::load(&ram.memory(), &info(&table, form), &Limits::default()).unwrap();
    assert_eq!(found.len(), symbols.len() - 1024);
    assert_eq!(
        found.notes(),
        [format!("the addresses of 1024 of {} symbols are not in the dump", symbols.len())]
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let form = FORMS[3];
    let (table, _, ram) = table(form);
    let load = |ram: &Ram| {
        kallsyms::load(&ram.memory(), &info(&table, form), &Limits::default()).unwrap_err().to_string()
    };
    let mut many = ram.clone();
    many.put(AT + table.num_syms as u64, &u32::MAX.to_le_bytes());
    assert_eq!(
        load(&many),
        format!(
            "the count of the kernel's symbol table at kaddr {:#x} makes no sense: it counts 4294967295 symbols",
            AT + table.num_syms as u64
        )
    );
    let mut few = ram.clone();
    few.put(AT + table.token_index as u64 + 4, &[7, 7]);
    assert!(load(&few).contains("the token table"), "{}", load(&few));
    let mut gone = ram.clone();
    gone.lose(AT + table.token_index as u64);
    assert!(load(&gone).contains("was left out when the dump was made"), "{}", load(&gone));
    let nothing =
        kallsyms::load(&Ram::default().memory(), &Vmcoreinfo::default(), &Limits::default()).unwrap_err();
    assert!(nothing.to_string().starts_with("no symbol table is in the"), "{nothing}");
}

#[test]
fn addresses_that_fit_nothing_are_refused() {
    let form = FORMS[4];
    let (table, symbols, mut ram) = table(form);
    let noise: Vec<u8> = (0..symbols.len() * 4)
        .map(|i| ((i * 7919) >> 3).to_le_bytes()[0] ^ (i * 31).to_le_bytes()[0])
        .collect();
    ram.put(AT + table.addresses as u64, &noise);
    let error = kallsyms::load(&ram.memory(), &info(&table, form), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("in no known encoding do they ascend"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn damage_never_panics(seed: u64, flips in 1_usize..40, form in 0_usize..8) {
        let (mut table, _, _) = table(FORMS[form]);
        let mut state = seed | 1;
        for _ in 0..flips {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % table.bytes.len();
            table.bytes[at] ^= 1 << (state & 7);
        }
        let mut ram = Ram::default();
        ram.put(AT, &table.bytes);
        if let Ok(found) = kallsyms::load(&ram.memory(), &info(&table, FORMS[form]), &Limits::default()) {
            let _ = (found.at(KVirtAddr(STEXT)), found.symbol("init_task"), found.iter().count());
        }
        let _ = kallsyms::scan(&ram.memory(), Some(KVirtAddr(STEXT)), &Limits::default());
    }
}
