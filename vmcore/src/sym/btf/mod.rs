//! The kernel's own description of its types (BTF), kept in every kernel since 5.4 that distributions build, and in RHEL 8 from 8.2 on.
//!
//! It has all structs, unions, enums, typedefs and functions, and the types of per-CPU variables, but of no other variables. Which
//! members a struct has decides how it is read: never the kernel's version, because distributions move members back and forth.
//!
//! Format: `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h` of the kernel.

mod load;
mod table;
mod types;

use std::sync::Arc;

pub use load::{BtfSource, find_kernel_btf, load_kernel_btf, load_module_btf};
pub use table::Btf;
pub use types::{Enum, Kind, Member, Struct, Type};

/// The number of a type in its table; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// Why BTF, or one type of it, is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BtfError {
    /// Not even a header.
    #[error("{len} bytes are too short for a BTF header")]
    Short {
        /// How many bytes there are.
        len: usize,
    },
    /// Something else.
    #[error("the BTF begins with {found:#06x} instead of 0xeb9f")]
    Magic {
        /// The first two bytes.
        found: u16,
    },
    /// A version that nobody has seen.
    #[error("the BTF is of version {found}, and only version 1 is known")]
    Version {
        /// The version.
        found: u8,
    },
    /// A section outside of the data.
    #[error("the BTF's {what} should be at {start:#x} to {end:#x}, but there are {len:#x} bytes")]
    Section {
        /// Which section.
        what: &'static str,
        /// Where it should begin.
        start: u64,
        /// Where it should end.
        end: u64,
        /// How many bytes there are.
        len: usize,
    },
    /// Not one type.
    #[error("the BTF has no readable type: {why}")]
    NoTypes {
        /// What is wrong with the first.
        why: String,
    },
    /// An id that no type has.
    #[error("BTF type {} does not exist", id.0)]
    NoSuchId {
        /// The id.
        id: TypeId,
    },
    /// Types that refer to each other in a circle.
    #[error("BTF type {} refers to itself, or through too many others", id.0)]
    Cycle {
        /// The type that was asked for.
        id: TypeId,
    },
    /// A size past 2^64.
    #[error("BTF type {} is larger than any memory", id.0)]
    TooBig {
        /// The type that was asked for.
        id: TypeId,
    },
    /// The BTF's bytes are not in the dump.
    #[error("the BTF can't be read: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
}

