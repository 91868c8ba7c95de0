//! How the dumped kernel marks its pages, and what the marks of one page say.

use super::Class;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::sym::btf::Types;
use crate::xlat::le;

/// A mark in `page_type`, which shares its place with `_mapcount`.
#[derive(Clone, Copy, Debug)]
struct TypeMark(u32);

impl TypeMark {
    /// True where the page has this type. Since 6.12 the top byte is a number; before, each type clears a bit of its own.
    fn marks(self, page_type: u32) -> bool {
        if self.0.trailing_zeros() >= 24 {
            page_type & 0xff00_0000 == self.0
        } else {
            let flag = !self.0;
            // The bits were moved up in 6.11, and with them the mark that says that there is a type.
            let base = if flag > 0xffff { 0x8000_0000 } else { 0xf000_0000 };
            page_type & (base | flag) == base
        }
    }
}

/// Where the order of a compound page is.
#[derive(Clone, Copy, Debug)]
enum OrderAt {
    /// A byte in the second `struct page`.
    Second(usize),
    /// A byte, counted from the first.
    Folio(usize),
    /// The low byte of the second one's flags.
    SecondFlags,
}

/// What tells a huge page.
#[derive(Clone, Copy, Debug)]
enum Huge {
    Type(TypeMark),
    SecondFlag(u64),
    Destructor { at: usize, number: u8 },
}

/// How the dumped kernel marks its pages.
#[derive(Clone, Debug)]
pub struct Rules {
    flags: usize,
    mapcount: usize,
    mapping: Option<usize>,
    private: Option<usize>,
    compound: Option<usize>,
    buddy: Option<TypeMark>,
    slab: Option<Slab>,
    huge: Option<Huge>,
    offline: Option<TypeMark>,
    unaccepted: Option<TypeMark>,
    lru: Option<u64>,
    private_flag: Option<u64>,
    swapcache: Option<u64>,
    swapbacked: Option<u64>,
    hwpoison: Option<u64>,
    head: Option<u64>,
    order_at: OrderAt,
    most_orders: u64,
    missing: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Slab {
    Flag(u64),
    Type(TypeMark),
}

/// What one page's marks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) class: Class,
    /// How many frames are like it: those of a free block or of a compound page.
    pub(super) frames: u64,
    /// The frames behind it are tails of a compound page.
    pub(super) compound: bool,
    /// The hardware of this one frame is broken.
    pub(super) poisoned: bool,
}

/// How the kernel's types name a page type that VMCOREINFO leaves out.
fn named(info: &Vmcoreinfo, types: Option<&Types>, key: &str, name: &str) -> Option<TypeMark> {
    let told = info.number(key).map(|number| u32::from_le_bytes(low(number)));
    let enumerated = || {
        let types = types?;
        let number = value_of(types, "pagetype", &format!("PGTY_{name}"));
        let new = number.and_then(|n| u32::try_from(n).ok()).map(|n| n.wrapping_shl(24));
        // 6.11 has an enumeration of bits.
        let old = || Some(!u32::from_le_bytes(low(value_of(types, "pagetype", &format!("PG_{name}"))?)));
        new.or_else(old)
    };
    told.or_else(enumerated).map(TypeMark)
}

fn low(number: i64) -> [u8; 4] {
    let [a, b, c, d, ..] = number.to_le_bytes();
    [a, b, c, d]
}

fn flag(info: &Vmcoreinfo, types: Option<&Types>, name: &str) -> Option<u64> {
    let number = info.number(name).or_else(|| value_of(types?, "pageflags", name))?;
    u32::try_from(number).ok().and_then(|bit| 1_u64.checked_shl(bit))
}

fn place(info: &Vmcoreinfo, name: &str) -> Option<usize> {
    info.offset(name).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < 504)
}

