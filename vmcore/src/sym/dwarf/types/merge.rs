//! The same type, described by many source files, once.
//!
//! Two descriptions are one type where their kind, name, size and members agree, and the members' types agree by name. That tells
//! apart what drivers call alike, and does not need to look behind pointers, which not every source file can.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::unit::{Die, Part, Sort};

/// Types that refer to types: more of them in a chain are damage.
const CHAIN: usize = 1 << 10;

/// What tells a type from all others.
pub(super) type Key = u64;

/// A type, described once.
#[derive(Debug)]
pub(super) struct Record<'d> {
    /// The unit that described it first, and which description it was there.
    pub(super) first: (usize, usize),
    pub(super) die: Die<'d>,
    /// The type that it refers to; `None` for `void`.
    pub(super) target: Option<Key>,
    /// The types of its members.
    pub(super) members: Vec<Option<Key>>,
}

/// All types that were seen.
#[derive(Debug, Default)]
pub(super) struct Table<'d> {
    pub(super) records: HashMap<Key, Record<'d>>,
    /// What could not be read.
    pub(super) damage: Option<String>,
}

impl<'d> Table<'d> {
    /// Adds the descriptions of one unit.
    pub(super) fn add(&mut self, unit: usize, dies: &[Die<'d>]) {
        let by_offset: HashMap<usize, usize> =
            dies.iter().enumerate().map(|(n, die)| (die.offset, n)).collect();
        let mut keys = Keys::new(dies, by_offset);
        for (number, die) in dies.iter().enumerate() {
            let key = keys.of(number);
            let first = (unit, number);
            if let Some(known) = self.records.get_mut(&key) {
                known.first = known.first.min(first);
                continue;
            }
            let target = keys.target(die.target);
            let members = die.parts.iter().map(|part| keys.target(part.target)).collect();
            self.records.insert(key, Record { first, die: die.clone(), target, members });
        }
    }

    /// Both together.
    pub(super) fn join(mut self, other: Self) -> Self {
        for (key, record) in other.records {
            match self.records.get(&key) {
                Some(known) if known.first <= record.first => {}
                _ => {
                    self.records.insert(key, record);
                }
            }
        }
        self.damage = self.damage.or(other.damage);
        self
    }

    /// Notes what could not be read; the first one is told.
    pub(super) fn note(&mut self, why: &str) {
        self.damage.get_or_insert_with(|| format!("a source file's types can't all be read: {why}"));
    }
}

/// The keys of one unit's descriptions.
struct Keys<'u, 'd> {
    dies: &'u [Die<'d>],
    by_offset: HashMap<usize, usize>,
    /// How other types see each: what has a name by that, everything else by what it is made of.
    tokens: Vec<Option<u64>>,
    known: Vec<Option<Key>>,
}

impl<'u, 'd> Keys<'u, 'd> {
    fn new(dies: &'u [Die<'d>], by_offset: HashMap<usize, usize>) -> Self {
        Self { dies, by_offset, tokens: vec![None; dies.len()], known: vec![None; dies.len()] }
    }

    fn place(&self, target: Option<usize>) -> Option<usize> {
        self.by_offset.get(&target?).copied()
    }

    fn target(&mut self, target: Option<usize>) -> Option<Key> {
        self.place(target).map(|number| self.of(number))
    }

    /// The token of a description; what it needs is worked on first, without recursion. A circle of nameless types, which C can't
    /// have, is broken where it closes.
    fn token(&mut self, number: usize) -> u64 {
        let mut work = vec![number];
        while let Some(&top) = work.last() {
            let Some(die) = self.dies.get(top).filter(|_| self.tokens.get(top).is_some_and(Option::is_none))
            else {
                work.pop();
                continue;
            };
            let open = if is_named(die) || work.len() >= CHAIN {
                None
            } else {
                let needed = std::iter::once(die.target).chain(die.parts.iter().map(|part| part.target));
                let unknown = |n: &usize| self.tokens.get(*n).is_some_and(Option::is_none);
                needed.filter_map(|t| self.place(t)).find(|n| unknown(n) && !work.contains(n))
            };
            if let Some(next) = open {
                work.push(next);
                continue;
            }
            let token = if is_named(die) { by_name(die) } else { self.whole(die) };
            if let Some(slot) = self.tokens.get_mut(top) {
                *slot = Some(token);
            }
            work.pop();
        }
        self.tokens.get(number).copied().flatten().unwrap_or_default()
    }

    /// What a description is made of; other types count by their tokens, as far as these are known.
    fn whole(&self, die: &Die<'_>) -> u64 {
        let token = |target: Option<usize>| match self.place(target) {
            Some(number) => self.tokens.get(number).copied().flatten().unwrap_or_default(),
            None => 1,
        };
        let mut hasher = DefaultHasher::new();
        (die.sort, die.name, die.size, die.declared, token(die.target)).hash(&mut hasher);
        for Part { name, target, value, bits } in &die.parts {
            (name, value, bits, token(*target)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The key of a description. A pointer to a struct that this file knows is another one than a pointer to one that is only declared
    /// in it: the chain is followed down to what has a name or members.
    fn of(&mut self, number: usize) -> Key {
        let mut chain = Vec::new();
        let mut at = number;
        let mut key = loop {
            if let Some(known) = self.known.get(at).copied().flatten() {
                break known;
            }
            let Some(die) = self.dies.get(at) else { break 0 };
            let onward = if is_named(die) || !die.parts.iter().all(|part| part.target.is_none()) {
                None
            } else {
                self.place(die.target)
                    .filter(|next| chain.len() < CHAIN && !chain.contains(next) && *next != at)
            };
            if let Some(next) = onward {
                chain.push(at);
                at = next;
                continue;
            }
            let token = self.token(at);
            if is_named(die) {
                for target in std::iter::once(die.target).chain(die.parts.iter().map(|part| part.target)) {
                    if let Some(needed) = self.place(target) {
                        self.token(needed);
                    }
                }
            }
            let key = if is_named(die) && !die.declared { self.whole(die) } else { token };
            self.set(at, key);
            break key;
        };
        while let Some(outer) = chain.pop() {
            let mut hasher = DefaultHasher::new();
            (self.token(outer), key).hash(&mut hasher);
            key = hasher.finish();
            self.set(outer, key);
        }
        key
    }

    fn set(&mut self, number: usize, key: Key) {
        if let Some(slot) = self.known.get_mut(number) {
            *slot = Some(key);
        }
    }
}

/// True for what C knows by a name.
fn is_named(die: &Die<'_>) -> bool {
    let can = matches!(
        die.sort,
        Sort::Struct | Sort::Union | Sort::Enum | Sort::Typedef | Sort::Base { .. } | Sort::Float
    );
    can && !die.name.is_empty()
}

/// A struct that is only declared and the same one with its members have this in common.
pub(super) fn by_name(die: &Die<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (die.sort, die.name).hash(&mut hasher);
    hasher.finish()
}