/// Why a type or member can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// This kernel has no such type.
    #[error("this kernel has no {what} {name}")]
    NoType {
        /// «struct», «enum», «per-CPU variable».
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// This kernel's type has no such member or enumerator.
    #[error("{of} of this kernel has no {names}")]
    NoMember {
        /// The type.
        of: String,
        /// The name, or the names that were tried.
        names: String,
    },
    /// A struct was needed.
    #[error("{name:?} is no struct or union, but {kind:?}")]
    NotAStruct {
        /// The type's name; empty where it has none.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// A member is not of the size or sort that its reader can take.
    #[error("{member} of {of} has {found}, which can't be read as {wanted}")]
    Unfit {
        /// The struct.
        of: String,
        /// The member.
        member: String,
        /// Its size or sort: «3 bytes».
        found: String,
        /// What was wanted: «a pointer».
        wanted: &'static str,
    },
    /// More nested members than any kernel has: the table is damaged.
    #[error("{of} has too many members to be true")]
    TooDeep {
        /// The type.
        of: String,
    },
    /// The table itself is damaged there.
    #[error(transparent)]
    Damaged(#[from] BtfError),
}

impl Btf {
    /// A struct or union by its name, or by a typedef's (`atomic_t`).
    ///
    /// Where several have that name (drivers do that), it is the one with the lowest id; [`Btf::structures`] has them all.
    ///
    /// # Errors
    /// When there is none.
    pub fn structure(&self, name: &str) -> Result<Struct<'_>, TypeError> {
        let direct = self
            .named(name)
            .filter(|t| matches!(t.kind(), Kind::Struct | Kind::Union))
            .find_map(|t| t.as_struct().ok());
        let aliased =
            || self.named(name).filter(|t| t.kind() == Kind::Typedef).find_map(|t| t.as_struct().ok());
        // A lookup borrows the name only while it runs; what it finds borrows the table.
        let found = direct.or_else(aliased).map(|s| s.ty().id());
        let id = found.ok_or_else(|| TypeError::NoType { what: "struct", name: name.to_owned() })?;
        self.by_id(id)?.as_struct()
    }

    /// All structs and unions of that name.
    pub fn structures<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Struct<'a>> + 'a {
        self.named(name)
            .filter(|t| matches!(t.kind(), Kind::Struct | Kind::Union))
            .filter_map(|t| t.as_struct().ok())
    }

    /// An enum by its name, or by a typedef's.
    ///
    /// # Errors
    /// When there is none.
    pub fn enumeration(&self, name: &str) -> Result<Enum<'_>, TypeError> {
        let found =
            self.named(name).filter_map(|t| t.resolve().ok()).find(|t| t.kind() == Kind::Enum).map(Type::id);
        let id = found.ok_or_else(|| TypeError::NoType { what: "enum", name: name.to_owned() })?;
        Ok(Enum::new(self.by_id(id)?))
    }

    /// The value of an enumerator of an enum without a name, such as `PIDTYPE_MAX`'s was once: all enums are searched.
    ///
    /// # Errors
    /// When no enum has it.
    pub fn constant(&self, name: &str) -> Result<i64, TypeError> {
        let value = self
            .ids()
            .filter_map(|id| self.by_id(id).ok())
            .filter(|t| t.kind() == Kind::Enum)
            .find_map(|t| t.enumerators().find(|(n, _)| *n == name).map(|(_, value)| value));
        value.ok_or_else(|| TypeError::NoType { what: "constant", name: name.to_owned() })
    }

    /// Any data type by its name: an integer, a typedef, a struct, an enum.
    ///
    /// # Errors
    /// When there is none.
    pub fn data_type(&self, name: &str) -> Result<Type<'_>, TypeError> {
        let data = |t: &Type<'_>| !matches!(t.kind(), Kind::Variable | Kind::Section);
        let found = self.named(name).find(data).map(Type::id);
        let id = found.ok_or_else(|| TypeError::NoType { what: "type", name: name.to_owned() })?;
        Ok(self.by_id(id)?)
    }

    /// The type of a variable. BTF knows those of per-CPU variables, and of others only where a kernel was built so.
    ///
    /// # Errors
    /// When BTF does not tell it.
    pub fn variable(&self, name: &str) -> Result<Type<'_>, TypeError> {
        let found = self
            .named(name)
            .find(|t| t.kind() == Kind::Variable)
            .and_then(|t| t.target().ok().flatten())
            .map(Type::id);
        let id = found.ok_or_else(|| TypeError::NoType { what: "variable", name: name.to_owned() })?;
        Ok(self.by_id(id)?)
    }

    /// The per-CPU variables: name, type, offset in the per-CPU section and size.
    pub fn per_cpu_variables(&self) -> impl Iterator<Item = (&str, Type<'_>, u32, u32)> {
        let sections = self.named(".data..percpu").filter(|t| t.kind() == Kind::Section);
        sections.flat_map(Type::section_places).filter_map(|(id, offset, size)| {
            let variable = self.by_id(id).ok()?;
            Some((variable.name(), variable.target().ok().flatten()?, offset, size))
        })
    }
}

/// All types of a dump: the kernel's, and those of the modules that were loaded.
#[derive(Debug, Default, Clone)]
pub struct Types {
    kernel: Option<Arc<Btf>>,
    modules: Vec<(String, Arc<Btf>)>,
}

impl Types {
    /// Only the kernel's types.
    #[must_use]
    pub fn new(kernel: Arc<Btf>) -> Self {
        Self { kernel: Some(kernel), modules: Vec::new() }
    }

    /// Adds a module's types.
    pub fn add_module(&mut self, name: String, types: Arc<Btf>) {
        self.modules.push((name, types));
    }

    /// The kernel's own table.
    #[must_use]
    pub fn kernel(&self) -> Option<&Arc<Btf>> {
        self.kernel.as_ref()
    }

    /// The tables of the modules, by name.
    #[must_use]
    pub fn modules(&self) -> &[(String, Arc<Btf>)] {
        &self.modules
    }

    /// All tables, the kernel's first.
    fn tables(&self) -> impl Iterator<Item = &Btf> {
        self.kernel.iter().map(AsRef::as_ref).chain(self.modules.iter().map(|(_, t)| t.as_ref()))
    }

    /// A struct or union of the kernel or else of a module.
    ///
    /// # Errors
    /// When there is none.
    pub fn structure(&self, name: &str) -> Result<Struct<'_>, TypeError> {
        let missing = TypeError::NoType { what: "struct", name: name.to_owned() };
        self.tables().find_map(|t| t.structure(name).ok()).ok_or(missing)
    }

    /// An enum of the kernel or else of a module.
    ///
    /// # Errors
    /// When there is none.
    pub fn enumeration(&self, name: &str) -> Result<Enum<'_>, TypeError> {
        let missing = TypeError::NoType { what: "enum", name: name.to_owned() };
        self.tables().find_map(|t| t.enumeration(name).ok()).ok_or(missing)
    }

    /// The type of a variable of the kernel or else of a module, where BTF tells it.
    ///
    /// # Errors
    /// When BTF does not tell it.
    pub fn variable(&self, name: &str) -> Result<Type<'_>, TypeError> {
        let missing = TypeError::NoType { what: "variable", name: name.to_owned() };
        self.tables().find_map(|t| t.variable(name).ok()).ok_or(missing)
    }
}