impl Rules {
    /// Learns the marks from VMCOREINFO, and from the kernel's types what that leaves out.
    ///
    /// # Errors
    /// Where not even the place of the flags and of the type is known.
    pub fn new(info: &Vmcoreinfo, types: Option<&Types>) -> Result<Self, String> {
        let flags = place(info, "page.flags").ok_or("VMCOREINFO does not tell where page.flags is")?;
        let mapcount =
            place(info, "page._mapcount").ok_or("VMCOREINFO does not tell where page._mapcount is")?;
        let slab = flag(info, types, "PG_slab")
            .map(Slab::Flag)
            .or_else(|| named(info, types, "PAGE_SLAB_MAPCOUNT_VALUE", "slab").map(Slab::Type));
        let huge = named(info, types, "PAGE_HUGETLB_MAPCOUNT_VALUE", "hugetlb").map(Huge::Type);
        let huge = huge.or_else(|| flag(info, None, "PG_hugetlb").map(Huge::SecondFlag)).or_else(|| {
            let number = info.number("HUGETLB_PAGE_DTOR").and_then(|n| u8::try_from(n).ok())?;
            let in_second = place(info, "page.compound_dtor")
                .and_then(|at| at.checked_add(usize::try_from(info.size("page")?).ok()?));
            let at = in_second.or_else(|| place(info, "folio._folio_dtor"))?;
            Some(Huge::Destructor { at, number })
        });
        let order_at = place(info, "page.compound_order")
            .map(OrderAt::Second)
            .or_else(|| place(info, "folio._folio_order").map(OrderAt::Folio))
            .unwrap_or(OrderAt::SecondFlags);
        let head = info.number("PG_head_mask").map(i64::cast_unsigned);
        let mut this = Self {
            flags,
            mapcount,
            mapping: place(info, "page.mapping"),
            private: place(info, "page.private"),
            compound: place(info, "page.compound_head").or_else(|| place(info, "page.compound_info")),
            buddy: named(info, types, "PAGE_BUDDY_MAPCOUNT_VALUE", "buddy"),
            slab,
            huge,
            offline: named(info, types, "PAGE_OFFLINE_MAPCOUNT_VALUE", "offline"),
            unaccepted: named(info, types, "PAGE_UNACCEPTED_MAPCOUNT_VALUE", "unaccepted"),
            lru: flag(info, types, "PG_lru"),
            private_flag: flag(info, types, "PG_private"),
            swapcache: flag(info, types, "PG_swapcache"),
            swapbacked: flag(info, types, "PG_swapbacked"),
            hwpoison: flag(info, types, "PG_hwpoison"),
            head: head.or_else(|| flag(info, types, "PG_head")),
            order_at,
            most_orders: info.length("zone.free_area").filter(|n| (1..=32).contains(n)).unwrap_or(11),
            missing: Vec::new(),
        };
        this.missing = this.find_missing();
        Ok(this)
    }

    fn find_missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |known: bool, what: &str| {
            if !known {
                missing.push(what.to_owned());
            }
        };
        need(
            self.buddy.is_some() && self.private.is_some(),
            "free pages are kept: how they are marked is not known",
        );
        let whole = self.compound.is_some() && self.head.is_some();
        need(whole, "pages of processes and page cache are kept: how compound pages are marked is not known");
        need(
            self.slab.is_some(),
            "pages of processes and page cache are kept: how slab pages are marked is not known",
        );
        need(
            self.mapping.is_some(),
            "pages of processes and page cache are kept: where page.mapping is is not known",
        );
        need(
            self.lru.is_some() && self.private_flag.is_some(),
            "page cache is kept: how it is marked is not known",
        );
        need(self.huge.is_some(), "huge pages are kept: how they are marked is not known");
        missing
    }

    /// One sentence per class that can't be told.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What `page` says, with the bytes of the one behind it. `None` where it is a tail, or where its marks can't be.
    pub(super) fn see(&self, pfn: u64, page: &[u8], second: &[u8]) -> Option<Seen> {
        let flags = le::u64_at(page, self.flags)?;
        let page_type = le::u32_at(page, self.mapcount)?;
        let poisoned = self.hwpoison.is_some_and(|bit| flags & bit != 0);
        let one = |class| Some(Seen { class, frames: 1, compound: false, poisoned });
        let marked = |mark: Option<TypeMark>| mark.is_some_and(|mark| mark.marks(page_type));
        let block = |class, order: u64| {
            let frames = u32::try_from(order).ok().and_then(|order| 1_u64.checked_shl(order))?;
            let aligned = pfn & frames.wrapping_sub(1) == 0;
            aligned.then_some(Seen { class, frames, compound: false, poisoned })
        };
        if self.is_tail(page)? {
            return None;
        }
        if let Some(private) = self.private.filter(|_| marked(self.buddy)) {
            let order = le::u64_at(page, private)?;
            return if order < self.most_orders { block(Class::Free, order) } else { None };
        }
        if marked(self.unaccepted) {
            return block(Class::Unaccepted, self.most_orders.saturating_sub(1));
        }
        let is_slab = match self.slab {
            Some(Slab::Flag(bit)) => flags & bit != 0,
            Some(Slab::Type(mark)) => mark.marks(page_type),
            // Where slab can't be told from the rest, nothing may be taken for the rest.
            None => true,
        };
        if marked(self.offline) {
            return one(if is_slab { Class::Kernel } else { Class::Offline });
        }
        let (Some(mapping_at), Some(head)) = (self.mapping, self.head) else { return one(Class::Kernel) };
        if is_slab || self.compound.is_none() {
            return one(Class::Kernel);
        }
        let compound = flags & head != 0;
        let is_huge = compound
            && match self.huge {
                Some(Huge::Type(mark)) => mark.marks(page_type),
                Some(Huge::SecondFlag(bit)) => le::u64_at(second, self.flags)? & bit != 0,
                Some(Huge::Destructor { at, number }) => byte(page, second, at)? == number,
                None => false,
            };
        let anonymous = le::u64_at(page, mapping_at)? & 1 != 0;
        let has = |bit: Option<u64>| bit.is_some_and(|bit| flags & bit != 0);
        let in_cache = has(self.lru) || (has(self.swapcache) && has(self.swapbacked));
        let class = if is_huge || (anonymous && !is_typed(page_type)) {
            Class::User
        } else if in_cache && !anonymous && self.private_flag.is_some() {
            if has(self.private_flag) { Class::CachePrivate } else { Class::Cache }
        } else {
            return one(if poisoned { Class::HwPoison } else { Class::Kernel });
        };
        if !compound {
            return one(class);
        }
        let order = match self.order_at {
            OrderAt::Second(at) => u64::from(*second.get(at)?),
            OrderAt::Folio(at) => u64::from(byte(page, second, at)?),
            OrderAt::SecondFlags => le::u64_at(second, self.flags)? & 0xff,
        };
        if order == 0 || order > 32 {
            return None;
        }
        block(class, order).map(|seen| Seen { compound: true, ..seen })
    }

    /// True where the page is surely the first of a slab, or all of one: not a tail, and marked.
    pub(super) fn is_slab(&self, page: &[u8]) -> bool {
        let first = self.compound.is_some() && self.is_tail(page) == Some(false);
        let flags = || le::u64_at(page, self.flags).unwrap_or(0);
        let marked = match self.slab {
            Some(Slab::Flag(bit)) => flags() & bit != 0,
            Some(Slab::Type(mark)) => le::u32_at(page, self.mapcount).is_some_and(|ty| mark.marks(ty)),
            None => false,
        };
        first && marked
    }

    /// True where the hardware of this frame is broken.
    pub(super) fn is_poisoned(&self, page: &[u8]) -> bool {
        let flags = le::u64_at(page, self.flags).unwrap_or(0);
        self.hwpoison.is_some_and(|bit| flags & bit != 0)
    }

    /// True where the page is a tail of a compound page.
    pub(super) fn is_tail(&self, page: &[u8]) -> Option<bool> {
        match self.compound {
            Some(at) => Some(le::u64_at(page, at)? & 1 != 0),
            None => Some(false),
        }
    }

    /// True where the page may stand behind the first of a compound page: a tail, or the head's own `struct page` seen once
    /// more, which is how the kernel saves room for huge pages (every 4 KiB of them).
    pub(super) fn continues(&self, pfn: u64, page: &[u8], page_struct: u64) -> bool {
        let per_frame = 4096_u64.checked_div(page_struct).unwrap_or(64).max(1);
        let again = || {
            let flags = le::u64_at(page, self.flags).unwrap_or(0);
            pfn.checked_rem(per_frame) == Some(0) && self.head.is_some_and(|head| flags & head != 0)
        };
        self.is_tail(page).unwrap_or(false) || again()
    }

    /// True where the page begins something of its own, so that it can't be inside a free block.
    pub(super) fn begins(&self, page: &[u8]) -> bool {
        let Some(page_type) = le::u32_at(page, self.mapcount) else { return true };
        let flags = le::u64_at(page, self.flags).unwrap_or(u64::MAX);
        let in_use = [self.lru, self.head].into_iter().flatten().any(|bit| flags & bit != 0);
        in_use || is_typed(page_type) || self.is_tail(page).unwrap_or(true)
    }
}

/// True where `_mapcount` is a page type and not a count. A count is -1 for none, or not negative; types are far below it.
fn is_typed(page_type: u32) -> bool {
    (0x8000_0000..0xffff_ff80).contains(&page_type)
}

/// The number of an enumerator.
fn value_of(types: &Types, of: &str, name: &str) -> Option<i64> {
    types.enumeration(of).ok()?.values().find(|(other, _)| *other == name).map(|(_, value)| value)
}

fn byte(page: &[u8], second: &[u8], at: usize) -> Option<u8> {
    match at.checked_sub(page.len()) {
        None => page.get(at).copied(),
        Some(behind) => second.get(behind).copied(),
    }
}
